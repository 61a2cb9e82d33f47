"""Published series with the splits and windows by which models of them are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.sources import SeriesData, data_folder, read_table, reading


@dataclass(frozen=True)
class _Split:
    """How a set is tested: windows of `horizon` steps, the first at row `start` (counted from the end if the set is long)."""

    freq: str
    horizon: int
    windows: int
    start: int
    stride: int = 0
    known: tuple[str, ...] = ()


SPLITS = {
    "exchange_rate_nips": _Split("B", 30, 5, 6071),
    "etth1": _Split("h", 24, 7, 13936),  # 80 % of the rows; those after the last window are dropped
    "irish_wind": _Split("D", 30, 12, 6209),  # 1978
    # 2014 by the local clock, in steps of 13 days so that every weekday comes four times
    "vic_electricity_hourly": _Split("h", 24, 28, 17544, 312, ("temperature_c", "holiday")),
    "metr_la_week": _Split("5min", 12, 24, 1728),  # the seventh day
    "montevideo_bus": _Split("h", 24, 7, 576),
    "air_quality_uci": _Split("h", 24, 13, 7485, 144),  # the last 20 %, every sixth day
    "m4_hourly": _Split("h", 48, 1, -48),
    "tourism_monthly": _Split("MS", 24, 1, -24),
    "tourism_quarterly": _Split("QS", 8, 1, -8),
}


class Named(SeriesData):
    """A published set with its published split, as `timeseries/SET.parquet`.

    Test windows begin at a fixed row whatever their number, so that training never sees a row of the published test; rows
    after the last window are dropped.

    Args:
        set: its name: exchange_rate_nips, etth1, irish_wind, vic_electricity_hourly, metr_la_week, montevideo_bus,
            air_quality_uci, m4_hourly, tourism_monthly or tourism_quarterly.
        root: folder that holds `timeseries`; by default that of DIFFUSIONKIT_DATA.
        prediction_length: steps to be foretold; 0 means as published.
        windows: how many windows the rolling test has; 0 means as published.
        stride: steps from one of them to the next; 0 means as published.
    """

    def __init__(
        self,
        set: str = "exchange_rate_nips",
        root: str | None = None,
        prediction_length: int = 0,
        windows: int = 0,
        stride: int = 0,
        **rolling: Any,
    ) -> None:
        if set not in SPLITS:
            raise ValueError(f"set must be one of {', '.join(SPLITS)}, not {set!r}")
        self.set, self.root, self.split = set, root, SPLITS[set]
        super().__init__(
            prediction_length or self.split.horizon,
            windows=windows or self.split.windows,
            stride=stride or self.split.stride,
            **rolling,
        )

    @property
    def known(self) -> tuple[str, ...]:
        """Covariates known ahead."""
        return self.split.known

    def panel(self) -> Panel:
        path = data_folder(self.root, f"{self.set}.parquet") / f"{self.set}.parquet"
        df = read_table(path, "data.root")
        with reading(path):
            df = self._long(df) if "split" in df else self._wide(df)
            return frames.read(df, freq=self.split.freq, joint=self.joint, known=self.known)

    def _wide(self, df: pd.DataFrame) -> pd.DataFrame:
        end = self.split.start + self.test
        if len(df) < end:
            raise UserError(
                f"has {len(df)} rows, and {self.windows} test windows of {self.prediction_length} steps from row "
                f"{self.split.start} on need {end}; lower data.windows, data.stride or data.prediction_length"
            )
        return df.iloc[:end]

    def _long(self, df: pd.DataFrame) -> pd.DataFrame:
        """Without the rows after the last window, which begins where the published test does."""
        if self.test > -self.split.start:
            raise UserError(
                f"the published test has {-self.split.start} rows, and {self.windows} windows of "
                f"{self.prediction_length} steps need {self.test}; lower data.windows or data.prediction_length"
            )
        counts = (df["split"] == "test").groupby(df["unique_id"], observed=True).sum()
        if (counts != -self.split.start).any():
            raise UserError(f"column 'split' must say test of {-self.split.start} rows of each series")
        left = df.groupby("unique_id", observed=True).cumcount(ascending=False)
        return df.loc[left >= -self.split.start - self.test, ["unique_id", "ds", "y"]]


__all__ = ["SPLITS", "Named"]
