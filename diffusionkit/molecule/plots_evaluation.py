"""The picture of an evaluation: distributions beside those of training molecules, and molecules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusionkit.molecule import chemistry, geometry
from diffusionkit.molecule.plots import grid
from diffusionkit.molecule.pool import flat

_COLUMNS, _SHOWN = 8, 16
_MODEL, _REAL = "#d62728", "#1f77b4"
_BINS = 60


def evaluation(
    path: Path,
    drawn: Sequence[tuple[np.ndarray, np.ndarray]],
    reference: tuple[np.ndarray, np.ndarray, np.ndarray],
    hydrogens: bool = True,
) -> None:
    """Draws composition, the most frequent lengths, angles and torsions, and the first molecules into a PNG.

    Args:
        path: the PNG.
        drawn: pairs of atomic numbers and positions in Å of the model's molecules.
        reference: flat training molecules.
        hydrogens: whether the atoms are all there are.
    """
    from matplotlib.figure import Figure
    from PIL import Image

    grid(drawn[:_SHOWN], path, hydrogens, _COLUMNS)
    with Image.open(path) as file:
        molecules = np.asarray(file.convert("RGB"))
    height = 12 * molecules.shape[0] / molecules.shape[1]
    figure = Figure(figsize=(12, 5 + height), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=[5, height])
    axes = upper.subplots(2, 4).ravel()
    z, pos, n = flat(drawn)
    _elements(axes[0], z, reference[0])
    _sizes(axes[1], n, reference[2])
    found, real = geometry.shapes(z, pos, n), geometry.shapes(*reference)
    for axis, (name, kind) in zip(axes[2:], _frequent(real), strict=False):
        _histogram(axis, name, kind, found[name], real[name])
    axes[0].legend(frameon=False)
    axis = lower.subplots()
    axis.imshow(molecules)
    axis.axis("off")
    figure.savefig(path, dpi=110)


def _frequent(real: dict[str, geometry.Values]) -> list[tuple[str, int]]:
    """The two most frequent types of lengths between heavy atoms, of angles and of torsions."""
    chosen = []
    for name, values in real.items():
        kinds, counts = np.unique(values.kind, return_counts=True)
        heavy = [i for i, kind in enumerate(kinds) if "H" not in geometry.label(kind).split("-")]
        order = sorted(heavy, key=lambda i: -counts[i])[:2]
        chosen += [(name, int(kinds[i])) for i in order]
    return chosen


def _histogram(axis: Any, name: str, kind: int, found: geometry.Values, real: geometry.Values) -> None:
    model, data = found.value[found.kind == kind], real.value[real.kind == kind]
    low, high = np.quantile(data, [0.001, 0.999])
    edges = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low) + 1e-6, _BINS)
    _both(axis, model, data, edges, f"{geometry.label(kind)} ({geometry.UNITS[name]})")


def _both(axis: Any, model: np.ndarray, data: np.ndarray, edges: np.ndarray, title: str) -> None:
    """Shares of either in each bin; what lies beyond the edges counts as well, and is not seen."""
    axis.hist(data, edges, weights=np.full(len(data), 1 / max(len(data), 1)), color=_REAL, alpha=0.5)
    axis.hist(
        model, edges, weights=np.full(len(model), 1 / max(len(model), 1)), color=_MODEL, histtype="step", linewidth=1.4
    )
    axis.set_title(title, fontsize=9)
    axis.set_yticks([])


def _elements(axis: Any, model: np.ndarray, data: np.ndarray) -> None:
    kinds = np.unique(np.concatenate([data, model]))
    place = np.arange(len(kinds))
    for shift, values, colour, label in ((-0.2, data, _REAL, "training"), (0.2, model, _MODEL, "model")):
        axis.bar(place + shift, [100 * np.mean(values == kind) for kind in kinds], 0.4, color=colour, label=label)
    axis.set_xticks(place, [chemistry.SYMBOLS.get(int(kind), str(kind)) for kind in kinds])
    axis.set_title("elements (%)", fontsize=9)


def _sizes(axis: Any, model: np.ndarray, data: np.ndarray) -> None:
    edges = np.arange(min(data.min(), model.min()), max(data.max(), model.max()) + 2) - 0.5
    _both(axis, model, data, edges, "atoms of a molecule")
