"""How one column becomes codes and normal numbers, and values again; fitted on the training part."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from diffusionkit.errors import UserError
from diffusionkit.tabular import frames, identifiers
from diffusionkit.tabular.schema import Column
from diffusionkit.tabular.transforms import RankTable

Array = NDArray[np.generic]


class Levels:
    """A column of levels, or a constant one: a code for each level seen, and one more, the last, for a missing value.

    Args:
        column: what it is.
        levels: in the order of their codes.
        counts: how often each was seen, and after them, if there were any, the missing values.
    """

    residual = False

    def __init__(self, column: Column, levels: list[Any], counts: list[int]) -> None:
        self.column, self.levels, self.counts = column, levels, counts
        self.missing = len(counts) > len(levels)

    @classmethod
    def fit(cls, column: Column, series: pd.Series) -> Levels:
        """The levels of a training part, in their own order."""
        found, uniques = pd.factorize(series)
        levels = uniques.tolist()
        counts = dict(zip(levels, np.bincount(found[found >= 0], minlength=len(levels)).tolist(), strict=True))
        if column.dtype == "category":
            place = {level: i for i, level in enumerate(series.cat.categories.tolist())}
            levels.sort(key=place.__getitem__)
        else:
            levels.sort()
        absent = int((found < 0).sum())
        return cls(column, levels, [counts[level] for level in levels] + ([absent] if absent else []))

    @property
    def size(self) -> int:
        """The number of codes."""
        return len(self.levels) + self.missing

    @property
    def ordered(self) -> bool:
        """Whether the codes follow an order: of an ordinal column, or of levels that are numbers."""
        return self.column.kind == "ordinal" or self.column.family == "number"

    @cached_property
    def places(self) -> dict[Any, int]:
        """The code of each level."""
        return {level: code for code, level in enumerate(self.levels)}

    @cached_property
    def table(self) -> Any:
        """The levels as the frame holds them."""
        return as_table(pd.Series(self.levels, dtype=self.column.pandas_dtype()), self.column)

    def plain(self) -> list[Any]:
        """The levels as JSON can keep them."""
        return [frames.to_plain(level, self.column.name) for level in self.levels]

    def codes(self, series: pd.Series) -> Array:
        """(n,) codes; that of a missing value is the last, or any if none was missing in the training part.

        Raises:
            UserError: for a level that was never seen.
        """
        found, uniques = pd.factorize(series)
        places = np.array([self.place(level) for level in uniques.tolist()] + [self.size - 1], np.int64)
        return places[found]

    def place(self, level: Any) -> int:
        """The code of a level.

        Raises:
            UserError: if it was never seen.
        """
        if level not in self.places or (isinstance(level, bool) and self.column.family == "number"):
            known = ", ".join(map(repr, list(self.places)[:10])) + (", ..." if len(self.levels) > 10 else "")
            raise UserError(f"column {self.column.name!r}: level {level!r} was never seen; the levels are {known}")
        return self.places[level]

    def decode(self, codes: Array | None, residuals: Array | None, n: int, first: int) -> pd.Series:
        """The column of n rows with these codes, or without a code where there is but one."""
        codes = np.zeros(n, np.int64) if codes is None else codes
        return take(self.table, np.where(codes < len(self.levels), codes, -1), self.missing)


class Numbers:
    """A column of numbers, dates or time spans, by the randomised rank transform.

    Args:
        column: what it is.
        ranks: the values seen.
        absent: how many values were missing.
        between: continuous values lie between the seen ones, too.
        residual: whether the rank within a bin is a number of the state; otherwise decoding draws it.
    """

    ordered = True

    def __init__(self, column: Column, ranks: RankTable, absent: int, between: bool, residual: bool = True) -> None:
        self.column, self.ranks, self.absent, self.missing = column, ranks, absent, absent > 0
        self.between = between and column.kind == "continuous"
        self.residual = ranks.residual and (residual or ranks.bins == 1)

    @classmethod
    def fit(
        cls, column: Column, series: pd.Series, bins: int, between: bool, whole: int, residual: bool = True
    ) -> Numbers:
        present = series.notna().to_numpy(bool)
        values = frames.numbers(series[present], column.family, column.unit, column.name)
        if column.kind == "integer" and whole and len(np.unique(values)) <= whole:
            bins = len(values)
        return cls(column, RankTable.fit(values, bins), int((~present).sum()), between, residual)

    @property
    def size(self) -> int:
        """The number of codes."""
        return self.ranks.bins + self.missing

    @property
    def counts(self) -> list[int]:
        """How often each code was seen."""
        counts = np.add.reduceat(self.ranks.counts, self.ranks.starts).tolist()
        return counts + ([self.absent] if self.missing else [])

    @cached_property
    def table(self) -> Any:
        """The values as the frame holds them."""
        return as_table(self._restored(self.ranks.values), self.column)

    def index(self, series: pd.Series) -> Array:
        """(n,) the number of each value in the table, -1 for a missing one."""
        present = series.notna().to_numpy(bool)
        index = np.full(len(series), -1, np.int64)
        if present.any():
            values = frames.numbers(series[present], self.column.family, self.column.unit, self.column.name)
            index[present] = self.ranks.index(values)
        return index

    def codes(self, index: Array) -> Array:
        """(n,) codes of values given by their number in the table."""
        return np.append(self.ranks.codes, self.size - 1)[index]

    def decode(self, codes: Array | None, residuals: Array | None, n: int, first: int) -> pd.Series:
        """The column of n rows with these codes and residuals, as far as there are such."""
        codes = np.zeros(n, np.int64) if codes is None else codes
        absent = codes >= self.ranks.bins
        if residuals is None and self.ranks.residual:
            residuals = torch.randn(n).numpy()
        index, position = self.ranks.locate(np.where(absent, 0, codes), residuals)
        series = take(self.table, np.where(absent, -1, index), self.missing)
        if self.between and self.ranks.residual:
            moved = self._rounded(self.ranks.between(index, position))
            series = self._restored(moved) if not self.missing else series.where(absent, self._restored(moved))
        return series

    def redrawn(self, series: pd.Series, codes: Array, low: Array, high: Array) -> pd.Series:
        """The values of these codes drawn anew, their residuals in the ranges that `within` gave for the codes."""
        present = self.index(series)
        own = np.where(present < 0, codes[0], self.ranks.codes[present])
        place = np.searchsorted(codes, own).clip(max=len(codes) - 1)
        begin, end = ndtr(low[place].astype(np.float64)), ndtr(high[place].astype(np.float64))
        residuals = ndtri(begin + torch.rand(len(series), dtype=torch.float64).numpy() * (end - begin))
        return self.decode(codes[place], residuals.clip(low[place], high[place]), len(series), 0).set_axis(series.index)

    def constant(self, value: Any, n: int) -> pd.Series:
        """n times a value, seen or not, as the frame holds it.

        Raises:
            UserError: if the column cannot hold it exactly.
        """
        number, family = self._number(value), self.column.family
        whole = family != "number" or self.column.kind != "integer" or float(number).is_integer()
        made = self._restored(np.full(n, number if whole else 0))
        if family == "number":
            held = np.isclose(float(made.iloc[0]), float(number), rtol=2.0**-10, atol=0)  # that of the narrowest floats
        else:
            asked = pd.Timedelta(value) if family == "timedelta" else self._moment(pd.Timestamp(value))
            held = asked == (pd.Timestamp(made.iloc[0]) if family == "date" else made.iloc[0])
        if not (whole and held):
            said = f"is {self.column.kind} ({self.column.dtype}) and cannot hold {value!r}"
            raise UserError(f"column {self.column.name!r} {said}")
        return made

    @property
    def bounds(self) -> tuple[Any, Any]:
        """The lowest and the highest value seen."""
        return self.table[0], self.table[len(self.ranks.values) - 1]

    def within(self, low: Any, high: Any, nearest: bool) -> tuple[Array, Array, Array]:
        """The codes that decode into a closed range and, for each of them, the range of the residual.

        Args:
            low: lowest value, None for an open end.
            high: highest value, None for an open end.
            nearest: of a range that holds nothing but lies among the values seen, take the nearest of them.

        Raises:
            UserError: if nothing in the range is ever made.
        """
        low, high = (None if edge is None else self._number(edge) for edge in (low, high))
        exact = self._snapped(low, high)
        ranks = self.ranks.reach(*exact, self.between and self.ranks.residual)
        least, most = self.ranks.values[0], self.ranks.values[-1]
        if ranks is None and nearest and low <= high and least <= low and high <= most:
            [place] = self.ranks.index(np.array([low]))
            ranks = self.ranks.ranks[place], self.ranks.ranks[place + 1]
        if ranks is None:
            said = f"holds no value in the range asked for; those seen reach from {self.bounds[0]} to {self.bounds[1]}"
            raise UserError(f"column {self.column.name!r} {said}")
        return self.ranks.span(*ranks)

    def _snapped(self, low: Any, high: Any) -> tuple[Any, Any]:
        """The range narrowed to the grid that interpolated values are rounded to."""
        column = self.column
        scale = 1 / column.step if column.family == "timedelta" else 10.0 ** (column.decimals or 0)
        if not self.between or (column.family == "number" and column.decimals is None):
            return low, high
        with np.errstate(over="ignore"):
            ends = [None if edge is None else float(edge) * scale for edge in (low, high)]
        low = low if low is None or np.isinf(ends[0]) else np.ceil(ends[0] - 1e-6) / scale
        return low, high if high is None or np.isinf(ends[1]) else np.floor(ends[1] + 1e-6) / scale

    def _number(self, value: Any) -> Any:
        """A value of the user's as the ranks hold it."""
        column = self.column
        try:
            if column.family == "number":
                return value if isinstance(value, (int, np.integer)) else float(value)
            scalar = pd.Timedelta(value) if column.family == "timedelta" else self._moment(pd.Timestamp(value))
            series = pd.Series([scalar.date() if column.family == "date" else scalar])
            return frames.numbers(series, column.family, column.unit, column.name)[0]
        except (TypeError, ValueError) as error:
            raise UserError(f"column {column.name!r}: {value!r} is not a value of a {column.kind} column") from error

    def _moment(self, moment: pd.Timestamp) -> pd.Timestamp:
        """A moment without a time zone is meant in that of the column."""
        zone = getattr(self.bounds[0], "tz", None)
        return moment.tz_localize(zone) if zone is not None and moment.tz is None else moment

    def _rounded(self, values: Array) -> Array:
        """Interpolated values on the grid of those seen, within their range."""
        column, seen = self.column, self.ranks.values
        if column.family == "timedelta":
            return (np.rint(values / column.step) * column.step).clip(float(seen[0]), float(seen[-1])).astype(np.int64)
        if column.decimals is not None:
            values = np.round(values, column.decimals)
        return values.clip(float(seen[0]), float(seen[-1]))

    def _restored(self, values: Array) -> pd.Series:
        return frames.restore(values, self.column.pandas_dtype(), self.column.family, self.column.unit)


