"""Schedules: how much signal and how much noise a state holds at time t.

A schedule maps t in [0, 1] to (alpha, sigma): x_t = alpha x_0 + sigma eps. t = 0 is data (alpha 1, sigma 0) and t = 1 is
noise. A chain of T discrete steps lives on the grid i / T; its published table is met there exactly, and log alpha-bar is
linear in between.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class Schedule(ABC):
    """Signal and noise as functions of time; a new schedule needs `__call__` only."""

    steps: int = 1000
    """The length of the discrete chain that it is taken for where one is needed (bounds, learned variances)."""

    @abstractmethod
    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) at times t in [0, 1], each of the shape of t."""

    def log_snr(self, t: Tensor) -> Tensor:
        """log(alpha^2 / sigma^2): infinite at t = 0, falling with t."""
        alpha, sigma = self(t)
        return 2 * (alpha.log() - sigma.log())

    def t_at(self, log_snr: Tensor) -> Tensor:
        """The time with this log-SNR, by bisection; 0 or 1 where it lies beyond the schedule's ends."""
        log_snr = torch.as_tensor(log_snr)
        low, high = torch.zeros_like(log_snr), torch.ones_like(log_snr)
        for _ in range(54):
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return torch.where(self.log_snr(torch.ones_like(log_snr)) >= log_snr, torch.ones_like(low), low)

    def rescale(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma) with the same ratio, brought to this schedule's convention: alpha^2 + sigma^2 = 1."""
        norm = torch.hypot(alpha, sigma)
        return alpha / norm, sigma / norm

    def shifted(self, by: float) -> Schedule:
        """The schedule with `by` times the noise beside the same signal: log-SNR - 2 log(by).

        Larger pictures need more noise to lose the same content: by = side / 64 in Hoogeboom et al. 2023 (simple
        diffusion), by = sqrt(m / n) = 3 in Esser et al. 2024 (Stable Diffusion 3, eq. 23).
        """
        return Shifted(self, by)

    def __repr__(self) -> str:
        own = {k: v for k, v in vars(self).items() if not k.startswith("_") and not isinstance(v, Tensor)}
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in own.items())})"


