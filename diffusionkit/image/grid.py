"""Pictures side by side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image


def grid(
    pictures: Tensor, columns: int | None = None, upscale: int | None = None, gap: int = 2, background: int = 255
) -> Image.Image:
    """Pictures in rows, from left to right, with small gaps.

    Args:
        pictures: uint8 (N, C, H, W); 1 channel is grey, 3 are colour, of any other number the first is shown.
        columns: pictures in a row; by default as many as make it about square.
        upscale: each pixel becomes a square of so many; by default the least that makes small pictures 64 pixels high.
        gap: pixels between pictures and around them.
        background: brightness of the gaps.
    """
    from PIL import Image

    tiles = as_rows(pictures)
    upscale = upscale or max(1, math.ceil(64 / max(tiles.shape[1:3])))
    tiles = tiles.repeat(upscale, axis=1).repeat(upscale, axis=2)
    n, height, width, _ = tiles.shape
    columns = max(1, min(n, columns or math.ceil(math.sqrt(n))))
    rows = math.ceil(n / columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, tiles.shape[3]), background, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = gap + i // columns * (height + gap), gap + i % columns * (width + gap)
        canvas[y : y + height, x : x + width] = tile
    return Image.fromarray(canvas[..., 0] if canvas.shape[2] == 1 else canvas)


def save_grid(pictures: Tensor, path: Path, **options: int | None) -> None:
    """Writes `grid(pictures, **options)` as a PNG: the same pictures give the same bytes."""
    grid(pictures, **options).save(path, format="PNG")


def as_rows(pictures: Tensor) -> np.ndarray:
    """uint8 (N, C, H, W) -> (N, H, W, 1 or 3), as Pillow wants them."""
    if pictures.dtype != torch.uint8 or pictures.ndim != 4:
        raise ValueError(f"pictures must be uint8 (N, C, H, W), not {pictures.dtype} {tuple(pictures.shape)}")
    if pictures.shape[1] != 3:
        pictures = pictures[:, :1]
    return pictures.detach().cpu().permute(0, 2, 3, 1).contiguous().numpy()
