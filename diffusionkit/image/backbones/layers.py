"""The parts of which the U-Net and the classifier are made; tensors are (B, C, H, W)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.image.augment import FEATURES
from diffusionkit.image.backbones.norm import group_norm
from diffusionkit.image.backbones.text import Tokens
from diffusionkit.nn import Attention, TimeEmbedding

# Nearest-neighbour doubling and a convolution by 3 taps (w0, w1, w2) are together a transposed convolution by 4.
_FOLD = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float32)


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size (over the stride, rounded up); with `zero` its output starts as zeros."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    if zero:
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return layer


class Down(nn.Conv2d):
    """Half the size, rounded up, by a 3x3 convolution that looks beyond the right and the lower edge only, as published.

    At sides that are even it looks one pixel beyond; the other edges need no padding there.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        return super().forward(F.pad(x, (0, 1 + width % 2, 0, 1 + height % 2)))


def silu(x: Tensor) -> Tensor:
    """SiLU, in place where no gradient needs the argument; only for tensors that nobody else holds."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class UpConv(nn.Conv2d):
    """Nearest-neighbour doubling and a 3x3 convolution, at 4/9 of the multiplications.

    Of the 9 taps that a pixel of the enlarged picture would see, several fall on copies of the same pixel; adding their
    weights first gives a transposed convolution with a 4x4 kernel, whose result is the same.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.register_buffer("fold", torch.kron(_FOLD, _FOLD).T.contiguous(), persistent=False)

    def forward(self, x: Tensor, size: torch.Size | None = None) -> Tensor:
        """Doubles (B, C, H, W); where `size` (H', W') is given, cut to it."""
        kernel = (self.weight.transpose(0, 1).flatten(2) @ self.fold).unflatten(2, (4, 4))
        return cut(F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1), size)


def cut(x: Tensor, size: torch.Size | None) -> Tensor:
    """x without what lies beyond `size`: doubling a size that was rounded up overshoots by one."""
    return x if size is None or x.shape[2:] == size else x[..., : size[0], : size[1]]


class Block(nn.Module):
    """Residual block under a time condition, which also halves or doubles the picture if told to.

    Either adds the condition between its convolutions (Ho et al. 2020, appendix B) or scales and shifts the second
    normalisation by it, AdaGN (Dhariwal & Nichol 2021, eq. 3). The second convolution starts with zeros.

    Args:
        scale_shift: AdaGN instead of adding.
        resample: "down" averages 2x2 pixels, "up" repeats each, in both branches (the BigGAN blocks of ADM).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        dropout: float = 0.0,
        scale_shift: bool = True,
        resample: Literal["down", "up"] | None = None,
    ) -> None:
        super().__init__()
        self.scale_shift, self.resample = scale_shift, resample
        self.conditions = 2 * outputs if scale_shift else outputs  # how many numbers per sample `condition` holds
        self.norm1, self.norm2 = group_norm(inputs), group_norm(outputs)
        self.conv1 = UpConv(inputs, outputs) if resample == "up" else conv(inputs, outputs)
        self.conv2 = conv(outputs, outputs, zero=True)
        self.shortcut = conv(inputs, outputs, 1) if inputs != outputs else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, condition: Tensor | None = None, size: torch.Size | None = None) -> Tensor:
        """(B, inputs, H, W) and (B, conditions), if any -> (B, outputs, H', W'); `size` is where doubling should land."""
        h = silu(self.norm1(x))
        if self.resample == "down":
            h, x = halve(h), halve(x)
        h = self.conv1(h, size) if self.resample == "up" else self.conv1(h)
        h = self.conv2(self.dropout(silu(self._condition(h, condition))))
        if self.resample == "up":
            return h + cut(F.interpolate(self.shortcut(x), scale_factor=2.0, mode="nearest"), size)
        return h.add_(self.shortcut(x))  # in place: the backward of a convolution does not need its result

    def _condition(self, h: Tensor, condition: Tensor | None) -> Tensor:
        if condition is None:
            return self.norm2(h)
        if not self.scale_shift:
            return self.norm2(h + condition[..., None, None])
        return self.norm2(h, *condition.chunk(2, 1))


def halve(x: Tensor) -> Tensor:
    """The mean of each 2x2 pixels; an odd last row or column is averaged with itself."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