class Shifted(Schedule):
    """A schedule with `by` times the noise; see `Schedule.shifted`."""

    def __init__(self, schedule: Schedule, by: float = 1.0) -> None:
        self.schedule, self.by = schedule, _positive("by", by)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return self.schedule.rescale(alpha, sigma * self.by)

    def t_at(self, log_snr: Tensor) -> Tensor:
        return self.schedule.t_at(torch.as_tensor(log_snr) + 2 * math.log(self.by))

    def rescale(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return self.schedule.rescale(alpha, sigma)


class _Table(Schedule):
    """A variance-preserving chain of `steps` betas: alpha-bar_i = prod_j<=i (1 - beta_j) at t = i / steps."""

    def __init__(self, betas: Tensor) -> None:
        self._log_alpha_bar = torch.cat([betas.new_zeros(1), torch.log1p(-betas).cumsum(0)])
        self._tables: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._recent: dict[tuple[str, float, torch.dtype], Any] = {}

    def _table(self, like: Tensor) -> Tensor:
        key = (like.device, like.dtype)
        if key not in self._tables:
            self._tables[key] = self._log_alpha_bar.to(device=like.device, dtype=like.dtype)
        return self._tables[key]

    @property
    def alphas_cumprod(self) -> Tensor:
        """(steps,) the published table alpha-bar_1 ... alpha-bar_T, in float64."""
        return self._log_alpha_bar[1:].exp()

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self._recall(self._read, t)

    def log_snr(self, t: Tensor) -> Tensor:
        return self._recall(super().log_snr, t)

    def _recall(self, function: Callable[[Tensor], Any], t: Tensor) -> Any:
        """function(t); of a single time the last results are kept: at each step samplers ask often for the same few."""
        if t.ndim or t.requires_grad or t.device.type != "cpu":
            return function(t)
        key = (function.__name__, t.item(), t.dtype)
        if key not in self._recent:
            if len(self._recent) >= 64:
                self._recent.clear()
            with torch.inference_mode(False):  # so that whoever asks next may differentiate through them
                self._recent[key] = function(t)
        return self._recent[key]

    def _read(self, t: Tensor) -> tuple[Tensor, Tensor]:
        table = self._table(t)
        last = len(table) - 1
        position = t * last
        below = position.floor().clamp(0, last - 1).long()
        log_alpha_bar = torch.lerp(table[below], table[below + 1], position - below)
        return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()

    def t_at(self, log_snr: Tensor) -> Tensor:
        log_alpha_bar = -F.softplus(-torch.as_tensor(log_snr))
        table = self._table(log_alpha_bar)
        last = len(table) - 1
        above = torch.searchsorted(-table, -log_alpha_bar.contiguous()).clamp(1, last)
        fraction = (log_alpha_bar - table[above - 1]) / (table[above] - table[above - 1])
        return ((above - 1 + fraction) / last).clamp(0, 1)


class Linear(_Table):
    """Linear betas (Ho et al. 2020, section 4).

    For other numbers of steps the betas are scaled by 1000 / steps, which keeps alpha-bar as a function of t. It is their root
    of order `power` that is linear: 2 gives the schedule of Stable Diffusion (Rombach et al. 2022), 0.00085 to 0.012 there.
    """

    def __init__(self, steps: int = 1000, beta_min: float = 1e-4, beta_max: float = 0.02, power: float = 1.0) -> None:
        self.steps, self.beta_min, self.beta_max = _steps(steps), beta_min, beta_max
        self.power = _positive("power", power)
        scale = 1000 / steps
        if not 0 < beta_min * scale <= beta_max * scale < 1:
            raise ValueError(f"betas must lie in (0, 1): {beta_min * scale:g} to {beta_max * scale:g} at {steps} steps")
        low, high = ((beta * scale) ** (1 / power) for beta in (beta_min, beta_max))
        super().__init__(torch.linspace(low, high, steps, dtype=torch.float64) ** power)


class Cosine(_Table):
    """alpha-bar(t) = f(t) / f(0) with f(t) = cos^2(pi/2 (t + s) / (1 + s)), betas clipped (Nichol & Dhariwal 2021, eq. 17)."""

    def __init__(self, steps: int = 1000, s: float = 0.008, beta_clip: float = 0.999) -> None:
        self.steps, self.s, self.beta_clip = _steps(steps), s, beta_clip
        if s < 0 or not 0 < beta_clip < 1:
            raise ValueError(f"s must not be negative and beta_clip must lie in (0, 1), not {s:g} and {beta_clip:g}")
        t = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
        f = torch.cos((t + s) / (1 + s) * math.pi / 2) ** 2
        super().__init__((1 - f[1:] / f[:-1]).clamp(max=beta_clip))


class Sigmoid(Schedule):
    """alpha-bar(t) falls along a piece of the logistic curve (Jabri et al. 2022; Chen 2023, algorithm 1)."""

    def __init__(self, start: float = -3.0, end: float = 3.0, tau: float = 1.0, floor: float = 1e-9) -> None:
        self.start, self.end, self.tau, self.floor = start, end, _positive("tau", tau), floor
        if not start < end:
            raise ValueError(f"start must be below end, not {start:g} and {end:g}")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        start, end = self.start / self.tau, self.end / self.tau
        here = start + t * (end - start)

        def climb(low: Tensor, high: Tensor, share: Tensor) -> Tensor:
            """logistic(high) - logistic(low) = share * (end - start) apart, without cancellation."""
            return torch.sinh(share * (end - start) / 2) / (2 * torch.cosh(low / 2) * torch.cosh(high / 2))

        first, last = torch.full_like(t, start), torch.full_like(t, end)
        whole = climb(first, last, torch.ones_like(t))
        signal = (climb(here, last, 1 - t) / whole).clamp(min=self.floor)
        return signal.sqrt(), (climb(first, here, t) / whole).sqrt()


class VP(Schedule):
    """The continuous limit of linear betas, beta(t) = beta_min + t (beta_max - beta_min) (Song et al. 2021, eq. 32)."""

    def __init__(self, beta_min: float = 0.1, beta_max: float = 20.0) -> None:
        self.beta_min, self.beta_max = _positive("beta_min", beta_min), _positive("beta_max", beta_max)

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        log_alpha_bar = -t * (self.beta_min + t * (self.beta_max - self.beta_min) / 2)
        return (log_alpha_bar / 2).exp(), (-torch.expm1(log_alpha_bar)).sqrt()


class LinearVariance(Schedule):
    """sigma^2 = t, alpha^2 = 1 - t; for masked categories, an entry is masked with probability t (Austin et al. 2021)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return (1 - t).clamp(min=0).sqrt(), t.sqrt()


class Polynomial(Schedule):
    """alpha^2 = (1 - s) (1 - t^power)^2 + s (Hoogeboom et al. 2022, "Equivariant diffusion", appendix B).

    Theirs is (1 - 2s) (1 - t^power)^2 + s, whose data hold s = 1e-5 of noise; here t = 0 is data.
    """

    def __init__(self, power: float = 2.0, s: float = 1e-5) -> None:
        self.power, self.s = _positive("power", power), s
        if not 0 <= s < 1:
            raise ValueError(f"s must lie in [0, 1), not {s:g}")

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        noise = t**self.power
        lost = (1 - self.s) * noise * (2 - noise)
        return ((1 - self.s) * (1 - noise) ** 2 + self.s).sqrt(), lost.sqrt()


class RectifiedFlow(Schedule):
    """The straight line from data to noise, alpha = 1 - t and sigma = t (Liu et al. 2022; Lipman et al. 2022)."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return 1 - t, t

    def rescale(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return alpha / (alpha + sigma), sigma / (alpha + sigma)


class _Exploding(Schedule):
    """Variance exploding: alpha is 1 and sigma grows far beyond the data."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor: ...

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(t), self.sigma(t)

    def rescale(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        return alpha / alpha, sigma / alpha


class VE(_Exploding):
    """sigma^2(t) = sigma_min^2 ((sigma_max / sigma_min)^2t - 1), exactly 0 at t = 0 (Song et al. 2021, eq. 31)."""

    def __init__(self, sigma_min: float = 0.01, sigma_max: float = 50.0) -> None:
        self.sigma_min, self.sigma_max = _range(sigma_min, sigma_max)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_min * torch.expm1(2 * t * math.log(self.sigma_max / self.sigma_min)).sqrt()


class EDM(_Exploding):
    """sigma^(1/rho) linear in t (Karras et al. 2022, eq. 5): a grid uniform in t is their sampling grid.

    Their levels end at sigma_min and then jump to 0; here the last thousandth of the time falls linearly from one to the other.
    """

    ramp = 1e-3

    def __init__(self, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> None:
        self.sigma_min, self.sigma_max = _range(sigma_min, sigma_max)
        self.rho = _positive("rho", rho)

    def sigma(self, t: Tensor) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        above = (low + (t - self.ramp).clamp(min=0) / (1 - self.ramp) * (high - low)) ** self.rho
        return torch.where(t < self.ramp, self.sigma_min * t / self.ramp, above)


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, not {value:g}")
    return value


def _steps(steps: int) -> int:
    if steps < 2:
        raise ValueError(f"steps must be at least 2, not {steps}")
    return steps


def _range(sigma_min: float, sigma_max: float) -> tuple[float, float]:
    if not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"sigma_min and sigma_max must satisfy 0 < sigma_min < sigma_max, not {sigma_min:g} and {sigma_max:g}"
        )
    return sigma_min, sigma_max
