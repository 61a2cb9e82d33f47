from __future__ import annotations

import math

import pytest
import torch

from diffusionkit.nn import TimeEmbedding, sinusoidal


@pytest.mark.parametrize("width", [2, 7, 64])
def test_sinusoidal_against_the_formula(width: int) -> None:
    t = torch.tensor([0.0, 0.003, 1.0], dtype=torch.float64)
    features = sinusoidal(t, width)
    half = width // 2
    assert features.shape == (3, width)
    for i in range(half):
        angle = 1000 * t * math.exp(-math.log(10000) * i / half)
        torch.testing.assert_close(features[:, i], angle.cos())
        torch.testing.assert_close(features[:, half + i], angle.sin())


def test_embedding_tells_neighbouring_steps_apart() -> None:
    torch.manual_seed(0)
    features = sinusoidal(torch.arange(1, 1001) / 1000, 32)
    assert torch.cdist(features, features).fill_diagonal_(1).min() > 0.05
    assert TimeEmbedding(32, 48)(torch.rand(5)).shape == (5, 48)
