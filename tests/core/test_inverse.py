"""Editing without training: jumps, measurements, drafts and coarse references, against answers that are known."""

import math

import pytest
import torch

from diffusionkit.core import (
    DDIM,
    DDPM,
    VE,
    Categorical,
    ClassifierFree,
    Cosine,
    Diffusion,
    DPMSolver,
    Gaussian,
    Heun,
    LowPass,
    Posterior,
    Rows,
    Threshold,
    Torus,
    UniPC,
    adjoint,
    composed,
    masked,
    redraw,
)
from diffusionkit.core.samplers import repaint_route
from tests.core import exact

F64 = torch.float64
COVARIANCE = torch.tensor([[1.0, 0.8, -0.3], [0.8, 1.5, 0.1], [-0.3, 0.1, 0.4]], dtype=F64)
MEAN = torch.tensor([0.3, -0.5, 1.0], dtype=F64)
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, 1.0, -1.0]], dtype=F64)
Y, NOISE = torch.tensor([[1.2, -0.4]], dtype=F64), 0.3


class Correlated(exact.Exact):
    """The exact denoiser of N(mean, covariance)."""

    def __init__(self, process, mean=MEAN, covariance=COVARIANCE):
        self.moments = mean, covariance

        def output(x, t, cond):
            alpha, sigma = (float(v) for v in process.schedule(t.double()))
            eye = torch.eye(len(mean), dtype=F64)
            gain = alpha * covariance @ torch.linalg.inv(alpha**2 * covariance + sigma**2 * eye)
            return exact.raw(process, mean + (x - alpha * mean) @ gain.T, x, t)

        super().__init__(process, output)


def conditioned(mean, covariance, a, y, noise):
    """Mean and covariance of N(mean, covariance) given y = a x + noise."""
    gain = covariance @ a.T @ torch.linalg.inv(a @ covariance @ a.T + noise**2 * torch.eye(len(a), dtype=F64))
    return mean + (y - a @ mean) @ gain.T, covariance - gain @ a @ covariance


def measure(x):
    return x @ A.T


# ---- RePaint


@pytest.mark.parametrize(("steps", "resample", "jump"), [(50, 1, 7), (50, 10, 1), (50, 3, 10), (13, 4, 5), (2, 3, 1)])
def test_the_route_is_that_of_repaint(steps, resample, jump):
    """Lugmayr et al. 2022, step by step: t falls from steps - 1 to 0, and -1 stands for the data. On every multiple of the jump from
    which one can go up without leaving the grid, it goes up by the jump and down again, resample - 1 times."""
    wanted, at = [], steps
    for stop in reversed(range(0, steps - jump, jump)):
        wanted += [*range(at - 1, stop - 1, -1)]
        wanted += [*range(stop + 1, stop + jump + 1), *range(stop + jump - 1, stop - 1, -1)] * (resample - 1)
        at = stop
    route = repaint_route(steps, resample, jump)
    single = [route[0]]
    for place in route[1:]:  # we go back in one jump, they step by step
        single += [place] if place > single[-1] else range(single[-1] - 1, place - 1, -1)
    assert [steps - 1 - place for place in single] == [*wanted, -1]


def test_impossible_jumps_are_refused():
    for resample, jump in ((0, 1), (2, 0), (2, 5)):
        with pytest.raises(ValueError):
            repaint_route(5, resample, jump)
    assert repaint_route(1, 3) == [0, 1]


@pytest.mark.parametrize("sampler", [DDPM(40), DDIM(40), DPMSolver(40, eta=1.0)], ids=repr)
def test_going_back_and_forth_beats_plain_replacement(sampler):
    """A stretch of a correlated series between known ends: error of the conditional mean; known entries come back bit-equal."""
    i = torch.arange(12, dtype=F64)
    covariance, given = torch.exp(-(i[:, None] - i).abs() / 4), (i < 4) | (i >= 8)
    known = (i / 3).cos() + 0.5
    wanted, _ = conditioned(torch.zeros(12, dtype=F64), covariance, torch.eye(12, dtype=F64)[given], known[given], 0.0)
    model = Correlated(Gaussian(Cosine(), "x0"), torch.zeros(12, dtype=F64), covariance)
    errors = {}
    for resample, jump in ((1, 1), (8, 1), (8, 4)):
        torch.manual_seed(0)
        shape = (1000, 12)
        x = sampler(
            model,
            like=known.expand(shape),
            given=given.expand(shape),
            known=known.expand(shape),
            resample=resample,
            jump=jump,
        )
        assert torch.equal(x[:, given], known[given].expand(1000, 8))
        errors[resample, jump] = float((x.mean(0) - wanted).norm())
    assert errors[8, 1] < 0.7 * errors[1, 1] and errors[8, 4] < 0.7 * errors[1, 1]


