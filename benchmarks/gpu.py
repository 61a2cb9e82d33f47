"""What one CUDA card makes of it: `python -m benchmarks gpu`, ten minutes at most, and the same command again goes on.

Training steps in bf16, compiled and channels-last: image/cifar's U-Net beside diffusers' of the same size, the DiT of
image/cifar_dit, the default network for tables, EDM's EGNN; then image/cifar itself is trained for `--steps`, and what it draws is
measured. Nothing is downloaded, and of libraries it needs torch, Lightning and what comes with them. `--device cpu --tiny` goes the
whole way in a minute.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cells import Cell, Cells, about, command_line, opened, say, show
from benchmarks.gpu_quality import RESERVE, quality
from benchmarks.gpu_trials import TRIALS, Trial, card
from benchmarks.peers import Case, diffusers, ours
from benchmarks.timing import ratio, rounds
from diffusionkit.core.state import tree_map

PEAKS = {  # TFLOP/s of dense bf16 products, as NVIDIA states them; the first name that is part of the card's counts
    "B200": 2250.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100": 989.0,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
    "A10G": 70.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
PARTS = ("unet", "peers", "dit", "tabular", "egnn", "quality")


def main(arguments: list[str] | None = None) -> None:
    """Measures the parts that are not measured yet until the time is over."""
    begun = time.monotonic()
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: there is no CUDA card here; --device cpu --tiny tries the way on a CPU")
    cells = opened(parser, options, arguments, "gpu_tiny.json" if options.tiny else "gpu.json")
    options.end = begun + 60 * options.minutes
    say(", ".join(f"{name} {value}" for name, value in {**about(), "card": card(options.device)}.items()))
    torch.set_float32_matmul_precision("high")
    lines = []
    for part in options.parts or PARTS:
        if part == "quality":
            lines += quality(cells, options)
        elif time.monotonic() > options.end - RESERVE * (not options.tiny):
            say(f"{part}: no time left; the same command goes on here")
        elif part == "peers":
            lines += peers(cells, options)
        else:
            lines += steps(cells, part, options)
    if lines:
        show(lines)


def _parser() -> argparse.ArgumentParser:
    parser = command_line("gpu", __doc__, PARTS, models=True)
    add = parser.add_argument
    add("--device", default="cuda", choices=["cuda", "cpu"])
    add("--tiny", action="store_true", help="small networks and pictures, not compiled: to try the way on a CPU")
    add("--batch", type=int, help="samples of a step; those of the recipes by default")
    add("--repeats", type=int, default=10, help="rounds of a measurement, of five steps each")
    add("--steps", type=int, default=20_000, help="quality: of the training")
    add("-n", type=int, default=2000, help="quality: samples")
    add("--minutes", type=float, default=9.0, help="after which it stops, to go on with the same command")
    add("--data", help="quality: folder of the pictures of CIFAR-10; that of DIFFUSIONKIT_DATA by default")
    return parser


# ---- steps ----


def steps(cells: Cells, part: str, options: argparse.Namespace) -> list[dict[str, str]]:
    """A training step of ours: samples a second, share of the card's peak, highest memory."""

    def make() -> Cell:
        torch.manual_seed(0)
        trial = _placed(TRIALS[part](options), options.device)
        return _measured(_network(trial.diffusion), _loss(trial), trial.items, options, compiled=part != "egnn")

    cell = cells.get(f"{part}/{card(options.device)}{_asked(options)}", make)
    return [_line(part, cell)]


