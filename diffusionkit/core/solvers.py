"""Solvers of higher order: DDIM steps with estimates that are combined from several."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor

from diffusionkit.core.processes import Process
from diffusionkit.core.processes.base import Rule
from diffusionkit.core.samplers import Grid, Past, Sampler, Temperature, names_of, parts_of


class _Linear(Sampler):
    """A solver whose estimates are combined, for spaces where that is possible."""

    def check(self, process: Process) -> None:
        super().check(process)
        if not process.linear:
            raise ValueError(
                f"{type(self).__name__} combines estimates of x0, which {names_of(process)} does not have: use ddpm or ddim"
            )


class Heun(_Linear):
    """Second order with two evaluations a step (Karras et al. 2022, algorithms 1 and 2), the last step first order.

    Args:
        churn: S_churn; the noise is raised by at most churn / steps of itself before a step, within [churn_min, churn_max] in
            sigma / alpha. S_noise is 1.
    """

    def __init__(
        self,
        steps: int = 18,
        grid: Grid = "karras",
        churn: float = 0.0,
        churn_min: float = 0.0,
        churn_max: float = math.inf,
    ) -> None:
        super().__init__(steps, 0.0, grid)
        if churn < 0:
            raise ValueError(f"churn must not be negative, not {churn:g}")
        self.churn, self.churn_min, self.churn_max = churn, churn_min, churn_max

    def shake(self, process: Process, x: Any, t: Tensor, rows: Any) -> tuple[Any, Tensor]:
        log_snr = process.schedule.log_snr(t)
        if not self.churn or not self.churn_min <= float((-log_snr / 2).exp()) <= self.churn_max:
            return x, t
        gamma = min(self.churn / self.steps, math.sqrt(2) - 1)
        higher = process.schedule.t_at(log_snr - 2 * math.log1p(gamma)).clamp(max=1)
        return (process.diffuse(x, higher, t, rows)[0], higher) if higher > t else (x, t)

    def refine(
        self, process: Process, past: list[Past], s: Tensor, look: Callable[[Any, Tensor], Any], rows: Any
    ) -> tuple[Any, Any]:
        t, x, estimate = past[0]
        if len(_usable(process, [past[0]] * 2, s)) == 1:
            return x, estimate
        ahead = look(process.step(x, estimate, t, s, 0.0, rows), s)
        return x, process.combine([estimate, ahead], [t, s], s, _heun)


def _heun(lambdas: list[float], goal: float) -> list[float]:
    """The mean of both noises, as a DDIM step sees it."""
    half = math.exp(goal - lambdas[0]) / 2
    return [1 - half, half]


class DPMSolver(_Linear):
    """DPM-Solver++ multistep (Lu et al. 2022b): order 2 is 2M, order 3 is 3M; with eta 1 the SDE versions.

    The last step is first order: its log-SNR is infinite.
    """

    def __init__(
        self,
        steps: int = 20,
        order: Literal[1, 2, 3] = 2,
        eta: float = 0.0,
        grid: Grid = "log_snr",
        temperature: Temperature = 1.0,
    ) -> None:
        super().__init__(steps, eta, grid, temperature)
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, not {order}")
        self.order = order

    def refine(
        self, process: Process, past: list[Past], s: Tensor, look: Callable[[Any, Tensor], Any], rows: Any
    ) -> tuple[Any, Any]:
        usable = _usable(process, past, s)
        rules: list[Rule] = [_first, _dpm_2, _dpm_3_sde if self.eta else _dpm_3]
        rule = rules[len(usable) - 1]
        return past[0].x, process.combine([p.estimate for p in usable], [p.t for p in usable], s, rule)


def _first(lambdas: list[float], goal: float) -> list[float]:
    return [1.0]


def _dpm_2(lambdas: list[float], goal: float) -> list[float]:
    r = (lambdas[0] - lambdas[1]) / (goal - lambdas[0])
    return [1 + 1 / (2 * r), -1 / (2 * r)]


def _dpm_3(lambdas: list[float], goal: float) -> list[float]:
    """x_s = .. + alpha_s (phi_1 D0 + phi_2 D1 + phi_3 D2), phi_1 = 1 - e^-h, with D2 half of the second divided difference."""
    h = goal - lambdas[0]
    phi_1 = -math.expm1(-h)
    return _quadratic(lambdas, (h - phi_1) / phi_1, (h**2 / 2 - h + phi_1) / phi_1)


def _dpm_3_sde(lambdas: list[float], goal: float) -> list[float]:
    """As `_dpm_3` with e^-2h in the place of e^-h: the exact integrals of the stochastic kernel."""
    h = 2 * (goal - lambdas[0])
    phi_1 = -math.expm1(-h)
    return _quadratic(lambdas, (h - phi_1) / phi_1 / 2, (h**2 / 2 - h + phi_1) / phi_1 / 4)


def _quadratic(lambdas: list[float], first: float, second: float) -> list[float]:
    """Weights of the parabola through three estimates: its value, plus `first` times its slope and `second` times its curvature.

    `first` and `second` are in units of lambda: means of (lambda - lambda_0) and of its square over two, under the kernel.
    """
    a, b = lambdas[1] - lambdas[0], lambdas[2] - lambdas[0]
    slope = [-(a + b) / (a * b), b / (a * (b - a)), -a / (b * (b - a))]
    curve = [2 / (a * b), 2 / (a * (a - b)), 2 / (b * (b - a))]
    return [float(k == 0) + first * slope[k] + second * curve[k] for k in range(3)]


class UniPC(_Linear):
    """Predictor and corrector of one order without further evaluations (Zhao et al. 2023), B(h) = e^h - 1, data prediction."""

    def __init__(self, steps: int = 20, order: Literal[1, 2, 3] = 2, grid: Grid = "log_snr") -> None:
        super().__init__(steps, 0.0, grid)
        if order not in (1, 2, 3):
            raise ValueError(f"order must be 1, 2 or 3, not {order}")
        self.order = order + 1  # the corrector looks back one state further

    def check(self, process: Process) -> None:
        if not all(part.linear for part in parts_of(process)):
            raise ValueError(
                f"UniPC corrects states, which {names_of(process)} does not allow in all its parts: use ddim"
            )

    def refine(
        self, process: Process, past: list[Past], s: Tensor, look: Callable[[Any, Tensor], Any], rows: Any
    ) -> tuple[Any, Any]:
        t, x, _ = past[0]
        if len(past) > 1 and _finite(process)(past[1].t):
            past = _usable(process, past, t)
            corrected = process.combine([p.estimate for p in past], [p.t for p in past], t, _unipc_corrector)
            x = process.step(past[1].x, corrected, past[1].t, t, 0.0, rows)
        usable = _usable(process, past[: self.order - 1], s)
        return x, process.combine([p.estimate for p in usable], [p.t for p in usable], s, _unipc_predictor)


def _unipc_predictor(lambdas: list[float], goal: float) -> list[float]:
    """Weights of the estimates at lambdas (newest first) for a step from lambdas[0] to goal."""
    h = goal - lambdas[0]
    weights = _unipc_weights([(other - lambdas[0]) / h for other in lambdas[1:]], h)
    return [1 - sum(weights), *weights]


def _unipc_corrector(lambdas: list[float], goal: float) -> list[float]:
    """The same when the estimate at the goal itself, lambdas[0], is known; the step started from lambdas[1]."""
    h = goal - lambdas[1]
    *weights, newest = _unipc_weights([*((other - lambdas[1]) / h for other in lambdas[2:]), 1.0], h)
    return [newest, 1 - sum(weights) - newest, *weights]


def _unipc_weights(r: list[float], h: float) -> list[float]:
    """rho_k / r_k from the order conditions: sum_k rho_k r_k^(i-1) = i! phi_{i+1}(-h) / phi_1(-h) (Zhao et al. 2023, theorem 3.1).

    Numbers rather than tensors: a solver of linear equations takes longer here than everything else in a step.
    """
    if len(r) < 2:
        return [0.5 / only for only in r]  # as its authors do: the condition holds up to higher order
    phi = first = math.expm1(-h) / -h
    right = []
    for i in range(1, len(r) + 1):
        phi = (phi - 1 / math.factorial(i)) / -h  # phi_{i+1}
        right.append(phi * math.factorial(i) / first)
    weights = []
    for k, this in enumerate(r):
        basis = [1.0]  # coefficients, the lowest first, of the polynomial that is 0 at all other r
        for other in (*r[:k], *r[k + 1 :]):
            basis = [a - other * b for a, b in zip([0.0, *basis], [*basis, 0.0], strict=True)]
        rho = sum(c * moment for c, moment in zip(basis, right, strict=True))
        weights.append(rho / sum(c * this**i for i, c in enumerate(basis)) / this)
    return weights


def _usable(process: Process, past: list[Past], s: Tensor) -> list[Past]:
    """The estimates that a rule for the step to s may use: the newest alone where log-SNR becomes or was infinite."""
    finite = _finite(process)
    if s == 0 or not finite(past[0].t):
        return past[:1]
    return [p for i, p in enumerate(past) if i == 0 or finite(p.t)]


def _finite(process: Process) -> Callable[[Tensor], bool]:
    return lambda t: math.isfinite(process.schedule.log_snr(t))
