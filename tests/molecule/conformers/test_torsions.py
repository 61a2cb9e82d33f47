"""Torsions: which bonds turn, and that turning them changes nothing else."""

from __future__ import annotations

import math

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import rdMolTransforms

from diffusionkit.molecule import conformer_codec, torsions
from tests.molecule.conformers.molecules import SMILES, batch_of, embedded


@pytest.mark.parametrize(
    ("smiles", "count"),
    [("c1ccccc1", 0), ("CCO", 0), ("CCCC", 1), ("CC(=O)Nc1ccc(O)cc1", 2), ("CCC#CCC", 0), ("C1CCC1C1CCC1", 1)],
)
def test_rings_ends_and_triple_bonds_do_not_turn(smiles, count):
    assert len(torsions.rotatable(Chem.MolFromSmiles(smiles))) == count


def test_dihedral_is_that_of_rdkit():
    mol, pos = embedded(SMILES[1])
    graph = conformer_codec.graph(mol)
    mol = Chem.Mol(mol)
    mol.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
    mol.GetConformer().SetPositions(pos.numpy())
    wanted = [rdMolTransforms.GetDihedralRad(mol.GetConformer(), *quad) for quad in graph["quad"].tolist()]
    assert torch.allclose(torsions.dihedral(pos, graph["quad"]), torch.tensor(wanted, dtype=pos.dtype), atol=1e-9)


def test_turning_reaches_the_angles_and_keeps_lengths_angles_and_handedness():
    x, cond, _ = batch_of(*SMILES)
    torch.manual_seed(0)
    goal = (torch.rand(x.shape, dtype=torch.float64) * 2 - 1) * math.pi
    pos = conformer_codec.positions(goal, cond)
    assert torch.allclose(torsions.dihedral(pos, cond["reference"])[:, None], goal, atol=1e-9)
    near = cond["hops"] < 5  # atoms one or two bonds apart
    before, after = ((p[cond["pair"][near, 0]] - p[cond["pair"][near, 1]]).norm(dim=1) for p in (cond["pos"], pos))
    assert torch.allclose(before, after, atol=1e-9)
    same = cond["quad"][cond["quad_bond"] == 2]  # about one bond, all dihedral angles grow alike
    moved = torsions.dihedral(pos, same) - torsions.dihedral(cond["pos"], same)
    assert torch.allclose((moved - moved[0]).cos(), torch.ones(len(same), dtype=torch.float64))


def test_stereo_survives_any_turn():
    mol, pos = embedded(SMILES[1])
    graph = conformer_codec.graph(mol)
    made = conformer_codec.batch([graph], [pos])
    turned = conformer_codec.positions(made.x + torch.linspace(-3, 3, len(made.x))[:, None], made.cond)
    copy = Chem.Mol(mol)
    copy.AddConformer(Chem.Conformer(mol.GetNumAtoms()))
    copy.GetConformer().SetPositions(turned.numpy())
    for atom in copy.GetAtoms():
        atom.SetChiralTag(Chem.ChiralType.CHI_UNSPECIFIED)
    Chem.AssignStereochemistryFrom3D(copy)
    assert Chem.MolToSmiles(copy) == Chem.MolToSmiles(mol)


def test_it_makes_no_difference_which_side_is_turned():
    mol, pos = embedded(SMILES[3])
    neighbours = [[o.GetIdx() for o in a.GetNeighbors()] for a in mol.GetAtoms()]
    turning = torsions.rotatable(mol)
    angle = dict(zip(map(frozenset, turning), torch.linspace(0.4, 2, len(turning)).double(), strict=True))
    found = []
    for centre in (0, mol.GetNumAtoms() - 1):
        tree = torsions.tree(neighbours, turning, centre)
        turns = torch.stack([angle[frozenset(pair)] for pair in tree["bond"].tolist()])
        found.append(torch.cdist(*[torsions.turn(pos, turns, tree["bond"], tree["parent"], tree["piece"])] * 2))
    assert torch.allclose(*found, atol=1e-8)


def test_a_batch_is_its_molecules_one_by_one():
    x, cond, rows = batch_of(*SMILES)
    assert rows.counts().tolist() == [2, 6, 0, 5] and rows.size == 4
    goal = torch.linspace(-3, 3, len(x)).double()[:, None]
    together = conformer_codec.positions(goal, cond).split([len(embedded(s)[1]) for s in SMILES])
    for k, smiles in enumerate(SMILES):
        alone = batch_of(smiles)
        assert torch.allclose(conformer_codec.positions(goal[rows.index == k], alone.cond), together[k], atol=1e-9)


def test_turning_can_be_differentiated():
    x, cond, _ = batch_of(SMILES[3])
    x = x.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: conformer_codec.positions(x, cond), x, atol=1e-6)


def test_turned_names_every_atom_beyond_a_bond():
    _, cond, _ = batch_of(SMILES[1])
    for k in range(len(cond["bond"])):
        step = torch.zeros(len(cond["bond"])).double()
        step[k] = 0.1
        pos = torsions.turn(cond["pos"], step, cond["bond"], cond["parent"], cond["piece"])
        moved = ((pos - cond["pos"]).norm(dim=1) > 1e-9).nonzero()[:, 0].tolist()
        told = cond["turned"][cond["turned"][:, 1] == k, 0].tolist()
        assert set(moved) <= set(told) <= {*moved, *cond["bond"][k].tolist()}
