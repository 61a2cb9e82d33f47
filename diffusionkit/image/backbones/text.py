"""Text as a condition: a small transformer that reads it, and what stands for no text at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffusionkit.nn import Attention

PAD, START, END = 0, 1, 2
"""Ids with a meaning of their own; the empty text is START, END."""


class Tokens(NamedTuple):
    """What attention looks at: (B, L, width), and (B, L), true where there is a token; None for everywhere."""

    values: Tensor
    mask: Tensor | None = None


class TextEncoder(nn.Module):
    """A transformer over the ids of a byte-pair vocabulary, trained with the network that it speaks to.

    Every token sees every other one of its text. Padding changes nothing.

    Args:
        vocabulary: number of ids; 0 is padding, 1 starts and 2 ends a text.
        length: the most ids in a text, both ends included.
        width: numbers per token; `heads` divides it.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(self, vocabulary: int, length: int = 32, width: int = 128, depth: int = 2, heads: int = 4) -> None:
        super().__init__()
        named = {"vocabulary": (vocabulary, 4), "text_length": (length, 3), "text_width": (width, 1)}
        for name, (value, least) in {**named, "text_depth": (depth, 0), "text_heads": (heads, 1)}.items():
            if value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if width % heads:
            raise ValueError(f"text_heads must divide text_width, {width}, which {heads} does not")
        self.width = width
        self.embed = nn.Embedding(vocabulary, width)
        self.places = nn.Parameter(torch.zeros(length, width))
        self.blocks = nn.ModuleList(TextBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        for values in (self.embed.weight, self.places):
            nn.init.normal_(values, std=0.02)

    def forward(self, ids: Tensor, weights: Tensor | None = None) -> tuple[Tokens, Tensor]:
        """Ids (B, L), padded with 0, and how much each counts (B, L) -> tokens (B, L, width), and their means (B, width).

        A weight multiplies how far a token is from the mean of the empty text: 0 says nothing, 1 is as it stands.
        """
        mask = ids != PAD
        values = self._read(ids, mask)
        if weights is not None:
            nothing = ids.new_tensor([[START, END]])
            values = torch.lerp(self._read(nothing, nothing != PAD).mean(1, keepdim=True), values, weights[..., None])
        return Tokens(values, mask), average(values, mask)

    def _read(self, ids: Tensor, mask: Tensor) -> Tensor:
        h = self.embed(ids) + self.places[: ids.shape[1]]
        for block in self.blocks:
            h = block(h, mask)
        return self.norm(h)


class TextBlock(nn.Module):
    """Self-attention and a hidden layer of four times the width, each a residual branch with its norm before it."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        h = h + self.attention(self.norm1(h), mask=mask)
        return h + self.mlp(self.norm2(h))


def average(values: Tensor, mask: Tensor) -> Tensor:
    """(B, L, width) and (B, L) -> (B, width), the mean of the tokens that are there."""
    kept = mask[..., None].to(values.dtype)
    return (values * kept).sum(1) / kept.sum(1).clamp(min=1)


def read(
    encoder: TextEncoder | None, width: int | None, cond: Mapping[str, Tensor], like: Tensor
) -> tuple[Tokens | None, Tensor | None]:
    """The tokens that a network attends to, and one vector for all of them: read by its encoder, or given as they are.

    Args:
        encoder: of the network, if it reads "text" (B, L) itself, with "text_weights" (B, L).
        width: of the tokens; None for a network without.
        cond: else holds "tokens" (B, L, width), "tokens_mask" (B, L) and "pooled"; what is missing is the empty text for an
            encoder, else zeros.
        like: the pictures.
    """
    if encoder is not None:
        ids = cond.get("text")
        if ids is None:
            ids = torch.tensor([[START, END]], device=like.device).expand(len(like), -1)
        return encoder(ids, cond.get("text_weights"))
    tokens, mask = cond.get("tokens"), cond.get("tokens_mask")
    if width is None:
        return None, None
    if tokens is None:
        return Tokens(like.new_zeros(len(like), 1, width)), None
    if mask is None:
        return Tokens(tokens), cond.get("pooled")
    # A text without tokens has zeros to attend to.
    return Tokens(tokens * mask[..., None], mask | ~mask.any(1, keepdim=True)), cond.get("pooled")


def without(cond: Mapping[str, Tensor], drop: Tensor) -> dict[str, Tensor]:
    """What a condition says in words, with that of the samples in `drop` (B,) replaced by no words at all.

    Where the condition has an entry "negative", a condition of the same kind, that is put in their place instead.
    """
    negative, kept = cond.get("negative") or {}, {}
    for name in ("text", "text_weights", "tokens", "tokens_mask", "pooled"):
        if name not in cond or (name == "tokens_mask" and not negative):
            continue
        value = cond[name]
        other = negative[name] if negative else _nothing(name, value)
        kept[name] = torch.where(drop.reshape(-1, *[1] * (value.ndim - 1)), other, value)
    return kept


def _nothing(name: str, like: Tensor) -> Tensor:
    if name != "text":
        return torch.full_like(like[:1], float(name == "text_weights"))
    none = torch.full_like(like[:1], PAD)
    none[:, 0], none[:, 1] = START, END
    return none


__all__ = ["END", "PAD", "START", "TextEncoder", "Tokens", "average", "read", "without"]
