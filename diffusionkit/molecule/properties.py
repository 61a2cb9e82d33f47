"""Properties that RDKit computes, to draw molecules by and to judge them by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.pool import progress, shared_out

if TYPE_CHECKING:
    from rdkit import Chem

PROPERTIES = {
    "logP": "octanol-water partition, of Wildman and Crippen",
    "TPSA": "topological polar surface in Å^2",
    "QED": "drug-likeness of Bickerton et al., 0 to 1",
    "weight": "molecular weight in g/mol",
    "rings": "number of rings",
}
"""The properties there are, and what they mean."""


def _functions() -> dict[str, Callable[[Any], float]]:
    from rdkit.Chem import QED, Crippen, Descriptors, rdMolDescriptors

    return {
        "logP": Crippen.MolLogP,
        "TPSA": rdMolDescriptors.CalcTPSA,
        "QED": QED.qed,
        "weight": Descriptors.MolWt,
        "rings": rdMolDescriptors.CalcNumRings,
    }


def values(mol: Chem.Mol, names: Sequence[str]) -> np.ndarray:
    """(P,) float32 properties of a sanitised molecule; NaN where RDKit cannot tell."""
    functions, found = _functions(), np.full(len(names), np.nan, np.float32)
    with quiet():
        for i, name in enumerate(names):
            try:
                found[i] = functions[name](mol)
            except (ValueError, RuntimeError):
                continue
    return found


def of_smiles(smiles: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """(M, P) properties of molecules given by SMILES, on all cores; NaN where one does not parse."""
    with progress(f"properties of {len(smiles):,} molecules", len(smiles)) as tick:
        parts = shared_out(_rows, smiles, tick, names=tuple(names))
    return np.concatenate([*parts, np.zeros((0, len(names)), np.float32)])


def _rows(smiles: Sequence[str], names: Sequence[str]) -> np.ndarray:
    from rdkit import Chem

    found = np.full((len(smiles), len(names)), np.nan, np.float32)
    for i, text in enumerate(smiles):
        with quiet():
            mol = Chem.MolFromSmiles(text)
        if mol is not None:
            found[i] = values(mol, names)
    return found
