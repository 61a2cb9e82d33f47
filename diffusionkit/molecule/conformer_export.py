"""Conformers as RDKit molecules with hydrogens and energies, and as files."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.molecule import torsions
from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.conformer_draw import Drawn, Wanted, with_conformers
from diffusionkit.writer import Writer

ENERGY, METHOD = "diffusionkit_energy", "diffusionkit_method"
"""Properties of every conformer: its MMFF94s energy in kcal/mol, and where its torsions come from."""
ENDINGS = (".sdf", ".sdf.gz", ".xyz")


def finished(mol: Any, places: np.ndarray, relax: bool = False) -> Any:
    """The molecule with hydrogens and these conformers, each with its MMFF94s energy as a property.

    Hydrogens are placed by RDKit and relaxed while the other atoms stay; with `relax` these move as well. A molecule that
    MMFF94s has no parameters for gets no energies and is not relaxed.

    Args:
        mol: of N heavy atoms, with a name.
        places: (k, N, 3) positions in Angstrom.
        relax: minimise all coordinates.
    """
    from rdkit import Chem
    from rdkit.Chem import rdForceFieldHelpers as fields

    full = Chem.AddHs(with_conformers(mol, places), addCoords=True)
    with quiet():
        known = fields.MMFFGetMoleculeProperties(full, "MMFF94s") if fields.MMFFHasAllMoleculeParams(full) else None
        for conformer in full.GetConformers() if known else ():
            field = fields.MMFFGetMoleculeForceField(full, known, confId=conformer.GetId())
            for atom in range(0 if relax else mol.GetNumAtoms()):
                field.AddFixedPoint(atom)
            field.Initialize()
            field.Minimize(2000 if relax else 200)
            conformer.SetDoubleProp(ENERGY, field.CalcEnergy())
    method = "torsional diffusion" if torsions.rotatable(mol) else "ETKDGv3, no rotatable bond"
    for conformer in full.GetConformers():
        conformer.SetProp(METHOD, f"{method}, MMFF94s" if relax and known else method)
    return full


class ConformerWriter(Writer):
    """Takes conformers in chunks, and writes them molecule by molecule: one record each, with its energy.

    Args:
        path: .sdf, .sdf.gz or .xyz.
        n: conformers of each molecule.
        wanted: the molecules.

    Raises:
        UserError: for another ending.
    """

    def __init__(self, path: Path, n: int, wanted: Wanted) -> None:
        if not path.name.lower().endswith(ENDINGS):
            raise UserError(f"{path}: conformers go into files that end in {', '.join(ENDINGS)}")
        super().__init__(None, path, n)
        self.wanted = wanted
        self.found: list[list[np.ndarray]] = [[] for _ in wanted.molecules]

    def write(self, x: Drawn) -> None:
        for kept, places in zip(self.found, x.places, strict=True):
            kept.extend(places)
        self.count = min(self.count + x.asked, self.n)

    def _add(self, chunk: Sequence[Any]) -> None:
        raise NotImplementedError  # what is drawn comes by `write`

    def _finish(self) -> None:
        for text in self.wanted.skipped.values():
            _say(f"left out: {text}")
        for name in self.wanted.rigid:
            _say(f"{name}: has no rotatable bond; its conformers are those of ETKDGv3")
        packed = self.path.name.lower().endswith(".gz")
        with open(self.part, "wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) if packed else raw as file:
            for mol, places in zip(self.wanted.molecules, self._complete(), strict=True):
                for text in self._texts(finished(mol, places, self.wanted.relax)):
                    file.write(text.encode())
        super()._finish()

    def _complete(self) -> list[np.ndarray]:
        found = []
        for mol, places in zip(self.wanted.molecules, self.found, strict=True):
            if len(places) < self.n:
                _say(f"{mol.GetProp('_Name')}: ETKDGv3 made {len(places)} of {self.n} local structures")
            found.append(np.stack(places) if places else np.zeros((0, mol.GetNumAtoms(), 3)))
        return found

    def _texts(self, mol: Any) -> list[str]:
        from rdkit import Chem

        texts = []
        for number, conformer in enumerate(mol.GetConformers(), 1):
            if ".xyz" in self.path.suffixes:
                texts.append(Chem.MolToXYZBlock(mol, conformer.GetId()))
                continue
            block = Chem.MolToMolBlock(mol, confId=conformer.GetId())
            fields = {"conformer": str(number), **{k: _text(v) for k, v in conformer.GetPropsAsDict().items()}}
            texts.append(block + "".join(f">  <{k}>\n{v}\n\n" for k, v in fields.items()) + "$$$$\n")
        return texts


def _text(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
