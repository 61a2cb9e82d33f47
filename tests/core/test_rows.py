"""Ragged equals one by one, in any order; centring holds."""

import pytest
import torch

from diffusionkit.core import VE, Categorical, Diffusion, Gaussian, Rotation, Rows, Torus, center
from diffusionkit.core.rows import mean, repeat_rows, spread, total

SIZES = torch.tensor([3, 0, 1, 4])


def test_pool_spread_and_counts():
    rows = Rows.from_sizes(SIZES)
    assert torch.equal(rows.counts(), SIZES)
    x = torch.arange(8.0)[:, None]
    assert torch.equal(rows.pool(x)[:, 0], torch.tensor([3.0, 0.0, 3.0, 22.0]))
    assert torch.equal(rows.spread(torch.arange(4)), torch.tensor([0, 0, 0, 2, 3, 3, 3, 3]))
    assert torch.equal(mean(x, rows), torch.tensor([1.0, 0.0, 3.0, 5.5]))
    assert torch.equal(total(x, rows, keep=x > 3), torch.tensor([0.0, 0.0, 0.0, 22.0]))


def test_repeat_follows_cat():
    rows = Rows(torch.tensor([1, 0, 1]), 2)
    x = torch.randn(3, 2)
    pooled = rows.repeat(3).pool(torch.cat([x, 2 * x, 3 * x]))
    assert torch.allclose(pooled, torch.cat([rows.pool(x), 2 * rows.pool(x), 3 * rows.pool(x)]))
    assert repeat_rows({"a": rows, "b": None}, 2)["b"] is None


def test_center_removes_each_sample_s_mean():
    rows = Rows(torch.tensor([2, 0, 0, 2, 3]), 4)
    x = center(100 + torch.randn(5, 3), rows)
    assert rows.pool(x).abs().max() < 1e-4
    dense = center(torch.randn(4, 5, 3))
    assert dense.mean(1).abs().max() < 1e-6


PROCESSES = {
    "gaussian": (Gaussian(predict="v"), lambda n: torch.randn(n, 3), 3),
    "centred": (Gaussian(VE(), "edm", centered=True), lambda n: torch.randn(n, 3), 3),
    "uniform": (Categorical([2, 5, 3]), lambda n: torch.randint(0, 2, (n, 3)), 10),
    "absorbing": (Categorical([4, 4, 4], "absorbing"), lambda n: torch.randint(0, 4, (n, 3)), 12),
    "torus": (Torus(), lambda n: torch.rand(n, 3), 3),
    "rotation": (Rotation(), lambda n: Rotation().prior((n, 3, 3)), 3),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_ragged_loss_equals_one_by_one_in_any_order(name):
    torch.manual_seed(0)
    process, make, width = PROCESSES[name]
    order = torch.randperm(8)
    rows = Rows(Rows.from_sizes(SIZES).index[order], 4)
    x0, t = make(8), torch.tensor([0.2, 0.5, 0.7, 0.9])
    if name == "centred":
        x0 = center(x0, rows)
    x_t, noise = process.diffuse(x0, t, rows=rows)
    output = torch.randn(8, width)
    together = process.loss(output, x0, x_t, noise, t, rows)
    for k in range(4):
        own = rows.index == k
        alone = Rows(torch.zeros(int(own.sum()), dtype=torch.long), 1)
        single = process.loss(output[own], x0[own], x_t[own], noise[own], t[k : k + 1], alone)
        assert torch.allclose(together[k], single[0], atol=1e-5)


@pytest.mark.parametrize("name", PROCESSES)
def test_ragged_step_equals_one_by_one(name):
    process, make, width = PROCESSES[name]
    torch.manual_seed(1)
    rows, x_t, output = Rows.from_sizes(SIZES), make(8), torch.randn(8, width)
    if name == "centred":
        x_t = center(x_t, rows)
    t, s = torch.tensor([0.2, 0.5, 0.7, 0.9]), torch.tensor([0.1, 0.4, 0.6, 0.8])
    estimate = process.estimate(output, x_t, t, rows)
    if process.linear or name in ("torus", "rotation"):
        together = process.step(x_t, estimate, t, s, 0.0, rows)
        for k in (0, 3):
            own = rows.index == k
            alone = Rows(torch.zeros(int(own.sum()), dtype=torch.long), 1)
            here = process.estimate(output[own], x_t[own], t[k : k + 1], alone)
            single = process.step(x_t[own], here, t[k : k + 1], s[k : k + 1], 0.0, alone)
            assert torch.allclose(together[own], single, atol=1e-5)
    else:
        assert process.step(x_t, estimate, t, s, 1.0, rows).shape == x_t.shape


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "edm"])
def test_centred_chain_stays_centred(predict):
    torch.manual_seed(0)
    process, rows = Gaussian(predict=predict, centered=True), Rows.from_sizes(SIZES)

    class Drifting(torch.nn.Module):
        def forward(self, x, t, cond, rows):
            return torch.tanh(x) + 5  # not centred at all

    from diffusionkit.core import DDPM

    drift = []
    DDPM(20)(
        Diffusion(Drifting(), process), like=torch.empty(8, 3, dtype=torch.float64), rows=rows,
        watch=lambda t, x, estimate: drift.append(float(rows.pool(x).abs().max())),
    )  # fmt: skip
    assert max(drift) < 1e-6


def test_spread_shapes():
    assert spread(torch.zeros(4), torch.zeros(4, 2, 3)).shape == (4, 1, 1)
    assert spread(torch.tensor(1.0), torch.zeros(4, 2)).shape == ()
