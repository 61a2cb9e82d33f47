"""Heat diffusion on spaces without straight lines: what angles and rotations share."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from diffusionkit.core.processes.base import Process, Weight
from diffusionkit.core.rows import Rows, mean, spread, total
from diffusionkit.core.schedules import Schedule


class Heat(Process):
    """x_t is x_0 moved by noise from the space's heat kernel of variance sigma_t^2.

    The network predicts sigma_t times the score, which is of order one at small sigma and vanishes where the state is uniform;
    the estimate is the score, a tangent vector. There is no mean of x0 on such spaces, hence no multistep rule.

    A space says what its tangent vectors are, how they move its points, and what its kernel is.

    Args:
        schedule: variance exploding (alpha is 1).
    """

    linear = False
    called: str
    ends: tuple[float, float]
    """Where sigma may end: the kernel must be near uniform there."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.schedule = schedule
        alpha, sigma = schedule(torch.tensor([0.5, 1.0], dtype=torch.float64))
        if not torch.equal(alpha, torch.ones_like(alpha)):
            raise ValueError(f"{self.called} need a variance-exploding schedule (ve or edm), not {schedule!r}")
        low, high = self.ends
        if not low <= sigma[1] <= high + 0.001:
            raise ValueError(
                f"sigma must grow to {low:g} to {high:g} radians, where {self.called} are near uniform, not {sigma[1]:g}"
            )

    def extra_repr(self) -> str:
        return repr(self.schedule)

    # ---- what a space answers; sigma multiplies tangent vectors

    def tangent(self, x: Tensor) -> Tensor:
        """A tensor of the shape of x's tangent vectors."""
        return x

    @abstractmethod
    def noise(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Tangent vectors at x drawn from the kernel."""

    @abstractmethod
    def move(self, x: Tensor, v: Tensor) -> Tensor:
        """x moved by tangent vectors."""

    @abstractmethod
    def away(self, x: Tensor, x0: Tensor) -> Tensor:
        """The tangent vectors that move x0 to x."""

    @abstractmethod
    def score(self, v: Tensor, sigma: Tensor) -> Tensor:
        """The gradient of the kernel's log density at what v moves to."""

    @abstractmethod
    def log_density(self, v: Tensor, sigma: Tensor) -> Tensor:
        """The log of the kernel's density, in the space's volume, at what v moves to."""

    # ---- the chain

    def diffuse(
        self, x_s: Tensor, t: Tensor, s: Tensor | None = None, rows: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        """In one jump from any s, because heat kernels compose: their variances add."""
        variance = self._sigma(t, self.tangent(x_s), rows) ** 2
        if s is not None:
            variance = variance - self._sigma(s, self.tangent(x_s), rows) ** 2
        noise = self.noise(x_s, variance.clamp(min=0).sqrt())
        return self.move(x_s, noise), noise

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        return output / self._sigma(t, output, rows)

    def guess(self, estimate: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        """Tweedie's formula in the tangent space."""
        return self.move(x_t, self._sigma(t, estimate, rows) ** 2 * estimate)

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
        """Denoising score matching, weighted by sigma^2; `noise` is what moved x0 to x_t."""
        sigma = self._sigma(t, noise, rows)
        keep = None if keep is None else self.tangent(keep)
        return mean((output - sigma * self.score(noise, sigma)).square(), rows, keep)

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
        """The Gaussian kernel in the tangent space at x_t, with sigma_t^2 score leading to the mean of x0 (Tweedie)."""
        sigma_t, sigma_s = self._sigma(t, estimate, rows), self._sigma(s, estimate, rows)
        small = eta**2 * (sigma_s / sigma_t) ** 2 * (sigma_t**2 - sigma_s**2).clamp(min=0)
        moved = (sigma_t**2 - sigma_t * (sigma_s**2 - small).clamp(min=0).sqrt()) * estimate
        if eta:
            moved = moved + temperature * small.sqrt() * torch.randn_like(self.tangent(x_t))
        return self.move(x_t, moved)

    def guide(self, output: Tensor, x_t: Tensor, t: Tensor, gradient: Tensor, rows: Rows | None = None) -> Tensor:
        return output + self._sigma(t, output, rows) * gradient

    # ---- the bound

    def kl(self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None = None) -> Tensor:
        """Of two Gaussian kernels in the tangent space, those of `step` with eta 1 for the true score and the estimated one."""
        sigma_t, sigma_s = self._sigma(t, estimate, rows), self._sigma(s, estimate, rows)
        difference = estimate - self.score(self.away(x_t, x0), sigma_t)
        return total((sigma_t**2 - sigma_s**2) * (sigma_t / sigma_s) ** 2 / 2 * difference**2, rows)

    def reconstruction(
        self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, rows: Rows | None = None, bin: float | None = None
    ) -> Tensor:
        """-log of the kernel about the guess, with the chain's variance."""
        away = self.away(x0, self.guess(estimate, x_t, t, rows))
        return total(-self.log_density(away, self._sigma(t, estimate, rows)), rows)

    def dimensions(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        return total(torch.ones_like(self.tangent(x)), rows)

    def _sigma(self, t: Tensor, like: Tensor, rows: Rows | None) -> Tensor:
        """sigma at t, shaped to multiply tangent vectors."""
        return spread(self.schedule(t)[1], like, rows)
