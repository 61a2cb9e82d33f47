"""A transformer over the columns: every entry of a row is a token."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusionkit.nn import Attention, TimeEmbedding
from diffusionkit.tabular.backbones.entries import Embedding, Tokens, joined
from diffusionkit.tabular.masks import ColumnMasks

TIME = 128
"""Width of the embedding of the time in the blocks."""


class ColumnTransformer(nn.Module):
    """Pre-norm attention among the entries; each token gives its own number or logits.

    With `mixer` an MLP over all tokens at once stands between two halves of the transformer and alone is told the time. With
    width 4, depth 4, heads 1, expansion 32, features of the numbers linear, harmonics 0, masked 0 and mixer 1024 this is the
    network of TabDiff (Shi et al. 2025), but for the linear layer after attention, a norm ahead of the first one, and logits
    that start at the logarithm of the frequencies.

    Args:
        numbers: D, from the data.
        sizes: levels of each of the K codes, from the data.
        owners: which column each entry belongs to, from the data.
        positions: place of each level in its column's order, from the data.
        shares: frequency of each level, from the data.
        width: of the tokens.
        depth: number of blocks.
        heads: of the attention; must divide `width`.
        expansion: width of a block's inner layer in units of `width`.
        dropout: within the blocks.
        harmonics: waves by which ordered levels share what is learned; 0 leaves a straight line.
        embedding: of the numbers: linear, periodic or piecewise.
        features: frequencies or intervals of that embedding.
        timed: tell the network t; masked codes alone tell it themselves.
        masked: share of the rows that are trained with some columns given.
        mixer: width of the MLP between the halves; 0 for none.
    """

    def __init__(
        self,
        numbers: int,
        sizes: list[int],
        owners: Mapping[str, Sequence[int]],
        positions: Sequence[float],
        shares: Sequence[float],
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.0,
        harmonics: int = 8,
        embedding: Embedding = "periodic",
        features: int = 4,
        timed: bool = True,
        masked: float = 0.5,
        mixer: int = 0,
    ) -> None:
        super().__init__()
        if mixer and depth % 2:
            raise ValueError(f"depth must be even where a mixer stands between two halves, not {depth}")
        self.masks = ColumnMasks(owners, masked) if masked else None
        self.tokens = Tokens(numbers, sizes, positions, shares, width, harmonics, embedding, features)
        self.time = TimeEmbedding(64, TIME) if timed else None
        time, inner = TIME if timed else 0, int(expansion * width)
        own = 0 if mixer else time
        self.blocks = nn.ModuleList(Block(width, heads, inner, dropout, own) for _ in range(depth))
        self.mixer = Mixer(self.tokens.count * width, mixer, time) if mixer else None
        self.norm = nn.Identity() if mixer else nn.LayerNorm(width)

    def forward(self, x: dict[str, Tensor], t: Tensor, cond: None = None, given: dict | None = None) -> dict:
        time = None if self.time is None else nn.functional.silu(self.time(t))
        h = self.tokens(x, joined(given))
        for i, block in enumerate(self.blocks):
            if self.mixer is not None and 2 * i == len(self.blocks):
                h = self.mixer(h, time)
            h = block(h, time)
        return self.tokens.outputs(self.norm(h))


class Block(nn.Module):
    """Attention among the tokens, attention to others if there is a context, and an MLP; it starts as the identity.

    Args:
        width: of the tokens.
        heads: of the attention.
        inner: width of the MLP's inner layer.
        dropout: within the MLP.
        time: width of the embedding that scales and shifts the norms; 0 for none.
        context: attend to other tokens as well, of the same width.
    """

    def __init__(
        self, width: int, heads: int, inner: int, dropout: float = 0.0, time: int = 0, context: bool = False
    ) -> None:
        super().__init__()
        self.norm, self.attention = TimedNorm(width, time), Attention(width, heads, zero=True)
        self.cross_norm = TimedNorm(width, time) if context else None
        self.cross = Attention(width, heads, context=width, zero=True) if context else None
        self.mlp_norm = TimedNorm(width, time)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.SiLU(), nn.Dropout(dropout), nn.Linear(inner, width))
        nn.init.zeros_(self.mlp[-1].weight)
        nn.init.zeros_(self.mlp[-1].bias)

    def forward(
        self,
        h: Tensor,
        time: Tensor | None = None,
        mask: Tensor | None = None,
        context: Tensor | None = None,
        context_mask: Tensor | None = None,
    ) -> Tensor:
        """(B, L, width) and time (B, time) -> (B, L, width); masks (B, L) hold where a token may be attended to."""
        h = h + self.attention(self.norm(h, time), mask=mask)
        if self.cross is not None:
            h = h + self.cross(self.cross_norm(h, time), context, context_mask)
        return h + self.mlp(self.mlp_norm(h, time))


class TimedNorm(nn.Module):
    """Layer normalisation of tokens (B, L, width), with scale and shift from the time if it has a width."""

    def __init__(self, width: int, time: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.modulation = nn.Linear(time, 2 * width) if time else None
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor | None) -> Tensor:
        h = self.norm(h)
        if self.modulation is None:
            return h
        scale, shift = self.modulation(time).unsqueeze(1).chunk(2, 2)
        return torch.addcmul(h + shift, h, scale)


class Mixer(nn.Module):
    """An MLP over all tokens of a row at once: TabDDPM's with inner layers of twice the width and SiLU (Shi et al. 2025).

    Args:
        size: numbers in all tokens of a row.
        width: of the first and the last hidden layer.
        time: width of the embedding of the time; 0 for none.
    """

    def __init__(self, size: int, width: int, time: int) -> None:
        super().__init__()
        self.entry = nn.Linear(size, width)
        self.time = nn.Linear(time, width) if time else None
        hidden = [width, 2 * width, 2 * width, width]
        layers = [nn.Sequential(nn.Linear(a, b), nn.SiLU()) for a, b in itertools.pairwise(hidden)]
        self.layers = nn.Sequential(*layers, nn.Linear(width, size))

    def forward(self, h: Tensor, time: Tensor | None) -> Tensor:
        """(B, L, w) -> (B, L, w)."""
        y = self.entry(h.flatten(1))
        return self.layers(y if self.time is None else y + self.time(time)).view_as(h)