def test_codes_are_filled_in_with_jumps_too():
    table = torch.tensor([[0.45, 0.05], [0.05, 0.45]])
    model = exact.joint_table(Categorical([2, 2]), table)
    known, given = torch.zeros(3000, 2, dtype=torch.long), torch.tensor([True, False]).expand(3000, 2)
    x = DDPM(30)(model, like=(3000, 2), given=given, known=known, resample=6, jump=3)
    assert (x[:, 0] == 0).all() and float(x[:, 1].float().mean()) == pytest.approx(0.1, abs=0.05)


# ---- measurements


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "flow", "edm", "eps+variance"])
@pytest.mark.parametrize("t", [0.02, 0.5, 0.9])
def test_moments_give_the_exact_posterior_mean_at_every_time(predict, t):
    """E[x0 | x_t, y] of a normal law in closed form: x_t and y are two measurements."""
    process = Gaussian(Cosine(), predict)
    x_t, t = torch.randn(5, 3, dtype=F64), torch.tensor(t, dtype=F64)
    model = Posterior(Correlated(process), measure, Y, "moments", noise=NOISE, iterations=3)
    alpha, sigma = process.schedule(t)
    eye = torch.eye(3, dtype=F64)
    gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * eye)
    mean, covariance = MEAN + (x_t - alpha * MEAN) @ gain.T, COVARIANCE - alpha * gain @ COVARIANCE
    kalman = covariance @ A.T @ torch.linalg.inv(A @ covariance @ A.T + NOISE**2 * torch.eye(2, dtype=F64))
    wanted = mean + (Y - measure(mean)) @ kalman.T
    assert torch.allclose(process.guess(model.estimate(x_t, t), x_t, t), wanted, atol=1e-6)
    times = t.expand(5)  # one time a sample
    batched = Correlated(process)
    batched.forward = lambda x, t, *rest: Correlated.forward(batched, x, t[0], *rest)
    model = Posterior(batched, measure, Y, "moments", noise=NOISE, iterations=3)
    assert torch.allclose(process.guess(model.estimate(x_t, times), x_t, times), wanted, atol=1e-6)


@pytest.mark.parametrize("sampler", [DDPM(200), DDIM(100), DPMSolver(40), Heun(60)], ids=repr)
def test_moments_draw_from_the_exact_posterior(sampler):
    torch.manual_seed(0)
    model = Posterior(Correlated(Gaussian(Cosine(), "x0")), measure, Y, "moments", noise=NOISE)
    x = sampler(model, like=torch.empty(4000, 3, dtype=F64))
    mean, covariance = conditioned(MEAN, COVARIANCE, A, Y[0], NOISE)
    assert float((x.mean(0) - mean).abs().max()) < 0.03
    assert float((torch.cov(x.T) - covariance).abs().max()) < 0.015


@pytest.mark.parametrize("std", [1.0, 0.4])
def test_pseudoinverse_guidance_is_exact_for_uncorrelated_data(std):
    torch.manual_seed(0)
    eye, zero = torch.eye(3, dtype=F64), torch.zeros(3, dtype=F64)
    model = Correlated(Gaussian(Cosine(), "v"), zero, std**2 * eye)
    x = DDPM(150)(Posterior(model, measure, Y, "pigdm", noise=NOISE, std=std), like=torch.empty(4000, 3, dtype=F64))
    mean, covariance = conditioned(zero, std**2 * eye, A, Y[0], NOISE)
    assert float((x.mean(0) - mean).abs().max()) < 0.03
    assert float((torch.cov(x.T) - covariance).abs().max()) < 0.03


@pytest.mark.parametrize("steps", [40, 160])
def test_dps_moves_samples_towards_what_was_measured(steps):
    torch.manual_seed(0)
    model, like = Correlated(Gaussian(Cosine(), "eps")), torch.empty(500, 3, dtype=F64)
    sampler = DDPM(steps)
    bound = Posterior(model, measure, Y, "dps", scale=0.1, steps=steps)
    distance = [float((measure(sampler(m, like=like)) - Y).norm(dim=1).mean()) for m in (model, bound)]
    assert distance[1] < 0.2 * distance[0]


