"""A classifier of noisy pictures: the descending half of the U-Net (Dhariwal & Nichol 2021, section 4)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from diffusionkit.image.backbones.layers import Conditions, group_norm, silu
from diffusionkit.image.backbones.unet import Encoder, Plan, block_conditions


class Classifier(nn.Module):
    """Class logits of noisy pictures, for classifier guidance.

    Args:
        shape: channels, height and width of the pictures.
        classes: number of classes.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each further level has half the size.
        blocks: residual blocks per level.
        attention: sizes (height or width of a level, in pixels) at which self-attention follows each block.
        heads: number of attention heads.
        dropout: share of features left out in training, in each block and before the last layer.
        channels_last: compute in channels-last layout from 16x16 pixels on.

    Raises:
        ValueError: for impossible values, and for data without classes.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int | None = None,
        channels: int = 64,
        multipliers: tuple[int, ...] = (1, 2, 2),
        blocks: int = 1,
        attention: tuple[int, ...] = (8,),
        heads: int = 1,
        dropout: float = 0.1,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        if not classes:
            raise ValueError("a classifier needs data with classes, and these have none")
        plan = Plan(
            tuple(shape), channels, tuple(multipliers), blocks, tuple(attention), heads, dropout=dropout,
            channels_last=channels_last,
        )  # fmt: skip
        width = plan.width(plan.levels - 1)
        self.classes = classes
        self.encoder = Encoder(plan)
        self.norm, self.dropout, self.last = group_norm(width), nn.Dropout(dropout), nn.Linear(width, classes)
        self.conditions = Conditions(channels, block_conditions(self))

    def forward(self, x: Tensor, t: Tensor, cond: Any = None) -> Tensor:
        """Pictures (B, C, H, W) and times (B,) -> logits (B, classes); the condition is not looked at."""
        h = self.encoder(x, iter(self.conditions(t)))[-1]
        return self.last(self.dropout(silu(self.norm(h)).mean((2, 3))))
