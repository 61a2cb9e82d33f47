"""What an evaluation shows: the table's rows, and a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.image.features import replace
from diffusionkit.image.grid import grid

if TYPE_CHECKING:
    from diffusionkit.image.evaluate import Near

EVALUATION = "evaluation.png"
COLUMNS = ("measure", "model", "beside", "comment")
BETTER = {
    **dict.fromkeys(("bits/dim", "Fréchet, classifier", "FID, Inception"), "lower"),
    **dict.fromkeys(
        ("precision", "recall", "class accuracy", "caption found", "PSNR", "SSIM", "consistency"), "higher"
    ),
}
SEEN = (
    "Denoising error per noise level, terms of the bound, samples, and samples above their nearest training pictures, the most "
    "alike first."
)
_HELD, _TRAIN = "#1f77b4", "#ff7f0e"


def table(measures: dict[str, Any]) -> list[dict[str, str]]:
    """Rows to be read: what was measured, the model's figure, the one to set beside it, and a comment."""
    loss, near = measures["loss"]["objective"], measures["nearest_training"]
    copies = near["near_copies"]
    verdict = "it copies" if near["copying"] else "no copying"
    rows = [
        ("loss", number(loss["held_out"]), f"{number(loss['train'])} training", "of held-out pictures"),
        *_bits(measures["bits_per_dimension"]),
        _distance("Fréchet, classifier", measures["frechet_classifier"]),
        _distance("FID, Inception", measures["fid_inception"]),
        _share("precision", measures["precision"], "look real"),
        _share("recall", measures["recall"], "variety"),
        ("nearest training", number(near["samples"]), f"{number(near['held_out'])} held out",
         f"ratio {number(near['ratio'])}: {verdict}"),
        ("near copies", percent(copies["samples"]), f"{percent(copies['held_out'])} held out", "of training pictures"),
    ]  # fmt: skip
    accuracy = measures.get("class_accuracy")
    if accuracy:
        beside = f"{percent(accuracy['held_out'])} held out"
        rows.append(("class accuracy", percent(accuracy["samples"]), beside, f"chance {percent(accuracy['chance'])}"))
    found = measures.get("retrieval")
    if found:
        comment = f"{found['among']} to choose from, chance {percent(found['chance'])}; judge {found['judge']}"
        rows.append(("caption found", percent(found["samples"]), f"{percent(found['held_out'])} held out", comment))
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


_BOUND = {"L_T": "what is left at the end", "L_t": "the steps between", "L_0": "the last step to data"}

Row = tuple[str, str, str, str]


def _bits(bits: dict[str, Any]) -> list[Row]:
    if "absent" in bits:
        return [("bits/dim", "absent", "", bits["absent"])]
    held, train = bits["held_out"], bits["train"]
    total = f"{number(held['total'])} ± {number(held['standard_error'])}"
    pixels = f"single pixels: {number(bits['independent_pixels'])}"
    rows = [("bits/dim", total, f"{number(train['total'])} training", pixels)]
    return rows + [(f"  {n}", number(held[n]), f"{number(train[n])} training", about) for n, about in _BOUND.items()]


def _distance(name: str, found: dict[str, Any]) -> Row:
    if "absent" in found:
        return name, "absent", "", found["absent"]
    comment = f"{found['n']:,} to {found['n_held_out']:,} held out"
    if "decoded" in found:
        comment += f"; of pictures through the autoencoder {number(found['decoded'])}"
    return name, number(found["samples"]), f"{number(found['train'])} training", comment


def _share(name: str, found: dict[str, Any], about: str) -> Row:
    return name, percent(found["samples"]), f"{percent(found['train'])} training", f"{about}; {found['n']:,} of each"


def number(value: float | None) -> str:
    """Three digits, no exponent where it can be helped."""
    if value is None:
        return "not finite"
    if abs(value) < 0.1:
        return f"{value:.3f}"
    return f"{value:#.3g}".rstrip(".") if abs(value) < 1000 else f"{value:,.0f}" if abs(value) < 1e7 else f"{value:.3g}"


def percent(value: float) -> str:
    """A share with one decimal."""
    return f"{100 * value:.1f} %"


