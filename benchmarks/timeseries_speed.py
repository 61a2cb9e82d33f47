"""How fast paths are drawn and batches made: few steps beside a long chain, the reference's way, a loader window by window."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Cell, Cells, show
from benchmarks.timeseries_quality import PATHS, folder, key
from benchmarks.timeseries_reference import alone, recurrent
from benchmarks.timeseries_sets import Task, task
from benchmarks.timing import ratio, rounds
from diffusionkit.core import DDPM, Sampler
from diffusionkit.core.seeds import drawing
from diffusionkit.timeseries import measures
from diffusionkit.timeseries.backtest import Windows, model_paths
from diffusionkit.timeseries.prepare import prepared
from diffusionkit.training.run import Run, assemble

CHAIN = 100
FEW, LOADER = 8.0, 3.0
EXCHANGE, WIDE = "exchange_rate_nips", ("metr_la_week", "montevideo_bus")
_BATCHES = 5  # made in a row
Draw = Callable[[], np.ndarray]


def speed(cells: Cells, options: Namespace) -> None:
    """Few steps beside the 100-step chain of the same network, the reference's way, and batches beside a loader by window."""
    paths = options.samples or PATHS
    lines = _chained(cells.get(f"chain/{EXCHANGE}/{paths}", lambda: chain(EXCHANGE, paths, options, True)))
    for name in WIDE:
        found = cells.get(f"chain/{name}/{options.wide}", lambda name=name: chain(name, options.wide, options, False))
        lines += _chained(found)
    lines.append(_beside(cells.get(f"reference/{EXCHANGE}/{paths}", lambda: reference(paths, options))))
    for name, preset in ((EXCHANGE, "default"), ("etth1", "default"), (EXCHANGE, "timegrad"), ("etth1", "timegrad")):
        made = partial(loader, name, preset, options)
        lines.append(_loaded(cells.get(f"batches/{preset}/{name}/{options.batch}", made)))
    show(lines)


# ---- models ----


def _plain(name: str, options: Namespace, preset: str = "default", quick: bool = False) -> Task:
    """A set as the part `quality` has it, without what that part was asked for; `quick`: without the choice of a target."""
    changed = {"validation": False, "settings": [], "steps": None, "recipe": None, "minutes": None, "samples": None}
    one = task(name, Namespace(**{**vars(options), **changed}), preset)
    if not quick:
        return one
    raw = dict(one.recipe.raw)
    data = {**raw["data"], "codec": {"lag": 1, **raw["data"].get("codec", {})}}
    return replace(one, recipe=replace(one.recipe, raw={**raw, "data": data}))


def _model(one: Task, options: Namespace) -> tuple[Run, str]:
    """The model that `quality` has left with seed 0, or an untrained one, and a word on it."""
    asked = Namespace(settings=[], steps=None, minutes=None, samples=None)
    place = folder(options.models, key(one, 0, asked))
    if (place / "recipe.yaml").exists():
        run = Run.load(place)
        return run, f"weights of {run.step:,} steps"
    return untrained(one), "untrained"


def untrained(one: Task) -> Run:
    """A run with random weights; those of the heads, which start as zeros, too, so that no sampler has it easier."""
    codec, _ = prepared(one.recipe.build("data"), {"train": one.train})
    with drawing(0, torch.device("cpu")):
        diffusion = assemble(one.recipe, codec)
        for parameter in diffusion.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.01)
    return Run(folder("", ""), one.recipe, one.recipe.domain, codec, diffusion.eval(), 0)


# ---- drawing ----


def chain(name: str, paths: int, options: Namespace, whole: bool) -> Cell:
    """Samplers with the same network, in turns: ancestral sampling in 100 steps, the recipe's own, and others.

    Args:
        name: of the set.
        paths: of each window.
        options: of the command.
        whole: all windows of the test in one batch, with the CRPS_sum of all rounds; else the first window alone.
    """
    one = _plain(name, options, quick=not whole)
    run, word = _model(one, options)
    test = one.test if whole else first(one.test, 0)
    usual = run.sampler()
    samplers: dict[str, Sampler] = {f"chain, {CHAIN} steps": DDPM(CHAIN), f"default, {usual.steps} steps": usual}
    for steps in options.fast:
        samplers.setdefault(f"{type(usual).__name__}, {steps} steps", _with(run, steps))
    drawn: dict[str, list[np.ndarray]] = {label: [] for label in samplers}
    seed = count()

    def draw(label: str) -> None:
        with drawing(next(seed), torch.device("cpu")):
            drawn[label].append(_paths(run, test, paths, samplers[label]))

    repeats, warmup = (options.repeats, 1) if whole else (min(options.repeats, 3), 0)
    seconds = rounds({label: partial(draw, label) for label in samplers}, repeats, warmup)
    slow, *_ = samplers
    found = {}
    for label, sampler in samplers.items():
        scores = [measures.crps_sum(x, test.actual) for x in drawn[label]] if whole and word != "untrained" else []
        found[label] = {
            "steps": sampler.steps, "seconds": median(seconds[label]), "CRPS_sum": scores,
            "ratio": ratio(seconds[slow], seconds[label]),
        }  # fmt: skip
    series = test.panel.size
    return {"samplers": found, "weights": word, "series": series, "windows": len(test.cuts), "paths": paths}


