"""The laws of every process: diffuse composes, ends and begins where it should; steps with the exact estimate keep the law."""

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
    DPMSolver,
    Gaussian,
    Heun,
    Linear,
    LinearVariance,
    Polynomial,
    Product,
    RectifiedFlow,
    Rotation,
    Sigmoid,
    Torus,
    UniPC,
)
from tests.core import exact

N = 10_000
PREDICTS = ["eps", "x0", "v", "flow", "edm", "eps+variance"]
SCHEDULES = [Linear(), Cosine(), Sigmoid(), Polynomial(), VE(), EDM(), RectifiedFlow()]
SAMPLERS = [
    DDPM(200),
    DDPM(150, variance="large"),
    DDIM(100),
    DDIM(100, eta=0.5),
    DDIM(100, grid="quadratic"),
    Heun(30),
    Heun(40, churn=4),
    DPMSolver(30),
    DPMSolver(30, order=3),
    DPMSolver(60, eta=1.0),
    UniPC(30),
    UniPC(30, order=3),
]


def times(*values):
    return [torch.tensor(v, dtype=torch.float64) for v in values]


def moments(x):
    return torch.stack([x.mean(), x.std()])


# ---- law 1: diffuse


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_gaussian_diffusion_composes(schedule):
    torch.manual_seed(0)
    process, x0 = Gaussian(schedule), torch.full((N, 1), 0.8, dtype=torch.float64)
    s, t = times(0.3, 0.6)
    direct = process.diffuse(x0, t)[0]
    through = process.diffuse(process.diffuse(x0, s)[0], t, s)[0]
    assert torch.allclose(moments(direct), moments(through), rtol=0.03, atol=0.04 * float(direct.std()))


def test_torus_diffusion_composes():
    torch.manual_seed(0)
    process, x0 = Torus(), torch.full((N, 1), 2.5, dtype=torch.float64)
    s, t = times(0.6, 0.8)
    direct, through = process.diffuse(x0, t)[0], process.diffuse(process.diffuse(x0, s)[0], t, s)[0]
    for k in (1, 2):
        for f in (torch.sin, torch.cos):
            assert abs(f(k * direct).mean() - f(k * through).mean()) < 0.03
    assert (direct >= -math.pi).all() and (direct < math.pi).all()


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("sizes", [4, [4]])
def test_categorical_diffusion_composes(kind, sizes):
    torch.manual_seed(0)
    process, x0 = Categorical(sizes, kind), torch.full((N, 1), 2)
    s, t = times(0.3, 0.6)
    direct, through = process.diffuse(x0, t)[0], process.diffuse(process.diffuse(x0, s)[0], t, s)[0]
    share = [torch.bincount(x[:, 0], minlength=5) / N for x in (direct, through)]
    assert (share[0] - share[1]).abs().max() < 0.02
    kept = float(process.schedule(t)[0] ** 2)
    expected = kept + (1 - kept) / 4 if kind == "uniform" else kept
    assert float(share[0][2]) == pytest.approx(expected, abs=0.015)


torch.manual_seed(0)
PROCESSES = {
    "gaussian": (Gaussian(Linear()), torch.randn(50, 3)),
    "ve": (Gaussian(VE(), "edm"), torch.randn(50, 3)),
    "uniform": (Categorical([2, 5, 3]), torch.randint(0, 2, (50, 3))),
    "absorbing": (Categorical(4, "absorbing"), torch.randint(0, 4, (50, 3))),
    "torus": (Torus(), torch.rand(50, 3) * 2 - 1),
    "rotation": (Rotation(VE(0.03, 3.0)), Rotation().prior((50, 3, 3))),
}