class SpatialAttention(nn.Module):
    """Self-attention over all pixels and, beside it, attention to tokens; each a residual branch that starts at zero.

    Args:
        token_dim: width of the tokens; None for self-attention only.
    """

    def __init__(self, channels: int, heads: int = 1, token_dim: int | None = None) -> None:
        super().__init__()
        self.norm = group_norm(channels)
        self.attention = Attention(channels, heads, zero=True)
        self.token_norm = group_norm(channels) if token_dim else None
        self.token_attention = Attention(channels, heads, context=token_dim, zero=True) if token_dim else None

    def forward(self, x: Tensor, tokens: Tokens | None = None) -> Tensor:
        """(B, C, H, W), and tokens of width token_dim if the layer was built for them -> (B, C, H, W)."""
        x = x + _picture(self.attention(_sequence(self.norm(x))), x)
        if self.token_attention is None or tokens is None:
            return x
        return x + _picture(self.token_attention(_sequence(self.token_norm(x)), *tokens), x)


def _sequence(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, H * W, C): a view if x is laid out channels-last."""
    return x.flatten(2).transpose(1, 2)


def _picture(sequence: Tensor, like: Tensor) -> Tensor:
    return sequence.transpose(1, 2).unflatten(2, like.shape[2:])


class Stage(nn.Module):
    """A residual block and the attention after it, if any; computed anew in the backward pass if `checkpoint`."""

    def __init__(self, block: Block, attention: SpatialAttention | None = None, checkpoint: bool = False) -> None:
        super().__init__()
        self.block, self.attention, self.checkpoint = block, attention, checkpoint

    def forward(self, x: Tensor, condition: Tensor, tokens: Tokens | None = None) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return checkpoint(self._forward, x, condition, tokens, use_reentrant=False)
        return self._forward(x, condition, tokens)

    def _forward(self, x: Tensor, condition: Tensor, tokens: Tokens | None) -> Tensor:
        x = self.block(x, condition)
        return x if self.attention is None else self.attention(x, tokens)


def beside(x: Tensor, cond: dict[str, Tensor], channels: int) -> Tensor:
    """x (B, C, H, W) with the `channels` of `cond["low"]` after its own, where a network has any.

    Raises:
        ValueError: if they are missing, or of another shape.
    """
    if not channels:
        return x
    wanted, low = (len(x), channels, *x.shape[2:]), cond.get("low")
    if low is None or low.shape != wanted:
        found = "is missing" if low is None else f"is {tuple(low.shape)}"
        raise ValueError(f'cond["low"] {found}; this network needs a smaller picture as {wanted}')
    return torch.cat([x, low.to(x)], 1)


class Conditions(nn.Module):
    """Time, class, augmentation and noise of a smaller picture as the numbers that each block asks for, in one matrix product.

    Args:
        channels: number of sinusoidal features of the time.
        widths: how many numbers each block asks for.
        classes: number of classes; index `classes` stands for none.
        augment: whether there is a layer for what was done to the pictures (Karras et al. 2022, appendix F.2).
        width: size of the embedding that all are added up in; by default 4 * channels.
        low: whether there are layers for the noise in a smaller picture that is shown (Ho et al. 2021, cascades).
        pooled: numbers that stand for a whole text, if one is read.
    """

    def __init__(
        self,
        channels: int,
        widths: list[int],
        classes: int | None = None,
        augment: bool = False,
        width: int | None = None,
        low: bool = False,
        pooled: int | None = None,
    ) -> None:
        super().__init__()
        width = width or 4 * channels
        self.widths, self.classes = widths, classes
        self.time = TimeEmbedding(channels, width)
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.augment = nn.Linear(FEATURES, width, bias=False) if augment else None
        self.low = TimeEmbedding(channels, width) if low else None
        self.pooled = nn.Linear(pooled, width) if pooled else None
        self.project = nn.Linear(width, sum(widths))

    def forward(
        self, t: Tensor, cond: dict[str, Tensor] | None = None, pooled: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Times (B,), and "class" (B,), "augment" (B, 9) and "low_noise" (B,) of the condition, one vector for a text -> for each
        block (B, width).

        A class that is missing is none; augmentation that is missing is zeros, a picture as it is, and so is noise.
        """
        cond, embedding = cond or {}, self.time(t)
        if self.label is not None:
            label = cond.get("class")
            embedding = embedding + (self.label.weight[self.classes] if label is None else self.label(label))
        if self.augment is not None and "augment" in cond:
            embedding = embedding + self.augment(cond["augment"])
        if self.low is not None:
            embedding = embedding + self.low(cond["low_noise"] if "low_noise" in cond else torch.zeros_like(t))
        if self.pooled is not None and pooled is not None:
            embedding = embedding + self.pooled(pooled)
        return self.project(F.silu(embedding)).split(self.widths, 1)
