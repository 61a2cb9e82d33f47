"""image/cifar trained on a card in the real loop, as far as the time allows, and what it draws measured."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.cells import Cell, Cells, say
from benchmarks.gpu_trials import card, pictures, section
from benchmarks.timing import timed
from diffusionkit.core import DDIM, Diffusion, guided

RESERVE = 90.0
"""Seconds left for drawing and measuring after the training."""


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

    left = options.end - time.monotonic() - (0 if options.tiny else RESERVE)
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
    real = judge.look(codec.display(parts["train"].pictures.images[parts["train"].some(options.n)]))[0]
    return {
        "frechet": metrics.frechet(held, seen), "real": metrics.frechet(held, real), "n": options.n, "steps": step,
        "sampler": "DDIM", "sampler_steps": 50, "samples_per_second": options.n / seconds,
    }  # fmt: skip
