"""How good pictures of Fashion-MNIST are that were made of smaller ones: of held-out ones, and of those that a model draws."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.image_judge import Judge, drawn, line, model
from diffusionkit.core import guided
from diffusionkit.image.rebuilt import psnr
from diffusionkit.image.resize import bicubic
from diffusionkit.image.smaller import shrunk
from diffusionkit.image.stages import as_levels
from diffusionkit.training.run import Run

NOISES = (0.0, 10.0, 20.0)  # on the small pictures of a cascade, in levels of 255
_FACTOR = 2
Drawn = Callable[[], tuple[Tensor, Tensor]]


def cascade(cells: Cells, options: argparse.Namespace) -> None:
    """Held-out pictures made of half their size, and those of a cascade, each beside bicubic enlargement."""
    judge, base, large = Judge(Path(options.models)), model("fashion_base", options), model("fashion_sr", options)
    held = {
        name: cells.get(f"enlarged/{name}/{options.n}", partial(_enlarged, judge, large, name, options.n))
        for name in ("bicubic", "fashion_sr", "originals")
    }
    say("\nheld-out pictures, made of half their size")
    show([line(cell, name) for name, cell in held.items()])
    say(verdict(held["fashion_sr"], held["bicubic"]))
    rows = []
    for seed in options.seeds:
        first = cache(partial(drawn, base, options.n, base.sampler(), base.recipe.sampling().guidance, seed))
        ways = {"bicubic": None, **{f"fashion_sr, noise {noise:g}": noise for noise in NOISES}}
        for name, noise in ways.items():
            work = partial(_drawn, judge, first, large, noise, seed)
            rows.append(line(cells.get(f"cascade/{name}/{options.n}/{seed}", work), f"{name}, seed {seed}"))
    real = cells.get(f"cascade/real pictures/{options.n}/0", lambda: judge.figures(*judge.real(options.n)))
    say("\npictures drawn by fashion_base")
    show([*rows, line(real, "real pictures")])


def verdict(ours: Cell, plain: Cell) -> str:
    """Whether enlarged pictures are nearer to real ones than bicubic ones are, and at most 1 dB farther from the originals."""
    nearer, faithful = ours["frechet"] < plain["frechet"], ours["psnr"] > plain["psnr"] - 1
    return (
        f"Fréchet distance below that of bicubic enlargement: {'met' if nearer else 'MISSED'}; "
        f"PSNR at most 1 dB below its: {'met' if faithful else 'MISSED'}"
    )


def made_larger(run: Run, small: Tensor, classes: Tensor, noise: float, seed: int, batch: int = 100) -> Tensor:
    """uint8 pictures by a run that enlarges, as its recipe says."""
    common, found = run.recipe.sampling(), []
    diffusion, sampler = guided(run.diffusion, common.guidance, common.clip), run.sampler()
    torch.manual_seed(seed)
    for part, labels in zip(small.split(batch), classes.split(batch), strict=True):
        shown = run.codec.shown(as_levels(part, run.codec), torch.full((len(part),), noise))
        x = sampler(diffusion, run.codec.like(len(part)), {"class": labels, **shown})
        found.append(run.codec.decode(x))
    return torch.cat(found)


def _enlarged(judge: Judge, run: Run, name: str, n: int) -> Cell:
    """Of n held-out pictures, and how near they are to these: PSNR of the results, and of these made small again."""
    pictures, labels = judge.held_out(n)
    small = shrunk(pictures, _FACTOR)
    ways = {
        "bicubic": partial(bicubic, factor=_FACTOR),
        "fashion_sr": lambda part: made_larger(run, part, labels, 0.0, 0),
    }
    found = ways[name](small) if name in ways else pictures
    figures = {**judge.figures(found, labels), "n": n, "steps": run.step}
    if name in ways:
        figures |= {"psnr": psnr(found, pictures), "consistency": psnr(shrunk(found, _FACTOR), small)}
    return figures


def _drawn(judge: Judge, first: Drawn, large: Run, noise: float | None, seed: int) -> Cell:
    small, classes = first()
    found = bicubic(small, _FACTOR) if noise is None else made_larger(large, small, classes, noise, seed)
    return {**judge.figures(found, classes), "n": len(small), "steps": large.step}
