"""Reports as text: aligned tables, figures as they are read, and a bar while they are made."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd

FIGURES = ("fake", "floor", "independent", "value", "ideal", "error")


def number(value: float) -> str:
    """Three digits after the point of what lies below ten, else four in all; a dash for nan."""
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def aligned(table: pd.DataFrame) -> str:
    """A frame of strings as text in columns: the figures to the right, words to the left."""
    columns = {name: [str(name), *table[name].astype(str)] for name in table.columns}
    lines = [
        [cell.rjust(width) if name in FIGURES else cell.ljust(width) for cell in cells]
        for name, cells in columns.items()
        for width in [max(map(len, cells))]
    ]
    return "\n".join("  ".join(row).rstrip() for row in zip(*lines, strict=True))


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dicts that JSON can keep: nan is None."""
    return [
        {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}
        for row in table.to_dict("records")
    ]


def percent(value: float) -> str:
    """A share as per cent with two digits; a dash for nan."""
    return "–" if math.isnan(value) else f"{100 * value:.2f} %"


@contextmanager
def stages(total: int, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar of so many stages on a terminal or in a notebook, and a function that names the next one."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    shown = not quiet and (console.is_terminal or console.is_jupyter)
    bar = Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), console=console, transient=True,
                   disable=not shown)  # fmt: skip
    with bar:
        task = bar.add_task("", total=total)
        begun = [False]

        def stage(name: str) -> None:
            bar.update(task, description=name, advance=1 if begun[0] else 0)
            begun[0] = True

        yield stage
