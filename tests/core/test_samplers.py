"""Ancestral steps, grids, given parts, encoding, refusals."""

import math

import pytest
import torch

from diffusionkit.core import (
    DDIM,
    DDPM,
    EDM,
    VE,
    Categorical,
    Cosine,
    Diffusion,
    DPMSolver,
    Gaussian,
    Heun,
    Linear,
    Product,
    RectifiedFlow,
    Rotation,
    Torus,
    UniPC,
    encode,
    slerp,
)
from tests.core import exact


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm_step_has_the_published_moments(variance):
    """Ho et al. 2020, eq. 6, 7 and 11."""
    torch.manual_seed(0)
    process, i, n = Gaussian(Linear(), "eps"), 400, 200_000
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - betas).cumprod(0)
    x_t, eps = torch.full((n, 1), 0.9, dtype=torch.float64), 0.4
    t, s = (torch.tensor(v / 1000, dtype=torch.float64) for v in (i, i - 1))
    beta, bar, before = betas[i - 1], alpha_bar[i - 1], alpha_bar[i - 2]
    estimate = process.estimate(torch.full_like(x_t, eps), x_t, t)
    x_s = process.step(x_t, estimate, t, s, 1.0, variance=variance)
    mean = (0.9 - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
    published = {"small": beta * (1 - before) / (1 - bar), "large": beta}[variance]
    assert float(x_s.mean()) == pytest.approx(float(mean), abs=4 * float((published / n).sqrt()))
    assert float(x_s.var()) == pytest.approx(float(published), rel=0.02)


def test_learned_variance_lies_between_its_bounds():
    torch.manual_seed(0)
    process, n = Gaussian(Linear(), "eps+variance"), 100_000
    x_t = torch.zeros(n, 1, dtype=torch.float64)
    t, s = (torch.tensor(v, dtype=torch.float64) for v in (0.4, 0.35))  # respaced: 20 steps of the chain at once
    found = []
    for place in (-1.0, 0.0, 1.0):
        output = torch.cat([torch.zeros_like(x_t), torch.full_like(x_t, place)], 1)
        x_s = process.step(x_t, process.estimate(output, x_t, t), t, s, variance="learned")
        found.append(float(x_s.var()))
    plain = {v: float(process.step(x_t, torch.zeros(n, 2), t, s, variance=v).var()) for v in ("small", "large")}
    assert found[0] == pytest.approx(plain["small"], rel=0.03) and found[2] == pytest.approx(plain["large"], rel=0.03)
    assert found[1] == pytest.approx(math.sqrt(found[0] * found[2]), rel=0.03)


def test_temperature_scales_what_is_drawn():
    process = Gaussian(Linear(), "x0")
    x_t, x0 = torch.zeros(50_000, 1), torch.zeros(50_000, 1)
    t, s = torch.tensor(0.5), torch.tensor(0.4)
    torch.manual_seed(0)
    full = process.step(x_t, x0, t, s)
    torch.manual_seed(0)
    assert torch.allclose(process.step(x_t, x0, t, s, temperature=0.5), full / 2)


def test_parts_have_temperatures_of_their_own():
    process = Product({"a": Gaussian(Linear(), "x0"), "b": Gaussian(Linear(), "x0")})
    model = exact.Exact(process, lambda x, t, cond: {k: torch.zeros_like(v) for k, v in x.items()})
    start, spreads = {k: torch.zeros(20_000, 1) for k in "ab"}, []
    for temperature in (1.0, {"a": 0.25}, {"a": 0.0, "b": 2.0}):
        torch.manual_seed(0)
        sampler, seen = DDIM(2, eta=1.0, temperature=temperature), []
        sampler(model, like=start, start=start, watch=lambda t, x, _, seen=seen: seen.append(x))
        spreads.append([float(seen[-1][k].std()) for k in "ab"])
    plain = spreads[0]
    assert spreads[1] == pytest.approx([plain[0] / 4, plain[1]]) and spreads[2] == pytest.approx([0, 2 * plain[1]])


def test_same_seed_same_samples():
    model = exact.gaussian(Gaussian())
    draws = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        draws.append(DDPM(20)(model, like=(5, 2)))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


@pytest.mark.parametrize("grid", ["uniform", "quadratic", "karras", "log_snr"])
@pytest.mark.parametrize("schedule", [Cosine(), EDM(), RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 50])
def test_grids_fall_from_the_top_to_zero(grid, schedule, steps):
    process = Gaussian(schedule, "x0")
    times = DDIM(steps, grid=grid).times(process)
    assert len(times) == steps + 1 and times[0] == process.t_max and times[-1] == 0
    assert (times.diff() < 0).all()


# ---- given parts


class Masked(Diffusion):
    """The exact conditional mean of a correlated Gaussian pair, as a network trained with masks would learn it."""

    rho = 0.9

    def __init__(self, process):
        super().__init__(torch.nn.Identity(), process, masks=lambda x0, rows: torch.rand(x0.shape) < 0.5)

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        alpha, sigma = self.process.schedule(t)
        covariance = torch.tensor([[1.0, self.rho], [self.rho, 1.0]], dtype=x_t.dtype)
        noise = torch.diag_embed(torch.where(given, torch.zeros_like(x_t) + 1e-10, sigma**2 * torch.ones_like(x_t)))
        scale = torch.where(given, torch.ones_like(x_t), alpha * torch.ones_like(x_t))
        cross = covariance * scale[:, None, :]
        gain = torch.linalg.solve(scale[:, :, None] * covariance * scale[:, None, :] + noise, cross.transpose(1, 2))
        return (gain.transpose(1, 2) @ x_t[:, :, None])[:, :, 0]


@pytest.mark.parametrize("sampler", [DDPM(200), DDIM(100), DPMSolver(40), Heun(30)], ids=repr)
def test_mask_trained_network_finds_the_true_conditional(sampler):
    torch.manual_seed(0)
    n = 4000
    known = torch.full((n, 2), 1.5, dtype=torch.float64)
    given = torch.tensor([True, False]).expand(n, 2)
    x = sampler(Masked(Gaussian(Cosine(), "x0")), like=known, given=given, known=known)
    assert torch.equal(x[:, 0], known[:, 0])
    assert float(x[:, 1].mean()) == pytest.approx(0.9 * 1.5, abs=0.04)
    assert float(x[:, 1].std()) == pytest.approx(math.sqrt(1 - 0.81), rel=0.07)


def test_mask_trained_network_samples_with_nothing_given():
    torch.manual_seed(0)
    x = DDPM(150)(Masked(Gaussian(Cosine(), "x0")), like=torch.empty(4000, 2, dtype=torch.float64))
    assert float(torch.corrcoef(x.T)[0, 1]) == pytest.approx(0.9, abs=0.03)


def test_mask_trained_table_finds_the_true_conditional():
    table = torch.tensor([[0.4, 0.1], [0.05, 0.45]])

    class Table(Diffusion):
        def forward(self, x_t, t, cond=None, rows=None, given=None):
            column = table[x_t[:, 0]] / table[x_t[:, 0]].sum(1, keepdim=True)
            return torch.cat([torch.zeros_like(column), column.log()], 1)

    torch.manual_seed(0)
    model = Table(torch.nn.Identity(), Categorical([2, 2], "absorbing"), masks=lambda x0, rows: x0 > 9)
    known = torch.zeros(5000, 2, dtype=torch.long)
    given = torch.tensor([True, False]).expand(5000, 2)
    x = DDIM(10, eta=1.0)(model, like=(5000, 2), given=given, known=known)
    assert (x[:, 0] == 0).all()
    assert float(x[:, 1].float().mean()) == pytest.approx(0.2, abs=0.02)


def test_replaced_parts_come_back_bit_equal_and_resampling_helps():
    rho = 0.9
    process = Gaussian(Cosine(), "x0")

    class Pair(exact.Exact):
        def forward(self, x_t, t, cond=None, rows=None, given=None):
            alpha, sigma = process.schedule(t)
            covariance = torch.tensor([[1.0, rho], [rho, 1.0]], dtype=x_t.dtype)
            gain = (
                alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * torch.eye(2, dtype=x_t.dtype))
            )
            return x_t @ gain.T

    known = torch.full((4000, 2), 1.5, dtype=torch.float64)
    given = torch.tensor([True, False]).expand(4000, 2)
    means = []
    for resample in (1, 5):
        torch.manual_seed(0)
        x = DDPM(60)(Pair(process, None), like=known, given=given, known=known, resample=resample)
        assert torch.equal(x[:, 0], known[:, 0])
        means.append(float(x[:, 1].mean()))
    assert abs(means[1] - 0.9 * 1.5) < abs(means[0] - 0.9 * 1.5)
    assert means[1] == pytest.approx(0.9 * 1.5, abs=0.1)


