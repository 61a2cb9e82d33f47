"""Pictures of conformers: those of one molecule laid over one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from diffusionkit.molecule.conformer_draw import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12  # conformers of a molecule


def overlays(drawn: Drawn, path: Path, columns: int | None = None) -> None:
    """A panel for each molecule with its conformers, aligned at the largest piece without rotatable bonds.

    Args:
        drawn: by the model.
        path: the PNG.
        columns: panels in a row; 4 by default.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns or 4, max(len(drawn.places), 1))
    lines = max(-(-len(drawn.places) // columns), 1)
    figure = Figure((3 * columns, 3 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for panel in panels:
        panel.set_axis_off()
    for panel, mol, graph, places in zip(
        panels, drawn.wanted.molecules, drawn.wanted.graphs, drawn.places, strict=False
    ):
        bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]
        piece = graph["piece"].numpy()
        fixed = np.flatnonzero(piece == max(set(piece.tolist()), key=lambda p: (piece == p).sum()))
        _panel(panel, _aligned(places[:_SHOWN], fixed), bonds)
        panel.set_title(mol.GetProp("_Name")[:36], fontsize=7)
    figure.savefig(path, dpi=100)


def _panel(panel: Axes, places: np.ndarray, bonds: list[tuple[int, int]]) -> None:
    from matplotlib.collections import LineCollection

    for shade, place in zip(np.linspace(0, 1, max(len(places), 2)), places, strict=False):
        ends = np.array([[place[a, :2], place[b, :2]] for a, b in bonds])
        colour = (0.15 + 0.6 * shade, 0.35, 0.75 - 0.5 * shade, 0.6)
        panel.add_collection(LineCollection(list(ends), colors=[colour], linewidths=1.3))
    panel.set_aspect("equal")
    panel.autoscale()


def _aligned(places: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Conformers laid onto the first by their fixed atoms, seen along the direction in which they are flattest."""
    if not len(places):
        return places
    goal = places[0] - places[0][fixed].mean(0)
    turned = []
    for place in places:
        centred = place - place[fixed].mean(0)
        u, _, vh = np.linalg.svd(centred[fixed].T @ goal[fixed])
        mirror = np.diag([1.0, 1.0, np.linalg.det(u @ vh)])
        turned.append(centred @ (u @ mirror @ vh))
    turned = np.stack(turned)
    axes = np.linalg.svd(turned.reshape(-1, 3) - turned.mean((0, 1)), full_matrices=False)[2]
    return turned @ axes.T