def test_one_ancestral_step_of_dps_is_the_published_one():
    """Chung et al. 2023, algorithm 1: x_s = ancestral step - zeta * the gradient of the residual's length."""
    process, zeta, n = Gaussian(Cosine(), "eps"), 0.7, 50
    model, x_t = Correlated(process), torch.randn(4, 3, dtype=F64)
    t = torch.tensor(0.5, dtype=F64)
    s = t - process.t_max / n
    x = x_t.clone().requires_grad_()
    length = (Y - measure(model.estimate(x, t))).norm(dim=1).sum()
    (gradient,) = torch.autograd.grad(length, x)
    bound = Posterior(model, measure, Y, "dps", scale=zeta, steps=n)
    steps = [process.step(x_t, m.estimate(x_t, t), t, s, temperature=0.0) for m in (model, bound)]
    assert torch.allclose(steps[1], (steps[0] - zeta * gradient).detach(), atol=1e-9)


def test_parts_of_a_product_are_measured_and_codes_are_left_alone():
    """A row of a table: numbers bound by the sum of two of them, a category beside them that follows no gradient."""
    torch.manual_seed(0)
    odds = torch.tensor([0.7, 0.3])
    numbers = Correlated(Gaussian(Cosine(), "v"))
    model = exact.product({"numbers": numbers, "kind": exact.joint_table(Categorical([2, 1]), odds[:, None])})
    bound = Posterior(model, lambda row: row["numbers"][:, :2].sum(1), torch.tensor([2.0], dtype=F64), "moments")
    like = {"numbers": torch.empty(3000, 3, dtype=F64), "kind": (3000, 2)}
    x = DDIM(60)(bound, like=like)
    a = torch.tensor([[1.0, 1.0, 0.0]], dtype=F64)
    mean, covariance = conditioned(MEAN, COVARIANCE, a, torch.tensor([2.0], dtype=F64), 0.0)
    assert float((x["numbers"].mean(0) - mean).abs().max()) < 0.05
    assert float((torch.cov(x["numbers"].T) - covariance).abs().max()) < 0.04
    assert float(x["kind"][:, 0].float().mean()) == pytest.approx(0.3, abs=0.04)


def test_measuring_leaves_no_trace_on_the_network():
    network = torch.nn.Linear(3, 3, dtype=F64)
    network.forward = lambda x, t, cond: torch.nn.Linear.forward(network, x)
    bound = Posterior(Diffusion(network, Gaussian(Cosine(), "x0")), measure, Y, "moments")
    x = DDIM(3)(bound, like=torch.empty(2, 3, dtype=F64))
    assert not x.requires_grad and all(p.grad is None and p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda model: Posterior(exact.wrapped_normal(Torus()), measure, Y), "Torus"),
        (lambda model: Posterior(model, measure, Y, "dpps"), "dpps"),
        (lambda model: Posterior(model, measure, Y, noise=-1.0), "noise"),
        (lambda model: Posterior(model, measure, Y, iterations=0), "iterations"),
        (lambda model: Posterior(Threshold(model), measure, Y), "Threshold acts on estimates"),
        (lambda model: ClassifierFree(LowPass(model, Y, measure), 2.0), "LowPass acts on estimates"),
        (lambda model: LowPass(model, Y, measure, until=1.0), "until"),
    ],
)
def test_what_cannot_be_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make(Correlated(Gaussian()))


def test_ragged_batches_are_refused():
    model = Posterior(Correlated(Gaussian()), measure, Y)
    with pytest.raises(ValueError, match="ragged"):
        model(torch.zeros(2, 3), torch.tensor(0.5), rows=Rows(torch.tensor([0, 0]), 1))


@pytest.mark.parametrize(
    "operator", [measure, masked(torch.tensor([True, False, True])), composed(masked(torch.arange(3) > 0), measure)]
)
def test_adjoints(operator):
    x = torch.randn(4, 3, dtype=F64)
    y = torch.randn_like(operator(x))
    back = adjoint(operator, x)(y)
    assert torch.allclose((operator(x) * y).sum(1), (x * back).sum(1))


# ---- drafts


