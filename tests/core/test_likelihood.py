"""The bound equals brute force, the flow equals the closed form."""

import itertools
import math

import pytest
import torch

from diffusionkit.core import (
    EDM,
    VP,
    Categorical,
    Cosine,
    Gaussian,
    Linear,
    RectifiedFlow,
    Torus,
    bound,
    log_likelihood,
)
from diffusionkit.core.rows import Rows
from tests.core import exact


def normal(x, mean, variance):
    return -((x - mean) ** 2) / (2 * variance) - math.log(2 * math.pi * variance) / 2


@pytest.mark.parametrize("schedule", [Cosine(), VP(), EDM(), RectifiedFlow()], ids=repr)
@pytest.mark.parametrize("predict", ["eps", "v"])
def test_flow_likelihood_is_the_closed_form_of_a_gaussian(schedule, predict):
    torch.manual_seed(0)
    x0 = torch.linspace(-1.5, 1.5, 7, dtype=torch.float64)[:, None].repeat(1, 3)
    model = exact.gaussian(Gaussian(schedule, predict), 0.0, 0.5)
    wanted = normal(x0, 0.0, 0.25).sum(1)
    assert torch.allclose(log_likelihood(model, x0, probes=None), wanted, atol=0.02)
    # For a linear flow every Rademacher probe gives the trace exactly.
    assert torch.allclose(log_likelihood(model, x0, probes=1), wanted, atol=0.02)


def test_flow_likelihood_of_a_mixture_is_its_density():
    x0 = torch.linspace(-1.6, 1.6, 9, dtype=torch.float64)[:, None]
    means = torch.tensor([-1.0, 0.6], dtype=torch.float64)
    model = exact.mixture(Gaussian(Cosine(), "x0"), means, 0.3)
    density = torch.stack([normal(x0[:, 0], float(m), 0.09) for m in means]).logsumexp(0) - math.log(2)
    assert torch.allclose(log_likelihood(model, x0, probes=None, steps=100), density, atol=0.02)


def test_flow_likelihood_of_centred_rows_counts_their_dimensions():
    torch.manual_seed(0)
    process = Gaussian(Cosine(), "x0", centered=True)
    rows = Rows.from_sizes(torch.tensor([2, 3]))

    class Model(exact.Exact):
        def forward(self, x, t, cond=None, rows=None, given=None):
            alpha, sigma = process.schedule(t)
            return alpha / (alpha**2 + sigma**2) * x

    x0, _ = process.diffuse(torch.zeros(5, 3, dtype=torch.float64), torch.tensor(1.0), rows=rows)
    found = log_likelihood(Model(process, None), x0, rows=rows, probes=40)
    squares = rows.pool(x0.square().sum(1, keepdim=True))[:, 0]
    wanted = -squares / 2 - torch.tensor([3.0, 6.0]) * math.log(2 * math.pi) / 2
    assert torch.allclose(found, wanted, atol=0.15)


def test_terms_of_centred_rows_are_those_in_coordinates_of_their_space():
    """Positions without a mean are free numbers, one row fewer, in an orthonormal basis of what is left."""
    torch.manual_seed(0)
    sizes, centred, plain = torch.tensor([2, 4]), Gaussian(Cosine(), "x0", centered=True), Gaussian(Cosine(), "x0")
    free = Rows.from_sizes(sizes - 1)
    bases = [torch.linalg.svd(torch.ones(1, int(n), dtype=torch.float64))[2][1:] for n in sizes]
    basis = torch.block_diag(*bases)  # (4, 6), orthonormal rows
    x0, x_t, guess = (torch.randn(4, 3, dtype=torch.float64) for _ in range(3))
    t, s = torch.tensor([0.3, 0.6], dtype=torch.float64), torch.tensor([0.2, 0.5], dtype=torch.float64)
    few, whole = (x0, x_t, guess), tuple(basis.T @ x for x in (x0, x_t, guess))
    rows = Rows.from_sizes(sizes)
    assert torch.allclose(centred.reconstruction(*whole, t, rows), plain.reconstruction(*few, t, free))
    assert torch.allclose(centred.kl(*whole, t, s, rows), plain.kl(*few, t, s, free))
    assert torch.allclose(centred.prior_kl(whole[0], rows), plain.prior_kl(x0, free))
    assert torch.equal(centred.dimensions(whole[0], rows), plain.dimensions(x0, free))


