"""How numbers and codes get into a network and out of it: all columns at once, memory linear in the number of levels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

Embedding = Literal["linear", "periodic", "piecewise"]


class Codes(nn.Module):
    """Embeddings of the codes of K columns, and logits of all their levels.

    Every level has vectors of its own. Where levels have an order, those of a column also share weights that vary smoothly along
    it, so that what is learned of one level is learned of its neighbours; both are added up before they are used.

    Args:
        sizes: number of levels of each of the K entries; the code one beyond the last is the mask's.
        width: of the vectors.
        positions: where each of the sum(sizes) levels stands in its column's order, in (0, 1), or -1 for none.
        shares: how frequent each level is, in (0, 1]; the logits start there.
        harmonics: how many waves the smooth part has.
        scale: standard deviation of the vectors on the way in; by default such that their sum over the entries has one of 1.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        width: int,
        positions: Tensor,
        shares: Tensor,
        harmonics: int = 8,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        count = torch.tensor(list(sizes), dtype=torch.long)
        # One row more for each entry on the way in: the mask.
        self.register_buffer("first", (count + 1).cumsum(0) - (count + 1), persistent=False)
        entry = torch.repeat_interleave(torch.arange(len(sizes)), count)
        row_in = torch.arange(len(entry)) + entry
        levels, scale = len(entry), scale or max(len(sizes), 1) ** -0.5
        self.table = nn.Parameter(torch.randn(levels + len(sizes), width) * scale)
        self.head = nn.Parameter(torch.zeros(levels, width))
        self.bias = nn.Parameter(shares.clamp(min=1e-6).log())
        self.smooth_in = Smooth(entry, positions, row_in, width, harmonics, scale)
        self.smooth_out = Smooth(entry, positions, torch.arange(levels), width, harmonics, 0.0)
        self.padded = Padded(count)

    def _index(self, codes: Tensor) -> Tensor:
        return codes + self.first

    def summed(self, codes: Tensor) -> Tensor:
        """(B, K) codes -> (B, width), the sum over the entries."""
        table = self.smooth_in(self.table)
        if not codes.shape[1]:
            return table.new_zeros(len(codes), table.shape[1])
        return nn.functional.embedding_bag(self._index(codes), table, mode="sum")

    def tokens(self, codes: Tensor) -> Tensor:
        """(B, K) codes -> (B, K, width)."""
        return nn.functional.embedding(self._index(codes), self.smooth_in(self.table))

    def logits(self, h: Tensor) -> Tensor:
        """(B, width) -> (B, sum(sizes))."""
        return nn.functional.linear(h, self.smooth_out(self.head), self.bias)

    def token_logits(self, h: Tensor) -> Tensor:
        """(B, K, width), each entry's logits from its own token -> (B, sum(sizes))."""
        return self.padded.products(h, self.smooth_out(self.head)) + self.bias


class Padded(nn.Module):
    """Rows of a table in blocks, one for each entry, multiplied block by block without a loop over the entries.

    Entries of similar size are stacked, each padded to the next power of two: at most twice the rows, however unequal the sizes.

    Args:
        sizes: (K,) rows of each block.
    """

    def __init__(self, sizes: Tensor) -> None:
        super().__init__()
        first = sizes.cumsum(0) - sizes
        longest = 2 ** sizes.clamp(min=1).double().log2().ceil().long()
        self.stacks, places, start = 0, torch.zeros(int(sizes.sum()), dtype=torch.long), 0
        for length in torch.unique(longest).tolist():
            entries = (longest == length).nonzero()[:, 0]
            within = torch.arange(length).expand(len(entries), -1)
            real = within < sizes[entries, None]
            rows = torch.where(real, first[entries, None] + within, first[entries, None])
            places[rows[real]] = start + real.flatten().nonzero()[:, 0]
            start += rows.numel()
            self.register_buffer(f"entries{self.stacks}", entries, persistent=False)
            self.register_buffer(f"rows{self.stacks}", rows, persistent=False)
            self.stacks += 1
        self.register_buffer("places", places, persistent=False)

    def stacked(self) -> list[tuple[Tensor, Tensor]]:
        """For each stack the numbers of its entries (k,) and those of the rows that they hold (k, length)."""
        return [(getattr(self, f"entries{i}"), getattr(self, f"rows{i}")) for i in range(self.stacks)]

    def products(self, h: Tensor, table: Tensor) -> Tensor:
        """(B, K, width) and a table (sum(sizes), width) -> (B, sum(sizes)): each row times its own entry's vector."""
        parts = [h.new_zeros(len(h), 0)]
        for entries, rows in self.stacked():
            chosen, blocks = h.index_select(1, entries), table.index_select(0, rows.flatten()).view(*rows.shape, -1)
            parts.append(torch.einsum("bkw,ksw->bks", chosen, blocks).flatten(1))
        return torch.cat(parts, 1).index_select(1, self.places)

    def combinations(self, features: list[Tensor], weights: Tensor) -> Tensor:
        """For each stack features (k, length, F), and weights (K, F, width) -> (sum(sizes), width)."""
        parts = [weights.new_zeros(0, weights.shape[2])]
        for (entries, _), block in zip(self.stacked(), features, strict=True):
            parts.append(torch.bmm(block, weights.index_select(0, entries)).flatten(0, 1))
        return torch.cat(parts).index_select(0, self.places)


