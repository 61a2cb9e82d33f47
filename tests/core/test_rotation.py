"""Rotations: the maps, the kernel against its series, and the laws that only they have."""

import math

import mpmath
import pytest
import torch

from diffusionkit.core import (
    DDIM,
    VE,
    ClassifierFree,
    GradientGuidance,
    Rotation,
    bound,
)
from diffusionkit.core.processes.rotation import exp, igso3, log
from tests.core import exact

DOUBLE = torch.float64
SIGMAS = torch.tensor([0.001, 0.03, 0.3, 0.99, 1.0, 1.65, 4.0], dtype=DOUBLE)


def vectors(n, angle=None):
    v = torch.randn(n, 3, dtype=DOUBLE)
    return v / v.norm(dim=1, keepdim=True) * (math.pi * torch.rand(n, 1, dtype=DOUBLE) if angle is None else angle)


def angles(x, x0):
    return Rotation().away(x, x0).norm(dim=-1)


def distance(found, sigma):
    """Kolmogorov and Smirnov's largest difference of the distributions of angles `found` and of IGSO(3)."""
    grid = torch.linspace(0, min(math.pi, 12 * sigma), 4001, dtype=DOUBLE)
    density = (1 - grid.cos()) / math.pi * igso3(grid, torch.tensor(sigma, dtype=DOUBLE))[0].exp()
    below = torch.cumulative_trapezoid(density, grid)
    here = below[torch.bucketize(found.double().sort().values, grid).clamp(1, 4000) - 1]
    return float((here - torch.arange(1, len(found) + 1) / len(found)).abs().max())


# ---- the maps


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-3, 1.0, 3.0, math.pi - 1e-7, math.pi])
def test_exp_is_the_matrix_exponential_and_log_its_inverse(angle):
    torch.manual_seed(0)
    v = vectors(40, angle)
    cross = torch.zeros(40, 3, 3, dtype=DOUBLE)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        cross[:, i, j], cross[:, j, i] = -v[:, k], v[:, k]
    assert torch.allclose(exp(v), torch.matrix_exp(cross), atol=1e-14)
    back = log(exp(v))
    same = torch.where(((back * v).sum(1) < 0)[:, None] & (angle == math.pi), -back, back)  # at pi both signs are right
    assert torch.allclose(same, v, atol=1e-9, rtol=1e-9)
    assert torch.allclose(log(exp(v.float())).norm(dim=1), v.float().norm(dim=1), atol=2e-6)


def test_the_maps_have_derivatives_at_no_rotation():
    v = torch.zeros(1, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(exp, v)
    (slope,) = torch.autograd.grad(exp(v)[0, 1, 0], v)
    assert torch.equal(slope[0], torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE))


# ---- the kernel


def series(angle, sigma):
    """The log density and its slope over the angle, by the series in as many digits as it takes."""
    with mpmath.workdps(30 + int(2.2 / sigma**2)):
        w, variance = mpmath.mpf(angle), mpmath.mpf(sigma) ** 2
        f = slope = mpmath.mpf(0)
        for j in range(int(3.3 / sigma**2 + 12 / sigma) + 15):
            weight, half = (2 * j + 1) * mpmath.exp(-j * (j + 1) * variance / 2), j + mpmath.mpf(1) / 2
            f, slope = f + weight * mpmath.sin(half * w), slope + weight * half * mpmath.cos(half * w)
        sine = mpmath.sin(w / 2)
        return float(mpmath.log(f / sine)), float((slope / f - mpmath.cos(w / 2) / sine / 2) / w)


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.9, 0.999, 1.0, 1.65, 4.0])
def test_density_and_score_are_those_of_the_series(sigma):
    for angle in (1e-7, 1e-4, 1e-3, 0.02, 0.3, 1.0, 2.0, 3.0, 3.141):
        found = igso3(torch.tensor(angle, dtype=DOUBLE), torch.tensor(sigma, dtype=DOUBLE))
        wanted = series(angle, sigma)
        assert float(found[0]) == pytest.approx(wanted[0], rel=1e-6, abs=1e-7)
        assert float(found[1]) == pytest.approx(wanted[1], rel=1e-6)


