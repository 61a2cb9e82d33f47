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
_HELD, _TRAIN = "#1f77b4", "#ff7f0e"


def table(measures: dict[str, Any]) -> list[dict[str, str]]:
    """Rows to be read: what was measured, the model's figure, the one to set beside it, and what that is."""
    loss, bits, near = measures["loss"]["objective"], measures["bits_per_dimension"], measures["nearest_training"]
    held, train = bits["held_out"], bits["train"]
    rows = [
        _row("loss", _number(loss["held_out"]), _number(loss["train"]), "held out; beside it the training part"),
        _row("bits/dim", f"{_number(held['total'])} ± {_number(held['standard_error'], 1)}", _number(train["total"]),
             f"bound, likewise; independent pixels {_number(bits['independent_pixels'])}"),
        *(_row(f"  {name}", _number(held[name]), _number(train[name]), about) for name, about in _BOUND.items()),
        _distance("Fréchet, classifier", measures["frechet_classifier"], "in its features"),
        _distance("FID, Inception", measures["fid_inception"], ""),
        _share("precision", measures["precision"], "looks real; beside it real pictures"),
        _share("recall", measures["recall"], "variety; beside it real pictures"),
        _row("nearest training", _number(near["samples"]), _number(near["held_out"]),
             f"ratio {_number(near['ratio'])} to held-out pictures'{'; COPIES' if near['copying'] else ''}"),
        _row("near copies", _percent(near["near_copies"]["samples"]), _percent(near["near_copies"]["held_out"]),
             "of training pictures; beside it held out"),
    ]  # fmt: skip
    accuracy = measures.get("class_accuracy")
    if accuracy:
        about = f"beside it held-out pictures; chance {_percent(accuracy['chance'])}"
        rows.append(_row("class accuracy", _percent(accuracy["samples"]), _percent(accuracy["held_out"]), about))
    return rows


_BOUND = {"L_T": "what noise at the end keeps of the data", "L_t": "all denoising steps but the last", "L_0": "the last step"}


def _row(measure: str, model: str, beside: str, comment: str) -> dict[str, str]:
    return {"measure": measure, "model": model, "beside": beside, "comment": comment}


def _distance(name: str, found: dict[str, Any], about: str) -> dict[str, str]:
    if "absent" in found:
        return _row(name, "absent", "", found["absent"])
    count = f"{found['n']:,} samples, {found['n_held_out']:,} held out"
    beside = f"beside it {found['n_train']:,} training pictures"
    return _row(name, _number(found["samples"]), _number(found["train"]), "; ".join(filter(None, (about, count, beside))))


def _share(name: str, found: dict[str, Any], about: str) -> dict[str, str]:
    return _row(name, _percent(found["samples"]), _percent(found["train"]), f"{about}; {found['n']:,} of each")


def _number(value: float | None, digits: int = 3) -> str:
    if value is None:
        return "not finite"
    return f"{value:#.{digits}g}".rstrip(".") if 1e-3 <= abs(value) < 10**digits else f"{value:.{digits}g}"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def evaluation(path: Path, measures: dict[str, Any], samples: Tensor, near: Near) -> None:
    """Draws the loss per noise level, L_t over t, samples, and samples beside their nearest training pictures.

    Raises:
        UserError: if it cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 10), layout="constrained")
    FigureCanvasAgg(figure)
    (levels, terms), (drawn, beside) = figure.subplots(2, 2, height_ratios=(2, 3))
    _levels(levels, measures["loss"])
    _terms(terms, measures["bits_per_dimension"])
    _samples(drawn, samples)
    _neighbours(beside, samples, near, measures["nearest_training"])
    replace(path, lambda part: figure.savefig(part, dpi=110, format="png"))


def _levels(axis: Any, loss: dict[str, Any]) -> None:
    for part, name, colour in (("held_out", "held out", _HELD), ("train", "training", _TRAIN)):
        axis.plot(loss["t"], loss[part]["x0_mse"], color=colour, label=f"of $x_0$, {name}")
        axis.plot(loss["t"], loss[part]["eps_mse"], color=colour, linestyle="--", label=f"of $\\epsilon$, {name}")
    axis.set(xlabel="t (0 is data, 1 is noise)", ylabel="mean squared error", yscale="log", xlim=(0, 1))
    axis.set_title("Denoising error per noise level", loc="left")
    _tidy(axis)


def _terms(axis: Any, bits: dict[str, Any]) -> None:
    for part, name, colour in (("held_out", "held out", _HELD), ("train", "training", _TRAIN)):
        found = bits[part]
        values = found["L_t_per_interval"]
        total = f"{name}: {_number(found['total'])} = {_number(found['L_T'])} + {_number(found['L_t'])} + {_number(found['L_0'])}"
        axis.stairs(values, np.linspace(0, 1, len(values) + 1), color=colour, label=total, linewidth=1.5)
    axis.set(xlabel="t", ylabel="bits per dimension in each interval", xlim=(0, 1))
    axis.set_ylim(bottom=0)
    axis.set_title("Terms $L_t$ of the bound", loc="left")
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


def _neighbours(axis: Any, samples: Tensor, near: Near, found: dict[str, Any], columns: int = 10, pairs: int = 5) -> None:
    """Pairs of rows, samples above their neighbours: from the least distance, on the left of the first, upwards."""
    order = near.distances.argsort()
    picked = order[torch.linspace(0, len(order) - 1, min(len(order), columns * pairs)).round().long()]
    columns = min(columns, len(picked))
    picked = picked[: len(picked) // columns * columns].reshape(-1, columns)
    lines = [line for row in picked for line in (samples[row], near.pictures[row])]
    _show(axis, torch.cat(lines), columns)
    axis.set_title(
        "Samples (odd rows) above the nearest training pictures (even rows),\n"
        f"by distance, nearest first; mean distance / held-out pictures' = {_number(found['ratio'])}",
        loc="left",
        fontsize=11,
    )


def _show(axis: Any, pictures: Tensor, columns: int) -> None:
    picture = np.asarray(grid(pictures, columns=columns))
    axis.imshow(picture, cmap="gray" if picture.ndim == 2 else None, vmin=0, vmax=255, interpolation="antialiased")
    axis.axis("off")