def evaluation(path: Path, measures: dict[str, Any], samples: Tensor, near: Near) -> None:
    """Draws the loss per noise level, L_t over t, samples, and samples beside their nearest training pictures.

    Raises:
        UserError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 9.8), layout="constrained")
    FigureCanvasAgg(figure)
    (levels, terms), (drawn, beside) = figure.subplots(2, 2, height_ratios=(2, 3))
    _levels(levels, measures["loss"])
    _terms(terms, measures["bits_per_dimension"])
    _samples(drawn, samples)
    _neighbours(beside, samples, near, measures["nearest_training"])
    replace(path, lambda part: figure.savefig(part, dpi=110, format="png"))


_PARTS = (("train", "training", _TRAIN, 3.5), ("held_out", "held out", _HELD, 1.3))


def _levels(axis: Any, loss: dict[str, Any]) -> None:
    for part, name, colour, width in _PARTS:
        for key, symbol, style in (("x0_mse", "x_0", "-"), ("eps_mse", "\\epsilon", "--")):
            label = f"of ${symbol}$, {name}"
            axis.plot(loss["t"], loss[part][key], color=colour, linewidth=width, linestyle=style, label=label)
    axis.set(xlabel="t (0 is data, 1 is noise)", ylabel="mean squared error", yscale="log", xlim=(0, 1))
    axis.set_title("Denoising error per noise level", loc="left")
    _tidy(axis)


def _terms(axis: Any, bits: dict[str, Any]) -> None:
    axis.set_title("Terms $L_t$ of the bound", loc="left")
    if "absent" in bits:
        axis.axis("off")
        axis.text(0.5, 0.5, f"absent: {bits['absent']}", ha="center", transform=axis.transAxes)
        return
    for part, name, colour, width in _PARTS:
        values = [value or 0.0 for value in bits[part]["L_t_per_interval"]]
        edges = np.linspace(1 / bits["steps"], 1, len(values) + 1)
        words = " + ".join(number(bits[part][key]) for key in ("L_T", "L_t", "L_0"))
        label = f"{name}: {number(bits[part]['total'])} = {words}"
        axis.stairs(values, edges, color=colour, linewidth=width, label=label, baseline=None)
    axis.set(xlabel="t", ylabel="bits per dimension in each interval", xlim=(0, 1))
    axis.set_ylim(bottom=0)
    axis.set_title(f"Terms $L_t$ of the bound, chain of {bits['steps']:,} steps", loc="left")
    _tidy(axis, title="bits/dim = $L_T + \\Sigma L_t + L_0$")


def _tidy(axis: Any, title: str | None = None) -> None:
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=9, title=title)


def _samples(axis: Any, samples: Tensor, rows: int = 10) -> None:
    """Evenly spread over the samples, which lie in the order of their classes."""
    count = min(len(samples), rows * rows)
    _show(axis, samples[torch.linspace(0, len(samples) - 1, count).round().long()], min(rows, count))
    axis.set_title(f"Samples, {count} of {len(samples):,}", loc="left")


def _neighbours(
    axis: Any, samples: Tensor, near: Near, found: dict[str, Any], columns: int = 10, rows: int = 5
) -> None:
    """Samples, each above its neighbour, by distance: the pair most like a copy comes first."""
    order = near.distances.argsort()
    picked = order[torch.linspace(0, len(order) - 1, min(len(order), columns * rows)).round().long()]
    above, below = samples[picked], near.pictures[picked]
    line = torch.full_like(above[:, :, :1], 128)
    _show(axis, torch.cat([above, line, below], 2), min(columns, len(picked)), gap=6)
    title = (
        f"Each above its nearest training picture, nearest first\nmean distance {number(found['ratio'])} times held-out"
    )
    axis.set_title(title, loc="left", fontsize=11)


def _show(axis: Any, pictures: Tensor, columns: int, gap: int = 2) -> None:
    upscale = max(1, -(-48 // pictures.shape[3]))
    picture = np.asarray(grid(pictures, columns=columns, upscale=upscale, gap=gap))
    axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255, interpolation="antialiased")
    axis.axis("off")
