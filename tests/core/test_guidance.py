"""Guidance of exact pairs gives the product law, in every space."""

import math

import pytest
import torch

from diffusionkit.core import (
    DDIM,
    DDPM,
    Categorical,
    ClassifierFree,
    Cosine,
    Diffusion,
    DPMSolver,
    Gaussian,
    GradientGuidance,
    NoisyClassifier,
    Product,
    Rotation,
    Rows,
    Threshold,
    Torus,
    class_log_prob,
    guided,
)
from tests.core import exact


class Conditional(exact.Exact):
    """Data N(mean, 1) where the condition is given and N(0, 1) where it is null (nan): x_t has unit variance at any time."""

    def __init__(self, predict="eps"):
        process = Gaussian(Cosine(), predict)

        def output(x, t, cond):
            mean = cond.nan_to_num(0.0)[:, None]
            return exact.raw(process, exact.gaussian_mean(process, x, t, mean, 1.0), x, t)

        super().__init__(process, output)

    def null(self, cond, drop):
        return torch.where(drop, torch.full_like(cond, math.nan), cond)


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "flow", "edm"])
@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_gaussian_pair_gives_the_product_law(scale, predict):
    """p0 (p1 / p0)^w of N(0, 1) and N(m, 1) is N(w m, 1), and so it is at every noise level here."""
    torch.manual_seed(0)
    model = ClassifierFree(Conditional(predict), scale)
    x = DPMSolver(40)(
        model, like=torch.empty(8000, 1, dtype=torch.float64), cond=torch.full((8000,), 0.8, dtype=torch.float64)
    )
    assert float(x.mean()) == pytest.approx(scale * 0.8, abs=0.05)
    assert float(x.std()) == pytest.approx(1, abs=0.03)


def test_parametrisations_agree_under_guidance():
    x, t = torch.randn(6, 2, dtype=torch.float64), torch.full((6,), 0.4, dtype=torch.float64)
    cond = torch.full((6,), 0.8, dtype=torch.float64)
    estimates = [ClassifierFree(Conditional(p), 3.0).estimate(x, t, cond) for p in ("eps", "x0", "v", "flow", "edm")]
    for estimate in estimates[1:]:
        assert torch.allclose(estimate, estimates[0])


def test_categories_mix_log_probabilities():
    """One column at t = 1, where x_t says nothing: the samples follow p0 (p1 / p0)^w, normalised."""
    torch.manual_seed(0)
    p0, p1 = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])

    class Table(exact.Exact):
        def null(self, cond, drop):
            return torch.where(drop, torch.zeros_like(cond), cond)

    model = Table(
        Categorical(3, "absorbing"), lambda x, t, cond: torch.where(cond[:, None, None] > 0, p1.log(), p0.log())
    )
    wanted = p0 * (p1 / p0) ** 2
    x = DDIM(3, eta=1.0)(ClassifierFree(model, 2.0), like=(8000, 1), cond=torch.ones(8000))
    found = torch.bincount(x[:, 0], minlength=3) / 8000
    assert (found - wanted / wanted.sum()).abs().max() < 0.02


def test_products_ragged_rows_and_scores_mix_in_one_pass():
    calls = []

    class Parts(Diffusion):
        def forward(self, x, t, cond=None, rows=None, given=None):
            calls.append(len(x["a"]))
            per_row = rows["a"].spread(cond)[:, None]
            ones = {"a": per_row * torch.ones_like(x["a"]), "b": cond[:, None] * torch.ones_like(x["b"])}
            return {**ones, "c": cond[:, None] * torch.ones_like(x["c"][..., 0])}

        def null(self, cond, drop):
            return torch.where(drop, torch.zeros_like(cond), cond)

    model = Parts(torch.nn.Identity(), Product({"a": Gaussian(), "b": Torus(), "c": Rotation()}))
    rows = {"a": Rows(torch.tensor([0, 1, 1, 2]), 3)}
    x = {"a": torch.zeros(4, 2), "b": torch.zeros(3, 1), "c": torch.eye(3).expand(3, 3, 3)}
    output = ClassifierFree(model, 3.0)(x, torch.tensor(0.5), torch.tensor([1.0, 2.0, 3.0]), rows)
    assert calls == [8]
    assert torch.equal(output["a"][:, 0], torch.tensor([3.0, 6.0, 6.0, 9.0]))
    assert torch.equal(output["b"][:, 0], torch.tensor([3.0, 6.0, 9.0]))
    assert torch.equal(output["c"][:, 2], torch.tensor([3.0, 6.0, 9.0]))


