"""Filling what is missing: windows over the whole series, and frames with nothing else touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core import Sampler
from diffusionkit.timeseries import wide
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
    drawn = [
        filled(diffusion, codec, windows, holes[of], sampler, watch)
        for windows, of in _batches(rows, codec, origins, batch_size, holes)
    ]
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


def _batches(rows: Rows, codec: SeriesCodec, origins: Tensor, size: int, holes: Tensor) -> Any:
    for part in origins.split(size):
        yield rows.windows(part, codec.horizon), part[:, None] + torch.arange(-codec.context, codec.horizon)


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
        made = np.stack([series.to_numpy() for series in by_name.values()], 1)
        return made.reshape(df.shape).astype(df.dtype if df.dtype.kind == "f" else float)
    if isinstance(df, pd.Series):
        return _patched(df, next(iter(by_name.values())), panel, df.index)
    if not isinstance(df, pd.DataFrame):
        return pd.DataFrame(by_name)
    name, time, value = panel.schema["columns"]
    if panel.schema["kind"] == "long":
        made, parts = df.copy(), []
        for series, rows in df.groupby(name, sort=False):
            parts.append(_patched(rows[value], by_name[series], panel, rows[time]))
        made[value] = pd.concat(parts).reindex(df.index)
        return made
    times, _ = wide.timed(df, time, "the frame")
    return df.assign(**{series: _patched(df[series], by_name[series], panel, times) for series in by_name})


def _patched(column: pd.Series, values: pd.Series, panel: Panel, times: Any) -> pd.Series:
    index = (
        pd.PeriodIndex(times).to_timestamp()
        if isinstance(getattr(times, "dtype", None), pd.PeriodDtype)
        else pd.DatetimeIndex(times)
    )
    zone = panel.blocks[0].index.tz
    index = index.tz_localize(zone) if zone is not None and index.tz is None else index
    found = values.reindex(index).to_numpy()
    return column.where(column.notna(), pd.Series(found, index=column.index)) if column.isna().any() else column
