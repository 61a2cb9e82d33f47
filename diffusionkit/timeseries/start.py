"""Where forecasts start: the end of the training part, or other series read as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.sources import read_table, reading


def started(
    codec: SeriesCodec, horizon: int | None = None, history: str | None = None, future: str | None = None
) -> tuple[Panel, int]:
    """The panel whose last rows forecasts start from, and how many steps they go.

    Raises:
        UserError: for a horizon below 1, files that do not fit the model, too short a history, and covariates that are missing.
    """
    steps = codec.horizon if horizon is None else horizon
    if steps < 1:
        raise UserError(f"horizon: at least one step, not {steps}")
    if history is None and future is None:
        return ready(codec, codec.tail, steps), steps
    ahead = None if future is None else read_table(Path(future), "--future")
    if history is None:
        raise UserError("--future: give --history as well, the file of series that the covariates go with")
    table = read_table(Path(history), "--history")
    with reading(Path(history)):
        return ready(codec, read(codec, table, ahead), steps), steps


def read(codec: SeriesCodec, data: Any, future: Any = None, static: Any = None) -> Panel:
    """Series as those that the model was fitted on.

    Raises:
        UserError: if they do not fit; one sentence that names series and time.
    """
    schema = codec.tail.schema
    kept = static is None and bool(schema["static"]) and isinstance(data, (pd.DataFrame, pd.Series, np.ndarray))
    panel = frames.read(data, schema=schema | ({"static": []} if kept else {}), static=static, future=future)
    if kept:
        panel = replace(panel, static=_static(codec, panel), schema=schema)
    return replace(panel, integer=np.broadcast_to(codec.integer.numpy(), (panel.size,)).copy())


def _static(codec: SeriesCodec, panel: Panel) -> np.ndarray:
    """What does not change with time of series that the model was fitted on.

    Raises:
        UserError: naming a series that it was not.
    """
    places = {name: place for place, name in enumerate(codec.names)}
    for name in panel.names:
        if name not in places:
            raise UserError(f"static has no row for series {name!r}, and the model was not fitted on it; give `static`")
    return codec.tail.static[[places[name] for name in panel.names]]


def ready(codec: SeriesCodec, panel: Panel, horizon: int) -> Panel:
    """The panel, if forecasts can start from it.

    Raises:
        UserError: naming the series that is too short, or the covariate that is missing.
    """
    panel.check_future(horizon)
    for block in panel.blocks:
        if len(block) < codec.shortest:
            raise UserError(
                f"series {block.names[0]!r} ends at {block.index[-1]} after {len(block)} rows, and the longest lag of this "
                f"model reaches back {codec.shortest}; give a longer history"
            )
        recent = np.isfinite(block.values[-codec.context :]).any(0)
        if not recent.all():
            name = block.names[int(np.argmin(recent))]
            raise UserError(
                f"series {name!r} has no value in the last {codec.context} rows before {block.index[-1]}; nothing to start from"
            )
    return panel
