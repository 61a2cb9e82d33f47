"""The randomised rank transform of a number column, and its binning.

A value's rank interval is [F(v-), F(v)], with F the distribution function of the training part. A position drawn uniformly
inside it, through the normal quantile, is exactly standard normal whatever the ties (the distributional transform of
Rüschendorf 2009, "On the distributional transform, Sklar's theorem, and the empirical copula process").
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

Array = NDArray[np.generic]


class RankTable:
    """The distinct values of a column with their counts, cut into bins of whole values.

    A value is described by the code of its bin and by a normal residual: the position of its rank within the bin's mass.
    With one bin the residual is the rank of the value in the whole column.

    Args:
        values: (V,) distinct values, rising: int64, uint64 or float64.
        counts: (V,) how often each was seen.
        starts: (b,) number of the first value of each bin.
    """

    def __init__(self, values: Array, counts: Array, starts: Array) -> None:
        self.values, self.counts, self.starts = values, counts, starts

    @classmethod
    def fit(cls, values: Array, bins: int = 0) -> RankTable:
        """The table of a column (n,) without its missing values, in at most about so many bins; 0 is one bin."""
        distinct, counts = np.unique(values, return_counts=True)
        return cls(distinct, counts.astype(np.int64), _starts(counts, bins))

    @property
    def bins(self) -> int:
        """The number of bins."""
        return len(self.starts)

    @property
    def residual(self) -> bool:
        """Whether some bin holds more than one value, so that its code does not say everything."""
        return self.bins < len(self.values)

    @cached_property
    def ranks(self) -> Array:
        """(V + 1,) rows below each value: a value's rank interval, in rows, lies between two of them."""
        return np.concatenate([[0], np.cumsum(self.counts)])

    @cached_property
    def stops(self) -> Array:
        """(b,) number of the value behind the last one of each bin."""
        return np.append(self.starts[1:], len(self.values))

    @cached_property
    def codes(self) -> Array:
        """(V,) the bin of each value."""
        return np.repeat(np.arange(self.bins), self.stops - self.starts)

    @cached_property
    def intervals(self) -> tuple[Array, Array]:
        """The rank interval of each value within its bin: two arrays (V,) in [0, 1]."""
        begin, end = self.ranks[self.starts][self.codes], self.ranks[self.stops][self.codes]
        return (self.ranks[:-1] - begin) / (end - begin), (self.ranks[1:] - begin) / (end - begin)

    def normals(self) -> tuple[Array, Array]:
        """The bounds of each value's residual, two float32 arrays (V,): between them it decodes to this very value."""
        return inside(*self.intervals)

    def reach(self, low: float | int | None, high: float | int | None, between: bool) -> tuple[float, float] | None:
        """The ranks, in rows, that decode into a closed range (None is an open end), or None if none does.

        Args:
            low: lowest value.
            high: highest value.
            between: ranks are decoded by the method `between`.
        """
        values, last = self.values, len(self.values)
        begin = 0 if low is None else int(np.searchsorted(values, low, side="left"))
        end = last if high is None else int(np.searchsorted(values, high, side="right"))
        least, most = float(self.ranks[begin]), float(self.ranks[end])
        if between and self._linked[begin] and low is not None:
            least = self.ranks[begin] - 0.5 + self._share(begin, low)
        if between and self._linked[end] and high is not None:
            most = self.ranks[end] - 0.5 + self._share(end, high)
        return (least, most) if begin < end or least < most else None

    def span(self, least: float, most: float) -> tuple[Array, Array, Array]:
        """The codes of the bins that ranks from `least` to `most` lie in, and the range of the residual for each of them."""
        first = np.searchsorted(self.ranks[self.starts], least, side="right") - 1
        final = np.searchsorted(self.ranks[self.starts], most, side="left") - 1
        codes = np.arange(min(first, self.bins - 1), max(first, final) + 1)
        begin, end = self.ranks[self.starts[codes]], self.ranks[self.stops[codes]]
        return codes, *inside(*(((rank - begin) / (end - begin)).clip(0, 1) for rank in (least, most)))

    @cached_property
    def _linked(self) -> NDArray[np.bool_]:
        """(V + 1,) whether the values on both sides of an edge were seen once each, so that others lie between them."""
        single = self.counts == 1
        return np.concatenate([[False], single[1:] & single[:-1], [False]])

    def _share(self, edge: int, value: float | int) -> float:
        """How far a value lies on the way from one neighbour of an edge to the other."""
        low, high = float(self.values[edge - 1]), float(self.values[edge])
        return float((value / 2 - low / 2) / (high / 2 - low / 2))

    def index(self, values: Array) -> Array:
        """(n,) the number of each value in the table; of one never seen, that of the nearest seen one."""
        values = _as(values, self.values.dtype)
        above = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        below = (above - 1).clip(min=0)
        nearer = _distance(values, self.values[below]) < _distance(self.values[above], values)
        outside = (values <= self.values[0]) | (values >= self.values[-1])  # `above` is right, a distance would wrap
        return np.where(nearer & ~outside, below, above)

    def locate(self, codes: Array, residuals: Array | None) -> tuple[Array, Array]:
        """The values that bins (n,) and residuals (n,) stand for.

        Returns:
            Their numbers in the table (n,), and how far into the value's rank interval each lies (n,), in [0, 1].
        """
        first = self.starts[codes]
        if residuals is None:
            return first, np.full(len(first), 0.5)
        begin, end = self.ranks[first], self.ranks[self.stops[codes]]
        rank = begin + ndtr(residuals.astype(np.float64)) * (end - begin)
        index = np.searchsorted(self.ranks, rank, side="right") - 1
        index = index.clip(first, self.stops[codes] - 1)
        return index, ((rank - self.ranks[index]) / self.counts[index]).clip(0, 1)

    def between(self, index: Array, position: Array) -> Array:
        """float64 (n,): linear interpolation between neighbours that were each seen once; any other value comes back exactly.

        A value seen once stands in the middle of its rank interval; at the interval's edge lies the middle between it and
        its neighbour. Values seen more often (spikes) keep their whole interval, and nothing lies beyond the seen range.
        """
        values = self.values.astype(np.float64)
        down = position < 0.5
        edge, neighbour = np.where(down, index, index + 1), np.where(down, index - 1, index + 1)
        share = np.where(self._linked[edge], np.abs(0.5 - position), 0.0)
        own = values[index]
        mixed = own * (1 - share) + values[neighbour.clip(0, len(values) - 1)] * share  # a difference could overflow
        return np.where(share > 0, mixed, own)


