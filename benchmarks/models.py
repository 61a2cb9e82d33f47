"""Models for benchmarks: trained by the command, as its users train them, unless they are there."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

from benchmarks import timing
from benchmarks.cells import say
from diffusionkit.recipe import Recipe
from diffusionkit.training.folder import read_metrics
from diffusionkit.training.run import Run

SPENT = ("train_seconds", "cpu_seconds", "peak_mb")


def trained(recipe: str, folder: Path, settings: Mapping[str, str] | None = None) -> Run:
    """The run in this folder, trained there by the command unless it is there; a training that was interrupted goes on."""
    train(recipe, folder, settings)
    return Run.load(folder)


def train(recipe: str, folder: Path, settings: Mapping[str, str] | None = None) -> dict[str, float]:
    """Trains a recipe by the command, unless its run is there.

    Returns:
        Seconds of the training, and of this process those of all processors and the highest memory; of a run that was there the
        seconds alone.
    """
    if (folder / "weights.safetensors").exists() and not _unfinished(folder):
        rows = read_metrics(folder / "metrics.csv")
        return {SPENT[0]: round(rows[-1]["seconds"], 1)} if rows else {}
    words = [word for key, value in (settings or {}).items() for word in (f"--{key}", value)]
    words = [
        "train",
        recipe,
        "--out",
        str(folder),
        *words,
        *(["--resume"] if (folder / "recipe.yaml").exists() else []),
    ]
    say(shlex.join(["diffusionkit", *words]))
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    found = timing.spent([sys.executable, "-m", "diffusionkit", *words], env={**os.environ, **threads})
    if found.code:
        raise SystemExit(f"the training of {recipe} has ended with code {found.code}")
    rows = read_metrics(folder / "metrics.csv")
    told = rows[-1]["seconds"] if rows else found.seconds  # those before an interruption as well
    return dict(zip(SPENT, (round(told, 1), round(found.cpu_seconds, 1), round(found.peak_mb)), strict=True))


def trained_for(run: Run) -> dict[str, float]:
    """How many steps a run was trained, and in how many seconds, as its metrics say."""
    rows = read_metrics(run.folder / "metrics.csv")
    return {"steps": run.step, **({"train_seconds": round(rows[-1]["seconds"], 1)} if rows else {})}


def _unfinished(folder: Path) -> bool:
    """Whether a training has kept its checkpoint short of its end."""
    rows = read_metrics(folder / "metrics.csv")
    return bool(rows) and rows[-1]["step"] < Recipe.from_run(folder).build("training").steps
