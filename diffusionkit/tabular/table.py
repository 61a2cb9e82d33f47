"""Encoded rows in reach of the training loop."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusionkit.core.state import Batch, State

_TINY = 2.0**-53


class Table:
    """Rows in reach of the training loop, 4 bytes an entry; implements `diffusionkit.domain.Dataset`.

    Args:
        index: (N, D) int32, which rank interval each number has.
        codes: (N, K) int32.
        edges: (V, 2) float64 rank intervals.
        bounds: (V, 2) float32 normal numbers that these must not leave.
    """

    def __init__(self, index: Tensor, codes: Tensor, edges: Tensor, bounds: Tensor) -> None:
        self.index, self.codes, self.edges, self.bounds = index, codes, edges, bounds

    def __len__(self) -> int:
        return len(self.codes)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The rows at `indices`; ties are drawn by the generator, without one always the same way."""
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        return Batch(self.states(indices, generator))

    def states(self, rows: Any, generator: torch.Generator | None) -> State:
        """These rows as a state, ties drawn by the generator or by torch's own."""
        chosen = self.index[rows].long()
        low, high = self.edges[chosen].unbind(-1)
        draw = torch.rand(low.shape, generator=generator, dtype=torch.float64)
        position = torch.lerp(low, high, draw).clamp_(_TINY, 1 - _TINY)
        least, most = self.bounds[chosen].unbind(-1)
        return {"num": torch.special.ndtri(position).float().clamp(least, most), "cat": self.codes[rows].long()}
