"""What stands for the quality of each domain's samples in one number, beside what real data or a simple way have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from diffusionkit.training.run import Run

Figures = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """The measure of a domain.

    Attributes:
        name: as tables have it; "value" in the figures.
        better: "lower" or "higher".
        samples: how many are drawn for a figure; paths of each window for series.
        quick: how many with --quick.
        judge: (run, samples) -> `Judge`.
        percent: whether it is read in percent.
    """

    name: str
    better: str
    samples: int
    quick: int
    judge: Callable[[Run, int], Judge]
    percent: bool = False

    def shown(self, value: float | None) -> str:
        """A figure as tables have it."""
        return "–" if value is None else f"{100 * value:.2f} %" if self.percent else f"{value:.4g}"


@dataclass(frozen=True)
class Judge:
    """Draws and measures samples of one run.

    Attributes:
        draw: (diffusion, sampler) -> samples in the users' world.
        figures: of samples; "value" is the measure.
        beside: figures of what the model is to be compared with, and what that is as "what".
        count: how many samples are drawn.
    """

    draw: Callable[[Any, Any], Any]
    figures: Callable[[Any], Figures]
    beside: Callable[[], Figures]
    count: int


def _states(run: Run, n: int) -> Callable[[Any, Any], list[Any]]:
    """Draws n samples in batches of the recipe, and decodes them."""
    batches = torch.arange(n).split(run.recipe.sampling().batch_size)
    codec = run.codec
    return lambda diffusion, sampler: [
        codec.decode(run.domain.draw(diffusion, codec, sampler, indices)) for indices in batches
    ]


def pictures(run: Run, n: int) -> Judge:
    """Fréchet distance to the held-out part in the features of a small classifier; real pictures of the training part beside it."""
    from diffusionkit.image import features, metrics

    parts = run.recipe.build("data").parts(run.codec)
    train, test = parts["train"], parts["test"]
    network = features.judge(train, test, run.folder, torch.device("cpu"), lambda *_: None)
    held = network.look(train.codec.display(test.pictures.images))[0]
    n = min(n, len(train))

    def figures(found: list[torch.Tensor]) -> Figures:
        return {"value": metrics.frechet(held, network.look(torch.cat(found))[0])}

    def real() -> Figures:
        return {
            **figures([train.codec.display(train.pictures.images[train.some(n)])]),
            "what": f"{n:,} training pictures",
        }

    return Judge(_states(run, n), figures, real, n)


def rows(run: Run, n: int) -> Judge:
    """Mean error of pairs of columns, that of single columns beside it; held-out rows, of which there are as many."""
    from benchmarks.tabular_tables import independent
    from diffusionkit.tabular import metrics

    parts = run.recipe.build("data").load()
    kinds = {name: kind for name, kind in run.codec.outer.kinds.items() if kind not in ("identifier", "constant")}
    train, test = (parts[part][list(kinds)] for part in ("train", "test"))
    n = min(n, len(test))

    def figures(found: list[pd.DataFrame]) -> Figures:
        fake = pd.concat(found, ignore_index=True)[list(kinds)]
        return {
            "value": metrics.average(metrics.trend(train, fake, kinds)),
            "shape": metrics.average(metrics.shape(train, fake, kinds)),
        }

    def real() -> Figures:
        alone = figures([independent(train, n, 0)])["value"]
        return {**figures([test[:n]]), "what": f"{n:,} held-out rows", "independent": alone}

    return Judge(_states(run, n), figures, real, n)


def paths(run: Run, n: int) -> Judge:
    """CRPS in the test windows, n paths of each; the best of the simple baselines in the same windows beside it."""
    from diffusionkit.timeseries.backtest import baseline_paths, model_paths, scores
    from diffusionkit.timeseries.baselines import BASELINES
    from diffusionkit.timeseries.evaluate import held_out

    source = run.recipe.build("data")
    test, size = held_out(source, source.load()["test"]), run.recipe.sampling().batch_size

    def figures(found: np.ndarray) -> Figures:
        measured = scores(found, test)
        return {"value": measured["CRPS"], "MASE": measured["MASE"], "coverage_80": measured["coverage_80"]}

    def plain() -> Figures:
        every = {name: figures(baseline_paths(name, test, n)) for name in BASELINES}
        best = min(every, key=lambda name: every[name]["value"])
        return {**every[best], "what": f"{best}, the best baseline"}

    return Judge(lambda model, sampler: model_paths(model, run.codec, test, n, sampler, size), figures, plain,
                 n * len(test.cuts))  # fmt: skip


def molecules(run: Run, n: int) -> Judge:
    """Share of valid molecules of one piece; held-out ones beside it."""
    from diffusionkit.molecule import metrics
    from diffusionkit.molecule.evaluate import some
    from diffusionkit.molecule.pool import flat, parted

    _, parts = run.recipe.build("data").prepared()
    test = parts.get("test", parts["train"])

    def figures(found: list[list[tuple[np.ndarray, np.ndarray]]]) -> Figures:
        said = metrics.validity(*flat([one for part in found for one in part]), run.codec.hydrogens)
        return {"value": float(said.whole.mean()), "valid": float(said.valid.mean())}

    def real() -> Figures:
        chosen = parted(*some(test, n, np.random.default_rng(0)))
        return {**figures([chosen]), "what": f"{len(chosen):,} held-out molecules"}

    return Judge(_states(run, n), figures, real, n)


MEASURES = {
    "image": Measure("Fréchet distance", "lower", 1000, 300, pictures),
    "tabular": Measure("trend error", "lower", 2000, 2000, rows, percent=True),
    "timeseries": Measure("CRPS", "lower", 100, 50, paths),
    "molecule": Measure("valid and of one piece", "higher", 500, 100, molecules, percent=True),
}
