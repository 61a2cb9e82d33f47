"""What `gpu` takes training steps of: diffusions of the recipes, or small ones like them, each with a batch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from diffusionkit.core import REGISTRY, Categorical, Diffusion, Gaussian, LinearVariance, Product, Schedule, Simple
from diffusionkit.core.rows import Rows
from diffusionkit.recipe import Recipe


class Trial(NamedTuple):
    """A diffusion to take training steps of, and its batch."""

    diffusion: nn.Module
    x: Any
    cond: Any
    rows: Rows | None
    items: int


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


def card(device: str) -> str:
    """The name of the card."""
    return torch.cuda.get_device_name() if device == "cuda" else "CPU"
