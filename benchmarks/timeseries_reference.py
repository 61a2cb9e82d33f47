"""Batches of windows made one window at a time, as a chain of transformations does: to be compared with.

`diffusionkit` transforms a panel once and gathers batches from flat tensors; here slices, calendar features, lags and scales are
computed for each window when it is drawn. Both give the same numbers (tests/test_benchmark_timeseries.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core.state import Batch, tree_cat
from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.panel import Block, Panel
from diffusionkit.timeseries.windows import Window, Windows

Batches = Callable[[Tensor], Batch]


def recurrent(panel: Panel, codec: SeriesCodec, windows: Windows) -> Batches:
    """A function of indices to batches for recurrent networks, each window in numpy from slices of one frame.

    Those of the TimeGrad reference: values over the mean absolute value of their past, lags, calendar features of the window's
    times, logarithm of the scale.

    Args:
        panel: joint series without covariates.
        codec: of levels that are not centred, in the form `steps`.
        windows: whose batches are to be made.
    """
    target, block = codec.target, panel.blocks[0]
    if codec.form != "steps" or (target.transform, target.lag, target.center, target.scale) != (
        "none",
        0,
        "zero",
        "mean",
    ):
        raise ValueError("only for the settings of the TimeGrad reference")
    frame = pd.DataFrame(block.values, index=block.index)
    spread, longest = codec.stats.spread.numpy(), max(codec.lags)

    def window(row: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        values, times = _cut(frame, row, codec)
        past = values[: codec.context]
        seen = ~np.isnan(past)
        scale = (np.where(seen, np.abs(past), 0).sum(0) + target.prior * spread) / (seen.sum(0) + target.prior)
        scaled = values / scale
        steps = len(scaled) - longest
        lags = np.concatenate([scaled[longest - lag : longest - lag + steps] for lag in codec.lags], 1)
        clock = np.zeros((len(values), len(calendar.feature_names(codec.freq))), np.float32)
        clock[len(values) - len(times) :] = calendar.features(times, panel.freq)
        return np.clip(scaled[longest:], -codec.limit, codec.limit), {
            "time": clock[longest:],
            "lags": np.clip(np.nan_to_num(lags), -codec.limit, codec.limit),
            "scale": np.log(scale),
        }

    def batch(indices: Tensor) -> Batch:
        rows = (windows.origins[indices] - windows.rows.starts[0]).tolist()
        states, shown = zip(*(window(row) for row in rows), strict=True)
        cond = {name: _stacked([part[name] for part in shown]) for name in shown[0]}
        return Batch(_stacked(states), cond)

    return batch


def _cut(frame: pd.DataFrame, row: int, codec: SeriesCodec) -> tuple[np.ndarray, pd.DatetimeIndex]:
    """The values of a window, NaN before the frame begins, and the times in it."""
    part = frame.iloc[max(row - codec.context, 0) : row + codec.horizon]
    missing = codec.context + codec.horizon - len(part)
    return np.pad(part.to_numpy(), [(missing, 0), (0, 0)], constant_values=np.nan), part.index


def _stacked(parts: Any) -> Tensor:
    return torch.from_numpy(np.stack(parts).astype(np.float32))


def alone(panel: Panel, codec: SeriesCodec, windows: Windows) -> Batches:
    """A function of indices to batches of any form, each window cut, transformed and encoded on its own.

    Args:
        panel: joint series.
        codec: of the model.
        windows: whose batches are to be made.
    """
    block = panel.blocks[0]

    def batch(indices: Tensor) -> Batch:
        rows = (windows.origins[indices] - windows.rows.starts[0]).tolist()
        parts = [codec.encode(_window(block, panel.freq, codec, row)) for row in rows]
        return Batch(torch.cat([part.x for part in parts]), tree_cat([part.cond for part in parts]))

    return batch


def _window(block: Block, freq: str, codec: SeriesCodec, row: int) -> Window:
    first, last = row - codec.context, row + codec.horizon
    rows = slice(max(first, 0), last)

    def cut(values: np.ndarray) -> Tensor:
        pads = [(max(-first, 0), 0), *[(0, 0)] * (values.ndim - 1)]
        return torch.from_numpy(np.pad(values[rows], pads, constant_values=np.nan))[None]

    clock = np.pad(calendar.features(block.index[rows], freq), [(max(-first, 0), 0), (0, 0)])
    series = torch.arange(len(block.names))[None]
    return Window(
        codec.target.forward(cut(block.values)), torch.from_numpy(clock)[None],
        codec.standardised(cut(block.past), "past"), codec.standardised(cut(block.known), "known"),
        codec.stats.of(series),
    )  # fmt: skip
