"""What one CUDA card makes of it: `python -m benchmarks gpu`, ten minutes at most, and the same command again goes on.

Training steps in bf16, compiled and channels-last: image/cifar's U-Net beside diffusers' of the same size, the DiT of
image/cifar_dit, the default network for tables, EDM's EGNN; then image/cifar itself is trained for `--steps`, and what it draws is
measured. Nothing is downloaded, and of libraries it needs torch, Lightning and what comes with them. `--device cpu --tiny` goes the
whole way in a minute.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.cells import Cell, Cells, about, command_line, opened, say, show
from benchmarks.peers import Case, diffusers, ours
from benchmarks.timing import ratio, rounds
from diffusionkit.core import (
    DDIM,
    REGISTRY,
    Categorical,
    Diffusion,
    Gaussian,
    LinearVariance,
    Product,
    Schedule,
    Simple,
    guided,
)
from diffusionkit.core.rows import Rows
from diffusionkit.core.state import tree_map
from diffusionkit.recipe import Recipe

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
_RESERVE = 90.0  # seconds left for drawing and measuring after the training


class Trial(NamedTuple):
    """A diffusion to take training steps of, and its batch."""

    diffusion: nn.Module
    x: Any
    cond: Any
    rows: Rows | None
    items: int


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
        elif time.monotonic() > options.end - _RESERVE * (not options.tiny):
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


# ---- what is trained ----


def section(recipe: str, name: str) -> dict[str, Any]:
    """A section of a recipe as it is written; reading it needs no entry points."""
    return dict(Recipe.draft(recipe).raw[name])


def gaussian(recipe: str) -> Gaussian:
    """The process of a recipe of pictures."""
    found = section(recipe, "process")
    return Gaussian(REGISTRY[Schedule][found["schedule"]](), found["predict"])


def pictures(recipe: str, tiny: bool, classes: int | None) -> Diffusion:
    """The diffusion of a recipe of pictures, or a small one like it."""
    from diffusionkit.image.backbones.dit import DiT
    from diffusionkit.image.backbones.unet import UNet

    found = section(recipe, "backbone")
    make: Any = {"unet": UNet, "dit": DiT}[found.pop("name")]
    if tiny:
        found |= (
            {"channels": 8, "multipliers": [1, 2], "attention": [4]}
            if make is UNet
            else {"width": 32, "depth": 2, "heads": 2}
        )
    network = make(shape=_shape(tiny), classes=classes, **found)
    return Diffusion(network, gaussian(recipe), Simple(drop=0.1 if classes else 0.0))


def _shape(tiny: bool) -> tuple[int, int, int]:
    return (1, 8, 8) if tiny else (3, 32, 32)


def unet(options: argparse.Namespace) -> Trial:
    """image/cifar."""
    batch = options.batch or (4 if options.tiny else 128)
    return _shown(pictures("image/cifar", options.tiny, None), batch, options, None)


def dit(options: argparse.Namespace) -> Trial:
    """image/cifar_dit."""
    batch = options.batch or (4 if options.tiny else 256)
    return _shown(pictures("image/cifar_dit", options.tiny, 10), batch, options, {"class": torch.arange(batch) % 10})


def _shown(diffusion: Diffusion, batch: int, options: argparse.Namespace, cond: Any) -> Trial:
    x = torch.randn(batch, *_shape(options.tiny)).contiguous(memory_format=torch.channels_last)
    diffusion.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Trial(diffusion, x, cond, None, batch)


def tabular(options: argparse.Namespace) -> Trial:
    """The default preset on a table like adult: fifteen columns of up to 128 levels, all masked codes."""
    from diffusionkit.tabular.backbones.mlp import ResidualMLP

    sizes = [128] * 6 + [16, 8, 7, 14, 6, 5, 2, 41, 2]
    network = ResidualMLP(
        0, sizes, {"num": [], "cat": list(range(len(sizes)))}, [k / size for size in sizes for k in range(size)],
        [1 / size for size in sizes for _ in range(size)], width=16 if options.tiny else 384, depth=4, dropout=0.1,
        timed=False, masked=0.0,
    )  # fmt: skip
    process = Product({"num": Gaussian(), "cat": Categorical(sizes, "absorbing", LinearVariance(), even=True)})
    batch = options.batch or (16 if options.tiny else 4096)
    codes = torch.stack([torch.randint(size, (batch,)) for size in sizes], 1)
    return Trial(Diffusion(network, process), {"num": torch.zeros(batch, 0), "cat": codes}, None, None, batch)


def egnn(options: argparse.Namespace) -> Trial:
    """EDM's network on batches of QM9's sizes."""
    from benchmarks.molecule_speed import batches, diffusion, network

    size = argparse.Namespace(batch=options.batch or (4 if options.tiny else 64), width=256, depth=9)
    if options.tiny:
        size.width, size.depth = 8, 1
    ((x, rows),) = batches(size, 1)
    return Trial(diffusion(network(size)), x, None, rows, size.batch)


TRIALS: dict[str, Callable[[argparse.Namespace], Trial]] = {f.__name__: f for f in (unet, dit, tabular, egnn)}


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


def card(device: str) -> str:
    """The name of the card."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


