"""What the readers of frames hand on: series at their own time stamps, to be placed on regular grids."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import covariates
from diffusionkit.timeseries.grids import Grids, check_order
from diffusionkit.timeseries.panel import Block


@dataclass(frozen=True)
class Request:
    """How a frame is to be read; see `frames.read`."""

    freq: Any
    known: tuple[Hashable, ...]
    past: tuple[Hashable, ...]
    schema: Mapping[str, Any] | None
    long: tuple[Hashable, Hashable, Hashable]

    def zoned(self, index: pd.DatetimeIndex, what: str) -> pd.DatetimeIndex:
        """The time stamps in the zone of the model.

        Raises:
            UserError: if only one of both has a zone.
        """
        return index if self.schema is None else same_zone(index, self.schema["tz"], what, "the model's")


def same_zone(index: pd.DatetimeIndex, zone: Any, what: str, other: str) -> pd.DatetimeIndex:
    """The time stamps in a zone.

    Raises:
        UserError: if only one of both has a zone.
    """
    if (index.tz is None) != (zone is None):
        lacking = f"{what} have no time zone, and {other} have {zone}; set it with tz_localize"
        having = f"{what} have time zone {index.tz}, and {other} have none; drop it with tz_localize(None)"
        raise UserError(lacking if index.tz is None else having)
    return index if zone is None else index.tz_convert(zone)


@dataclass(frozen=True)
class Piece:
    """Series at their own sorted time stamps, with gaps; arrays as in `Block`, and those of coming times apart.

    Attributes:
        future: (m,) time stamps beyond the last, or None.
        ahead: (m, D or 1, K) covariates known for them.
    """

    names: tuple[Hashable, ...]
    index: pd.DatetimeIndex
    values: NDArray[np.float64]
    past: NDArray[np.float64]
    known: NDArray[np.float64]
    future: pd.DatetimeIndex | None = None
    ahead: NDArray[np.float64] | None = None

    @property
    def said(self) -> str:
        """What messages call it."""
        return f"series {self.names[0]!r}" if len(self.names) == 1 else "the frame"


@dataclass(frozen=True)
class Reading:
    """What a reader found.

    Attributes:
        pieces: the series.
        kind: of the data: wide, long, series, array or entries.
        index: what the times were: time, period or number.
        freq: the frequency that the data state, if they do.
        known: descriptions of the covariates known ahead.
        past: of the others.
        static: what does not change with time, if the data hold it.
    """

    pieces: list[Piece]
    kind: str
    index: str = "time"
    freq: str | None = None
    known: list[dict[str, Any]] = field(default_factory=list)
    past: list[dict[str, Any]] = field(default_factory=list)
    static: pd.DataFrame | None = None


def described(
    df: pd.DataFrame, future: pd.DataFrame | None, request: Request
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The descriptions of the covariates known ahead and of the others.

    Raises:
        UserError: for a column that a frame lacks.
    """
    schema, found = request.schema, []
    for key, names in (("known", request.known), ("past", request.past)):
        names = [covariates.unplain(spec["name"]) for spec in schema[key]] if schema else names
        for name in names:
            if name not in df:
                raise UserError(
                    f"covariate {name!r} of {key} is not in the frame; its columns are {list(df.columns)[:12]}"
                )
            if key == "known" and future is not None and name not in future:
                raise UserError(f"covariate {name!r} is not in future, which must hold every covariate known ahead")
        ahead = None if key == "past" else future
        found.append(list(schema[key]) if schema else [covariates.describe(df[name], name, ahead) for name in names])
    return found[0], found[1]


def refuse(pieces: Sequence[Piece], known: Sequence[str], past: Sequence[str]) -> None:
    """Refuses what no model can be fitted on.

    Raises:
        UserError: naming the first series without a value, or the first infinite value.
    """
    for piece in pieces:
        if not len(piece.index):
            raise UserError(f"{piece.said} holds no rows")
        empty = np.isnan(piece.values).all(axis=0)
        if empty.any():
            raise UserError(
                f"series {piece.names[int(empty.argmax())]!r} holds no value, all are missing; leave it out"
            )
        _infinite(piece.values, piece.index, lambda column, piece=piece: f"series {piece.names[column]!r}")
        for values, index, labels in (
            (piece.known, piece.index, known), (piece.past, piece.index, past), (piece.ahead, piece.future, known),
        ):  # fmt: skip
            if values is not None:
                for place, label in enumerate(labels):
                    _infinite(
                        values[:, :, place], index, lambda _, label=label, p=piece: f"covariate {label!r} of {p.said}"
                    )


