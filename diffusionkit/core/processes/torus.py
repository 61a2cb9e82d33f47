"""Angles: heat diffusion on a torus of any dimension."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diffusionkit.core.processes.heat import Heat
from diffusionkit.core.rows import Rows, total
from diffusionkit.core.schedules import VE, Schedule


class Torus(Heat):
    """x_t = wrap(x_0 + sigma_t eps), angles in [-pi, pi): torsional diffusion (Jing et al. 2022).

    Args:
        schedule: variance exploding (alpha is 1), up to a sigma of about pi, where the wrapped normal is uniform to 1 %.
    """

    called = "angles"
    ends = (2.0, 4.0)  # beyond, the sums over periods below are cut off too early

    def __init__(self, schedule: Schedule | None = None) -> None:
        super().__init__(schedule or VE(0.01 * math.pi, math.pi))

    def prior(
        self,
        shape: tuple[int, ...],
        t: Tensor | None = None,
        rows: Rows | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        return (torch.rand(shape, device=device, dtype=dtype) * 2 - 1) * math.pi

    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        return sigma * torch.randn_like(x)

    def move(self, x: Tensor, v: Tensor) -> Tensor:
        return wrap(x + v)

    def away(self, x: Tensor, x0: Tensor) -> Tensor:
        return wrap(x - x0)

    def score(self, v: Tensor, sigma: Tensor) -> Tensor:
        return wrapped_normal_score(v, sigma)

    def log_density(self, v: Tensor, sigma: Tensor) -> Tensor:
        return wrapped_normal_log_density(v, sigma)

    def prior_kl(self, x0: Tensor, rows: Rows | None = None) -> Tensor:
        """KL of the wrapped normal at t = 1 to the uniform law, to second order in its Fourier series: sum_k r_k^2."""
        sigma = self._sigma(torch.ones((), device=x0.device), x0, rows)
        return total(torch.ones_like(x0) * sum((-((k * sigma) ** 2)).exp() for k in range(1, 4)), rows)


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
