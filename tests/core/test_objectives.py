"""How times are drawn, what a weighting means, how conditions are dropped."""

import math

import pytest
import torch

from diffusionkit.core import (
    EDM,
    P2,
    VLB,
    VP,
    Categorical,
    Cosine,
    Diffusion,
    EDMWeighting,
    Gaussian,
    Linear,
    LinearVariance,
    MinSNR,
    NoisyClassifier,
    RectifiedFlow,
    SigmoidWeighting,
    Simple,
    Torus,
)
from diffusionkit.core.objectives import slope, snr
from tests.core import exact

CPU = torch.device("cpu")
TIMES = torch.linspace(0.05, 0.95, 19, dtype=torch.float64)


def test_times_lie_in_the_half_open_interval_and_stratified_ones_are_spread_evenly():
    process = Gaussian()
    for stratified in (True, False):
        t = Simple(stratified=stratified).draw(process, 1000, CPU)
        assert t.min() > 0 and t.max() <= 1
    ranks = ((1 - Simple().draw(process, 1000, CPU)) * 1000).floor().sort().values
    assert (ranks - torch.arange(1000)).abs().max() <= 1


def test_times_of_a_discrete_chain_lie_on_its_grid():
    t = Simple(steps=10).draw(Gaussian(), 5000, CPU)
    assert set((t * 10).round().int().tolist()) == set(range(1, 11))
    assert torch.allclose(t * 10, (t * 10).round())


def test_edm_draws_log_normal_noise_levels():
    process = Gaussian(EDM(), "edm")
    t = EDMWeighting().draw(process, 20_000, CPU)
    log_sigma = process.schedule(t)[1].log()
    assert float(log_sigma.mean()) == pytest.approx(-1.2, abs=0.02)
    assert float(log_sigma.std()) == pytest.approx(1.2, abs=0.02)


def test_edm_weight_makes_the_plain_loss_of_its_own_parametrisation():
    """lambda(sigma) = 1 / c_out^2 (Karras et al. 2022, section 5)."""
    process = Gaussian(EDM(), "edm")
    x0, output = torch.randn(2, 19, 3, dtype=torch.float64)
    x_t, noise = process.diffuse(x0, TIMES)
    plain = process.loss(output, x0, x_t, noise, TIMES)
    assert torch.allclose(process.loss(output, x0, x_t, noise, TIMES, weight=EDMWeighting().weight), plain)


@pytest.mark.parametrize("schedule", [Cosine(), VP(), RectifiedFlow()], ids=repr)
def test_slope_is_the_derivative_of_log_snr(schedule):
    h = 1e-6
    numeric = (schedule.log_snr(TIMES - h + 1e-4) - schedule.log_snr(TIMES + h + 1e-4)) / (2 * h)
    assert torch.allclose(slope(schedule, TIMES + 1e-4), numeric, rtol=1e-4)


@pytest.mark.parametrize("predict", ["eps", "x0", "v"])
def test_vlb_is_the_sum_of_the_bound_s_terms(predict):
    """The continuous bound is the limit of T KL terms: 1000 times a term at t equals the weighted error there."""
    process = Gaussian(VP(), predict)
    x0, wrong = torch.randn(2, 19, 3, dtype=torch.float64)
    x_t, noise = process.diffuse(x0, TIMES)
    loss = process.loss(exact.raw(process, wrong, x_t, TIMES), x0, x_t, noise, TIMES, weight=VLB().weight)
    step = 1e-5
    terms = process.kl(x0, x_t, wrong, TIMES, TIMES - step) / step / 3
    assert torch.allclose(loss, terms, rtol=1e-3)