def test_flow_likelihood_refuses_other_spaces():
    with pytest.raises(ValueError, match="bound"):
        log_likelihood(exact.wrapped_normal(Torus()), torch.zeros(1, 1))


def test_bound_of_angles_lies_above_their_entropy():
    """By half of Euler's constant and what steps of finite length add; test_rotation.py has it to a digit."""
    torch.manual_seed(0)
    x0 = 1 + 0.4 * torch.randn(2000, 1, dtype=torch.float64)
    entropy = -normal(x0, 1.0, 0.16).mean()
    found = bound(exact.wrapped_normal(Torus(), 1.0, 0.4), x0, steps=200).total().mean()
    assert float(entropy) + 0.15 < float(found) < float(entropy) + 0.6


@pytest.mark.parametrize("kind", ["uniform", "absorbing"])
def test_categorical_bound_equals_brute_force(kind):
    """All chains of three steps over two columns, enumerated."""
    size, steps = 2, 3
    process = Categorical([size, size], kind, steps=steps)
    torch.manual_seed(0)
    table = torch.tensor([[0.5, 0.2], [0.1, 0.2]], dtype=torch.float64)
    exact_model = exact.joint_table(process, table)
    # A wrong network, so that no term is zero; deterministic in x and t.
    model = exact.Exact(process, lambda x, t, cond: exact_model.output(x, t, cond) * 0.7 + 0.1 * x.sum(1, keepdim=True))
    codes = list(itertools.product(range(size + (kind == "absorbing")), repeat=2))
    x0 = torch.tensor([[0, 1]])

    def kernel(entry, other, t, s):
        """q(x_t = other | x_s = entry) of one column."""
        kept = float(process.schedule(torch.tensor(t / steps, dtype=torch.float64))[0] ** 2)
        kept = kept / float(process.schedule(torch.tensor(s / steps, dtype=torch.float64))[0] ** 2)
        if kind == "uniform":
            return kept * (entry == other) + (1 - kept) / size
        return float(other == size) if entry == size else kept * (entry == other) + (1 - kept) * (other == size)

    def forward(a, b, t, s):
        return kernel(a[0], b[0], t, s) * kernel(a[1], b[1], t, s)

    def posterior(k, x_t, start, t):
        """q(x_s | x_t, x0) of one column over its codes, s = t - 1."""
        n = size + (kind == "absorbing")
        weights = [kernel(start, c, t - 1, 0) * kernel(c, x_t, t, t - 1) for c in range(n)]
        return torch.tensor(weights, dtype=torch.float64) / max(sum(weights), 1e-300)

    terms = {1: 0.0, 2: 0.0, 3: 0.0}
    for t in (1, 2, 3):
        for x_t in codes:
            chance = forward((0, 1), x_t, t, 0)
            if chance == 0:
                continue
            x = torch.tensor([x_t])
            probabilities = model.estimate(x, torch.tensor(t / steps, dtype=torch.float64))[0]
            for k in range(2):
                q = posterior(k, x_t[k], (0, 1)[k], t)
                p = sum(
                    probabilities[2 * k + start] * posterior(k, x_t[k], start, t)
                    for start in range(size)
                    if kernel(start, x_t[k], t, 0) > 0
                )
                terms[t] += chance * float(torch.xlogy(q, q).sum() - torch.xlogy(q, p.clamp(min=1e-300)).sum())
    n = 30_000
    found = bound(model, x0.expand(n, 2))
    assert float(found.L_0.mean()) == pytest.approx(terms[1], abs=0.02)
    assert float(found.L_t[0].mean()) == pytest.approx(terms[2], abs=0.02)
    assert float(found.L_t[1].mean()) == pytest.approx(terms[3], abs=0.02)
    kept = float(process.schedule(torch.ones((), dtype=torch.float64))[0] ** 2)
    if kind == "uniform":
        end = [kept + (1 - kept) / 2, (1 - kept) / 2]
        assert float(found.L_T.mean()) == pytest.approx(2 * sum(p * math.log(2 * p) for p in end if p), abs=1e-4)
    else:
        assert float(found.L_T.mean()) == pytest.approx(0, abs=1e-6)
    assert torch.equal(found.total(), found.L_T + found.L_t.sum(0) + found.L_0) or torch.allclose(
        found.total(), found.L_T + found.L_t.sum(0) + found.L_0
    )


