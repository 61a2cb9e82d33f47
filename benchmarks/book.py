"""The results book: `python -m benchmarks book` writes docs/results.md from the cells in benchmarks/results and published figures.

Nothing in it is typed. `--check` writes nothing and ends with code 1 if the book is not what it would write.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.book_entries import ENTRIES, OTHERWISE, UNMEASURED, Entry, Place
from benchmarks.cells import RESULTS, Cell, read
from benchmarks.domain_measures import MEASURES
from benchmarks.domains import EMBEDDED, REAL, SAMPLERS, Panel, line, picture
from benchmarks.published import PUBLISHED
from benchmarks.regress import without_seed
from diffusionkit.recipe import Recipe

ROOT = Path(__file__).parent.parent
BOOK = ROOT / "docs" / "results.md"
TITLES = {"image": "Images", "tabular": "Tables", "timeseries": "Time series", "molecule": "Molecules"}
KNOWN = {
    "read": "read there",
    "second hand": "taken from documents that cite it",
    "memory": "from memory, not read again",
}
HEAD = """# Results

Every recipe that ships, with what has been measured of it. `python -m benchmarks book` writes this page from
`benchmarks/results/`; no measured figure is typed. Figures over several seeds are means ± half the range; what stands beside them
was measured in the same run. A published figure stands in the table only where data, split and measure are those of the recipe, and
below it is said how it is known. Training times are those of shared processors, and tell an order of magnitude.
"""


class Shelf:
    """The files of cells in a folder, read when they are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, {}  # type: ignore[var-annotated]

    def cells(self, file: str, name: str) -> list[Cell]:
        """The cells of this name, one for each seed; none if there is no such file or cell."""
        if file not in self._files:
            path, grouped = self.folder / f"{file}.json", {}  # type: ignore[var-annotated]
            for key, cell in read(path).items() if path.is_file() else ():
                grouped.setdefault(without_seed(key), []).append(cell)
            self._files[file] = grouped
        if not name.endswith("/*"):
            return self._files[file].get(name, [])
        return [cell for key, cells in self._files[file].items() if key.startswith(name[:-1]) for cell in cells]

    def values(self, place: Place) -> list[float]:
        """The figure of each seed, or the one of all cells together."""
        way, below, limit = place.way.partition(" < ")
        found = [_at(cell, way.split("/")) for cell in self.cells(place.file, place.cells)]
        if below:  # a cell without a figure counts as one beyond the limit
            return [sum(value is not None and value < float(limit) for value in found) / len(found)] if found else []
        return [value for value in found if value is not None]


def _at(tree: Any, way: list[str]) -> float | None:
    for number, name in enumerate(way):
        if name == "*":
            found = [_at(branch, way[number + 1 :]) for branch in tree.values()]
            return min((value for value in found if value is not None), default=None)
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree


def entry(shelf: Shelf, recipe: str) -> Entry | None:
    """The figures of a recipe: those of the benchmark of its domain, or else of all domains, in full or in short."""
    if recipe in ENTRIES and any(shelf.values(place) for place in ENTRIES[recipe].figures.values()):
        return ENTRIES[recipe]
    for file, option in (("domains", ""), ("domains_quick", " --quick")):
        own = shelf.cells(file, f"{recipe}/own")
        if own:
            measure, beside = own[0]["measure"], shelf.cells(file, f"{recipe}/beside")[0]["what"]
            percent = " %" * next(m.percent for m in MEASURES.values() if m.name == measure)
            wanted = "" if recipe in EMBEDDED else f" --recipes {recipe}"
            return Entry(
                f"python -m benchmarks domains{option}{wanted}",
                {f"{measure}{percent}": Place(file, f"{recipe}/own", "value")},
                {f"{beside}{percent}": Place(file, f"{recipe}/beside", "value")},
                Place(file, f"{recipe}/own", "steps"),
                Place(file, f"{recipe}/training", "train_seconds"),
            )
    return None


# ---- a recipe ----


def row(shelf: Shelf, recipe: str) -> str:
    """A recipe's line in the table of its domain."""
    found, name = entry(shelf, recipe), recipe.partition("/")[2]
    published = "; ".join(one.figure for one in PUBLISHED.get(recipe, ()) if one.same)
    if found is None:
        return _cells(f"`{name}`", UNMEASURED.get(recipe, OTHERWISE), "", "", published)
    return _cells(
        f"`{name}`",
        _trained(shelf, recipe, found),
        _figures(shelf, found.figures),
        _figures(shelf, found.beside),
        published,
    )


def _cells(*texts: str) -> str:
    return f"| {' | '.join(texts)} |"


