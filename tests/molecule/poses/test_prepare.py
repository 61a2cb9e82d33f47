"""Complexes made ready: true poses as states, batches of several noise levels, and what a run keeps of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.molecule import pockets, pose_codec, pose_prepare
from diffusionkit.molecule.conformer_data import readable
from diffusionkit.molecule.pose_codec import PoseCodec
from diffusionkit.molecule.pose_data import Made


@pytest.fixture(scope="module")
def some():
    return Made().load()["train"][:3]


@pytest.fixture(scope="module")
def poses(some):
    graphs = readable([one.ligand for one in some])[1]
    true = [torch.from_numpy(one.ligand.GetConformer().GetPositions())[None].float() for one in some]
    places = [pose_prepare.laid(place, one) for place, one in zip(true, some, strict=True)]
    return pose_prepare.Poses(graphs, places, [pockets.encode(one.pocket) for one in some], copies=4, jitter=0.7)


def test_structures_are_laid_on_the_true_pose_wherever_they_come_from(some):
    one, angle = some[0], torch.tensor(2.0)
    true = torch.from_numpy(one.ligand.GetConformer().GetPositions()).float()
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    found = pose_prepare.laid((true @ turn.T + 30)[None], one)[0]
    assert torch.allclose(found + torch.from_numpy(one.pocket.center).float(), true, atol=1e-3)


def test_the_state_of_a_batch_is_the_true_pose(poses, some):
    batch = poses.batch(torch.tensor([2, 0]))
    assert len(batch.x["tr"]) == 8
    pos = pose_codec.positions(batch.x, batch.cond)
    first = some[2].ligand.GetConformer().GetPositions() - some[2].pocket.center
    assert np.abs(pos[: len(first)].numpy() - first).max() < 1e-3
    assert torch.equal(batch.cond["inside"], torch.tensor([0] * 4 + [1] * 4))


def test_the_centre_moves_in_training_and_ligand_and_pocket_move_with_it(poses):
    still, shaken = (poses.batch(torch.tensor([1]), g) for g in (None, torch.Generator().manual_seed(0)))
    shift = shaken.cond["pocket"]["pos"] - still.cond["pocket"]["pos"]
    assert float(shift.norm(dim=1).min()) > 0.1
    assert torch.allclose(shift, shift[:1].expand_as(shift), atol=1e-5)
    assert torch.allclose(shaken.x["tr"] - still.x["tr"], shift[:1].expand(4, 3), atol=1e-5)


def test_a_codec_comes_back_from_its_folder(tmp_path, some):
    shown = [(one.pocket, pose_prepare.block(one.ligand)) for one in some]
    codec = PoseCodec(shown, 11.0, ["C", "N", "Zn"])
    codec.save(tmp_path)
    again = PoseCodec.load(tmp_path)
    assert (again.radius, again.elements) == (11.0, ["C", "N", "Zn"])
    for (pocket, block), (other, text) in zip(shown, again.examples, strict=True):
        assert block == text
        assert pocket.name == other.name
        assert all(np.array_equal(getattr(pocket, k), getattr(other, k)) for k in ("z", "pos", "group", "center"))
    (tmp_path / "codec.json").write_text("{")
    with pytest.raises(UserError, match=r"codec\.json: damaged"):
        PoseCodec.load(tmp_path)
