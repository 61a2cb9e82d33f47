"""An encoder reads the given columns, a decoder the others: the network of MTabGen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusionkit.nn import TimeEmbedding
from diffusionkit.tabular.backbones.entries import Embedding, Tokens, joined
from diffusionkit.tabular.backbones.transformer import TIME, Block
from diffusionkit.tabular.masks import ColumnMasks


class MTabGen(nn.Module):
    """Villaizan-Vallelado et al. 2025: noisy tokens ask, tokens of the given columns answer.

    Masks of columns, drawn anew for each row, part the entries: the encoder attends among those that are given, the decoder among
    those that are not, and to the encoder's result. So one network draws whole rows and fills in any holes. What the encoder
    reads knows no noise, and it is not told the time.

    Args:
        numbers: D, from the data.
        sizes: levels of each of the K codes, from the data.
        owners: which column each entry belongs to, from the data.
        positions: place of each level in its column's order, from the data.
        shares: frequency of each level, from the data.
        width: of the tokens.
        depth: number of blocks in the encoder, and in the decoder.
        heads: of the attention; must divide `width`.
        expansion: width of a block's inner layer in units of `width`.
        dropout: within the blocks.
        harmonics: waves by which ordered levels share what is learned; 0 leaves a straight line.
        embedding: of the numbers: linear, periodic or piecewise.
        features: frequencies or intervals of that embedding.
        timed: tell the decoder t; masked codes alone tell it themselves.
        masked: share of the rows that are trained with some columns given.
    """

    def __init__(
        self,
        numbers: int,
        sizes: list[int],
        owners: Mapping[str, Sequence[int]],
        positions: Sequence[float],
        shares: Sequence[float],
        width: int = 64,
        depth: int = 3,
        heads: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.0,
        harmonics: int = 8,
        embedding: Embedding = "periodic",
        features: int = 4,
        timed: bool = True,
        masked: float = 0.8,
    ) -> None:
        super().__init__()
        self.masks = ColumnMasks(owners, masked)
        self.tokens = Tokens(numbers, sizes, positions, shares, width, harmonics, embedding, features)
        # Something to attend to where no column is given.
        self.nothing = nn.Parameter(torch.randn(width))
        self.time = TimeEmbedding(64, TIME) if timed else None
        inner = int(expansion * width)
        self.encoder = nn.ModuleList(Block(width, heads, inner, dropout) for _ in range(depth))
        self.between = nn.LayerNorm(width)
        self.decoder = nn.ModuleList(
            Block(width, heads, inner, dropout, TIME if timed else 0, context=True) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: dict[str, Tensor], t: Tensor, cond: None = None, given: dict | None = None) -> dict:
        time = None if self.time is None else nn.functional.silu(self.time(t))
        known = joined(given)
        h = self.tokens(x, known)
        if known is None:
            known = torch.zeros(h.shape[:2], dtype=torch.bool, device=h.device)
        readable = nn.functional.pad(known, (0, 1), value=True)
        context = torch.cat([h, self.nothing.expand(len(h), 1, -1)], 1)
        for block in self.encoder:
            context = block(context, mask=readable)
        context = self.between(context)
        noisy = ~known | known.all(
            1, keepdim=True
        )  # where all is given it does not matter, but there must be something
        for block in self.decoder:
            h = block(h, time, noisy, context, readable)
        return self.tokens.outputs(self.norm(h))
