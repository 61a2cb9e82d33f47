"""Small series and codecs for tests."""

from __future__ import annotations

import numpy as np
import pandas as pd

from diffusionkit.timeseries import frames
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.features import SHOWN
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.targets import Target


def wide(rows: int = 120, size: int = 3, freq: str = "h", seed: int = 0, holes: float = 0.0) -> pd.DataFrame:
    """Positive series with a season, time x (a, b, ...)."""
    rng = np.random.default_rng(seed)
    season = 2 * np.sin(2 * np.pi * np.arange(rows)[:, None] / 24 + np.arange(size))
    values = 20 + season + np.cumsum(rng.normal(size=(rows, size)) * 0.1, 0) + np.arange(size)
    values[rng.random(values.shape) < holes] = np.nan
    index = pd.date_range("2024-01-01", periods=rows, freq=freq)
    return pd.DataFrame(values, index=index, columns=[chr(97 + i) for i in range(size)])


def long(lengths: tuple[int, ...] = (70, 50, 90), freq: str = "D", seed: int = 0) -> pd.DataFrame:
    """A long frame of series that begin together and end apart."""
    parts = []
    for i, rows in enumerate(lengths):
        y = wide(rows, 1, freq, seed + i)["a"]
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": y.index, "y": y.to_numpy() * (i + 1)}))
    return pd.concat(parts, ignore_index=True)


def panel(df: object = None, **how: object) -> Panel:
    return frames.read(wide() if df is None else df, **how)


def codec(
    of: Panel | None = None, horizon: int = 6, context: int = 24, season: int = 4, form: str = "block", sample: int = 0,
    shown: tuple[str, ...] = SHOWN, **target: object,
) -> SeriesCodec:  # fmt: skip
    return SeriesCodec(of or panel(), horizon, context, season, Target(**target), form, sample, shown=shown)
