"""Commands that look at a run: `evaluate`, `plot` and `info`."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.cli.draw import Folder, load, resettled
from diffusionkit.cli.start import Words
from diffusionkit.errors import UserError
from diffusionkit.recipe import parse

_COMMENT = 40  # columns that the last one of a table gets at least


def evaluate(
    run: Folder,
    /,
    *words: Words,
    n: Annotated[int | None, Parameter(name=("-n", "--number"))] = None,
    sampler: str | None = None,
    guidance: str | None = None,
    clip: str | None = None,
    seed: int = 0,
    batch_size: str | None = None,
    device: str | None = None,
    recipe: str | None = None,
) -> None:
    """Measure how good the samples of a run are, against data held out of the training.

    Prints a table; the numbers go into `metrics.json` in the run folder, pictures beside it. Further options are arguments
    of the sampler, such as `--steps 20`, and those of the domain. What is not given is as in the recipe.

    Example: `diffusionkit evaluate runs/digits -n 1000 --sampler dpmpp --steps 15`

    Args:
        run: The folder of a run.
        n: How many samples to draw; as many as the domain thinks right if not given.
        sampler: How to step from noise to data: ddpm, ddim, heun, dpmpp, unipc.
        guidance: Scale of classifier-free guidance.
        clip: Bound on the estimate of the clean data, or `dynamic`.
        seed: Seed of the random numbers.
        batch_size: Samples drawn at a time.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """
    plain, extra = options.split([run, *words])
    loaded = load(options.one(plain, "run"), device, recipe, draws=False)
    given = {"sampler": sampler, "guidance": guidance, "clip": clip, "batch_size": batch_size}
    others = {*options.keywords(loaded.domain.evaluate), *options.keywords(evaluate)} - {"n"}
    loaded.recipe, rest = resettled(loaded, {k: v for k, v in given.items() if v is not None}, extra, others)
    chosen = options.arguments(loaded.domain.evaluate, rest) | {"seed": seed} | ({} if n is None else {"n": n})
    from diffusionkit.training.files import write_json

    measures = loaded.domain.evaluate(loaded, **chosen)
    path = Path(loaded.folder) / "metrics.json"
    write_json(path, measures)
    _table(measures)
    print(f"Numbers in {path}")


def plot(run: str, /, *, device: str | None = None, recipe: str | None = None) -> None:
    """Draw a run's loss curves, its forward chain and a denoising trajectory as pictures.

    Example: `diffusionkit plot runs/digits`

    Args:
        run: The folder of a run.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """
    from diffusionkit.training.plot import plot as draw

    for path in draw(load(run, device, recipe)):
        print(path)


def info(run: str, /) -> None:
    """Say what a run is: its recipe, size, progress, losses and files.

    Example: `diffusionkit info runs/digits`

    Args:
        run: The folder of a run.
    """
    folder = Path(run)
    path = folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is no run: it has no recipe.yaml; `diffusionkit train` makes runs")
    text = path.read_text("utf-8")
    lines = dict(_facts(folder, parse(text, str(path))))
    width = max(map(len, lines))
    print(f"{folder}: {text.splitlines()[0].lstrip('# ').removeprefix('recipe: ')}")
    for name, fact in lines.items():
        print(f"  {name:<{width}}  {fact}")
    print(f"Next: diffusionkit sample {folder}\n      diffusionkit evaluate {folder}\n      diffusionkit plot {folder}")


def _facts(folder: Path, sections: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    imported = (folder / "origin.json").is_file()
    if imported:
        with suppress(ValueError, TypeError, KeyError, OSError):
            yield "origin", str(json.loads((folder / "origin.json").read_text("utf-8"))["text"])
    for name in ("data", "process", "backbone", "objective", "training", "trainer", "sampling"):
        if sections.get(name):
            yield name, _phrase(sections[name])
    weights = folder / "weights.safetensors"
    count, saved = _weights(weights) if weights.is_file() else (0, 0)
    yield "parameters", f"{count:,}" if count else "no weights yet"
    logged, losses = _progress(folder / "metrics.csv")
    wanted = (sections.get("training") or {}).get("steps")
    if not imported:
        yield "steps", f"{max(saved, logged):,}" + (f" of {wanted:,}" if isinstance(wanted, int) else "")
    for name, value in losses.items():
        yield name, f"{value:.4g}"
    yield "files", ", ".join(sorted(p.name + "/" * p.is_dir() for p in folder.iterdir()))


def _phrase(section: Any) -> str:
    """A section in one line: its name, then its keys."""
    if not isinstance(section, Mapping):
        return str(section)
    named = [str(section[key]) for key in ("name", "sampler") if key in section]
    rest = [f"{k} {_phrase(v)}" for k, v in section.items() if k not in ("name", "sampler") and v is not None]
    return f"{' '.join(named)}{' (' if named and rest else ''}{', '.join(rest)}{')' if named and rest else ''}"


def _weights(path: Path) -> tuple[int, int]:
    """The number of weights and the step they are from, of the header of a safetensors file alone.

    Raises:
        UserError: if the file is corrupt.
    """
    with path.open("rb") as file:
        try:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(min(size, 100_000_000)))
            about = header.pop("__metadata__", {})
            return sum(math.prod(tensor["shape"]) for tensor in header.values()), int(about.get("step", 0))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: this is no readable weights file; it may have been cut off") from error


def _progress(path: Path) -> tuple[int, dict[str, float]]:
    """The last step of a metrics file, and the last value of each loss in it."""
    steps, losses = 0, {}
    if not path.is_file():
        return steps, losses
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            with suppress(ValueError, TypeError):  # a row that was cut off when the run was killed
                numbers = {name: float(value) for name, value in row.items() if value}
                steps = max(steps, int(numbers.get("step", 0)))
                losses |= {name: value for name, value in numbers.items() if "loss" in name}
    return steps, losses


def _table(measures: Mapping[str, Any]) -> None:
    """The rows that the domain has put together under `table`, or else the tree of numbers, a line each."""
    from rich.console import Console
    from rich.table import Table

    rows = measures.get("table")
    columns = list(rows[0]) if rows else ["measure", "value"]
    table = Table(box=None, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, no_wrap=i < len(columns) - 1, overflow="fold")
    for row in rows or []:
        table.add_row(*row.values())
    for name, value in () if rows else _leaves(measures):
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    console = Console(highlight=False)
    widths = [max(len(str(text)) for text in (column, *(row[column] for row in rows or []))) for column in columns[:-1]]
    console.width = max(console.width, sum(widths) + 2 * len(widths) + _COMMENT)  # lines break rather than lose figures
    console.print(table)


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", value