@pytest.mark.parametrize("schedule", [Cosine(), VE()], ids=repr)
def test_redrawing_leads_the_noised_draft_along_the_flow(schedule):
    """A constant, noised to a share of the way, ends where the flow of N(0.7, 0.5^2) leads N(alpha x, sigma^2)."""
    torch.manual_seed(0)
    process, strength = Gaussian(schedule, "x0"), 0.4
    x = redraw(DDIM(400), exact.gaussian(process), torch.full((4000, 2), 1.6, dtype=F64), strength)
    alpha, sigma = (float(v) for v in process.schedule(torch.tensor(strength * process.t_max, dtype=F64)))
    shrunk = 0.5 / math.sqrt(alpha**2 * 0.25 + sigma**2)
    assert float(x.mean()) == pytest.approx(0.7 + shrunk * alpha * (1.6 - 0.7), abs=0.03)
    assert float(x.std()) == pytest.approx(shrunk * sigma, rel=0.05)


@pytest.mark.parametrize("sampler", [DDPM(50), DPMSolver(20), UniPC(20), Heun(40)], ids=repr)
def test_strength_runs_from_the_draft_to_free_samples(sampler):
    torch.manual_seed(0)
    model, draft = exact.gaussian(Gaussian(Cosine(), "v")), torch.full((4000, 1), 3.0, dtype=F64)
    assert torch.allclose(redraw(sampler, model, draft, 1e-5), draft, atol=5e-3)
    free = redraw(sampler, model, draft, 1.0)
    assert float(free.mean()) == pytest.approx(0.7, abs=0.05) and float(free.std()) == pytest.approx(0.5, rel=0.1)


def test_codes_are_redrawn_too():
    model = exact.joint_table(Categorical([2, 2]), torch.full((2, 2), 0.25))
    draft = torch.ones(2000, 2, dtype=torch.long)
    changed = [float((redraw(DDPM(20), model, draft, k) == 0).float().mean()) for k in (0.02, 0.5, 1.0)]
    assert changed[0] < 0.02 < changed[1] < changed[2] and changed[2] == pytest.approx(0.5, abs=0.05)


def test_the_grid_is_cut_where_sampling_begins():
    process, seen = Gaussian(Cosine(), "x0"), []
    redraw(
        DDIM(10), exact.gaussian(process), torch.zeros(2, 1), 0.55, watch=lambda t, x, estimate: seen.append(float(t))
    )
    grid = DDIM(10).times(process)
    assert seen == pytest.approx([0.55 * process.t_max, *grid[5:-1].tolist()])


def test_beginning_half_way_needs_a_state():
    model = exact.gaussian(Gaussian())
    for arguments in ({"begin": 0.5}, {"begin": 0.0, "start": torch.zeros(2, 1)}, {"begin": 1.5}):
        with pytest.raises(ValueError, match="begin"):
            DDIM(2)(model, like=(2, 1), **arguments)
    with pytest.raises(ValueError, match="strength"):
        redraw(DDIM(2), model, torch.zeros(2, 1), 0.0)


# ---- coarse references


def means(x):
    """Means of pairs, repeated: a projection."""
    return x.unflatten(1, (-1, 2)).mean(2, keepdim=True).expand(-1, -1, 2).flatten(1)


@pytest.mark.parametrize("sampler", [DDPM(50), DDIM(40), DPMSolver(20), Heun(30), UniPC(10)], ids=repr)
@pytest.mark.parametrize("clipped", [False, True])
def test_the_coarse_part_is_the_references_and_the_rest_is_free(sampler, clipped):
    """Independent data: the part that is not held keeps its law, N(0, 0.5^2) less its means."""
    torch.manual_seed(0)
    model = exact.gaussian(Gaussian(Cosine(), "v"))
    reference = torch.tensor([[0.5, 0.9, -1.0, 0.2]], dtype=F64)
    bound = LowPass(Threshold(model, 5.0) if clipped else model, reference, means)
    x = sampler(bound, like=torch.empty(3000, 4, dtype=F64))
    assert torch.allclose(means(x), means(reference).expand(3000, 4), atol=1e-9)
    fine = x - means(x)
    assert float(fine.std()) == pytest.approx(0.5 / math.sqrt(2), rel=0.1) and float(fine.mean().abs()) < 1e-9


def test_the_reference_is_let_go_in_time():
    model, reference = exact.gaussian(Gaussian(Cosine(), "v")), torch.full((1, 4), 3.0, dtype=F64)
    spread = []
    for until in (0.0, 0.2, 0.8):
        torch.manual_seed(0)
        x = DDPM(50)(LowPass(model, reference, means, until), like=torch.empty(1000, 4, dtype=F64))
        spread.append(float((means(x) - 3.0).abs().mean()))
    assert spread[0] < 1e-9 < spread[1] < spread[2]
