"""Angles: heat diffusion on a torus of any dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusionkit.core.processes.base import Process, Weight
from diffusionkit.core.rows import Rows, mean, spread, total
from diffusionkit.core.schedules import VE, Schedule


class Torus(Process):
    """x_t = wrap(x_0 + sigma_t eps), angles in [-pi, pi): torsional diffusion (Jing et al. 2022).

    The network predicts sigma_t times the score, which is of order one at small sigma and vanishes where the angles are
    uniform; the estimate is the score. There is no mean of x0 on a circle, hence no multistep rule.

    Args:
        schedule: variance exploding (alpha is 1), up to a sigma of about pi, where the wrapped normal is uniform to 1 %.
    """

    linear = False

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__()
        self.schedule = schedule or VE(0.01 * math.pi, math.pi)
        alpha, sigma = self.schedule(torch.tensor([0.5, 1.0], dtype=torch.float64))
        if not torch.equal(alpha, torch.ones_like(alpha)):
            raise ValueError(f"angles need a variance-exploding schedule (ve or edm), not {self.schedule!r}")
        if not 2 <= sigma[1] <= 4.001:  # beyond, the sums over periods below are cut off too early
            raise ValueError(f"sigma must grow to 2 to 4 radians, where angles are near uniform, not {sigma[1]:g}")

    def extra_repr(self) -> str:
        return repr(self.schedule)

    def prior(
        self,
        shape: tuple[int, ...],
        t: Tensor | None = None,
        rows: Rows | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return (torch.rand(shape, device=device, dtype=dtype) * 2 - 1) * math.pi

    def diffuse(
        self, x_s: Tensor, t: Tensor, s: Tensor | None = None, rows: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        variance = self._sigma(t, x_s, rows) ** 2
        if s is not None:
            variance = variance - self._sigma(s, x_s, rows) ** 2
        noise = variance.clamp(min=0).sqrt() * torch.randn_like(x_s)
        return wrap(x_s + noise), noise

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        return output / self._sigma(t, x_t, rows)

    def guess(self, estimate: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        """Tweedie's formula in the tangent space, wrapped."""
        return wrap(x_t + self._sigma(t, x_t, rows) ** 2 * estimate)

    def loss(
        self,
        output: Tensor,
        x0: Tensor,
        x_t: Tensor,
        noise: Tensor,
        t: Tensor,
        rows: Rows | None = None,
        weight: Weight | None = None,
        keep: Tensor | None = None,
    ) -> Tensor:
        """Denoising score matching, weighted by sigma^2."""
        sigma = self._sigma(t, x0, rows)
        return mean((output - sigma * wrapped_normal_score(x_t - x0, sigma)).square(), rows, keep)

    def step(
        self,
        x_t: Tensor,
        estimate: Tensor,
        t: Tensor,
        s: Tensor,
        eta: float = 1.0,
        rows: Rows | None = None,
        variance: str = "small",
        temperature: float = 1.0,
    ) -> Tensor:
        """The Gaussian kernel in the tangent space at x_t, with x_t + sigma_t^2 score as the mean of x0 (Tweedie), wrapped."""
        sigma_t, sigma_s = self._sigma(t, x_t, rows), self._sigma(s, x_t, rows)
        small = eta**2 * (sigma_s / sigma_t) ** 2 * (sigma_t**2 - sigma_s**2).clamp(min=0)
        drift = sigma_t**2 - sigma_t * (sigma_s**2 - small).clamp(min=0).sqrt()
        x_s = x_t + drift * estimate
        if eta:
            x_s = x_s + temperature * small.sqrt() * torch.randn_like(x_t)
        return wrap(x_s)

    def guide(self, output: Tensor, x_t: Tensor, t: Tensor, gradient: Tensor, rows: Rows | None = None) -> Tensor:
        return output + self._sigma(t, x_t, rows) * gradient

    def kl(self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None = None) -> Tensor:
        """The Girsanov term of the reverse diffusion between t and s: (sigma_t^2 - sigma_s^2) / 2 |difference of scores|^2."""
        sigma_t, sigma_s = self._sigma(t, x_t, rows), self._sigma(s, x_t, rows)
        difference = estimate - wrapped_normal_score(x_t - x0, sigma_t)
        return total((sigma_t**2 - sigma_s**2) / 2 * difference**2, rows)

    def prior_kl(self, x0: Tensor, rows: Rows | None = None) -> Tensor:
        """KL of the wrapped normal at t = 1 to the uniform law, to second order in its Fourier series: sum_k r_k^2."""
        sigma = self._sigma(torch.ones((), device=x0.device), x0, rows)
        return total(torch.ones_like(x0) * sum((-((k * sigma) ** 2)).exp() for k in range(1, 4)), rows)

    def reconstruction(
        self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, rows: Rows | None = None, bin: float | None = None
    ) -> Tensor:
        """-log of a wrapped normal about the mean of x0, with the chain's variance."""
        sigma = self._sigma(t, x0, rows)
        away = wrap(x0 - x_t - sigma**2 * estimate)
        return total(-wrapped_normal_log_density(away, sigma), rows)

    def dimensions(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        return total(torch.ones_like(x), rows)

    def _sigma(self, t: Tensor, like: Tensor, rows: Rows | None) -> Tensor:
        return spread(self.schedule(t)[1], like, rows)


def wrap(x: Tensor) -> Tensor:
    """Angles brought to [-pi, pi)."""
    return torch.remainder(x + math.pi, 2 * math.pi) - math.pi


def _exponents(x: Tensor, sigma: Tensor, periods: int) -> tuple[Tensor, Tensor]:
    shifted = wrap(x).unsqueeze(-1) + 2 * math.pi * torch.arange(-periods, periods + 1, device=x.device, dtype=x.dtype)
    spread_sigma = sigma.unsqueeze(-1) if sigma.ndim else sigma
    return shifted, -((shifted / spread_sigma) ** 2) / 2


def wrapped_normal_log_density(x: Tensor, sigma: Tensor, periods: int = 6) -> Tensor:
    """log density of angles x about 0, as a sum over 2 * periods + 1 periods; exact to rounding up to sigma = 4."""
    return _exponents(x, sigma, periods)[1].logsumexp(-1) - sigma.log() - math.log(2 * math.pi) / 2


def wrapped_normal_score(x: Tensor, sigma: Tensor, periods: int = 6) -> Tensor:
    """The derivative of `wrapped_normal_log_density` in x."""
    shifted, exponents = _exponents(x, sigma, periods)
    return -(exponents.softmax(-1) * shifted).sum(-1) / sigma**2
