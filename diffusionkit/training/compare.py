"""Runs side by side in one page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusionkit.errors import UserError
from diffusionkit.training import chart, folder, page
from diffusionkit.training.report import SAMPLES, by_measure, leaves, pictures, said, summary, write

_WORDS = ("measure", "better", "comment")  # columns of a table that hold nothing to set beside
_OWN = ("data", "network", "domain")  # of a summary, said in the recipe as well


def compare(runs: Sequence[str | Path], out: str | Path = "compare.html") -> Path:
    """Writes a page that sets runs of one domain side by side; nothing but their folders is read.

    Args:
        runs: folders that have been evaluated.
        out: the page.

    Returns:
        Where the page is.

    Raises:
        UserError: if there are less than two runs, one has not been evaluated or is damaged, or they are of several domains.
    """
    folders, out = [Path(run) for run in runs], Path(out)
    if len({path.resolve() for path in folders}) < 2 or len({path.resolve() for path in folders}) < len(folders):
        raise UserError(f"runs: two or more different ones are needed, not {', '.join(map(str, folders)) or 'none'}")
    if out.suffix not in (".html", ".htm"):
        raise UserError(f"--out: a page ends in .html, and not in {out.suffix or 'nothing'}: {out}")
    recipes = [folder.described(path)[2] for path in folders]
    for path, sections in zip(folders, recipes, strict=True):
        if sections.get("domain") != recipes[0].get("domain"):
            raise UserError(
                f"{path}: is of the domain {sections.get('domain')}, {folders[0]} of {recipes[0].get('domain')}: "
                "they have no measure in common"
            )
    measures = [folder.measured(path) for path in folders]
    names = _names(folders)
    parts = [
        page.section("Runs", page.table(_runs(names, folders), "What was trained", beside=True)),
        page.section("Measures", *_measures(names, measures)),
        page.section("Loss", page.side_by_side(_curves(names, folders)), page.paragraph(_scales(recipes), "note")),
        page.section("What differs in the recipes", _differences(names, recipes)),
        *_pictures(names, folders, measures),
        page.section(
            "Once more",
            page.code(shlex.join(["diffusionkit", "compare", *map(str, folders), "--out", str(out)]), "command"),
        ),
    ]
    write(out, page.page(f"{len(folders)} runs of the domain {recipes[0].get('domain')}", "", parts))
    return out


def _names(folders: Sequence[Path]) -> list[str]:
    """The names of the folders, or their paths where names are not enough to tell them apart."""
    names = [path.resolve().name for path in folders]
    return names if len(set(names)) == len(names) else [str(path) for path in folders]


def _runs(names: Sequence[str], folders: Sequence[Path]) -> list[dict[str, str]]:
    found = {
        name: {"recipe": folder.described(path)[0]} | summary(path) for name, path in zip(names, folders, strict=True)
    }
    keys = [
        key for key in next(iter(found.values())) if key not in _OWN and any(one.get(key) for one in found.values())
    ]
    return [{"": key} | {name: one.get(key) or "–" for name, one in found.items()} for key in keys]


def _measures(names: Sequence[str], measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """One table of all measures that any run has, with the best figures marked, and how the evaluations themselves differed."""
    tables = [{row["measure"]: row for row in by_measure(one)} for one in measures]
    rows, best = [], {}
    for measure in dict.fromkeys(name for table in tables for name in table):
        found = [table.get(measure, {}) for table in tables]
        cells = {name: row.get(_model(row), "–") for name, row in zip(names, found, strict=True)}
        better = next((b for row, one in zip(found, measures, strict=True) if (b := _better(row, one))), "")
        best[len(rows)] = _best(cells, better)
        columns = dict.fromkeys(
            c for table in tables for row in table.values() for c in row if c not in (*_WORDS, _model(row))
        )
        beside = {c: " | ".join(dict.fromkeys(str(row[c]) for row in found if row.get(c))) or "–" for c in columns}
        rows.append({"measure": measure} | cells | {"better": better or "–"} | beside)
    unlike = _unlike(names, measures)
    told = [f"{name}: {one['verdict']}" for name, one in zip(names, measures, strict=True) if one.get("verdict")]
    caption = "The best figures are marked, as they are written here; what stands beside them comes last"
    return [
        *(page.paragraph(text, "note") for text in told),
        page.table(rows, caption, best, beside=True),
        page.paragraph("Mind that the evaluations were not alike:" if unlike else "", "note"),
        page.table(unlike, "How the runs were measured", beside=True),
    ]


def _model(row: Mapping[str, str]) -> str:
    """The column that holds the model's own figure: the first after the measure."""
    return "model" if "model" in row else next((name for name in row if name not in _WORDS), "model")


