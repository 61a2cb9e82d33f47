"""Batches without end, each a pure function of its running number: what is needed to resume a run exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from diffusionkit.core.state import Batch, State, tree_leaves, tree_map
from diffusionkit.domain import Dataset


def mix(*numbers: int) -> int:
    """One seed in [0, 2^63) from several integers; nearby integers give unrelated seeds (splitmix64)."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        state = ((state ^ number) + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1


class Tensors:
    """A state held in memory as a data set: a tensor or a dict of tensors, and a condition of the same length or none."""

    def __init__(self, x: State, cond: Any = None) -> None:
        self.x, self.cond = x, cond
        lengths = {len(leaf) for leaf in [*tree_leaves(x), *tree_leaves(cond)]}
        if len(lengths) != 1:
            raise ValueError(f"data and condition must be of one length, not {sorted(lengths)}")
        self._length = lengths.pop()

    def __len__(self) -> int:
        return self._length

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        return Batch(tree_map(lambda v: v[indices], self.x), tree_map(lambda v: v[indices], self.cond))


def as_dataset(data: Any) -> Dataset:
    """`data` itself if it has `batch`, otherwise a tensor, a dict of tensors or a pair (x, cond) as a data set."""
    if hasattr(data, "batch") and not isinstance(data, tuple):
        return data
    return Tensors(*data) if isinstance(data, tuple) else Tensors(data)


class Loader:
    """Endless batches; the k-th is a pure function of (seed, k, rank, world).

    The stream is one permutation of the data after another; the devices take turns, so that an epoch is shared among
    them, and a batch may reach over the end of an epoch.

    Args:
        dataset: what is read; `dataset.batch(indices, generator)` gets a generator seeded for this batch.
        batch_size: samples in a batch, of each device.
        seed: decides the order of the data and the augmentation.
        start: the number of the first batch.
        rank: this device's number among `world`.
        world: how many devices share the data.
        ahead: batches a thread prepares in advance; 0 prepares each when it is asked for.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        ahead: int = 0,
    ) -> None:
        if not len(dataset):
            raise ValueError("the data set must not be empty")
        self.dataset, self.batch_size, self.seed, self.start = dataset, batch_size, seed, start
        self.rank, self.world, self.ahead = rank, world, ahead
        self._order: tuple[int, Tensor] = (-1, torch.empty(0, dtype=torch.long))

    def indices(self, k: int) -> Tensor:
        """(batch_size,) the samples of the k-th batch."""
        position = (k * self.world + self.rank) * self.batch_size
        parts, missing = [], self.batch_size
        while missing:
            epoch, first = divmod(position, len(self.dataset))
            part = self._permutation(epoch)[first : first + missing]
            parts.append(part)
            position, missing = position + len(part), missing - len(part)
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def batch(self, k: int) -> Batch:
        """The k-th batch."""
        generator = torch.Generator().manual_seed(mix(self.seed, k, self.rank, 1))
        return self.dataset.batch(self.indices(k), generator)

    def __iter__(self) -> Iterator[Batch]:
        k = self.start
        if not self.ahead:
            while True:
                yield self.batch(k)
                k += 1
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader") as thread:
            waiting = deque(thread.submit(self.batch, k + i) for i in range(self.ahead))
            while True:
                yield waiting.popleft().result()
                waiting.append(thread.submit(self.batch, k + self.ahead))
                k += 1

    def _permutation(self, epoch: int) -> Tensor:
        if self._order[0] != epoch:
            generator = torch.Generator().manual_seed(mix(self.seed, epoch, 0))
            self._order = (epoch, torch.randperm(len(self.dataset), generator=generator))
        return self._order[1]
