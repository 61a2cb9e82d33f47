"""How well gaps are filled: a model of whole windows beside simple ways, on cells that were observed and then hidden."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.timeseries_figures import mean, number, summary
from benchmarks.timeseries_quality import finite, fit, folder, key, said
from benchmarks.timeseries_sets import AIR, Task, task
from benchmarks.timing import fresh_peak, peak, timed
from diffusionkit.core import guided
from diffusionkit.core.seeds import drawing
from diffusionkit.timeseries import measures
from diffusionkit.timeseries.baselines import IMPUTE_BASELINES
from diffusionkit.timeseries.gaps import fill
from diffusionkit.training.run import Run

HIDDEN = (0.1, 0.5, 0.9)
DRAWS = 20
FIGURES = {
    "crps": "CRPS / deviation",
    "mae": "MAE / deviation",
    "crps_pooled": "CRPS, pooled",
    "mae_pooled": "MAE, pooled",
    "coverage_80": "80 % cover",
    "seconds": "seconds",
}
JUDGED = ("crps", "mae", "crps_pooled", "mae_pooled")
Figures = dict[str, float | None]
Filled = Callable[[np.ndarray], np.ndarray]


def impute(cells: Cells, options: Namespace) -> None:
    """CRPS and MAE at 10, 50 and 90 % hidden cells beside interpolation, seasonal means and nearest neighbours."""
    one, lost = task(AIR, options), []
    runs = [_model(cells, one, seed, options) for seed in options.seeds]
    for share in HIDDEN:
        ours = [run[f"{share:g}"] for run in runs]
        others = [_plain(cells, one, share, seed) for seed in options.seeds]
        rows = table(ours, others)
        lost += [f"{row['measure']} at {share:.0%}" for row in rows if row["reached"] == "MISSED"]
        say(f"\n{one.label}, {share:.0%} hidden, seeds {' '.join(map(str, options.seeds))}")
        show(rows)
    say(f"\ngates missed: {', '.join(lost) or 'none'}")


def table(ours: list[Figures], others: list[dict[str, Figures]]) -> list[dict[str, str]]:
    """A row for each figure: the model, the best of the others as its gate, and each of them."""
    rows = []
    for name, label in FIGURES.items():
        value, plain = mean(ours, name), {who: mean([run[who] for run in others], name) for who in others[0]}
        row = {"measure": label, "model": summary(ours, name), "gate": "", "reached": ""}
        if name in JUDGED and value is not None:
            gate = min(found for found in plain.values() if found is not None)
            row |= {"gate": number(gate), "reached": "gate" if value < gate else "MISSED"}
        rows.append(row | {who: number(found) for who, found in plain.items()})
    return rows


def hidden(values: np.ndarray, share: float, seed: int) -> np.ndarray:
    """(T, D) which of the observed cells are hidden: this share of all of them, drawn without regard to where they lie."""
    seen = np.flatnonzero(~np.isnan(values))
    chosen = np.random.default_rng([seed, round(100 * share)]).permutation(seen)[: round(share * len(seen))]
    mask = np.zeros(values.size, bool)
    mask[chosen] = True
    return mask.reshape(values.shape)


def measure(samples: np.ndarray, values: np.ndarray, mask: np.ndarray, deviation: np.ndarray) -> Figures:
    """Figures of draws over the hidden cells.

    CRPS is E|X - y| - E|X - X'| / 2 with two different draws, MAE that of the median. "/ deviation": each cell in units of its
    series' deviation in training, the mean over all cells. Pooled: the sum over all cells / sum |y|, in the units of the data;
    CRPS then by GluonTS's 19 levels.

    Args:
        samples: (draws, T, D); a single fill is given twice.
        values: (T, D) what was observed.
        mask: (T, D) which of them were hidden.
        deviation: (D,) of each series in training.
    """
    target, paths = np.where(mask, values, np.nan)[None], samples[None]
    scale = np.broadcast_to(deviation, values.shape)[None]
    error = np.abs(np.median(samples, 0)[None] - target)
    return finite(
        {
            "crps": float(np.nanmean(measures.crps_entries(paths, target) / scale)),
            "mae": float(np.nanmean(error / scale)),
            "crps_pooled": measures.crps(paths, target),
            "mae_pooled": float(np.nansum(error) / np.nansum(np.abs(target))),
            "coverage_80": measures.coverage(paths, target),
        }
    )


def _parts(one: Task) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of training (T, D), the rows after them, and the deviations of the series in training."""
    before = len(one.train.blocks[0])
    values = one.test.panel.blocks[0].values
    return values[:before], values[before:], np.nanstd(values[:before], axis=0)


def _model(cells: Cells, one: Task, seed: int, options: Namespace) -> dict[str, Figures]:
    name = key(one, seed, options)

    def make() -> Cell:
        fresh_peak()
        run, spent = fit(one.recipe, one.train, seed, options.minutes)
        run.save(folder(options.models, name))
        found = {f"{share:g}": _drawn(run, one, share, seed, options.samples or DRAWS) for share in HIDDEN}
        return {"figures": found, **spent, "peak_mb": peak(), "recipe": said(one.recipe), "steps": run.step}

    return cells.get(name, make)["figures"]


def _drawn(run: Run, one: Task, share: float, seed: int, draws: int) -> Figures:
    """Figures of a model that sees what is left of the rows after the training part, and nothing before them."""
    _, after, deviation = _parts(one)
    mask = hidden(after, share, seed)
    panel = one.test.panel.tail(len(after))
    panel = replace(panel, blocks=(replace(panel.blocks[0], values=np.where(mask, np.nan, after)),))
    sampling = run.recipe.sampling()
    diffusion = guided(run.diffusion, sampling.guidance, sampling.clip)
    with drawing(seed, next(diffusion.parameters()).device):
        (samples,), seconds = timed(
            lambda: fill(diffusion, run.codec, panel, draws, run.sampler(), sampling.batch_size)
        )
    return {**measure(samples, after, mask, deviation), "seconds": seconds}


def _plain(cells: Cells, one: Task, share: float, seed: int) -> dict[str, Figures]:
    """Figures of each simple way, on the rows that the model sees and with the rows of training before them."""

    def make() -> Cell:
        before, after, deviation = _parts(one)
        mask, found = hidden(after, share, seed), {}
        shown = np.where(mask, np.nan, after)
        for name, way in IMPUTE_BASELINES.items():
            for label, earlier in ((name, before[:0]), (f"{name}, and training", before)):
                if earlier.size and name == "linear interpolation":
                    continue  # what lies long before does not change it
                filled, seconds = timed(lambda way=way, earlier=earlier: _filled(way, earlier, shown, one.test.season))
                figures = measure(np.stack([filled, filled]), after, mask, deviation)
                found[label] = {**figures, "coverage_80": None, "seconds": seconds}
        return {"figures": found}

    return cells.get(f"baselines/{one.judged}/{share:g}/{seed}", make)["figures"]


def _filled(way: Callable[..., np.ndarray], earlier: np.ndarray, shown: np.ndarray, season: int) -> np.ndarray:
    """The rows filled, given earlier ones too; a series of which nothing was observed stays out, and comes back as zeros."""
    whole = np.concatenate([earlier, shown])
    there = ~np.isnan(whole).all(0)
    filled = np.zeros_like(shown)
    filled[:, there] = way(whole[:, there], season)[len(earlier) :]
    return filled
