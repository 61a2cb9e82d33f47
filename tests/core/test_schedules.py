"""Published tables, inverses, shifts."""

import math

import pytest
import torch

from diffusionkit.core import EDM, VE, VP, Cosine, Linear, LinearVariance, Polynomial, RectifiedFlow, Sigmoid

SCHEDULES = [Linear(), Linear(100), Cosine(), Sigmoid(), VP(), VE(), EDM(), RectifiedFlow(), LinearVariance()]
SCHEDULES += [Polynomial(), Polynomial(3, 1e-4), Cosine().shifted(2), EDM().shifted(3), RectifiedFlow().shifted(3)]
SCHEDULES += [Linear(power=2.0)]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_data_at_zero_and_noise_grows(schedule):
    t = torch.linspace(0, 1, 501, dtype=torch.float64)
    alpha, sigma = schedule(t)
    assert alpha[0] == 1 and sigma[0] == 0
    log_snr = schedule.log_snr(t)
    assert log_snr[0] == math.inf and (log_snr.diff() < 0).all()


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_t_at_inverts_log_snr(schedule):
    t = torch.linspace(0.0005, 0.9995, 101, dtype=torch.float64)
    assert torch.allclose(schedule.t_at(schedule.log_snr(t)), t, atol=1e-9)
    assert schedule.t_at(torch.tensor(1e3, dtype=torch.float64)) < 1e-3
    assert schedule.t_at(torch.tensor(-1e3, dtype=torch.float64)) == pytest.approx(1)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=repr)
def test_single_precision_agrees_with_double(schedule):
    t = torch.linspace(0.001, 1, 200, dtype=torch.float64)
    for single, double in zip(schedule(t.float()), schedule(t), strict=True):
        assert single.dtype == torch.float32
        assert torch.allclose(single.double(), double, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("steps", [10, 1000, 4000])
def test_cosine_table_is_the_published_one(steps):
    # Nichol & Dhariwal 2021, eq. 17, with betas cut at 0.999: recomputed here step by step.
    def f(i):
        return math.cos((i / steps + 0.008) / 1.008 * math.pi / 2) ** 2

    product, table = 1.0, []
    for i in range(1, steps + 1):
        product *= 1 - min(1 - f(i) / f(i - 1), 0.999)
        table.append(product)
    alpha, sigma = Cosine(steps)(torch.arange(1, steps + 1, dtype=torch.float64) / steps)
    assert torch.allclose(alpha**2, torch.tensor(table, dtype=torch.float64), atol=1e-9)
    assert torch.allclose(alpha**2 + sigma**2, torch.ones_like(alpha))


def test_polynomial_is_that_of_molecules_but_for_the_noise_in_its_data():
    # Hoogeboom et al. 2022: (1 - 2s) (1 - t^2)^2 + s with s = 1e-5.
    t = torch.linspace(0, 1, 1001, dtype=torch.float64)
    theirs = (1 - 2e-5) * (1 - t**2) ** 2 + 1e-5
    assert torch.allclose(Polynomial()(t)[0] ** 2, theirs, atol=1.01e-5)
    assert Polynomial()(t)[0][-1] ** 2 == pytest.approx(1e-5)


def test_linear_table_is_the_published_one():
    product, table = 1.0, []
    for i in range(1000):
        product *= 1 - (1e-4 + (0.02 - 1e-4) * i / 999)
        table.append(product)
    alpha, _ = Linear()(torch.arange(1, 1001) / 1000)
    assert torch.allclose(alpha.double() ** 2, torch.tensor(table, dtype=torch.float64), atol=1e-6)
    assert float(alpha[-1] ** 2) == pytest.approx(4.0358e-5, rel=1e-3)  # Ho et al.: L_T about 1e-5 bits a dimension


def test_tables_agree_with_diffusers():
    diffusers = pytest.importorskip("diffusers", reason="diffusers (extra 'peers') is not installed")
    for ours, theirs in [(Linear(), "linear"), (Cosine(), "squaredcos_cap_v2")]:
        table = diffusers.DDPMScheduler(1000, beta_schedule=theirs).alphas_cumprod
        assert torch.allclose(ours.alphas_cumprod.float(), table, atol=1e-6)
    theirs = diffusers.DDPMScheduler(1000, beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    ours = Linear(beta_min=0.00085, beta_max=0.012, power=2.0)
    assert torch.allclose(ours.alphas_cumprod.float(), theirs.alphas_cumprod, atol=1e-6)


def test_vp_is_the_limit_of_linear_betas():
    t = torch.linspace(0.1, 1, 10, dtype=torch.float64)
    assert torch.allclose(Linear(4000)(t)[0], VP()(t)[0], atol=2e-3)


def test_edm_grid_is_the_published_one():
    steps, rho = 18, 7
    i = torch.arange(steps, dtype=torch.float64)
    published = (80 ** (1 / rho) + i / (steps - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho
    t = 1 - (1 - EDM.ramp) * i / (steps - 1)
    assert torch.allclose(EDM()(t)[1], published, rtol=1e-9)


@pytest.mark.parametrize("schedule", [Cosine(), VE(), RectifiedFlow()], ids=repr)
def test_shifted_moves_log_snr_and_keeps_the_convention(schedule):
    t = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
    shifted = schedule.shifted(4)
    assert torch.allclose(shifted.log_snr(t), schedule.log_snr(t) - 2 * math.log(4))
    alpha, sigma = shifted(t)
    plain = schedule(t)
    for law in (lambda a, s: a**2 + s**2, lambda a, s: a + s, lambda a, s: a):
        if torch.allclose(law(*plain), torch.ones_like(t)):
            assert torch.allclose(law(alpha, sigma), torch.ones_like(t))


def test_shift_of_a_flow_is_that_of_stable_diffusion_3():
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    assert torch.allclose(RectifiedFlow().shifted(3)(t)[1], 3 * t / (1 + 2 * t))


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Linear(1), "steps"),
        (lambda: Linear(10), "betas"),
        (lambda: Cosine(beta_clip=2), "beta_clip"),
        (lambda: VE(2, 1), "sigma_min"),
        (lambda: EDM(rho=0), "rho"),
        (lambda: Sigmoid(3, -3), "start"),
        (lambda: Cosine().shifted(0), "by"),
    ],
)
def test_impossible_values_are_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