def decimals(values: Array, dtype: str = "float64", most: int = 12) -> int | None:
    """The fewest decimals that write these float64 values exactly (as numbers of `dtype`), or None if more than `most`."""
    with np.errstate(all="ignore"):
        for digits in range(most + 1):
            if np.array_equal(np.round(values, digits).astype(dtype), values.astype(dtype)):
                return digits
    return None


def inside(low: Array, high: Array) -> tuple[Array, Array]:
    """Positions (n,) in [0, 1] as bounds of a normal number, float32: one step inside, so that rounding leaves nothing out."""
    edges = ndtri(low), ndtri(high)
    least, most = (edge.astype(np.float32) for edge in edges)
    least = np.where(np.isinf(least), least, np.nextafter(least, np.float32(np.inf)))
    most = np.where(np.isinf(most), most, np.nextafter(most, np.float32(-np.inf)))
    middle = ndtri(((low + high) / 2).clip(2.0**-53, 1 - 2.0**-53)).astype(np.float32)
    narrow = least > most  # narrower than float32 can tell
    return np.where(narrow, middle, least), np.where(narrow, middle, most)


def _starts(counts: Array, bins: int) -> Array:
    """(b,) first value of each bin: frequent values alone, the others in runs of about equal mass."""
    if bins <= 0:
        return np.zeros(1, np.int64)
    if len(counts) <= bins:
        return np.arange(len(counts))
    alone = counts * bins >= counts.sum()
    light = np.where(alone, 0, counts)
    middle = np.cumsum(light) - light / 2
    key = np.floor(middle * (bins - alone.sum()) / max(light.sum(), 1))
    new = alone | (np.diff(key, prepend=-1) != 0)
    new[1:] |= alone[:-1]
    return np.flatnonzero(new)


def _as(values: Array, dtype: np.dtype) -> Array:
    """Numbers as `dtype`; floats beyond an integer type's range become its ends."""
    if values.dtype.kind == "f" and dtype.kind in "iu":
        ends, whole = np.iinfo(dtype), np.rint(values)
        low, high = whole <= float(ends.min), whole >= float(ends.max)
        inside = np.where(low | high, 0, whole).astype(dtype)
        return np.where(low, ends.min, np.where(high, ends.max, inside)).astype(dtype)
    if values.dtype.kind == "i" and dtype.kind == "u":
        return values.clip(min=0).astype(dtype)
    if values.dtype.kind == "u" and dtype.kind == "i":
        return values.clip(max=np.iinfo(dtype).max).astype(dtype)
    return values.astype(dtype)


def _distance(high: Array, low: Array) -> Array:
    """high - low for high >= low, without overflow."""
    if high.dtype.kind == "i":  # the difference of two int64 fits uint64, where subtraction wraps to the right result
        return high.view(np.uint64) - low.view(np.uint64)
    return high - low if high.dtype.kind == "u" else high / 2 - low / 2
