"""What a frequency says: the names of its steps, its seasons and lags, where in the calendar a time lies, and the times to come.

Everything follows from the frequency and from the time itself, nothing from the span of the data: a model sees a Monday
in March the same way whatever else its frame holds.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.tseries.frequencies import to_offset

from diffusionkit.errors import UserError

_OLD = {
    "d": "D", "b": "B", "w": "W", "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "M": "ME", "BM": "BME",
    "Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "AS": "YS", "BA": "BYE", "BY": "BYE", "BAS": "BYS",
}  # fmt: skip
"""Names before pandas 2.2, and names of periods; a period that is not said to start or end means its end."""
_ANCHORS = {
    **dict.fromkeys(("QS", "BQS", "YS", "BYS"), "JAN"), **dict.fromkeys(("QE", "BQE", "YE", "BYE"), "DEC"), "W": "SUN",
}  # fmt: skip
"""What pandas takes for the anchor of a name without one."""
_DAYS = "MON TUE WED THU FRI SAT SUN".split()
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
_UNITS = {"D": 86400 * 10**9, "h": 3600 * 10**9, "min": 60 * 10**9, "s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
_PER_YEAR = {"M": 12, "Q": 4, "W": 52, "Y": 1}
_CYCLES = {"h": (86400, 604800), "min": (3600, 86400, 604800), "s": (60, 3600, 86400), "ms": (1,)}
"""Seconds of the cycles within which a step of this kind lies; the last one is never the main season."""
_LONGEST = 500
"""Steps of the main season that a window can hold: the day of "5min", but the hour of "min"."""
_LAGS = {"D": (1, 7, 14), "B": (1, 2), "min": (1, 4, 12, 24, 48)}
_HARMONICS = {
    "Y": (), "Q": ("year",), "M": ("year",), "W": ("month", "year"), "B": ("week", "month", "year"),
    "D": ("week", "month", "year"), "h": ("day", "week", "year"), "min": ("hour", "day", "week"),
    "s": ("minute", "hour", "day"), "ms": ("second", "minute", "hour"),
}  # fmt: skip


@lru_cache
def normalise(freq: Any) -> str:
    """The one name of a frequency: "H" and "60min" become "h", "M" becomes "ME", "QS-OCT" becomes "QS".

    Args:
        freq: an alias of pandas, old or new, or an offset.

    Raises:
        UserError: if pandas knows no such frequency, or its steps go back or stand still.
    """
    text = _text(freq)
    unknown = UserError(
        f"freq: {text!r} is no known frequency; give one of pandas' aliases, such as h, D, B, W, MS, QS or 5min"
    )
    found = re.fullmatch(r"(-?[\d.]*)([A-Za-z]+)(-[A-Za-z]+)?", text.strip())
    if found is None:
        raise unknown
    count, name, anchor = found[1], found[2], found[3] or ""
    try:
        offset = to_offset(f"{count}{_OLD.get(name, name)}{anchor.upper()}")
    except (ValueError, TypeError):
        raise unknown from None
    if offset is None or offset.n < 1:
        raise UserError(f"freq: {text!r} does not lead forwards; give a frequency of one or more whole steps")
    span = _span(offset)
    if span is None:
        return _anchored(offset)
    unit = next(unit for unit, size in _UNITS.items() if span % size == 0)
    return _counted(span // _UNITS[unit], unit)


def _text(freq: Any) -> str:
    offset = to_offset(freq) if isinstance(freq, timedelta) else freq
    return offset.freqstr if isinstance(offset, pd.offsets.BaseOffset) else str(offset)


def _span(offset: pd.offsets.BaseOffset) -> int | None:
    """Nanoseconds of a step that always lasts the same, a day taken for one."""
    if isinstance(offset, pd.offsets.Day):
        return offset.n * _UNITS["D"]
    return pd.Timedelta(offset).value if isinstance(offset, pd.tseries.offsets.Tick) else None


def _anchored(offset: pd.offsets.BaseOffset) -> str:
    name, _, anchor = offset.rule_code.partition("-")
    if name in ("QS", "QE", "BQS", "BQE"):  # every third month: four anchors are one grid
        usual = _MONTHS.index(_ANCHORS[name])
        anchor = _MONTHS[(usual + (_MONTHS.index(anchor) - usual) % 3) % 12]
    return _counted(offset.n, name if anchor in ("", _ANCHORS.get(name)) else f"{name}-{anchor}")


def _counted(count: int, name: str) -> str:
    return name if count == 1 else f"{count}{name}"


def starting(freq: Any) -> str:
    """The frequency of the first days of periods whose last days have this one: "MS" of "ME", "W-MON" of "W"."""
    count, name, anchor = _parts(normalise(freq))
    if name in ("ME", "QE", "YE"):
        anchor = anchor or "DEC"
        return normalise(_counted(count, f"{name[0]}S") + (f"-{_after(anchor, _MONTHS)}" if name != "ME" else ""))
    return normalise(f"{_counted(count, name)}-{_after(anchor or 'SUN', _DAYS)}") if name == "W" else normalise(freq)


def _after(name: str, cycle: list[str]) -> str:
    return cycle[(cycle.index(name) + 1) % len(cycle)]


def fitting(freq: Any, index: pd.DatetimeIndex) -> str:
    """As `normalise`, where a name that leaves something open means what the times do.

    "W" is then any day of the week, "QS" any month, and the names of periods "M", "Q" and "Y" are their starts or ends.
    """
    alias, text = normalise(freq), _text(freq).strip()
    options = [alias]
    if re.fullmatch(r"\d*[MQAY](-[A-Za-z]{3})?", text):
        options.append(starting(alias))
    if "-" not in text:
        options += [f"{option}-{anchor}" for option in options for anchor in _open(_parts(option)[1])]
    ends = [] if not len(index) else [index[0].tz_localize(None), index[-1].tz_localize(None)]
    fits = (option for option in options if all(to_offset(option).is_on_offset(end) for end in ends))
    return normalise(next(fits, alias))


def _open(name: str) -> list[str]:
    """The anchors that a name may mean."""
    return _DAYS if name == "W" else _MONTHS if name in _ANCHORS else []


def _parts(freq: str) -> tuple[int, str, str]:
    count, name, anchor = re.fullmatch(r"(\d*)([A-Za-z]+)-?([A-Z]*)", freq).groups()
    return int(count or 1), name, anchor


def family(freq: str) -> str:
    """The kind of step: Y, Q, M, W, B, D, h, min, s or ms (anything shorter counts as ms)."""
    count, name, _ = _parts(normalise(freq))
    if name in ("ms", "us", "ns"):
        return "ms"
    if name == "D" and count % 7 == 0:
        return "W"
    if name in ("h", "min", "s", "W", "B", "C", "D"):
        return {"C": "B"}.get(name, name)
    for letter in ("Y", "Q"):
        if letter in name:
            return letter
    return "M"


def seasons(freq: str) -> tuple[int, ...]:
    """Seasonal periods in steps, the main one first: (24, 168) of "h", (288, 2016) of "5min", (7,) of "D", (1,) without any."""
    kind, (count, _, _) = family(freq), _parts(normalise(freq))
    if kind in _PER_YEAR:
        weeks = 7 if normalise(freq).endswith("D") else 1
        periods = [_PER_YEAR[kind] * weeks / count]
    elif kind in ("B", "D"):
        periods = [{"B": 5, "D": 7}[kind] / count]
    else:
        span = _span(to_offset(normalise(freq)))
        periods = [size * _UNITS["s"] / span for size in _CYCLES[kind]]
        main = max((period for period in periods[:-1] if 2 <= period <= _LONGEST), default=periods[-1])
        periods = [period for period in periods if period >= main]
    return tuple(int(period) for period in periods if period >= 2 and period == int(period)) or (1,)


def season(freq: str) -> int:
    """The main seasonal period in steps: 24 of "h", 5 of "B", 7 of "D", 12 of "MS", 4 of "QS", 52 of "W", 60 of "min", else 1."""
    return seasons(freq)[0]


def lags(freq: str) -> tuple[int, ...]:
    """Steps back whose values a recurrent network is shown beside the last one.

    Those of the TimeGrad reference (Rasul et al. 2021): months 1, 12; days 1, 7, 14; business days 1, 2; hours 1, 24, 168;
    minutes 1, 4, 12, 24, 48; else 1. Steps of several months or hours keep the year, the day and the week.
    """
    kind, (count, _, _) = family(freq), _parts(normalise(freq))
    if kind in ("M", "h"):
        return tuple(sorted({1, *seasons(freq)}))
    return _LAGS[kind] if kind == "min" or (kind in _LAGS and count == 1) else (1,)


def feature_names(freq: str) -> tuple[str, ...]:
    """The names of the columns of `features`, such as ("day_sin", "day_cos", "week_sin", "week_cos")."""
    return tuple(f"{name}_{wave}" for name in _HARMONICS[family(freq)] for wave in ("sin", "cos"))


def features(index: pd.DatetimeIndex, freq: str) -> NDArray[np.float32]:
    """Where in the calendar each time lies, as sine and cosine of its phase.

    Each phase is a share of a fixed period (a day, seven days, 31 days, 366 days, ...), so that a time has the same
    features in every frame. Times with a zone are read off the clock of that zone.

    Args:
        index: (T,) times.
        freq: chooses the periods: hours have the day, the week and the year, minutes the hour, the day and the week.

    Returns:
        (T, F), columns as in `feature_names`; F is 0 for years.
    """
    phases = [_phase(index, name) for name in _HARMONICS[family(freq)]]
    waves = [wave(2 * np.pi * phase) for phase in phases for wave in (np.sin, np.cos)]
    return np.stack(waves, axis=1).astype(np.float32) if waves else np.zeros((len(index), 0), np.float32)


def _phase(index: pd.DatetimeIndex, name: str) -> NDArray[np.float64]:
    second = index.second.to_numpy() + index.microsecond.to_numpy() / 1e6
    minute = index.minute.to_numpy() + second / 60
    hour = index.hour.to_numpy() + minute / 60
    return {
        "second": lambda: second % 1,
        "minute": lambda: second / 60,
        "hour": lambda: minute / 60,
        "day": lambda: hour / 24,
        "week": lambda: index.day_of_week.to_numpy() / 7,
        "month": lambda: (index.day.to_numpy() - 1) / 31,
        "year": lambda: (index.day_of_year.to_numpy() - 1) / 366,
    }[name]()


def extend(index: pd.DatetimeIndex, steps: int, freq: str) -> pd.DatetimeIndex:
    """The `steps` times after the last one of the index, its zone and resolution kept."""
    coming = pd.date_range(index[-1], periods=steps + 1, freq=normalise(freq))[1:]
    return coming.as_unit(index.unit).rename(index.name)


__all__ = [
    "extend",
    "family",
    "feature_names",
    "features",
    "fitting",
    "lags",
    "normalise",
    "season",
    "seasons",
    "starting",
]
