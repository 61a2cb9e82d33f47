"""All domains on the same core, each by its own measure: `python -m benchmarks domains [--quick] [--full]`.

For each recipe: quality beside a floor, training time, parameters, samples a second, memory, and quality against evaluations of the
network for every sampler that fits. See README.md in this folder.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.cells import Cell, Cells, about, command_line, opened, panels, say, show
from benchmarks.domain_measures import MEASURES, Judge, Measure
from benchmarks.models import SPENT, train
from benchmarks.timing import Clock, fresh_peak, peak, timed
from diffusionkit.core import DDIM, DDPM, DPMSolver, Heun, Sampler, UniPC, guided
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run

Curves = dict[str, dict[int, Cell]]
EMBEDDED = ("image/digits", "tabular/randhie", "timeseries/macro", "molecule/nci_small")
REAL = ("image/fashion", "tabular/adult", "timeseries/exchange", "molecule/qm9_small")
SHORT = 0.25
"""Share of a recipe's steps with --quick."""
SAMPLERS: dict[str, tuple[Callable[[int], Sampler], int, tuple[int, ...], tuple[int, ...]]] = {
    "DDPM": (DDPM, 1, (1000, 250, 100), (100,)),  # evaluations a step, evaluations in full and with --quick
    "DDIM": (DDIM, 1, (5, 10, 20, 50, 100), (5, 20, 50)),
    "Heun": (lambda steps: Heun(steps), 2, (10, 20, 50), (20,)),
    "DPM-Solver++": (DPMSolver, 1, (5, 10, 20), (5, 10, 20)),
    "UniPC": (UniPC, 1, (5, 10, 20), (5, 10, 20)),
}


def main(arguments: list[str] | None = None) -> None:
    """Trains, draws, measures, and shows all of it; what is finished stays in the JSON file."""
    parser = _parser()
    options = parser.parse_args(arguments)
    recipes = options.recipes or [*EMBEDDED, *(REAL if options.full else ())]
    if options.full and not os.environ.get("DIFFUSIONKIT_DATA"):
        parser.error("--full reads the folder that DIFFUSIONKIT_DATA names; set it, or leave --full out")
    cells = opened(parser, options, arguments, "domains_quick.json" if options.quick else "domains.json")
    say(", ".join(f"{name} {value}" for name, value in about().items()))
    if options.quick:
        say(f"quick: {SHORT:g} of the training steps, fewer samples and points, one seed")
    begun = set(cells.cells)
    found = [_Case(cells, name, options) for name in recipes]
    lines, curves = [], []
    for case in found:
        lines.append(case.line())
        curves.append((case, case.curve()))
    show(lines)
    for case, points in curves:
        show(_table(case, points))
    path = Path(options.pictures or options.out) / f"{cells.path.stem}.png"
    picture(path, [Panel(case.name, case.measure, points, case.beside()) for case, points in curves])
    spent = sum(cells.cells[key]["seconds"] for key in cells.cells if options.fresh or key not in begun)
    say(f"\n{len(cells.cells)} cells in {cells.path}, a figure in {path}; measuring took {spent / 60:.1f} minutes")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("domains", __doc__, models=True)
    add = parser.add_argument
    add("--quick", action="store_true", help="short trainings and few samples, ten minutes on two cores")
    add("--full", action="store_true", help=f"also {', '.join(REAL)}, from the folder of DIFFUSIONKIT_DATA")
    add("--recipes", nargs="+", metavar="RECIPE", help=f"instead of {', '.join(EMBEDDED)}")
    add("--seeds", nargs="+", type=int, help="one training each; 0 1 2 by default, 0 with --quick")
    add("--steps", type=int, help="of the trainings, for trials; their cells have names of their own")
    add("-n", type=int, help="samples of a figure, for trials; their cells have names of their own")
    add("--pictures", metavar="FOLDER", help="where the figure goes; beside the JSON file by default")
    return parser