@pytest.mark.parametrize("sigma", [0.001, 0.01, 0.05])
def test_density_and_score_are_those_of_thousands_of_terms(sigma):
    j = torch.arange(int(9 / sigma), dtype=DOUBLE)
    w = sigma * torch.linspace(0.05, 4, 20, dtype=DOUBLE)[:, None]
    weight = (2 * j + 1) * torch.exp(-j * (j + 1) * sigma**2 / 2)
    f = (weight * ((j + 0.5) * w).sin()).sum(1)
    slope = (weight * (j + 0.5) * ((j + 0.5) * w).cos()).sum(1) / f - 1 / (w[:, 0] / 2).tan() / 2
    found = igso3(w[:, 0], torch.tensor(sigma))
    assert torch.allclose(found[0], (f / (w[:, 0] / 2).sin()).log(), rtol=1e-6)
    assert torch.allclose(found[1], slope / w[:, 0], rtol=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_score_is_the_slope_of_the_density_and_the_density_has_mass_one(sigma):
    w = torch.linspace(0.002, 3.1415, 500, dtype=DOUBLE, requires_grad=True)
    log_density, slope = igso3(w, sigma)
    (wanted,) = torch.autograd.grad(log_density.sum(), w)
    assert torch.allclose(slope * w, wanted, rtol=1e-6, atol=1e-7)
    grid = torch.linspace(0, min(math.pi, 12 * float(sigma)), 4001, dtype=DOUBLE)
    mass = torch.trapezoid((1 - grid.cos()) / math.pi * igso3(grid, sigma)[0].exp(), grid)
    assert float(mass) == pytest.approx(1, abs=1e-6)


def test_single_precision_is_good_enough():
    torch.manual_seed(0)
    process, sigma = Rotation(), SIGMAS[1:, None, None]
    v = vectors(100) * torch.rand(len(sigma), 100, 1, dtype=DOUBLE)
    single, double = process.score(v.float(), sigma.float()), process.score(v, sigma)
    assert single.dtype == torch.float32 and single.isfinite().all()
    assert torch.allclose(single.double(), double, rtol=1e-4, atol=1e-6)


def test_small_noise_is_gaussian_in_the_tangent_space_and_large_noise_uniform():
    torch.manual_seed(0)
    process, v = Rotation(), vectors(1000, 1.0)
    small, large = (torch.tensor([[s]], dtype=DOUBLE) for s in (0.01, 4.0))
    assert torch.allclose(process.score(0.02 * v, small), -0.02 * v / small**2, rtol=1e-4)
    flat = -3 * (small.log() + math.log(2 * math.pi) / 2) - 0.02**2 / (2 * small**2)
    assert torch.allclose(process.log_density(0.02 * v, small), flat[0], atol=1e-3)
    drawn = process.noise(torch.eye(3, dtype=DOUBLE).expand(20_000, 3, 3), small)
    assert torch.allclose(drawn.T.cov(), 1e-4 * torch.eye(3, dtype=DOUBLE), atol=3e-6)
    assert process.score(v, large).abs().max() < 1e-6
    assert torch.allclose(process.log_density(v, large), torch.tensor(-math.log(8 * math.pi**2), dtype=DOUBLE))


@pytest.mark.parametrize("sigma", [0.001, 0.1, 0.8, 1.3, 1.65, 2.0, 4.0])
def test_draws_have_the_kernel_s_angles_and_no_preferred_axis(sigma):
    torch.manual_seed(0)
    drawn = Rotation().noise(torch.eye(3, dtype=DOUBLE).expand(20_000, 3, 3), torch.tensor(sigma))
    found = drawn.norm(dim=1)
    assert distance(found, sigma) < 1.63 / math.sqrt(20_000)  # passed by 99 % of exact samples
    axes = drawn / found[:, None]
    assert axes.mean(0).abs().max() < 0.02
    assert torch.allclose(axes.T @ axes / 20_000, torch.eye(3, dtype=DOUBLE) / 3, atol=0.01)


# ---- the chain


def test_diffusion_composes():
    torch.manual_seed(0)
    process, x0 = Rotation(), exp(vectors(1)).expand(10_000, 3, 3)
    s, t = (torch.tensor(v, dtype=DOUBLE) for v in (0.7, 0.85))
    x_t = process.diffuse(process.diffuse(x0, s)[0], t, s)[0]
    assert distance(angles(x_t, x0), float(process.schedule(t)[1])) < 1.63 / 100


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_exact_score_of_a_mixture_gives_the_mixture_back(eta):
    torch.manual_seed(0)
    process, std, n = Rotation(VE(0.03, 3.0)), 0.3, 2000
    means = exp(torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.5, 0.0]], dtype=DOUBLE))
    x = DDIM(100, eta=eta)(exact.rotations(process, means, std), like=torch.empty(n, 3, 3, dtype=DOUBLE))
    away = torch.stack([angles(x, mean) for mean in means])
    assert float((away[0] < away[1]).double().mean()) == pytest.approx(0.5, abs=0.035)
    assert distance(away.min(0).values, std) < 0.05  # the few steps of the chain included


