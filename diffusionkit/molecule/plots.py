"""Pictures of molecules: a drawing of each as chemists write it, and below it what lies in space."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffusionkit.molecule.chemistry import quiet
from diffusionkit.molecule.export import Judged, judged

if TYPE_CHECKING:
    from PIL.Image import Image
    from rdkit import Chem

SIDE = 200  # pixels of a cell
SHOWN = 24  # molecules in a picture
_FINE = 3  # drawn so many times as large, and reduced
_COLOURS = {1: (230, 230, 230), 6: (90, 90, 90), 7: (60, 90, 220), 8: (215, 50, 45), 9: (110, 200, 110),
            15: (240, 140, 30), 16: (225, 195, 40), 17: (50, 170, 50), 35: (150, 60, 30), 53: (130, 30, 150)}  # fmt: skip
_RADII = {1: 0.25, 6: 0.38, 7: 0.37, 8: 0.36, 9: 0.34}


def grid(
    molecules: Sequence[tuple[np.ndarray, np.ndarray]], path: Path, hydrogens: bool = True, columns: int | None = None
) -> None:
    """Draws the first molecules into a PNG: formulas above, projections along the flattest direction below.

    Args:
        molecules: pairs of atomic numbers and positions in Å.
        path: the PNG.
        hydrogens: whether the atoms are all there are.
        columns: molecules in a row; 8 by default.
    """
    from PIL import Image

    shown = [judged(z, pos, hydrogens) for z, pos in molecules[:SHOWN]]
    columns = columns or min(8, max(len(shown), 1))
    lines = -(-len(shown) // columns)
    picture = Image.new("RGB", (columns * SIDE, max(lines, 1) * 2 * SIDE), "white")
    for i, one in enumerate(shown):
        left, top = i % columns * SIDE, i // columns * 2 * SIDE
        picture.paste(_formula(one), (left, top))
        picture.paste(projection(one.mol), (left, top + SIDE))
    picture.save(path)


def _formula(one: Judged) -> Image:
    """What RDKit draws, hydrogens left out; one that it does not take stands in red, with the reason."""
    from PIL import Image
    from rdkit import Chem
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    drawer = rdMolDraw2D.MolDraw2DCairo(SIDE, SIDE)
    options = drawer.drawOptions()
    options.legendFontSize, options.prepareMolsBeforeDrawing = 14, bool(one.smiles)
    options.fixedBondLength = 22
    with quiet():
        mol = Chem.RemoveHs(one.mol) if one.smiles else Chem.Mol(one.mol)
        mol.UpdatePropertyCache(strict=False)
        Chem.FastFindRings(mol)
        rdDepictor.Compute2DCoords(mol)
        if not one.valid:
            options.setLegendColour((0.8, 0.1, 0.1))
        try:
            drawer.DrawMolecule(mol, legend=one.reason[:40])
        except (ValueError, RuntimeError):
            drawer = rdMolDraw2D.MolDraw2DCairo(SIDE, SIDE)
    drawer.FinishDrawing()
    return Image.open(io.BytesIO(drawer.GetDrawingText())).convert("RGB")


def projection(mol: Chem.Mol) -> Image:
    """Balls and sticks seen along the direction in which the molecule is flattest; what is nearer covers what is behind."""
    from PIL import Image, ImageDraw

    pos = mol.GetConformer().GetPositions()
    z = [atom.GetAtomicNum() for atom in mol.GetAtoms()]
    turned = _turned(pos)
    side = SIDE * _FINE
    scale = min(side * 0.42 / max(float(np.abs(turned[:, :2]).max(initial=0)) + 0.5, 1e-9), side / 9)
    canvas = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(canvas)
    flat = turned[:, :2] * (scale, -scale) + side / 2
    deep = turned[:, 2] - turned[:, 2].min(initial=0)
    pale = 0.45 * (1 - deep / max(float(deep.max(initial=0)), 1e-9)) if len(deep) and deep.max() > 0.3 else deep * 0
    shapes: list[tuple[float, Any]] = []
    for bond in mol.GetBonds():
        a, b = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()
        shapes.append((min(turned[a, 2], turned[b, 2]) - 0.2, (flat[a], flat[b], (pale[a] + pale[b]) / 2)))
    shapes += [(turned[i, 2], i) for i in range(len(z))]
    for _, shape in sorted(shapes, key=lambda pair: pair[0]):
        if isinstance(shape, tuple):
            first, second, fade = shape
            pen.line([*first, *second], fill=_faded((150, 150, 150), fade), width=max(round(0.13 * scale), 2))
        else:
            radius, colour = _RADII.get(z[shape], 0.42) * scale, _COLOURS.get(z[shape], (200, 80, 180))
            box = [*(flat[shape] - radius), *(flat[shape] + radius)]
            pen.ellipse(box, fill=_faded(colour, pale[shape]), outline=_faded((40, 40, 40), pale[shape]), width=_FINE)
    return canvas.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def _turned(pos: np.ndarray) -> np.ndarray:
    """Positions about their centre, the longest direction to the right, the shortest towards the eye."""
    centred = pos - pos.mean(0)
    axes = np.linalg.svd(centred, full_matrices=True)[2]
    axes[2] = np.cross(axes[0], axes[1])  # no mirror image
    return centred @ axes.T


def _faded(colour: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    return tuple(round(c + (255 - c) * float(share)) for c in colour)  # type: ignore[return-value]
