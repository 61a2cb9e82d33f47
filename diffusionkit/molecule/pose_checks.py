"""Whether a pose is right and whether it is sound: distance to the known one, clashes, and the checks of PoseBusters."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.molecule import chemistry
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.energy import busters
from diffusionkit.molecule.picking import distances
from diffusionkit.molecule.pockets import ATOM_NAMES, OTHER, RESIDUES, Pocket

if TYPE_CHECKING:
    from rdkit import Chem

CLOSE = 0.75
"""Share of the sum of two radii below which atoms clash (Buttenschoen et al. 2024, "PoseBusters")."""
RIGHT = 2.0
"""Å of RMSD below which a pose counts as right."""
# Elements that PoseBusters takes for inorganic cofactors; their covalent radii count.
_METALS = (3, 4, 11, 12, 19, 20, 25, 26, 27, 28, 29, 30, 37, 42, 48)


def rmsd(mol: Chem.Mol, places: np.ndarray, known: Chem.Mol) -> np.ndarray:
    """(k,) RMSD in Å of poses (k, N, 3) to the known one, in place, over heavy atoms, symmetric atoms exchanged as suits best.

    Args:
        mol: of N heavy atoms.
        places: positions in the frame of the known pose.
        known: the same molecule with its pose, in any order of atoms.
    """
    from diffusionkit.molecule.rmsd import rmsd_matrix

    return rmsd_matrix(with_conformers(mol, places), known, aligned=False)[0]


def density(places: np.ndarray, mol: Chem.Mol) -> np.ndarray:
    """(k,) in (0, 1]: how many of all poses (k, N, 3) lie near to each, a pose at the distance d (Å) counting exp(-(d / 2)^2).

    If the poses are draws of a model, this is, smoothed, the chance that the model itself gives a pose of being right. All poses
    of one mode count, where a mean distance would prefer what lies between two modes.
    """
    return np.exp(-((distances(places, mol, aligned=False) / RIGHT) ** 2)).mean(1)


def clashes(mol: Chem.Mol, places: np.ndarray, pocket: Pocket) -> np.ndarray:
    """(k,) pairs of heavy atoms of pocket and ligand that are nearer than `CLOSE` of the sum of their radii.

    Radii are van der Waals', those of metal ions covalent ones, as in PoseBusters.

    Args:
        mol: of N heavy atoms.
        places: (k, N, 3) in the frame of the pocket.
        pocket: with M atoms.
    """
    own = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    limit = np.where(
        metal(pocket)[:, None],
        radii()[1][pocket.z][:, None] + radii()[1][own],
        radii()[0][pocket.z][:, None] + radii()[0][own],
    )
    square = (CLOSE * limit) ** 2
    return np.array([((_square(pocket.pos, place)) < square).sum() for place in places], dtype=int)


def metal(pocket: Pocket) -> np.ndarray:
    """(M,) which atoms are metal ions."""
    return np.isin(pocket.z, _METALS)


def _square(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return ((first[:, None] - second[None]) ** 2).sum(-1)


@cache
def radii() -> tuple[np.ndarray, np.ndarray]:
    """Van der Waals and covalent radii (119,) in Å of all elements, by RDKit's tables."""
    from rdkit import Chem

    table = Chem.GetPeriodicTable()
    kinds = (table.GetRvdw, table.GetRcovalent)
    return tuple(np.array([0.0, *(kind(z) for z in range(1, 119))]) for kind in kinds)  # type: ignore[return-value]


# ---- PoseBusters


def sound(mol: Chem.Mol, pocket: Pocket, known: Chem.Mol | None = None, energy: bool = True) -> list[dict[str, bool]]:
    """The checks of PoseBusters (Buttenschoen et al. 2024) for each conformer of a molecule: names, and whether it passes.

    A pose is "PB-valid" if all are passed. With the known pose its formula, bonds and stereo are compared as well ("redock");
    its RMSD is none of these checks.

    Args:
        mol: with a conformer for each pose.
        pocket: its heavy atoms.
        known: the ligand as it is known.
        energy: with the check of the energy against an ensemble, which takes seconds for the first pose of a molecule.

    Raises:
        ImportError: if PoseBusters is not installed.
    """
    buster = busters("dock" if known is None else "redock", {"rmsd"} if energy else {"rmsd", "energy_ratio"})
    protein = _protein(pocket)
    with chemistry.quiet():
        return [_busted(buster, _single(mol, conformer), known, protein) for conformer in mol.GetConformers()]


def _single(mol: Chem.Mol, conformer: Any) -> Chem.Mol:
    from rdkit import Chem

    one = Chem.Mol(mol, confId=conformer.GetId())
    one.GetConformer().SetId(0)  # they take no other number
    return one


def _busted(buster: Any, mol: Chem.Mol, known: Chem.Mol | None, protein: Chem.Mol) -> dict[str, bool]:
    try:
        table = buster.bust([mol], known, protein)
    except Exception:  # whatever a check of theirs stumbles over: the pose does not pass
        return {"checked": False}
    return {str(name): value is True or value == 1 for name, value in table.iloc[0].items()}


def _protein(pocket: Pocket) -> Chem.Mol:
    from rdkit import Chem

    with chemistry.quiet():
        return Chem.MolFromPDBBlock(pdb(pocket), sanitize=False, removeHs=False, proximityBonding=False)


def pdb(pocket: Pocket) -> str:
    """The atoms of a pocket as text in the format PDB; hetero groups are HETATM records."""
    from rdkit import Chem

    symbol, lines = Chem.GetPeriodicTable().GetElementSymbol, []
    for k, (z, place) in enumerate(zip(pocket.z.tolist(), pocket.pos, strict=True), 1):
        kind, group = int(pocket.residue[k - 1]), int(pocket.group[k - 1])
        element = symbol(z).upper()
        name = ATOM_NAMES[pocket.atom[k - 1]] if pocket.atom[k - 1] < len(ATOM_NAMES) - 1 else element
        residue, chain, number = _label(pocket, kind, group)
        x, y, w = place
        lines.append(
            f"{'ATOM  ' if kind < OTHER else 'HETATM'}{k % 100_000:5d} {name if len(name) > 3 else f' {name:<3}'} "
            f"{residue:>3} {chain}{number:4d}    {x:8.3f}{y:8.3f}{w:8.3f}  1.00  0.00          {element:>2}"
        )
    return "\n".join([*lines, "END", ""])


def _label(pocket: Pocket, kind: int, group: int) -> tuple[str, str, int]:
    """Name, chain and number of a residue; counted where the pocket does not know them."""
    known = RESIDUES[kind] if kind < OTHER else "UNK"
    if not pocket.labels:
        return known, "A", group % 9999 + 1
    place, _, name = pocket.labels[group].partition(" ")
    chain, _, number = place.partition(":")
    digits = "".join(c for c in number if c.isdigit() or c == "-")
    return (known if kind < OTHER else name or known)[:3], chain[:1] or "A", int(digits or group + 1) % 10_000
