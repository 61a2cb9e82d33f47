"""How good the forecasts of a recipe are: fit on the training part, backtest in the official windows, beside baselines."""

from __future__ import annotations

import copy
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.timeseries_figures import comparison, missed, verdict
from benchmarks.timeseries_sets import REFERENCE, SETS, Task, seasons, task
from benchmarks.timing import fresh_peak, peak, timed
from diffusionkit.core import guided
from diffusionkit.core.seeds import drawing
from diffusionkit.recipe import Recipe
from diffusionkit.timeseries.backtest import Backtest, backtested, baseline_paths, scores
from diffusionkit.timeseries.baselines import BASELINES
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.plots import pit_histogram
from diffusionkit.timeseries.prepare import prepared
from diffusionkit.training.loop import train
from diffusionkit.training.run import Run, assemble, suited

PATHS = 100
_TRIAL = 40  # steps that tell how many there are in a minute
_SEASONAL = ("seasonal naive", "climatology", "seasonal blocks")
_CPU = torch.device("cpu")


def quality(cells: Cells, options: Namespace) -> None:
    """Measures of a recipe's paths in the official windows beside gates, ambitions and baselines."""
    lines: list[str] = []
    shown: dict[str, np.ndarray] = {}
    for name in options.sets or SETS:
        one = task(name, options)
        models = {"model": [trained(cells, one, seed, options) for seed in options.seeds]}
        if options.reference and name in REFERENCE:
            models["TimeGrad"] = [
                reference(cells, name, seed, run["train_seconds"], options)
                for seed, run in zip(options.seeds, models["model"], strict=True)
            ]
        plain = [baselines(cells, one, seed, options) for seed in options.seeds]
        rows = comparison(name, models, plain)
        say(f"\n{one.label}, seeds {' '.join(map(str, options.seeds))}")
        show(rows)
        say(verdict(models["model"], plain))
        lines += [f"{name} {measure}" for measure in missed(rows)]
        place = folder(options.models, key(one, options.seeds[0], options)) / "pit.npy"
        if place.exists():
            shown[name] = np.load(place)
    if options.pictures and shown:
        Path(options.pictures).mkdir(parents=True, exist_ok=True)
        pit_histogram(shown, Path(options.pictures) / "timeseries_pit.png")
    say(f"\ngates missed: {', '.join(lines) or 'none'}")


def key(one: Task, seed: int, options: Namespace) -> str:
    """The name of a trained model's cell, and of its folder."""
    return "/".join([one.label, str(seed), *_asked(options)])


def _asked(options: Namespace) -> list[str]:
    """What was asked for beside the recipe."""
    budget = [f"{options.minutes:g}min"] if options.minutes else [f"{options.steps}steps"] if options.steps else []
    return [*sorted(options.settings), *budget, *_paths(options)]


def _paths(options: Namespace) -> list[str]:
    return [f"{options.samples}paths"] if options.samples else []


def folder(models: str, name: str) -> Path:
    """Where the model of a cell is kept."""
    return Path(models) / f"timeseries_{name}".replace("/", "_")


def trained(cells: Cells, one: Task, seed: int, options: Namespace) -> dict[str, float]:
    """The figures of one training; the model and its PIT values are left in `options.models`."""
    name = key(one, seed, options)
    found = cells.get(name, lambda: _trained(one, seed, options, options.minutes, name))
    if found["recipe"] != said(one.recipe):
        say(f"{name}: its recipe was another then; --fresh measures again")
    return found["figures"]


def reference(cells: Cells, name: str, seed: int, seconds: float, options: Namespace) -> dict[str, float]:
    """The figures of the reference's TimeGrad setting, trained for as long."""
    changed = Namespace(**{**vars(options), "settings": [], "steps": None})
    one = task(name, changed, "timegrad")
    mine = "/".join([one.label, str(seed), "equal", *_asked(options)])
    return cells.get(mine, lambda: _trained(one, seed, options, seconds / 60, mine))["figures"]


def said(recipe: Recipe) -> dict[str, Any]:
    """What a cell keeps of a recipe: its sections, without the folder of the data."""
    sections = recipe.sections
    sections["data"].pop("root", None)
    return {name: sections[name] for name in ("data", "process", "backbone", "objective", "training", "sampling")}


