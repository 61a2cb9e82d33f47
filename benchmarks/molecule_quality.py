"""How good molecules of QM9 are: `python -m benchmarks molecule_quality [steps|times]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.cells import Cell, Cells, command_line, panels, run_parts, say, show
from benchmarks.models import trained, trained_for
from benchmarks.timing import timed
from diffusionkit.core import DDIM, DDPM, DPMSolver, Heun, Sampler, guided
from diffusionkit.molecule import metrics
from diffusionkit.molecule.evaluate import some, training_names
from diffusionkit.molecule.pool import flat
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run

SAMPLERS: dict[str, Callable[[int], Sampler]] = {  # by evaluations of the network
    "DDPM": DDPM,
    "DDIM": DDIM,
    "flow": lambda count: Heun(max(1, count // 2), grid="uniform"),
    "flow, SDE": lambda count: DPMSolver(count, eta=1.0),
}
SHARES = ("atoms_stable", "molecules_stable", "valid", "valid_connected", "unique", "novel")
GATES = {"atoms_stable": (0.85, 0.92), "valid": (0.50, 0.70)}
"""What an hour on two cores has to reach, and what it should."""


def steps(cells: Cells, options: argparse.Namespace) -> None:
    """Shares against evaluations of the network: DDPM and DDIM of the one model, flow and random steps of the other."""
    key = f"{Path(options.model).stem}/real/{options.n}"
    rows = [_line("real, held out", cells.get(key, lambda: _real(model(options.model, options), options)))]
    ways = [way for way in SAMPLERS if not way.startswith("flow") or options.flow]
    for count in options.steps:
        rows += [_line(f"{way}, {count}", _cell(cells, way, 1.0, count, options)) for way in ways]
    show(rows)
    if options.pictures:
        curves = {way: [(count, _cell(cells, way, 1.0, count, options)) for count in options.steps] for way in ways}
        _picture(Path(options.pictures) / "molecule_steps.png", curves, "evaluations of the network")


def times(cells: Cells, options: argparse.Namespace) -> None:
    """Shares against the length of the training, each a run of its own whose rate of learning falls to 0 at its end."""
    rows, count = [], max(options.steps)
    for share in options.shares:
        found = _cell(cells, "DDPM", share, count, options)
        rows.append(_line(f"{share:g} of the training", found))
    show(rows)
    for key, (gate, ambition) in GATES.items():
        last = found[key]
        said = "reaches the ambition" if last >= ambition else "reaches the gate" if last >= gate else "misses the gate"
        say(f"{key.replace('_', ' ')}: {100 * last:.1f} %, {said} ({100 * gate:g} % / {100 * ambition:g} %)")
    if options.pictures:
        curve = [(share, _cell(cells, "DDPM", share, count, options)) for share in options.shares]
        _picture(Path(options.pictures) / "molecule_times.png", {"DDPM": curve}, "share of the training")


def model(name: str, options: argparse.Namespace, share: float = 1.0) -> Run:
    """The run of a recipe for this share of its steps, trained by the command unless its folder is there."""
    count = options.train or Recipe.load(name).build("training").steps
    folder = Path(options.models) / (Path(name).stem + (f"_{share:g}" if share != 1 else ""))
    return trained(name, folder, {"training.steps": str(max(1, round(share * count)))})


def drawn(run: Run, n: int, sampler: Sampler, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Atomic numbers and positions of n molecules."""
    sampling, found = run.recipe.sampling(), []
    diffusion = guided(run.diffusion, sampling.guidance, sampling.clip)
    torch.manual_seed(seed)
    for indices in torch.arange(n).split(sampling.batch_size):
        found += run.codec.decode(run.domain.draw(diffusion, run.codec, sampler, indices))
    return found


def figures(z: np.ndarray, pos: np.ndarray, n: np.ndarray, known: frozenset[str], hydrogens: bool = True) -> Cell:
    """The shares of these molecules."""
    atoms, whole = metrics.stable(z, pos, n)
    said = metrics.validity(z, pos, n, hydrogens)
    found = {
        "atoms_stable": float(atoms.mean()),
        "molecules_stable": float(whole.mean()),
        "valid": float(said.valid.mean()),
        "valid_connected": float(said.whole.mean()),
        "unique": metrics.unique(said.smiles),
        "novel": metrics.novel(said.smiles, known),
    }
    return {name: None if np.isnan(value) else value for name, value in found.items()} | {"n": len(n)}


