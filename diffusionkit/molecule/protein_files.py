"""Proteins from PDB and mmCIF files: their heavy atoms, and what was left out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule.pockets import ATOM_NAMES, OTHER, RESIDUES, Pocket
from diffusionkit.molecule.readers import stem

PROTEINS = (".pdb", ".ent", ".cif", ".mmcif")
_WATERS = ("HOH", "DOD", "WAT", "H2O", "TIP", "TIP3", "SOL")
_SPELLINGS = {"HID": "HIS", "HIE": "HIS", "HIP": "HIS", "HSD": "HIS", "HSE": "HIS", "HSP": "HIS", "CYX": "CYS", "CYM": "CYS",
              "ASH": "ASP", "GLH": "GLU", "LYN": "LYS"}  # fmt: skip
"""Names that force fields give to amino acids by their protons."""
_SELENIUM = {"MET": "SD", "CYS": "SG"}
_S, _SE = 16, 34


def read(path: str | Path) -> Pocket:
    """The heavy atoms of a protein's file: cofactors and metals with it, waters and hydrogens without.

    Of alternate locations each residue has the one of highest occupancy; selenomethionine is read as methionine and other
    modified amino acids as what they were made of. What is left out or renamed is in the `notes`.

    Args:
        path: a .pdb, .ent, .cif or .mmcif file, also .gz, of one model. Its asymmetric unit is taken as it is.

    Returns:
        All atoms, with residues' `labels` and their mean as the centre.

    Raises:
        UserError: for a file of another kind, unreadable, without atoms or of several models.
    """
    path = Path(path).expanduser()
    rows, counts, parents = _rows(path, _model(path))
    if not rows:
        raise UserError(f"{path}: has no heavy atoms of a protein, nucleic acid or cofactor")
    z, pos, residue, atom, group, labels = zip(*rows, strict=True)
    places = np.array(pos, dtype=np.float64)
    if not np.isfinite(places).all():
        raise UserError(f"{path}: an atom of {labels[int((~np.isfinite(places)).any(1).argmax())]} has no finite place")
    named = dict(zip(group, labels, strict=True))
    return Pocket(
        stem(path),
        np.array(z),
        places,
        np.array(residue),
        np.array(atom),
        np.array(group),
        places.mean(0),
        tuple(named[g] for g in sorted(named)),
        tuple(_said(counts, parents)),
    )


def _model(path: Path) -> Any:
    """The only model of a file."""
    kind = path.name.lower().removesuffix(".gz")
    if not kind.endswith(PROTEINS):
        raise UserError(f"{path}: a protein comes as one of {', '.join(PROTEINS)}, also .gz")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        import gemmi
    except ImportError as error:
        raise UserError(f"{path}: reading it takes the library gemmi: pip install 'diffusionkit[molecule]'") from error
    form = gemmi.CoorFormat.Pdb if kind.endswith((".pdb", ".ent")) else gemmi.CoorFormat.Mmcif
    try:
        structure = gemmi.read_structure(str(path), format=form)
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: cannot be read ({str(error).splitlines()[0]})") from error
    if len(structure) > 1:
        raise UserError(f"{path}: has {len(structure)} models; keep one")
    return structure[0] if len(structure) else ()


def _rows(path: Path, model: Any) -> tuple[list[tuple[Any, ...]], Counter[str], Counter[str]]:
    """Of each atom: element, place, residue, name, number and label of the residue; what was left out; what was renamed."""
    rows: list[tuple[Any, ...]] = []
    counts: Counter[str] = Counter()
    parents: Counter[str] = Counter()
    try:
        for chain, number, residues in _residues(model):
            location = _location(residues)
            for residue in residues:
                if residue.is_water() or residue.name in _WATERS:
                    counts["waters"] += 1
                    continue
                parent = _parent(residue.name)
                atoms = list(_atoms(residue, parent, location, counts))
                group = rows[-1][4] + 1 if rows else 0
                rows += [(*atom, group, f"{chain}:{number} {residue.name}") for atom in atoms]
                if atoms and parent and residue.name not in (parent, *_SPELLINGS):
                    parents[f"{residue.name} as {parent}"] += 1
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: holds names that are no text ({error})") from error
    return rows, counts, parents


def _atoms(
    residue: Any, parent: str, location: str, counts: Counter[str]
) -> Iterator[tuple[int, list[float], int, int]]:
    """Element, place, residue and name of each atom that is kept; what is not is counted."""
    kind = RESIDUES.index(parent) if parent else OTHER
    for atom in residue:
        reason = _reason(atom, location)
        if reason:
            counts[reason] += 1
            continue
        z, name = atom.element.atomic_number, atom.name
        if z == _SE and parent in _SELENIUM:
            z, name = _S, _SELENIUM[parent]
        named = ATOM_NAMES.index(name) if parent and name in ATOM_NAMES else len(ATOM_NAMES) - 1
        yield z, atom.pos.tolist(), kind, named


def _residues(model: Any) -> Iterator[tuple[str, str, list[Any]]]:
    """Chains and numbers with their residues; several where alternate locations differ in their residue."""
    found: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
    for chain in model:
        for residue in chain:
            found[chain.name, str(residue.seqid)].append(residue)
    for (chain, number), residues in found.items():
        yield chain, number, residues


def _location(residues: Sequence[Any]) -> str:
    """The alternate location of highest mean occupancy, the first of equals; "" where there are none."""
    occupancies: defaultdict[str, list[float]] = defaultdict(list)
    for residue in residues:
        for atom in residue:
            if atom.has_altloc():
                occupancies[atom.altloc].append(atom.occ)
    return max(sorted(occupancies), key=lambda letter: np.mean(occupancies[letter]), default="")


def _reason(atom: Any, location: str) -> str:
    """Why an atom is left out, or ""."""
    if atom.is_hydrogen():
        return "hydrogens"
    if atom.has_altloc() and atom.altloc != location:
        return "atoms of other alternate locations"
    return "" if atom.element.atomic_number else "atoms of no known element"


@cache
def _parent(name: str) -> str:
    """The amino acid that a residue is or was made of, or ""."""
    import gemmi

    if name in RESIDUES or name in _SPELLINGS:
        return _SPELLINGS.get(name, name)
    if name == "SEC":
        return "CYS"
    told = gemmi.find_tabulated_residue(name)
    letter = told.one_letter_code.strip().upper()
    found = gemmi.expand_one_letter(letter, gemmi.ResidueKind.AA) if told.is_amino_acid() and letter else ""
    return found if found in RESIDUES else ""


def _said(counts: Counter[str], parents: Counter[str]) -> list[str]:
    reasons = ("waters", "hydrogens", "atoms of other alternate locations", "atoms of no known element")
    out = [f"{counts[reason]:,} {reason}" for reason in reasons if counts[reason]]
    notes = [f"left out: {', '.join(out)}"] if out else []
    if parents:
        notes.append(f"modified residues read as their parents: {', '.join(f'{k} ({n})' for k, n in parents.items())}")
    return notes