def test_samples_of_a_turned_law_are_turned():
    """Turning the data from the left turns noise, scores and samples; turning from the right leaves the scores as they are."""
    torch.manual_seed(0)
    process, turn, x = Rotation(), exp(vectors(1))[0], exp(vectors(20))
    means = exp(vectors(3))
    t = torch.linspace(0.1, 1, 20, dtype=DOUBLE)
    plain = exact.rotations(process, means, 0.2)
    assert torch.allclose(exact.rotations(process, turn @ means, 0.2)(turn @ x, t), plain(x, t) @ turn.T)
    assert torch.allclose(exact.rotations(process, means @ turn, 0.2)(x @ turn, t), plain(x, t))
    step = process.step(x, v := vectors(20), t, t / 2, 0.0)
    assert torch.allclose(process.step(turn @ x, v @ turn.T, t, t / 2, 0.0), turn @ step)


def test_loss_vanishes_at_the_score_and_counts_what_is_kept():
    torch.manual_seed(0)
    process, x0, t = Rotation(), exp(vectors(6)).reshape(3, 2, 3, 3), torch.tensor([0.2, 0.5, 0.9], dtype=DOUBLE)
    x_t, noise = process.diffuse(x0, t)
    sigma = process.schedule(t)[1][:, None, None]
    score = process.score(process.away(x_t, x0), sigma)
    assert process.loss(sigma * score, x0, x_t, noise, t).abs().max() < 1e-12
    keep = torch.tensor([True, False]).reshape(1, 2, 1, 1).expand_as(x0)
    wrong = sigma * score + torch.tensor([0.0, 3.0], dtype=DOUBLE)[:, None]
    assert process.loss(wrong, x0, x_t, noise, t, keep=keep).abs().max() < 1e-12
    assert process.loss(wrong, x0, x_t, noise, t).min() > 1
    assert torch.equal(process.dimensions(x0), torch.full((3,), 6.0, dtype=DOUBLE))


def test_matrices_stay_orthogonal_over_a_thousand_steps():
    torch.manual_seed(0)
    process, x = Rotation(), Rotation().prior((50, 3, 3))
    for _ in range(1000):
        x = process.move(x, torch.randn(50, 3))
    assert (x @ x.mT - torch.eye(3)).abs().max() < 1e-6 and (torch.linalg.det(x) - 1).abs().max() < 1e-6


def test_same_seed_same_samples():
    model, found = exact.rotations(Rotation(), torch.eye(3)[None], 0.5), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(DDIM(5, eta=1.0)(model, like=(20, 3, 3)))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_given_rotations_come_back_bit_equal():
    torch.manual_seed(0)
    known, given = Rotation().prior((8, 2, 3, 3)), torch.tensor([True, False]).reshape(1, 2, 1, 1).expand(8, 2, 3, 3)
    model = exact.rotations(Rotation(), torch.eye(3)[None], 0.5)
    x = DDIM(5, eta=1.0)(model, like=(8, 2, 3, 3), given=given, known=known)
    assert torch.equal(x[:, 0], known[:, 0]) and not torch.equal(x[:, 1], known[:, 1])


