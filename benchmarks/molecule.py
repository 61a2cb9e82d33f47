"""How fast the molecule domain is, and what memory it takes: `python -m benchmarks molecule [speed] [poses] [memory]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse

from benchmarks.cells import command_line, run_parts
from benchmarks.molecule_memory import memory
from benchmarks.molecule_pose_speed import poses
from benchmarks.molecule_speed import CELLS, speed

PARTS = {"speed": speed, "poses": poses, "memory": memory}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON files and is not measured again."""
    parser = _parser()
    run_parts(PARTS, parser, parser.parse_args(arguments), arguments, "molecule_{part}.json")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("molecule", __doc__, tuple(PARTS), threads=1)
    add = parser.add_argument
    add("--batch", type=int, default=64, help="speed: molecules of a step; 64, as EDM, by default")
    add("--width", type=int, default=256, help="speed: of the network; 256, as EDM, by default")
    add("--depth", type=int, default=9, help="speed: blocks of the network; 9, as EDM, by default")
    add("--repeats", type=int, default=3, help="speed, poses: rounds, each of which runs everything once")
    add("--only", nargs="+", choices=CELLS, help="speed: these cells; all by default")
    return parser


if __name__ == "__main__":
    main()
