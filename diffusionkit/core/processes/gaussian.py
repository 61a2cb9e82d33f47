"""Gaussian noise on vectors: DDPM, its continuous and variance-exploding relatives, and flow matching along straight lines."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from diffusionkit.core.processes.base import Process, Rule, Weight
from diffusionkit.core.rows import Rows, center, mean, spread, total
from diffusionkit.core.schedules import Cosine, Schedule

Predict = Literal["eps", "x0", "v", "flow", "edm", "eps+variance"]


class Gaussian(Process):
    """x_t = alpha_t x0 + sigma_t eps, for tensors of any shape (B, ...), or (N, ...) with rows.

    Every parametrisation is a target A x0 + B eps, linear in data and noise, from which x0 and eps follow:

    | predict        | the network's output                                              | source                       |
    |----------------|-------------------------------------------------------------------|------------------------------|
    | `eps`          | the noise                                                         | Ho et al. 2020               |
    | `x0`           | the data                                                          | Ho et al. 2020               |
    | `v`            | alpha eps - sigma x0                                              | Salimans & Ho 2022           |
    | `flow`         | eps - x0                                                          | Lipman et al. 2022           |
    | `edm`          | (x0 - c_skip x_t) / c_out, from inputs scaled by c_in             | Karras et al. 2022, table 1  |
    | `eps+variance` | the noise, and where the variance lies between its bounds (2C)    | Nichol & Dhariwal 2021       |

    The estimate is the posterior mean of x0; with `eps+variance` it holds the variance's place as a second half of dimension 1.

    Args:
        schedule: alpha and sigma as functions of t.
        predict: what the network predicts.
        sigma_data: standard deviation of the data, for `edm` and for scaling the inputs of variance-exploding schedules.
        centered: remove the mean over each sample's rows from noise and estimates (translation-free positions).
        steps: length T of the chain that a learned variance is trained for; by default the schedule's.
    """

    linear = True

    def __init__(
        self,
        schedule: Schedule | None = None,
        predict: Predict = "eps",
        sigma_data: float = 0.5,
        centered: bool = False,
        steps: int | None = None,
    ) -> None:
        super().__init__()
        if predict not in get_args(Predict):
            raise ValueError(f"predict must be one of {', '.join(get_args(Predict))}, not {predict!r}")
        if not sigma_data > 0:
            raise ValueError(f"sigma_data must be above 0, not {sigma_data:g}")
        self.schedule = schedule or Cosine()
        self.predict, self.sigma_data, self.centered = predict, sigma_data, centered
        self.outputs = 2 if predict == "eps+variance" else 1
        self.steps = steps or self.schedule.steps
        alpha, sigma = self.schedule(torch.ones((), dtype=torch.float64))
        self._scaled = predict == "edm" or float(sigma) > 1
        safe = 2 * math.log(_SAFE_ALPHA) - math.log1p(-(_SAFE_ALPHA**2))
        self._t_max = 1.0
        if float(alpha) < _SAFE_ALPHA:
            self._t_max = float(self.schedule.t_at(torch.tensor(safe, dtype=torch.float64)))

    def extra_repr(self) -> str:
        return f"{self.schedule!r}, predict={self.predict!r}" + (", centered=True" if self.centered else "")

    @property
    def t_max(self) -> float:
        return self._t_max

    # ---- forward

    def prior(
        self,
        shape: tuple[int, ...],
        t: Tensor | None = None,
        rows: Rows | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        noise = self._noise(torch.empty(shape, device=device, dtype=dtype), rows)
        return self._levels(torch.ones((), dtype=torch.float64) if t is None else t, noise, rows)[1] * noise

    def diffuse(
        self, x_s: Tensor, t: Tensor, s: Tensor | None = None, rows: Rows | None = None
    ) -> tuple[Tensor, Tensor]:
        noise = self._noise(x_s, rows)
        alpha, sigma = self._levels(t, x_s, rows)
        if s is not None:
            alpha_s, sigma_s = self._levels(s, x_s, rows)
            alpha, sigma = alpha / alpha_s, _transition(alpha, sigma, alpha_s, sigma_s).sqrt()
        return alpha * x_s + sigma * noise, noise

    def inputs(self, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        if not self._scaled:
            return x_t
        alpha, sigma = self._levels(t, x_t, rows)
        return x_t * (torch.hypot(alpha * self.sigma_data, sigma) ** -1)

    # ---- what the network says

    def estimate(self, output: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        output, place = self._split(output)
        c_x, c_out = self._to_x0(*self._levels(t, x_t, rows))
        x0 = c_out * output if self.predict == "x0" else c_x * x_t + c_out * output
        if self.centered:
            x0 = center(x0, rows)
        return x0 if place is None else torch.cat([x0, (place + 1) / 2], 1)

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
        """Mean squared error of the output, or with `weight` that of x0; the hybrid loss where the variance is learned."""
        alpha, sigma = self._levels(t, x0, rows)
        of_x0, of_noise = self._target(alpha, sigma)
        error = self._split(output)[0] - (of_x0 * x0 + of_noise * noise)
        loss = mean(error.square(), rows, keep)
        if weight is not None:
            # Where alpha is 0 the error in x0 is infinite, and its weight is 0.
            loss = loss * (weight(self.schedule, t) * self._to_x0(*self.schedule(t))[1] ** 2).nan_to_num(0.0)
        if self.predict == "eps+variance":
            loss = loss + self._variance_loss(output, x0, x_t, t, rows)
        return loss

    def _variance_loss(self, output: Tensor, x0: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None) -> Tensor:
        """0.001 L_vlb in bits, which trains the variance alone (Nichol & Dhariwal 2021, eq. 16)."""
        mean_part, place = self._split(output)
        assert place is not None
        estimate = self.estimate(torch.cat([mean_part.detach(), place], 1), x_t, t, rows)
        s = t - 1 / self.steps
        first = self.reconstruction(x0, x_t, estimate, t, rows)
        # Where the first term stands, the other is computed at some s below t all the same: its gradient must be finite.
        term = torch.where(s > 0, self.kl(x0, x_t, estimate, t, torch.where(s > 0, s, t / 2), rows), first)
        return 1e-3 * self.steps * term / (self.dimensions(x0, rows) * math.log(2))

    def guide(self, output: Tensor, x_t: Tensor, t: Tensor, gradient: Tensor, rows: Rows | None = None) -> Tensor:
        """eps - sigma * gradient, in terms of the output (Dhariwal & Nichol 2021, algorithm 2)."""
        alpha, sigma = self._levels(t, x_t, rows)
        of_x0, of_noise = self._target(alpha, sigma)
        shift = (of_x0 * sigma**2 / alpha - of_noise * sigma) * gradient
        output, place = self._split(output)
        return output + shift if place is None else torch.cat([output + shift, place], 1)

    def blend(self, output: Tensor, other: Tensor, rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        (first, place), (second, _) = self._split(output), self._split(other)
        return rule(first, second) if place is None else torch.cat([rule(first, second), place], 1)

    def combine(self, estimates: list[Tensor], times: list[Tensor], s: Tensor, rule: Rule) -> Tensor:
        weights = rule([float(self.schedule.log_snr(t)) / 2 for t in times], float(self.schedule.log_snr(s)) / 2)
        combined = estimates[0] * weights[0]
        for estimate, weight in zip(estimates[1:], weights[1:], strict=True):
            combined = combined.add(estimate, alpha=weight)
        return combined

    def guess(self, estimate: Tensor, x_t: Tensor, t: Tensor, rows: Rows | None = None) -> Tensor:
        return self._split(estimate)[0]

    def clip(self, estimate: Tensor, rule: Callable[[Tensor], Tensor]) -> Tensor:
        x0, place = self._split(estimate)
        return rule(x0) if place is None else torch.cat([rule(x0), place], 1)

    # ---- backward

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
        """The kernel of Song et al. 2021 (DDIM, eq. 12), for any schedule; t < s (encoding) is allowed with eta 0.

        The variance is eta^2 times that of q(x_s | x_t, x0) (`small`), or with eta 1 that of q(x_t | x_s) (`large`), or between
        the two where the network says (`learned`); the last two draw nothing on the last step, as their authors do.
        """
        x0, place = self._split(estimate)
        alpha_t, sigma_t = self._levels(t, x_t, rows)
        alpha_s, sigma_s = self._levels(s, x_t, rows)
        if eta == 0:
            c_x = sigma_s / sigma_t
            return c_x * x_t + (alpha_s - c_x * alpha_t) * x0
        large = _transition(alpha_t, sigma_t, alpha_s, sigma_s)
        small = large * (sigma_s / sigma_t) ** 2
        c_x = (sigma_s**2 - eta**2 * small).clamp(min=0).sqrt() / sigma_t
        if variance == "small":
            drawn = eta**2 * small
        elif variance == "large":
            drawn = torch.where(sigma_s > 0, large, torch.zeros_like(large))
        elif place is not None:
            drawn = torch.where(sigma_s > 0, self._learned(place, large, small).exp(), torch.zeros_like(place))
        else:
            raise ValueError("variance 'learned' needs a process with predict 'eps+variance'")
        noise = self._noise(x_t, rows)
        return c_x * x_t + (alpha_s - c_x * alpha_t) * x0 + (temperature * drawn.sqrt()) * noise

    # ---- the bound

    def kl(self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, s: Tensor, rows: Rows | None = None) -> Tensor:
        x0_hat, place = self._split(estimate)
        alpha_t, sigma_t = self._levels(t, x_t, rows)
        alpha_s, sigma_s = self._levels(s, x_t, rows)
        large = _transition(alpha_t, sigma_t, alpha_s, sigma_s)
        small = large * (sigma_s / sigma_t) ** 2
        # The means differ by alpha_s (1 - SNR_t / SNR_s) (x0 - x0_hat).
        difference = alpha_s * large / sigma_t**2 * (x0 - x0_hat)
        log_ratio = torch.zeros_like(x0) if place is None else self._learned(place, large, small) - small.log()
        return total((log_ratio + torch.expm1(-log_ratio) + difference**2 / (small * log_ratio.exp())) / 2, rows)

    def prior_kl(self, x0: Tensor, rows: Rows | None = None) -> Tensor:
        alpha, sigma = self._levels(x0.new_ones(()), x0, rows)
        # The prior has the chain's own variance sigma(1)^2, so that only the signal left at t = 1 is lost.
        return total((alpha * x0 / sigma) ** 2 / 2, rows)

    def reconstruction(
        self, x0: Tensor, x_t: Tensor, estimate: Tensor, t: Tensor, rows: Rows | None = None, bin: float | None = None
    ) -> Tensor:
        """-log of a Gaussian about the estimate, integrated over the value's bin where there is one (Ho et al. 2020, eq. 13)."""
        x0_hat, place = self._split(estimate)
        sigma = self._levels(t, x0, rows)[1]
        log_variance = 2 * sigma.log() if place is None else self._learned(place, sigma**2, torch.zeros_like(place))
        std = (log_variance / 2).exp()
        if bin is None:
            volume = total((log_variance + math.log(2 * math.pi)).expand_as(x0), rows)
            if self.centered:  # no density along the mean, of which there is none
                volume = volume * self.dimensions(x0, rows) / total(torch.ones_like(x0), rows).clamp(min=1)
            return (total(((x0 - x0_hat) / std) ** 2, rows) + volume) / 2
        above, below = (x0 + bin / 2 - x0_hat) / std, (x0 - bin / 2 - x0_hat) / std
        # The outermost values, -1 and 1, take the tails; differences of the upper or lower tail, whichever keeps its digits.
        lower = torch.where(x0 <= -1 + bin / 4, torch.full_like(below, -math.inf), below)
        upper = torch.where(x0 >= 1 - bin / 4, torch.full_like(above, math.inf), above)
        sign = torch.where(lower + upper > 0, -1.0, 1.0)
        first, second = torch.special.ndtr(sign * upper), torch.special.ndtr(sign * lower)
        return total(-(first - second).abs().clamp(min=1e-12).log(), rows)

    def dimensions(self, x: Tensor, rows: Rows | None = None) -> Tensor:
        ones = torch.ones_like(x)
        if not self.centered:
            return total(ones, rows)
        lost = x.shape[2:].numel() if rows is None else x.shape[1:].numel()  # the mean of each sample
        return (total(ones, rows) - lost).clamp(min=0)

    # ---- arithmetic

    def _levels(self, t: Tensor, like: Tensor, rows: Rows | None) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.schedule(t)
        return spread(alpha, like, rows), spread(sigma, like, rows)

    def _noise(self, like: Tensor, rows: Rows | None) -> Tensor:
        noise = torch.randn_like(like)
        return center(noise, rows) if self.centered else noise

    def _split(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        if self.predict != "eps+variance":
            return output, None
        first, second = output.chunk(2, 1)
        return first, second

    def _target(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(A, B): the network's target is A x0 + B eps."""
        if self.predict == "x0":
            return torch.ones_like(alpha), torch.zeros_like(alpha)
        if self.predict == "v":
            return -sigma, alpha
        if self.predict == "flow":
            return -torch.ones_like(alpha), torch.ones_like(alpha)
        if self.predict == "edm":
            norm = torch.hypot(alpha * self.sigma_data, sigma)
            return sigma / (self.sigma_data * norm), -self.sigma_data * alpha / norm
        return torch.zeros_like(alpha), torch.ones_like(alpha)

    def _to_x0(self, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """(c_x, c_out): x0 = c_x x_t + c_out output, the target solved for x0 together with x_t = alpha x0 + sigma eps."""
        if self.predict == "x0":
            return torch.zeros_like(alpha), torch.ones_like(alpha)
        if self.predict == "v":
            norm = alpha**2 + sigma**2
            return alpha / norm, -sigma / norm
        if self.predict == "flow":
            return 1 / (alpha + sigma), -sigma / (alpha + sigma)
        if self.predict == "edm":
            norm = torch.hypot(alpha * self.sigma_data, sigma)
            return alpha * (self.sigma_data / norm) ** 2, sigma * self.sigma_data / norm
        return 1 / alpha, -sigma / alpha

    def _learned(self, place: Tensor, large: Tensor, small: Tensor) -> Tensor:
        """log of the learned variance: between log beta and log beta-tilde (Nichol & Dhariwal 2021, eq. 15).

        beta-tilde is 0 on the chain's first step; that of the second stands in for it, as in the paper's code.
        """
        first, second = torch.arange(1, 3, device=place.device, dtype=torch.float32) / self.steps
        (alpha_1, sigma_1), (alpha_2, sigma_2) = self.schedule(first), self.schedule(second)
        floor = _transition(alpha_2, sigma_2, alpha_1, sigma_1) * (sigma_1 / sigma_2) ** 2
        return place * large.log() + (1 - place) * torch.maximum(small, floor.to(small)).log()


_SAFE_ALPHA = 0.006
"""Sampling starts no nearer to alpha = 0 than this, a little below the end of Ho et al.'s linear schedule.

A step from t to s multiplies the error of a predicted noise by alpha_s / alpha_t, so that a first step from alpha = 0 would drown
everything in it. The signal left out is 0.006 of the data: less than the published linear chain itself leaves out.
"""


def _transition(alpha_t: Tensor, sigma_t: Tensor, alpha_s: Tensor, sigma_s: Tensor) -> Tensor:
    """The variance of q(x_t | x_s): sigma_t^2 - (alpha_t / alpha_s)^2 sigma_s^2 = sigma_t^2 (1 - SNR_t / SNR_s).

    By logarithms, because the plain difference loses its digits for t near s.
    """
    log_ratio = (alpha_t.log() - sigma_t.log()) - (alpha_s.log() - sigma_s.log())
    return -(sigma_t**2) * torch.expm1(2 * log_ratio).nan_to_num(0.0)
