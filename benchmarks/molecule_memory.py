"""Whether many molecules take more memory than few: `diffusionkit sample` as whole processes."""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.cells import Cell, Cells, show
from benchmarks.timing import spent
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble

COUNTS = (500, 10_000)
_STEPS, _FLAT = 5, 1.1


def memory(cells: Cells, options: argparse.Namespace) -> None:
    """Highest memory of drawing and writing few and many molecules, with the untrained network of molecule/nci_small."""
    found = {n: cells.get(f"memory/{n}", partial(drawn, n, options)) for n in COUNTS}
    few, many = (found[n]["peak_mb"] for n in COUNTS)
    judged = f"at most {_FLAT:g} times: {'met' if many <= _FLAT * few else 'MISSED'}"
    show([
        {"molecules": f"{n:,}", "highest memory": f"{cell['peak_mb']:,.0f} MB", "file": f"{cell['file_mb']:.1f} MB",
         "seconds": f"{cell['drawing_seconds']:.0f}", "gate": judged if n == COUNTS[-1] else ""}
        for n, cell in found.items()
    ])  # fmt: skip


def drawn(n: int, options: argparse.Namespace) -> Cell:
    """Memory and time of the command that draws n molecules in a few steps, by a network that was not trained."""
    with tempfile.TemporaryDirectory() as name:
        folder, recipe = Path(name), Recipe.load("molecule/nci_small")
        codec, _ = recipe.domain.prepare(recipe.build("data"))
        run = Run(folder, recipe, recipe.domain, codec, assemble(recipe, codec), 0).save(folder / "run")
        out, words = folder / "drawn.sdf", ["-n", str(n), "--steps", str(_STEPS)]
        command = [sys.executable, "-m", "diffusionkit", "sample", str(run), *words, "--out", str(out)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
        found = spent(command, env=environment, stdout=subprocess.DEVNULL)
        if found.code:
            raise SystemExit(f"{shlex.join(command)}: ended with code {found.code}")
        records = out.read_text().count("$$$$")
        if records != n:
            raise SystemExit(f"{n} molecules were asked for, and {records} written")
        size = out.stat().st_size / 1e6
    return {"peak_mb": round(found.peak_mb, 1), "drawing_seconds": round(found.seconds, 1), "file_mb": round(size, 4)}
