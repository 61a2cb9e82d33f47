"""All benchmarks: `python -m benchmarks NAME ...`; without a name it lists them."""

from __future__ import annotations

import ast
import difflib
import importlib
import sys
from pathlib import Path

PROGRAMS = {
    name: f"benchmarks.{name}"
    for name in (
        "domains",
        "image",
        "image_quality",
        "image_text",
        "superres",
        "tabular",
        "timeseries",
        "molecule",
        "molecule_quality",
        "molecule_conformers",
        "molecule_poses",
        "gpu",
        "regress",
        "book",
    )
}


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark that is named first with the words that follow."""
    name, *words = (sys.argv[1:] if arguments is None else arguments) or [""]
    if name in PROGRAMS:
        importlib.import_module(PROGRAMS[name]).main(words)
    elif name in ("", "-h", "--help"):
        print(f"{(__doc__ or '').strip()}\n")
        width = max(map(len, PROGRAMS))
        print("\n".join(f"  {name:<{width}}  {sentence(name)}" for name in PROGRAMS))
        print("\npython -m benchmarks NAME --help tells the options of each.")
    else:
        near = difflib.get_close_matches(name, PROGRAMS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(f"there is no benchmark {name!r}{hint} ({', '.join(PROGRAMS)})", file=sys.stderr)
        raise SystemExit(2)


def sentence(name: str) -> str:
    """What a benchmark is for: the first line of its module without the command, read without importing it."""
    path = Path(__file__).with_name(f"{PROGRAMS[name].rpartition('.')[2]}.py")
    line = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").splitlines()[0]
    return line.partition(": `")[0].partition("? `")[0].rstrip(".?:") + ("?" if "? `" in line else ".")


if __name__ == "__main__":
    main()
