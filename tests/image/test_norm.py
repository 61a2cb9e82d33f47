from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from diffusionkit.image.backbones.norm import GroupNorm


def example(shape: tuple[int, ...] = (3, 12, 5, 4), dtype: torch.dtype = torch.float64) -> tuple[GroupNorm, Tensor]:
    torch.manual_seed(0)
    norm = GroupNorm(3, shape[1]).to(dtype)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm, (torch.randn(shape, dtype=dtype) + 2).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("adaptive", [False, True])
def test_both_layouts_agree_with_pytorch(adaptive: bool) -> None:
    norm, x = example()
    scale_shift = [torch.randn(3, 12, dtype=torch.float64, requires_grad=True) for _ in range(2)] if adaptive else []
    wanted = nn.functional.group_norm(x, 3, norm.weight, norm.bias, norm.eps)
    if adaptive:
        wanted = wanted * (1 + scale_shift[0][..., None, None]) + scale_shift[1][..., None, None]
    for memory_format in (torch.channels_last, torch.contiguous_format):
        y = norm(x.contiguous(memory_format=memory_format), *scale_shift)
        torch.testing.assert_close(y, wanted)
        assert y.is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("adaptive", [False, True])
def test_gradients(adaptive: bool) -> None:
    norm, x = example((2, 6, 3, 2))
    rest = [torch.randn(2, 6, dtype=torch.float64) for _ in range(2)] if adaptive else []

    def function(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, *rest))

    inputs = [x, norm.weight, norm.bias, *rest]
    assert not x.is_contiguous()
    assert torch.autograd.gradcheck(function, [v.detach().requires_grad_() for v in inputs])


def test_low_precision_is_kept_outside_and_not_used_inside() -> None:
    norm, x = example((2, 12, 8, 8), torch.float32)
    x = (x + 20).bfloat16()
    y = norm(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), norm(x.float().contiguous()), atol=0.03, rtol=0.01)


def test_constant_pictures_have_finite_gradients() -> None:
    norm, x = example(dtype=torch.float32)
    x = torch.full_like(x, 3.0, memory_format=torch.preserve_format).requires_grad_()
    norm(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
