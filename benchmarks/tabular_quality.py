"""How good the rows of a preset are: fit, sample as many rows as there were, measure."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks import tabular_figures as figures
from benchmarks.cells import Cell, Cells, say, show
from benchmarks.tabular_tables import Table, independent, load
from benchmarks.timing import timed
from diffusionkit.tabular import TabularDiffusion, metrics

TABLES = ("adult", "shoppers", "default")
_TRIAL = 30  # steps that tell how many there are in a minute


def quality(cells: Cells, options: Namespace) -> None:
    """C2ST, shape, trend, usefulness, coverage and copies of a preset's rows beside goals, floors and published figures."""
    missed: list[str] = []
    for name in options.tables or TABLES:
        table = load(name, options.data, options.rows)
        if options.dcr:
            halves(cells, table, options)
            continue
        real = floor(cells, table)
        models = {
            options.preset: [trained(cells, table, options.preset, seed, options) for seed in options.seeds],
            "independent": [alone(cells, table)],
        }
        rows = figures.comparison(name, models, real)
        show(rows)
        missed += [f"{name} {row['measure']}" for row in rows if row["reached"] == "MISSED"]
    if not options.dcr:
        say(f"\ngates missed: {', '.join(missed) or 'none'}")


def key(preset: str, table: str, seed: int, options: Namespace) -> str:
    """The name of a trained model's cell, and of its folder."""
    budget = [f"{options.minutes:g}min"] if options.minutes else [f"{options.steps}steps"] if options.steps else []
    return "/".join([preset, table, str(seed), *budget])


def trained(cells: Cells, table: Table, preset: str, seed: int, options: Namespace) -> figures.Figures:
    """The figures of one training; the model is left in `options.models`."""
    name = key(preset, table.label, seed, options)

    def make() -> Cell:
        model, fitted = fit(table, table.train, preset, seed, options.minutes, options.steps, options.device)
        model.save(folder(options.models, name))
        fake, drawn = timed(lambda: model.sample(len(table.train), random_state=seed))
        steps = model.history_[-1]["step"]
        return finished(table, fake, fitted, drawn) | {"preset": preset, "fit_seed": seed, "steps": steps}

    return cells.get(name, make)["figures"]


def folder(models: str, name: str) -> Path:
    """Where the model of a cell is kept."""
    return Path(models) / name.replace("/", "_")


def fit(
    table: Table,
    frame: pd.DataFrame,
    preset: str,
    seed: int,
    minutes: float | None = None,
    steps: int | None = None,
    device: str | None = "cpu",
) -> tuple[TabularDiffusion, float]:
    """A model of these rows, and the seconds of `fit`; of so many minutes, so many steps, or as the preset says."""

    def make(steps: int | None) -> TabularDiffusion:
        return TabularDiffusion(
            preset, columns=table.columns, target=table.target, steps=steps, device=device, random_state=seed
        )

    if minutes:
        steps = _steps(make, frame, minutes)
    return timed(lambda: make(steps).fit(frame))


def _steps(make: Callable[[int], TabularDiffusion], frame: pd.DataFrame, minutes: float) -> int:
    """How many steps there are in so many minutes on this machine as it is now; learning rates fall over all of them."""
    rows = make(_TRIAL).fit(frame).history_
    first, last = rows[len(rows) // 3], rows[-1]
    rate = (last["step"] - first["step"]) / (last["seconds"] - first["seconds"])
    steps = max(1, round(60 * minutes * rate))
    say(f"{rate:.1f} steps a second: {steps:,} in {minutes:g} minutes")
    return steps


def finished(table: Table, fake: pd.DataFrame, fitted: float, drawn: float) -> Cell:
    """The cell of a model's rows."""
    found = figures.measure(table, fake) | {"fit_seconds": fitted, "sampling_seconds": drawn}
    return {"figures": found, "rows": {"train": len(table.train), "test": len(table.test), "fake": len(fake)}}


def floor(cells: Cells, table: Table) -> figures.Figures:
    """What real rows get."""
    return cells.get(f"floor/{table.label}", lambda: {"figures": figures.floor(table)})["figures"]


def alone(cells: Cells, table: Table) -> figures.Figures:
    """What rows of independent columns get."""

    def make() -> Cell:
        fake, drawn = timed(lambda: independent(table.train, len(table.train), 0))
        return finished(table, fake, 0.0, drawn)

    return cells.get(f"independent/{table.label}", make)["figures"]


# ---- distance to the closest record, as it should be measured ----


def halves(cells: Cells, table: Table, options: Namespace) -> None:
    """Fits on one half of all rows and asks which half the fakes lie nearer to: .5 is ideal."""
    shares = []
    for seed in options.seeds:
        name = f"{key(options.preset, table.label, seed, options)}/halves"
        shares.append(cells.get(name, lambda seed=seed: _halves(table, seed, options))["figures"])
    independent_share = cells.get(f"independent/{table.label}/halves", lambda: _alone(table))["figures"]
    row: dict[str, str] = {"table": table.name, "measure": "DCR share, fresh halves"}
    row[options.preset] = figures.summary("dcr_share", [share["dcr_share"] for share in shares])
    row["goal"] = figures.goals(table.name, "dcr_share")
    row["reached"] = figures.met(table.name, "dcr_share", figures.mean(shares, "dcr_share"))
    row["independent"] = figures.summary("dcr_share", [independent_share["dcr_share"]])
    row["copies of the half"] = figures.summary("copies", [share["copies"] for share in shares])
    row["the other half's"] = figures.summary("copies", [share["real_copies"] for share in shares])
    show([row])


def _split(table: Table, seed: int) -> list[pd.DataFrame]:
    rows = pd.concat(table.parts.values(), ignore_index=True)
    order = np.random.default_rng(seed).permutation(len(rows))[: len(rows) // 2 * 2]
    return [rows.iloc[half].reset_index(drop=True) for half in np.split(order, 2)]


def _halves(table: Table, seed: int, options: Namespace) -> Cell:
    one, other = _split(table, seed)
    model, _ = fit(table, one, options.preset, seed, options.minutes, options.steps, options.device)
    return _nearness(table, one, other, model.sample(len(one), random_state=seed))


def _alone(table: Table) -> Cell:
    one, other = _split(table, 0)
    return _nearness(table, one, other, independent(one, len(one), 0))


def _nearness(table: Table, one: pd.DataFrame, other: pd.DataFrame, fake: pd.DataFrame) -> Cell:
    found: dict[str, Any] = {
        "dcr_share": metrics.dcr_share(one, other, fake, columns=table.kinds),
        "copies": metrics.exact_copies(one, fake, table.kinds),
        "real_copies": metrics.exact_copies(one, other, table.kinds),
    }
    return {"figures": found, "rows": {"train": len(one), "test": len(other), "fake": len(fake)}}
