"""Docking poses of held-out complexes: the model's first and best pose, beside AutoDock Vina and random placement.

    python -m benchmarks molecule_poses quality --run runs/poses
    python -m benchmarks molecule_poses curve overfit --models runs/benchmarks

Every ligand is docked to its pocket about the centroid of the crystal's ligand, from start structures of ETKDGv3 (or from the
crystal's conformer with its torsions drawn). Vina searches a box about the same centre, in all protein atoms that the data have.
A cell is one complex, so that a run of hours goes on where it was interrupted, and differences come with an error over complexes.
Poses are right below 2 Å of RMSD in place, symmetric atoms exchanged; "PB-valid" are those that pass all checks of PoseBusters
but that of energies.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import molecule_vina
from benchmarks.cells import Cell, Cells, command_line, run_parts, say, show
from benchmarks.models import trained, trained_for
from benchmarks.timing import timed
from diffusionkit.molecule import docking, pose_checks, pose_draw
from diffusionkit.molecule import pose_evaluate as judged
from diffusionkit.molecule.conformer_draw import with_conformers
from diffusionkit.molecule.pose_checks import RIGHT
from diffusionkit.molecule.pose_data import Complex, Complexes
from diffusionkit.molecule.pose_ranking import judge_of
from diffusionkit.training.run import Run

FEW = 0.03
"""Share of the training complexes that the overfit test learns by heart."""
_ALL = 60.0  # Å: a pocket with all protein atoms that the data have


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and measures."""
    parser = command_line("molecule_poses", __doc__, tuple(PARTS), models=True)
    add = parser.add_argument
    about = "a trained run of molecule/poses, whose folder `confidence` ranks the poses; curve: that of all complexes"
    add("--run", type=Path, help=about)
    add("--part", default="test", choices=["train", "val", "test"], help="of the complexes; test for final figures")
    add("--complexes", type=int, default=0, help="so many of the part, spread over it; 0 for all")
    add("-n", type=int, default=40, help="poses of each complex")
    add("--seed", type=int, default=0, help="of start structures and of drawing")
    add("--start", default="etkdg", choices=judged.STARTING, help="where lengths, angles and rings come from")
    add("--relax", action="store_true", help="relaxed poses as further rows")
    add("--radius", type=float, default=12.0, help="of the pockets that the models see, in Angstrom")
    add("--no-vina", action="store_true", help="leave Vina out")
    add("--exhaustiveness", type=int, default=8, help="of Vina's search")
    add("--edge", type=float, default=24.0, help="of Vina's box in Angstrom")
    add("--cores", type=int, default=2, help="of Vina")
    add("--shares", type=float, nargs="+", default=[0.25, 0.5, 1.0], help="curve: of the training complexes")
    add("--steps", default="", help="curve, overfit: of training; by default as in the recipe")
    options = parser.parse_args(arguments)
    if "quality" in (options.parts or PARTS) and options.run is None:
        parser.error("quality needs --run, a trained run of molecule/poses")
    run_parts(PARTS, parser, options, arguments, "molecule_poses.json")


def quality(cells: Cells, options: argparse.Namespace) -> None:
    """Top-1 and best of n, by the model, at random and by Vina."""
    some = _chosen(options.part, options)
    found = _model(cells, Run.load(options.run), options.run.name, options.part, some, options)
    if not options.no_vina and molecule_vina.installed():
        for name, cell in _vina(cells, some, options).items():
            found.setdefault(name, cell)
    elif not options.no_vina:
        say("Vina is not installed: pip install vina meeko")
    _told(found, some, options)


def curve(cells: Cells, options: argparse.Namespace) -> None:
    """What a share of the training complexes is worth."""
    some, lines = _chosen(options.part, options), {}
    for share in options.shares:
        run = Run.load(options.run) if options.run and share == 1 else _trained(f"poses_{share:g}", share, options)
        found = _model(cells, run, run.folder.name, options.part, some, options)
        lines |= {
            f"{share:g} of the training complexes: {name}": found[name] for name in found if name.startswith("model")
        }
    _told(lines, some, options)


def overfit(cells: Cells, options: argparse.Namespace) -> None:
    """A handful of complexes, learned by heart and docked again: whether the machinery is right."""
    run = _trained("poses_few", FEW, options)
    some = list(run.recipe.build("data").load()["train"])
    _told(_model(cells, run, run.folder.name, "train", some, options), some, options)


PARTS = {"quality": quality, "curve": curve, "overfit": overfit}


def _trained(name: str, share: float, options: argparse.Namespace) -> Run:
    settings = {"data.share": f"{share:g}", "data.radius": f"{options.radius:g}"}
    return trained(
        "molecule/poses",
        Path(options.models) / name,
        settings | ({"training.steps": options.steps} if options.steps else {}),
    )


@cache
def _loaded(radius: float) -> dict[str, list[Complex]]:
    return Complexes(radius=radius).load()


