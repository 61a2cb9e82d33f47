"""How fast the molecule domain is: `python -m benchmarks.molecule [speed]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from benchmarks.cells import Cells, about, say
from benchmarks.molecule_speed import CELLS, speed

PARTS = {"speed": speed}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON files and is not measured again."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: {', '.join(PARTS)}")
    if options.threads:
        torch.set_num_threads(options.threads)
    words = sys.argv[1:] if arguments is None else arguments
    say(", ".join(f"{name} {value}" for name, value in about().items()))
    for part in options.parts or PARTS:
        command = shlex.join(["python", "-m", "benchmarks.molecule", *(words or [part])])
        say(f"\n{part}: {(PARTS[part].__doc__ or '').splitlines()[0]}")
        PARTS[part](Cells(Path(options.out) / f"molecule_{part}.json", command, options.fresh), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.molecule", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    add("--batch", type=int, default=64, help="speed: molecules of a step; 64, as EDM, by default")
    add("--width", type=int, default=256, help="speed: of the network; 256, as EDM, by default")
    add("--depth", type=int, default=9, help="speed: blocks of the network; 9, as EDM, by default")
    add("--repeats", type=int, default=3, help="speed: rounds, each of which runs everything once")
    add("--only", nargs="+", choices=CELLS, help="speed: these cells; all by default")
    add("--out", default=str(Path(__file__).parent / "results"), help="folder of the JSON files")
    add("--threads", type=int, default=1, help="of torch; 1 by default")
    add("--fresh", action="store_true", help="measure again what is there already")
    return parser


if __name__ == "__main__":
    main()