def _trained(one: Task, seed: int, options: Namespace, minutes: float | None, name: str) -> Cell:
    fresh_peak()
    run, spent = fit(one.recipe, one.train, seed, minutes)
    place = run.save(folder(options.models, name))
    found, drawn = timed(lambda: tested(run, one, options.samples or PATHS, seed))
    np.save(place / "pit.npy", found.pit.astype(np.float32))
    figures = {**found.scores["model"], **spent, "backtest_seconds": drawn, "peak_mb": peak()}
    return {"figures": finite(figures), "recipe": said(one.recipe), "steps": run.step, "notes": run.codec.notes(),
            "parameters": sum(p.numel() for p in run.diffusion.parameters())}  # fmt: skip


def finite(figures: dict[str, float]) -> dict[str, float | None]:
    """As JSON keeps them: what is no number is None."""
    return {name: float(value) if np.isfinite(value) else None for name, value in figures.items()}


def tested(run: Run, one: Task, paths: int, seed: int) -> Backtest:
    """The backtest of a model alone."""
    sampling = run.recipe.sampling()
    diffusion = guided(run.diffusion, sampling.guidance, sampling.clip)
    with drawing(seed, _CPU):
        return backtested(diffusion, run.codec, one.test, paths, run.sampler(), sampling.batch_size, seed, baselines=[])


def fit(recipe: Recipe, panel: Panel, seed: int, minutes: float | None = None) -> tuple[Run, dict[str, float]]:
    """A model of a panel, and its seconds: to prepare, to train, and those of all processor cores while training.

    Args:
        recipe: of the model.
        panel: the training part.
        seed: of the network and of its training.
        minutes: to train for about so long instead of the recipe's steps.
    """
    begun = time.perf_counter()
    codec, parts = prepared(recipe.build("data"), {"train": panel})
    recipe = suited(recipe, len(parts["train"]))
    with drawing(seed, _CPU):
        diffusion = assemble(recipe, codec)
    options = recipe.build("training")
    if minutes:
        options = replace(options, steps=steps_in(diffusion, parts["train"], options, minutes))
    prepared_by, processor = time.perf_counter(), time.process_time()
    _train(diffusion, parts["train"], options, seed)
    spent = {
        "prepare_seconds": prepared_by - begun,
        "train_seconds": time.perf_counter() - prepared_by,
        "cpu_seconds": time.process_time() - processor,
    }
    return Run(Path(), recipe, recipe.domain, codec, diffusion, options.steps), spent


def _train(diffusion: Any, windows: Any, options: Any, seed: int) -> list[dict[str, float]]:
    return train(diffusion, windows, options, seed=seed, trainer={"accelerator": "cpu"}, console=Console(quiet=True))


def steps_in(diffusion: Any, windows: Any, options: Any, minutes: float) -> int:
    """How many steps there are in so many minutes on this machine as it is now; learning rates fall over all of them."""
    trial = replace(options, steps=_TRIAL, every=max(_TRIAL // 4, 1))
    rows = _train(copy.deepcopy(diffusion), windows, trial, 0)
    first, last = rows[0], rows[-1]
    rate = (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
    steps = max(1, round(60 * minutes * rate))
    say(f"{rate:.1f} steps a second: {steps:,} in {minutes:.3g} minutes")
    return steps


def baselines(cells: Cells, one: Task, seed: int, options: Namespace) -> dict[str, dict[str, float]]:
    """The measures of every baseline; those of other seasons have them in their names."""

    def make() -> Cell:
        paths, found = options.samples or PATHS, {}
        for season in seasons(one.test):
            usual = season == one.test.season
            windows = replace(one.test, season=season)  # of the naive forecasts, not of MASE
            for name in BASELINES if usual else _SEASONAL:
                drawn = baseline_paths(name, windows, paths, seed)
                found[name if usual else f"{name} ({season})"] = finite(scores(drawn, one.test))
        return {"figures": found}

    return cells.get("/".join(["baselines", one.judged, str(seed), *_paths(options)]), make)["figures"]
