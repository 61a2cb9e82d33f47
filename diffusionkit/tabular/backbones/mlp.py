"""A residual network over the whole row: the default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from diffusionkit.nn import TimeEmbedding
from diffusionkit.tabular.backbones.entries import Codes, Embedding, Numbers
from diffusionkit.tabular.masks import ColumnMasks


class ResidualMLP(nn.Module):
    """Embeddings of all entries are summed and pass through pre-norm residual blocks; one head gives all numbers and logits.

    What is right where nothing has been revealed is known: the frequencies of the training part. A network that is told no time is
    held to them in evaluation, its logits shifted by what it is off there; dropout and averaged weights leave such an error in
    every row.

    Args:
        numbers: D, from the data.
        sizes: levels of each of the K codes, from the data.
        owners: which column each entry belongs to, from the data.
        positions: place of each level in its column's order, from the data.
        shares: frequency of each level, from the data.
        width: of the hidden states.
        depth: number of blocks.
        expansion: width of a block's inner layer in units of `width`.
        dropout: within the blocks.
        harmonics: waves by which ordered levels share what is learned.
        embedding: of the numbers: linear, periodic or piecewise.
        features: frequencies or intervals of that embedding.
        timed: tell the network t; masked codes alone tell it themselves.
        masked: share of the rows that are trained with some columns given.
    """

    def __init__(
        self,
        numbers: int,
        sizes: list[int],
        owners: Mapping[str, Sequence[int]],
        positions: Sequence[float],
        shares: Sequence[float],
        width: int = 384,
        depth: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.0,
        harmonics: int = 8,
        embedding: Embedding = "periodic",
        features: int = 4,
        timed: bool = True,
        masked: float = 0.5,
    ) -> None:
        super().__init__()
        self.masks = ColumnMasks(owners, masked, plain=not (numbers or timed))
        self.codes = Codes(sizes, width, torch.tensor(positions), torch.tensor(shares), harmonics)
        self.register_buffer("hidden", torch.tensor(sizes, dtype=torch.long), persistent=False)
        self.register_buffer("log_shares", torch.tensor(shares).clamp(min=1e-6).log(), persistent=False)
        self.numbers = Numbers(numbers, embedding, features)
        self.numbers_in = nn.Linear(numbers * self.numbers.size, width) if numbers else None
        self.given_in = nn.Linear(numbers + len(sizes), width, bias=False)
        self.time = TimeEmbedding(64, 128) if timed else None
        self.blocks = nn.ModuleList(
            Block(width, int(expansion * width), dropout, 128 if timed else 0) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.numbers_out = nn.Linear(width, numbers) if numbers else None
        for layer in (self.given_in, self.numbers_out):
            for parameter in () if layer is None else layer.parameters():
                nn.init.zeros_(parameter)

    def forward(self, x: dict[str, Tensor], t: Tensor, cond: None = None, given: dict | None = None) -> dict:
        output = self._output(x, t, given)
        if self.masks.plain and not self.training:
            nothing = {"num": x["num"][:1], "cat": self.hidden[None]}
            output["cat"] = output["cat"] + (self.log_shares - self._output(nothing, t[:1], None)["cat"])
        return output

    def _output(self, x: dict[str, Tensor], t: Tensor, given: dict | None) -> dict:
        h = self.codes.summed(x["cat"])
        if self.numbers_in is not None:
            h = h + self.numbers_in(self.numbers(x["num"]).flatten(1))
        if given is not None:
            h = h + self.given_in(torch.cat([given["num"], given["cat"]], 1).to(h.dtype))
        time = None if self.time is None else nn.functional.silu(self.time(t))
        for block in self.blocks:
            h = block(h, time)
        h = self.norm(h)
        numbers = x["num"] if self.numbers_out is None else self.numbers_out(h)
        return {"num": numbers, "cat": self.codes.logits(h)}


class Block(nn.Module):
    """h + W2 SiLU(W1 norm(h)), with scale and shift from the time; it starts as the identity."""

    def __init__(self, width: int, inner: int, dropout: float, time: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.modulation = nn.Linear(time, 2 * width) if time else None
        nn.init.zeros_(self.down.weight)
        if self.modulation is not None:
            nn.init.zeros_(self.modulation.weight)
            nn.init.zeros_(self.modulation.bias)

    def forward(self, h: Tensor, time: Tensor | None) -> Tensor:
        y = self.norm(h)
        if self.modulation is not None:
            scale, shift = self.modulation(time).chunk(2, 1)
            y = torch.addcmul(y + shift, y, scale)
        return h + self.down(self.dropout(nn.functional.silu(self.up(y))))
