"""Molecules with conformers for the tests, and their batches."""

from __future__ import annotations

import numpy as np
import torch
from rdkit import Chem
from torch import Tensor

from diffusionkit.core.state import Batch
from diffusionkit.molecule import conformer_codec, local_structures

SMILES = ("CC(=O)Nc1ccc(O)cc1", "C[C@H](N)C(=O)N[C@@H](CO)Cc1ccccc1", "c1ccccc1", "CCC(C)CC(F)(Cl)CCO")


def embedded(smiles: str, seed: int = 1) -> tuple[Chem.Mol, Tensor]:
    """A molecule of heavy atoms and positions (N, 3) in float64."""
    mol = local_structures.bare(Chem.MolFromSmiles(smiles))
    mol.SetProp("_Name", smiles)
    return mol, torch.from_numpy(local_structures.embed(mol, [seed])[0])


def batch_of(*smiles: str) -> Batch:
    """Their batch, in float64."""
    pairs = [embedded(text) for text in smiles]
    made = conformer_codec.batch([conformer_codec.graph(mol) for mol, _ in pairs], [pos for _, pos in pairs])
    return made._replace(cond={k: v.double() if v.is_floating_point() else v for k, v in made.cond.items()})


def rotation(seed: int = 0) -> Tensor:
    """A random (3, 3) rotation."""
    q = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))[0]
    return torch.from_numpy(q * np.sign(np.linalg.det(q)))