def _with(run: Run, steps: int) -> Sampler:
    """The recipe's sampler with so many steps."""
    sampler = run.sampler()
    sampler.steps = steps
    return sampler


def _paths(run: Run, test: Windows, paths: int, sampler: Sampler) -> np.ndarray:
    return model_paths(run.diffusion, run.codec, test, paths, sampler, run.recipe.sampling().batch_size)


def first(test: Windows, number: int) -> Windows:
    """One window of a test alone."""
    return replace(test, cuts=test.cuts[number : number + 1])


def reference(paths: int, options: Namespace) -> Cell:
    """The reference's way beside ours: TimeGrad's setting, window by window, its 100 steps at each step of the horizon."""
    ours, theirs = _plain(EXCHANGE, options), _plain(EXCHANGE, options, "timegrad")
    (mine, word), other = _model(ours, options), untrained(theirs)

    def by_window() -> None:
        for number in range(len(theirs.test.cuts)):
            _paths(other, first(theirs.test, number), paths, other.sampler())

    works = {
        "TimeGrad, window by window": by_window,
        "TimeGrad, all windows at once": lambda: _paths(other, theirs.test, paths, other.sampler()),
        "ours": lambda: _paths(mine, ours.test, paths, mine.sampler()),
    }
    seconds = rounds(works, min(options.repeats, 2), warmup=0)
    slow = seconds["TimeGrad, window by window"]
    return {
        "weights": f"{word}; TimeGrad untrained", "paths": paths, "windows": len(ours.test.cuts),
        "took": {name: median(found) for name, found in seconds.items()},
        "ratios": {name: ratio(slow, found) for name, found in seconds.items()},
    }  # fmt: skip


# ---- batches ----


def loader(name: str, preset: str, options: Namespace) -> Cell:
    """Batches a second of the data set that models are trained on, and of a loader that works window by window."""
    one = _plain(name, options, preset, quick=True)
    codec, parts = prepared(one.recipe.build("data"), {"train": one.train})
    windows = parts["train"]
    theirs = (recurrent if preset == "timegrad" else alone)(one.train, codec, windows)
    generator = torch.Generator().manual_seed(0)
    indices = torch.randint(len(windows), (_BATCHES, options.batch), generator=generator)

    def make(batch: Callable[[torch.Tensor], Any]) -> None:
        for some in indices:
            batch(some)

    works = {"window by window": lambda: make(theirs), "ours": lambda: make(windows.batch)}
    seconds = rounds(works, options.repeats, warmup=1)
    return {
        "batch": options.batch, "form": codec.form, "context": codec.context,
        "batches_per_second": {way: _BATCHES / median(found) for way, found in seconds.items()},
        "ratio": ratio(seconds["window by window"], seconds["ours"]),
    } | {"set": name}  # fmt: skip


# ---- what is shown ----


def _gate(reached: bool, gate: float) -> str:
    return f"at least {gate:g}: {'met' if reached else 'MISSED'}"


def _chained(cell: Cell) -> list[dict[str, str]]:
    slow, *others = cell["samplers"].items()
    lines = []
    for name, found in others:
        judged = name.startswith("default")
        good, words = _as_good(found["CRPS_sum"], slow[1]["CRPS_sum"])
        lines.append(
            {
                "what": f"{cell['paths']} paths, {cell['windows']} windows, {cell['series']} series: {name} over {slow[0]}",
                "value": f"{found['ratio']:.1f} times",
                "gate": _gate(found["ratio"] >= FEW and good, FEW) if judged else "",
                "details": f"{found['seconds']:.3g} s beside {slow[1]['seconds']:.3g} s; {cell['weights']}{words}",
            }
        )
    return lines


def _as_good(fast: list[float], slow: list[float]) -> tuple[bool, str]:
    """Whether a CRPS_sum is no worse by more than two standard errors of the rounds, and both as they are read."""
    if not fast:
        return True, ""
    a, b = np.array(fast), np.array(slow)
    error = np.sqrt((a.var() + b.var()) / max(len(a) - 1, 1))
    return bool(a.mean() <= b.mean() + 2 * error), f"; CRPS_sum {a.mean():.5f} beside {b.mean():.5f}, error {error:.5f}"


def _beside(cell: Cell) -> dict[str, str]:
    times = ", ".join(f"{name} {found:.3g} s" for name, found in cell["took"].items())
    return {
        "what": f"{cell['paths']} paths, {cell['windows']} windows: ours over the reference's setting and way",
        "value": f"{cell['ratios']['ours']:.1f} times",
        "gate": "",
        "details": f"{times}; {cell['weights']}",
    }


def _loaded(cell: Cell) -> dict[str, str]:
    rates = ", ".join(f"{way} {found:.1f} a second" for way, found in cell["batches_per_second"].items())
    return {
        "what": f"batches of {cell['batch']} windows, {cell['set']}, form {cell['form']}",
        "value": f"{cell['ratio']:.1f} times",
        "gate": _gate(cell["ratio"] >= LOADER, LOADER),
        "details": f"{rates}; {cell['context']} steps are shown",
    }
