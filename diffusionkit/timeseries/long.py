"""Reading long frames: a row for each series and time."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import covariates, grids
from diffusionkit.timeseries.panel import listed
from diffusionkit.timeseries.pieces import Piece, Reading, Request, described, same_zone
from diffusionkit.timeseries.wide import plain_names


def read_long(df: pd.DataFrame, future: pd.DataFrame | None, request: Request) -> Reading:
    """A frame with columns of names, times and values; covariates are columns of each series' own."""
    name, time, value = request.long
    if not len(df):
        raise UserError("the frame holds no rows")
    known, past = described(df, future, request)
    beside = [covariates.unplain(spec["name"]) for spec in (*known, *past)]
    more = [column for column in df if column not in (name, time, value, *beside)]
    if more:
        raise UserError(
            f"column {more[0]!r} is none of {name}, {time} and {value}: name it in known or past, or leave it out"
        )
    rows = _Rows(df, request, "the frame")
    index = request.zoned(rows.index, "the time stamps of the frame")
    values = covariates.numbers(df[[value]])[rows.order]
    beyond, ahead = _beyond(future, rows, index, request, known)
    encoded = [covariates.encode(df, specs)[rows.order][:, None] for specs in (past, known)]
    pieces = [
        Piece((series,), index[part], values[part], encoded[0][part], encoded[1][part], *_of(beyond, ahead, series))
        for series, part in rows.parts.items()
    ]
    period = grids.period_freq(df[time])
    return Reading(pieces, "long", "period" if period else "time", period, known, past)


class _Rows:
    """Rows grouped by series, in the order of their first rows.

    Attributes:
        order: (rows,) places that group them.
        index: (rows,) their time stamps, grouped.
        parts: where the rows of each series lie.
    """

    def __init__(self, df: pd.DataFrame, request: Request, what: str) -> None:
        name, time, _ = request.long
        for column in (name, time):
            if column not in df:
                raise UserError(f"{what} has no column {column!r}; it has {listed(list(df.columns))}")
        codes, series = pd.factorize(df[name])
        if (codes < 0).any():
            raise UserError(
                f"{what}: column {name!r} of row {int((codes < 0).argmax())} is missing; it names the series"
            )
        names = plain_names(series.tolist())
        self.order = np.argsort(codes, kind="stable")
        self.index = grids.stamps(df[time], f"column {time!r} of {what}")[self.order]
        codes = codes[self.order]
        bounds = np.searchsorted(codes, np.arange(len(names) + 1))
        self.parts = {series: slice(*ends) for series, *ends in zip(names, bounds[:-1], bounds[1:], strict=True)}
        wrong = (np.diff(codes) == 0) & (np.diff(self.index.asi8) <= 0)
        if wrong.any():
            row = int(wrong.argmax())
            said = f"series {names[codes[row]]!r}" + ("" if what == "the frame" else f" of {what}")
            raise grids.disorder(said, self.index[row], self.index[row + 1])


def _beyond(
    future: pd.DataFrame | None, rows: _Rows, index: pd.DatetimeIndex, request: Request, known: list[dict]
) -> tuple[dict[object, pd.DatetimeIndex], dict[object, NDArray[np.float64]]]:
    """The coming times of each series and what is known of them."""
    if future is None:
        return {}, {}
    coming = _Rows(future, request, "future")
    strange = [series for series in coming.parts if series not in rows.parts]
    if strange:
        raise UserError(f"future has series {strange[0]!r}, which the frame has not")
    times = same_zone(coming.index, index.tz, "the time stamps of future", "those of the frame")
    ahead = covariates.encode(future, known)[coming.order][:, None]
    return {s: times[part] for s, part in coming.parts.items()}, {s: ahead[part] for s, part in coming.parts.items()}


def _of(
    beyond: dict[object, pd.DatetimeIndex], ahead: dict[object, NDArray[np.float64]], series: object
) -> tuple[pd.DatetimeIndex | None, NDArray[np.float64] | None]:
    return beyond.get(series), ahead.get(series)


__all__ = ["read_long"]
