"""Conformers of held-out crystal ligands: the best of n, by the model and by RDKit alone.

    python -m benchmarks molecule_conformers --runs runs/conformers

Of each molecule n conformers are made, and the one nearest to the crystal's counts (RMSD of heavy atoms after alignment,
symmetric atoms exchanged). The model stands on the local structures of the same n conformers of ETKDGv3 that it is compared with.
All figures are kept molecule by molecule, so that differences come with an error over molecules.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import Cell, Cells, command_line, opened, say, show
from benchmarks.timing import timed
from diffusionkit.molecule import conformer_evaluate as judged
from diffusionkit.molecule.conformer_data import Crystal, readable
from diffusionkit.training.run import Run


def main(arguments: list[str] | None = None) -> None:
    """Reads the command line and measures."""
    parser = command_line("molecule_conformers", __doc__)
    add = parser.add_argument
    add("--runs", nargs="+", type=Path, required=True, help="trained runs, one for each seed of training")
    add("--data", default="", help="folder above `molecule`; by default that of DIFFUSIONKIT_DATA")
    add("--part", default="test", choices=["val", "test"], help="val to choose by, test for the final figures")
    add("-n", type=int, default=20, help="conformers of each molecule")
    add("--seeds", nargs="+", type=int, default=[0], help="of local structures and of drawing")
    add("--pools", nargs="+", type=int, default=[1, 5], help="of how many times n the model's n are picked")
    add("--clusters", type=int, default=200, help="conformers of ETKDGv3 of which n are picked; 0 for none")
    options = parser.parse_args(arguments)
    compare(opened(parser, options, arguments, "molecule_conformers.json"), options)


def compare(cells: Cells, options: argparse.Namespace) -> None:
    """All contestants over all seeds, as a table."""
    known, graphs, _ = readable(Crystal(options.data).load()[options.part])
    rows: dict[str, list[np.ndarray]] = {}
    for seed in options.seeds:
        works = rdkit(known, graphs, seed, options)
        for folder in options.runs:
            works |= learned(folder, known, graphs, seed, options)
        for name, work in works.items():
            key = f"{options.part}/{options.n}/{name}/seed {seed}"
            cell = cells.get(key, lambda work=work: measured(known, work))
            rows.setdefault(name.partition(" from ")[0], []).append(np.array(cell["best"], dtype=float))
    say(f"\n{len(known)} molecules of {options.part}, the best of {options.n} in Angstrom\n")
    show([line(name, found, rows["ETKDGv3"]) for name, found in rows.items()])


def rdkit(known: list[Any], graphs: list[Any], seed: int, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What needs no model."""
    n, many = options.n, options.clusters
    works = {
        "ETKDGv3": lambda: judged.etkdg(known, n, seed),
        "ETKDGv3 + MMFF94s": lambda: judged.etkdg(known, n, seed, relax=True),
        "random torsions": lambda: judged.random_torsions(graphs, judged.etkdg(known, n, seed), seed),
    }
    return works | ({f"ETKDGv3 picked of {many}": lambda: judged.picked(known, n, seed, many)} if many else {})


def learned(
    folder: Path, known: list[Any], graphs: list[Any], seed: int, options: argparse.Namespace
) -> dict[str, Callable[[], Any]]:
    """What a run draws, as it comes and picked."""
    run = Run.load(folder)

    def work(pool: int) -> Callable[[], Any]:
        return lambda: judged.model(run, known, graphs, options.n, seed, pool=pool)

    return {
        f"model{f' picked of {pool * options.n}' if pool > 1 else ''} from {folder.name}": work(pool)
        for pool in options.pools
    }


def measured(known: list[Any], work: Callable[[], Any]) -> Cell:
    """The best of each molecule, and how long it took; what was in the cache took nothing."""
    places, seconds = timed(work)
    best = judged.best_of(known, places)
    return {"best": [round(float(b), 4) for b in best], **judged.measures(best), "making_seconds": round(seconds, 1)}


def line(name: str, found: list[np.ndarray], base: list[np.ndarray]) -> dict[str, str]:
    """Means over seeds; the difference to ETKDGv3 with its standard error over molecules."""
    values = [judged.measures(best) for best in found]
    shown = {key: f"{np.mean([v[key] for v in values]):.3f}" for key in ("median", "mean", "below 0.5", "below 1")}
    gap = np.mean(found, 0) - np.mean(base, 0)
    gap = gap[np.isfinite(gap)]
    error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else 0.0
    return {"conformers": name, **shown, "mean - ETKDGv3": f"{gap.mean():+.3f} ± {error:.3f}"}


if __name__ == "__main__":
    main()