def test_a_learned_variance_stays_the_conditional_one():
    model = Conditional("eps+variance")
    plain = model.output
    model.output = lambda x, t, cond: torch.cat(
        [plain(x, t, cond)[:, :2], cond.nan_to_num(-0.5)[:, None].expand(-1, 2)], 1
    )
    x, cond = torch.randn(5, 2, dtype=torch.float64), torch.full((5,), 0.8, dtype=torch.float64)
    t = torch.tensor(0.5, dtype=torch.float64)
    mixed, conditional = ClassifierFree(model, 4.0, rescale=0.5)(x, t, cond), model(x, t, cond)
    assert torch.equal(mixed[:, 2:], conditional[:, 2:]) and not torch.equal(mixed[:, :2], conditional[:, :2])


def test_interval_guides_inside_only_and_asks_once_outside():
    sizes = []

    class Counting(Conditional):
        def forward(self, x, t, cond=None, rows=None, given=None):
            sizes.append(len(x))
            return super().forward(x, t, cond, rows, given)

    model = Counting()
    guided = ClassifierFree(model, 4.0, interval=(0.3, 0.6))
    x, cond = torch.randn(5, 1, dtype=torch.float64), torch.full((5,), 0.8, dtype=torch.float64)
    for t, size in ((0.2, 5), (0.45, 10), (0.7, 5)):
        sizes.clear()
        output = guided(x, torch.tensor(t, dtype=torch.float64), cond)
        assert sizes == [size]
        assert torch.allclose(output, model(x, torch.tensor(t, dtype=torch.float64), cond)) == (size == 5)
    each = guided(x, torch.tensor([0.2, 0.45, 0.7, 0.5, 0.9], dtype=torch.float64), cond)
    plain = model(x, torch.tensor([0.2, 0.45, 0.7, 0.5, 0.9], dtype=torch.float64), cond)
    assert torch.isclose(each, plain)[:, 0].tolist() == [True, False, True, False, True]


def test_rescale_brings_the_standard_deviation_back():
    torch.manual_seed(0)
    x, cond = torch.randn(4, 64, dtype=torch.float64), torch.full((4,), 0.8, dtype=torch.float64)
    model, t = Conditional("v"), torch.tensor(0.5, dtype=torch.float64)
    spread_cond = lambda x, t, c: model.process.inputs(x, t) * c[:, None]  # noqa: E731
    model.output = lambda x, t, c: spread_cond(x, t, c.nan_to_num(0.5))
    wanted = model(x, t, cond).std(1)
    assert torch.allclose(ClassifierFree(model, 5.0, rescale=1.0)(x, t, cond).std(1), wanted)
    assert not torch.allclose(ClassifierFree(model, 5.0)(x, t, cond).std(1), wanted)


@pytest.mark.parametrize("predict", ["eps", "x0", "v", "flow", "edm", "eps+variance"])
def test_gradient_guidance_gives_bayes_rule(predict):
    """A prior N(0, 1) and the likelihood N(y; x0, 1) of y = 1 make N(1/2, 1/2); log p(y | x_t) is known at every level."""
    torch.manual_seed(0)
    process = Gaussian(Cosine(), predict)

    def log_prob(x, t, cond):
        alpha, _ = process.schedule(t)
        return -((1.0 - alpha * x[:, 0]) ** 2) / (2 * (1 + 1 - alpha**2))  # Var(y | x_t) = 1 + (1 - alpha^2)

    model = GradientGuidance(exact.gaussian(process, 0.0, 1.0), log_prob)
    x = DDPM(300)(model, like=torch.empty(6000, 1, dtype=torch.float64))
    assert float(x.mean()) == pytest.approx(0.5, abs=0.03)
    assert float(x.var()) == pytest.approx(0.5, abs=0.03)


def test_gradient_guidance_on_a_torus_moves_the_mean():
    torch.manual_seed(0)
    process = Torus()
    model = exact.Exact(process, lambda x, t, cond: torch.zeros_like(x))  # uniform angles
    guided = GradientGuidance(model, lambda x, t, cond: 2 * torch.cos(x[:, 0] - 1.0) * (1 - t))
    x = DDIM(60, eta=1.0)(guided, like=(4000, 1))
    assert float(torch.atan2(x.sin().mean(), x.cos().mean())) == pytest.approx(1.0, abs=0.1)


def test_gradient_guidance_of_a_product_leaves_codes_alone_and_refuses_codes_only():
    parts = {
        "a": exact.gaussian(Gaussian(Cosine())),
        "b": exact.joint_table(Categorical([2, 2]), torch.full((2, 2), 0.25)),
    }
    model = exact.product(parts)
    guided = GradientGuidance(model, lambda x, t, cond: x["a"].sum(1))
    x = {"a": torch.randn(3, 2), "b": torch.zeros(3, 2, dtype=torch.long)}
    t = torch.tensor(0.5)
    assert torch.equal(guided(x, t)["b"], model(x, t)["b"]) and not torch.equal(guided(x, t)["a"], model(x, t)["a"])
    with pytest.raises(ValueError, match="classifier-free"):
        GradientGuidance(parts["b"], lambda x, t, cond: x.sum(1).float())(x["b"], t)