# ---- guidance, bound


def test_a_gradient_in_matrix_entries_guides_along_the_tangent():
    torch.manual_seed(0)
    process, weights, t = Rotation(), torch.randn(3, 3, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    model = exact.Exact(process, lambda x, t, cond: torch.zeros_like(x[..., 0]))
    log_prob = lambda x, t, cond: (weights * x).sum((1, 2))  # noqa: E731
    x, v = exp(vectors(10)), vectors(10, 1e-6)
    slope = (log_prob(process.move(x, v), t, None) - log_prob(process.move(x, -v), t, None)) / 2
    found = GradientGuidance(model, log_prob).estimate(x, t)
    assert torch.allclose((found * v).sum(1), slope, rtol=1e-4, atol=1e-13)


def test_gradient_guidance_moves_uniform_rotations_to_the_likely():
    torch.manual_seed(0)
    target = exp(vectors(1).float())[0]
    model = exact.Exact(Rotation(), lambda x, t, cond: torch.zeros_like(x[..., 0]))
    guided = GradientGuidance(model, lambda x, t, cond: 4 * (target * x).sum((1, 2)) * (1 - t))
    x = DDIM(60, eta=1.0)(guided, like=(2000, 3, 3))
    u, _, v = torch.linalg.svd(x.mean(0))
    assert float(angles(u @ v, target)) < 0.05 and float(angles(x, target).median()) < 1.0


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.0])
def test_guidance_of_an_exact_pair_gives_the_product_law(scale):
    """p0 (p1 / p0)^w of two narrow laws about I and exp(m) is, up to curvature, one about exp(w m) of the same width."""
    torch.manual_seed(0)
    shift = torch.tensor([0.0, 0.0, 0.25])

    class Pair(exact.Exact):
        def null(self, cond, drop):
            return torch.where(drop[:, None], torch.zeros_like(cond), cond)

    process = Rotation()

    def output(x, t, cond):
        sigma = process.schedule(t)[1]
        return sigma * process.score(process.away(x, exp(cond)), (sigma**2 + 0.2**2).sqrt())

    x = DDIM(60, eta=1.0)(ClassifierFree(Pair(process, output), scale), like=(1500, 3, 3), cond=shift.expand(1500, 3))
    found = log(x)
    assert torch.allclose(found.mean(0), scale * shift, atol=0.03)
    assert torch.allclose(found.std(0), torch.tensor(0.2), rtol=0.08)


def test_bound_with_the_exact_score_is_the_entropy_and_what_the_chain_s_steps_add():
    torch.manual_seed(0)
    process, n, std, steps = Rotation(), 1500, torch.tensor(0.3, dtype=DOUBLE), 80
    variance = process.schedule(torch.linspace(0, 1, steps + 1, dtype=DOUBLE)[1:])[1] ** 2
    x0 = torch.eye(3, dtype=DOUBLE).expand(n, 3, 3)
    start, end = process.noise(x0, std), process.noise(x0, variance[-1].sqrt())
    entropy = -process.log_density(start, std).mean()
    found = bound(exact.rotations(process, x0[:1], float(std)), exp(start), steps=steps)
    # For a Gaussian: terms (sigma_t^2 / sigma_s^2 - 1) / 2 std^2 / (std^2 + sigma_t^2) a dimension, where their integral is due.
    left = std**2 / (std**2 + variance)
    added = ((variance[1:] / variance[:-1] - 1) * left[1:]).sum() - ((1 - left[-1]) / (1 - left[0])).log()
    assert float(found.total().mean() - entropy) == pytest.approx(float(3 * added / 2), abs=0.15)
    # The first term by draws.
    gained = process.log_density(end, variance[-1].sqrt()).mean() + math.log(8 * math.pi**2)
    assert float(found.L_T[0]) == pytest.approx(float(gained), abs=0.015)
