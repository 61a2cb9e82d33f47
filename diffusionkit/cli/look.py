"""Commands that look at runs: `evaluate`, `compare`, `plot` and `info`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.cli.draw import Folder, load, resettled
from diffusionkit.cli.start import Words
from diffusionkit.domain import domains
from diffusionkit.training import folder
from diffusionkit.training.report import figures, leaves, said

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
    report: bool = True,
) -> None:
    """Measure how good the samples of a run are, against data held out of the training.

    Prints a table; the numbers go into `metrics.json` in the run folder, pictures beside it, and all of it into `report.html`, a
    page that stands alone. Further options are arguments of the sampler, such as `--steps 20`, and those of the domain. What is
    not given is as in the recipe.

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
        report: Write the page.
    """
    plain, extra = options.split([run, *words])
    loaded = load(options.one(plain, "run"), device, recipe, draws=False)
    shared = {"sampler": sampler, "guidance": guidance, "clip": clip, "batch_size": batch_size}
    shared = {k: v for k, v in shared.items() if v is not None}
    others = {*options.keywords(loaded.domain.evaluate), *options.keywords(evaluate)} - {"n"}
    loaded.recipe, rest = resettled(loaded, shared, extra, others)
    chosen = options.arguments(loaded.domain.evaluate, rest) | {"seed": seed} | ({} if n is None else {"n": n})
    from diffusionkit.training.report import report as write

    measures = loaded.domain.evaluate(loaded, **chosen)
    path = folder.keep_measures(loaded.folder, measures)
    _table(measures)
    print(f"Numbers in {path}")
    if report:
        own = {"seed": seed or None, "device": device, "recipe": recipe}
        typed = {options.flag(k): v for k, v in {**shared, **extra, **own}.items()} | {"-n": n}
        words = [str(word) for pair in typed.items() if pair[1] is not None for word in pair]
        made = write(loaded.folder, shlex.join(["diffusionkit", "evaluate", str(loaded.folder), *words]))
        print(f"Report in {made}")


def compare(run: Folder, /, *words: Words, out: Path = Path("compare.html")) -> None:
    """Set runs that have been evaluated side by side in one page: measures, losses, samples, and what differs in their recipes.

    The page stands alone, as `report.html` does, and needs no network. The runs are of one domain.

    Example: `diffusionkit compare runs/digits runs/digits-2 --out compare.html`

    Args:
        run: The folder of a run; further ones follow.
        out: Where to write the page.
    """
    plain, extra = options.split([run, *words])
    options.refuse(extra, ["out"])
    from diffusionkit.training.compare import compare as beside

    print(f"{len(plain)} runs in {beside(plain, out)}")


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
    path = Path(run)
    name, _, sections = folder.described(path)
    lines = dict(_facts(path, sections))
    width = max(map(len, lines))
    print(f"{path}: {name}")
    for name, fact in lines.items():
        print(f"  {name:<{width}}  {fact}")
    print(f"Next: diffusionkit sample {path}\n      diffusionkit evaluate {path}\n      diffusionkit plot {path}")
    domain = domains().get(str(sections.get("domain")))
    if domain and domain.edits:
        print(f"Also: {', '.join(domain.edits)}")


def _facts(run: Path, sections: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    came = folder.origin(run)
    if came:
        yield "origin", came["text"]
    for name in ("data", "process", "backbone", "objective", "training", "trainer", "sampling"):
        if sections.get(name):
            yield name, _phrase(sections[name])
    count, saved = folder.weights(run)
    yield "parameters", f"{count:,}" if count else "no weights yet"
    last = folder.latest(folder.read_metrics(run / "metrics.csv"))
    wanted = (sections.get("training") or {}).get("steps")
    if not came:
        yield (
            "steps",
            f"{max(saved, int(last.get('step', 0))):,}" + (f" of {wanted:,}" if isinstance(wanted, int) else ""),
        )
    for name, value in last.items():
        if "loss" in name:
            yield name, f"{value:.4g}"
    yield "files", ", ".join(sorted(p.name + "/" * p.is_dir() for p in run.iterdir()))


def _phrase(section: Any) -> str:
    """A section in one line: its name, then its keys."""
    if not isinstance(section, Mapping):
        return str(section)
    named = [str(section[key]) for key in ("name", "sampler") if key in section]
    rest = [f"{k} {_phrase(v)}" for k, v in section.items() if k not in ("name", "sampler") and v not in (None, "")]
    return f"{' '.join(named)}{' (' if named and rest else ''}{', '.join(rest)}{')' if named and rest else ''}"


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
    for name, value in () if rows else leaves(figures(measures)):
        table.add_row(name, said(value))
    console = Console(highlight=False)
    widths = [max(len(str(text)) for text in (column, *(row[column] for row in rows or []))) for column in columns[:-1]]
    console.width = max(console.width, sum(widths) + 2 * len(widths) + _COMMENT)  # lines break rather than lose figures
    console.print(table)
