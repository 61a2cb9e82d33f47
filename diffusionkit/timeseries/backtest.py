"""Rolling backtests: forecasts from several origins in one batched call, beside simple baselines in the same windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from diffusionkit.core import Sampler
from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, measures
from diffusionkit.timeseries.baselines import BASELINES
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.forecast import Forecast
from diffusionkit.timeseries.generate import Watch, forecast
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.windows import Rows

_SEPARATE = ("CRPS", "CRPS_sample", "ND", "NRMSE", "MASE")
_COVERAGE = ("coverage_50", "coverage_80", "coverage_95", "width_80")
LOWER = (*_SEPARATE, "CRPS_sum", "energy", "energy_path", "ND_sum")
"""Measures of which the lower one is better."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of a test: what came, and from where it was to be foretold.

    Attributes:
        panel: series up to the end of the last window.
        cuts: (W, blocks) rows of each block before each window.
        horizon: H.
        season: in steps, for the naive forecasts and the scale of MASE.
    """

    panel: Panel
    cuts: np.ndarray
    horizon: int
    season: int

    @property
    def actual(self) -> np.ndarray:
        """(W, H, D) what came, NaN where missing."""
        parts = [self._rows(cuts) for cuts in self.cuts]
        return np.stack(parts)

    def _rows(self, cuts: np.ndarray) -> np.ndarray:
        pairs = zip(self.panel.blocks, cuts, strict=True)
        return np.concatenate([block.values[cut : cut + self.horizon] for block, cut in pairs], 1)

    @property
    def scale(self) -> np.ndarray:
        """(W, D) the mean absolute seasonal difference before each window."""
        return np.stack(
            [
                np.concatenate(
                    [
                        measures.seasonal_error(b.values[:cut], self.season)
                        for b, cut in zip(self.panel.blocks, cuts, strict=True)
                    ]
                )
                for cuts in self.cuts
            ]
        )

    def head(self, number: int) -> Panel:
        """What was known at the origin of a window."""
        blocks = tuple(block.head(cut) for block, cut in zip(self.panel.blocks, self.cuts[number], strict=True))
        return replace(self.panel, blocks=blocks)


def rolling(panel: Panel, horizon: int, windows: int, stride: int = 0, season: int = 0) -> Windows:
    """The last windows of every series: `windows` of them, `stride` rows apart (the horizon by default).

    Raises:
        UserError: for numbers below one.
    """
    if windows < 1 or horizon < 1 or stride < 0:
        raise UserError(f"{'windows' if windows < 1 else 'horizon' if horizon < 1 else 'stride'}: at least one")
    stride = stride or horizon
    test = (windows - 1) * stride + max(stride, horizon)
    starts = np.array([len(block) - test for block in panel.blocks])
    return Windows(
        panel, starts + stride * np.arange(windows)[:, None], horizon, season or max(calendar.seasons(panel.freq)[:1])
    )


def model_paths(
    diffusion: Any,
    codec: SeriesCodec,
    test: Windows,
    n: int,
    sampler: Sampler,
    batch_size: int = 1024,
    watch: Watch = None,
) -> np.ndarray:
    """(W, n, H, D) paths of a model, all windows in the same calls; statistics are those before the first window."""
    rounds = -(-test.horizon // codec.horizon)
    rows = Rows(test.panel, codec, rounds * codec.horizon)
    if not codec.joint:
        rows.stats = codec.measure(test.head(0))
    origins = (rows.starts + torch.from_numpy(test.cuts)).flatten()
    x = forecast(diffusion, codec, [(rows, origins)], n, test.horizon, sampler, batch_size, watch)
    x = x.unflatten(0, test.cuts.shape)
    return (x[:, 0] if codec.joint else x[..., 0].permute(0, 2, 3, 1)).numpy()


def baseline_paths(name: str, test: Windows, n: int, seed: int = 0) -> np.ndarray:
    """(W, n, H, D) paths of a baseline."""
    draw, rng = BASELINES[name], np.random.default_rng(seed)
    return np.stack(
        [
            np.concatenate(
                [
                    draw(block.values[:cut], test.horizon, n, rng, season=test.season)
                    for block, cut in zip(test.panel.blocks, cuts, strict=True)
                ],
                2,
            )
            for cuts in test.cuts
        ]
    )


def scores(paths: np.ndarray, test: Windows) -> dict[str, float]:
    """The measures of paths (W, n, H, D); those of sums and vectors only where the series are joint."""
    found = measures.evaluate(paths, test.actual, test.scale)
    wanted = found if test.panel.joint else {name: found[name] for name in (*_SEPARATE, *_COVERAGE)}
    return {name: float(value) for name, value in wanted.items()}


def forecasts(paths: np.ndarray, test: Windows) -> list[Forecast]:
    """One `Forecast` for each window."""
    found = []
    for number, samples in enumerate(paths):
        head = test.head(number)
        history = head.frame(4 * test.horizon)
        tz = head.blocks[0].index.tz
        found.append(Forecast(samples, head.names, head.coming(test.horizon), head.freq, history, head.joint, tz))
    return found


def actual_frames(test: Windows) -> pd.DataFrame:
    """What came, as plots take it."""
    rows = int(max(len(block) for block in test.panel.blocks) - test.cuts.min())
    return test.panel.frame(rows)


@dataclass(frozen=True, eq=False)
class Backtest:
    """A model beside baselines in the same windows.

    Attributes:
        scores: measures of `model` and of each baseline.
        forecasts: the model's, one for each window.
        actual: what came.
    """

    scores: dict[str, dict[str, float]]
    forecasts: list[Forecast]
    actual: pd.DataFrame
    pit: np.ndarray

    @property
    def table(self) -> pd.DataFrame:
        """Measures x (model and baselines)."""
        return pd.DataFrame(self.scores)

    def beaten_by(self, measures_: Sequence[str] = ("CRPS", "CRPS_sum", "energy")) -> dict[str, list[str]]:
        """For each measure the baselines that are better than the model, the best one first."""
        model, found = self.scores["model"], {}
        for name in measures_:
            if name in model:
                better = {k: v[name] for k, v in self.scores.items() if k != "model" and v[name] < model[name]}
                if better:
                    found[name] = sorted(better, key=lambda k: better[k])
        return found

    def verdict(self) -> str:
        """One sentence: what beats the model, or that nothing does."""
        lost = self.beaten_by()
        if not lost:
            return "No baseline beats the model."
        said = "; ".join(f"{', '.join(names)} by {measure}" for measure, names in lost.items())
        return f"THE MODEL LOSES to {said}."

    def __str__(self) -> str:
        return f"{self.table.to_string(float_format='{:.4g}'.format)}\n{self.verdict()}"

    def _repr_html_(self) -> str:
        return f"{self.table.to_html(float_format='{:.4g}'.format)}<p>{self.verdict()}</p>"

    def plot(self, path: Any = None) -> Any:
        """The windows along time, beside what came."""
        from diffusionkit.timeseries.plots import backtest

        return backtest(self.forecasts, self.actual, path)


def backtested(
    diffusion: Any,
    codec: SeriesCodec,
    test: Windows,
    n: int,
    sampler: Sampler,
    batch_size: int = 1024,
    seed: int = 0,
    watch: Watch = None,
    baselines: Sequence[str] | None = None,
) -> Backtest:
    """A model and the baselines in the windows of a test.

    Raises:
        UserError: for less than two paths, and a baseline that there is not.
    """
    names = tuple(BASELINES if baselines is None else baselines)
    for name in names:
        if name not in BASELINES:
            raise UserError(f"baselines: there is no {name!r}; there are {', '.join(BASELINES)}")
    if n < 2:
        raise UserError(f"num_samples: at least two paths, not {n}")
    paths = model_paths(diffusion, codec, test, n, sampler, batch_size, watch)
    found = {"model": scores(paths, test)}
    for name in names:
        found[name] = scores(baseline_paths(name, test, n, seed), test)
    pit = measures.pit(paths, test.actual, np.random.default_rng(seed))
    return Backtest(found, forecasts(paths, test), actual_frames(test), pit)
