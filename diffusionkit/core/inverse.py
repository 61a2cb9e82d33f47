"""Editing and inverse problems without training: what is drawn is bound to a measurement, a rough draft, or a coarse reference.

Known entries of a state need nothing from here: `given` and `known` of every sampler put them in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from diffusionkit.core.guidance import Guided
from diffusionkit.core.rows import spread, total
from diffusionkit.core.samplers import Sampler
from diffusionkit.core.state import tree_leaves, tree_map

Operator = Callable[[Any], Tensor]
"""A measurement y = A(x) of clean states, batch first, differentiable."""

Method = Literal["dps", "pigdm", "moments"]


class Posterior(Guided):
    """The score plus the gradient of log p(y | x_t) for measurements y = A(x0) + noise, through the network.

    All methods take x0 given x_t for normal about the estimate, and differ in its covariance C. With the residual
    r = y - A(x0_hat) and the estimate's Jacobian J, the gradient is J' A' v, and

    | `method`  | v                                              | source                                   |
    |-----------|------------------------------------------------|------------------------------------------|
    | `pigdm`   | (A C A' + noise^2)^-1 r with C = r_t^2 I       | Song et al. 2023 (pseudoinverse-guided)  |
    | `moments` | the same with C = sigma_t^2 / alpha_t J        | Boys et al. 2023; Rozet et al. 2024      |
    | `dps`     | r / abs(r), times a step size                  | Chung et al. 2023, algorithm 1           |

    The systems are solved by conjugate gradients, so that A is needed as a function only. `moments` is exact where the data are
    normal, and costs a pass back through the network for every one of its `iterations`; the others cost one in all.

    An A that is not linear, such as a decoder, is taken for linear about the estimate.

    Args:
        diffusion: conditional or not, guided or not; a threshold goes around this wrapper.
        operator: A, of states as the process estimates them (a dict of them for products) to a tensor with the batch first.
        y: (B, ...) or (1, ...), what was measured.
        method: see above.
        noise: standard deviation of the measurement's noise.
        scale: 1 is Bayes' rule; with `dps` the paper's step size zeta, which wants to be tried out.
        iterations: of the conjugate gradients.
        std: standard deviation of the data, for `pigdm`: r_t is that of normal data given x_t.
        steps: with `dps`, of the chain that `scale` is meant for; by default the process's own.

    Raises:
        ValueError: if the space is not linear, or a number is impossible.
    """

    def __init__(
        self,
        diffusion: nn.Module,
        operator: Operator,
        y: Tensor,
        method: Method = "pigdm",
        noise: float = 0.0,
        scale: float = 1.0,
        iterations: int = 5,
        std: float = 1.0,
        steps: int | None = None,
    ) -> None:
        super().__init__(diffusion)
        if not self.process.linear:
            raise ValueError(f"{type(self.process).__name__} has no gradients to be guided by")
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        if noise < 0 or not std > 0:
            raise ValueError(f"noise must not be negative and std above 0, not {noise:g} and {std:g}")
        if iterations < 1:
            raise ValueError(f"iterations must be at least 1, not {iterations}")
        self.operator, self.y, self.method, self.noise, self.scale = operator, y, method, noise, scale
        self.iterations, self.std, self.steps = iterations, std, steps or self.process.steps

    def forward(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        if rows is not None:
            raise ValueError("measurements of ragged batches are not supported: a residual belongs to one sample")
        process = self.process
        with torch.enable_grad():
            x = _tracked(x_t)
            output = self.diffusion(x, t, cond, rows, given)
            x0 = process.guess(process.estimate(output, x, t), x, t)
            seen = self.operator(x0)
            residual = (self.y.to(seen) - seen).detach()

            def pull(v: Tensor) -> Any:
                return _gradient(seen, x, v)

            def covariance(v: Tensor) -> Tensor:
                """(A C A' + noise^2) v, the covariance of y given x_t."""
                if self.method == "moments":
                    moved = self._moved(pull(v), output, x_t, t)
                else:
                    moved = tree_map(lambda leaf: self._variance(t, leaf) * leaf, _adjoint(self.operator, x0, v))
                return _along(self.operator, x0, seen, moved) + self.noise**2 * v

            if self.method == "dps":
                length = total(residual**2).sqrt().clamp(min=1e-12)
                v = spread(self._step_size(t) / length, residual) * residual
            else:
                v = _solve(covariance, residual, self.iterations)
            gradient = pull(self.scale * v)
        return process.guide(tree_map(Tensor.detach, output), x_t, t, gradient)

    def _moved(self, gradient: Any, output: Any, x_t: Any, t: Tensor) -> Any:
        """sigma^2 / alpha times the gradient: what adding it to the score adds to the estimate, asked of the process itself."""
        nothing, zero = (tree_map(torch.zeros_like, tree) for tree in (output, x_t))
        return self.process.guess(
            self.process.estimate(self.process.guide(nothing, zero, t, gradient), zero, t), zero, t
        )

    def _variance(self, t: Tensor, like: Tensor) -> Tensor:
        """r_t^2, the variance of normal data given x_t."""
        alpha, sigma = self.process.schedule(t)
        return spread((self.std * sigma) ** 2 / ((self.std * alpha) ** 2 + sigma**2), like)

    def _step_size(self, t: Tensor) -> Tensor:
        """What makes an ancestral step add the gradient itself, as in the paper: alpha_t / (alpha_s var(x_t | x_s))."""
        s = (t - self.process.t_max / self.steps).clamp(min=0)
        alpha, sigma = self.process.schedule(t)
        alpha_s, sigma_s = self.process.schedule(s)
        return alpha / (alpha_s * (sigma**2 - (alpha / alpha_s * sigma_s) ** 2))


class LowPass(Guided):
    """Estimates whose coarse part is that of a reference: x0_hat + low(reference - x0_hat), ILVR of Choi et al. 2021.

    The paper exchanges it in the noised state; in the estimate it comes to the same, as the states that follow from it have the
    reference's coarse part, noised by the chain. Put it outside a `Threshold`. In a product it acts on all linear parts alike.

    Args:
        diffusion: conditional or not, guided or not.
        reference: a clean state, or a batch of them.
        low: a linear projection onto what is coarse, such as averages over blocks; the samples' coarse part is then the
            reference's.
        until: the time at which the reference is let go; 0 holds on to the end.
    """

    raw = False

    def __init__(
        self, diffusion: nn.Module, reference: Tensor, low: Callable[[Tensor], Tensor], until: float = 0.0
    ) -> None:
        super().__init__(diffusion)
        if not 0 <= until < 1:
            raise ValueError(f"until must lie in [0, 1), not {until:g}")
        self.reference, self.low, self.until = reference, low, until

    def estimate(self, x_t: Any, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Any:
        estimate = self.diffusion.estimate(x_t, t, cond, rows, given)  # type: ignore[operator]
        return self.process.clip(estimate, lambda x0: x0 + self._held(t, x0) * self.low(self.reference - x0))

    def _held(self, t: Tensor, x0: Tensor) -> Tensor:
        return spread((t > self.until).to(x0), x0)


def redraw(sampler: Sampler, diffusion: Any, x0: Any, strength: float, rows: Any = None, **arguments: Any) -> Any:
    """SDEdit (Meng et al. 2022, algorithm 1): x0 is noised to a share of the way, and drawn anew from there.

    Args:
        sampler: goes the last part of its grid.
        diffusion: a `Diffusion`, or a guided one.
        x0: clean states; a draft is enough.
        strength: towards 0 the samples are x0, with 1 they are free.
        rows: of ragged batches.
        arguments: further ones of the sampler.

    Raises:
        ValueError: if strength is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise ValueError(f"strength must lie above 0 and not above 1, not {strength:g}")
    process = diffusion.process
    start = process.diffuse(x0, sampler.times(process)[0] * strength, rows=rows)[0]
    return sampler(diffusion, like=x0, rows=rows, start=start, begin=strength, **arguments)


def masked(given: Tensor) -> Operator:
    """The operator that keeps the entries where the mask holds, and puts 0 in the place of the others."""
    return lambda x: torch.where(given.to(x.device), x, torch.zeros_like(x))


def composed(*operators: Operator) -> Operator:
    """One after another, the first first."""

    def operator(x: Any) -> Any:
        for one in operators:
            x = one(x)
        return x

    return operator


def adjoint(operator: Operator, like: Any) -> Callable[[Tensor], Any]:
    """A' of a linear A, with <A x, y> = <x, A' y>, for states of the form of `like`."""
    return lambda y: _adjoint(operator, tree_map(torch.zeros_like, like), y)


def _adjoint(operator: Operator, like: Any, y: Tensor) -> Any:
    with torch.enable_grad():
        x = _tracked(like)
        gradient = _gradient(operator(x), x, y)
    return tree_map(lambda leaf, g: torch.zeros_like(leaf) if g is None else g, like, gradient)


def _tracked(state: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach().requires_grad_() if leaf.is_floating_point() else leaf, state)


def _gradient(value: Tensor, x: Any, weight: Tensor) -> Any:
    """The gradient of <value, weight> with respect to a tracked state; None for codes."""
    wanted = [leaf for leaf in tree_leaves(x) if leaf.requires_grad]
    found = iter(torch.autograd.grad(value, wanted, weight.expand_as(value), retain_graph=True, allow_unused=True))
    return tree_map(lambda leaf: next(found) if leaf.requires_grad else None, x)


def _along(operator: Operator, x: Any, seen: Tensor, way: Any) -> Tensor:
    """How A changes from A(x) = seen along `way`: by a step that is small next to states, and large next to rounding."""
    size = max(float(leaf.abs().max()) for leaf in tree_leaves(way) if leaf.is_floating_point())
    step = 0.01 / size if size else 1.0
    with torch.no_grad():
        ahead = tree_map(lambda leaf, by: leaf + step * by if leaf.is_floating_point() else leaf, x, way)
        return (operator(ahead) - seen) / step


def _solve(matrix: Callable[[Tensor], Tensor], right: Tensor, iterations: int) -> Tensor:
    """Conjugate gradients for one positive system a sample, from zero; directions without curvature are left out."""

    def inner(a: Tensor, b: Tensor) -> Tensor:
        return spread(total(a * b), a)

    solution, rest, way = torch.zeros_like(right), right, right
    length = inner(rest, rest)
    for _ in range(iterations):
        ahead = matrix(way)
        curvature = inner(way, ahead)
        step = torch.where(curvature > 0, length / curvature, torch.zeros_like(length))
        solution, rest = solution + step * way, rest - step * ahead
        before, length = length, inner(rest, rest)
        way = rest + torch.where(before > 0, length / before, torch.zeros_like(length)) * way
    return solution


__all__ = ["LowPass", "Operator", "Posterior", "adjoint", "composed", "masked", "redraw"]
