"""How good and how fast the tabular domain is: `python -m benchmarks tabular [quality|small|peers|speed]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks import tabular_peers
from benchmarks.cells import Cells, command_line, run_parts
from benchmarks.tabular_quality import quality
from benchmarks.tabular_small import small
from benchmarks.tabular_speed import speed


def peers(cells: Cells, options: argparse.Namespace) -> None:
    """Every column of the quality table for the default preset and others."""
    ours = Cells(
        Path(options.out) / "tabular_quality.json", cells.command
    )  # never measured anew: they are of another part
    tabular_peers.peers(cells, options, ours)


PARTS = {f.__name__: f for f in (quality, small, peers, speed)}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON files and is not measured again."""
    parser = _parser()
    run_parts(PARTS, parser, parser.parse_args(arguments), arguments, "tabular_{part}.json")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("tabular", __doc__, tuple(PARTS), models=True)
    add = parser.add_argument
    add("--tables", nargs="+", metavar="NAME", help="instead of those that the part is about")
    add("--seeds", nargs="+", type=int, default=[0, 1], help="one training each; 0 and 1 by default")
    add("--preset", default="default", help="of TabularDiffusion")
    add("--minutes", type=float, help="train for about so long instead of the preset's steps")
    add("--steps", type=int, help="train for so many steps instead of the preset's")
    add(
        "--dcr",
        action="store_true",
        help="quality: fit on a fresh half of the rows, and DCR share between the halves alone",
    )
    add("--samples", type=int, default=2, help="small: tables drawn from each model; 5 in the paper")
    add("--boosts", type=int, default=3, help="small: seeds of CatBoost for each; 10 in the paper")
    add("--sample-rows", type=int, help="small: rows of each, instead of as many as the paper")
    add("--epochs", type=int, default=300, help="peers: of CTGAN and TVAE")
    add("--batch", type=int, default=4096, help="speed: rows of a training step and of a sampler's batch")
    add("--repeats", type=int, default=5, help="speed: rounds, each of which runs everything once")
    add("--fast", nargs="*", type=int, default=[50, 25, 10], help="speed: shorter chains to time as well")
    add("--stream", nargs="*", type=int, default=[100_000, 1_000_000], help="speed: rows to write into a file")
    add("--layers", nargs="+", type=int, help="speed: widths of the TabDDPM network, instead of the preset's")
    add("--rows", type=int, help="use so many rows of each part of a table, for trials")
    add(
        "--data",
        default=os.environ.get("DIFFUSIONKIT_DATA"),
        help="folder of tabular/*.parquet; DIFFUSIONKIT_DATA by default",
    )
    add("--device", default="cpu")
    return parser


if __name__ == "__main__":
    main()
