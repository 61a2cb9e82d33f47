"""What happens to pictures before they are seen: linear operators on states (B, C, H, W), for `Posterior` and `LowPass`.

All leave an even picture even, so they mean the same for pixels in [-1, 1] and in [0, 255].
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core import Operator


def downsample(factor: int) -> Operator:
    """The mean of each square of `factor` x `factor` pixels: (B, C, H / factor, W / factor).

    Raises:
        ValueError: if factor is below 2.
    """
    if factor < 2:
        raise ValueError(f"a factor must be at least 2, not {factor}")
    return lambda x: F.avg_pool2d(x, factor)


def upsample(factor: int) -> Operator:
    """Each pixel as a square of `factor` x `factor`: factor^2 times the adjoint of `downsample`, and its right inverse."""
    return lambda x: F.interpolate(x, scale_factor=factor, mode="nearest")


def blur(width: float) -> Operator:
    """A Gaussian of standard deviation `width` pixels, its weights renormalised where it meets the border.

    Raises:
        ValueError: if width is not above 0.
    """
    if not width > 0:
        raise ValueError(f"the width of a blur must be above 0, not {width:g}")

    def kernel(size: int, like: Tensor) -> Tensor:
        place = torch.arange(size, device=like.device, dtype=torch.float64)
        return (-((place[:, None] - place) ** 2) / (2 * width**2)).softmax(1).to(like)

    return lambda x: kernel(x.shape[2], x) @ x @ kernel(x.shape[3], x).T


def grey(x: Tensor) -> Tensor:
    """The mean of the channels, (B, 1, H, W)."""
    return x.mean(1, keepdim=True)


def coarse(factor: int, shape: tuple[int, ...]) -> Operator:
    """What is left of pictures that are made smaller by `factor` and large again, smoothly: a projection.

    Averages over squares, and what a bilinear enlargement makes of them, corrected so that averaging gives them back. Pictures
    with the same averages have the same coarse part, and the other way round.

    Raises:
        ValueError: if the factor does not divide height and width.
    """
    if factor < 2 or shape[1] % factor or shape[2] % factor:
        raise ValueError(
            f"a factor of {factor} does not divide {shape[1]}x{shape[2]} into squares of more than one entry"
        )

    def sides(size: int) -> Tensor:
        """(size, size): the projection along one axis."""
        small = torch.eye(size // factor, dtype=torch.float64)
        large = F.interpolate(small[None], size=size, mode="linear", align_corners=False)[0].T
        means = small.repeat_interleave(factor, 1) / factor
        return large @ torch.linalg.solve(means @ large, means)

    rows, columns = sides(shape[1]), sides(shape[2])
    return lambda x: rows.to(x) @ x @ columns.to(x).T
