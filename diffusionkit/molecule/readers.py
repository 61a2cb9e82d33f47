"""Reading molecules: SDF files as they are, SMILES made three-dimensional; a broken record is skipped, named and counted."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule.chemistry import quiet, smiles
from diffusionkit.molecule.embedding import Record, embed, misfit
from diffusionkit.molecule.pool import progress, shared_out
from diffusionkit.molecule.sets import REACH, MoleculeSet

if TYPE_CHECKING:
    from rdkit import Chem

ENDINGS = (".sdf", ".sdf.gz", ".mol", ".smi", ".smiles", ".txt", ".csv", ".csv.gz", ".tsv")
_TABLES = (".csv", ".csv.gz", ".tsv")
_STRUCTURES = (".sdf", ".sdf.gz", ".mol")
_PICKLES = (".pkl", ".pickle", ".msgpack", ".pt", ".tar.gz")
SHOWN = 5
"""How many skipped records are named."""


@dataclass
class Skipped:
    """Records that could not be used."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: str, reason: str) -> None:
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(f"{name} ({reason})")

    def notes(self, total: int) -> list[str]:
        """One sentence, or none."""
        if not self.count:
            return []
        more = ", ..." if self.count > len(self.first) else ""
        return [f"{self.count:,} of {total:,} records skipped: {'; '.join(self.first)}{more}"]


def read(
    path: Path, hydrogens: bool, column: str = "", conformers: int = 1, elements: Sequence[int] = (), largest: int = 0
) -> MoleculeSet:
    """The molecules of a file, whatever its kind; SMILES get coordinates by ETKDGv3 and MMFF.

    Args:
        path: .sdf, .smi or .csv, also .gz.
        hydrogens: whether the hydrogens of an SDF file have to be there.
        column: of a table, that holds the SMILES; one called smiles in any spelling by default.
        conformers: how many are made of each SMILES.
        elements: atomic numbers that may occur; all by default.
        largest: heavy atoms of a molecule at most; 0 for any number.

    Raises:
        UserError: if the file is not one of these, or none of its records can be used.
    """
    check(path)
    name = path.name.lower()
    if name.endswith(_STRUCTURES):
        records, skipped = _structures(path, hydrogens, elements, largest)
        total = len(records) + skipped.count
    else:
        lines = list(_table(path, column) if name.endswith(_TABLES) else _lines(path))
        records, skipped, total = *embedded(lines, conformers, 0, elements, largest), len(lines)
    if not records:
        raise UserError(f"{path}: holds no molecule that can be used{_reasons(skipped)}")
    return MoleculeSet.of([r[1:3] for r in records], [r[3] for r in records], skipped.notes(total))


def check(path: Path) -> None:
    """Refuses a file that is not there or of no kind that is read.

    Raises:
        UserError: in one sentence.
    """
    name = path.name.lower()
    if name.endswith(_PICKLES):
        raise UserError(
            f"{path}: pickles run code when they are opened and are never read here; write the molecules to an SDF file with "
            "RDKit (Chem.SDWriter) where you trust the file, and name that"
        )
    if not name.endswith(ENDINGS):
        raise UserError(f"{path}: data.path must name a file that ends in {', '.join(ENDINGS)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")


def _reasons(skipped: Skipped) -> str:
    return f"; skipped were {skipped.count:,}: {'; '.join(skipped.first)}" if skipped.count else ""


def of_list(given: Sequence[Any], hydrogens: bool) -> MoleculeSet:
    """Molecules in memory: SMILES, which are made 3D, and RDKit molecules with coordinates. What cannot be used is noted."""
    texts = [(f"molecule {i}", one) for i, one in enumerate(given, 1) if isinstance(one, str)]
    records, skipped = embedded(texts, 1, 0) if texts else ([], Skipped())
    for i, one in enumerate(given, 1):
        if isinstance(one, str):
            continue
        found = structure(one, f"molecule {i}", hydrogens) if hasattr(one, "GetNumAtoms") else "no molecule"
        if isinstance(found, str):
            skipped.add(f"molecule {i}", found)
        else:
            records.append(found)
    return MoleculeSet.of([r[1:3] for r in records], [r[3] for r in records], skipped.notes(len(given)))