@pytest.mark.parametrize(("predict", "gap"), [("eps", 1.2), ("eps+variance", 0.5)])
def test_gaussian_bound_of_the_exact_model_lies_above_its_entropy(predict, gap):
    """By what a wrong variance costs on the first steps: more with the smaller bound than half-way to the larger."""
    torch.manual_seed(0)
    model = exact.gaussian(Gaussian(Linear(), predict), 0.7, 0.5)
    x0 = 0.7 + 0.5 * torch.randn(1000, 2, dtype=torch.float64)
    found = bound(model, x0)
    entropy = 2 * (0.5 + math.log(2 * math.pi * 0.25) / 2)
    assert 0 < float(found.total().mean()) - entropy < gap
    assert len(found.L_t) == 999 and torch.allclose(found.bits_per_dimension(), found.total() / (2 * math.log(2)))


def test_drawn_terms_estimate_their_sum():
    torch.manual_seed(0)
    model = exact.gaussian(Gaussian(Linear(), "eps"), 0.7, 0.5)
    x0 = 0.7 + 0.5 * torch.randn(20_000, 1, dtype=torch.float64)
    whole, drawn = bound(model, x0[:4000]).total().mean(), bound(model, x0, draws=40).total().mean()
    assert float(drawn) == pytest.approx(float(whole), abs=0.15)


def test_a_term_is_the_kl_of_its_two_gaussians():
    process = Gaussian(Linear(), "x0")
    t, s = torch.tensor(0.5, dtype=torch.float64), torch.tensor(0.499, dtype=torch.float64)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    beta, bar, before = betas[499], bars[499], bars[498]
    variance = beta * (1 - before) / (1 - bar)
    x_t, x0, guess = torch.tensor([[0.3]]).double(), torch.tensor([[0.9]]).double(), torch.tensor([[0.2]]).double()
    means = [
        before.sqrt() * beta / (1 - bar) * v + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x_t for v in (x0, guess)
    ]
    assert torch.allclose(
        process.kl(x0, x_t, guess, t, s), ((means[0] - means[1]) ** 2 / (2 * variance))[:, 0], rtol=1e-6
    )


def test_quantised_values_have_probabilities_that_sum_to_one():
    process = Gaussian(Linear(), "x0")
    values = torch.linspace(-1, 1, 17, dtype=torch.float64)
    estimate = torch.full((17, 1), 0.3, dtype=torch.float64)
    for t in (0.001, 0.1, 0.3):
        t = torch.tensor(t, dtype=torch.float64)
        surprise = process.reconstruction(values[:, None], estimate, estimate, t, bin=2 / 16)
        assert float((-surprise).exp().sum()) == pytest.approx(1, abs=1e-6)


def test_a_quantised_value_has_one_probability_in_any_batch():
    process, t = Gaussian(Linear(), "x0"), torch.tensor(0.1)
    values, estimate = torch.tensor([[-1.0], [0.25], [0.5], [1.0]]), torch.full((4, 1), 0.3)
    together = process.reconstruction(values, estimate, estimate, t, bin=0.25)
    alone = [process.reconstruction(v[None], estimate[:1], estimate[:1], t, bin=0.25) for v in values]
    assert torch.equal(together, torch.cat(alone))


def test_bound_of_a_product_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    parts = {"a": exact.gaussian(Gaussian(Cosine(), "v")), "b": exact.wrapped_normal(Torus())}
    x0 = {"a": torch.randn(500, 2, dtype=torch.float64), "b": 1 + 0.4 * torch.randn(500, 1, dtype=torch.float64)}
    whole = bound(exact.product(parts), x0, steps=50)
    each = [bound(parts[k], x0[k], steps=50) for k in parts]
    assert float(whole.total().mean()) == pytest.approx(sum(float(e.total().mean()) for e in each), rel=0.1)
    assert torch.equal(whole.dimensions, torch.full((500,), 3.0, dtype=whole.dimensions.dtype))
