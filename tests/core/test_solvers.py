"""Orders of convergence, published formulas."""

import math

import pytest
import torch

from diffusionkit.core import DDIM, EDM, VP, DPMSolver, Gaussian, Heun, Linear, RectifiedFlow, UniPC
from tests.core import exact

MEAN, STD = 0.7, 0.5


def solution(process, x, t):
    """Where the probability flow of N(MEAN, STD^2) leads x from time t to 0."""
    alpha, sigma = process.schedule(t)
    return MEAN + STD * (x - alpha * MEAN) / (alpha**2 * STD**2 + sigma**2).sqrt()


def error(sampler, process):
    """How far sampling ends from where the flow leads, apart from what the last, always first-order, step leaves out."""
    model = exact.gaussian(process, MEAN, STD)
    times = sampler.times(process)
    start = process.schedule(times[0])[1] * torch.tensor([[-1.0], [0.3], [2.0]], dtype=torch.float64)
    alpha, sigma = process.schedule(times[-2])
    data = solution(process, start, times[0])
    before = alpha * MEAN + (data - MEAN) / STD * (alpha**2 * STD**2 + sigma**2).sqrt()
    ideal = process.step(before, model.estimate(before, times[-2]), times[-2], times[-1], 0.0)
    assert float((ideal - data).abs().max()) < (0.02 if sampler.grid == "uniform" else 1e-3)
    return float((sampler(model, like=start, start=start) - ideal).abs().max())


@pytest.mark.parametrize("schedule", [VP(), EDM(), RectifiedFlow()], ids=repr)
@pytest.mark.parametrize(
    ("make", "order"),
    [
        (lambda n: DDIM(n), 1),
        (lambda n: DDIM(n, grid="log_snr"), 1),
        (lambda n: Heun(n), 2),
        (lambda n: Heun(n, grid="log_snr"), 2),
        (lambda n: DPMSolver(n, order=1), 1),
        (lambda n: DPMSolver(n), 2),
        (lambda n: DPMSolver(n, order=3), 3),
        (lambda n: UniPC(n, order=1), 2),
        (lambda n: UniPC(n), 3),
        (lambda n: UniPC(n, order=3), 4),
    ],
)
def test_solvers_converge_with_their_order(schedule, make, order):
    """From t_max to 0, last step included. The corrector raises UniPC's order by one (Zhao et al. 2023, section 3.2)."""
    process = Gaussian(schedule, "x0")
    coarse, fine = error(make(60), process), error(make(120), process)
    # The first steps of a fourth-order rule are of lower order, which is still felt here.
    assert math.log2(coarse / fine) > min(order - 0.3, 3.4)


def test_dpm_solver_equals_the_published_formula():
    """DPM-Solver++(2M), Lu et al. 2022b, algorithm 2, written out."""
    process, sampler = Gaussian(Linear(), "x0"), DPMSolver(12)
    model = exact.mixture(process, torch.tensor([-1.0, 0.6], dtype=torch.float64), 0.3)
    times = sampler.times(process)
    x = y = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    lambdas, past = process.schedule.log_snr(times) / 2, None
    for i in range(12):
        (alpha, sigma), (_, sigma_t) = process.schedule(times[i + 1]), process.schedule(times[i])
        x0 = model.estimate(y, times[i])
        h = lambdas[i + 1] - lambdas[i]
        d = x0
        if past is not None and i < 11:
            r = (lambdas[i] - lambdas[i - 1]) / h
            d = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * past
        y, past = sigma / sigma_t * y - alpha * torch.expm1(-h) * d, x0
    assert torch.allclose(sampler(model, like=x, start=x), y, atol=1e-12)


def test_heun_equals_the_published_formula():
    """Karras et al. 2022, algorithm 1, with sigma(t) = t and s(t) = 1."""
    process, sampler = Gaussian(EDM(), "edm"), Heun(10)
    model = exact.mixture(process, torch.tensor([-1.0, 0.6], dtype=torch.float64), 0.3)
    times = sampler.times(process)
    sigma = process.schedule(times)[1]
    x = y = 80 * torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for i in range(10):
        d = (y - model.estimate(y, times[i])) / sigma[i]
        ahead = y + (sigma[i + 1] - sigma[i]) * d
        if i < 9:
            d = (d + (ahead - model.estimate(ahead, times[i + 1])) / sigma[i + 1]) / 2
            ahead = y + (sigma[i + 1] - sigma[i]) * d
        y = ahead
    assert torch.allclose(sampler(model, like=x, start=x), y, atol=1e-10)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_unipc_equals_diffusers(order):
    diffusers = pytest.importorskip("diffusers", reason="diffusers (extra 'peers') is not installed")
    process = Gaussian(Linear(), "x0")
    model = exact.mixture(process, torch.tensor([-1.0, 0.6], dtype=torch.float64), 0.3)
    theirs = diffusers.UniPCMultistepScheduler(solver_order=order, prediction_type="sample", solver_type="bh2")
    theirs.set_timesteps(8)
    grid = torch.cat([(theirs.timesteps.double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])

    class Their(UniPC):
        def times(self, process):
            return grid

    y = x = torch.linspace(-2, 2, 9, dtype=torch.float64)[:, None]
    for i, step in enumerate(theirs.timesteps[:6]):
        y = theirs.step(model.estimate(y, grid[i]), step, y).prev_sample
    states = []
    Their(8, order)(model, like=x, start=x, watch=lambda t, x, estimate: states.append(x))
    assert torch.allclose(states[6], y, atol=2e-3)
