"""The network of TabDDPM."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import TimeEmbedding
from diffusionkit.tabular.masks import ColumnMasks

_NEVER = math.log(1e-30)
"""What the reference feeds for a level that is not taken: the logarithm of a clamped one-hot code."""


class TabDDPM(nn.Module):
    """Kotelnikov et al. 2023: one linear layer, time and class added, and a plain MLP without normalisation or skips.

    The first layer is that of the reference, which takes the numbers and the logarithm of the one-hot codes (0, or log 1e-30 for
    the levels not taken). It is computed from the codes, without the one-hot vectors, and has the same values and gradients:
    W log x = log(1e-30) (sum of W over all levels - sum of W over the levels taken).

    Deviations: the class is a column of the table, which is always given, so that its missing values are a class of their own;
    a code that is masked is fed as no level at all.

    Args:
        numbers: D, from the data.
        sizes: levels of each of the K codes, from the data.
        owners: which column each entry belongs to, from the data.
        target: which of the K codes is the class, from the data; its logits are zeros. None for a table without classes.
        layers: width of each hidden layer.
        dropout: after each of them.
        width: of the first layer's output, and of the embeddings of time and class.
        steps: length of the chain, in whose steps (from 0) the reference counts the time.
        masked: share of the rows that are trained with further columns given; 0 in the paper, whose network is told of none.
    """

    def __init__(
        self,
        numbers: int,
        sizes: list[int],
        owners: Mapping[str, Sequence[int]],
        target: int | None = None,
        layers: list[int] = [256, 1024, 1024, 1024, 1024, 256],  # noqa: B006  # never changed
        dropout: float = 0.0,
        width: int = 128,
        steps: int = 1000,
        masked: float = 0.0,
    ) -> None:
        super().__init__()
        if target is not None and not 0 <= target < len(sizes):
            raise ValueError(f"target is one of {len(sizes)} codes, not {target}")
        always = [] if target is None else [owners["cat"][target]]
        self.masks = ColumnMasks(owners, masked, always) if masked or always else None
        self.split, self.target, self.steps = numbers, target, steps
        self.register_buffer("sizes", torch.tensor(sizes, dtype=torch.long), persistent=False)
        free = self.sizes.clone()
        if target is not None:
            free[target] = 0
        self.levels, self.before = int(free.sum()), int(free[:target].sum()) if target is not None else 0
        self.register_buffer("first", free.cumsum(0) - free, persistent=False)
        self.entry = nn.Linear(numbers + self.levels, width)
        self.time = TimeEmbedding(width, width)
        self.classes = None if target is None else nn.Embedding(sizes[target], width)
        self.given = nn.Linear(numbers + len(sizes), width, bias=False) if masked else None
        hidden = [width, *layers]
        self.layers = nn.Sequential(
            *(nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout)) for a, b in itertools.pairwise(hidden))
        )
        self.head = nn.Linear(hidden[-1], numbers + self.levels)

    def forward(self, x: dict[str, Tensor], t: Tensor, cond: None = None, given: dict | None = None) -> dict:
        h = self._entries(x["num"], x["cat"]) + self.time((t * self.steps - 1) / 1000)
        if self.classes is not None:
            known = F.pad(self.classes.weight, (0, 0, 0, 1))  # masked: no class
            h = h + F.silu(F.embedding(x["cat"][:, self.target], known))
        if self.given is not None and given is not None:
            h = h + self.given(torch.cat([given["num"], given["cat"]], 1).to(h.dtype))
        y = self.head(self.layers(h))
        logits = y[:, self.split :]
        if self.target is not None:
            blank = logits.new_zeros(len(logits), len(self.classes.weight))
            logits = torch.cat([logits[:, : self.before], blank, logits[:, self.before :]], 1)
        return {"num": y[:, : self.split], "cat": logits}

    def _entries(self, numbers: Tensor, codes: Tensor) -> Tensor:
        """(B, D) and (B, K) -> (B, width)."""
        weight = self.entry.weight
        h = F.linear(numbers, weight[:, : self.split], self.entry.bias)
        if not self.levels:
            return h
        table = F.pad(weight[:, self.split :].T, (0, 0, 0, 1))  # one row of zeros: no level
        masked = codes == self.sizes
        rows = torch.where(masked, self.levels, codes + self.first)
        if self.target is not None:
            rows[:, self.target] = self.levels
        return h + _NEVER * (table.sum(0) - F.embedding_bag(rows, table, mode="sum"))