def _infinite(values: NDArray[np.float64], index: pd.DatetimeIndex, said: Any) -> None:
    infinite = np.isinf(values)
    if infinite.any():
        row, column = np.argwhere(infinite)[0]
        raise UserError(f"{said(column)} is infinite at {index[row]}; give a number or leave it missing")


def place(pieces: Sequence[Piece], freq: str, fitted: bool) -> list[Block]:
    """Every piece on the regular grid from its first to its last time stamp, NaN between its own.

    Args:
        pieces: sorted by time.
        freq: of the grids.
        fitted: whether the frequency is that of a model.

    Raises:
        UserError: for time stamps off the grid, or a grid that is much finer than the time stamps.
    """
    made, shortest = Grids(freq), []
    blocks = []
    for piece in pieces:
        grid, places = made.place(piece.index, piece.said)
        shortest.append(np.diff(places).min() if len(places) > 2 else 0)
        blocks.append(_placed(piece, grid, places, made))
    gaps = [gap for gap in shortest if gap]
    if gaps and min(gaps) > 1:
        piece = pieces[shortest.index(gaps[0])]
        whose = "the model's steps" if fitted else "steps"
        raise UserError(
            f"{piece.said}: no two time stamps are one step of {freq!r} apart, the first two are {piece.index[0]} and "
            f"{piece.index[1]}; {whose} of {freq!r} do not fit them"
        )
    return blocks


def _placed(piece: Piece, grid: pd.DatetimeIndex, places: NDArray[np.intp], made: Grids) -> Block:
    rows, beyond = len(grid), 0
    if piece.future is not None and len(piece.future):
        check_order(piece.future, f"future of {piece.said}")
        after = piece.future > grid[-1]
        if after.any():
            span = made.between(grid[-1], piece.future[-1])
            steps = span.get_indexer(piece.future[after])
            if (steps < 0).any():
                off = piece.future[after][int((steps < 0).argmax())]
                raise UserError(f"future of {piece.said}: time stamp {off} is off the grid of frequency {made.freq!r}")
            beyond = len(span) - 1
    known = _scattered(piece.known, places, rows + beyond)
    if beyond:
        known[rows - 1 + steps] = piece.ahead[after]
    values, past = (_scattered(array, places, rows) for array in (piece.values, piece.past))
    return Block(piece.names, grid, values, past, known)


def _scattered(array: NDArray[np.float64], places: NDArray[np.intp], rows: int) -> NDArray[np.float64]:
    if len(array) == rows:
        return array
    spread = np.full((rows, *array.shape[1:]), np.nan)
    spread[places] = array
    return spread


def merge(blocks: Sequence[Block], freq: str) -> list[Block]:
    """One block of all series, from the first to the last time of any; NaN where one has not begun or has ended.

    Raises:
        UserError: if a series lies on another grid of the same frequency.
    """
    if len(blocks) == 1:
        return list(blocks)
    grid = Grids(freq).between(min(block.index[0] for block in blocks), max(block.index[-1] for block in blocks))
    starts = grid.get_indexer(pd.DatetimeIndex([block.index[0] for block in blocks]))
    if (starts < 0).any():
        off = blocks[int((starts < 0).argmax())]
        raise UserError(
            f"series {off.names[0]!r} begins at {off.index[0]}, off the grid of frequency {freq!r} from {grid[0]} on which "
            "the others lie; with joint=False each series has its own grid"
        )
    rows = max(len(grid), *(int(start) + len(block.known) for start, block in zip(starts, blocks, strict=True)))
    size = len(blocks)
    values, past = np.full((len(grid), size), np.nan), np.full((len(grid), size, blocks[0].past.shape[2]), np.nan)
    known = np.full((rows, size, blocks[0].known.shape[2]), np.nan)
    for column, (start, block) in enumerate(zip(starts, blocks, strict=True)):
        values[start : start + len(block), column] = block.values[:, 0]
        past[start : start + len(block), column] = block.past[:, 0]
        known[start : start + len(block.known), column] = block.known[:, 0]
    return [Block(tuple(block.names[0] for block in blocks), grid, values, past, known)]


def separate(blocks: Sequence[Block]) -> list[Block]:
    """A block for each series."""
    return [
        Block((name,), block.index, block.values[:, [d]], _of(block.past, d), _of(block.known, d))
        for block in blocks
        for d, name in enumerate(block.names)
    ]


def _of(array: NDArray[np.float64], series: int) -> NDArray[np.float64]:
    return array if array.shape[1] == 1 else array[:, [series]]


__all__ = ["Piece", "Reading", "Request", "described", "merge", "place", "refuse", "same_zone", "separate"]
