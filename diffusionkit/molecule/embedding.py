"""SMILES made three-dimensional by RDKit. Worker processes import this, so it needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.molecule.chemistry import SYMBOLS, quiet, smiles

if TYPE_CHECKING:
    from rdkit import Chem

Record = tuple[str, np.ndarray, np.ndarray, str]
"""Name, atomic numbers (n,), positions (n, 3) in Å, and SMILES of a molecule."""


def embed(named: Sequence[tuple[str, str]], **how: Any) -> list[Any]:
    """For each its records, or (name, reason) where there are none."""
    from rdkit import Chem

    found: list[Any] = []
    for name, text in named:
        with quiet():
            mol = Chem.MolFromSmiles(text) if text else None
        reason = misfit(mol, how["elements"], how["largest"]) if mol is not None else f"{text!r} is no SMILES"
        records = [] if reason else _conformers(mol, name, how["conformers"], how["seed"])
        found += records or [(name, reason or "no coordinates found by ETKDG")]
    return found


def _conformers(mol: Chem.Mol, name: str, count: int, seed: int) -> list[Record]:
    from rdkit import Chem
    from rdkit.Chem import AllChem

    how = AllChem.ETKDGv3()
    how.randomSeed = 0x5EED + seed
    how.maxIterations = 20
    with quiet():
        mol = Chem.AddHs(mol)
        try:
            places = list(AllChem.EmbedMultipleConfs(mol, count, how))
            if places and AllChem.MMFFHasAllMoleculeParams(mol):
                AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=500)
        except (ValueError, RuntimeError):
            return []
    z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], np.uint8)
    text = smiles(mol)
    return [(name, z, mol.GetConformer(i).GetPositions(), text) for i in places]


def misfit(mol: Chem.Mol, elements: Sequence[int] = (), largest: int = 0) -> str:
    """Why a molecule cannot be used; empty if it can."""
    from rdkit import Chem

    numbers = {atom.GetAtomicNum() for atom in mol.GetAtoms()}
    if not numbers - {1}:
        return "no heavy atoms"
    strange = sorted(numbers - set(elements or SYMBOLS) - ({1} if elements else set()))
    if strange:
        table = Chem.GetPeriodicTable()
        return f"element {', '.join(table.GetElementSymbol(n) if n else '*' for n in strange)}"
    if len(Chem.GetMolFrags(mol)) > 1:
        return "several molecules in one record"
    if largest and mol.GetNumHeavyAtoms() > largest:
        return f"{mol.GetNumHeavyAtoms()} heavy atoms, more than {largest}"
    return ""