def peers(cells: Cells, options: argparse.Namespace) -> list[dict[str, str]]:
    """A training step of diffusers' UNet2DModel and of ours of the same size, in turns."""
    case = Case("colour 32x32", (3, 32, 32), options.batch or 128, 128, (1, 2, 2, 2), 2, (16,))
    if options.tiny:
        case = Case("tiny", (1, 8, 8), 4, 8, (1, 2), 1, (4,))

    def make() -> Cell:
        x = torch.randn(case.batch, *case.shape, device=options.device).contiguous(memory_format=torch.channels_last)
        works, singles = {}, {}
        for name, build in {"ours": ours, "diffusers": diffusers}.items():
            contestant = build(case)
            contestant.network.to(options.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            loss = partial(contestant.loss, x)
            singles[name] = _measured(contestant.network, loss, case.batch, options)
            works[name] = _work(contestant.network, loss, options)
        seconds = rounds(works, options.repeats, warmup=1)
        turns = {name: median(found) / 5 for name, found in seconds.items()}  # those in turns are what is compared
        both = {name: one | _speed(one, turns[name], case.batch, options) for name, one in singles.items()}
        return {"ratio": ratio(seconds["diffusers"], seconds["ours"]), "contestants": both}

    try:
        cell = cells.get(f"peers/{card(options.device)}{_asked(options)}", make)
    except ImportError:
        say("peers: diffusers is not installed and was skipped")
        return []
    lines = [_line(f"{name}, {case.name}", one) for name, one in cell["contestants"].items()]
    lines[1]["beside ours"] = f"{cell['ratio']:.2f} times as long"
    return lines


def _asked(options: argparse.Namespace) -> str:
    return f", batch {options.batch}" if options.batch else ""


def _placed(trial: Trial, device: str) -> Trial:
    x, cond = (tree_map(lambda leaf: leaf.to(device), tree) for tree in (trial.x, trial.cond))
    rows = None if trial.rows is None else trial.rows.to(device)
    return Trial(trial.diffusion.to(device).train(), x, cond, rows, trial.items)


def _network(diffusion: nn.Module) -> nn.Module:
    return diffusion.network  # type: ignore[return-value]


def _loss(trial: Trial) -> Callable[[], Tensor]:
    return lambda: trial.diffusion.loss(trial.x, trial.cond, trial.rows).mean()  # type: ignore[operator]


def _measured(
    network: nn.Module, loss: Callable[[], Tensor], items: int, options: argparse.Namespace, compiled: bool = True
) -> Cell:
    """Seconds of a step (median over rounds of five), operations and memory; the network is compiled from then on."""
    with FlopCounterMode(display=False) as counter:
        loss().backward()
    if compiled and not options.tiny:
        network.compile()
    work = _work(network, loss, options)
    if options.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = median(rounds({"step": work}, options.repeats, warmup=2)["step"]) / 5
    found = {"tflop_per_step": counter.get_total_flops() / 1e12}
    return {
        **found,
        **_speed(found, seconds, items, options),
        "batch": items,
        "parameters": sum(p.numel() for p in network.parameters()),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if options.device == "cuda" else None,
        "compiled": compiled and not options.tiny,
        "precision": "bf16",
    }


def _speed(cell: Cell, seconds: float, items: int, options: argparse.Namespace) -> Cell:
    """What follows from the seconds of a step."""
    rate = cell["tflop_per_step"] / seconds
    peak = next((value for name, value in PEAKS.items() if name in card(options.device)), None)
    return {
        "samples_per_second": items / seconds,
        "milliseconds": 1e3 * seconds,
        "tflop_per_second": rate,
        "mfu": None if peak is None else rate / peak,
    }


def _work(network: nn.Module, loss: Callable[[], Tensor], options: argparse.Namespace) -> Callable[[], None]:
    """Five training steps, after which the card is waited for."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-6, fused=True)

    def work() -> None:
        for _ in range(5):
            optimiser.zero_grad()
            with torch.autocast(options.device, torch.bfloat16):
                value = loss()
            value.backward()
            optimiser.step()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return work


# ---- what is shown ----


def _line(part: str, cell: Cell) -> dict[str, str]:
    mfu = "" if cell["mfu"] is None else f", {100 * cell['mfu']:.0f} % of the card's peak"
    return {
        "part": part,
        "batch": str(cell["batch"]),
        "parameters": f"{cell['parameters']:,}",
        "samples a second": f"{cell['samples_per_second']:,.1f}",
        "a step": f"{cell['milliseconds']:.1f} ms",
        "TFLOP/s": f"{cell['tflop_per_second']:.3g}{mfu}",
        "memory": "" if cell["peak_gib"] is None else f"{cell['peak_gib']:.1f} GiB",
    }


if __name__ == "__main__":
    main()
