"""The U-Net of Ho et al. 2020 and ADM (Dhariwal & Nichol 2021)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffusionkit.image.backbones.layers import (
    Block,
    Conditions,
    Down,
    SpatialAttention,
    Stage,
    UpConv,
    beside,
    conv,
    group_norm,
    silu,
)
from diffusionkit.image.backbones.norm import settle
from diffusionkit.image.backbones.text import TextEncoder, Tokens, read, without


@dataclass(frozen=True)
class Plan:
    """What the two halves of a U-Net have in common: sizes, and how a residual block of a level is made.

    Raises:
        ValueError: for an impossible value, naming it.
    """

    shape: tuple[int, int, int]
    channels: int
    multipliers: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    heads: int = 1
    head_channels: int | None = None
    dropout: float = 0.0
    scale_shift: bool = True
    resample: str = "conv"
    token_dim: int | None = None
    checkpoint: bool = False
    channels_last: bool = True
    low: int = 0
    asymmetric: bool = False

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), each at least 1, not {self.shape}")
        for name, value in {"channels": self.channels, "blocks": self.blocks, "heads": self.heads}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one or more positive integers, not {list(self.multipliers)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {self.dropout:g}")
        if self.resample not in ("conv", "block"):
            raise ValueError(f"resample must be 'conv' or 'block', not {self.resample!r}")
        if self.levels > 1 and max(self.size(self.levels - 2)) == 1:
            size = f"{self.shape[1]}x{self.shape[2]}"
            raise ValueError(f"multipliers must have fewer than {self.levels} levels for pictures of {size}")

    @property
    def levels(self) -> int:
        return len(self.multipliers)

    def size(self, level: int) -> tuple[int, int]:
        """Height and width of a level: halved and rounded up at each."""
        return -(-self.shape[1] // 2**level), -(-self.shape[2] // 2**level)

    def width(self, level: int) -> int:
        return self.channels * self.multipliers[level]

    def block(self, inputs: int, level: int, resample: Literal["down", "up"] | None = None) -> Block:
        return Block(inputs, self.width(level), self.dropout, self.scale_shift, resample)

    def halving(self, level: int) -> nn.Module:
        """What takes a level to half its size."""
        if self.resample == "block":
            return self.block(self.width(level), level, "down")
        return Down(self.width(level)) if self.asymmetric else conv(self.width(level), self.width(level), stride=2)

    def stage(self, inputs: int, level: int, attend: bool | None = None) -> Stage:
        """A residual block, with attention after it if `attend`, or by default where the level's size asks for it."""
        if attend is None:
            attend = any(side in self.attention for side in self.size(level))
        width = self.width(level)
        heads = self.heads if self.head_channels is None else max(1, width // self.head_channels)
        attention = SpatialAttention(width, heads, self.token_dim) if attend else None
        return Stage(self.block(inputs, level), attention, self.checkpoint)


class Encoder(nn.Module):
    """The descending half: residual blocks at each level, then, but for the last level, half the size.

    `widths` lists the channels of its results.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        # Smaller pictures lie in the caches in any layout, and PyTorch has less to do before and after in the usual one.
        self.channels_last = plan.channels_last and plan.shape[1] * plan.shape[2] >= 16**2
        self.first = conv(plan.shape[0] + plan.low, plan.channels)
        self.steps = nn.ModuleList()
        self.widths = [plan.channels]
        for level in range(plan.levels):
            width = plan.width(level)
            for _ in range(plan.blocks):
                self._append(plan.stage(self.widths[-1], level), width)
            if level + 1 < plan.levels:
                self._append(plan.halving(level), width)

    def _append(self, step: nn.Module, width: int) -> None:
        self.steps.append(step)
        self.widths.append(width)

    def forward(self, x: Tensor, conditions: Iterator[Tensor], tokens: Tokens | None = None) -> list[Tensor]:
        """Every intermediate result, the last one last."""
        h = self.first(x)
        # Here rather than on x: pictures of a single channel are in both layouts at once.
        results = [h.contiguous(memory_format=torch.channels_last) if self.channels_last else h]
        for step in self.steps:
            if isinstance(step, Stage):
                results.append(step(results[-1], next(conditions), tokens))
            elif isinstance(step, Block):
                results.append(step(results[-1], next(conditions)))
            else:
                results.append(step(results[-1]))
        return results


class Decoder(nn.Module):
    """The ascending half: each stage sees, beside what came from below, one result of the encoder."""

    def __init__(self, plan: Plan, widths: list[int]) -> None:
        super().__init__()
        widths, width = list(widths), plan.width(plan.levels - 1)
        self.steps = nn.ModuleList()
        for level in reversed(range(plan.levels)):
            for _ in range(plan.blocks + 1):
                self.steps.append(plan.stage(width + widths.pop(), level))
                width = plan.width(level)
            if level:
                block = plan.resample == "block"
                self.steps.append(plan.block(width, level, "up") if block else UpConv(width, width))

    def forward(self, h: Tensor, results: list[Tensor], conditions: Iterator[Tensor], tokens: Tokens | None) -> Tensor:
        """h and the encoder's results (which are used up) -> (B, C, H, W) at full size."""
        for step in self.steps:
            if isinstance(step, Stage):
                h = step(torch.cat([h, results.pop()], 1), next(conditions), tokens)
            elif isinstance(step, Block):
                h = step(h, next(conditions), results[-1].shape[2:])
            else:
                h = step(h, results[-1].shape[2:])
        return h


class UNet(nn.Module):
    """U-Net with time, class and token conditions; its defaults are the CIFAR-10 network of Ho et al. 2020 with AdaGN.

    With `scale_shift=False` and shape (3, 32, 32) it is that network: 35.7 million parameters. With `head_channels=64`,
    `resample="block"` and attention at (32, 16, 8) it is that of ADM. Sizes may be odd and need not be square.

    Args:
        shape: channels, height and width of the pictures.
        classes: number of classes, if the network is told the class; index `classes` stands for none.
        channels: width of the first level.
        multipliers: width of each level, in units of `channels`; each further level has half the size.
        blocks: residual blocks per level.
        attention: sizes (height or width of a level, in pixels) at which self-attention follows each block. Below the
            smallest level there is one in any case.
        heads: number of attention heads.
        head_channels: width of a head, instead of their number.
        dropout: share of features left out in training, in each block.
        scale_shift: AdaGN (scale and shift of the normalisation) rather than adding the time to the features.
        resample: "conv" halves and doubles by convolutions, "block" by residual blocks.
        token_dim: width of `cond["tokens"]`, which each attention then also attends to.
        vocabulary: number of ids of `cond["text"]`, if the network reads texts itself; the data decide. Its encoder's tokens, of
            width `text_width`, are then what is attended to.
        text_length: the most ids in a text; the data decide.
        text_width: numbers per token of the text encoder.
        text_depth: blocks of the text encoder.
        text_heads: attention heads of the text encoder.
        pooled_dim: width of `cond["pooled"]`, one vector for a text whose tokens were computed elsewhere; the data decide.
        augment: whether `cond["augment"]` tells what augmentation did to a picture; the data decide.
        low: channels of `cond["low"]`, a smaller picture brought to the size of x, and seen beside it; the data decide.
        outputs: numbers predicted for each one of a picture: 2 where the variance is learned too.
        groups: number of groups of all normalisations; by default as many as divide the channels, at most 32, each of at least 4.
        eps: added to the variance in all normalisations.
        asymmetric: the convolutions that halve look beyond the right and the lower edge only, as in Ho et al.'s code.
        time_steps: length T of a chain of which the network is told the step, 0 to T - 1, in place of 1000 t; so do the networks of
            other libraries.
        time_shift: of n frequencies of the time the last is 10000^-((n - 1) / (n - time_shift)); 1 in Ho et al.'s code.
        checkpoint: compute activations anew in the backward pass: less memory, about a third more time.
        channels_last: compute in channels-last layout from 16x16 pixels on, which is faster on GPUs with tensor cores and,
            the larger the batch, on CPUs.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int | None = None,
        channels: int = 128,
        multipliers: tuple[int, ...] = (1, 2, 2, 2),
        blocks: int = 2,
        attention: tuple[int, ...] = (16,),
        heads: int = 1,
        head_channels: int | None = None,
        dropout: float = 0.1,
        scale_shift: bool = True,
        resample: Literal["conv", "block"] = "conv",
        token_dim: int | None = None,
        vocabulary: int | None = None,
        text_length: int = 32,
        text_width: int = 128,
        text_depth: int = 2,
        text_heads: int = 4,
        pooled_dim: int | None = None,
        augment: bool = False,
        low: int = 0,
        outputs: int = 1,
        groups: int | None = None,
        eps: float = 1e-5,
        asymmetric: bool = False,
        time_steps: int | None = None,
        time_shift: float = 0.0,
        checkpoint: bool = False,
        channels_last: bool = True,
    ) -> None:
        super().__init__()
        self.text = TextEncoder(vocabulary, text_length, text_width, text_depth, text_heads) if vocabulary else None
        if self.text is not None:
            token_dim = pooled_dim = text_width
        plan = Plan(
            tuple(shape), channels, tuple(multipliers), blocks, tuple(attention), heads, head_channels, dropout,
            scale_shift, resample, token_dim, checkpoint, channels_last, low, asymmetric,
        )  # fmt: skip
        last = plan.levels - 1
        self.classes, self.token_dim, self.low = classes, token_dim, low
        self.encoder = Encoder(plan)
        self.middle = nn.ModuleList([plan.stage(plan.width(last), last, attend) for attend in (True, False)])
        self.decoder = Decoder(plan, self.encoder.widths)
        width = plan.width(0)
        self.norm = group_norm(width)
        self.last = conv(width, outputs * plan.shape[0], zero=True)
        self.conditions = Conditions(channels, block_conditions(self), classes, augment, low=low > 0, pooled=pooled_dim)
        self.conditions.time.count(time_steps, time_shift)
        settle(self, groups, eps)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor] | None = None) -> Tensor:
        """Pictures (B, C, H, W), times (B,) and conditions -> (B, outputs * C, H, W).

        Args:
            cond: may hold "class" (B,), "text" (B, L) with "text_weights" (B, L), or "tokens" (B, L, token_dim) with "tokens_mask"
                (B, L), true where there is one, and "pooled" (B, pooled_dim); of augmented pictures, "augment" (B, 9). What is
                missing counts as the null condition. With `low`, it holds "low" (B, low, H, W) and may hold its noise "low_noise"
                (B,).
        """
        cond = cond or {}
        tokens, pooled = read(self.text, self.token_dim, cond, x)
        conditions = iter(self.conditions(t, cond, pooled))
        results = self.encoder(beside(x, cond, self.low), conditions, tokens)
        h = results[-1]
        for stage in self.middle:
            h = stage(h, next(conditions), tokens)
        h = self.decoder(h, results, conditions, tokens)
        return self.last(silu(self.norm(h))).contiguous()

    def null(self, cond: dict[str, Tensor] | None, drop: Tensor) -> dict[str, Tensor] | None:
        """The condition with that of the samples in `drop` (B,) replaced by none: class `classes`, the empty text, tokens of zeros.

        Where it has an entry "negative", what that says takes the place of no text.
        """
        return null(cond, drop, self.classes)


def null(cond: dict[str, Tensor] | None, drop: Tensor, classes: int | None) -> dict[str, Tensor] | None:
    """See `UNet.null`."""
    if cond is None:
        return None
    kept = dict(cond)
    if "class" in cond and classes:
        kept["class"] = torch.where(drop, classes, cond["class"])
    return kept | without(cond, drop)


def block_conditions(network: nn.Module) -> list[int]:
    """How many numbers each residual block of a network asks for, in the order in which they are called."""
    return [module.conditions for module in network.modules() if isinstance(module, Block)]


__all__ = ["UNet"]
