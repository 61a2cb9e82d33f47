"""From time stamps to regular grids: reading, checking and placing them, and finding their frequency."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar

_DAY = 86400


def stamps(values: Any, what: str) -> pd.DatetimeIndex:
    """Time stamps of an index or a column; periods begin where they start, texts are parsed.

    Args:
        values: an index or a column.
        what: its name, for messages.

    Raises:
        UserError: if they are none, or some are missing.
    """
    index = pd.Index(values)
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp(how="start")
    if not isinstance(index, pd.DatetimeIndex):
        index = _parsed(index, what)
    if index.hasnans:
        raise UserError(f"{what}: the time stamp of row {int(index.isna().argmax())} is missing")
    return index


def _parsed(index: pd.Index, what: str) -> pd.DatetimeIndex:
    if pd.api.types.is_numeric_dtype(index.dtype):
        raise UserError(f"{what} holds numbers, not time stamps; convert them with pandas.to_datetime")
    try:
        return pd.DatetimeIndex(pd.to_datetime(index))
    except (ValueError, TypeError, OverflowError) as error:
        said = " ".join(str(error).split(". ")[0].split())
        raise UserError(f"{what} holds no time stamps ({said}); convert them with pandas.to_datetime") from error


def period_freq(values: Any) -> str | None:
    """The frequency of the starts of periods, None where the values are none."""
    dtype = getattr(values, "dtype", None)
    return calendar.starting(dtype.freq.freqstr) if isinstance(dtype, pd.PeriodDtype) else None


def check_order(index: pd.DatetimeIndex, of: str) -> None:
    """Refuses time stamps that do not rise.

    Raises:
        UserError: naming the first that stands twice or goes back.
    """
    steps = np.diff(index.asi8)
    if len(steps) and steps.min() <= 0:
        place = int((steps <= 0).argmax())
        raise disorder(of, index[place], index[place + 1])


def disorder(of: str, before: pd.Timestamp, after: pd.Timestamp) -> UserError:
    """What to say of two time stamps that do not rise."""
    if before == after:
        return UserError(f"{of} has time stamp {after} more than once; each may stand only once")
    return UserError(f"{of} is not sorted by time: {after} comes after {before}; sort it")


def choose(freq: Any, indices: Sequence[pd.DatetimeIndex]) -> str:
    """The frequency of series: the given one, or what their time stamps say.

    Args:
        freq: an alias, or None.
        indices: sorted time stamps of each series.

    Raises:
        UserError: if it is unknown or cannot be inferred.
    """
    longest = max(indices, key=len)
    return infer(longest) if freq is None else calendar.fitting(freq, longest)


def infer(index: pd.DatetimeIndex) -> str:
    """The frequency of sorted time stamps; where some are missing, that of the most common step.

    Raises:
        UserError: if there are too few, or the steps have no frequency.
    """
    if len(index) < 2:
        raise UserError("the frequency cannot be inferred from one time stamp; give freq, such as freq='h'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas 3, that it will be an offset, which is as good
        found = pd.infer_freq(index) if len(index) > 2 else None
    return calendar.normalise(found) if found is not None else _guess(index)


def _guess(index: pd.DatetimeIndex) -> str:
    lengths, counts = np.unique(np.diff(index.as_unit("ns").asi8), return_counts=True)
    step = int(lengths[counts.argmax()])
    days = round(step / 1e9 / _DAY, 1)
    local = index.tz_localize(None)
    for least, most, names in ((28, 31, ("MS", "ME", "BMS", "BME")), (90, 92, ("QS", "QE")), (365, 366, ("YS", "YE"))):
        if least <= days <= most:
            fits = (calendar.fitting(name, local) for name in names)
            found = next((name for name in fits if _places(local, name) is not None), None)
            if found is None:
                break
            return found
    if days == 7:
        return calendar.fitting("W", local)
    weekdays = local.day_of_week
    if days == 1 and weekdays.max() < 5 and (len(index) > 5 or (np.diff(weekdays) < 0).any()):
        return "B"
    if counts.max() < 2 and len(lengths) > 1:
        raise UserError(
            f"the frequency cannot be inferred: no two steps between {index[0]} and {index[-1]} are alike; "
            "give freq, such as freq='h'"
        )
    return calendar.normalise(pd.Timedelta(step, "ns"))


def _places(index: pd.DatetimeIndex, freq: str) -> NDArray[np.intp] | None:
    grid = pd.date_range(index[0], index[-1], freq=freq)
    places = grid.get_indexer(index)
    return None if (places < 0).any() else places


class Grids:
    """The regular grids of one frequency; those of series that begin and end alike are made once."""

    def __init__(self, freq: str) -> None:
        self.freq, self._made = freq, {}

    def between(self, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
        """All times from the first to the last."""
        if (first, last) not in self._made:
            grid = pd.date_range(first, last, freq=self.freq).as_unit(first.unit)
            grid.freq = grid.freq or self.freq
            self._made[first, last] = grid
        return self._made[first, last]

    def place(self, index: pd.DatetimeIndex, of: str) -> tuple[pd.DatetimeIndex, NDArray[np.intp]]:
        """The grid that spans time stamps, and where each of them lies on it.

        Raises:
            UserError: naming a time stamp that lies off the grid.
        """
        grid = self.between(index[0], index[-1])
        if len(grid) == len(index) and (grid == index).all():
            return grid, np.arange(len(grid))
        places = grid.get_indexer(index)
        if (places < 0).any():
            off = index[int((places < 0).argmax())]
            raise UserError(
                f"{of}: time stamp {off} is off the grid of frequency {self.freq!r} from {index[0]}; correct it or give freq"
            )
        return grid, places


__all__ = ["Grids", "check_order", "choose", "disorder", "infer", "period_freq", "stamps"]
