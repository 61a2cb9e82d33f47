"""Noised pictures and texts as directions, near one another where they belong together (CLIP, Radford et al. 2021)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.image.backbones.layers import Conditions, group_norm, silu
from diffusionkit.image.backbones.text import TextEncoder, read
from diffusionkit.image.backbones.unet import Encoder, Plan, block_conditions

_SCALE = (1 / 0.07, 100.0)  # one over the temperature at the start and at most, as published


class ImageText(nn.Module):
    """Similarities of noised pictures to texts: the descending half of the U-Net, which is told the time, beside a text encoder.

    Args:
        shape: channels, height and width of the pictures.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each further level has half the size.
        blocks: residual blocks per level.
        attention: sizes (height or width of a level, in pixels) at which self-attention follows each block.
        heads: number of attention heads.
        dropout: share of features left out in training, in each block and before the last layer.
        width: numbers that a picture or a text becomes.
        vocabulary: number of ids of `cond["text"]`; the data decide.
        text_length: the most ids in a text; the data decide.
        text_width: numbers per token of the text encoder.
        text_depth: blocks of the text encoder.
        text_heads: attention heads of the text encoder.
        pooled_dim: width of `cond["pooled"]`, where texts are read elsewhere; the data decide.
        channels_last: compute in channels-last layout from 16x16 pixels on.

    Raises:
        ValueError: for impossible values, and for data without captions.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        channels: int = 32,
        multipliers: tuple[int, ...] = (1, 2, 4),
        blocks: int = 1,
        attention: tuple[int, ...] = (8,),
        heads: int = 1,
        dropout: float = 0.1,
        width: int = 128,
        vocabulary: int | None = None,
        text_length: int = 32,
        text_width: int = 128,
        text_depth: int = 2,
        text_heads: int = 4,
        pooled_dim: int | None = None,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not (vocabulary or pooled_dim):
            raise ValueError("compares pictures with their captions, and these data have none")
        if width < 1:
            raise ValueError(f"width must be at least 1, not {width}")
        plan = Plan(
            tuple(shape), channels, tuple(multipliers), blocks, tuple(attention), heads, dropout=dropout,
            channels_last=channels_last,
        )  # fmt: skip
        self.text = TextEncoder(vocabulary, text_length, text_width, text_depth, text_heads) if vocabulary else None
        self.of_text = nn.Linear(text_width if vocabulary else pooled_dim, width)
        features = plan.width(plan.levels - 1)
        self.encoder = Encoder(plan)
        self.norm, self.dropout, self.of_picture = group_norm(features), nn.Dropout(dropout), nn.Linear(features, width)
        self.conditions = Conditions(channels, block_conditions(self))
        self.log_scale = nn.Parameter(torch.tensor(math.log(_SCALE[0])))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by to become logits."""
        return self.log_scale.exp().clamp(max=_SCALE[1])

    def picture(self, x: Tensor, t: Tensor) -> Tensor:
        """Noised pictures (B, C, H, W) at times (B,) -> (B, width) of length 1."""
        h = self.encoder(x, iter(self.conditions(t)))[-1]
        return F.normalize(self.of_picture(self.dropout(silu(self.norm(h)).mean((2, 3)))), dim=1)

    def words(self, cond: dict[str, Tensor]) -> Tensor:
        """What a condition says of texts -> (B, width) of length 1."""
        values = cond["pooled"] if self.text is None else read(self.text, None, cond, cond["text"])[1]
        return F.normalize(self.of_text(values), dim=1)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor]) -> Tensor:
        """Noised pictures (B, C, H, W), times (B,) and texts -> logits (B, number of texts)."""
        return self.scale * self.picture(x, t) @ self.words(cond).T


__all__ = ["ImageText"]
