"""Reading GluonTS entries: dictionaries with "start" and "target"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.pieces import Piece, Reading, Request
from diffusionkit.timeseries.wide import plain_names

KNOWN, PAST = "feat_dynamic_real", "past_feat_dynamic_real"
LEVELS, REALS = "feat_static_cat", "feat_static_real"


def read_entries(data: Iterable[Mapping[str, Any]], request: Request) -> Reading:
    """A data set of GluonTS: univariate entries, or one whose target is (series, time).

    `feat_dynamic_real` may reach beyond the target; static features become a frame.

    Raises:
        UserError: naming the entry and what it lacks.
    """
    found = list(data)
    if not found:
        raise UserError("the data set has no entries")
    for place, entry in enumerate(found):
        if not isinstance(entry, Mapping) or "start" not in entry or "target" not in entry:
            raise UserError(
                f"entry {place} of the data must be a GluonTS entry, a dictionary with 'start' and 'target'"
            )
    freq = _freq(found, request)
    pieces = [_piece(entry, place, freq) for place, entry in enumerate(found)]
    if len(pieces) > 1 and any(len(piece.names) > 1 for piece in pieces):
        raise UserError(
            f"the data set has {len(pieces)} entries of several series; give one entry, whose target is (series, time)"
        )
    names = [name for piece in pieces for name in piece.names]
    double = pd.Index(names)[pd.Index(names).duplicated()]
    if len(double):
        raise UserError(f"item_id {double[0]!r} stands in more than one entry; each may stand only once")
    known, past = (_specs([_count(entry, key) for entry in found], key) for key in (KNOWN, PAST))
    for ours, key in ((known, "known"), (past, "past")):
        if request.schema is not None and ours != list(request.schema[key]):
            raise UserError(f"the entries have {len(ours)} covariates in {KNOWN if key == 'known' else PAST}, and the model "
                            f"was fitted on {len(request.schema[key])}")  # fmt: skip
    index = "period" if isinstance(found[0]["start"], pd.Period) else "time"
    return Reading(pieces, "entries", index, freq, known, past, _static(found, names))


def _freq(entries: Sequence[Mapping[str, Any]], request: Request) -> str:
    start = entries[0]["start"]
    if isinstance(start, pd.Period):
        return calendar.starting(start.freqstr)
    freq = request.schema["freq"] if request.schema else request.freq or getattr(start, "freq", None)
    if freq is None:
        raise UserError("the entries do not say their frequency: give freq, such as freq='h'")
    return calendar.fitting(freq, pd.DatetimeIndex([_start(entries[0], 0)]))


def _start(entry: Mapping[str, Any], place: int) -> pd.Timestamp:
    start = entry["start"]
    try:
        return start.to_timestamp(how="start") if isinstance(start, pd.Period) else pd.Timestamp(start)
    except (ValueError, TypeError) as error:
        raise UserError(f"entry {place}: start {start!r} is no time; give a Period or a Timestamp") from error


def _piece(entry: Mapping[str, Any], place: int, freq: str) -> Piece:
    values = _numbers(entry, "target", place)
    if values.ndim not in (1, 2) or not values.size:
        raise UserError(f"entry {place}: target must be (time,) or (series, time), not {values.shape}")
    values = values.reshape(-1, values.shape[-1]).T
    rows = len(values)
    known, past = _features(entry, KNOWN, place, rows), _features(entry, PAST, place, rows)
    times = pd.date_range(_start(entry, place), periods=max(rows, len(known)), freq=freq)
    names = range(values.shape[1]) if values.shape[1] > 1 else [entry.get("item_id", place)]
    ahead = (times[rows:], known[rows:]) if len(known) > rows else (None, None)
    return Piece(tuple(plain_names(list(names))), times[:rows], values, past[:rows], known[:rows], *ahead)


def _numbers(entry: Mapping[str, Any], key: str, place: int) -> NDArray[np.float64]:
    try:
        return np.asarray(entry[key], dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise UserError(f"entry {place}: {key} must hold numbers, as (time,) or (series, time)") from error


def _features(entry: Mapping[str, Any], key: str, place: int, rows: int) -> NDArray[np.float64]:
    """Covariates of all series of an entry as (time, 1, K)."""
    if not _count(entry, key):
        return np.zeros((rows, 1, 0))
    values = np.atleast_2d(_numbers(entry, key, place))
    if values.shape[1] < rows:
        raise UserError(f"entry {place}: {key} has {values.shape[1]} steps, and the target {rows}")
    return values.T[:, None]


def _count(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    return 0 if value is None or not len(value) else np.atleast_2d(np.asarray(value, dtype=object)).shape[0]


def _specs(counts: list[int], key: str) -> list[dict[str, Any]]:
    if len(set(counts)) > 1:
        place = next(place for place, count in enumerate(counts) if count != counts[0])
        raise UserError(f"entry {place} has {counts[place]} rows in {key}, and entry 0 has {counts[0]}")
    return [{"name": f"{key}_{number}", "kind": "numeric"} for number in range(counts[0])]


def _static(entries: Sequence[Mapping[str, Any]], names: list[Any]) -> pd.DataFrame | None:
    """The static features; those of an entry of several series hold for each of them."""
    columns: dict[str, list[Any]] = {}
    for key in (LEVELS, REALS):
        rows = [np.atleast_1d(entry.get(key, [])).tolist() for entry in entries]
        if len({len(row) for row in rows}) > 1:
            raise UserError(f"the entries have {key} of different lengths")
        for number, column in enumerate(zip(*rows, strict=True)):
            column = [int(level) for level in column] if key == LEVELS else list(column)
            columns[f"{key}_{number}"] = column * (len(names) if len(entries) == 1 else 1)
    if not columns:
        return None
    frame = pd.DataFrame(columns, index=pd.Index(names))
    return frame.astype({name: "category" for name in columns if name.startswith(LEVELS)})


__all__ = ["read_entries"]
