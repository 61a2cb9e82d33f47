"""Writers of sampled molecules: every sample is a record, and those that RDKit does not take say so."""

from __future__ import annotations

import csv
import gzip
import io
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import chemistry
from diffusionkit.molecule.codec import MoleculeCodec
from diffusionkit.writer import Writer

if TYPE_CHECKING:
    from rdkit import Chem

VALID, REASON = "diffusionkit_valid", "diffusionkit_reason"
"""Properties of every record: 1 or 0, and why not."""


@dataclass(frozen=True)
class Judged:
    """A sample, and what RDKit says of it.

    Args:
        z: (n,) atomic numbers.
        pos: (n, 3) positions in Å.
        mol: with bonds and one conformer; sanitised if RDKit takes it, and without bonds where there is no such thing as a bond.
        smiles: canonical, without hydrogens; empty if RDKit does not take it.
        reason: why it is not valid, or that it is in pieces.
    """

    z: np.ndarray
    pos: np.ndarray
    mol: Chem.Mol
    smiles: str
    reason: str

    @property
    def valid(self) -> bool:
        """Whether RDKit takes it and it is of one piece."""
        return not self.reason


def judged(z: np.ndarray, pos: np.ndarray, hydrogens: bool = True) -> Judged:
    """An RDKit molecule of atoms, its bonds told by distances, orders and charges such that valences are filled."""
    raw = chemistry.molecule(z, pos, bonds="valences", hydrogens=hydrogens)
    mol, reason = chemistry.sanitised(raw)
    text = "" if mol is None else chemistry.smiles(mol)
    if mol is not None and "." in text:
        reason = f"{text.count('.') + 1} pieces"
    return Judged(z, pos, _named(mol or raw or _bare(z, pos), reason), text, reason)


def _bare(z: np.ndarray, pos: np.ndarray) -> Chem.Mol:
    """Atoms alone; what is no number stands at the origin."""
    from rdkit import Chem

    mol, conformer = Chem.RWMol(), Chem.Conformer(len(z))
    for number, place in zip(z.tolist(), np.nan_to_num(pos, nan=0.0, posinf=0.0, neginf=0.0).tolist(), strict=True):
        conformer.SetAtomPosition(mol.AddAtom(Chem.Atom(number)), place)
    mol.AddConformer(conformer, assignId=True)
    return mol.GetMol()


def _named(mol: Chem.Mol, reason: str) -> Chem.Mol:
    mol.SetIntProp(VALID, int(not reason))
    if reason:
        mol.SetProp(REASON, reason)
    return mol


class MoleculeWriter(Writer):
    """Takes chunks of states of a `MoleculeCodec`; a `.gz` at the end packs the text, without a time stamp."""

    def __init__(self, codec: MoleculeCodec, path: Path, n: int, told: bool = False) -> None:
        super().__init__(codec, path, n)
        self.told, self.drawn, self.good = told, 0, 0

    def write(self, x: Any) -> None:
        self.drawn += int(x["drawn"].sum()) if "drawn" in x else len(x["size"])
        self.add([judged(z, pos, self.codec.hydrogens) for z, pos in self.codec.decode(x)])

    def _open(self) -> None:
        super()._open()
        self.raw = open(self.part, "wb")
        packed = gzip.GzipFile("", "wb", 6, self.raw, mtime=0) if self.path.name.lower().endswith(".gz") else self.raw
        self.file = io.TextIOWrapper(packed, encoding="utf-8", newline="")
        self._head()

    def _head(self) -> None:
        pass

    def _add(self, chunk: list[Judged]) -> None:
        for i, one in enumerate(chunk, self.count + 1):
            self.good += one.valid
            self.file.write(self._record(i, one))

    def _record(self, number: int, one: Judged) -> str:
        raise NotImplementedError

    def _finish(self) -> None:
        self._close()
        super()._finish()
        if self.told:
            print(f"{self.n} valid molecules of one piece out of {self.drawn} drawn", file=sys.stderr)

    def _discard(self) -> None:
        with suppress(
            AttributeError, OSError, ValueError
        ):  # not opened, or the disk is full: the file goes all the same
            self._close()
        super()._discard()

    def _close(self) -> None:
        self.file.close()
        self.raw.close()


class SdfWriter(MoleculeWriter):
    """An SDF file: V2000, or V3000 for molecules of more than 999 atoms."""

    def _record(self, number: int, one: Judged) -> str:
        from rdkit import Chem

        mol = Chem.Mol(one.mol)
        mol.SetProp("_Name", f"sample_{number}")
        with chemistry.quiet():
            try:
                block = Chem.MolToMolBlock(mol, kekulize=True)
            except (ValueError, RuntimeError):
                block = Chem.MolToMolBlock(mol, kekulize=False)
        fields = {VALID: str(int(one.valid)), REASON: one.reason, "SMILES": one.smiles}
        lines = [f">  <{name}>  ({number})\n{text}\n\n" for name, text in fields.items() if text]
        return block + "".join(lines) + "$$$$\n"


class XyzWriter(MoleculeWriter):
    """An XYZ file: number of atoms, a comment, symbols and positions in Å."""

    def _record(self, number: int, one: Judged) -> str:
        table = chemistry.SYMBOLS
        said = "valid=1" if one.valid else f'valid=0 reason="{one.reason}"'
        lines = [f"{len(one.z)}", f"sample_{number} {said} smiles={one.smiles or '-'}"]
        lines += [
            f"{table.get(z, 'X'):<2} {x:12.6f} {y:12.6f} {w:12.6f}"
            for z, (x, y, w) in zip(one.z.tolist(), one.pos.tolist(), strict=True)
        ]
        return "\n".join(lines) + "\n"


class SmilesWriter(MoleculeWriter):
    """SMILES and names, a line each; one that RDKit does not take has `*` for its SMILES."""

    def _record(self, number: int, one: Judged) -> str:
        return f"{one.smiles or '*'} sample_{number}" + ("" if one.valid else f" invalid: {one.reason}") + "\n"


class TableWriter(MoleculeWriter):
    """A table: name, SMILES, atoms, whether it is valid, and why not."""

    def _head(self) -> None:
        self.rows = csv.writer(self.file, lineterminator="\n")
        self.rows.writerow(["name", "smiles", "atoms", "valid", "reason"])

    def _add(self, chunk: list[Judged]) -> None:
        for i, one in enumerate(chunk, self.count + 1):
            self.good += one.valid
            self.rows.writerow([f"sample_{i}", one.smiles, len(one.z), int(one.valid), one.reason])


WRITERS: dict[str, type[MoleculeWriter]] = {
    ".sdf": SdfWriter, ".xyz": XyzWriter, ".smi": SmilesWriter, ".csv": TableWriter,
}  # fmt: skip


def open_writer(codec: MoleculeCodec, path: str | Path, n: int, told: bool = False) -> MoleculeWriter:
    """The writer that the ending of `path` asks for; with `told` it says how many were drawn for the n.

    Raises:
        UserError: if nothing is written under this ending, or the place is taken by a folder.
    """
    target = Path(path)
    name = target.name.lower().removesuffix(".gz")
    ending = next((ending for ending in WRITERS if name.endswith(ending)), None)
    if ending is None:
        known = ", ".join([*WRITERS, *(f"{ending}.gz" for ending in WRITERS)])
        raise UserError(f"{path}: unknown ending {target.suffix!r}; known are {known}")
    if target.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    return WRITERS[ending](codec, target, n, told)
