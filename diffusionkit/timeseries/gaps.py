"""Filling what is missing: windows over the whole series, and frames with nothing else touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core import Sampler
from diffusionkit.timeseries import grids, wide
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.generate import Watch, filled
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.windows import Rows


def imputed(
    diffusion: Any,
    codec: SeriesCodec,
    panel: Panel,
    df: Any,
    draws: int,
    sampler: Sampler,
    batch_size: int,
    watch: Watch = None,
) -> list[Any]:
    """`df` with its missing values drawn, so many times."""
    values = fill(diffusion, codec, panel, draws, sampler, batch_size, watch)
    return [_put(df, panel, [block[draw] for block in values]) for draw in range(draws)]


def fill(
    diffusion: Any, codec: SeriesCodec, panel: Panel, draws: int, sampler: Sampler, batch_size: int, watch: Watch = None
) -> list[np.ndarray]:
    """For each block (draws, T, D) values; what was observed is as it was.

    Windows of the length that the model was trained for lie side by side; those without a gap are left out. A window sees what
    was observed in it, not what is drawn in the next one.
    """
    rows = Rows(panel, codec, codec.horizon)
    origins = torch.cat(
        [start + _origins(codec, int(end - start)) for start, end in zip(rows.starts, rows.ends, strict=True)]
    )
    inside = torch.zeros(len(rows.z), dtype=torch.bool)
    for start, end in zip(rows.starts.tolist(), rows.ends.tolist(), strict=True):
        inside[start:end] = True
    places = origins[:, None] + torch.arange(-codec.context, codec.horizon)
    holes = rows.z.isnan() & inside[:, None]
    needed = holes[places].flatten(1).any(1)
    origins, places = origins[needed].repeat_interleave(draws), places[needed]
    drawn = []
    for part in origins.split(batch_size) if len(origins) else ():
        of = holes[part[:, None] + torch.arange(-codec.context, codec.horizon)]
        drawn.append(filled(diffusion, codec, rows.windows(part, codec.horizon), of, sampler, watch))
    found = codec.target.back(rows.z).expand(draws, -1, -1).clone()
    if drawn:
        new = torch.cat(drawn).unflatten(0, (-1, draws)).transpose(0, 1)
        for draw in range(draws):
            blank = holes.clone()
            for place, values in zip(places, new[draw], strict=True):
                found[draw, place] = torch.where(blank[place], values, found[draw, place])
                blank[place] = False
    parts = [found[:, start:end].numpy() for start, end in zip(rows.starts.tolist(), rows.ends.tolist(), strict=True)]
    return [np.where(np.isnan(b.values), part, b.values) for b, part in zip(panel.blocks, parts, strict=True)]


def _origins(codec: SeriesCodec, rows: int) -> Tensor:
    """The origins, counted from a block's first row, of windows side by side from its end; the first may reach beyond its start."""
    length = codec.context + codec.horizon
    return torch.arange(rows - codec.horizon, -codec.horizon, -length).clamp(min=0)


def _put(df: Any, panel: Panel, blocks: list[np.ndarray]) -> Any:
    """What `df` is, its missing values taken from filled blocks."""
    by_name = {
        name: pd.Series(values[:, i], index=block.index)
        for block, values in zip(panel.blocks, blocks, strict=True)
        for i, name in enumerate(block.names)
    }
    if isinstance(df, np.ndarray):
        made = np.stack([series.to_numpy() for series in by_name.values()], 1).reshape(df.shape)
        return made.astype(df.dtype) if df.dtype.kind == "f" else made
    if isinstance(df, pd.Series):
        return _patched(df, _at(next(iter(by_name.values())), grids.stamps(df.index, "the index")))
    if not isinstance(df, pd.DataFrame):
        return pd.DataFrame(by_name) if panel.joint else panel.frame().assign(y=np.concatenate(blocks)[:, 0])
    name, time, value = panel.schema["columns"]
    made = df.copy()
    if any(column not in df and column not in df.index.names for column in (name, time, value)):
        times, _ = wide.timed(df, time, "the frame")
        for series, found in by_name.items():
            made[series] = _patched(df[series], _at(found, times))
        return made
    rows = df if name in df else df.reset_index()
    times, drawn = grids.stamps(rows[time], time), np.empty(len(rows))
    for series, places in rows.groupby(name, sort=False).indices.items():
        drawn[places] = _at(by_name[series], times[places])
    made[value] = _patched(df[value], drawn)
    return made


def _at(values: pd.Series, times: pd.DatetimeIndex) -> np.ndarray:
    """Values on a grid at some of its times."""
    zone = values.index.tz
    return values.reindex(times if zone is None else times.tz_convert(zone)).to_numpy()


def _patched(column: pd.Series, values: np.ndarray) -> pd.Series:
    """The column with its missing values taken from others; the rest is as it was, and so is the dtype if it can hold them."""
    missing = column.isna().to_numpy()
    if not missing.any():
        return column
    new, dtype = values[missing], column.dtype
    fits = dtype.kind == "f" or (dtype.kind in "iu" and bool((new == np.round(new)).all()))
    made = column.copy() if fits else column.astype(float)
    made.iloc[np.flatnonzero(missing)] = new.astype(getattr(made.dtype, "numpy_dtype", made.dtype))
    return made
