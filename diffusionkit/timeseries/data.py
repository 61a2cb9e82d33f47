"""Series for recipes. A new source is a class with `panel`, and one line in the domain's `data`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.nips import Nips
from diffusionkit.timeseries.panel import Panel, listed
from diffusionkit.timeseries.published import Named
from diffusionkit.timeseries.sources import SeriesData, read_table, reading


class Macro(SeriesData):
    """The US macroeconomic series bundled in statsmodels: 12 of them, 203 quarters from 1959 to 2009.

    Levels of output, consumption, investment, government spending, income, prices, money and population; rates of interest,
    unemployment and inflation.

    Args:
        prediction_length: quarters to be foretold.
        windows: how many windows the rolling test has.
        stride: quarters from one of them to the next.
    """

    def __init__(self, prediction_length: int = 8, windows: int = 5, stride: int = 4, **rolling: Any) -> None:
        super().__init__(prediction_length, windows=windows, stride=stride, **rolling)

    def panel(self) -> Panel:
        from statsmodels.datasets import macrodata

        df = macrodata.load_pandas().data
        months = 3 * df.pop("quarter") - 2
        times = pd.to_datetime({"year": df.pop("year"), "month": months, "day": 1})
        return frames.read(df.set_index(pd.DatetimeIndex(times)), freq="QS", joint=self.joint)


class Csv(SeriesData):
    """A file of one's own: .csv, .tsv (either also .gz) or .parquet, wide (time x series) or long.

    Args:
        path: the file.
        freq: alias of its step, such as h, D, B, MS or 5min; inferred if not given.
        time: the column of the times.
        id: the column of a long file that names the series; a file without it is wide.
        value: the column of a long file that holds the values.
        series: columns of a wide file, or names in a long one, to use; all if not given.
        drop: columns to leave out.
        known: covariates that are known ahead.
        past: covariates that are known up to the last row.
        static: a file of what does not change with time, with the column `id` and a row for each series.
    """

    def __init__(
        self,
        path: str = "",
        freq: str = "",
        time: str = "ds",
        id: str = "unique_id",
        value: str = "y",
        series: list[str] = [],  # noqa: B006
        drop: list[str] = [],  # noqa: B006
        known: list[str] = [],  # noqa: B006
        past: list[str] = [],  # noqa: B006
        static: str = "",
        **rolling: Any,
    ) -> None:
        super().__init__(**rolling)
        self.path, self.static = (Path(name).expanduser() if name else None for name in (path, static))
        self.freq, self.columns = freq or None, (id, time, value)
        self.series, self.drop, self.known, self.past = list(series), list(drop), tuple(known), tuple(past)

    def panel(self) -> Panel:
        if self.path is None:
            raise UserError("data.path is missing; it must name a file of series, such as series.csv")
        static = None if self.static is None else read_table(self.static, "data.static")
        df = read_table(self.path)
        with reading(self.path):
            return frames.read(
                self._chosen(df), freq=self.freq, joint=self.joint, known=self.known, past=self.past, static=static,
                long=self.columns,
            )  # fmt: skip

    def _chosen(self, df: pd.DataFrame) -> pd.DataFrame:
        strange = [name for name in self.drop if name not in df]
        if strange:
            raise UserError(f"data.drop: there is no column {strange[0]!r}; there are {listed(list(df.columns))}")
        df = df.drop(columns=self.drop)
        if not self.series:
            return df
        name, time, _ = self.columns
        there = set(df[name].astype(str)) if name in df else set(df)
        lacking = [series for series in self.series if series not in there]
        if lacking:
            raise UserError(f"data.series: there is no series {lacking[0]!r}; there are {listed(sorted(there))}")
        if name in df:
            return df[df[name].astype(str).isin(self.series)]
        keep = {time, *self.series, *self.known, *self.past, *frames.TIMES}
        return df[[column for column in df if column in keep or str(column).lower() in frames.TIMES]]


class Frame(SeriesData):
    """A frame, array or data set in memory, which no recipe can name: what `fit` trains on."""

    def panel(self) -> Panel:
        raise UserError(
            "data: this model was fitted on series in memory; evaluate it in Python with model.backtest(df)"
        )


__all__ = ["Csv", "Frame", "Macro", "Named", "Nips", "SeriesData"]
