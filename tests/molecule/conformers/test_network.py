"""The network of torsions: its symmetries, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from rdkit import Chem

from diffusionkit.core import Diffusion
from diffusionkit.core.processes import Torus
from diffusionkit.molecule import conformer_codec, torsions
from diffusionkit.molecule.backbones.torsion import TorsionNetwork
from tests.molecule.conformers.molecules import SMILES, batch_of, embedded, rotation


@pytest.fixture
def network() -> TorsionNetwork:
    torch.manual_seed(0)
    return TorsionNetwork(width=16, depth=2, forces=4).double()


def inputs(*smiles: str):
    x, cond, rows = batch_of(*smiles)
    torch.manual_seed(1)
    return (torch.rand(x.shape).double() * 2 - 1) * math.pi, torch.rand(rows.size).double(), cond, rows


def test_turning_and_moving_a_molecule_changes_nothing(network):
    x, t, cond, rows = inputs(*SMILES)
    moved = {**cond, "pos": cond["pos"] @ rotation().T + 7}
    assert torch.allclose(network(x, t, cond, rows), network(x, t, moved, rows), atol=1e-10)


def test_scores_change_their_sign_in_a_mirror(network):
    x, t, cond, rows = inputs(*SMILES)
    scores = network(x, t, cond, rows)
    mirrored = {**cond, "pos": cond["pos"] * torch.tensor([1.0, 1.0, -1.0]).double()}
    assert torch.allclose(network(-x, t, mirrored, rows), -scores, atol=1e-10) and scores.abs().mean() > 1e-3


def test_mirror_images_are_told_apart(network):
    """The scores of (R) and (S) at the same angles: equal in a network that does not see chirality."""
    right, left = (inputs(f"CC[{tag}H](C)C(=O)O") for tag in ("C@", "C@@"))
    x = torch.tensor([[0.7], [1.9]]).double()
    first, second = (network(x, t, cond, rows) for _, t, cond, rows in (right, left))
    assert (first - second).abs().max() > 1e-3


def test_the_order_of_atoms_changes_nothing(network):
    mol, pos = embedded(SMILES[1])
    order = torch.randperm(mol.GetNumAtoms(), generator=torch.Generator().manual_seed(3))
    shuffled = Chem.RenumberAtoms(mol, order.tolist())
    found = []
    for m, p in ((mol, pos), (shuffled, pos[order])):
        made = conformer_codec.batch([conformer_codec.graph(m)], [p])
        cond = {k: v.double() if v.is_floating_point() else v for k, v in made.cond.items()}
        score = network(made.x, torch.tensor([0.5]).double(), cond, made.rows)
        back = cond["bond"] if m is mol else order[cond["bond"]]
        found.append({frozenset(pair): s[0] for pair, s in zip(back.tolist(), score.tolist(), strict=True)})
    assert found[0].keys() == found[1].keys()
    assert all(abs(found[0][pair] - found[1][pair]) < 1e-9 for pair in found[0])


@pytest.mark.parametrize("smiles", [SMILES[1], SMILES[3]])
def test_it_makes_no_difference_which_side_is_turned(network, smiles):
    mol, pos = embedded(smiles)
    graph = conformer_codec.graph(mol)
    neighbours = [[o.GetIdx() for o in a.GetNeighbors()] for a in mol.GetAtoms()]
    found = []
    for centre in (0, mol.GetNumAtoms() - 1):
        tree = torsions.tree(neighbours, torsions.rotatable(mol), centre)
        quad, quad_bond = torsions.quadruples(neighbours, tree["bond"])
        first = torch.searchsorted(quad_bond, torch.arange(len(tree["bond"])))
        other = {**graph, **tree, "quad": quad, "quad_bond": quad_bond, "reference": quad[first]}
        made = conformer_codec.batch([{**other, "prior": torch.zeros(len(quad), 6)}], [pos])
        cond = {k: v.double() if v.is_floating_point() else v for k, v in made.cond.items()}
        score = network(made.x, torch.tensor([0.5]).double(), cond, made.rows)
        found.append({frozenset(pair): s[0] for pair, s in zip(tree["bond"].tolist(), score.tolist(), strict=True)})
    assert all(abs(found[0][pair] - found[1][pair]) < 1e-8 for pair in found[0])


def test_a_molecule_does_not_see_its_neighbours_in_a_batch(network):
    x, t, cond, rows = inputs(*SMILES)
    together = network(x, t, cond, rows)
    for k, smiles in enumerate(SMILES):
        alone = batch_of(smiles)
        score = network(x[rows.index == k], t[k : k + 1], alone.cond, alone.rows)
        assert torch.allclose(score, together[rows.index == k], atol=1e-9)


def test_a_loss_has_gradients_also_without_any_torsion(network):
    diffusion = Diffusion(network, Torus())
    x, cond, rows = batch_of(*SMILES)
    loss = diffusion.loss(x, cond, rows)
    loss.mean().backward()
    assert loss.shape == (4,) and loss[2] == 0
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
    x, cond, rows = batch_of(SMILES[2])
    assert diffusion.loss(x, cond, rows).tolist() == [0]


@pytest.mark.parametrize("wrong", [{"width": 0}, {"cutoff": 1.0}, {"outputs": 2}])
def test_what_is_impossible_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TorsionNetwork(**wrong)