class _Case:
    """One recipe in this benchmark: its trainings and what is drawn from them."""

    def __init__(self, cells: Cells, name: str, options: argparse.Namespace) -> None:
        self.cells, self.options, self.recipe = cells, options, Recipe.load(name)
        self.seeds = options.seeds or ([0] if options.quick else [0, 1, 2])
        if self.recipe.domain.name not in MEASURES:
            raise SystemExit(
                f"{name}: no measure is named for the domain {self.recipe.domain.name}: {', '.join(MEASURES)}"
            )
        self.measure: Measure = MEASURES[self.recipe.domain.name]
        self.n = options.n or (self.measure.quick if options.quick else self.measure.samples)
        asked = [f"{options.steps} steps"] * bool(options.steps) + [f"{options.n} samples"] * bool(options.n)
        self.name, self.label = name, ", ".join([name, *asked])
        self._judges: dict[int, tuple[Run, Judge]] = {}

    # ---- training ----

    def trained(self, seed: int) -> Cell:
        """The cell of a training."""
        return self.cells.get(f"{self.label}/training/seed {seed}", partial(self._train, seed))

    def _train(self, seed: int) -> Cell:
        steps = self._steps()
        settings = {"seed": str(seed), "training.pictures": "0"}
        settings |= {"training.steps": str(steps)} if steps else {}
        before = self.cells.cells.get(f"{self.label}/training/seed {seed}", {})
        spent = {k: before[k] for k in SPENT if k in before} | train(self.name, self._folder(seed), settings)
        run, planned = self._run(seed)[0], self.recipe.build("training").steps
        parameters = sum(p.numel() for p in run.diffusion.network.parameters())
        return {**spent, "steps": run.step, "planned": planned or run.step, "parameters": parameters, "seed": seed}

    def _steps(self) -> int:
        """Steps to train for; 0 for as many as the recipe or its domain says."""
        planned = self.recipe.build("training").steps
        return self.options.steps or (max(1, round(SHORT * planned)) if self.options.quick and planned else 0)

    def _folder(self, seed: int) -> Path:
        stem = f"domains_{self.name.replace('/', '_')}_{self._steps() or 'whole'}_{seed}"
        return Path(self.options.models) / stem

    def _run(self, seed: int) -> tuple[Run, Judge]:
        if seed not in self._judges:
            run = Run.load(self._folder(seed))
            self._judges[seed] = run, self.measure.judge(run, self.n)
        return self._judges[seed]

    # ---- figures ----

    def beside(self) -> Cell:
        """What stands beside the model."""
        self.trained(self.seeds[0])
        return self.cells.get(f"{self.label}/beside", lambda: self._run(self.seeds[0])[1].beside())

    def own(self, seed: int) -> Cell:
        """The run as its recipe draws."""
        self.trained(seed)

        def make() -> Cell:
            run, _ = self._run(seed)
            return self._drawn(seed, run.sampler(), run.recipe.sampling().guidance)

        return self.cells.get(f"{self.label}/own/seed {seed}", make)

    def curve(self) -> Curves:
        """The cells of every sampler that fits by the evaluations asked for, without guidance, of the first seed's training."""
        seed, found, points = self.seeds[0], {}, []  # type: ignore[var-annotated]
        for name, (make, cost, every, few) in SAMPLERS.items():
            try:
                make(1).check(self._run(seed)[0].diffusion.process)
            except ValueError as error:
                say(f"{self.name}: {name} is left out: {error}")
                continue
            found[name] = {}
            points += [(calls, name, make(max(1, calls // cost))) for calls in (few if self.options.quick else every)]
        for calls, name, sampler in sorted(
            points, key=lambda point: point[0]
        ):  # cheap ones first, should time be short
            work = partial(self._drawn, seed, sampler)
            found[name][calls] = self.cells.get(f"{self.label}/{name}/{calls}/seed {seed}", work)
        return found

    def _drawn(self, seed: int, sampler: Sampler, guidance: float = 1.0) -> Cell:
        """The figures of samples, and what they cost; "network_share" is the network's share of the time of drawing."""
        run, judge = self._run(seed)
        diffusion = guided(run.diffusion, guidance, run.recipe.sampling().clip)
        fresh_peak()
        torch.manual_seed(seed)
        with Clock(run.diffusion.network) as clock:
            found, seconds = timed(lambda: judge.draw(diffusion, sampler))
        return {
            **judge.figures(found),
            "measure": self.measure.name,
            "better": self.measure.better,
            "sampler": type(sampler).__name__,
            "sampler_steps": sampler.steps,
            "guidance": guidance,
            "evaluations": clock.evaluations / judge.count,
            "n": judge.count,
            "steps": run.step,
            "seed": seed,
            "samples_per_second": judge.count / seconds,
            "network_share": clock.seconds / seconds,
            "sampling_peak_mb": round(peak()),
        }

    def line(self) -> dict[str, str]:
        """All of it in one line of a table."""
        trainings, own = [self.trained(s) for s in self.seeds], [self.own(s) for s in self.seeds]
        return line(self.label, self.measure, trainings, own, self.beside())


# ---- what is shown ----


def line(name: str, measure: Measure, trainings: list[Cell], own: list[Cell], beside: Cell) -> dict[str, str]:
    """A recipe in one line of a table: means over its trainings, and half the range of its figure.

    Args:
        name: of the recipe.
        measure: of its domain.
        trainings, own: cells of each seed.
        beside: the cell of what stands beside it.
    """
    values, first = [cell["value"] for cell in own], trainings[0]
    spread = f" ± {measure.shown(float(f'{(max(values) - min(values)) / 2:.2g}'))}" if len(values) > 1 else ""
    rate = sum(cell["samples_per_second"] for cell in own) / len(own)
    seconds = [cell["train_seconds"] for cell in trainings if "train_seconds" in cell]
    memory = [cell["peak_mb"] for cell in trainings if "peak_mb" in cell]
    return {
        "recipe": name,
        "measure": f"{measure.name} ({measure.better} is better)",
        "model": f"{measure.shown(sum(values) / len(values))}{spread}",
        "beside": f"{measure.shown(beside['value'])} ({beside['what']})",
        "steps": f"{first['steps']:,}" + (f" of {first['planned']:,}" if first["steps"] != first["planned"] else ""),
        "training": f"{sum(seconds) / len(seconds):.0f} s" if seconds else "",
        "parameters": f"{first['parameters']:,}",
        "samples a second": f"{rate:,.0f}" if rate > 100 else f"{rate:.3g}",
        "evaluations": f"{own[0]['evaluations']:.0f}",
        "network": f"{100 * sum(cell['network_share'] for cell in own) / len(own):.0f} %",
        "memory": f"{max(memory):,} MB" if memory else "",
    }


def _table(case: _Case, curves: Curves) -> list[dict[str, str]]:
    columns = sorted({calls for found in curves.values() for calls in found})
    lines: list[dict[str, str]] = []
    for name, found in curves.items():
        values = {calls: case.measure.shown(cell["value"]) for calls, cell in found.items()}
        lines.append({case.label: name} | {str(calls): values.get(calls, "") for calls in columns})
    return lines


class Panel(NamedTuple):
    """A recipe's curves, and the cell of what stands beside them."""

    name: str
    measure: Measure
    curves: Curves
    beside: Cell


def picture(path: Path, shown: list[Panel]) -> None:
    """A panel for each recipe: quality against evaluations, what stands beside it as a dotted line."""
    from matplotlib.ticker import ScalarFormatter

    colours = {name: f"C{number}" for number, name in enumerate(SAMPLERS)}
    with panels(path, len(shown), (3.6, 3.4)) as axes:
        for axis, (title, measure, curves, beside) in zip(axes, shown, strict=True):
            scale = 100 if measure.percent else 1
            for name, found in curves.items():
                places = sorted((cell["evaluations"], scale * cell["value"]) for cell in found.values())
                axis.plot(*zip(*places, strict=True), "o-", color=colours[name], label=name, markersize=4)
            axis.axhline(scale * beside["value"], color="0.5", linestyle=":", label="real data, or best baseline")
            axis.set_xscale("log")
            axis.set_xticks(list(_ticks(curves)))
            axis.xaxis.set_major_formatter(ScalarFormatter())
            axis.minorticks_off()
            unit = " (%)" if measure.percent else ""
            axis.set(xlabel="evaluations of the network", ylabel=f"{measure.name}{unit}")
            axis.set_title(title, fontsize=10)
        handles = {h.get_label(): h for axis in axes for h in axis.get_legend_handles_labels()[0]}
        axes[0].figure.legend(
            handles.values(), handles.keys(), loc="outside lower center", ncols=len(handles), frameon=False, fontsize=8
        )


def _ticks(curves: Curves) -> Iterator[float]:
    """The evaluations 5, 20, 100 and so on that lie within the points."""
    every = [cell["evaluations"] for found in curves.values() for cell in found.values()] or [1.0]
    for tick in (1, 5, 20, 100, 1000):
        if 0.8 * min(every) <= tick <= 1.25 * max(every):
            yield float(tick)


if __name__ == "__main__":
    main()