def _better(row: Mapping[str, str], measures: Mapping[str, Any]) -> str:
    return str(row.get("better") or (measures.get("better") or {}).get(str(row.get("measure", "")).strip(), ""))


def _best(cells: Mapping[str, str], better: str) -> list[str]:
    """The columns with the best figure; none where that is not known, or all are alike."""
    numbers = {name: value for name, text in cells.items() if (value := page.figure_of(text)) is not None}
    if better not in ("lower", "higher") or len(set(numbers.values())) < 2:
        return []
    goal = min(numbers.values()) if better == "lower" else max(numbers.values())
    return [name for name, value in numbers.items() if value == goal]


def _unlike(names: Sequence[str], measures: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Numbers of samples, seeds and the like in which the evaluations differ."""
    plain = [
        {
            key: said(value)
            for key, value in one.items()
            if isinstance(value, int | str) and key not in ("step", "verdict")
        }
        | {f"sampling: {key}": said(value) for key, value in leaves(one.get("sampling") or {})}
        for one in measures
    ]
    keys = dict.fromkeys(key for one in plain for key in one)
    return [
        {"": key} | {name: one.get(key, "–") for name, one in zip(names, plain, strict=True)}
        for key in keys
        if len({one.get(key) for one in plain}) > 1
    ]


def _curves(names: Sequence[str], folders: Sequence[Path]) -> list[str]:
    rows = [folder.read_metrics(path / "metrics.csv") for path in folders]
    charts = []
    for column, title in (("loss", "Training"), ("valid_loss", "Held out, averaged weights")):
        series = {
            name: [(row["step"], row[column]) for row in one if column in row]
            for name, one in zip(names, rows, strict=True)
        }
        charts.append(chart.curves(series, title, "step", "loss", log=True))
    return charts


def _scales(recipes: Sequence[Mapping[str, Any]]) -> str:
    unlike = [
        key for key in ("data", "process", "objective") if any(one.get(key) != recipes[0].get(key) for one in recipes)
    ]
    return f"Mind that losses of runs whose {' and '.join(unlike)} differ are not on one scale." if unlike else ""


def _differences(names: Sequence[str], recipes: Sequence[Mapping[str, Any]]) -> str:
    """The keys of the recipes that are not the same in all."""
    flat = [{key.replace(": ", "."): value for key, value in leaves(sections)} for sections in recipes]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [
        {"key": key} | {name: said(one[key]) if key in one else "–" for name, one in zip(names, flat, strict=True)}
        for key in keys
        if any(one.get(key, ...) != flat[0].get(key, ...) for one in flat)
    ]
    return page.table(rows, "Keys that are not the same in all", beside=True) or page.paragraph("Nothing.")


def _pictures(names: Sequence[str], folders: Sequence[Path], measures: Sequence[Mapping[str, Any]]) -> list[str]:
    """A section for each picture that evaluations leave, the runs beside each other."""
    wanted = {SAMPLES[0]: SAMPLES[1]} | {path: text for one in measures for path, text in pictures(one)}
    sections = []
    for file, text in wanted.items():
        mine = [file == SAMPLES[0] or file in dict(pictures(one)) for one in measures]
        shown = [
            page.figure(path / file, name, path) if own else ""
            for name, path, own in zip(names, folders, mine, strict=True)
        ]
        title = "Samples" if file == SAMPLES[0] else Path(file).stem.replace("_", " ").capitalize()
        figures = page.side_by_side(shown)
        sections.append(page.section(title, page.paragraph(text, "note"), figures) if figures else "")
    return sections
