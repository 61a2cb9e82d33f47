"""What a run came to, as a page: samples, measures beside their floors, curves, recipe and what repeats it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffusionkit.training import chart, folder, page
from diffusionkit.training.files import replacing

NAME = "report.html"
SAMPLES = ("pictures/final.png", "Samples that were drawn at the end of the training.")
# What `diffusionkit plot` leaves; see plot.py.
_PLOTS = {
    "pictures/samples.png": "Samples.",
    "pictures/denoising.png": "From noise, at the left, to samples: a row is one sample.",
    "pictures/estimates.png": "What the network takes for the data meanwhile.",
    "pictures/forward.png": "Held-out data that become noise: the chain that is learned backwards.",
}
_TREES = ("table", "pictures", "better", "verdict")  # entries of the measures that are no figures
_SHOWN = 8  # numbers of a list


def report(run: str | Path, command: str = "") -> Path:
    """Writes `report.html` into a run folder that has been evaluated; nothing but the folder is read.

    Args:
        run: the folder.
        command: that evaluated it.

    Returns:
        Where the page is.

    Raises:
        UserError: if the run has not been evaluated, or a file of it is damaged.
    """
    run = Path(run)
    name, about, sections = folder.described(run)
    measures, rows = folder.measured(run), folder.read_metrics(run / "metrics.csv")
    head = page.paragraph(about) + page.facts(summary(run))
    parts = [
        page.section("Samples", page.figure(run / SAMPLES[0], SAMPLES[1], run)),
        page.section("Measures", *_measures(measures)),
        page.section("Pictures of the evaluation", *(page.figure(run / f, c, run) for f, c in pictures(measures))),
        page.section("From noise to data", *(page.figure(run / f, c, run) for f, c in _PLOTS.items())),
        page.section("Training", page.side_by_side(training(rows))),
        page.section("Recipe", page.code((run / "recipe.yaml").read_text("utf-8").strip(), "recipe.yaml")),
        page.section("Made with", page.facts(_environment(run))),
        page.section("Once more", *_again(run, sections, command)),
    ]
    out = run / NAME
    write(out, page.page(f"{run.resolve().name}: {name}", head, parts))
    return out


def write(path: Path, text: str) -> None:
    """Writes a page whole or not at all.

    Raises:
        UserError: if it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def summary(run: Path) -> dict[str, str]:
    """What a run is in a few words and figures."""
    _, _, sections = folder.described(run)
    (count, saved), rows = folder.weights(run), folder.read_metrics(run / "metrics.csv")
    last, about = folder.latest(rows), folder.environment(run)
    came = folder.origin(run)
    return {
        "domain": str(sections.get("domain", "")),
        "data": _name(sections.get("data")),
        "network": _name(sections.get("backbone")),
        "parameters": f"{count:,}" if count else "",
        "steps": f"{max(saved, int(last.get('step', 0))):,}" if not came else "",
        "training time": duration(last["seconds"]) if "seconds" in last else "",
        "trained on": str(about.get("device", "")),
        "held-out loss": f"{last['valid_loss']:.4g}" if "valid_loss" in last else "",
        "origin": came["text"] if came else "",
    }


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of a tree that hold no further ones, with the names that lead to them; those of a list of records by the first
    entry of each."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{name}: ")
        elif isinstance(value, list) and value and all(isinstance(one, Mapping) and one for one in value):
            yield from leaves({str(next(iter(one.values()))): dict(list(one.items())[1:]) for one in value}, prefix)
        else:
            yield f"{prefix}{name}", value


def said(value: Any) -> str:
    """A leaf as text: four digits of a number, the first entries of a list."""
    if isinstance(value, list):
        more = f", … ({len(value)})" if len(value) > _SHOWN else ""
        return ", ".join(said(one) for one in value[:_SHOWN]) + more
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–" if value is None else str(value)
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}"


def pictures(measures: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The pictures of an evaluation, as paths in the run folder, and what is to be seen in each."""
    found = measures.get("pictures")
    return [(str(path), str(text)) for path, text in found.items()] if isinstance(found, Mapping) else []


def rows_of(measures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows that a domain shows, or those of its figures where it has put none together."""
    rows = measures.get("table")
    return rows or [{"measure": name, "model": said(value)} for name, value in leaves(figures(measures))]


def by_measure(measures: Mapping[str, Any]) -> list[dict[str, str]]:
    """The rows that a domain shows, one for each measure: a table of one row for each way to do it is turned over."""
    rows = rows_of(measures)
    first = next(iter(rows[0]), "measure") if rows else "measure"
    if first == "measure":
        return rows
    return [
        {"measure": name} | {row[first]: row[name] for row in rows if name in row} for name in rows[0] if name != first
    ]


def figures(measures: Mapping[str, Any]) -> dict[str, Any]:
    """What has been measured, without what is said of it."""
    return {name: value for name, value in measures.items() if name not in _TREES}


def training(rows: list[dict[str, float]]) -> list[str]:
    """The curves of a metrics.csv."""

    def column(name: str) -> list[tuple[float, float]]:
        return [(row["step"], row[name]) for row in rows if name in row]

    losses = {"training": column("loss"), "held out, averaged weights": column("valid_loss")}
    return [
        chart.curves(losses, "Loss", "step", "loss", log=True),
        chart.curves({"learning rate": column("lr")}, "Learning rate", "step", "learning rate"),
    ]


def _measures(measures: Mapping[str, Any]) -> list[str]:
    told = page.paragraph(str(measures.get("verdict") or ""), "verdict")
    table = page.table(rows_of(measures), "The model, and what stands beside it")
    numbers = [{"number": name, "value": said(value)} for name, value in leaves(figures(measures))]
    return [told, table, page.folded("All numbers", page.table(numbers, "What metrics.json holds"))]


def _environment(run: Path) -> dict[str, Any]:
    names = {"git_commit": "commit", "diffusionkit": "diffusionkit", "torch": "PyTorch", "lightning": "Lightning"}
    found = {names.get(name, name): value for name, value in folder.environment(run).items()}
    return found | ({"commit": str(found["commit"])[:12]} if found.get("commit") else {})


def _again(run: Path, sections: Mapping[str, Any], command: str) -> list[str]:
    """The commands that train such a run again, and measure it."""
    lines = [command or shlex.join(["diffusionkit", "evaluate", str(run)])]
    if not folder.origin(run):
        again = run.with_name(f"{run.resolve().name}-again")
        lines.insert(0, shlex.join(["diffusionkit", "train", str(run / "recipe.yaml"), "--out", str(again)]))
    seed = sections.get("seed")
    words = "The first command trains it anew, the second has written this page." if len(lines) > 1 else ""
    words += (
        f" Its seed is {seed}: on the same machine it ends with the same weights." if words and seed is not None else ""
    )
    return [page.paragraph(words, "note"), page.code("\n".join(lines), "commands")]


def _name(section: Any) -> str:
    return str(section.get("name", "")) if isinstance(section, Mapping) else str(section or "")
