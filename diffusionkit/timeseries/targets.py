"""What a network is asked to draw: levels, differences or log-returns, in the scale of the window's own past.

With z = transform(y) and a lag s, the target is x_h = (z_h - z_(h-s)) / scale; with lag 0 it is the level,
x_h = (z_h - center) / scale. Center and scale come from the past of the window and the statistics of the training part, so
that no other window changes a forecast.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

Transform = Literal["none", "log", "log1p"]
Center = Literal["zero", "mean", "last", "series"]
Scale = Literal["rms", "mean", "std", "robust", "series"]

FORWARD: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda y: y, "log": torch.log, "log1p": torch.log1p}
BACK: dict[str, Callable[[Tensor], Tensor]] = {"none": lambda z: z, "log": torch.exp, "log1p": torch.expm1}


class Frame(NamedTuple):
    """What turns targets back into values: `base` (B, max(s, 1), D) to start from and `scale` (B, 1, D), in terms of z."""

    base: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Target:
    """How values become targets and targets values.

    Args:
        transform: of the values: none, log (positive ones), log1p (counts).
        lag: 0 for the level, 1 for steps from one time to the next, s for changes from one season to the next.
        center: of the level: zero, the mean or the last value of the past, or the mean of the series in training.
        scale: `rms` of past targets, `mean` absolute past value (TimeGrad), `std` or `robust` (median) deviation of past levels,
            or the deviation of the series in training.
        prior: how many past steps the training part's scale counts for; no window has a scale of zero.
    """

    transform: Transform = "none"
    lag: int = 0
    center: Center = "mean"
    scale: Scale = "rms"
    prior: float = 1.0

    def __post_init__(self) -> None:
        for name, known in (("transform", Transform), ("center", Center), ("scale", Scale)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, not {value!r}")
        if self.lag < 0 or self.prior <= 0:
            raise ValueError("lag must not be negative, and prior must be positive")

    def forward(self, values: Tensor) -> Tensor:
        """z of values; NaN where they are missing, or have no logarithm."""
        z = FORWARD[self.transform](values)
        return torch.where(z.isfinite(), z, torch.nan)

    def back(self, z: Tensor) -> Tensor:
        """Values of z."""
        return BACK[self.transform](z)

    def steps(self, z: Tensor, mean: Tensor) -> Tensor:
        """Unscaled targets along a past (..., T, D), with its own mean for a center; lag rows fewer."""
        return z[..., self.lag :, :] - z[..., : -self.lag, :] if self.lag else z - mean

    def frame(self, past: Tensor, mean: Tensor, spread: Tensor) -> Frame:
        """Base and scale of windows.

        Args:
            past: (B, L, D) z, NaN where missing.
            mean: (D,) of z in training.
            spread: (D,) root mean square of the unscaled targets in training.
        """
        full = filled(past, mean)
        if self.lag:
            base = full[:, -self.lag :]
        else:
            base = {
                "zero": lambda: torch.zeros_like(full[:, -1:]),
                "mean": lambda: _mean(past, mean),
                "last": lambda: full[:, -1:],
                "series": lambda: mean.expand_as(full[:, -1:]),
            }[self.center]()
        return Frame(base, self._scale(past, base, spread))

    def _scale(self, past: Tensor, base: Tensor, spread: Tensor) -> Tensor:
        if self.scale == "series":
            return spread.expand(len(past), 1, -1)
        if self.scale == "mean":
            return _shrunk(past.abs(), spread, self.prior)
        if self.scale == "robust":
            away = (self.steps(past, past.nanmedian(1, keepdim=True).values)).abs()
            median = (1.4826 * away.nanmedian(1, keepdim=True).values).nan_to_num(0.0)
            return torch.maximum(median, 0.1 * spread)
        center = _mean(past, base[:, -1:]) if self.scale == "std" and not self.lag else base[:, -1:]
        return _shrunk(self.steps(past, center).square(), spread.square(), self.prior).sqrt()

    def encode(self, z: Tensor, frame: Frame) -> Tensor:
        """Targets (B, H, D) of coming z (B, H, D); NaN where a value, or the one it is compared with, is missing."""
        if not self.lag:
            return (z - frame.base) / frame.scale
        joined = torch.cat([frame.base, z], 1)
        return (z - joined[:, : z.shape[1]]) / frame.scale

    def decode(self, x: Tensor, frame: Frame) -> Tensor:
        """z (B, H, D) of targets (B, H, D)."""
        steps = x.to(frame.base.dtype) * frame.scale
        if not self.lag:
            return steps + frame.base
        horizon = x.shape[1]
        rounds = -(-horizon // self.lag)
        steps = torch.nn.functional.pad(steps, (0, 0, 0, rounds * self.lag - horizon))
        summed = steps.unflatten(1, (rounds, self.lag)).cumsum(1)
        return (summed + frame.base[:, None]).flatten(1, 2)[:, :horizon]


def neighbours(seen: Tensor) -> tuple[Tensor, Tensor]:
    """The places (B, T, D) of the last entry seen up to each one, -1 where there is none, and of the first from it on, else T."""
    length = seen.shape[1]
    place = torch.arange(length, device=seen.device)[:, None].expand_as(seen)
    before = torch.where(seen, place, -1).cummax(1).values
    return before, torch.where(seen, place, length).flip(1).cummin(1).values.flip(1)


def filled(past: Tensor, mean: Tensor) -> Tensor:
    """The past (B, L, D) with each gap closed by the last value before it, or the first after it, or the mean of the series."""
    seen, length = past.isfinite(), past.shape[1]
    if seen.all():
        return past
    before, after = neighbours(seen)
    found = past.gather(1, torch.where(before >= 0, before, after.clamp(max=length - 1)))
    return torch.where(found.isfinite(), found, mean)


def _mean(past: Tensor, otherwise: Tensor) -> Tensor:
    mean = past.nanmean(1, keepdim=True)
    return torch.where(mean.isfinite(), mean, otherwise)


def _shrunk(values: Tensor, usual: Tensor, prior: float) -> Tensor:
    """(B, 1, D) the mean over the past of what is there, with `prior` observations of what is usual."""
    seen = values.isfinite()
    total = torch.where(seen, values, 0.0).sum(1, keepdim=True)
    return (total + prior * usual) / (seen.sum(1, keepdim=True) + prior)