def _figures(shelf: Shelf, places: dict[str, Place]) -> str:
    told = []
    for name, place in places.items():
        values = shelf.values(place)
        if values:
            word, scale = (name.removesuffix(" %"), 100.0) if name.endswith(" %") else (name, 1.0)
            told.append(f"{word} {_number([scale * value for value in values])}{' %' if scale > 1 else ''}")
    return "; ".join(told)


def _number(values: list[float]) -> str:
    mean, spread = sum(values) / len(values), (max(values) - min(values)) / 2
    text = f"{mean:.3g}" if abs(mean) > 1e-5 else "0"
    digits = len(text.partition(".")[2])
    return f"{text} ± {spread:.{max(digits, 1)}f}" if len(values) > 1 else text


def _trained(shelf: Shelf, recipe: str, found: Entry) -> str:
    planned = Recipe.load(recipe).build("training").steps
    steps, seconds = (shelf.values(place) for place in (found.steps, found.seconds))
    told = []
    if steps:
        count = round(max(steps))
        whole = f"{count:,} steps"
        if planned and count < planned:
            whole = f"**{count:,} of {planned:,} steps: not trained to the end**"
        elif planned and count > planned:
            whole = f"{count:,} steps (the recipe has {planned:,})"
        told.append(whole)
    if seconds:
        mean = sum(seconds) / len(seconds) * (60 if found.seconds.way.startswith("minutes/") else 1)
        told.append(f"{mean:.0f} s" if mean < 120 else f"{mean / 60:.0f} min")
    return ", ".join(told) or "how long is not kept"


def note(shelf: Shelf, recipe: str) -> str:
    """A recipe's details: machine, seeds, command, and where published figures come from; nothing if there are none."""
    found, sentences = entry(shelf, recipe), []
    if found is not None:
        place = next(place for place in found.figures.values() if shelf.values(place))
        cells = shelf.cells(place.file, place.cells)
        several = f"{len(cells)} {'cases' if place.cells.endswith('/*') else 'seeds'}, " if len(cells) > 1 else ""
        sentences.append(f"`{found.command}`; {several}{machine(cells[0])}.")
    for one in PUBLISHED.get(recipe, ()):
        other = "" if one.same else "; another setting, not to be compared"
        about = f"; {one.note}" if one.note else ""
        sentences.append(f"Published: {one.figure} ({one.source}; {KNOWN[one.known]}{about}{other}).")
    return f"- `{recipe}`: {' '.join(sentences)}" if sentences else ""


def machine(cell: Cell) -> str:
    """The class of machine that a cell was measured on."""
    about = cell["machine"]
    threads = "1 thread" if about["threads"] == 1 else f"{about['threads']} threads"
    return (
        f"{threads} of {about['cores']} cores ({about['architecture']}, {about['capability']}), torch {about['torch']}"
    )


# ---- the page ----


def page(results: Path = RESULTS) -> str:
    """The whole page."""
    shelf, lines = Shelf(results), [HEAD]
    for domain, title in TITLES.items():
        recipes = shipped(domain)
        lines += [f"## {title}\n", "| recipe | trained | measured | beside it | published |", "|---|---|---|---|---|"]
        lines += [row(shelf, recipe) for recipe in recipes]
        notes = [text for text in (note(shelf, recipe) for recipe in recipes) if text]
        lines += ["", *notes, ""]
    lines += [*_together(shelf), *_gpu(shelf)]
    return "\n".join(lines).rstrip() + "\n"


def shipped(domain: str) -> list[str]:
    """The recipes in a folder of domains/."""
    return [f"{domain}/{path.stem}" for path in sorted((ROOT / "domains" / domain).glob("*.yaml"))]


def _together(shelf: Shelf) -> Iterator[str]:
    """All domains on the same core: a line each, and the tables of samplers against evaluations."""
    file, shown = _panels(shelf)
    if not shown:
        return
    yield "## All domains on the same core\n"
    yield f"`python -m benchmarks domains{' --quick' * file.endswith('quick')}`, and `--full --seeds 0` for those that need files"
    yield f"({machine(shelf.cells(file, f'{shown[0].name}/own')[0])})."
    yield "Trainings and samples are those of `--quick`, a fraction of the recipes'." if file.endswith("quick") else ""
    yield "Samples a second are of the recipe's sampler with so many evaluations of the network, whose share of the time stands"
    yield "beside; seconds of training are those of a machine with other work.\n"
    lines = []
    for name, measure, _, beside in shown:
        trainings, own = shelf.cells(file, f"{name}/training"), shelf.cells(file, f"{name}/own")
        lines.append(line(f"`{name}`", measure, trainings, own, beside))
    yield _cells(*lines[0])
    yield _cells(*["---"] * len(lines[0]))
    yield from (_cells(*one.values()) for one in lines)
    yield "\nQuality against evaluations of the network, without guidance, of the first seed's model:\n"
    for one in shown:
        yield from _curve(one)
    yield f"![Quality of samples against evaluations of the network, a panel a recipe](pictures/{file}.png)\n"


