"""What the columns of a table are: inferred from a frame, shown, edited, kept as JSON."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular import frames
from diffusionkit.tabular.transforms import decimals

Kind = Literal[
    "continuous", "integer", "ordinal", "categorical", "boolean", "datetime", "constant", "identifier"
]  # fmt: skip
NUMERIC = ("continuous", "integer", "datetime")
"""The kinds whose values are numbers to the model."""

_FEW = 50  # with fewer rows than this there is a warning, and no text is taken for an identifier
_WHOLE = 2.0**53  # a float beyond this is whole whatever it measures
_MARKERS = {"None": None, "nan": np.nan, "NaT": pd.NaT, "NA": pd.NA}


@dataclass(frozen=True)
class Column:
    """One column: what it means and what restores it.

    Args:
        name: its label, a text or a whole number.
        kind: what it is to the model.
        dtype: what the result must have, a name for `frames.named_dtype`.
        family: what its values are, as `frames.family` says.
        missing: share of missing values.
        note: its range or its levels in words.
        unit: resolution of dates and time spans.
        decimals: to which continuous numbers are rounded, or None.
        step: of which time spans are multiples, in units.
        marker: how an object column says that a value is missing.
        categories: those of a pandas categorical, plain values; `ordered` and their dtype beside them.
        drop: leave this identifier out of the result.
    """

    name: str | int
    kind: Kind
    dtype: str
    family: str
    missing: float = 0.0
    note: str = ""
    unit: str | None = None
    decimals: int | None = None
    step: int | None = None
    marker: str = "nan"
    categories: tuple[Any, ...] | None = None
    categories_dtype: str | None = None
    ordered: bool = False
    drop: bool = False

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers to the model."""
        return self.kind in NUMERIC

    def pandas_dtype(self) -> Any:
        """The dtype of the result."""
        if self.categories is None:
            return frames.named_dtype(self.dtype)
        values = [frames.from_plain(value) for value in self.categories]
        return pd.CategoricalDtype(pd.Index(values, dtype=frames.named_dtype(self.categories_dtype)), self.ordered)

    def absent(self) -> Any:
        """The missing value of an object column."""
        return _MARKERS[self.marker]


@dataclass(frozen=True)
class Schema:
    """The columns of a table in their order."""

    columns: tuple[Column, ...]

    @classmethod
    def infer(cls, df: pd.DataFrame, columns: Mapping[Any, Kind] | None = None) -> Schema:
        """The schema of a frame; `columns` gives the kinds of those that would be taken for something else.

        An identifier of the kind "drop" is left out of every result, instead of being made up.

        Raises:
            UserError: for an empty frame, duplicate names, infinities, values of several types in a column, an unknown
                column in `columns`, or a kind that the values do not allow.
        """
        _check_frame(df)
        wishes: dict[Any, Any] = dict(columns or {})
        dropped = [name for name, kind in wishes.items() if kind == "drop"]
        wishes |= dict.fromkeys(dropped, "identifier")
        names = df.columns.tolist()
        for name, kind in wishes.items():
            if name not in names:
                raise UserError(f"columns: there is no column {name!r}; there are {_listed(names)}")
            if kind not in get_args(Kind):
                raise UserError(
                    f"columns: {name!r} cannot be {kind!r}; a kind is one of {', '.join(get_args(Kind))}, or drop"
                )
        if len(df) < _FEW:
            warnings.warn(f"the table has only {len(df)} rows, too few to learn much from", stacklevel=2)
        found = cls(tuple(_column(df.iloc[:, i], name, wishes.get(name)) for i, name in enumerate(names)))
        return found.leave_out(*dropped)

    @property
    def names(self) -> list[str | int]:
        """The labels of the columns."""
        return [column.name for column in self.columns]

    @property
    def kinds(self) -> dict[str | int, Kind]:
        """The kind of each column."""
        return {column.name: column.kind for column in self.columns}

    def __getitem__(self, name: str | int) -> Column:
        return self.columns[self.position(name)]

    def position(self, name: str | int) -> int:
        """The number of a column.

        Raises:
            UserError: if there is none of this name.
        """
        if name not in self.names:
            raise UserError(f"there is no column {name!r}; there are {_listed(self.names)}")
        return self.names.index(name)

    def leave_out(self, *names: str | int) -> Schema:
        """The schema with these identifiers left out of every result.

        Raises:
            UserError: if one is no identifier.
        """
        for name in names:
            if self[name].kind != "identifier":
                raise UserError(f"column {name!r} is {self[name].kind}, and only an identifier can be left out")
        return Schema(tuple(replace(c, drop=c.drop or c.name in names) for c in self.columns))

    def check(self, df: pd.DataFrame, *, only: Iterable[str | int] | None = None) -> None:
        """Sees that a frame has these columns (or `only` some of them) with values of the same sort, in any order.

        Raises:
            UserError: naming the first column that does not fit.
        """
        _check_frame(df, rows=False)
        wanted = self.names if only is None else list(only)
        present = df.columns.tolist()
        for name in wanted:
            position = self.position(name)
            if name not in present:
                if self.columns[position].drop:
                    continue
                raise UserError(f"column {name!r} is missing; the frame has {_listed(present)}")
            _check_column(df[name], self.columns[position])
        extra = [name for name in present if name not in wanted]
        if extra and only is None:
            raise UserError(f"column {extra[0]!r} was not in the table that was fitted; drop it")

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"columns": [asdict(column) for column in self.columns]}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Schema:
        """The inverse of `to_json`."""
        columns = []
        for entry in content["columns"]:
            categories = entry["categories"]
            columns.append(Column(**{**entry, "categories": None if categories is None else tuple(categories)}))
        return cls(tuple(columns))

    def __str__(self) -> str:
        head = ("column", "kind", "dtype", "missing", "values")
        rows = [(str(c.name), c.kind, c.dtype, _percent(c.missing), c.note) for c in self.columns]
        widths = [max(len(row[i]) for row in [head, *rows]) for i in range(4)]
        return "\n".join("  ".join(t.ljust(w) for t, w in zip(row, [*widths, 0], strict=True)) for row in [head, *rows])


