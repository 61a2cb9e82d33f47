"""Columns beside the series as numbers: numeric and boolean ones as they are, categorical ones with a column for each level."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import infer_dtype, is_bool_dtype, is_numeric_dtype, is_object_dtype

from diffusionkit.errors import UserError
from diffusionkit.timeseries.panel import listed

MOST_LEVELS = 256
_COUNTABLE = ("integer", "floating", "mixed-integer-float", "decimal", "boolean", "empty")


def plain(value: Any, what: str) -> Any:
    """A name or level as JSON can keep it.

    Raises:
        UserError: for a type that it cannot.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return {"tuple": [plain(part, what) for part in value]}
    if isinstance(value, (str, bool, int, float)):
        return value
    raise UserError(f"{what} {value!r} is of type {type(value).__name__}; give text or numbers")


def unplain(value: Any) -> Any:
    """The inverse of `plain`."""
    return tuple(unplain(part) for part in value["tuple"]) if isinstance(value, dict) else value


def numbers(df: pd.DataFrame, what: str = "column") -> NDArray[np.float64]:
    """Numeric columns as (rows, columns) float64, NaN where missing.

    Raises:
        UserError: naming the first column that holds something else.
    """
    for place, dtype in enumerate(df.dtypes):
        if is_numeric_dtype(dtype) and dtype.kind != "c":
            continue
        held = infer_dtype(df.iloc[:, place], skipna=True) if is_object_dtype(dtype) else str(dtype)
        if held not in _COUNTABLE:
            raise UserError(
                f"{what} {df.columns[place]!r} is not numeric but holds {held} values; convert it, such as with "
                "pandas.to_numeric, or name it as a covariate or leave it out"
            )
    return df.to_numpy(dtype=np.float64, na_value=np.nan)


def describe(column: pd.Series, name: Hashable, future: pd.DataFrame | None = None) -> dict[str, Any]:
    """What a covariate holds: {"name", "kind": numeric, boolean or categorical, "levels"}, as JSON can keep it.

    Args:
        column: its values.
        name: its name.
        future: its coming values, in a column of this name, which may have further levels.

    Raises:
        UserError: for times and objects, and for more than 256 levels.
    """
    found: dict[str, Any] = {"name": plain(name, "covariate")}
    dtype = column.dtype
    if is_bool_dtype(dtype) or (is_object_dtype(dtype) and infer_dtype(column, skipna=True) == "boolean"):
        return found | {"kind": "boolean"}
    if is_numeric_dtype(dtype) and not isinstance(dtype, pd.CategoricalDtype):
        return found | {"kind": "numeric"}
    if isinstance(dtype, pd.CategoricalDtype):
        levels = dtype.categories.tolist()
    elif dtype.kind in "mM" or isinstance(dtype, pd.PeriodDtype):
        raise UserError(f"covariate {name!r} holds {dtype} values; give numbers, booleans or levels")
    else:
        held = infer_dtype(column, skipna=True)
        if held in _COUNTABLE:
            return found | {"kind": "numeric"}
        column = column if future is None else pd.concat([column, future[name]])
        levels = sorted(column.dropna().unique().tolist(), key=lambda level: (type(level).__name__, level))
    if len(levels) > MOST_LEVELS:
        raise UserError(f"covariate {name!r} has {len(levels)} levels, and at most {MOST_LEVELS} are possible")
    return found | {
        "kind": "categorical",
        "levels": [plain(level, f"level of covariate {name!r}:") for level in levels],
    }


def labels(specs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """The names of the encoded columns: that of the covariate, or "name=level"."""
    return tuple(
        str(unplain(spec["name"])) + (f"={unplain(level)}" if level is not None else "")
        for spec in specs
        for level in (spec["levels"] if spec["kind"] == "categorical" else [None])
    )


def encode(df: pd.DataFrame, specs: Sequence[dict[str, Any]]) -> NDArray[np.float64]:
    """Covariates as (rows, columns of `labels`) float64, NaN where missing.

    Args:
        df: has a column for each covariate.
        specs: as `describe` made them.

    Raises:
        UserError: for a level that the model does not know, and for what is not numeric where it was.
    """
    parts = [_encode(df[unplain(spec["name"])], spec) for spec in specs]
    return np.concatenate(parts, axis=1) if parts else np.zeros((len(df), 0))


def _encode(column: pd.Series, spec: dict[str, Any]) -> NDArray[np.float64]:
    if spec["kind"] != "categorical":
        values = numbers(column.to_frame(), "covariate")
        return values
    levels = [unplain(level) for level in spec["levels"]]
    codes, missing = pd.Index(levels, tupleize_cols=False).get_indexer(column), column.isna().to_numpy()
    strange = (codes < 0) & ~missing
    if strange.any():
        raise UserError(
            f"covariate {unplain(spec['name'])!r} has level {column.iloc[int(strange.argmax())]!r}, "
            f"which the model does not know; it knows {listed(levels)}"
        )
    return np.where(missing[:, None], np.nan, np.eye(len(levels))[codes])


def static_rows(
    static: pd.DataFrame | None, names: Sequence[Hashable], key: str, specs: Sequence[dict[str, Any]] | None
) -> tuple[NDArray[np.float64], list[dict[str, Any]]]:
    """What does not change with time, as (series, columns), and its description.

    Args:
        static: a frame indexed by series, or with their names in the column `key`.
        names: of the series, in order.
        key: that column.
        specs: the description if a model has one.

    Raises:
        UserError: naming the series or the column that is missing.
    """
    if static is None:
        if specs:
            raise UserError(
                f"static is missing; the model needs {listed([unplain(s['name']) for s in specs])} of each series"
            )
        return np.zeros((len(names), 0)), []
    rows = static.set_index(key) if key in static else static
    double = rows.index[rows.index.duplicated()]
    if len(double):
        raise UserError(f"static has more than one row for series {double[0]!r}")
    places = rows.index.get_indexer(pd.Index(names, tupleize_cols=isinstance(rows.index, pd.MultiIndex)))
    if (places < 0).any():
        raise UserError(f"static has no row for series {names[int((places < 0).argmax())]!r}")
    rows = rows.iloc[places]
    if specs is None:
        specs = [describe(static[name], name) for name in rows.columns]
    lacking = [unplain(spec["name"]) for spec in specs if unplain(spec["name"]) not in rows]
    if lacking:
        raise UserError(f"static has no column {lacking[0]!r}; it has {listed(list(rows.columns))}")
    values = encode(rows, specs)
    if not np.isfinite(values).all():
        row, column = np.argwhere(~np.isfinite(values))[0]
        raise UserError(
            f"static: {labels(specs)[column]!r} of series {names[row]!r} must be a number, not {values[row, column]}"
        )
    return values, list(specs)


__all__ = ["describe", "encode", "labels", "numbers", "plain", "static_rows", "unplain"]
