from __future__ import annotations

import pytest
import torch

from diffusionkit.nn import Attention


def by_hand(layer: Attention, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    q, (k, v) = layer.query(x), layer.project(context).chunk(2, 2)
    heads = []
    for part in range(layer.heads):
        width = x.shape[2] // layer.heads
        cut = slice(part * width, (part + 1) * width)
        weights = torch.softmax(q[..., cut] @ k[..., cut].transpose(1, 2) / width**0.5, 2)
        heads.append(weights @ v[..., cut])
    return layer.out(torch.cat(heads, 2))


def test_cross_attention_is_the_formula() -> None:
    torch.manual_seed(0)
    layer, x, context = Attention(12, 3, context=5), torch.randn(2, 7, 12), torch.randn(2, 4, 5)
    torch.testing.assert_close(layer(x, context), by_hand(layer, x, context))


def test_self_attention_commutes_with_permutations() -> None:
    torch.manual_seed(0)
    layer, x, order = Attention(8, 2), torch.randn(2, 6, 8), torch.randperm(6)
    torch.testing.assert_close(layer(x)[:, order], layer(x[:, order]))


def test_mask_hides_tokens() -> None:
    torch.manual_seed(0)
    layer, x, context = Attention(8, 2, context=8), torch.randn(2, 6, 8), torch.randn(2, 4, 8)
    mask = torch.tensor([[True, True, False, False], [False, True, True, True]])
    out = layer(x, context, mask)
    torch.testing.assert_close(out[:1], layer(x[:1], context[:1, :2]))
    torch.testing.assert_close(out[1:], layer(x[1:], context[1:, 1:]))


def test_zero_start_and_bad_heads() -> None:
    assert not Attention(8, 2, zero=True)(torch.randn(1, 3, 8)).any()
    with pytest.raises(ValueError, match="heads must divide"):
        Attention(8, 3)