def _check_frame(df: pd.DataFrame, rows: bool = True) -> None:
    if not isinstance(df, pd.DataFrame):
        raise UserError(f"a table must be a pandas DataFrame, not {type(df).__name__}")
    if not df.shape[1] or (rows and not len(df)):
        raise UserError(f"the table is empty: it has {len(df)} rows and {df.shape[1]} columns")
    doubled = df.columns[df.columns.duplicated()].tolist()
    if doubled:
        raise UserError(f"column {doubled[0]!r} is there more than once; give each column a name of its own")
    for name in df.columns.tolist():
        if not isinstance(name, (str, int)) or isinstance(name, bool):
            raise UserError(f"column {name!r}: a name must be a text or a whole number, not {type(name).__name__}")


def _column(series: pd.Series, name: str | int, wish: Kind | None) -> Column:
    family = frames.family(series, name)
    present = series[series.notna().to_numpy(bool)]
    missing = 1 - len(present) / len(series)
    dtype = frames.dtype_name(series.dtype, name)
    column = Column(name, "constant", dtype, family, missing, "all missing", **_appearance(series, name))
    if family == "none":
        return column
    numbers, distinct = None, present.nunique()
    if family in frames.NUMBERS and dtype != "category":
        resolution = None if family == "number" else frames.unit(series)
        numbers = frames.numbers(present, family, resolution, name)
        column = replace(column, unit=resolution, **_grid(numbers, family, dtype))
    whole = numbers is not None and family == "number" and _whole(numbers)
    kind = _usual(series, column, distinct, len(present), whole)
    if wish is not None and wish != kind:
        _allow(wish, column, distinct, whole)
        kind = wish
    return replace(column, kind=kind, note=_note(kind, present, distinct))


def _usual(series: pd.Series, column: Column, distinct: int, present: int, whole: bool) -> Kind:
    """The kind that is inferred."""
    if distinct == 1 and not column.missing:
        return "constant"
    if column.dtype == "category":
        return "ordinal" if series.cat.ordered else "categorical"
    if column.family == "text":
        return "identifier" if distinct == present >= _FEW else "categorical"
    if column.family == "number":
        return "integer" if whole else "continuous"
    usual: dict[str, Kind] = {"boolean": "boolean", "timedelta": "continuous", "interval": "categorical"}
    return usual.get(column.family, "datetime")


