"""How good and how fast the time-series domain is: `python -m benchmarks timeseries [quality|impute|speed]`.

See README.md in this folder for what each part measures and what it has to reach.
"""

from __future__ import annotations

import argparse
import os

from benchmarks.cells import command_line, run_parts
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
    run_parts(PARTS, parser, options, arguments, "timeseries_{part}.json")


def _check(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    for name in options.sets or ():
        if name not in SETS:
            parser.error(f"there is no set {name!r}: {', '.join(SETS)}; {AIR} is that of the part impute")
    for pair in options.settings:
        if "=" not in pair:
            parser.error(f"--settings {pair!r}: write KEY=VALUE, such as backbone.width=256")
    if not (options.data or os.environ.get("DIFFUSIONKIT_DATA")):
        parser.error("where are the series? give --data, or set DIFFUSIONKIT_DATA")


def _parser() -> argparse.ArgumentParser:
    parser = command_line("timeseries", __doc__, tuple(PARTS), models=True)
    add = parser.add_argument
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
    return parser


if __name__ == "__main__":
    main()
