"""Tables as arrays, coded alike, so that measures compare them: numbers as float64, levels as codes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import sparse

from diffusionkit.errors import UserError

NUMBERS = frozenset({"continuous", "integer", "datetime", "timedelta"})
"""Kinds of columns that are compared as numbers; the others are levels, and identifiers are not compared."""


@dataclass(frozen=True)
class Coded:
    """One of several tables that `coded` has brought into one form.

    Attributes:
        order: labels of the columns that are measured, in the order of the frame.
        names: labels of the columns of `numbers`.
        factors: labels of the columns of `codes`.
        numbers: (n, D) float64, missing values as nan; instants in microseconds, durations in seconds.
        codes: (n, K) int64; a missing value has the code `len(levels[k])`.
        levels: for each of the K columns the values that its codes stand for.
    """

    order: tuple[Hashable, ...]
    names: tuple[Hashable, ...]
    factors: tuple[Hashable, ...]
    numbers: np.ndarray
    codes: np.ndarray
    levels: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def sizes(self) -> np.ndarray:
        """(K,) the number of codes of each column of levels, the one of missing values included."""
        return np.array([len(values) + 1 for values in self.levels], dtype=np.int64)

    def take(self, rows: np.ndarray) -> Coded:
        """The table of these rows."""
        return replace(self, numbers=self.numbers[rows], codes=self.codes[rows])

    def sample(self, rows: int, rng: np.random.Generator) -> Coded:
        """At most so many rows, drawn without replacement; the table itself if it has no more."""
        return self if len(self) <= rows else self.take(rng.permutation(len(self))[:rows])

    def independent(self, rows: int, rng: np.random.Generator) -> Coded:
        """So many rows whose columns are drawn from this table each on its own: the marginals are right, nothing else."""
        count = len(self)
        numbers = [column[rng.integers(count, size=rows)] for column in self.numbers.T]
        codes = [column[rng.integers(count, size=rows)] for column in self.codes.T]
        return replace(
            self,
            numbers=np.stack(numbers, 1) if numbers else np.empty((rows, 0)),
            codes=np.stack(codes, 1) if codes else np.empty((rows, 0), dtype=np.int64),
        )

    def without(self, label: Hashable) -> Coded:
        """The table without one column."""
        keep = np.array([name != label for name in self.names], dtype=bool)
        stay = [k for k, name in enumerate(self.factors) if name != label]
        return Coded(
            tuple(name for name in self.order if name != label),
            tuple(name for name in self.names if name != label),
            tuple(self.factors[k] for k in stay),
            self.numbers[:, keep],
            self.codes[:, stay],
            tuple(self.levels[k] for k in stay),
        )


Table = pd.DataFrame | Coded


def coded(
    *tables: Table,
    columns: Mapping[Hashable, str] | None = None,
    names: Sequence[str] = ("the real table", "the synthetic table"),
) -> list[Coded]:
    """Tables brought into one form; tables that `coded` made together pass through.

    Args:
        tables: frames of the same columns, in any order; the first decides what is a number and what a level.
        columns: kinds of columns by label; those not given are inferred from the first table.
        names: what to call the tables in a refusal.

    Raises:
        UserError: if a table has no rows, other columns than the first, or values that are not of the column's kind.
    """
    coded_already = [table for table in tables if isinstance(table, Coded)]
    if coded_already:
        if len(coded_already) < len(tables):
            raise TypeError("give frames, or tables that were coded together, not both")
        return coded_already
    names = [*names, *(f"table {k + 1}" for k in range(len(names), len(tables)))][: len(tables)]
    same_columns(tables, names)
    kinds = kinds_of(tables[0], columns)
    order = tuple(label for label in tables[0].columns if kinds[label] != "identifier")
    if not order:
        raise UserError("there is nothing to compare: every column is an identifier")
    numeric = tuple(label for label in order if kinds[label] in NUMBERS)
    factors = tuple(label for label in order if kinds[label] not in NUMBERS)
    numbers = [
        _stack([_number(t[c], kinds[c], name) for c in numeric], len(t), float)
        for t, name in zip(tables, names, strict=True)
    ]
    levels, codes = [], [[] for _ in tables]
    for label in factors:
        values, parts = joint_levels([table[label] for table in tables])
        levels.append(values)
        for column, part in zip(codes, parts, strict=True):
            column.append(part)
    return [
        Coded(order, numeric, factors, number, _stack(code, len(table), np.int64), tuple(levels))
        for number, code, table in zip(numbers, codes, tables, strict=True)
    ]


def same_columns(tables: Sequence[pd.DataFrame], names: Sequence[str]) -> None:
    """Refuses empty tables and tables that have not the same columns as the first."""
    for table, name in zip(tables, names, strict=True):
        if not len(table) or not len(table.columns):
            raise UserError(f"{name} is empty: give at least one row and one column")
        twice = table.columns[table.columns.duplicated()]
        if len(twice):
            raise UserError(f"column {twice[0]!r} stands twice in {name}: give each column a name of its own")
        for label in tables[0].columns:
            if label not in table.columns:
                raise UserError(f"column {label!r} is missing in {name}: it must have the columns of {names[0]}")
        for label in table.columns:
            if label not in tables[0].columns:
                raise UserError(f"column {label!r} of {name} is unknown: it must have the columns of {names[0]}")


def kinds_of(table: pd.DataFrame, columns: Mapping[Hashable, str] | None) -> dict[Hashable, str]:
    """The kind of every column: as given, or inferred where some are not."""
    columns = dict(columns or {})
    if all(label in columns for label in table.columns):
        for label in columns:
            if label not in table.columns:
                raise UserError(f"columns: there is no column {label!r}")
        return columns
    from diffusionkit.tabular.schema import Schema

    return dict(Schema.infer(table, columns).kinds)


def _stack(parts: list[np.ndarray], rows: int, dtype: type) -> np.ndarray:
    return np.stack(parts, 1).astype(dtype, copy=False) if parts else np.empty((rows, 0), dtype)


def _number(series: pd.Series, kind: str, name: str) -> np.ndarray:
    try:
        if kind == "datetime" or series.dtype.kind == "M":
            instants = pd.to_datetime(series, utc=True).dt.tz_localize(None).astype("datetime64[us]")
            values = np.where(instants.isna(), np.nan, instants.to_numpy().astype("int64").astype(float))
        elif series.dtype.kind == "m":
            values = series.dt.total_seconds().to_numpy(dtype=float)
        else:
            values = pd.to_numeric(series).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"column {series.name!r} of {name} must hold values of kind {kind}: {error}") from error
    if np.isinf(values).any():
        raise UserError(
            f"column {series.name!r} of {name} holds an infinite value: replace it by a number or leave it empty"
        )
    return values


def joint_levels(parts: Sequence[pd.Series]) -> tuple[np.ndarray, list[np.ndarray]]:
    """The values that occur in any of the columns, those of the first come first, and the codes of each column."""
    factored = [pd.factorize(part) for part in parts]
    seen = [np.asarray(pd.Index(values).astype(object), dtype=object) for _, values in factored]
    joint, values = pd.factorize(np.concatenate(seen))
    found, start = [], 0
    for (codes, _), own in zip(factored, seen, strict=True):
        to_joint = np.append(joint[start : start + len(own)], len(values))  # code -1, a missing value, becomes the last
        found.append(to_joint[codes])
        start += len(own)
    return values, found


def features(*tables: Coded, ordinal: bool = False, words: bool = False) -> list[sparse.csr_matrix | np.ndarray]:
    """What a classifier sees of tables coded together: float32 (n, F) each.

    Numbers, and levels whose values are all numbers or truth values, are scaled robustly (median and quartiles of all the
    tables together); a missing one is the median, and one more feature tells so. Other levels are one-hot, as a sparse matrix,
    or, if `ordinal`, their codes as numbers in a dense one. If `words`, levels that are numbers are taken for words.
    """
    table = tables[0]
    as_number = [None if words else _numeric(values) for values in table.levels]
    columns = [
        np.column_stack([t.numbers, *(v[c] for v, c in zip(as_number, t.codes.T, strict=True) if v is not None)])
        for t in tables
    ]
    blocks = _robust(columns)
    rest = [k for k, values in enumerate(as_number) if values is None]
    if ordinal:
        return [
            np.hstack([block, t.codes[:, rest]]).astype(np.float32) for block, t in zip(blocks, tables, strict=True)
        ]
    sizes = table.sizes[rest]
    return [
        sparse.hstack([_all_stored(block), _one_hot(t.codes[:, rest], sizes)], format="csr", dtype=np.float32)
        for block, t in zip(blocks, tables, strict=True)
    ]


def _numeric(values: np.ndarray) -> np.ndarray | None:
    """The values as numbers with nan for the missing code, or None if some are not numbers."""
    if not all(isinstance(value, bool | np.bool_ | int | float | np.number) for value in values):
        return None
    return np.append(values.astype(float), np.nan)


def _robust(columns: list[np.ndarray]) -> list[np.ndarray]:
    pooled = np.concatenate(columns)
    if not pooled.shape[1]:
        return columns
    absent = np.isnan(pooled)
    pooled = np.where(absent.all(0), 0.0, pooled)
    low, middle, high = np.nanpercentile(pooled, (25, 50, 75), axis=0)
    scale = np.where(high > low, high - low, 1.0)
    marked = absent.any(0)
    return [
        np.hstack([np.nan_to_num((block - middle) / scale, nan=0.0), np.isnan(block[:, marked])]) for block in columns
    ]


def _all_stored(block: np.ndarray) -> sparse.csr_matrix:
    rows, width = block.shape
    parts = (block.ravel(), np.tile(np.arange(width), rows), np.arange(rows + 1) * width)
    return sparse.csr_matrix(parts, shape=(rows, width))


def _one_hot(codes: np.ndarray, sizes: np.ndarray) -> sparse.csr_matrix:
    rows, width = codes.shape
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    indices = (codes + offsets[:-1]).ravel()
    return sparse.csr_matrix((np.ones(rows * width), indices, np.arange(rows + 1) * width), shape=(rows, offsets[-1]))
