"""Pockets of a protein, given by a place, a ligand or residues; beside them `read` and `ligands`, which docking starts from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import pockets
from diffusionkit.molecule.ligand_files import ligands, positions
from diffusionkit.molecule.pockets import OTHER, Pocket
from diffusionkit.molecule.protein_files import read

__all__ = ["ligands", "pocket", "read"]

BLIND = 1500
"""Heavy atoms of a protein that is searched as a whole, at most."""
_OVERLAP = 1.5  # Å within which a hetero group is a copy of the ligand
_CLOSE = 4.0  # Å about the centre within which a large hetero group is in the way of any ligand


def pocket(
    protein: Pocket,
    *,
    center: Iterable[float] | None = None,
    reference: Any = None,
    residues: str | None = None,
    radius: float = 12.0,
    without: str = "",
) -> Pocket:
    """The part of a protein that a ligand is docked to. One of the first three says where; none, the whole of a small one.

    Args:
        protein: of `read`.
        center: (3,) of the box, in Angstrom.
        reference: a ligand that lies there: an .sdf, .mol, .mol2 or .pdb file, or an RDKit molecule with coordinates. The
            centroid of its heavy atoms is the centre, and hetero groups that overlap it are left out.
        residues: that line the pocket, as in "A:45,A:47B"; their atoms' mean is the centre.
        radius: within which atoms are kept, in Angstrom.
        without: hetero groups to leave out, by name or place, as in "SO4,A:301".

    Raises:
        UserError: for more than one of them, a residue or group that is not there, no atom near the box, or a whole protein
            that is too large.
    """
    name = protein.name
    told = {"center": center, "reference": reference, "residues": residues}
    given = [key for key, value in told.items() if value is not None]
    if len(given) > 1:
        raise UserError(f"{name}: {' and '.join(given)} both name the pocket; give one of them")
    if not radius > 0:
        raise UserError(f"{name}: radius must be positive, not {radius:g}")
    protein = _without(protein, without)
    if not given:
        return _whole(protein)
    if center is not None:
        middle = _place(center)
    elif residues is not None:
        middle = protein.pos[_chosen(protein, residues)].mean(0)
    else:
        ligand = positions(reference)
        middle, protein = ligand.mean(0), _freed(protein, ligand)
    found = pockets.crop(protein, middle, radius)
    if not len(found):
        low, high = (", ".join(f"{v:.0f}" for v in ends) for ends in (protein.pos.min(0), protein.pos.max(0)))
        raise UserError(
            f"{name}: has no atom within {radius:g} Å of ({', '.join(f'{v:.1f}' for v in middle)}); its atoms lie between "
            f"({low}) and ({high})"
        )
    return _named(found)


def _whole(protein: Pocket) -> Pocket:
    if len(protein) > BLIND:
        raise UserError(
            f"{protein.name}: has {len(protein):,} heavy atoms, and at most {BLIND:,} are searched as a whole; name the pocket "
            "by its center, a reference ligand or residues"
        )
    return _named(replace(protein, center=protein.pos.mean(0)))


def _place(center: Iterable[float]) -> np.ndarray:
    try:
        found = np.array([float(value) for value in center])
    except (TypeError, ValueError) as error:
        raise UserError(f"center: three numbers in Angstrom are wanted ({error})") from error
    if found.shape != (3,) or not np.isfinite(found).all():
        raise UserError(f"center: three numbers in Angstrom are wanted, not {', '.join(map(str, found.tolist()))}")
    return found


def _chosen(protein: Pocket, residues: str) -> np.ndarray:
    """Which atoms (M,) are of the residues "A:45,A:47"."""
    places = {label.split(" ")[0]: group for group, label in enumerate(protein.labels)}
    wanted = [text.strip() for text in residues.split(",") if text.strip()]
    for text in wanted:
        if text not in places:
            chains = sorted({place.rpartition(":")[0] for place in places})
            raise UserError(
                f"{protein.name}: has no residue {text}; residues are written as {next(iter(places), 'A:45')}, chains "
                f"are {', '.join(chains)}"
            )
    if not wanted:
        raise UserError(f"{protein.name}: residues names none; write them as {next(iter(places), 'A:45')}")
    return np.isin(protein.group, [places[text] for text in wanted])


def _without(protein: Pocket, without: str) -> Pocket:
    """The protein without hetero groups given by name or place."""
    hetero = set(protein.group[protein.residue == OTHER].tolist())
    for text in filter(None, map(str.strip, without.split(","))):
        gone = [g for g in hetero if protein.labels and text in protein.labels[g].split(" ")]
        if not gone:
            there = ", ".join(_some(protein.labels[g] for g in sorted(hetero))) if protein.labels else ""
            raise UserError(f"{protein.name}: has no hetero group {text} to leave out; there are {there or 'none'}")
        hetero -= set(gone)
        protein = _left_out(protein, gone, "as asked")
        hetero = set(protein.group[protein.residue == OTHER].tolist())
    return protein


def _freed(protein: Pocket, ligand: np.ndarray) -> Pocket:
    """The protein without hetero groups that lie where the ligand (N, 3) lies."""
    from scipy.spatial import cKDTree

    distance = cKDTree(ligand).query(protein.pos)[0]
    gone = np.unique(protein.group[(distance < _OVERLAP) & (protein.residue == OTHER)]).tolist()
    return _left_out(protein, gone, "they overlap the reference ligand") if gone else protein


def _left_out(protein: Pocket, groups: Sequence[int], reason: str) -> Pocket:
    names = ", ".join(_some(protein.labels[g] for g in groups)) if protein.labels else f"{len(groups)}"
    kept = pockets.take(protein, ~np.isin(protein.group, groups))
    return replace(kept, notes=(*kept.notes, f"hetero groups left out ({reason}): {names}"))


def _named(found: Pocket) -> Pocket:
    """The pocket with a note on the hetero groups in it, and one on those that fill it."""
    groups = np.unique(found.group[found.residue == OTHER]).tolist()
    if not groups or not found.labels:
        return found
    notes = [f"hetero groups kept: {', '.join(_some(found.labels[g] for g in groups))}"]
    near = ((found.pos - found.center) ** 2).sum(1) < _CLOSE**2
    filling = [g for g in groups if (found.group == g).sum() > 5 and (near & (found.group == g)).any()]
    if filling:
        names = ", ".join(found.labels[g] for g in filling)
        notes.append(f"at the centre lies {names}, and poses will keep off it; leave it out if it is a ligand")
    return replace(found, notes=(*found.notes, *notes))


def _some(labels: Iterable[str], most: int = 8) -> list[str]:
    every = list(labels)
    return every if len(every) <= most else [*every[:most], f"and {len(every) - most} more"]
