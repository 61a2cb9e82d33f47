"""Pictures of conformers: those of one molecule laid over one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.molecule.conformer_draw import Drawn, with_conformers

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHOWN = 12  # conformers of a molecule
_BESIDE = 8  # molecules of an evaluation
_KNOWN, _MODEL = "#9aa0a6", "#1f77b4"


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


def evaluation(known: Sequence[Any], places: Sequence[np.ndarray], best: Mapping[str, np.ndarray], path: Path) -> None:
    """Draws how many molecules have a conformer that near, and the nearest ones of the first molecules over the known.

    Args:
        known: molecules with their known conformers.
        places: (n, N, 3) conformers of each by the model.
        best: (M,) distances in Å of each molecule's best conformer, by who made them.
        path: the PNG.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((12, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subfigures(1, 2, width_ratios=(2, 3))
    axis = left.subplots()
    for name, found in best.items():
        there = np.sort(found[np.isfinite(found)])
        shares = 100 * np.arange(1, len(there) + 1) / max(len(found), 1)
        style = {"linewidth": 2.2} if name == "model" else {"linewidth": 1.3, "linestyle": "--"}
        axis.step(np.r_[0, there], np.r_[0, shares], where="post", label=name, **style)
    axis.set(xlabel="RMSD of the best conformer (Å)", ylabel="molecules (%)", xlim=(0, None), ylim=(0, 100))
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=9)
    chosen = [k for k, found in enumerate(places) if len(found)][:_BESIDE]
    for panel in (panels := right.subplots(2, _BESIDE // 2).ravel()):
        panel.set_axis_off()
    for panel, k in zip(panels, chosen, strict=False):
        near, distance = _nearest(known[k], places[k])
        seen = near @ np.linalg.svd(near - near.mean(0), full_matrices=False)[2].T
        there = known[k].GetConformer().GetPositions() @ np.linalg.svd(near - near.mean(0), full_matrices=False)[2].T
        bonds = [(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in known[k].GetBonds()]
        _panel(panel, np.stack([there, seen]), bonds, (_KNOWN, _MODEL))
        panel.set_title(f"{known[k].GetProp('_Name')[:22]}\n{distance:.2f} Å", fontsize=7.5)
    right.suptitle("known in grey, the model's nearest in blue", fontsize=9)
    figure.savefig(path, dpi=110)


def _nearest(mol: Any, places: np.ndarray) -> tuple[np.ndarray, float]:
    """(N, 3) the one of (n, N, 3) conformers that is nearest to the molecule's own, laid onto it, and its distance in Å."""
    from rdkit.Chem import rdMolAlign

    probe = with_conformers(mol, places)
    distances = [rdMolAlign.GetBestRMS(probe, mol, one.GetId()) for one in probe.GetConformers()]  # moves them
    least = int(np.argmin(distances))
    return probe.GetConformers()[least].GetPositions(), distances[least]


def _panel(panel: Axes, places: np.ndarray, bonds: list[tuple[int, int]], colours: Sequence[Any] = ()) -> None:
    from matplotlib.collections import LineCollection

    shades = [(0.15 + 0.6 * shade, 0.35, 0.75 - 0.5 * shade, 0.6) for shade in np.linspace(0, 1, max(len(places), 2))]
    for colour, place in zip(colours or shades, places, strict=False):
        ends = np.array([[place[a, :2], place[b, :2]] for a, b in bonds])
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
