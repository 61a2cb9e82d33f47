"""Which atoms hear which: the edges of ragged graphs, and sums over those that an atom receives."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from diffusionkit.core.rows import Rows

ROOM = 2**18
"""Numbers in a tensor that is worked on at a time on a CPU: 1024 edges of width 256, 1 MB, which stay in the core's own cache."""


class Stretch(NamedTuple):
    """Atoms first ... last - 1, which receive `degree` edges each: edges start ... stop - 1."""

    first: int
    last: int
    start: int
    stop: int
    degree: int


@dataclass(frozen=True)
class Edges:
    """Edges i <- j among the atoms of a whole batch: atom i receives what the edge carries.

    Args:
        i: (E,) receiving atom of each edge, in ascending order.
        j: (E,) sending atom.
        degree: (N,) how many edges each atom receives.
    """

    i: Tensor
    j: Tensor
    degree: Tensor

    @classmethod
    def complete(cls, rows: Rows) -> Edges:
        """All edges between two atoms of the same molecule, for atoms whose molecules follow one another."""
        counts, index = rows.counts(), rows.index
        atoms, degree = torch.arange(len(index), device=index.device), counts[index] - 1
        i = torch.repeat_interleave(atoms, degree)
        place = torch.arange(len(i), device=index.device) - (degree.cumsum(0) - degree)[i]
        j = (counts.cumsum(0) - counts)[index][i] + place
        return cls(i, j + (j >= i), degree)

    @classmethod
    def of(cls, i: Tensor, j: Tensor, size: int) -> Edges:
        """Any edges among `size` atoms; those that are not in the order of i are put into it."""
        order = torch.argsort(i, stable=True)
        return cls(i[order], j[order], torch.bincount(i, minlength=size))

    def sum(self, values: Tensor) -> Tensor:
        """The sum of values (E, ...) over the edges that each atom receives: (N, ...)."""
        return values.new_zeros(len(self.degree), *values.shape[1:]).index_add(0, self.i, values)

    @cached_property
    def _degrees(self) -> list[tuple[int, int]]:
        """Each degree and how many atoms in a row have it."""
        return list(zip(*(x.tolist() for x in self.degree.unique_consecutive(return_counts=True)), strict=True))

    def stretches(self, width: int) -> list[Stretch]:
        """Pieces within which all atoms have the same degree and edges of this width fill the room: dense blocks of a ragged graph.

        They are few where atoms of the same degree follow one another, as those of molecules that are sorted by size do.
        """
        found, atom, edge = [], 0, 0
        for degree, count in self._degrees:
            step = max(1, ROOM // width // max(degree, 1))
            for first in range(atom, atom + count, step):
                last = min(first + step, atom + count)
                start, edge = edge, edge + (last - first) * degree
                if degree:
                    found.append(Stretch(first, last, start, edge, degree))
            atom += count
        return found


def by_size(rows: Rows) -> tuple[Tensor, Rows]:
    """An order of the atoms in which molecules follow one another, small ones first, and the rows in that order."""
    order = torch.argsort(rows.counts()[rows.index] * rows.size + rows.index, stable=True)
    index = rows.index[order]
    begins = torch.ones_like(index)
    begins[1:] = index[1:] != index[:-1]
    return order, Rows(begins.cumsum(0) - 1, rows.size)
