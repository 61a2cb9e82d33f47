"""What judges of poses are shown, and what they are told."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from diffusionkit.core import Diffusion
from diffusionkit.errors import UserError
from diffusionkit.molecule import pockets
from diffusionkit.molecule.pose_confidence import Confidence, JudgedPoses, Posed
from tests.molecule.poses.complexes import ligands, network, pocket, process


def judged(far, copies=64):
    (graph, place), encoded = ligands("CCCO")[0], pockets.encode(pocket())
    places = (place - place.mean(0)).float().repeat(len(far), 1, 1)
    return JudgedPoses([graph], [places], [torch.tensor(far)], [encoded], copies, 0.1)


def test_near_poses_are_shown_often_though_they_are_rare():
    batch = judged([1.0] + [6.0] * 15).batch(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert 0.1 < float(batch.cond["near"].mean()) < 0.5  # 1 in 16 of all


def test_a_complex_without_near_poses_is_shown_as_it_is():
    batch = judged([3.0, 6.0]).batch(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert float(batch.cond["near"].sum()) == 0


def test_the_loss_is_the_cross_entropy_of_the_log_odds():
    class Knowing(nn.Module):
        def forward(self, x, t, cond, rows):
            assert not t.any()  # poses are judged as they are
            return torch.linspace(-2, 3, len(x["tr"]))

    batch = judged([1.0, 6.0], copies=2).batch(torch.tensor([0]))
    losses = Diffusion(Knowing(), process(), Confidence()).loss(*batch)
    wanted = torch.stack([F.softplus(torch.tensor(2.0)), F.softplus(torch.tensor(3.0))])
    assert torch.allclose(losses, wanted)


def test_a_judge_learns_where_a_ligand_has_to_lie():
    """The near pose lies at the centre of the pocket, the far one at its rim."""
    data = judged([0.0, 9.0], copies=8)
    data.places[0][1, :, 0] += 5
    diffusion = Diffusion(network(confidence=True).float(), process(), Confidence())
    optimiser = torch.optim.Adam(diffusion.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        optimiser.zero_grad()
        loss = diffusion.loss(*data.batch(torch.tensor([0]), generator)).mean()
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.2


def test_poses_have_to_be_there(tmp_path):
    with pytest.raises(UserError, match=r"data\.run is missing"):
        Posed().prepared()
    with pytest.raises(
        UserError, match=r"poses_train\.npz: there is no such file; make it with: diffusionkit evaluate"
    ):
        Posed(str(tmp_path)).prepared()


def test_damaged_poses_are_refused(tmp_path):
    (tmp_path / "poses_train.npz").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(UserError, match=r"poses_train\.npz: damaged"):
        Posed(str(tmp_path)).prepared()