def test_published_weightings_of_the_error_in_eps():
    ratio = snr(Cosine(), TIMES)
    log_snr = ratio.log()
    assert torch.allclose(P2().weight(Cosine(), TIMES) / ratio, 1 / (1 + ratio))
    assert torch.allclose(MinSNR(3.0).weight(Cosine(), TIMES) / ratio, (3 / ratio).clamp(max=1))
    sigmoid = SigmoidWeighting(-1.0).weight(VP(), TIMES) / VLB().weight(VP(), TIMES)
    assert torch.allclose(sigmoid, torch.sigmoid(-1.0 - VP().log_snr(TIMES)))
    assert log_snr.isfinite().all()


@pytest.mark.parametrize(
    "objective", [Simple(), VLB(), MinSNR(), P2(), EDMWeighting(), SigmoidWeighting()], ids=lambda o: type(o).__name__
)
@pytest.mark.parametrize("schedule", [Linear(), Cosine(), EDM(), RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("predict", ["eps", "v", "edm"])
def test_every_loss_is_finite_and_zero_for_a_perfect_network(objective, schedule, predict):
    process = Gaussian(schedule, predict)
    constant = torch.full((64, 2), 0.3)
    model = exact.gaussian(process, mean=0.3, std=0.0)
    model.objective = objective
    assert model.loss(constant).shape == (64,)
    assert float(model.loss(constant).mean()) < 1e-3
    model.output = lambda x, t, cond: torch.zeros_like(x)
    assert model.loss(constant).isfinite().all()


def test_dropped_conditions_are_the_share_asked_for():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, x, t, cond):
            seen.append(cond)
            return x

        def null(self, cond, drop):
            return torch.where(drop, -1, cond)

    Diffusion(Network(), Gaussian(), Simple(drop=0.25)).loss(torch.zeros(20_000, 1), torch.arange(20_000))
    assert float((seen[0] == -1).float().mean()) == pytest.approx(0.25, abs=0.02)
    kept = seen[0] >= 0
    assert torch.equal(seen[0][kept], torch.arange(20_000)[kept])


def test_hybrid_loss_trains_the_variance_alone():
    """The bound's gradient reaches the variance's place and not the mean (Nichol & Dhariwal 2021, section 3.1)."""
    process = Gaussian(Linear(), "eps+variance")
    x0 = torch.randn(6, 2, dtype=torch.float64)
    t = torch.tensor([1e-4, 0.001, 0.002, 0.1, 0.5, 1.0], dtype=torch.float64)
    x_t, noise = process.diffuse(x0, t)
    output = torch.randn(6, 4, dtype=torch.float64, requires_grad=True)
    process.loss(output, x0, x_t, noise, t).sum().backward()
    mean_only = output.detach()[:, :2].clone().requires_grad_()
    (mean_only - noise).square().mean(1).sum().backward()
    assert torch.allclose(output.grad[:, :2], mean_only.grad)
    assert output.grad.isfinite().all() and (output.grad[:, 2:].abs() > 0).all()


def test_weights_are_finite_where_no_signal_is_left():
    process = Gaussian(RectifiedFlow(), "eps")
    x0, t = torch.randn(3, 2), torch.ones(3)
    x_t, noise = process.diffuse(x0, t)
    for objective in (MinSNR(), VLB(), P2(), SigmoidWeighting()):
        assert process.loss(noise + 1, x0, x_t, noise, t, weight=objective.weight).isfinite().all()


def test_absorbing_cross_entropy_is_the_continuous_bound():
    """1 / t times the surprise of masked entries: on average -log p for a network that always says p."""
    process = Categorical([4], "absorbing", LinearVariance())
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()
    model = exact.Exact(process, lambda x, t, cond: logits.expand(len(x), 4))
    x0 = torch.full((40_000, 1), 2)
    assert float(model.loss(x0).mean()) == pytest.approx(-math.log(0.2), rel=0.03)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="Torus"):
        Diffusion(torch.nn.Identity(), Torus(), MinSNR())
    with pytest.raises(ValueError, match="drop"):
        Simple(drop=1.0)
    with pytest.raises(ValueError, match="class"):
        Diffusion(torch.nn.Identity(), Gaussian(), NoisyClassifier()).loss(torch.zeros(2, 1))
