"""Has it become worse? `python -m benchmarks regress --against FILE [--new FILE]`: compares two files of cells, cell by cell.

A loss of quality beyond the noise, or a ratio of speeds that is worse by more than 10 %, is named, and the command ends with code
1. The noise is the spread over seeds where either file has several, else the tolerance of the measure. Absolute times depend on the
machine and do not count. Every comparison leaves a line in `benchmarks/history.jsonl`; `--plot FILE` draws them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.cells import RESULTS, Cell, command_line, panels, read, say, show

HISTORY = Path(__file__).parent / "history.jsonl"
SPEED = 0.10
"""Share by which a ratio of speeds may be worse."""
RATIOS = {"ratio": "higher", "network_share": "higher"}
QUALITY: dict[
    str, tuple[str, float, float]
] = {  # better, and what is noise: a share of the figure, and at least so much
    "frechet": ("lower", 0.10, 0.05),
    "precision": ("higher", 0.0, 0.04),
    "recall": ("higher", 0.0, 0.04),
    "accuracy": ("higher", 0.0, 0.03),
    "psnr": ("higher", 0.0, 0.3),
    "ssim": ("higher", 0.0, 0.01),
    "shape": ("lower", 0.15, 0.0005),
    "shape_error": ("lower", 0.15, 0.0005),
    "trend": ("lower", 0.15, 0.0005),
    "c2st": ("higher", 0.0, 0.02),
    "auc": ("higher", 0.0, 0.01),
    "CRPS": ("lower", 0.05, 0.0),
    "CRPS_sum": ("lower", 0.10, 0.0),
    "energy": ("lower", 0.05, 0.0),
    "MASE": ("lower", 0.05, 0.0),
    "crps": ("lower", 0.05, 0.0),
    "mae": ("lower", 0.05, 0.0),
    "valid": ("higher", 0.0, 0.04),
    "valid_connected": ("higher", 0.0, 0.05),
    "atoms_stable": ("higher", 0.0, 0.01),
    "molecules_stable": ("higher", 0.0, 0.03),
    "median": ("lower", 0.05, 0.0),
    "below 0.5": ("higher", 0.0, 0.03),
    "below 1": ("higher", 0.0, 0.03),
    "Fréchet distance": ("lower", 0.10, 0.05),
    "trend error": ("lower", 0.15, 0.001),
    "valid and of one piece": ("higher", 0.0, 0.07),
}
"""Measures by the names that cells have for them; in the cells of `domains`, "value" has the name that stands under "measure"."""
SEEDED = ("own", "baselines", "default", "tabddpm", "timegrad", "smote", "ctgan", "tvae", "latent")
"""First words of names in which a seed stands as a mere number."""
SETTINGS = ("n", "steps", "sampler", "sampler_steps", "guidance")
"""What has to be equal in both cells for their figures to be compared."""


class Figure(NamedTuple):
    """A measure of a cell over its seeds."""

    measure: str
    values: list[float]
    settings: dict[str, Any]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def spread(self) -> float:
        """Half of the range."""
        return (max(self.values) - min(self.values)) / 2


class Verdict(NamedTuple):
    """What has become of a figure; `lost` is by how much it is worse, in its own terms, and `allowed` how much may be noise."""

    name: str
    before: Figure
    after: Figure
    lost: float
    allowed: float

    @property
    def worse(self) -> bool:
        return self.lost > self.allowed


def figures(cells: Mapping[str, Cell]) -> dict[str, Figure]:
    """Every figure that has a direction, by the cell's name without its seed and the way to the figure."""
    found: dict[str, Figure] = {}
    for key, cell in cells.items():
        for row in cell.get("rows", []) if isinstance(cell.get("rows"), list) else []:
            if row["unit"] == "x" and row["value"] is not None:  # how many times as long the others take
                found.setdefault(f"{key}: {row['what']}", Figure("ratio", [], {})).values.append(row["value"])
        settings = {name: cell[name] for name in SETTINGS if name in cell}
        for way, value in _leaves(cell):
            measure = str(cell.get("measure", "")) if way == "value" else way.rpartition("/")[2]
            if measure in QUALITY or measure in RATIOS:
                name = f"{without_seed(key)}: {measure if way == 'value' else way}"
                found.setdefault(name, Figure(measure, [], settings)).values.append(value)
    return found


def without_seed(key: str) -> str:
    """The name that cells of several seeds have in common; those of `SEEDED` have a mere number, others `seed N`."""
    parts = re.sub(r"/seed \d+", "", key).split("/")
    if parts[0] in SEEDED:
        seed = next((number for number, part in enumerate(parts) if number > 1 and part.isdigit()), None)
        parts = [part for number, part in enumerate(parts) if number != seed]
    return "/".join(parts)


