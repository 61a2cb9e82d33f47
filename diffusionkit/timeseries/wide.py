"""Reading wide frames, single series and arrays."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, covariates, grids
from diffusionkit.timeseries.panel import listed
from diffusionkit.timeseries.pieces import Piece, Reading, Request, described, same_zone

TIMES = ("ds", "date", "datetime", "time", "timestamp")
ORIGIN = "2000-01-01"


def read_wide(df: pd.DataFrame, future: pd.DataFrame | None, request: Request) -> Reading:
    """A frame of time x series; covariates are columns that all series share."""
    index, columns = timed(df, request.long[1], "the frame")
    index = request.zoned(index, "the time stamps of the frame")
    double = columns.columns[columns.columns.duplicated()]
    if len(double):
        raise UserError(f"the frame has more than one column {double[0]!r}; name each series once")
    if not len(columns):
        raise UserError("the frame holds no rows")
    grids.check_order(index, "the frame")
    coming = None
    if future is not None:
        coming, future = timed(future, request.long[1], "future")
        coming = same_zone(coming, index.tz, "the time stamps of future", "those of the frame")
    known, past = described(columns, future, request)
    beside = [covariates.unplain(spec["name"]) for spec in (*known, *past)]
    names = [name for name in columns if name not in beside]
    if not names:
        raise UserError("the frame has no column of a series")
    ahead = None if future is None else covariates.encode(future, known)[:, None]
    encoded = [covariates.encode(columns, specs)[:, None] for specs in (past, known)]
    piece = Piece(tuple(plain_names(names)), index, covariates.numbers(columns[names]), *encoded, coming, ahead)
    period = grids.period_freq(_time_column(df, request.long[1], "the frame"))
    return Reading([piece], "wide", "period" if period else "time", period, known, past)


def read_array(array: NDArray[np.generic], request: Request) -> Reading:
    """An array (time,) or (time, series), which begins in 2000 and whose series are named 0, 1, ..."""
    if request.schema is not None and request.schema["index"] != "number":
        raise UserError("an array has no time stamps, and the model was fitted with some; give a frame")
    if array.ndim not in (1, 2) or not array.size:
        raise UserError(f"an array must have the shape (time,) or (time, series), not {array.shape}")
    freq = request.schema["freq"] if request.schema else request.freq
    if freq is None:
        raise UserError("an array has no time stamps: give freq, such as freq='h'")
    if array.dtype.kind not in "biufO":
        raise UserError(f"an array must hold numbers, not {array.dtype}")
    values = array.astype(np.float64).reshape(len(array), -1)
    index = pd.date_range(ORIGIN, periods=len(values), freq=calendar.normalise(freq))
    none = np.zeros((len(values), 1, 0))
    return Reading([Piece(tuple(range(values.shape[1])), index, values, none, none)], "array", "number")


def timed(df: pd.DataFrame, name: object, what: str) -> tuple[pd.DatetimeIndex, pd.DataFrame]:
    """The time stamps of a frame and its other columns.

    Raises:
        UserError: if it has none.
    """
    column = _time_column(df, name, what)
    if isinstance(column, pd.Index):
        return grids.stamps(column, f"the index of {what}"), df
    return grids.stamps(column, f"column {column.name!r} of {what}"), df.drop(columns=column.name)


def _time_column(df: pd.DataFrame, name: object, what: str) -> pd.Index | pd.Series:
    if isinstance(df.index, (pd.DatetimeIndex, pd.PeriodIndex)):
        return df.index
    for wanted in (name, *TIMES):
        for column in df.columns:
            if column == wanted or (isinstance(column, str) and column.lower() == wanted):
                return df[column]
    if isinstance(df.index, pd.MultiIndex) or pd.api.types.is_numeric_dtype(df.index.dtype):
        raise UserError(
            f"{what} has no time stamps but the columns {listed(list(df.columns))}; give them as a DatetimeIndex or in a column "
            f"named {' or '.join(TIMES)}"
        )
    return df.index


def plain_names(names: list[object]) -> list[object]:
    """Names without numpy's types, each such that JSON can keep it."""
    return [covariates.unplain(covariates.plain(name, "series")) for name in names]


__all__ = ["plain_names", "read_array", "read_wide", "timed"]
