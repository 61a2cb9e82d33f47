"""Matching: known answers."""

from __future__ import annotations

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import rdMolAlign

from diffusionkit.core.rows import Rows
from diffusionkit.molecule import conformer_codec, matching
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.picking import distances, nearest_to_all
from tests.molecule.conformers.molecules import SMILES, batch_of, embedded, rotation


def test_deviation_is_that_of_rdkit_and_knows_mirror_images():
    mol, first = embedded(SMILES[3], 1)
    _, second = embedded(SMILES[3], 2)
    rows = Rows(torch.zeros(len(first), dtype=torch.long), 1)
    wanted = rdMolAlign.AlignMol(*(with_conformers(mol, p.numpy()[None]) for p in (first, second)))
    assert abs(float(matching.deviation(first, second, rows)) - wanted) < 1e-5
    assert float(matching.deviation(first @ rotation().T + 4, first, rows)) < 1e-5
    assert float(matching.deviation(-first, first, rows)) > 0.3


def test_a_conformer_that_differs_in_torsions_alone_is_met_exactly():
    x, cond, rows = batch = batch_of(*SMILES)
    torch.manual_seed(0)
    reference = conformer_codec.positions(torch.rand_like(x) * 6 - 3, cond)
    pos, off = matching.match(batch, reference, steps=5)
    assert off.max() < 1e-5
    assert matching.deviation(pos, reference, Rows(cond["atom"], rows.size)).max() < 1e-5


def test_adjusting_is_never_worse_than_copying_torsions():
    mol, known = embedded(SMILES[1], 5)
    graph = conformer_codec.graph(mol)
    batch = conformer_codec.batch([graph] * 4, [embedded(SMILES[1], seed)[1] for seed in (1, 2, 3, 4)])
    batch = batch._replace(cond={k: v.double() if v.is_floating_point() else v for k, v in batch.cond.items()})
    copied, best = (matching.match(batch, known.repeat(4, 1), steps=steps)[1] for steps in (0, 60))
    assert (best <= copied).all() and best.mean() < copied.mean() - 0.02


def test_picked_distances_exchange_symmetric_atoms():
    mol, pos = embedded("c1ccccc1CCO")
    flipped = pos.clone()
    flipped[[0, 4]], flipped[[1, 3]] = pos[[4, 0]], pos[[3, 1]]
    apart = distances(np.stack([pos.numpy(), flipped.numpy(), pos.numpy() @ rotation().numpy()]), mol)
    assert apart.max() < 1e-4
    assert Chem.MolToSmiles(mol) == "OCCc1ccccc1"


def test_picks_lie_in_the_middle_of_groups():
    """Three groups of conformers on a line of torsions: three picks take one of each, the middle one first where it is largest."""
    _, cond, _ = batch_of("CCCC")
    angles = torch.tensor([0.0, 0.05, 0.1, 1.0, 1.05, 2.0, 0.02]).double()
    places = np.stack([conformer_codec.positions(a.reshape(1, 1), cond).numpy() for a in angles])
    mol = Chem.MolFromSmiles("CCCC")
    picked = nearest_to_all(places, 3, mol)
    assert len({round(float(angles[k])) for k in picked}) == 3
    assert nearest_to_all(places, 9, mol).tolist() == list(range(7))