def test_training_with_masks_leaves_given_entries_clean_and_uncounted():
    seen = {}

    class Network(torch.nn.Module):
        def forward(self, x, t, cond, given):
            seen.update(x=x, given=given)
            return torch.where(given, torch.full_like(x, 1e6), torch.zeros_like(x))

    mask = torch.tensor([[True, False], [False, True], [True, True]])
    model = Diffusion(Network(), Gaussian(predict="x0"), masks=lambda x0, rows: mask)
    x0 = torch.tensor([[3.0, 1.0], [2.0, 4.0], [5.0, 6.0]])
    loss = model.loss(x0)
    assert torch.equal(seen["x"][mask], x0[mask]) and not torch.isclose(seen["x"][~mask], x0[~mask]).any()
    assert torch.allclose(loss, torch.tensor([1.0, 4.0, 0.0]))


# ---- encoding


def test_encoding_and_sampling_are_inverse():
    process = Gaussian(Cosine(), "v")
    model = exact.mixture(process, torch.tensor([-1.0, 0.6], dtype=torch.float64), 0.3)
    x0 = torch.linspace(-1.5, 1.2, 12, dtype=torch.float64)[:, None]
    back = DDIM(400)(model, like=x0, start=encode(model, x0, steps=400))
    assert torch.allclose(back, x0, atol=0.03)


