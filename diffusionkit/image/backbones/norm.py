"""Group normalisation that is as fast in channels-last layout as the convolutions around it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class GroupNorm(nn.GroupNorm):
    """Group normalisation (Wu & He 2018), followed by a scale and shift of each sample if there are any (AdaGN).

    On CPUs PyTorch's own takes up to ten times as long in channels-last layout as in the other. There this class takes
    the sums of each channel and then does all the scaling and shifting in one pass; the results differ by rounding. It
    is differentiable once in that case.
    """

    def forward(self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """(B, C, H, W), and (B, C) to multiply (plus 1) and to add after the normalisation -> (B, C, H, W)."""
        if x.device.type != "cpu" or x.is_contiguous() or torch.compiler.is_compiling():
            x = super().forward(x)
            return x if scale is None or shift is None else torch.addcmul(_wide(shift), x, _wide(scale + 1))
        factor, offset = self.weight[None], self.bias[None]
        if scale is not None and shift is not None:
            factor, offset = factor * (scale + 1), torch.addcmul(shift, offset, scale + 1)
        return _Normalise.apply(x, factor, offset, self.num_groups, self.eps)


class _Normalise(torch.autograd.Function):
    """factor * (x - mean) / std + offset, with the mean and standard deviation of each sample's group of channels.

    All that is computed per pixel is a sum over pixels or a x + b y + c with one a, b and c for each channel; PyTorch is
    quick at both in any layout. factor and offset are (B, C) or (1, C).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, offset: Tensor, groups: int, eps: float) -> Tensor:
        wide = _full(x)
        mean = _group_mean(wide.mean((2, 3)), groups)
        power = _group_mean(wide.square().mean((2, 3)), groups)
        inverse = (power - mean.square()).clamp_(min=0).add_(eps).rsqrt_()  # 1 / std
        ctx.save_for_backward(x, factor, mean, inverse)
        ctx.groups, ctx.single = groups, len(offset) == 1
        slope = inverse * factor
        return torch.addcmul(_wide(torch.addcmul(offset, mean, slope, value=-1)), wide, _wide(slope)).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, factor, mean, inverse = ctx.saved_tensors
        wide, grad = _full(x), _full(grad)
        of_offset = grad.sum((2, 3))
        of_factor = ((grad * wide).sum((2, 3)) - mean * of_offset) * inverse
        # With y = (x - mean) / std, h = factor * grad and <> the mean over a group: (h - <h> - y <h y>) / std.
        pixels = x.shape[2] * x.shape[3]
        h, h_y = (_group_mean(factor * of, ctx.groups) / pixels for of in (of_offset, of_factor))
        along = -inverse.square() * h_y
        of_x = torch.addcmul(_wide(-mean * along - inverse * h), wide, _wide(along))
        of_x = of_x.addcmul_(grad, _wide(inverse * factor)).to(x.dtype)
        if ctx.single:
            of_factor, of_offset = of_factor.sum(0, keepdim=True), of_offset.sum(0, keepdim=True)
        return of_x, of_factor, of_offset, None, None


def _group_mean(x: Tensor, groups: int) -> Tensor:
    """(B, C) with each entry replaced by the mean of its group."""
    x = x.unflatten(1, (groups, -1))
    return x.mean(2, keepdim=True).expand_as(x).flatten(1)


def _full(x: Tensor) -> Tensor:
    """x in no less than single precision."""
    return x if x.dtype == torch.float64 else x.float()


def _wide(x: Tensor) -> Tensor:
    """(B, C) to go with (B, C, H, W)."""
    return x[..., None, None]


def settle(network: nn.Module, groups: int | None = None, eps: float = 1e-5) -> None:
    """Gives all group normalisations of a network this number of groups, where there is one, and this epsilon.

    Raises:
        ValueError: if a width cannot be divided into so many groups.
    """
    if not eps > 0:
        raise ValueError(f"eps must be above 0, not {eps:g}")
    for norm in network.modules():
        if isinstance(norm, GroupNorm):
            if groups is not None and (groups < 1 or norm.num_channels % groups):
                raise ValueError(f"groups must divide {norm.num_channels} channels, which {groups} does not")
            norm.num_groups, norm.eps = groups or norm.num_groups, eps


def group_norm(channels: int, most: int = 32, least: int = 4) -> GroupNorm:
    """GroupNorm with as many groups as divide the channels: at most `most`, each of at least `least` channels.

    Groups of one channel would take away how strong a feature is; at Ho et al.'s widths this gives their 32 groups.
    """
    most = max(1, min(most, channels // least))
    return GroupNorm(next(g for g in range(most, 0, -1) if channels % g == 0), channels)
