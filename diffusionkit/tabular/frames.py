"""Between columns of frames and plain arrays: what a column holds, its numbers and dates as integers or floats, and back."""

from __future__ import annotations

import datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pandas.api.types import infer_dtype, is_object_dtype, pandas_dtype

from diffusionkit.errors import UserError

NUMBERS = ("number", "timedelta", "datetime", "date")
"""The families whose values are turned into numbers."""

_OBJECTS = {
    "string": "text", "boolean": "boolean", "integer": "number", "floating": "number", "date": "date",
    "interval": "interval", "empty": "none",
}  # fmt: skip
_ADVICE = {
    "decimal": "Decimal objects; convert them with astype(float)",
    "datetime": "objects of dates and times; convert them with pandas.to_datetime",
    "datetime64": "objects of dates and times; convert them with pandas.to_datetime",
    "timedelta": "objects of time spans; convert them with pandas.to_timedelta",
    "bytes": "bytes; convert them to text",
}


def family(series: pd.Series, name: Any) -> str:
    """What the values are: number, boolean, text, datetime, timedelta, date, interval, or none where all are missing.

    Raises:
        UserError: for values of several types, or of one that no table model has a use for.
    """
    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return "none" if series.isna().all() else family(pd.Series(dtype.categories), name)
    if series.isna().all():
        return "none"
    if isinstance(dtype, pd.StringDtype):
        return "text"
    if isinstance(dtype, pd.IntervalDtype):
        return "interval"
    if is_object_dtype(dtype):
        return _object_family(series, name)
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_date(dtype.pyarrow_dtype):
        return "date"
    kinds = {"b": "boolean", "i": "number", "u": "number", "f": "number", "M": "datetime", "m": "timedelta"}
    kinds["U"] = "text"
    if dtype.kind not in kinds or isinstance(dtype, pd.PeriodDtype):
        raise UserError(f"column {name!r}: dtype {dtype} is not supported; convert it to numbers, text or dates")
    return kinds[dtype.kind]


def _object_family(series: pd.Series, name: Any) -> str:
    found = infer_dtype(series, skipna=True)
    if found in _OBJECTS:
        return _OBJECTS[found]
    if found in _ADVICE:
        raise UserError(f"column {name!r} holds {_ADVICE[found]}")
    types = list(dict.fromkeys(t.__name__ for t in series.dropna().map(type).unique()))
    if len(types) > 1:
        said = f"values of several types, such as {types[0]} and {types[1]}; convert them to one"
    else:
        said = f"objects of type {types[0]}; convert them to numbers, text or dates"
    raise UserError(f"column {name!r} holds {said}")


def unit(series: pd.Series) -> str:
    """The resolution of dates and spans: D, s, ms, us or ns."""
    dtype = series.dtype
    if isinstance(dtype, pd.ArrowDtype):
        return "D" if pa.types.is_date(dtype.pyarrow_dtype) else dtype.pyarrow_dtype.unit
    return "D" if is_object_dtype(dtype) else np.datetime_data(dtype)[0] if isinstance(dtype, np.dtype) else dtype.unit


def numbers(series: pd.Series, of: str, resolution: str | None, name: Any) -> NDArray[np.generic]:
    """The values of a column (n,) without missing ones as int64, uint64 or float64.

    Args:
        series: the column.
        of: its family.
        resolution: of dates and spans.
        name: of the column, for messages.

    Raises:
        UserError: for infinities, and for dates beyond what the resolution can say.
    """
    if of in ("datetime", "timedelta", "date"):
        return _moments(series, of, resolution or "ns", name)
    array = series.to_numpy()
    if array.dtype == object:
        array = np.array(array.tolist())
    if array.dtype.kind not in "iuf":
        raise UserError(f"column {name!r} holds whole numbers too large for 64 bits; convert it to text or to floats")
    if array.dtype.kind == "f":
        array = array.astype(np.float64)
        infinite = int(np.isinf(array).sum())
        if infinite:
            raise UserError(
                f"column {name!r} holds {infinite} infinite values; replace them by numbers or by missing values"
            )
        return array
    large = array.dtype.kind == "u" and len(array) and array.max() > np.iinfo(np.int64).max
    return array.astype(np.uint64 if large else np.int64)


