"""Pictures made smaller and larger by whole factors, as Pillow does it: bicubic, antialiased (Keys 1981, a = -1/2).

`match` makes a picture agree with a smaller one: the least change after which `reduce` gives that.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def reduce(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H / factor, W / factor), linear in x and even where x is; H and W are multiples of the factor."""
    return _to(x, x.shape[2] // factor, x.shape[3] // factor) if factor > 1 else x


def enlarge(x: Tensor, factor: int) -> Tensor:
    """(B, C, H, W) -> (B, C, H factor, W factor)."""
    return _to(x, x.shape[2] * factor, x.shape[3] * factor) if factor > 1 else x


def bicubic(pictures: Tensor, factor: int) -> Tensor:
    """uint8 (B, C, H, W) -> uint8 (B, C, H factor, W factor): enlarged and rounded."""
    return enlarge(pictures.float(), factor).round().clamp(0, 255).to(torch.uint8)


def fitted(low: Tensor, size: tuple[int, int]) -> Tensor:
    """A picture (B, C, h, w) brought to the size of a state: enlarged, or with the pixels of a square as channels of one place."""
    if low.shape[2] <= size[0]:
        return enlarge(low, size[0] // low.shape[2])
    return F.pixel_unshuffle(low, low.shape[2] // size[0])


def fitted_channels(shape: tuple[int, int, int], size: tuple[int, int]) -> int:
    """The channels that `fitted` gives of pictures of this shape.

    Raises:
        ValueError: if neither size is the other's multiple.
    """
    channels, height, width = shape
    for a, b, times in (((height, width), size, 1), (size, (height, width), (max(1, height // size[0])) ** 2)):
        if min(a) > 0 and not (b[0] % a[0] or b[1] % a[1]) and b[0] // a[0] == b[1] // a[1]:
            return channels * times
    raise ValueError(f"pictures of {height}x{width} do not fit states of {size[0]}x{size[1]}")


def match(x: Tensor, small: Tensor, factor: int) -> Tensor:
    """x (B, C, H, W) plus the least that makes `reduce` of it `small`, in the sense of least squares.

    An orthogonal projection: it brings x nearer to every picture that reduces to `small`.
    """
    rows, columns = (_inverse(size, factor, x) for size in x.shape[2:])
    return x + rows @ (small - reduce(x, factor)) @ columns.T


def _inverse(size: int, factor: int, like: Tensor) -> Tensor:
    """(size, size / factor): the right inverse of least norm of `reduce` along one axis."""
    unit = torch.eye(size, dtype=torch.float64)[None, None]
    matrix = F.interpolate(unit, size=(size, size // factor), mode="bicubic", antialias=True)[0, 0].T
    return torch.linalg.solve(matrix @ matrix.T, matrix).T.to(like)


def _to(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, size=(height, width), mode="bicubic", antialias=True)


__all__ = ["bicubic", "enlarge", "fitted", "fitted_channels", "match", "reduce"]
