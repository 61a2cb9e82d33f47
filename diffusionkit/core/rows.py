"""Ragged batches, flat as in PyTorch Geometric: the only place that knows of them.

A ragged tensor has shape (N, ...): the rows of all samples one after another, in any order. `Rows` says which sample each
row belongs to. Dense tensors have shape (B, ...) and `rows` is None; the helpers below treat both alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which sample each of N rows belongs to.

    Args:
        index: (N,) integers in [0, size), in any order.
        size: the number of samples B; a sample may be without rows.
    """

    index: Tensor
    size: int

    @classmethod
    def from_sizes(cls, sizes: Tensor) -> Rows:
        """Rows of samples that follow one another, from the (B,) number of rows of each."""
        return cls(torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes), len(sizes))

    def counts(self) -> Tensor:
        """(B,) number of rows of each sample."""
        return torch.bincount(self.index, minlength=self.size)

    def spread(self, value: Tensor) -> Tensor:
        """A per-sample value (B, ...) repeated for each row: (N, ...)."""
        return value[self.index]

    def pool(self, x: Tensor) -> Tensor:
        """The sum of x (N, ...) over the rows of each sample: (B, ...)."""
        return x.new_zeros(self.size, *x.shape[1:]).index_add_(0, self.index, x)

    def repeat(self, times: int) -> Rows:
        """The rows of this batch put `times` after one another, as `torch.cat` does with its states."""
        shift = torch.arange(times, device=self.index.device).repeat_interleave(len(self.index)) * self.size
        return Rows(self.index.repeat(times) + shift, self.size * times)

    def to(self, device: torch.device | str) -> Rows:
        return Rows(self.index.to(device), self.size)


def spread(value: Tensor, like: Tensor, rows: Rows | None = None) -> Tensor:
    """A per-sample value (B,) shaped so that it multiplies `like`; a value without dimensions stays as it is."""
    if value.ndim == 0:
        return value
    if rows is not None:
        value = rows.spread(value)
    return value.reshape(-1, *[1] * (like.ndim - 1))


def mean(x: Tensor, rows: Rows | None = None, keep: Tensor | None = None) -> Tensor:
    """The mean of x over everything but samples, where `keep` holds: (B,). A sample that keeps nothing has mean 0."""
    return _sum(x, rows, keep) / _sum(torch.ones_like(x), rows, keep).clamp(min=1)


def total(x: Tensor, rows: Rows | None = None, keep: Tensor | None = None) -> Tensor:
    """The sum of x over everything but samples, where `keep` holds: (B,)."""
    return _sum(x, rows, keep)


def _sum(x: Tensor, rows: Rows | None, keep: Tensor | None) -> Tensor:
    if keep is not None:
        x = torch.where(keep, x, torch.zeros((), dtype=x.dtype, device=x.device))
    x = x.flatten(1).sum(1) if x.ndim > 1 else x
    return x if rows is None else rows.pool(x)


def center(x: Tensor, rows: Rows | None = None) -> Tensor:
    """x with the mean over each sample's rows removed; without `rows`, over the second dimension of (B, n, d)."""
    if rows is None:
        return x - x.mean(1, keepdim=True)
    count = rows.counts().clamp(min=1).to(x.dtype)
    return x - rows.spread(rows.pool(x) / count.reshape(-1, *[1] * (x.ndim - 1)))


def batch_size(x: Any, rows: Any = None) -> int:
    """How many samples a state holds."""
    for entry in rows.values() if isinstance(rows, dict) else [rows]:
        if entry is not None:
            return entry.size
    while isinstance(x, dict):
        x = next(iter(x.values()))
    return len(x)


def repeat_rows(rows: Any, times: int) -> Any:
    """`Rows.repeat` for one `Rows`, a dict of them, or None."""
    if isinstance(rows, dict):
        return {name: repeat_rows(entry, times) for name, entry in rows.items()}
    return None if rows is None else rows.repeat(times)