# ---- text


def text(path: Path) -> str:
    """What a text file holds, also of a .gz.

    Raises:
        UserError: if it is not there, or is no text.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.name.lower().endswith(".gz") else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as text ({error})") from error


def stem(path: Path) -> str:
    """A file's name without its ending, .gz included."""
    return path.name[: -3 if path.name.lower().endswith(".gz") else None].rpartition(".")[0]


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Names and SMILES of a .smi file: a SMILES, white space, a name."""
    for number, line in enumerate(text(path).splitlines(), 1):
        words = line.split(None, 1)
        if words and words[0].lower() != "smiles":
            yield (f"line {number}" + (f" {words[1].strip()}" if len(words) > 1 else "")), words[0]


def _table(path: Path, column: str) -> Iterator[tuple[str, str]]:
    """Names and SMILES of a table with a head."""
    comma = "\t" if path.name.lower().endswith(".tsv") else ","
    rows = csv.DictReader(io.StringIO(text(path)), delimiter=comma)
    names = [name for name in rows.fieldnames or [] if name]
    wanted = [name for name in names if name == column or (not column and name.lower().strip() == "smiles")]
    if not wanted:
        missing = f"no column {column!r}" if column else "no column 'smiles'; name it with data.column"
        raise UserError(f"{path}: has {missing} (columns: {', '.join(names)})")
    for number, row in enumerate(rows, 2):
        yield f"line {number}", (row[wanted[0]] or "").strip()


# ---- three dimensions


def embedded(
    named: Sequence[tuple[str, str]], conformers: int, seed: int, elements: Sequence[int] = (), largest: int = 0
) -> tuple[list[Record], Skipped]:
    """Molecules of names and SMILES by ETKDGv3 and MMFF, on all cores; a function of the SMILES and the seed alone."""
    with progress(f"{len(named):,} molecules made 3D", len(named)) as tick:
        parts = shared_out(
            embed, named, tick, conformers=conformers, seed=seed, elements=tuple(elements), largest=largest
        )
    records, skipped = [], Skipped()
    for found in (one for part in parts for one in part):
        if isinstance(found[1], str):
            skipped.add(*found)
        else:
            records.append(found)
    return records, skipped


# ---- structures


def _structures(path: Path, hydrogens: bool, elements: Sequence[int], largest: int) -> tuple[list[Record], Skipped]:
    from rdkit import Chem

    records, skipped = [], Skipped()
    packed = path.name.lower().endswith(".gz")
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as file, quiet():
            for number, mol in enumerate(Chem.ForwardSDMolSupplier(file, removeHs=False), 1):
                found = structure(mol, f"record {number}", hydrogens, elements, largest)
                if isinstance(found, str):
                    skipped.add(_title(mol, number), found)
                else:
                    records.append(found)
    except (OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return records, skipped


def _title(mol: Chem.Mol | None, number: int) -> str:
    title = mol.GetProp("_Name").strip() if mol is not None and mol.HasProp("_Name") else ""
    return f"record {number}" + (f" {title}" if title else "")


def structure(
    mol: Chem.Mol | None, name: str, hydrogens: bool, elements: Sequence[int] = (), largest: int = 0
) -> Record | str:
    """A molecule with coordinates as a record, or why it cannot be one."""
    if mol is None:
        return "RDKit cannot read it"
    reason = misfit(mol, elements, largest)
    if reason:
        return reason
    if not mol.GetNumConformers() or not (mol.GetConformer().Is3D() or mol.GetNumAtoms() < 3):
        return "no coordinates in three dimensions"
    if hydrogens and any(atom.GetNumImplicitHs() or atom.GetNumExplicitHs() for atom in mol.GetAtoms()):
        return "hydrogens are missing; add them, or set data.hydrogens to false"
    pos = mol.GetConformer().GetPositions()
    if not np.isfinite(pos).all() or np.abs(pos - pos.mean(0)).max() > REACH:
        return f"an atom farther than {REACH:g} Å from the centre"
    z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    return name, z, pos, smiles(mol)