def test_slerp_stays_on_the_sphere_and_meets_its_ends():
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 5, 5).unbind()
    a, b = (v / v.flatten(1).norm(dim=1)[:, None, None, None] for v in (a, b))
    assert torch.allclose(slerp(a, b, 0.0), a, atol=1e-6) and torch.allclose(slerp(a, b, 1.0), b, atol=1e-6)
    assert torch.allclose(slerp(a, b, 0.3).flatten(1).norm(dim=1), torch.ones(3), atol=1e-5)


# ---- refusals


@pytest.mark.parametrize(
    ("sampler", "process", "word"),
    [
        (DPMSolver(), Torus(), "Torus"),
        (Heun(), Rotation(), "Rotation"),
        (Heun(), Categorical(3), "Categorical"),
        (UniPC(), Product({"a": Gaussian(), "b": Torus()}), "Torus"),
        (DDPM(variance="large"), Categorical(3), "Gaussian"),
        (DDPM(variance="learned"), Gaussian(), "eps\\+variance"),
        (DDIM(temperature={"a": 0.5}), Gaussian(), "temperature must be one number: Gaussian has no parts"),
        (DDPM(temperature={"c": 0.5}), Product({"a": Gaussian(), "b": Torus()}), "not there: c; parts: a, b"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_network_is_asked(sampler, process, word):
    model = exact.Exact(process, lambda *_: pytest.fail("the network was asked"))
    with pytest.raises(ValueError, match=word):
        sampler(model, like=(2, 2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDIM(0),
        lambda: DDIM(eta=2),
        lambda: DDIM(grid="odd"),
        lambda: DPMSolver(order=4),
        lambda: DDIM(temperature={"a": -1.0}),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError):
        make()


def test_given_without_known_is_refused():
    with pytest.raises(ValueError, match="known"):
        DDIM(2)(exact.gaussian(Gaussian()), like=(2, 1), given=torch.ones(2, 1, dtype=torch.bool))


def test_dropout_is_off_while_sampling_and_back_on_after():
    model = Diffusion(torch.nn.Dropout(0.5), Gaussian())
    model.network.forward = lambda x, t, cond: x * 0 + float(model.network.training)
    model.train()
    seen = []
    DDIM(2)(model, like=(1, 1), watch=lambda t, x, e: seen.append(model.network.training))
    assert seen == [False, False] and model.training


def test_no_temperature_takes_the_most_probable_codes():
    odds = torch.tensor([0.5, 0.3, 0.2])
    model = exact.joint_table(Categorical([3, 1], "absorbing"), odds[:, None])
    assert (DDPM(3, temperature=0.0)(model, like=(50, 2)) == 0).all()


@pytest.mark.parametrize("sigma", [1.0, 50.0])
@pytest.mark.parametrize("space", [Torus, Rotation])
def test_angles_refuse_a_chain_that_ends_too_early_or_too_late(space, sigma):
    with pytest.raises(ValueError, match="radians"):
        space(VE(0.01, sigma))