def _panels(shelf: Shelf) -> tuple[str, list[Panel]]:
    """The file that has the benchmark of all domains, in full or in short, and what it has of each recipe."""
    file = next((name for name in ("domains", "domains_quick") if shelf.cells(name, f"{EMBEDDED[0]}/own")), "")
    by_name, shown = {measure.name: measure for measure in MEASURES.values()}, []
    for recipe in (*EMBEDDED, *REAL) if file else ():
        own = shelf.cells(file, f"{recipe}/own")
        if own:
            curves = {name: _points(shelf, file, f"{recipe}/{name}") for name in SAMPLERS}
            curves = {name: points for name, points in curves.items() if points}
            beside = shelf.cells(file, f"{recipe}/beside")[0]
            shown.append(Panel(recipe, by_name[own[0]["measure"]], curves, beside))
    return file, shown


def _points(shelf: Shelf, file: str, name: str) -> dict[int, Cell]:
    """The cells of a sampler by the evaluations asked for."""
    found = {
        calls: shelf.cells(file, f"{name}/{calls}")
        for calls in sorted({calls for _, _, every, few in SAMPLERS.values() for calls in (*every, *few)})
    }
    return {calls: cells[0] for calls, cells in found.items() if cells}


def _curve(one: Panel) -> Iterator[str]:
    shown = sorted({calls for points in one.curves.values() for calls in points})
    if shown:
        told = f"{one.beside['what']}: {one.measure.shown(one.beside['value'])}"
        yield f"`{one.name}`, {one.measure.name} ({one.measure.better} is better; {told}):\n"
        yield _cells("", *map(str, shown))
        yield _cells(*["---"] * (len(shown) + 1))
        for name, points in one.curves.items():
            yield _cells(name, *(one.measure.shown(points[c]["value"]) if c in points else "" for c in shown))
        yield ""


def _gpu(shelf: Shelf) -> Iterator[str]:
    yield "## On a GPU\n"
    path = shelf.folder / "gpu.json"
    if not path.is_file():
        yield "No CUDA card was at hand: `python -m benchmarks gpu` has never been run on one. Tests go its way on a CPU"
        yield "(`--device cpu --tiny`).\n"
        return
    yield "`python -m benchmarks gpu`: training steps in bf16, compiled, channels-last; MFU is the share of the peak that the"
    yield "card's maker states.\n"
    yield _cells("", "batch", "samples a second", "MFU", "memory", "")
    yield "|---|---|---|---|---|---|"
    for key, cell in read(path).items():
        for name, one in cell.get("contestants", {key.partition("/")[0]: cell}).items():
            if "mfu" in one:
                mfu = "" if one["mfu"] is None else f"{100 * one['mfu']:.0f} %"
                memory = "" if one["peak_gib"] is None else f"{one['peak_gib']:.1f} GiB"
                card = key.split("/")[1]
                yield _cells(name, str(one["batch"]), f"{one['samples_per_second']:,.0f}", mfu, memory, card)
    for key, cell in read(path).items():
        if "frechet" in cell:
            yield (
                f"\nimage/cifar after {cell['steps']:,} steps ({key.split('/')[1]}): Fréchet distance {cell['frechet']:.2f} in the "
                f"features of a small classifier (training pictures {cell['real']:.2f}), {cell['n']:,} samples; not to be "
                "compared with FID."
            )


def main(arguments: list[str] | None = None) -> None:
    """Writes the book, or compares it with what there is."""
    parser = ArgumentParser(prog="python -m benchmarks book", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=BOOK, help="the page to write")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the page is out of date")
    options = parser.parse_args(arguments)
    text = page(options.results)
    if not options.check:
        options.out.write_text(text, encoding="utf-8")
        file, shown = _panels(Shelf(options.results))
        if shown:
            picture(options.out.parent / "pictures" / f"{file}.png", shown)
        print(f"{options.out}: written")
    elif not options.out.is_file() or options.out.read_text("utf-8") != text:
        raise SystemExit(f"{options.out}: is out of date; python -m benchmarks book writes it anew")


if __name__ == "__main__":
    main()