def _leaves(tree: Any, way: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        here = f"{way}/{name}" if way else name
        if isinstance(value, Mapping) and name not in ("machine", "recipe"):
            yield from _leaves(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield here, float(value)


def compared(before: Mapping[str, Cell], after: Mapping[str, Cell]) -> tuple[list[Verdict], list[str]]:
    """A verdict for each figure that both have under equal settings, and the names of those left out with the reason."""
    old, new = figures(before), figures(after)
    verdicts, left = [], [f"{name}: is not in the new file" for name in old if name not in new]
    for name in old.keys() & new.keys():
        was, now = old[name], new[name]
        if was.settings != now.settings:
            changed = {k: (v, now.settings.get(k)) for k, v in was.settings.items() if v != now.settings.get(k)}
            told = ", ".join(f"{k} was {a}, is {b}" for k, (a, b) in changed.items())
            left.append(f"{name}: not comparable{f', {told}' if told else ''}")
        else:
            verdicts.append(_verdict(name, was, now))
    return sorted(verdicts), sorted(left)


def _verdict(name: str, was: Figure, now: Figure) -> Verdict:
    if was.measure in RATIOS:
        lost = 1 - now.mean / was.mean if was.mean else 0.0
        return Verdict(name, was, now, lost, SPEED)
    better, share, least = QUALITY[was.measure]
    lost = now.mean - was.mean if better == "lower" else was.mean - now.mean
    if len(was.values) > 1 or len(now.values) > 1:
        return Verdict(name, was, now, lost, max(was.spread + now.spread, least))
    return Verdict(name, was, now, lost, max(share * abs(was.mean), least))


# ---- the history ----


def remember(path: Path, file: Path, cells: Mapping[str, Cell], verdicts: list[Verdict]) -> dict[str, Any]:
    """Appends a line: commit, date, file, how many figures are worse, and the key figures."""
    every = figures(cells)
    own = {name: figure for name, figure in every.items() if "/own: " in name}
    commits = {cell["machine"].get("commit") for cell in cells.values() if "machine" in cell} - {None}
    line = {
        "commit": sorted(commits)[0] if len(commits) == 1 else None,
        "date": datetime.now(UTC).date().isoformat(),
        "file": file.name,
        "compared": len(verdicts),
        "worse": [verdict.name for verdict in verdicts if verdict.worse],
        "figures": {name: float(f"{figure.mean:.6g}") for name, figure in sorted((own or every).items())},
    }
    with path.open("a", encoding="utf-8") as history:
        history.write(json.dumps(line, ensure_ascii=False) + "\n")
    return line


def plot(history: Path, path: Path) -> None:
    """The key figures over all lines of the history, each measure in a panel."""
    lines = [json.loads(line) for line in history.read_text("utf-8").splitlines()]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for number, line in enumerate(lines):
        for name, value in line["figures"].items():
            cell, _, measure = name.partition(": ")
            curves.setdefault(measure, {}).setdefault(f"{Path(line['file']).stem}: {cell}", []).append((number, value))
    names = [line["date"] + (f"\n{line['commit'][:7]}" if line["commit"] else "") for line in lines]
    with panels(path, len(curves)) as axes:
        for axis, (measure, found) in zip(axes, curves.items(), strict=True):
            for name, points in found.items():
                axis.plot(*zip(*points, strict=True), "o-", label=name, markersize=4)
            axis.set_xticks(range(len(names)), names, fontsize=6)
            axis.set_title(measure.rpartition("/")[2].replace("_", " "), fontsize=10)
            if len(found) <= 8:
                axis.legend(frameon=False, fontsize=6)


# ---- the command ----


def main(arguments: list[str] | None = None) -> None:
    """Compares, prints what has changed, and ends with code 1 if something is worse."""
    parser = command_line("regress", __doc__)
    parser.add_argument("--against", type=Path, metavar="FILE", help="the figures kept from before")
    parser.add_argument(
        "--new", type=Path, metavar="FILE", help="those of now; by default the file of that name in --out"
    )
    parser.add_argument("--history", type=Path, default=HISTORY, help="file of the history")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the history there")
    options = parser.parse_args(arguments)
    if not options.against and not options.plot:
        parser.error("--against FILE: which figures to compare with, such as a copy of benchmarks/results/domains.json")
    failed: list[Verdict] = []
    if options.against:
        new = options.new or Path(options.out or RESULTS) / options.against.name
        if new.resolve() == options.against.resolve():
            parser.error(f"--new: {new} is the same file as --against")
        before, after = (_opened(parser, path) for path in (options.against, new))
        verdicts, left = compared(before, after)
        if not verdicts:
            parser.error(f"{new}: has no figure in common with {options.against}")
        failed = _tell(verdicts, left)
        remember(options.history, new, after, verdicts)
    if options.plot:
        if not options.history.is_file():
            parser.error(f"--plot: there is no history yet in {options.history}")
        plot(options.history, options.plot)
        say(f"history in {options.plot}")
    if failed:
        raise SystemExit(1)


def _opened(parser: Any, path: Path) -> dict[str, Cell]:
    try:
        return read(path)
    except OSError as error:
        parser.error(f"{path}: {error.strerror}")
    except (ValueError, KeyError, TypeError):
        parser.error(f"{path}: is no file of cells")
    raise AssertionError


def _tell(verdicts: list[Verdict], left: list[str]) -> list[Verdict]:
    """Prints what has moved; returns what is worse."""
    for line in left:
        say(line)
    worse = [verdict for verdict in verdicts if verdict.worse]
    moved = [verdict for verdict in verdicts if -verdict.lost > verdict.allowed]
    lines = [_line(verdict, "WORSE") for verdict in worse] + [_line(verdict, "better") for verdict in moved]
    if lines:
        show(lines)
    say(f"\n{len(verdicts)} figures compared, {len(worse)} worse, {len(moved)} better, the others within the noise")
    return worse


def _line(verdict: Verdict, word: str) -> dict[str, str]:
    ratio = verdict.before.measure in RATIOS
    show_lost = f"{100 * abs(verdict.lost):.1f} %" if ratio else f"{abs(verdict.lost):.3g}"
    allowed = f"{100 * verdict.allowed:.0f} %" if ratio else f"{verdict.allowed:.3g}"
    return {
        "": word,
        "figure": verdict.name,
        "before": f"{verdict.before.mean:.4g}",
        "now": f"{verdict.after.mean:.4g}",
        "by": show_lost,
        "noise": allowed,
    }


if __name__ == "__main__":
    main()
