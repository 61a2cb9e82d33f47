"""Embeddings of the time t."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, scale: float = 1000.0, longest: float = 10000.0, shift: float = 0.0) -> Tensor:
    """Cosines and sines of scale * t at geometrically spaced frequencies (Ho et al. 2020, after Vaswani et al. 2017).

    Args:
        t: (B,) times in [0, 1]; the scale brings them to the range of the published 1000 steps.
        width: number of features; the last one is 0 if it is odd.
        longest: the longest wavelength is about 2 pi times this.
        shift: of n frequencies the last is longest^-((n - 1) / (n - shift)): exactly 1 / longest with 1, as in Ho et al.'s code.

    Returns:
        (B, width) features in [-1, 1], the cosines first.
    """
    half = width // 2
    ladder = torch.arange(half, device=t.device, dtype=t.dtype)
    # In this order, since of a thousand steps the rounding of the frequencies shows: others have it, too.
    frequencies = torch.exp(ladder * -math.log(longest) / max(half - shift, 1))
    angles = (scale * t)[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t followed by two linear layers: (B,) -> (B, width).

    Args:
        features: number of sinusoidal features.
        width: size of the hidden layer and of the output.

    `steps` and `shift` may be set later; see `count`.
    """

    steps: int | None = None
    shift: float = 0.0

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        if self.steps is None:
            features = sinusoidal(t, self.features, shift=self.shift)
        else:
            features = sinusoidal(self._numbers(t), self.features, scale=1.0, shift=self.shift)
        return self.layers(features.to(self.layers[0].weight.dtype))

    def count(self, steps: int | None, shift: float) -> None:
        """Makes it count as networks of other libraries do.

        Args:
            steps: length T of a chain whose steps 0 ... T - 1, at the times 1/T ... 1, are told in place of 1000 t.
            shift: of the frequencies; see `sinusoidal`.

        Raises:
            ValueError: for impossible values.
        """
        if steps is not None and steps < 2:
            raise ValueError(f"time_steps must be at least 2, not {steps}")
        if not 0 <= shift < max(self.features // 2, 1):
            raise ValueError(f"time_shift must lie in [0, {max(self.features // 2, 1)}), not {shift:g}")
        self.steps, self.shift = steps, shift

    def _numbers(self, t: Tensor) -> Tensor:
        """Times as numbers of steps, whole ones without the rounding of t; none of them is before the first."""
        numbers = (self.steps * t.float() - 1).clamp(min=0)
        whole = numbers.round()
        return torch.where((numbers - whole).abs() < 1e-3, whole, numbers)
