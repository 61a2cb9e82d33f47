"""The network of poses: how it turns with the complex, what it tells apart, and what it does not depend on."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from diffusionkit.core.processes.rotation import exp
from diffusionkit.core.rows import Rows
from diffusionkit.molecule import pockets, pose_codec, torsions
from diffusionkit.molecule.backbones import pose
from tests.molecule.poses.complexes import SMILES, batch_of, ligands, network, pocket, process

TIMES = torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=torch.float64)


def scores(net, batch, t=TIMES):
    with torch.no_grad():
        return net(batch.x, t[: len(batch.x["tr"])], batch.cond, batch.rows)


def moved(batch, matrix, shift=0.0):
    """The whole complex turned, or mirrored, and its origin moved."""
    x, cond = batch.x, batch.cond
    pocket_ = dict(cond["pocket"])
    pocket_["pos"] = pocket_["pos"] @ matrix.mT + shift
    pocket_["direction"] = pocket_["direction"] @ matrix.mT
    if torch.det(matrix) > 0:
        turned = {"tr": x["tr"] @ matrix.mT + shift, "rot": matrix @ x["rot"], "tor": x["tor"]}
        start = cond["pos"]
    else:  # the start structure is mirrored, and so is every angle
        turned = {"tr": x["tr"] @ matrix.mT + shift, "rot": matrix @ x["rot"] @ matrix.mT, "tor": -x["tor"]}
        start = cond["pos"] @ matrix.mT
    return batch._replace(x=turned, cond={**cond, "pos": start, "pocket": pocket_})


def test_positions_put_the_state_into_the_pocket():
    batch = batch_of(*SMILES)
    pos, pose = pose_codec.positions(batch.x, batch.cond), Rows(batch.cond["atom"], len(SMILES))
    assert torch.allclose(pose.pool(pos) / pose.counts()[:, None], batch.x["tr"], atol=1e-10)
    here = torsions.dihedral(pos, batch.cond["reference"])[:, None]
    assert torch.allclose((here - batch.x["tor"]).cos(), torch.ones_like(here), atol=1e-10)


def test_encoding_a_pose_and_decoding_it_gives_it_back():
    made = ligands(*SMILES)
    lying = [p @ exp(torch.tensor([0.3, -1.0, 2.0], dtype=p.dtype)).mT + 1.5 for _, p in made]
    found = pose_codec.batch([g for g, _ in made], lying, torch.zeros(len(made), dtype=torch.long))
    assert torch.allclose(pose_codec.positions(found.x, found.cond), torch.cat(lying), atol=1e-10)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_scores_turn_with_the_complex(seed):
    torch.manual_seed(seed)
    batch, net, q = batch_of(*SMILES), network(), exp(torch.randn(3, dtype=torch.float64))
    here, there = scores(net, batch), scores(net, moved(batch, q))
    assert all(float(value.abs().max()) > 1e-3 for value in here.values())
    assert torch.allclose(there["tr"], here["tr"] @ q.mT, atol=1e-9)
    assert torch.allclose(there["rot"], here["rot"] @ q.mT, atol=1e-9)
    assert torch.allclose(there["tor"], here["tor"], atol=1e-9)


def test_scores_of_the_mirrored_complex_are_mirrored():
    batch, net = batch_of(*SMILES), network(prior=False)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    here, there = scores(net, batch), scores(net, moved(batch, mirror))
    assert torch.allclose(there["tr"], here["tr"] @ mirror, atol=1e-9)
    assert torch.allclose(there["rot"], -here["rot"] @ mirror, atol=1e-9)  # a rotation vector is an axial one
    assert torch.allclose(there["tor"], -here["tor"], atol=1e-9)


def test_a_ligand_and_its_mirror_image_are_told_apart_in_a_pocket():
    batch, net = batch_of("C[C@H](N)C(=O)O"), network()
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64))
    other = moved(batch, mirror)
    other = other._replace(cond={**other.cond, "pocket": batch.cond["pocket"]})  # the pocket stays as it is
    here, there = scores(net, batch), scores(net, other)
    assert float((there["tr"] - here["tr"] @ mirror).abs().max()) > 1e-3


def test_a_common_shift_of_ligand_and_pocket_moves_only_what_is_known_of_the_centre():
    batch = batch_of(*SMILES)
    net = network()
    with torch.no_grad():  # the pull towards the centre, which the user named, is the one thing that hangs on it
        net.whole.weight[-1], net.whole.bias[-1] = 0, 0
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    here, there = scores(net, batch), scores(net, moved(batch, torch.eye(3, dtype=torch.float64), shift))
    assert all(torch.allclose(here[name], there[name], atol=1e-9) for name in here)


def test_poses_do_not_see_each_other_and_may_come_in_any_order():
    net, whole = network(), scores(network(), batch_of(*SMILES))
    batch = batch_of(*SMILES)
    turns = batch.rows["tor"]
    for k, smiles in enumerate(SMILES):
        one = batch_of(smiles)
        mine = {"tr": batch.x["tr"][[k]], "rot": batch.x["rot"][[k]], "tor": batch.x["tor"][turns.index == k]}
        alone = scores(net, one._replace(x=mine), TIMES[[k]])
        assert torch.allclose(alone["tr"], whole["tr"][[k]], atol=1e-9)
        assert torch.allclose(alone["rot"], whole["rot"][[k]], atol=1e-9)
        assert torch.allclose(alone["tor"], whole["tor"][turns.index == k], atol=1e-9)


def test_the_order_of_the_pockets_atoms_is_of_no_matter():
    inside, net = pocket(), network()
    order = torch.randperm(len(inside.z)).numpy()
    mixed = dataclasses.replace(
        inside, **{name: getattr(inside, name)[order] for name in ("z", "pos", "residue", "atom", "group")}
    )
    here, there = (scores(net, batch_of(*SMILES, inside=one)) for one in (inside, mixed))
    assert all(torch.allclose(here[name], there[name], atol=1e-9) for name in here)


def test_an_encoded_pocket_gives_the_same_scores():
    batch, net = batch_of(*SMILES), network()
    with torch.no_grad():
        ready = batch._replace(cond={**batch.cond, "pocket": net.encode(batch.cond["pocket"])})
        net.pocket = None  # it is not needed any more
        found = net(ready.x, TIMES, ready.cond, ready.rows)
    whole = scores(network(), batch)
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_how_many_pairs_are_worked_on_at_once_is_of_no_matter(monkeypatch):
    batch, net = batch_of(*SMILES), network()
    found = []
    for together in (5, 10**9):
        monkeypatch.setattr(pose, "_TOGETHER", together)
        net.zero_grad()
        score = net(batch.x, TIMES[: len(batch.x["tr"])], batch.cond, batch.rows)
        sum(value.square().sum() for value in score.values()).backward()
        found.append([*score.values(), *(p.grad for p in net.parameters() if p.grad is not None)])
    assert len(found[0]) > 20
    for few, all_ in zip(*found, strict=True):
        assert torch.allclose(few, all_, rtol=1e-9, atol=1e-12)


def test_several_pockets_in_a_batch_are_kept_apart():
    first, second, net = pocket(seed=0), pocket(seed=5), network()
    made = ligands(SMILES[0], SMILES[3])
    both = pose_codec.batch(
        [g for g, _ in made],
        [p - p.mean(0) for _, p in made],
        torch.tensor([0, 1]),
        [pockets.encode(one, torch.float64) for one in (first, second)],
    )
    together = scores(net, both, TIMES[:2])
    for k, one in enumerate((first, second)):
        alone = batch_of(SMILES[(0, 3)[k]], inside=one)
        mine = {"tr": both.x["tr"][[k]], "rot": both.x["rot"][[k]], "tor": both.x["tor"][both.rows["tor"].index == k]}
        assert torch.allclose(scores(net, alone._replace(x=mine), TIMES[[k]])["tr"], together["tr"][[k]], atol=1e-9)


def test_judgements_do_not_change_when_the_complex_is_turned():
    batch, net = batch_of(*SMILES), network(confidence=True)
    q = exp(torch.tensor([0.4, 1.0, -2.0], dtype=torch.float64))
    here, there = scores(net, batch), scores(net, moved(batch, q, 3.0))
    assert here.shape == (len(SMILES),)
    assert float(here.std()) > 1e-3
    assert torch.allclose(here, there, atol=1e-9)


def test_ligands_without_torsions_train_and_are_drawn():
    from diffusionkit.core import DDPM, Diffusion

    batch, diffusion = batch_of("c1ccccc1"), Diffusion(network(), process())
    assert len(batch.x["tor"]) == 0
    diffusion.loss(*batch).mean().backward()
    like = {name: part.shape for name, part in batch.x.items()}
    drawn = DDPM(3)(diffusion, like=like, cond=batch.cond, rows=batch.rows)
    assert torch.isfinite(pose_codec.positions(drawn, batch.cond)).all()


def test_an_embedding_is_listened_to_and_none_is_needed():
    inside = pocket()
    told = dataclasses.replace(inside, embedding=np.random.default_rng(0).normal(size=(inside.group.max() + 1, 5)))
    other = dataclasses.replace(told, embedding=told.embedding + 1)
    deaf, hearing = network(), network(embedding=5)
    plain, same = (scores(deaf, batch_of(*SMILES, inside=one)) for one in (inside, told))
    assert all(torch.equal(plain[name], same[name]) for name in plain)
    here, there = (scores(hearing, batch_of(*SMILES, inside=one)) for one in (told, other))
    assert float((here["tr"] - there["tr"]).abs().max()) > 1e-4