@pytest.mark.parametrize("name", PROCESSES)
def test_time_zero_is_the_identity(name):
    process, x0 = PROCESSES[name]
    x_t, _ = process.diffuse(x0, torch.zeros(len(x0)))
    assert torch.allclose(x_t.float(), x0.float(), atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_time_one_is_the_prior(name):
    torch.manual_seed(0)
    process, x0 = PROCESSES[name]
    x0 = x0[:1].expand(N, *x0.shape[1:])
    end, prior = process.diffuse(x0, torch.ones(N))[0].float(), process.prior(x0.shape).float()
    left = (
        float(process.schedule(torch.ones(()))[0] * x0.float().abs().max()) if process.linear else 0
    )  # the signal at t = 1
    assert torch.allclose(end.mean(0), prior.mean(0), atol=0.06 * float(prior.std() + 1e-3) + left)
    assert torch.allclose(end.std(0), prior.std(0), rtol=0.03, atol=1e-6)


@pytest.mark.parametrize("name", PROCESSES)
def test_one_time_for_all_equals_the_same_time_for_each(name):
    process, x0 = PROCESSES[name]
    for seed in range(2):
        torch.manual_seed(seed)
        one = process.diffuse(x0, torch.tensor(0.4))[0]
        torch.manual_seed(seed)
        each = process.diffuse(x0, torch.full((50,), 0.4))[0]
        assert torch.allclose(one.float(), each.float(), atol=1e-6)


# ---- law 2: sampling with the exact estimate


# On the few steps of a variance-exploding chain the large variance is far too large.
FITTING = [(c, s) for c in SCHEDULES for s in SAMPLERS if s.variance != "large" or c(torch.ones(()))[1] <= 1]


@pytest.mark.parametrize(("schedule", "sampler"), FITTING, ids=repr)
def test_exact_gaussian_estimate_gives_the_data_back(schedule, sampler):
    torch.manual_seed(0)
    sampler.check(process := Gaussian(schedule, "x0"))
    x = sampler(exact.gaussian(process), like=torch.empty(N, 1, dtype=torch.float64))
    assert float(x.mean()) == pytest.approx(0.7, abs=0.03)
    # What a first-order step leaves unexplained vanishes with the number of steps; test_samplers.py measures the orders.
    assert float(x.std()) == pytest.approx(0.5, rel=0.12 if sampler.variance == "large" else 0.06)


@pytest.mark.parametrize("sampler", [DDPM(200), DDIM(100), DPMSolver(40), UniPC(40)], ids=repr)
@pytest.mark.parametrize("predict", PREDICTS)
def test_exact_mixture_estimate_gives_both_modes(predict, sampler):
    torch.manual_seed(0)
    model = exact.mixture(Gaussian(Cosine(), predict), torch.tensor([-1.0, 1.0], dtype=torch.float64), 0.1)
    x = sampler(model, like=torch.empty(N, 1, dtype=torch.float64))
    assert float((x > 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert float(x[x > 0].mean()) == pytest.approx(1, abs=0.02)
    assert float(x[x > 0].std()) == pytest.approx(0.1, rel=0.12)


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_exact_categorical_estimate_gives_the_joint_table(kind, eta):
    torch.manual_seed(0)
    table = torch.tensor([[0.30, 0.05, 0.05], [0.05, 0.15, 0.40]])
    schedule = LinearVariance() if kind == "absorbing" else Cosine()
    model = exact.joint_table(Categorical([2, 3], kind, schedule), table)
    x = DDIM(100, eta=eta)(model, like=(N // 2, 2))
    found = torch.bincount(x[:, 0] * 3 + x[:, 1], minlength=6).reshape(2, 3) / (N // 2)
    assert (found - table).abs().max() < 0.025


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_independent_categories_are_exact_on_any_grid(kind, steps):
    torch.manual_seed(0)
    odds = torch.tensor([0.5, 0.3, 0.15, 0.05])
    model = exact.joint_table(Categorical([4, 1], kind), odds[:, None])
    found = torch.bincount(DDIM(steps, eta=1.0)(model, like=(N, 2))[:, 0], minlength=4) / N
    assert (found - odds).abs().max() < 0.015


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("schedule", [None, VE(0.01, 4.0), EDM(0.01, 4.0)], ids=repr)
def test_exact_torus_score_gives_the_wrapped_normal_back(schedule, eta):
    torch.manual_seed(0)
    model = exact.wrapped_normal(Torus(schedule), mean=3.0, std=0.4)
    x = DDIM(100, eta=eta)(model, like=torch.empty(N // 2, 1, dtype=torch.float64))
    centre = torch.atan2(x.sin().mean(), x.cos().mean())
    length = torch.hypot(x.sin().mean(), x.cos().mean())
    assert float(centre) == pytest.approx(3.0, abs=0.02)
    assert float(length) == pytest.approx(math.exp(-(0.4**2) / 2), abs=0.02)


def test_product_of_exact_parts_gives_each_part_back():
    torch.manual_seed(0)
    n = 3000
    table = torch.tensor([[0.4, 0.1], [0.1, 0.4]])
    model = exact.product(
        {
            "a": exact.gaussian(Gaussian(Cosine(), "v")),
            "b": exact.joint_table(Categorical([2, 2]), table),
            "c": exact.wrapped_normal(Torus()),
            "d": exact.rotations(Rotation(), torch.eye(3)[None], 0.3),
        }
    )
    for sampler in (DDPM(80), DPMSolver(40)):
        x = sampler(model, like={"a": (n, 2), "b": (n, 2), "c": (n, 1), "d": (n, 3, 3)})
        assert float(x["a"].std()) == pytest.approx(0.5, rel=0.08)
        found = torch.bincount(x["b"][:, 0] * 2 + x["b"][:, 1], minlength=4).reshape(2, 2) / n
        assert (found - table).abs().max() < 0.035
        assert float(x["c"].sin().mean() / x["c"].cos().mean()) == pytest.approx(math.tan(1.0), rel=0.1)
        # The mean of IGSO(3) is exp(-sigma^2) times its centre.
        assert torch.allclose(x["d"].mean(0), math.exp(-(0.3**2)) * torch.eye(3), atol=0.03)


@pytest.mark.parametrize("predict", PREDICTS)
@pytest.mark.parametrize("schedule", [*SCHEDULES, Cosine().shifted(4)], ids=repr)
def test_few_steps_on_the_default_grid_survive_an_inexact_network(predict, schedule):
    """An error of the network's output is not multiplied by 1 / alpha until it drowns everything."""
    torch.manual_seed(0)
    process = Gaussian(schedule, predict)
    model = exact.gaussian(process, mean=0.0, std=1.0)
    precise = model.output
    model.output = lambda x, t, cond: precise(x, t, cond) + 0.02 * torch.randn_like(x[:, :1])
    for sampler in (DDIM(50), DPMSolver(20), DDIM(50, grid="karras")):
        error = sampler(model, like=torch.empty(2000, 1, dtype=torch.float64)).std() - 1
        assert abs(float(error)) < 0.35


# ---- law 4: parametrisations


@pytest.mark.parametrize("predict", PREDICTS)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_parametrisations_agree_on_x0(predict, schedule):
    torch.manual_seed(0)
    process = Gaussian(schedule, predict)
    x0 = torch.randn(40, 2, dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    x_t, noise = process.diffuse(x0, t)
    estimate = process.estimate(exact.raw(process, x0, x_t, t), x_t, t)
    assert torch.allclose(process._split(estimate)[0], x0, atol=1e-6)
    assert float(process.loss(exact.raw(process, x0, x_t, t), x0, x_t, noise, t).max()) < (
        1e-9 if "+" not in predict else 1
    )


@pytest.mark.parametrize("predict", PREDICTS[:5])
def test_weightings_mean_the_same_for_every_parametrisation(predict):
    from diffusionkit.core import MinSNR

    torch.manual_seed(0)
    process, reference = Gaussian(Cosine(), predict), Gaussian(Cosine(), "x0")
    x0, wrong = torch.randn(2, 40, 2, dtype=torch.float64)
    t = torch.linspace(0.02, 0.98, 40, dtype=torch.float64)
    x_t, noise = process.diffuse(x0, t)
    ours = process.loss(exact.raw(process, wrong, x_t, t), x0, x_t, noise, t, weight=MinSNR().weight)
    theirs = reference.loss(wrong, x0, x_t, noise, t, weight=MinSNR().weight)
    assert torch.allclose(ours, theirs)


def test_min_snr_weights_are_the_published_ones():
    """min(SNR, 5) for x0, divided by SNR for eps and by SNR + 1 for v (Hang et al. 2023, section 3.4)."""
    from diffusionkit.core import MinSNR

    t = torch.linspace(0.05, 0.95, 30, dtype=torch.float64)
    x0 = torch.zeros(30, 1, dtype=torch.float64)
    snr = Cosine().log_snr(t).exp()
    for predict, published in [
        ("x0", snr.clamp(max=5)),
        ("eps", snr.clamp(max=5) / snr),
        ("v", snr.clamp(max=5) / (snr + 1)),
    ]:
        process = Gaussian(Cosine(), predict)
        x_t, noise = process.diffuse(x0, t)
        output = exact.raw(process, x0, x_t, t)
        one_off = process.loss(output + 1, x0, x_t, noise, t, weight=MinSNR().weight)
        assert torch.allclose(one_off, published)


# ---- empty parts


def test_parts_without_entries_work():
    process = Product(
        {"numbers": Gaussian(), "categories": Categorical([]), "angles": Torus(), "rotations": Rotation()}
    )
    x0 = {"numbers": torch.randn(4, 3), "categories": torch.zeros(4, 0, dtype=torch.long), "angles": torch.zeros(4, 0)}
    x0["rotations"] = torch.zeros(4, 0, 3, 3)
    t = torch.full((4,), 0.5)
    x_t, noise = process.diffuse(x0, t)
    output = {"numbers": x0["numbers"], "categories": torch.zeros(4, 0), "angles": torch.zeros(4, 0)}
    output["rotations"] = torch.zeros(4, 0, 3)
    loss = process.loss(output, x0, x_t, noise, t)
    assert loss.shape == (4,) and loss.isfinite().all()
    x_s = process.step(x_t, process.estimate(output, x_t, t), t, t / 2)
    assert {k: tuple(v.shape) for k, v in x_s.items()} == {k: tuple(v.shape) for k, v in x0.items()}
