"""Poses drawn: in the frame of the file, the pocket encoded once, the same for the same seed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from diffusionkit.core import DDPM
from diffusionkit.errors import UserError
from diffusionkit.molecule import local_structures, pose_draw
from tests.molecule.poses.complexes import SMILES, pocket, untrained


def drawn(diffusion, inside, smiles=SMILES[:2], seed=0, temperature=1.0):
    ligands = [pose_draw.ligand(text, text) for text in smiles]
    starts = [local_structures.embed(one.mol, [1, 2]) for one in ligands]
    torch.manual_seed(seed)
    return starts, pose_draw.draw(diffusion, DDPM(4, temperature=temperature), inside, ligands, starts)


def test_poses_lie_in_the_frame_of_the_file_and_keep_lengths_and_angles():
    inside, diffusion = pocket(), untrained()
    starts, found = drawn(diffusion, inside)
    far = dataclasses.replace(inside, pos=inside.pos + 40, center=inside.center + 40)
    for start, place, moved in zip(starts, found, drawn(diffusion, far)[1], strict=True):
        assert place.shape == start.shape
        assert np.abs(moved - place - 40).max() < 1e-3
    rigid, place = (np.linalg.norm(p[0][2] - p[0][3]) for p in (starts[0], found[0]))  # the amide's bond to nitrogen
    assert place == pytest.approx(rigid, abs=1e-3)


def test_the_same_seed_gives_the_same_poses():
    inside, diffusion = pocket(), untrained()
    first, again, other = (drawn(diffusion, inside, seed=seed)[1] for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.allclose(first[0], other[0])


def test_each_part_may_have_its_own_temperature():
    inside, diffusion = pocket(), untrained()
    _, still = drawn(diffusion, inside, temperature={"tr": 0.0, "rot": 0.0, "tor": 0.0})
    _, cold = drawn(diffusion, inside, temperature=0.0)
    _, turning = drawn(diffusion, inside, temperature={"tr": 0.0, "rot": 1.0, "tor": 0.0})
    assert all(np.array_equal(a, b) for a, b in zip(still, cold, strict=True))
    assert np.allclose(turning[0].mean(1), cold[0].mean(1), atol=0.5)
    assert not np.allclose(turning[0], cold[0], atol=0.1)
    with pytest.raises(ValueError, match="bond"):
        drawn(diffusion, inside, temperature={"bond": 1.0})


def test_the_pocket_is_encoded_once_until_the_network_learns(monkeypatch):
    inside, diffusion, calls = pocket(), untrained(), []
    encode = diffusion.network.encode
    monkeypatch.setattr(diffusion.network, "encode", lambda told: calls.append(1) or encode(told))
    drawn(diffusion, inside)
    drawn(diffusion, inside, SMILES[2:3])
    assert len(calls) == 1
    with torch.no_grad():
        next(diffusion.network.parameters()).add_(1)
    drawn(diffusion, inside)
    drawn(diffusion, pocket(seed=1))
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("CC(", "is no SMILES"),
        ("CCO.[Na+]", "one connected molecule"),
        ("C[Pt]C", "element Pt is not known"),
        (None, "cannot read"),
    ],
)
def test_a_ligand_that_cannot_be_used_is_named(given, said):
    with pytest.raises(UserError, match=f"^lig 7: .*{said}"):
        pose_draw.ligand("lig 7", given)