def _chosen(part: str, options: argparse.Namespace) -> list[Complex]:
    every = _loaded(options.radius)[part]
    count = min(options.complexes or len(every), len(every))
    return [every[k] for k in np.linspace(0, len(every) - 1, count).round().astype(int)]


# ---- cells: for each way to choose a pose its RMSD and whether it is PB-valid, of every complex


def _model(
    cells: Cells, run: Run, name: str, part: str, some: Sequence[Complex], options: argparse.Namespace
) -> dict[str, list[Cell]]:
    judge = judge_of(run)
    key = f"{name}/{part}/{options.radius:g} A/{options.n}/{options.start}/seed {options.seed}"
    key += "/relaxed" * options.relax

    def make(one: Complex) -> Cell:
        (docked, reasons), seconds = timed(
            lambda: judged.docked(run, [one], options.n, options.seed, options.start, judge)
        )
        if reasons:
            return {"reason": reasons[0]}
        ways = judged.chosen(docked[0])
        if options.relax:
            first = next(iter(ways))
            ways |= {f"{way}, relaxed": judged.relaxed(docked[0], ways[way]) for way in (first, "model, best of n")}
        return {
            "ways": {way: _figures(one, place) for way, place in ways.items()},
            "docking_seconds": round(seconds, 2),
            **trained_for(run),
        }

    return _ways([cells.get(f"{key}/{one.name}", lambda one=one: make(one)) for one in some])


def _vina(cells: Cells, some: Sequence[Complex], options: argparse.Namespace) -> dict[str, list[Cell]]:
    whole = {one.name: one for one in _loaded(_ALL)[options.part]}
    key = f"vina/{options.part}/exhaustiveness {options.exhaustiveness}/box {options.edge:g} A/{options.start}/seed {options.seed}"

    def make(one: Complex) -> Cell:
        try:
            ligand = pose_draw.ligand(one.name, one.ligand)
            start = one.ligand.GetConformer().GetPositions()
            if options.start == "etkdg":
                start = docking.starts(ligand.mol, 1, options.seed)[0]
            found, seconds = molecule_vina.dock(
                whole[one.name].pocket,
                ligand.mol,
                start,
                options.edge,
                options.exhaustiveness,
                options.cores,
                options.seed + 1,
            )
        except (ValueError, RuntimeError, TypeError) as error:
            return {"reason": f"{one.name}: {error}"}
        best = found[int(pose_checks.rmsd(ligand.mol, found, one.ligand).argmin())]
        ways = {"Vina, first": found[0], f"Vina, best of {molecule_vina.MODES}": best}
        return {
            "ways": {way: _figures(one, place) for way, place in ways.items()},
            "docking_seconds": round(seconds, 2),
        }

    return _ways([cells.get(f"{key}/{one.name}", lambda one=one: make(one)) for one in some])


def _figures(one: Complex, place: np.ndarray) -> dict[str, Any]:
    mol = pose_draw.ligand(one.name, one.ligand).mol
    far = float(pose_checks.rmsd(mol, place[None], one.ligand)[0])
    return {
        "rmsd": round(far, 3),
        "valid": judged.valid([(with_conformers(mol, place[None]), one.pocket, one.ligand)])[0],
    }


def _ways(cells: list[Cell]) -> dict[str, list[Cell]]:
    """For each way its figures of all complexes; a complex that was left out is far and not valid."""
    names = dict.fromkeys(name for cell in cells for name in cell.get("ways", {}))
    nothing = {"rmsd": float("inf"), "valid": False}
    return {
        name: [{**cell.get("ways", {}).get(name, nothing), "took": cell.get("docking_seconds")} for cell in cells]
        for name in names
    }


# ---- what is shown


def _told(found: dict[str, list[Cell]], some: Sequence[Complex], options: argparse.Namespace) -> None:
    where = f"centre: the crystal ligand's centroid; model: protein atoms within {options.radius:g} Å of it"
    box = f"Vina: a box of {options.edge:g} Å about it, exhaustiveness {options.exhaustiveness}, {options.cores} cores"
    say(f"\n{len(some)} complexes, {options.n} poses each from {options.start} starts; {where}; {box}")
    show([line(name, cells) for name, cells in found.items()])


def line(name: str, cells: Sequence[Cell]) -> dict[str, str]:
    """A row of the table, with the standard error of the share over complexes."""
    far = np.array([cell["rmsd"] for cell in cells])
    right, valid = far < RIGHT, np.array([cell["valid"] for cell in cells], dtype=bool)
    took = [cell["took"] for cell in cells if cell.get("took") is not None]
    error = np.sqrt(right.mean() * (1 - right.mean()) / len(far))
    return {
        "pose": name,
        "below 2 Å": f"{right.mean():.3f} ± {error:.3f}",
        "median": f"{np.median(far):.2f} Å",
        "PB-valid": f"{valid.mean():.3f}",
        "below 2 Å and PB-valid": f"{(right & valid).mean():.3f}",
        "seconds": f"{np.median(took):.1f}" if took and "random" not in name else "",
    }


if __name__ == "__main__":
    main()