def _allow(wish: Kind, column: Column, distinct: int, whole: bool) -> None:
    """Raises if the values do not allow a kind."""
    number = column.family in ("number", "timedelta") and column.dtype != "category"
    reasons = {
        "continuous": None if number else "its values are not numbers",
        "integer": None if number and whole else "its values are not all whole numbers",
        "boolean": None if distinct <= 2 else f"it has {distinct} different values",
        "datetime": None if column.family in ("datetime", "date") and column.dtype != "category" else
        "its values are not dates; convert them with pandas.to_datetime",
        "constant": None if distinct == 1 and not column.missing else "its values differ",
        "identifier": None if column.dtype != "category" and (column.family == "text" or whole) else
        "its values are neither texts nor whole numbers",
    }  # fmt: skip
    if reasons.get(wish):
        raise UserError(f"columns: {column.name!r} cannot be {wish}: {reasons[wish]}")


def _appearance(series: pd.Series, name: str | int) -> dict[str, Any]:
    """What restores a categorical or an object column."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        categories = series.dtype.categories
        return {
            "categories": tuple(frames.to_plain(value, name) for value in categories.tolist()),
            "categories_dtype": frames.dtype_name(categories.dtype, name),
            "ordered": bool(series.dtype.ordered),
        }
    absent = series[series.isna().to_numpy(bool)]
    if series.dtype != object or not len(absent):
        return {}
    value = absent.iloc[0]
    return {"marker": next((text for text, marker in _MARKERS.items() if value is marker), "nan")}


def _grid(numbers: np.ndarray, family: str, dtype: str) -> dict[str, Any]:
    """The rounding of the numbers of a column."""
    values = np.unique(numbers)
    if family == "timedelta":
        return {"step": int(np.gcd.reduce(values)) or 1}
    if family != "number":
        return {}
    floats = (
        dtype.lower() if dtype.lower() in ("float16", "float32") else "float32" if dtype == "float[pyarrow]" else ""
    )
    return {"decimals": 0 if values.dtype.kind in "iu" else decimals(values, floats or "float64")}


def _whole(numbers: np.ndarray) -> bool:
    if numbers.dtype.kind in "iu":
        return True
    return bool((np.abs(numbers) < _WHOLE).all() and (numbers == np.rint(numbers)).all())


def _note(kind: Kind, present: pd.Series, distinct: int) -> str:
    if kind == "constant":
        return str(present.iloc[0])
    if kind == "identifier":
        return f"{distinct} different"
    if kind in NUMERIC:
        return f"{present.min()} to {present.max()}, {distinct} different"
    seen = present.value_counts().index[:distinct]
    seen = seen.sort_values() if kind == "ordinal" else seen
    return f"{distinct} levels: {', '.join(map(str, seen[:5].tolist()))}" + (", ..." if distinct > 5 else "")


def _check_column(series: pd.Series, column: Column) -> None:
    found = frames.family(series, column.name)
    if "none" in (found, column.family) or found == column.family == "text":
        return
    if found != column.family:
        raise UserError(
            f"column {column.name!r} held values of the sort {column.family!r} when the model was fitted and holds "
            f"{found!r} now (dtype {series.dtype}); convert it to {column.dtype}"
        )
    if (
        found == "datetime"
        and column.dtype != "category"
        and (", " in column.dtype or "tz=" in column.dtype) != _zoned(series.dtype)
    ):
        said = "had no time zone when the model was fitted and has one" if _zoned(series.dtype) else "has no time zone"
        raise UserError(f"column {column.name!r} {said} now (dtype {series.dtype}); convert it to {column.dtype}")
    if column.kind == "integer" and not _whole(frames.numbers(series.dropna(), found, None, column.name)):
        raise UserError(f"column {column.name!r} held whole numbers when the model was fitted and holds others now")


def _zoned(dtype: Any) -> bool:
    return (
        getattr(dtype, "tz", None) is not None or getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None) is not None
    )


def _percent(share: float) -> str:
    return f"{share:.1%}" if share else "-"


def _listed(names: list[Any], most: int = 12) -> str:
    return ", ".join(map(repr, names[:most])) + (f" and {len(names) - most} more" if len(names) > most else "")
