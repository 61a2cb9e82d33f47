"""Augmentation of which the network is told, so that it does not leak into samples (Karras et al. 2022, appendix F.2).

What is done to a picture is written down in nine numbers, all zero for a picture as it is:

| numbers | what they say |
|---|---|
| 0, 1 | 1 if mirrored left to right, top to bottom |
| 2 | enlarged by 2^(0.2 a) |
| 3, 4 | turned counter-clockwise: cosine of the angle less 1, and its sine |
| 5, 6 | stretched along this vector by 2^(0.2 |a|), and narrowed across it by as much; |a| is the vector's length |
| 7, 8 | moved to the right and down, in eighths of the width and the height |

`draw` draws them, `warp` does what they say, and the network is given them as `cond["augment"]`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

FEATURES = 9
_GROWTH = 0.2 * math.log(2)  # log of the factor for a unit of scaling or stretching
_SHIFT = 1 / 8  # of the width or the height, for a unit of translation


def draw(
    n: int, p: float, size: tuple[int, int], generator: torch.Generator | None = None, flip: bool = False
) -> Tensor:
    """What is to be done to n pictures.

    The two flips, scaling, rotation, stretching, translation and translation by whole pixels are in play with probability p
    each; a flip that is in play happens every other time. Karras et al. 2022 have the flip left to right always in play, which is
    `flip`, and no translation by whole pixels, which is from StyleGAN2-ADA (Karras et al. 2020).

    Args:
        n: how many pictures.
        p: probability of each transformation.
        size: height and width of the pictures, for translations by whole pixels.
        generator: of the draws.
        flip: left to right is always in play.

    Returns:
        (n, 9), see above.
    """
    chances = torch.tensor([1.0 if flip else p, *[p] * 6])
    mirror, upend, grow, turn, stretch, jump, slide = torch.rand(7, n, generator=generator) < chances[:, None]
    coins = torch.rand(2, n, generator=generator) < 0.5
    angle, direction, *whole = 2 * torch.rand(4, n, generator=generator) - 1
    scale, length, *shift = torch.randn(4, n, generator=generator)
    angle, direction, length = math.pi * angle * turn, math.pi * direction, length.abs() * stretch
    for i, side in enumerate(reversed(size)):
        unit = _SHIFT * side
        shift[i] = shift[i] * slide + (whole[i] * unit).round() / unit * jump
    done = [mirror & coins[0], upend & coins[1], scale * grow, angle.cos() - 1, angle.sin()]
    return torch.stack([*done, length * direction.cos(), length * direction.sin(), *shift], 1)


def warp(x: Tensor, features: Tensor) -> Tensor:
    """Pictures (B, C, H, W) with that done to them which features (B, 9) say, in the order of the table above.

    Between pixels values are interpolated by cubics, which may overshoot them a little; beyond its edges the picture is mirrored.
    Flips move pixels without changing them, and what is left alone stays bit-equal.
    """
    for column, dim in ((0, 3), (1, 2)):
        x = torch.where(features[:, column, None, None, None] > 0, x.flip(dim), x)
    moved = features[:, 2:].any(1)
    if moved.any():
        grid = _sources(features[moved], x.shape[2:]).to(x)
        x[moved] = F.grid_sample(x[moved], grid, mode="bicubic", padding_mode="reflection", align_corners=False)
    return x


def _sources(features: Tensor, size: torch.Size) -> Tensor:
    """(B, H, W, 2) where each pixel of the result comes from, x before y, from -1 to 1 over the picture's sides."""
    scale, cos, sin, along_x, along_y = features[:, 2:7].unbind(1)
    sides = features.new_tensor([size[1], size[0]])
    # The pixel o shows what was at p, for o = stretch turn scale p + shift and positions from the middle of the picture.
    length = torch.hypot(along_x, along_y)
    double = _matrix(along_x**2 - along_y**2, 2 * along_x * along_y, 2 * along_x * along_y, along_y**2 - along_x**2)
    double = double / length.square().clamp(min=1e-12)[:, None, None]  # of twice the direction's angle
    even, odd = torch.cosh(_GROWTH * length), torch.sinh(_GROWTH * length)
    narrow = even[:, None, None] * torch.eye(2).to(features) - odd[:, None, None] * double
    back = _matrix(cos + 1, -sin, sin, cos + 1) * torch.exp(-_GROWTH * scale)[:, None, None]
    rows, columns = (torch.arange(n).to(features) - (n - 1) / 2 for n in size)
    pixels = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1).flatten(0, 1)
    pixels = pixels - (features[:, 7:] * _SHIFT * sides)[:, None]
    return (pixels @ (back @ narrow).mT * (2 / sides)).unflatten(1, tuple(size))


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    """(B, 2, 2) with the rows (a, b) and (c, d)."""
    return torch.stack([a, b, c, d], 1).unflatten(1, (2, 2))


__all__ = ["FEATURES", "draw", "warp"]