class Identifiers:
    """A column of identifiers: nothing is modelled, decoding makes new ones.

    Args:
        column: what it is.
        pattern: their look.
    """

    residual, size, missing = False, 1, False

    def __init__(self, column: Column, pattern: identifiers.Pattern) -> None:
        self.column, self.pattern = column, pattern

    @classmethod
    def fit(cls, column: Column, series: pd.Series) -> Identifiers:
        return cls(column, identifiers.learn(series[series.notna().to_numpy(bool)]))

    def decode(self, codes: Array | None, residuals: Array | None, n: int, first: int) -> pd.Series:
        """The identifiers with n running numbers from the first on; as many are missing as were."""
        series = pd.Series(identifiers.make(self.pattern, first, n)).astype(self.column.pandas_dtype())
        if not self.column.missing:
            return series
        draws = identifiers.hashed(np.arange(first, first + n), -1) / 2.0**64
        return take(as_table(series, self.column), np.where(draws < self.column.missing, -1, np.arange(n)), True)


Coder = Levels | Numbers | Identifiers


def fit(column: Column, series: pd.Series, bins: int, between: bool, whole: int, residual: bool) -> Coder:
    """What codes a column."""
    if column.kind == "identifier":
        return Identifiers.fit(column, series)
    if column.numeric and series.notna().any():
        return Numbers.fit(column, series, bins, between, whole, residual)
    return Levels.fit(column, series)


def as_table(series: pd.Series, column: Column) -> Any:
    """Values to `take` from; objects with what says that one is missing as the last."""
    if isinstance(series.dtype, np.dtype):
        values = series.to_numpy()
        if values.dtype != object:
            return values
        ended = np.empty(len(values) + 1, object)
        ended[:-1], ended[-1] = values, column.absent()
        return ended
    return series.array


def take(table: Any, index: Array, missing: bool) -> pd.Series:
    """(n,) the values with these numbers; -1 is a missing one."""
    if not isinstance(table, np.ndarray):
        values = table.take(index, allow_fill=missing)
    elif table.dtype.kind == "O" or not missing:
        values = table[index]
    else:
        values = pd.api.extensions.take(table, index, allow_fill=True)
    return pd.Series(values, dtype=values.dtype, copy=False)