def _moments(series: pd.Series, of: str, resolution: str, name: Any) -> NDArray[np.int64]:
    letter = "m" if of == "timedelta" else "M"
    if of == "date":
        return np.array(series.tolist(), dtype="datetime64[D]").astype(np.int64)
    if isinstance(series.dtype, pd.ArrowDtype):
        kind, zone = series.dtype.pyarrow_dtype, getattr(series.dtype.pyarrow_dtype, "tz", None)
        series = series.astype(
            f"{'timedelta' if letter == 'm' else 'datetime'}64[{kind.unit}{', ' + zone if zone else ''}]"
        )
    if getattr(series.dtype, "tz", None) is not None:
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    try:
        values = pd.Series(series).astype(f"{'timedelta' if letter == 'm' else 'datetime'}64[{resolution}]")
    except (ValueError, OverflowError) as error:
        raise UserError(f"column {name!r} holds dates beyond the range of the resolution {resolution}") from error
    return values.to_numpy().view(np.int64)


def restore(values: NDArray[np.generic], dtype: Any, of: str, resolution: str | None) -> pd.Series:
    """The inverse of `numbers` for values that are not missing."""
    if of == "date":
        objects = pd.Series(values.astype("datetime64[D]").astype(object), dtype=object)
        return objects.astype(dtype)
    if of == "timedelta":
        return pd.Series(values.astype(np.int64).view(f"m8[{resolution}]")).astype(dtype)
    if of == "datetime":
        moments = pd.Series(values.astype(np.int64).view(f"M8[{resolution}]"))
        zone = getattr(dtype, "tz", None) or getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None)
        if zone is not None:
            moments = moments.dt.tz_localize("UTC").dt.tz_convert(zone)
        return moments.astype(dtype)
    return pd.Series(values).astype(dtype)


def dtype_name(dtype: Any, name: Any) -> str:
    """A name by which `named_dtype` finds the dtype again.

    Raises:
        UserError: if there is none.
    """
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if isinstance(dtype, pd.StringDtype):
        return "str" if dtype.na_value is not pd.NA else f"string[{dtype.storage}]"
    text = str(dtype)
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_string(dtype.pyarrow_dtype):
        return "string[arrow]"
    try:
        if named_dtype(text) == dtype:
            return text
    except (TypeError, ValueError, NotImplementedError):
        pass
    raise UserError(f"column {name!r}: dtype {text} is not supported; convert it to numbers, text or dates")


def named_dtype(name: str) -> Any:
    """The dtype of this name."""
    return pd.ArrowDtype(pa.string()) if name == "string[arrow]" else pandas_dtype(name)


def to_plain(value: Any, name: Any) -> Any:
    """A level as JSON can keep it.

    Raises:
        UserError: for a type that it cannot.
    """
    if isinstance(value, pd.Interval):
        return {"interval": [to_plain(value.left, name), to_plain(value.right, name), value.closed]}
    if isinstance(value, pd.Timestamp):
        zone = str(value.tz) if value.tz is not None else None
        return {"timestamp": [(value.tz_convert("UTC").tz_localize(None) if zone else value).isoformat(), zone]}
    if isinstance(value, pd.Timedelta):
        return {"timedelta": value.isoformat()}
    if isinstance(value, datetime.date):
        return {"date": value.isoformat()}
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, (str, bool, int, float)):
        return value
    raise UserError(f"column {name!r} holds levels of type {type(value).__name__}; convert them to text")


def from_plain(value: Any) -> Any:
    """The inverse of `to_plain`."""
    if not isinstance(value, dict):
        return value
    [(kind, content)] = value.items()
    if kind == "interval":
        return pd.Interval(from_plain(content[0]), from_plain(content[1]), closed=content[2])
    if kind == "timestamp":
        moment = pd.Timestamp(content[0])
        return moment.tz_localize("UTC").tz_convert(content[1]) if content[1] else moment
    return pd.Timedelta(content) if kind == "timedelta" else datetime.date.fromisoformat(content)