def _cell(cells: Cells, way: str, share: float, count: int, options: argparse.Namespace) -> Cell:
    name = options.flow if way.startswith("flow") else options.model

    def make() -> Cell:
        run = model(name, options, share)
        sampler = SAMPLERS[way](count)
        if sampler.eta:  # its steps are random
            sampler.temperature = run.sampler().temperature
        molecules, seconds = timed(lambda: drawn(run, options.n, sampler, options.seed))
        known = training_names(run.recipe.build("data").load()["train"], run.codec.hydrogens)
        return {
            **figures(*flat(molecules), known, run.codec.hydrogens),
            "seconds_drawing": round(seconds, 1),
            **trained_for(run),
        }

    return cells.get(f"{Path(name).stem}/{share:g}/{way}/{count}/{options.n}", make)


def _real(run: Run, options: argparse.Namespace) -> Cell:
    parts = run.recipe.build("data").load()
    chosen = some(parts.get("test", parts["train"]), options.n, np.random.default_rng(options.seed))
    return figures(*chosen, training_names(parts["train"], run.codec.hydrogens), run.codec.hydrogens)


def _line(name: str, cell: Cell) -> dict[str, str]:
    shares = {key.replace("_", " "): "–" if cell[key] is None else f"{100 * cell[key]:.1f} %" for key in SHARES}
    drawing = f"{cell['seconds_drawing']:.0f} s" if "seconds_drawing" in cell else ""
    return {"": name, **shares, "drawing": drawing, "trained": f"{cell['steps']:,} steps" if "steps" in cell else ""}


def _picture(path: Path, curves: dict[str, list[tuple[float, Any]]], label: str) -> None:
    """Shares of stable atoms, stable molecules and valid molecules against what was changed."""
    with panels(path, 3, (3.7, 3.4)) as axes:
        for axis, key in zip(axes, ("atoms_stable", "molecules_stable", "valid"), strict=True):
            for name, points in curves.items():
                points = sorted(points, key=lambda point: point[0])
                axis.plot([x for x, _ in points], [100 * cell[key] for _, cell in points], "o-", label=name)
            for limit, style in zip(GATES.get(key, ()), (":", "--"), strict=False):
                axis.axhline(100 * limit, color="grey", linestyle=style, linewidth=1)
            ticks = sorted({x for points in curves.values() for x, _ in points})
            axis.set_xscale("log")
            axis.set_xticks(ticks, [f"{x:,g}" for x in ticks])
            axis.minorticks_off()
            axis.set_xlabel(label)
            axis.set_title(f"{key.replace('_', ' ')} (%)", fontsize=10)
        if len(curves) > 1:
            axes[-1].legend(frameon=False)


PARTS: dict[str, Callable[[Cells, argparse.Namespace], None]] = {f.__name__: f for f in (steps, times)}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON file and is not measured again."""
    parser = command_line("molecule_quality", __doc__, tuple(PARTS), models=True)
    add = parser.add_argument
    add("-n", type=int, default=1000, help="molecules of each figure")
    add("--seed", type=int, default=0, help="of the molecules")
    add("--model", default="molecule/qm9_small", help="recipe of the model that diffuses")
    add("--flow", default="molecule/qm9_flow", help="recipe of the model that flows; empty for none")
    add("--train", type=int, default=0, help="steps of the whole training; those of the recipe by default")
    add("--steps", nargs="+", type=int, default=[1000, 250, 50], help="evaluations of the network for a sample")
    add("--shares", nargs="+", type=float, default=[0.1, 0.3, 1.0], help="times: of the training")
    add("--pictures", metavar="FOLDER", help="draw pictures of the results into it")
    run_parts(PARTS, parser, parser.parse_args(arguments), arguments, "molecule_quality.json")


if __name__ == "__main__":
    main()