# ---- quality ----


def quality(cells: Cells, options: argparse.Namespace) -> list[dict[str, str]]:
    """image/cifar in the real loop, and the Fréchet distance of what it draws in the features of a small classifier."""
    key = f"quality/{card(options.device)}/{options.steps} steps/{options.n} samples"
    folder = Path(options.models) / f"gpu_{'tiny' if options.tiny else 'cifar'}_{options.steps}"
    data = _data(options)
    if data is None:
        say("quality: there are no pictures of CIFAR-10 here, so nothing is trained to the end; see --data")
        return []
    if not cells.has(key):
        spent = _trained(data, folder, options)
        if spent is None:
            say(f"quality: stopped in time; all is kept in {folder}, and the same command goes on there")
            return []
        cell = cells.get(key, lambda: {**_drawn(data, folder, options), **spent})
    else:
        cell = cells.get(key, dict)
    return [
        {
            "part": f"quality, {cell['steps']:,} steps",
            "samples a second": f"{cell['train_samples_per_second']:,.0f} (loop), {cell['samples_per_second']:,.1f} drawn",
            "Fréchet distance": f"{cell['frechet']:.2f} (training pictures {cell['real']:.2f}), {cell['n']:,} samples",
        }
    ]


def _data(options: argparse.Namespace) -> Any:
    from diffusionkit.errors import UserError
    from diffusionkit.image.data import CIFAR10, Digits

    data = Digits() if options.tiny else CIFAR10(root=options.data, labels=True)
    try:
        return data.parts(data.codec)
    except (UserError, OSError) as error:
        say(f"quality: {error}")
        return None


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    found = section("image/cifar", "training")
    shared = {"compile": not options.tiny, "precision": "bf16", "pictures": 0, "lr": float(found["lr"])}
    small = {"batch_size": 16} if options.tiny else {}
    return {**found, **shared, **small, "steps": options.steps, "ema": min(float(found["ema"]), 0.999)}


def _model(options: argparse.Namespace) -> Diffusion:
    torch.manual_seed(0)
    return pictures("image/cifar", options.tiny, None).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _trained(parts: Any, folder: Path, options: argparse.Namespace) -> Cell | None:
    """Trains until the end, or until the time is over, after which the next call goes on; None then."""
    from diffusionkit.training import train

    left = options.end - time.monotonic() - (0 if options.tiny else _RESERVE)
    if left <= 0:
        return None
    alarm = threading.Timer(left, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    try:
        rows = train(
            _model(options), _Plain(parts["train"]), out=folder, resume=True, trainer={"accelerator": options.device},
            **_settings(options),
        )  # fmt: skip
    except KeyboardInterrupt:
        return None
    finally:
        alarm.cancel()
    return {
        "train_seconds": rows[-1]["seconds"],
        "train_samples_per_second": median(r["samples_per_second"] for r in rows),
    }


class _Plain:
    """Pictures without their classes."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Any:
        return self.data.batch(indices, generator)._replace(cond=None)


def _drawn(parts: Any, folder: Path, options: argparse.Namespace) -> Cell:
    from benchmarks.timing import timed
    from diffusionkit.image import features, metrics
    from diffusionkit.training.files import load_weights

    model, device = _model(options), torch.device(options.device)
    step = load_weights(model, folder / "weights.safetensors")
    model = guided(model.eval().to(device), clip=1.0)
    codec = parts["train"].codec

    def draw() -> Tensor:
        torch.manual_seed(0)
        sizes = [len(part) for part in torch.arange(options.n).split(500)]
        with torch.autocast(options.device, torch.bfloat16):
            return torch.cat([codec.decode(DDIM(50)(model, codec.like(size))).cpu() for size in sizes])

    found, seconds = timed(draw)
    judge = features.judge(parts["train"], parts["test"], folder, device, lambda *_: None)
    held, seen = (judge.look(shown)[0] for shown in (codec.display(parts["test"].pictures.images), found))
    order = torch.randperm(len(parts["train"]), generator=torch.Generator().manual_seed(0))[: options.n]
    real = judge.look(codec.display(parts["train"].pictures.images[order]))[0]
    return {
        "frechet": metrics.frechet(held, seen), "real": metrics.frechet(held, real), "n": options.n, "steps": step,
        "sampler": "DDIM", "sampler_steps": 50, "samples_per_second": options.n / seconds,
    }  # fmt: skip


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
