"""Ligands as people have them: SMILES, tables, SDF and mol2 files, folders of these, and one that says where a pocket is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import readers
from diffusionkit.molecule.chemistry import quiet

LIGANDS = (".sdf", ".mol2", ".smi", ".smiles", ".txt", ".csv")
_REFERENCES = (".sdf", ".mol", ".mol2", ".pdb", ".ent")
_LARGEST = 200  # heavy atoms of a reference ligand


def positions(reference: Any) -> np.ndarray:
    """(N, 3) places of a ligand's heavy atoms, in Angstrom.

    Args:
        reference: an .sdf, .mol, .mol2 or .pdb file, whose first record counts, or an RDKit molecule with coordinates.

    Raises:
        UserError: if there are none.
    """
    mol, name = (
        (_first(Path(reference).expanduser()), reference) if isinstance(reference, str | Path) else (reference, "")
    )
    name = f"{name or 'reference'}"
    if mol is None:
        raise UserError(f"{name}: RDKit cannot read it")
    heavy = [atom.GetIdx() for atom in mol.GetAtoms() if atom.GetAtomicNum() > 1]
    if not heavy or not mol.GetNumConformers() or not mol.GetConformer().Is3D():
        raise UserError(f"{name}: has no three-dimensional coordinates of a ligand")
    if len(heavy) > _LARGEST:
        raise UserError(f"{name}: has {len(heavy):,} heavy atoms, and a reference ligand at most {_LARGEST}")
    places = mol.GetConformer().GetPositions()[heavy]
    if not np.isfinite(places).all():
        raise UserError(f"{name}: holds coordinates that are not finite")
    return places


def _first(path: Path) -> Any:
    """The first molecule of a file, as it is written."""
    from rdkit import Chem

    kind = path.name.lower().removesuffix(".gz")
    if not kind.endswith(_REFERENCES):
        raise UserError(f"{path}: a reference ligand comes as one of {', '.join(_REFERENCES)}, also .gz")
    text = readers.text(path)
    with quiet():
        if kind.endswith(".mol2"):
            return Chem.MolFromMol2Block(text, sanitize=False, removeHs=False, cleanupSubstructures=False)
        if kind.endswith((".pdb", ".ent")):
            return Chem.MolFromPDBBlock(text, sanitize=False, removeHs=False, proximityBonding=False)
        return Chem.MolFromMolBlock(text, sanitize=False, removeHs=False)


def ligands(given: str | Path) -> Iterator[tuple[str, Any]]:
    """Names with RDKit molecules, SMILES, or None for a record that RDKit cannot read.

    Args:
        given: SMILES, a file (.sdf, .mol2, .smi or .csv with a column smiles, also .gz), or a folder of such files.

    Raises:
        UserError: for a file that cannot be read, or a folder without one.
    """
    path = Path(given).expanduser()
    if os.path.isdir(path):
        yield from _of_folder(path)
    elif isinstance(given, Path) or os.path.isfile(path) or given.lower().removesuffix(".gz").endswith(LIGANDS):
        yield from _of_file(path)
    else:
        yield given.strip(), given.strip()


def _of_folder(folder: Path) -> Iterator[tuple[str, Any]]:
    files = sorted(file for file in folder.iterdir() if file.name.lower().removesuffix(".gz").endswith(LIGANDS))
    if not files:
        raise UserError(f"{folder}: holds no file of {', '.join(LIGANDS)}")
    for file in files:
        stem = readers.stem(file)
        try:
            for number, (_, mol) in enumerate(_of_file(file), 1):
                yield stem if number == 1 else f"{stem} {number}", mol
        except UserError:
            yield stem, None  # one bad file does not stop the others


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    from diffusionkit.molecule.conformer_draw import records

    if not path.name.lower().removesuffix(".gz").endswith(".mol2"):
        yield from records(path)
        return
    from rdkit import Chem

    mark = "@<TRIPOS>MOLECULE"
    for number, block in enumerate(readers.text(path).split(mark)[1:], 1):
        name = next(iter(block.strip().splitlines()), "").strip()
        with quiet():
            mol = Chem.MolFromMol2Block(mark + block, removeHs=False)
        yield name if name.strip("*") else f"record {number}", mol
