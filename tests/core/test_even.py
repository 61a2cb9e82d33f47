"""Absorbing chains that mask and reveal evenly, and draws from packed blocks."""

from __future__ import annotations

import pytest
import torch

from diffusionkit.core import DDPM, Categorical
from tests.core import exact

EQUAL = torch.tensor([[0.5, 0.0], [0.0, 0.5]])


@pytest.mark.parametrize("t", [0.05, 0.3, 0.5, 0.95, 1.0])
def test_masks_nearly_as_many_entries_in_every_sample(t):
    torch.manual_seed(0)
    process = Categorical([3] * 7, "absorbing", even=True)
    x_t, _ = process.diffuse(torch.zeros(20_000, 7, dtype=torch.long), torch.full((20_000,), t))
    masked = x_t == 3
    count = masked.sum(1)
    assert {int(c) for c in count.unique()} <= {int(7 * t), int(7 * t) + (7 * t != int(7 * t))}
    assert masked.float().mean(0) == pytest.approx(torch.full((7,), t), abs=0.015)


def test_going_on_from_s_masks_only_what_is_left():
    torch.manual_seed(0)
    process = Categorical([3] * 6, "absorbing", even=True)
    s, t = torch.full((5000,), 0.4), torch.full((5000,), 0.7)
    x_s, _ = process.diffuse(torch.ones(5000, 6, dtype=torch.long), s)
    x_t, _ = process.diffuse(x_s, t, s)
    assert (x_t[x_s == 3] == 3).all()
    assert float((x_t == 3).float().mean()) == pytest.approx(0.7, abs=0.01)


def test_with_as_many_steps_as_entries_dependent_ones_are_drawn_exactly():
    """Revealed at once, two entries that must agree do not; revealed one after the other, they always do."""
    torch.manual_seed(0)
    found = {}
    for even in (True, False):
        model = exact.joint_table(Categorical([2, 2], "absorbing", even=even), EQUAL)
        x = DDPM(2)(model, like=(4000, 2))
        found[even] = float((x[:, 0] == x[:, 1]).float().mean())
    assert found[True] == 1.0
    assert found[False] < 0.95


def test_every_entry_is_drawn_by_its_probabilities():
    torch.manual_seed(0)
    table = torch.tensor([[0.1, 0.2], [0.3, 0.05], [0.05, 0.3]])
    x = DDPM(3)(exact.joint_table(Categorical([3, 2], "absorbing", even=True), table), like=(40_000, 2))
    shares = torch.bincount(x[:, 0] * 2 + x[:, 1], minlength=6) / len(x)
    assert shares == pytest.approx(table.flatten(), abs=0.01)


def test_the_loss_is_the_mean_over_masked_entries_that_count():
    process = Categorical([4, 2, 3], "absorbing", even=True)
    logits = torch.zeros(2, 9)
    x0 = torch.zeros(2, 3, dtype=torch.long)
    x_t = torch.tensor([[4, 0, 3], [4, 2, 3]])
    keep = torch.tensor([[True, True, False], [True, True, True]])
    loss = process.loss(logits, x0, x_t, x_t, torch.tensor([0.6, 1.0]), keep=keep)
    third = torch.tensor([4.0, 2.0, 3.0]).log().mean()
    assert loss == pytest.approx(torch.stack([torch.tensor(4.0).log(), third]), rel=1e-5)


def test_uniform_chains_have_no_mask_to_be_even_about():
    with pytest.raises(ValueError, match="absorbing"):
        Categorical(3, "uniform", even=True)


def test_packed_draws_follow_the_probabilities_and_never_take_what_has_none():
    torch.manual_seed(0)
    blocks = Categorical([3, 1, 4], "uniform").blocks
    probabilities = torch.tensor([0.2, 0.0, 0.8, 1.0, 0.0, 0.7, 0.3, 0.0]).expand(30_000, 8)
    codes = blocks.sample(probabilities)
    assert torch.bincount(codes[:, 0], minlength=3) / 30_000 == pytest.approx(torch.tensor([0.2, 0, 0.8]), abs=0.01)
    assert (codes[:, 1] == 0).all()
    shares = torch.bincount(codes[:, 2], minlength=4) / 30_000
    assert shares == pytest.approx(torch.tensor([0, 0.7, 0.3, 0]), abs=0.01)
    assert shares[0] == shares[3] == 0 and not (codes[:, 0] == 1).any()


def test_a_block_of_no_entries_is_drawn_and_learned_from():
    process = Categorical([], "absorbing", even=True)
    x0, t = torch.zeros(5, 0, dtype=torch.long), torch.rand(5)
    x_t, noise = process.diffuse(x0, t)
    assert process.loss(torch.zeros(5, 0), x0, x_t, noise, t).tolist() == [0.0] * 5
    assert process.step(x_t, process.estimate(torch.zeros(5, 0), x_t, t), t, t / 2).shape == (5, 0)
