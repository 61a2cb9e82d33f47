"""The measures of a run: a rolling backtest beside baselines, as a table and as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from diffusionkit.core import guided
from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.backtest import LOWER, Backtest, Windows, backtested
from diffusionkit.timeseries.plots import forecasts, pit_histogram

_COMMENTS = {
    "CRPS": "weighted quantile loss, mean over .05 ... .95",
    "CRPS_sum": "the same of the sum of the series",
    "energy": "energy score of the vector of series, a step",
    "MASE": "absolute error over that of the seasonal naive in the past",
    "coverage_80": "share of what came within the 80 % interval; .80 is ideal",
}

_PICTURES = {
    "pictures/backtest.png": "The windows of the backtest along time: the model's quantiles beside what came.",
    "pictures/last_window.png": "The last window: fan charts of single series beside what came.",
    "pictures/pit.png": "Histogram of PIT values, which is flat where the spread is right.",
}


def evaluate(run: Any, n: int = 100, seed: int = 0, pictures: bool = True) -> dict[str, Any]:
    """See `TimeSeriesDomain.evaluate`."""
    if n < 2:
        raise UserError(f"n: at least two paths, not {n}")
    source = run.recipe.build("data")
    test = held_out(source, source.load()["test"])
    sampling = run.recipe.sampling()
    diffusion = guided(run.diffusion, sampling.guidance, sampling.clip)
    torch.manual_seed(seed)
    found = backtested(diffusion, run.codec, test, n, run.sampler(), sampling.batch_size, seed)
    table = [_row(name, found) for name in found.scores["model"]]
    told = {"verdict": found.verdict(), "better": dict.fromkeys(LOWER, "lower"), "table": table}
    if pictures:
        folder = run.folder / "pictures"
        folder.mkdir(exist_ok=True)
        found.plot(folder / "backtest.png")
        forecasts(found.forecasts[-1], folder / "last_window.png", actual=found.actual)
        pit_histogram(found.pit, folder / "pit.png")
        told["pictures"] = _PICTURES
    return {"seed": seed, "paths": n, **found.scores, **told}


def held_out(source: Any, panel: Any) -> Windows:
    """The test windows of a source."""
    cuts = np.stack([source.origins(len(block)) for block in panel.blocks], 1)
    return Windows(panel, cuts, source.prediction_length, calendar.season(panel.freq))


def _row(name: str, found: Backtest) -> dict[str, str]:
    row = {"measure": name} | {who: f"{scores[name]:.4g}" for who, scores in found.scores.items()}
    better = [k for k, v in found.scores.items() if k != "model" and v[name] < found.scores["model"][name]]
    lost = f"LOSES to {', '.join(better)}" if name in LOWER and better else ""
    return row | {"comment": lost or _COMMENTS.get(name, "")}
