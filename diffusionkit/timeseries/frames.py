"""From frames, series, arrays and GluonTS data sets to a `Panel`."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, covariates, grids
from diffusionkit.timeseries.entries import read_entries
from diffusionkit.timeseries.long import read_long
from diffusionkit.timeseries.panel import Block, Panel, listed, whole_numbers
from diffusionkit.timeseries.pieces import Reading, Request, merge, place, refuse, separate
from diffusionkit.timeseries.wide import TIMES, read_array, read_wide

LONG = ("unique_id", "ds", "y")


def read(
    data: Any,
    *,
    freq: Any = None,
    joint: bool | None = None,
    known: Sequence[Hashable] = (),
    past: Sequence[Hashable] = (),
    static: pd.DataFrame | None = None,
    future: pd.DataFrame | None = None,
    schema: Mapping[str, Any] | None = None,
    long: Sequence[Hashable] = LONG,
) -> Panel:
    """Reads series onto regular time grids; what is missing between their time stamps is NaN.

    Args:
        data: a wide frame (time x series, the times as index or in a column ds, date, datetime, time or timestamp); a long
            frame with the columns of `long` and covariates; a Series; an array (time,) or (time, series); or GluonTS
            entries, {"start", "target", ...}.
        freq: alias of the step; inferred if not given. An array needs it, and begins in 2000.
        joint: whether paths are drawn for all series together; by default where they all end together.
        known: covariates that are known ahead: columns of the frame, which all series share if it is wide.
        past: covariates that are known up to the last row.
        static: what does not change with time: a frame indexed by series, or with their names in a column.
        future: the covariates known ahead for coming times: indexed by time for a wide frame, else with the first two
            columns of `long`.
        schema: that of the panel a model was fitted on, which data must then fit; all arguments but `static` and `future`
            follow from it.
        long: columns of a long frame with the names of the series, the times and the values.

    Raises:
        UserError: for data that cannot be read, or do not fit the schema; one sentence that names series and time.
    """
    columns = tuple(schema["columns"] if schema else long)
    reading = _read(data, future, Request(freq, tuple(known), tuple(past), schema, columns))
    labels = covariates.labels(reading.past), covariates.labels(reading.known)
    refuse(reading.pieces, labels[1], labels[0])
    alias = _freq(reading, freq, schema)
    blocks = place(reading.pieces, alias, fitted=schema is not None)
    joint = _joint(blocks, schema["joint"] if schema else joint)
    blocks = merge(blocks, alias) if joint else separate(blocks)
    if schema and joint:
        blocks = [_reordered(blocks[0], [covariates.unplain(name) for name in schema["names"]])]
    names = [name for block in blocks for name in block.names]
    rows, specs = covariates.static_rows(
        reading.static if static is None else static, names, columns[0], schema["static"] if schema else None
    )
    made = dict(schema) if schema else {
        "kind": reading.kind, "index": reading.index, "names": [covariates.plain(name, "series") for name in names],
        "joint": joint, "freq": alias, "tz": _zone(blocks[0].index), "columns": list(columns), "known": reading.known,
        "past": reading.past, "static": specs,
    }  # fmt: skip
    return Panel(tuple(blocks), alias, joint, *labels, rows, made, whole_numbers(tuple(blocks)))


def _read(data: Any, future: pd.DataFrame | None, request: Request) -> Reading:
    """What kind of data it is decides how it is read."""
    if isinstance(data, pd.Series):
        data = data.to_frame("y" if data.name is None else data.name)
    if isinstance(data, pd.DataFrame):
        data, future = (_unindexed(frame, request.long) for frame in (data, future))
        if all(column in data for column in request.long):
            return read_long(data, future, request)
        return read_wide(data, future, request)
    if future is not None or ((request.known or request.past) and request.schema is None):
        raise UserError(
            "known, past and future name columns of a frame; entries hold their covariates, arrays have none"
        )
    if isinstance(data, np.ndarray):
        return read_array(data, request)
    if isinstance(data, Mapping):
        data = [data]
    if isinstance(data, Iterable) and not isinstance(data, (str, bytes)):
        return read_entries(data, request)
    raise UserError(f"data must be a frame, a Series, an array or GluonTS entries, not {type(data).__name__}")


def _unindexed(frame: pd.DataFrame | None, long: tuple[Hashable, ...]) -> pd.DataFrame | None:
    """Names and times of a long frame as columns, where they are its index."""
    if frame is None or long[0] in frame or long[0] not in frame.index.names:
        return frame
    return frame.reset_index()


def _freq(reading: Reading, freq: Any, schema: Mapping[str, Any] | None) -> str:
    indices = [piece.index for piece in reading.pieces]
    if schema is None:
        return grids.choose(reading.freq or freq, indices)
    stated = reading.freq or (None if freq is None else calendar.fitting(freq, max(indices, key=len)))
    if stated not in (None, schema["freq"]):
        raise UserError(f"the data have frequency {stated!r}, and the model was fitted on {schema['freq']!r}")
    return schema["freq"]


def _joint(blocks: Sequence[Block], joint: bool | None) -> bool:
    return len({block.index[-1] for block in blocks}) == 1 if joint is None else joint


def _reordered(block: Block, names: list[Hashable]) -> Block:
    """The series in the model's order.

    Raises:
        UserError: if they are not the model's series.
    """
    missing = [name for name in names if name not in set(block.names)]
    if missing:
        raise UserError(f"series {missing[0]!r} of the model is not in the data, which have {listed(block.names)}")
    strange = [name for name in block.names if name not in set(names)]
    if strange:
        raise UserError(f"series {strange[0]!r} is not one of the model's, which are {listed(names)}")
    if tuple(names) == block.names:
        return block
    places = pd.Index(block.names, tupleize_cols=False).get_indexer(pd.Index(names, tupleize_cols=False))
    past, known = (array if array.shape[1] == 1 else array[:, places] for array in (block.past, block.known))
    return Block(tuple(names), block.index, block.values[:, places], past, known)


def _zone(index: pd.DatetimeIndex) -> str | None:
    return None if index.tz is None else str(index.tz)


__all__ = ["LONG", "TIMES", "read"]
