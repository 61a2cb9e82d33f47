"""Observed values and paths as frames, and values looked up in them by series and time."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries.covariates import numbers
from diffusionkit.timeseries.frames import LONG
from diffusionkit.timeseries.grids import stamps
from diffusionkit.timeseries.pieces import same_zone
from diffusionkit.timeseries.wide import timed

ID, TIME, VALUE = LONG


def is_long(frame: pd.DataFrame) -> bool:
    """Whether a frame has the columns unique_id, ds and y."""
    return all(label in frame.columns for label in LONG)


def observed(frame: pd.DataFrame, names: tuple[Hashable, ...], tz: Any, what: str) -> pd.DataFrame:
    """What a frame holds of some series, as float64, with time stamps in a time zone.

    Args:
        frame: of time x series, or long with unique_id, ds and y; it may hold other series and columns.
        names: of the series.
        tz: the time zone, or None.
        what: the frame's name, for messages.

    Returns:
        A frame of time x `names`, or a long one of unique_id, ds and y.

    Raises:
        UserError: if a series is missing, a value is no number, or only one of the frame and `tz` has a time zone.
    """
    other = "those of the forecast"
    if not is_long(frame):
        index, columns = timed(frame, TIME, what)
        missing = [name for name in names if name not in columns.columns]
        if missing:
            raise UserError(f"{what}: series {missing[0]!r} is missing")
        values = numbers(columns[list(names)], f"{what}: column")
        index = same_zone(index, tz, f"{what}: the time stamps", other)
        return pd.DataFrame(values, index=index, columns=list(names))
    places = pd.Index(names, tupleize_cols=False).get_indexer(frame[ID])
    missing = np.setdiff1d(np.arange(len(names)), places)
    if len(missing):
        raise UserError(f"{what}: series {names[missing[0]]!r} is missing")
    rows = frame.loc[places >= 0] if (places < 0).any() else frame
    index = same_zone(stamps(rows[TIME], f"{what}: column {TIME!r}"), tz, f"{what}: the time stamps", other)
    ids = pd.Index(names, tupleize_cols=False).take(places[places >= 0])
    return long_table(ids, index, numbers(rows[[VALUE]], f"{what}: column")[:, 0])


def look_up(table: pd.DataFrame, names: tuple[Hashable, ...], grid: np.ndarray, what: str) -> np.ndarray:
    """The values of `observed` at some times of each series: (H, D), NaN where there are none.

    Args:
        table: of `observed`.
        names: of the D series.
        grid: (H, D) times, UTC where there is a time zone.
        what: the table's name, for messages.

    Raises:
        UserError: if a time stamp stands twice, or no time is found.
    """
    columns = np.broadcast_to(np.arange(len(names)), grid.shape)
    if is_long(table):
        places = pd.Index(names, tupleize_cols=False).get_indexer(table[ID])
        index, values = pd.DatetimeIndex(table[TIME]), table[VALUE].to_numpy()[:, None]
        keys = pd.MultiIndex.from_arrays([places, utc(index)])
        wanted = pd.MultiIndex.from_arrays([columns.ravel(), grid.ravel()])
        columns = np.zeros_like(columns)
    else:
        index, values = table.index, table.to_numpy()
        keys, wanted = pd.DatetimeIndex(utc(index)), pd.DatetimeIndex(grid.ravel())
    if not keys.is_unique:
        raise UserError(f"{what}: time stamp {index[keys.duplicated()][0]} stands twice; each may stand only once")
    rows = keys.get_indexer(wanted).reshape(grid.shape)
    if (rows < 0).all():
        raise UserError(f"{what}: has no row at the times of the forecast, {grid.min()} to {grid.max()}")
    return np.where(rows >= 0, values[rows, columns], np.nan)


def long_table(ids: pd.Index, times: pd.DatetimeIndex, values: np.ndarray) -> pd.DataFrame:
    """A frame of unique_id, ds and y."""
    return pd.DataFrame({ID: ids, TIME: times, VALUE: values})


def long_paths(samples: np.ndarray, ids: pd.Index, times: pd.DatetimeIndex, first: int = 0) -> pd.DataFrame:
    """Paths (S, H, D) as rows of unique_id, ds, sample_id (from `first` on) and y: paths, in them series, in them times.

    Args:
        samples: the paths.
        ids: (D H,) of `Forecast.ids`.
        times: (D H,) of `Forecast.stamps`.
        first: number of the first path.
    """
    rows = np.tile(np.arange(len(ids)), len(samples))
    frame = long_table(ids.take(rows), times.take(rows), samples.swapaxes(1, 2).ravel())
    frame.insert(2, "sample_id", np.arange(first, first + len(samples)).repeat(len(ids)))
    return frame


def utc(index: pd.DatetimeIndex) -> np.ndarray:
    """(n,) datetime64 in UTC, or as they are where there is no time zone."""
    return (index if index.tz is None else index.tz_convert("UTC").tz_localize(None)).to_numpy()


def zoned(times: np.ndarray, tz: Any) -> pd.DatetimeIndex:
    """The index of datetime64 in UTC, in a time zone; without one they are kept as they are."""
    index = pd.DatetimeIndex(times)
    return index if tz is None else index.tz_localize("UTC").tz_convert(tz)


def common(times: Any, tz: Any) -> tuple[pd.DatetimeIndex | np.ndarray, Any]:
    """Times (H,) or (H, D) as an index if all series have the same, and their time zone."""
    if not isinstance(times, pd.DatetimeIndex):
        times = np.asarray(times, dtype="M8") if np.asarray(times).dtype.kind != "M" else np.asarray(times)
        if times.ndim == 2 and times.shape[1] and not (times == times[:, :1]).all():
            return times, tz
        times = zoned(times[:, 0] if times.ndim == 2 else times, tz)
    return times, times.tz
