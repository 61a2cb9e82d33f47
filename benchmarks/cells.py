"""Measurements that take minutes each, kept one by one in a JSON file: an interrupted run goes on where it was."""

from __future__ import annotations

import json
import shlex
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import machine, timed
from diffusionkit.training.files import write_json

_PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "xgboost-cpu", "catboost", "imbalanced-learn", "ctgan")
RESULTS = Path(__file__).parent / "results"
Cell = dict[str, Any]


class Cells:
    """A JSON file of finished cells, each with the machine, versions, commit, command and seconds that it was measured with.

    Args:
        path: the file; made with the first cell.
        command: what was typed.
        fresh: measure cells again that are there already.
    """

    def __init__(self, path: Path, command: str = "", fresh: bool = False) -> None:
        self.path, self.command, self.fresh = path, command, fresh
        self.cells: dict[str, Cell] = read(path) if path.exists() else {}
        self._seen: set[str] = set()

    def get(self, key: str, make: Callable[[], Cell]) -> Cell:
        """The cell of this name: from the file, or made and written there."""
        if self.has(key):
            if key not in self._seen:
                say(f"{key}: measured already")
        else:
            say(f"{key}: measuring")
            found, seconds = timed(make)
            self.cells[key] = {**found, "command": self.command, "seconds": round(seconds, 1), "machine": about()}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"cells": self.cells})
        self._seen.add(key)
        return self.cells[key]

    def has(self, key: str) -> bool:
        """Whether `get` would take the cell from the file."""
        return key in self.cells and (key in self._seen or not self.fresh)


def read(path: Path) -> dict[str, Cell]:
    """The cells of a file."""
    return json.loads(path.read_text("utf-8"))["cells"]


def about() -> dict[str, Any]:
    """What figures depend on; no names."""
    from diffusionkit.training.loop import commit

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**machine(), **found, "commit": commit()}


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    print(text, flush=True)


# ---- the command line ----


def command_line(
    name: str, about: str | None, parts: Sequence[str] = (), threads: int | None = None, models: bool = False
) -> ArgumentParser:
    """A parser with the options that all benchmarks with cells have.

    Args:
        name: of the benchmark, as `python -m benchmarks NAME` has it.
        about: the docstring of its module.
        parts: what it consists of; the option `parts` then holds those that were asked for, none for all.
        threads: of torch by default; as torch has it for None.
        models: whether it takes the folder of trained models.
    """
    parser = ArgumentParser(
        prog=f"python -m benchmarks {name}", description=about, formatter_class=RawDescriptionHelpFormatter
    )

    def part(word: str) -> str:
        if word not in parts:
            raise ArgumentTypeError(f"there is no part {word!r}: {', '.join(parts)}")
        return word

    if parts:
        parser.add_argument("parts", nargs="*", type=part, metavar="PART", help=f"{', '.join(parts)}; all by default")
    parser.add_argument("--out", default=str(RESULTS), help="folder of the JSON files")
    if models:
        parser.add_argument("--models", default="runs/benchmarks", help="folder of the models, where they are kept")
    told = "as torch has it" if threads is None else str(threads)
    parser.add_argument("--threads", type=int, default=threads, help=f"of torch; {told} by default")
    parser.add_argument("--fresh", action="store_true", help="measure again what is there already")
    return parser


def opened(parser: ArgumentParser, options: Namespace, arguments: list[str] | None, file: str, part: str = "") -> Cells:
    """The cells of a command; torch then has the threads that were asked for.

    Args:
        parser: of `command_line`.
        options: what it has read.
        arguments: what was typed; the process's own for None.
        file: the name of the JSON file in `--out`.
        part: what is run where nothing was typed.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    words = (sys.argv[1:] if arguments is None else arguments) or [part] * bool(part)
    return Cells(Path(options.out) / file, shlex.join([*parser.prog.split(), *words]), options.fresh)


def run_parts(
    parts: Mapping[str, Callable[[Cells, Namespace], None]],
    parser: ArgumentParser,
    options: Namespace,
    arguments: list[str] | None,
    file: str,
) -> None:
    """Runs the parts that were asked for, all by default.

    Args:
        parts: by name; a part is told its cells and the options.
        parser: of `command_line`.
        options: what it has read, with those of the benchmark itself, checked by its caller.
        arguments: what was typed; the process's own for None.
        file: the name of the JSON file in `--out`, in which `{part}` stands for the name of the part.
    """
    for number, name in enumerate(options.parts or parts):
        cells = opened(parser, options, arguments, file.format(part=name), name)
        if not number:
            say(", ".join(f"{name} {value}" for name, value in about().items()))
        say(f"\n{name}: {(parts[name].__doc__ or '').splitlines()[0]}")
        parts[name](cells, options)


# ---- what is shown ----


def show(rows: list[dict[str, str]]) -> None:
    """Rows of a table as aligned text, with an empty line before."""
    import pandas as pd

    from diffusionkit.tabular.text import aligned

    say("\n" + aligned(pd.DataFrame(rows).fillna("")))


@contextmanager
def panels(path: Path, count: int = 1, size: tuple[float, float] = (4.5, 3.4)) -> Iterator[list[Any]]:
    """Axes, at most four in a row, each of so many inches; the picture is written at the end."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    yield axes[:count]
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
