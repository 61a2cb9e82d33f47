"""Embeddings of the time t."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


def sinusoidal(t: Tensor, width: int, scale: float = 1000.0, longest: float = 10000.0) -> Tensor:
    """Cosines and sines of scale * t at geometrically spaced frequencies (Ho et al. 2020, after Vaswani et al. 2017).

    Args:
        t: (B,) times in [0, 1]; the scale brings them to the range of the published 1000 steps.
        width: number of features; the last one is 0 if it is odd.
        longest: the longest wavelength is about 2 pi times this.

    Returns:
        (B, width) features in [-1, 1], the cosines first.
    """
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=t.device, dtype=t.dtype) * (-math.log(longest) / max(half, 1)))
    angles = (scale * t)[:, None] * frequencies
    return nn.functional.pad(torch.cat([angles.cos(), angles.sin()], 1), (0, width % 2))


class TimeEmbedding(nn.Module):
    """Sinusoidal features of t followed by two linear layers: (B,) -> (B, width).

    Args:
        features: number of sinusoidal features.
        width: size of the hidden layer and of the output.
    """

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.features = features
        self.layers = nn.Sequential(nn.Linear(features, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Tensor) -> Tensor:
        return self.layers(sinusoidal(t, self.features).to(self.layers[0].weight.dtype))
