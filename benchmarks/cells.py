"""Measurements that take minutes each, kept one by one in a JSON file: an interrupted run goes on where it was."""

from __future__ import annotations

import json
import shlex
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.timing import machine
from diffusionkit.tabular.text import aligned
from diffusionkit.training.files import write_json

_PACKAGES = ("numpy", "pandas", "scikit-learn", "xgboost", "xgboost-cpu", "catboost", "imbalanced-learn", "ctgan")
Cell = dict[str, Any]


class Cells:
    """A JSON file of finished cells, each with the machine, versions, command and seconds that it was measured with.

    Args:
        path: the file; made with the first cell.
        command: what was typed.
        fresh: measure cells again that are there already.
    """

    def __init__(self, path: Path, command: str = "", fresh: bool = False) -> None:
        self.path, self.command, self.fresh = path, command, fresh
        self.cells: dict[str, Cell] = json.loads(path.read_text("utf-8"))["cells"] if path.exists() else {}
        self._seen: set[str] = set()

    def get(self, key: str, make: Callable[[], Cell]) -> Cell:
        """The cell of this name: from the file, or made and written there."""
        if key in self.cells and (key in self._seen or not self.fresh):
            if key not in self._seen:
                say(f"{key}: measured already")
        else:
            say(f"{key}: measuring")
            begun = time.perf_counter()
            found = make()
            self.cells[key] = {
                **found,
                "command": self.command,
                "seconds": round(time.perf_counter() - begun, 1),
                "machine": about(),
            }
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"cells": self.cells})
        self._seen.add(key)
        return self.cells[key]


def about() -> dict[str, Any]:
    """What figures depend on; no names."""
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {**machine(), **found}


def say(text: str) -> None:
    """A line at once, also into a pipe."""
    print(text, flush=True)


def run_parts(
    parts: Mapping[str, Callable[[Cells, Namespace], None]],
    parser: ArgumentParser,
    arguments: list[str] | None,
    file: str,
) -> None:
    """Reads the command line of a benchmark with cells, and runs the parts asked for, all by default.

    Args:
        parts: by name; a part is told its cells and the options.
        parser: with arguments "parts", "--out", "--fresh" and "--threads".
        arguments: what was typed; the process's own by default.
        file: the name of the JSON file in `--out`.
    """
    options = parser.parse_args(arguments)
    for name in options.parts:
        if name not in parts:
            parser.error(f"there is no part {name!r}: {', '.join(parts)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    words = sys.argv[1:] if arguments is None else arguments
    say(", ".join(f"{name} {value}" for name, value in about().items()))
    for name in options.parts or parts:
        command = shlex.join([*parser.prog.split(), *(words or [name])])
        say(f"\n{name}: {(parts[name].__doc__ or '').splitlines()[0]}")
        parts[name](Cells(Path(options.out) / file, command, options.fresh), options)


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    """What it returns, and how many seconds it took."""
    begun = time.perf_counter()
    found = work()
    return found, time.perf_counter() - begun


def show(rows: list[dict[str, str]]) -> None:
    """Rows of a table as aligned text, with an empty line before."""
    say("\n" + aligned(pd.DataFrame(rows).fillna("")))
