"""Layers that two or more domains share."""

from __future__ import annotations

from diffusionkit.nn.attention import Attention
from diffusionkit.nn.embedding import TimeEmbedding, sinusoidal

__all__ = ["Attention", "TimeEmbedding", "sinusoidal"]
