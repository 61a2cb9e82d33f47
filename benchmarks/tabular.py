"""How good and how fast the tabular domain is: `python -m benchmarks.tabular [speed|quality|small|peers]`.

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
from benchmarks.tabular_peers import peers
from benchmarks.tabular_quality import quality
from benchmarks.tabular_small import small
from benchmarks.tabular_speed import speed

PARTS = ("quality", "small", "peers", "speed")


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
        command = shlex.join(["python", "-m", "benchmarks.tabular", *(words or [part])])

        def cells(part: str, command: str = command) -> Cells:
            return Cells(Path(options.out) / f"tabular_{part}.json", command, options.fresh)

        doc = {"quality": quality, "small": small, "peers": peers, "speed": speed}[part].__doc__ or ""
        say(f"\n{part}: {doc.splitlines()[0]}")
        if part == "peers":
            resumed = cells("quality")
            resumed.fresh = False  # those are of another part
            peers(cells("peers"), options, resumed)
        else:
            {"quality": quality, "small": small, "speed": speed}[part](cells(part), options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tabular", description=__doc__)
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)}; all by default")
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
    add("--out", default=str(Path(__file__).parent / "results"), help="folder of the JSON files")
    add("--models", default="runs/benchmarks", help="folder where models are kept")
    add("--device", default="cpu")
    add("--threads", type=int, help="of torch and of the boosting; as torch has it by default")
    add("--fresh", action="store_true", help="measure again what is there already")
    return parser


if __name__ == "__main__":
    main()
