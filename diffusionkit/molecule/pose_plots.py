"""Pictures of poses in their pocket, and of how well poses are judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffusionkit.molecule.pockets import Pocket
from diffusionkit.molecule.pose_draw import Drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 12  # panels of a picture
_AROUND = 4.5  # Å of the ligand within which an atom of the pocket has its residue drawn
_BONDED = 1.95  # Å between atoms of the pocket that are drawn as bonded
_MARGIN = 2.5  # Å around the ligand
_COLOURS = {6: "#303030", 7: "#2a56d8", 8: "#d03a2b", 9: "#2f9e44", 15: "#e8830c", 16: "#c9a400", 17: "#2f9e44",
            35: "#8a3a1a", 53: "#6a1b8a"}  # fmt: skip
_PALE = {7: "#8ba4e6", 8: "#e6938a", 16: "#dcc85e"}
_CARBON, _WALL, _KNOWN = "#e07b00", "#a3abb3", "#2aa198"


class Panel(NamedTuple):
    """A pose in its pocket.

    Args:
        mol: RDKit molecule with the pose as its conformer.
        pocket: around it.
        text: above it.
        known: an RDKit molecule with the true pose, or None.
    """

    mol: Any
    pocket: Pocket
    text: str = ""
    known: Any = None


def panels(drawn: Drawn, path: Path, columns: int | None = None) -> None:
    """A panel for each of the first poses, in their pockets; the known pose of a ligand beside them where there is one.

    Args:
        drawn: by a model.
        path: the PNG.
        columns: panels in a row; 4 by default.
    """
    from diffusionkit.molecule.conformer_draw import with_conformers
    from diffusionkit.molecule.pose_checks import rmsd

    found = []
    for which, place in list(zip(drawn.which, drawn.places, strict=True))[:SHOWN]:
        one, known = drawn.wanted.ligands[which], drawn.wanted.references[which]
        pocket = drawn.wanted.pockets[which]
        said = "" if known is None else f", {float(rmsd(one.mol, place[None], known)[0]):.1f} Å"
        name = pocket.name if known is not None else one.mol.GetProp("_Name")
        found.append(Panel(with_conformers(one.mol, place[None]), pocket, f"{name[:28]}{said}", known))
    draw(found, path, columns)


def draw(found: Sequence[Panel], path: Path, columns: int | None = None) -> Path:
    """Draws panels into a PNG; see `panels`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(columns or 4, max(len(found), 1))
    lines = max(-(-len(found) // columns), 1)
    figure = Figure((3.2 * columns, 3.4 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for one in axes:
        one.set_axis_off()
    for one, panel in zip(axes, found, strict=False):
        _panel(one, panel)
    figure.savefig(path, dpi=90)
    return path


def _panel(axes: Axes, panel: Panel) -> None:
    """The ligand in colours of elements, the known pose in one of its own, residues near it pale; what is in front is stronger."""
    mol = _heavy(panel.mol)
    place, pocket = mol.GetConformer().GetPositions(), panel.pocket
    known = None if panel.known is None else _heavy(panel.known)
    shown = place if known is None else np.concatenate([place, known.GetConformer().GetPositions()])
    middle, turn = shown.mean(0), _view(shown)
    flat = (shown - middle) @ turn
    low, high = flat[:, :2].min(0) - _MARGIN, flat[:, :2].max(0) + _MARGIN
    low, high = _square(low, high)
    _wall(axes, pocket, shown, middle, turn)
    if known is not None:
        _sticks(axes, known, (known.GetConformer().GetPositions() - middle) @ turn, _KNOWN, 2.2, 20)
    _sticks(axes, mol, (place - middle) @ turn, None, 3.4, 30)
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_title(panel.text, fontsize=9)


def _heavy(mol: Any) -> Any:
    from rdkit import Chem

    return Chem.RemoveHs(mol, sanitize=False)


def _view(place: np.ndarray) -> np.ndarray:
    """(3, 3) axes as columns: longest to the right, flattest towards the eye; no mirror image."""
    axes = np.linalg.svd(place - place.mean(0), full_matrices=True)[2]
    axes[2] = np.cross(axes[0], axes[1])
    return axes.T


def _square(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    half, middle = (high - low).max() / 2, (low + high) / 2
    return middle - half, middle + half


def _wall(axes: Axes, pocket: Pocket, shown: np.ndarray, middle: np.ndarray, turn: np.ndarray) -> None:
    """The residues of the pocket that come near."""
    from scipy.spatial import cKDTree

    near = cKDTree(shown).query(pocket.pos, distance_upper_bound=_AROUND)[0] < np.inf
    kept = np.isin(pocket.group, np.unique(pocket.group[near]))
    pos, z = (pocket.pos[kept] - middle) @ turn, pocket.z[kept]
    if not len(pos):
        return
    pairs = cKDTree(pos).query_pairs(_BONDED, output_type="ndarray")
    depth = pos[:, 2]
    _lines(axes, pos, z, pairs, lambda k: _PALE.get(int(z[k]), _WALL), 1.1, depth, 1)
    lone = np.setdiff1d(np.arange(len(pos)), pairs)
    axes.scatter(*pos[lone, :2].T, s=26, c="#9b59b6", zorder=5, linewidths=0)


def _sticks(axes: Axes, mol: Any, pos: np.ndarray, colour: str | None, width: float, order: int) -> None:
    z = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()])
    pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).reshape(-1, 2)
    own = {**_COLOURS, 6: _CARBON}

    def shade(k: int) -> str:
        return colour or own.get(int(z[k]), "#a02080")

    _lines(axes, pos, z, pairs, shade, width, None, order)


def _lines(
    axes: Axes, pos: np.ndarray, z: np.ndarray, pairs: np.ndarray, shade: Any, width: float, depth: Any, order: int
) -> None:
    """Bonds, each half in the colour of its atom; thinner and paler behind where a depth is given."""
    from matplotlib.collections import LineCollection

    lines, colours, widths, alphas = [], [], [], []
    span = None if depth is None or not len(depth) else (depth.min(), max(np.ptp(depth), 1e-6))
    for a, b in sorted(pairs.tolist(), key=lambda pair: pos[pair, 2].mean()):
        half = (pos[a, :2] + pos[b, :2]) / 2
        front = 1.0 if span is None else 0.35 + 0.65 * (pos[[a, b], 2].mean() - span[0]) / span[1]
        for end in (a, b):
            lines.append((pos[end, :2], half))
            colours.append(shade(end))
            widths.append(width * (0.6 + 0.6 * front if span else 1.0))
            alphas.append(front)
    axes.add_collection(
        LineCollection(lines, colors=colours, linewidths=widths, alpha=alphas or None, capstyle="round", zorder=order)
    )


# ---- how well poses are judged


def judged(chance: np.ndarray, right: np.ndarray, path: Path, found: dict[str, Any]) -> None:
    """The ROC curve of a confidence and its calibration, side by side in a PNG.

    Args:
        chance: probability (k,) that each pose is right, as predicted.
        right: whether (k,) it is.
        path: the PNG.
        found: "auc" and "calibration" of `pose_ranking`.
    """
    from matplotlib.figure import Figure

    figure = Figure((8, 3.8), layout="constrained")
    left, other = figure.subplots(1, 2)
    order = np.argsort(-chance, kind="stable")
    for axes in (left, other):
        axes.plot([0, 1], [0, 1], color="#bbbbbb", linewidth=1)
        axes.set_aspect("equal")
    hit = np.asarray(right, dtype=bool)[order]
    true, false = (np.concatenate([[0], np.cumsum(part) / max(part.sum(), 1)]) for part in (hit, ~hit))
    left.plot(false, true, color="#d62728")
    left.set(xlabel="share of wrong poses", ylabel="share of right poses", title=f"ROC, area {found['auc']:.3f}")
    said = found["calibration"]
    other.plot(said["predicted"], said["true"], "o-", color="#1f77b4", markersize=4)
    other.set(xlabel="predicted", ylabel="true", title=f"below 2 Å, {len(hit):,} poses, off by {said['error']:.3f}")
    figure.savefig(path, dpi=100)
