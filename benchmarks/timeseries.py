"""How good and how fast the time-series domain is: `python -m benchmarks.timeseries [quality|impute|speed]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

if not __package__:  # run as a file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import torch

from benchmarks.cells import Cells, about, say
from benchmarks.timeseries_impute import impute
from benchmarks.timeseries_quality import quality
from benchmarks.timeseries_sets import AIR, SETS
from benchmarks.timeseries_speed import speed

PARTS = {"quality": quality, "impute": impute, "speed": speed}


def main(arguments: list[str] | None = None) -> None:
    """Runs the parts and prints their tables; what is finished stays in the JSON files and is not measured again."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check(parser, options)
    if options.threads:
        torch.set_num_threads(options.threads)
    words = sys.argv[1:] if arguments is None else arguments
    say(", ".join(f"{name} {value}" for name, value in about().items()))
    for name in options.parts or PARTS:
        part = PARTS[name]
        command = shlex.join(["python", "-m", "benchmarks.timeseries", *(words or [name])])
        say(f"\n{name}: {(part.__doc__ or '').splitlines()[0]}")
        part(Cells(Path(options.out) / f"timeseries_{name}.json", command, options.fresh), options)


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for part in options.parts:
        if part not in PARTS:
            parser.error(f"there is no part {part!r}: {', '.join(PARTS)}")
    for name in options.sets or ():
        if name not in SETS:
            parser.error(f"there is no set {name!r}: {', '.join(SETS)}; {AIR} is that of the part impute")
    for pair in options.settings:
        if "=" not in pair:
            parser.error(f"--settings {pair!r}: write KEY=VALUE, such as backbone.width=256")
    if not (options.data or os.environ.get("DIFFUSIONKIT_DATA")):
        parser.error("where are the series? give --data, or set DIFFUSIONKIT_DATA")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.timeseries", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
    add("--sets", nargs="+", metavar="NAME", help=f"quality: some of {', '.join(SETS)}")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="one training each; 0, 1 and 2 by default")
    add("--preset", default="default", help="of TimeSeriesDiffusion; by default the recipe of each set")
    add("--recipe", help="name or path of a recipe to use with the data of each set")
    add("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="to be changed in the recipes")
    add("--minutes", type=float, help="train for about so long instead of the recipe's steps")
    add("--steps", type=int, help="train for so many steps instead of the recipe's")
    add("--samples", type=int, help="paths of each window, 100 by default; impute: draws, 20 by default")
    add("--validation", action="store_true", help="judge on windows before the test, to choose by")
    add("--reference", action="store_true", help="quality: also the reference's TimeGrad setting, trained for as long")
    add("--pictures", metavar="FOLDER", help="quality: draw histograms of PIT values into it")
    add("--repeats", type=int, default=5, help="speed: rounds, each of which runs everything once")
    add("--fast", nargs="*", type=int, default=[20, 5], help="speed: other numbers of steps to time as well")
    add("--wide", type=int, default=8, help="speed: paths of one window of 207 and of 675 series")
    add("--batch", type=int, default=128, help="speed: windows of a training batch")
    add("--data", help="folder of timeseries/*.parquet; DIFFUSIONKIT_DATA by default")
    add("--out", default=str(Path(__file__).parent / "results"), help="folder of the JSON files")
    add("--models", default="runs/benchmarks", help="folder where models are kept")
    add("--threads", type=int, help="of torch; as torch has it by default")
    add("--fresh", action="store_true", help="measure again what is there already")
    return parser


if __name__ == "__main__":
    main()