class Smooth(nn.Module):
    """Adds to the rows of a table, where they have a place in an order, weights that vary smoothly along it.

    Args:
        entry: (L,) which entry each level belongs to.
        positions: (L,) its place in (0, 1), or -1.
        rows: (L,) its row in the table.
        width: of the table.
        harmonics: number of waves, besides a straight line.
        scale: standard deviation of what is added at first.
    """

    def __init__(
        self, entry: Tensor, positions: Tensor, rows: Tensor, width: int, harmonics: int, scale: float
    ) -> None:
        super().__init__()
        ordered = positions >= 0
        columns, count = torch.unique(entry[ordered], return_counts=True)
        features = waves(positions[ordered], harmonics)
        self.padded = Padded(count)
        for i, (_, places) in enumerate(self.padded.stacked()):
            self.register_buffer(f"basis{i}", features[places], persistent=False)
        self.register_buffer("rows", rows[ordered], persistent=False)
        deviation = scale * features.shape[1] ** -0.5
        self.weight = nn.Parameter(torch.randn(len(columns), features.shape[1], width) * deviation)

    def forward(self, table: Tensor) -> Tensor:
        if not len(self.rows):
            return table
        basis = [getattr(self, f"basis{i}") for i in range(self.padded.stacks)]
        return table.index_add(0, self.rows, self.padded.combinations(basis, self.weight))


def waves(u: Tensor, harmonics: int) -> Tensor:
    """(L,) places in (0, 1) -> (L, 1 + 2 harmonics): the normal quantile, and sines and cosines that fade as 1 / sqrt(k)."""
    k = torch.arange(1, harmonics + 1, dtype=u.dtype)
    angles = math.pi * u[:, None] * k
    straight = torch.special.ndtri(u.clamp(1e-4, 1 - 1e-4))[:, None]
    return torch.cat([straight, angles.sin() / k.sqrt(), angles.cos() / k.sqrt()], 1).float()


class Numbers(nn.Module):
    """Features of D numbers, each for itself: (B, D) -> (B, D, size).

    Args:
        numbers: D.
        kind: `linear` gives the number itself; `periodic` adds sines and cosines at learned frequencies; `piecewise` gives
            how far the number has come through each of `features` intervals of equal mass (Gorishniy et al. 2022, eq. 1 and 2).
        features: how many frequencies or intervals.
    """

    def __init__(self, numbers: int, kind: Embedding = "periodic", features: int = 4) -> None:
        super().__init__()
        if kind not in ("linear", "periodic", "piecewise"):
            raise ValueError(f"embedding must be linear, periodic or piecewise, not {kind!r}")
        self.kind = kind
        self.size = {"linear": 1, "periodic": 1 + 2 * features, "piecewise": 1 + features}[kind]
        if kind == "periodic":
            self.frequency = nn.Parameter(torch.arange(1, features + 1.0).repeat(numbers, 1))
        if kind == "piecewise":
            edges = torch.special.ndtri(torch.linspace(0.01, 0.99, features + 1))
            self.register_buffer("low", edges[:-1], persistent=False)
            self.register_buffer("length", edges.diff(), persistent=False)

    def forward(self, z: Tensor) -> Tensor:
        z = z.unsqueeze(-1)
        if self.kind == "linear":
            return z
        if self.kind == "periodic":
            angles = z * self.frequency
            return torch.cat([z, angles.sin(), angles.cos()], -1)
        return torch.cat([z, ((z - self.low) / self.length).clamp(0, 1)], -1)


class Tokens(nn.Module):
    """Every entry of a row as one token, and tokens as numbers and logits: (B, D + K, width), numbers first.

    Args:
        numbers: D.
        sizes: levels of each of the K codes.
        positions: place of each level in its column's order.
        shares: frequency of each level.
        width: of the tokens.
        harmonics: waves by which ordered levels share what is learned.
        embedding: of the numbers.
        features: frequencies or intervals of that embedding.
    """

    def __init__(
        self,
        numbers: int,
        sizes: Sequence[int],
        positions: Sequence[float],
        shares: Sequence[float],
        width: int,
        harmonics: int = 8,
        embedding: Embedding = "periodic",
        features: int = 4,
    ) -> None:
        super().__init__()
        self.split, self.count = numbers, numbers + len(sizes)
        self.codes = Codes(sizes, width, torch.tensor(positions), torch.tensor(shares), harmonics, scale=1.0)
        self.numbers = Numbers(numbers, embedding, features)
        self.numbers_in = nn.Parameter(torch.randn(numbers, self.numbers.size, width) * self.numbers.size**-0.5)
        self.column = nn.Parameter(torch.randn(self.count, width))
        self.given = nn.Parameter(torch.zeros(width))
        self.numbers_out = nn.Parameter(torch.zeros(numbers, width))
        self.numbers_bias = nn.Parameter(torch.zeros(numbers))

    def forward(self, x: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        """Entries, and which of them are given (B, D + K) -> tokens."""
        numbers = torch.einsum("bds,dsw->bdw", self.numbers(x["num"]), self.numbers_in)
        h = torch.cat([numbers, self.codes.tokens(x["cat"])], 1) + self.column
        return h if given is None else h + given.unsqueeze(-1).to(h.dtype) * self.given

    def outputs(self, h: Tensor) -> dict[str, Tensor]:
        """Tokens -> what the network says of each entry."""
        numbers = (h[:, : self.split] * self.numbers_out).sum(2) + self.numbers_bias
        return {"num": numbers, "cat": self.codes.token_logits(h[:, self.split :])}


def joined(given: dict[str, Tensor] | None) -> Tensor | None:
    """The mask of all entries, numbers first: (B, D + K)."""
    return None if given is None else torch.cat([given["num"], given["cat"]], 1)