def test_a_noisy_classifier_trains_and_steers():
    """Two classes at -1 and 1: the classifier learns them at every noise level, and guidance picks the one that is asked for."""
    torch.manual_seed(0)
    process = Gaussian(Cosine(), "x0")

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.SiLU(), torch.nn.Linear(32, 2))

        def forward(self, x, t, cond=None):
            return self.layers(torch.cat([x, t[:, None]], 1))

    classifier = Diffusion(Network(), process, NoisyClassifier())
    optimiser = torch.optim.Adam(classifier.parameters(), 1e-2)
    for _ in range(300):
        labels = torch.randint(0, 2, (256,))
        loss = classifier.loss((labels * 2.0 - 1)[:, None] + 0.2 * torch.randn(256, 1), {"class": labels}).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model = exact.mixture(process, torch.tensor([-1.0, 1.0]), 0.2)
    guided = GradientGuidance(model, class_log_prob(classifier), 2.0)
    x = DDPM(60)(guided, like=(500, 1), cond={"class": torch.ones(500, dtype=torch.long)})
    assert float((x > 0).float().mean()) > 0.95


def test_thresholds_keep_estimates_in_range():
    model = exact.Exact(Gaussian(predict="x0"), lambda x, t, cond: x)
    x = torch.tensor([[-3.0, 0.5, 0.9, 1.0], [0.1, 0.2, 0.3, 0.4]])
    t = torch.tensor(0.5)
    assert torch.equal(Threshold(model).estimate(x, t), x.clamp(-1, 1))
    dynamic = Threshold(model, quantile=0.7).estimate(x, t)
    bound = float(torch.quantile(x[0].abs(), 0.7))
    assert torch.allclose(dynamic[0], x[0].clamp(-bound, bound) / bound)
    assert torch.equal(dynamic[1], x[1])
    learned = exact.Exact(Gaussian(predict="eps+variance"), lambda x, t, cond: torch.cat([x * 100, x], 1))
    half = Threshold(learned).estimate(x, t)
    assert half[:, :4].abs().max() <= 1 and torch.equal(half[:, 4:], (x + 1) / 2)


def test_wrappers_nest_and_refuse_nonsense():
    model = Threshold(ClassifierFree(Conditional("x0"), 2.0), limit=0.5)
    x = DDIM(3)(model, like=(4, 1), cond=torch.full((4,), 0.5))
    assert x.shape == (4, 1) and x.abs().max() <= 0.5
    with pytest.raises(ValueError, match="around ClassifierFree"):
        ClassifierFree(Threshold(Conditional("x0")), 2.0)
    with pytest.raises(ValueError, match="interval"):
        ClassifierFree(Conditional(), 2.0, interval=(0.5, 0.5))
    with pytest.raises(ValueError, match="quantile"):
        Threshold(Conditional(), quantile=99)


def test_guided_wraps_what_is_asked_for():
    plain = Conditional()
    assert guided(plain) is plain
    model = guided(plain, 2.0, 1.0)
    assert isinstance(model, Threshold) and model.quantile is None and isinstance(model.diffusion, ClassifierFree)
    assert guided(plain, clip="dynamic").quantile == 0.995


def test_given_parts_guide_where_there_is_no_condition():
    """Scale 1 is the conditional p(y | x = 1), scale 2 sharpens it against p(y), by the product law."""
    table = torch.tensor([[0.4, 0.1], [0.1, 0.4]])

    class Table(Diffusion):
        def forward(self, x_t, t, cond=None, rows=None, given=None):
            seen = x_t[:, :1] < 2
            column = torch.where(seen, table[x_t[:, 0].clamp(max=1)], table.sum(0))
            return torch.cat([torch.zeros_like(column), (column / column.sum(1, keepdim=True)).log()], 1)

    process = Categorical([2, 2], "absorbing")
    model = Table(torch.nn.Identity(), process, masks=lambda x0, rows: x0 > 9)
    x = torch.tensor([[1, 2]]).repeat(200, 1)
    given = torch.tensor([[True, False]]).repeat(200, 1)
    torch.manual_seed(0)
    for scale, odds in ((1.0, 0.4 / 0.1), (2.0, (0.4 / 0.1) ** 2), (0.0, 1.0)):
        output = ClassifierFree(model, scale)(x, torch.ones(()), given=given)
        # At t = 1 the hidden column is masked for sure, so that the null output is the marginal.
        assert float((output[:, 3] - output[:, 2]).exp().mean()) == pytest.approx(odds, rel=1e-4)
