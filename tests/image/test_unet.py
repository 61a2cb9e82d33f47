from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.image.backbones.layers import Block, Down, UpConv, group_norm, halve
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.nn import TimeEmbedding

SMALL: dict[str, Any] = {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (8,), "dropout": 0.0}


def awake(network: nn.Module) -> nn.Module:
    """The network with its zeros replaced: a fresh one returns zeros whatever it is given."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    return network


def inputs(n: int = 4, shape: tuple[int, int, int] = (3, 16, 16)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(n, *shape), torch.rand(n)


def test_ho_et_al_have_this_many_parameters() -> None:
    with torch.device("meta"):
        network = UNet(shape=(3, 32, 32), channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(16,), heads=1,
                       scale_shift=False, resample="conv")  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == 35_746_307


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 17, 30), (2, 5, 9), (1, 8, 8), (3, 1, 6)])
@pytest.mark.parametrize("resample", ["conv", "block"])
def test_shape_is_kept(shape: tuple[int, int, int], resample: str) -> None:
    x, t = inputs(2, shape)
    network = UNet(shape=shape, resample=resample, **{**SMALL, "multipliers": (1, 2, 3)})
    assert network(x, t).shape == x.shape
    assert UNet(shape=shape, outputs=2, **SMALL)(x, t).shape[1] == 2 * shape[0]


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (256, 32), (64, 16), (36, 9), (100, 25), (7, 1), (3, 1)])
def test_groups(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_plain_use() -> None:
    network = UNet(channels=64, shape=(1, 28, 28))
    x, t = inputs(1, (1, 28, 28))
    assert not network(x, t).any(), "the last convolution starts with zeros"
    assert not any(block.conv2.weight.any() for block in network.modules() if isinstance(block, Block))


@pytest.mark.parametrize("options", [{}, {"scale_shift": False}, {"resample": "block"}, {"channels": 6, "heads": 2}])
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    network = awake(UNet(shape=(3, 16, 16), classes=3, token_dim=5, **{**SMALL, **options}))
    x, t = inputs()
    network(x, t, {"class": torch.tensor([0, 1, 2, 3]), "tokens": torch.randn(4, 2, 5)}).square().sum().backward()
    # A self-attention's key bias adds the same to all its scores and so has no effect: look at weights and sums.
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_checkpointing_changes_no_gradient() -> None:
    options = {**SMALL, "dropout": 0.3}
    plain = awake(UNet(shape=(3, 16, 16), **options))
    saving = UNet(shape=(3, 16, 16), checkpoint=True, **options)
    saving.load_state_dict(plain.state_dict())
    x, t = inputs()
    for network in (plain, saving):
        torch.manual_seed(5)
        network(x, t).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_layouts_agree() -> None:
    network = awake(UNet(shape=(3, 16, 16), classes=2, **SMALL)).eval()
    other = UNet(shape=(3, 16, 16), classes=2, channels_last=False, **SMALL).eval()
    other.load_state_dict(network.state_dict())
    x, t = inputs()
    torch.testing.assert_close(network(x, t), other(x, t), rtol=1e-4, atol=1e-4)
    assert network(x, t).is_contiguous()


def test_forward_leaves_its_arguments_alone_and_needs_no_gradient_mode() -> None:
    network = awake(UNet(shape=(3, 16, 16), **SMALL)).eval()
    x, t = inputs()
    before = x.clone()
    with torch.no_grad():
        without = network(x, t)
    torch.testing.assert_close(without, network(x, t), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x, before, rtol=0, atol=0)


def test_samples_do_not_see_one_another() -> None:
    network = awake(UNet(shape=(3, 16, 16), classes=3, token_dim=5, **SMALL)).eval()
    x, t = inputs()
    cond = {"class": torch.tensor([0, 1, 2, 3]), "tokens": torch.randn(4, 2, 5)}
    together = network(x, t, cond)
    for i in range(4):
        one = slice(i, i + 1)
        alone = network(x[one], t[one], {k: v[one] for k, v in cond.items()})
        torch.testing.assert_close(alone, together[one], rtol=1e-4, atol=1e-4)


def test_time_class_and_tokens_matter() -> None:
    network = awake(UNet(shape=(3, 16, 16), classes=3, token_dim=5, **SMALL)).eval()
    x, t = inputs()
    cond = {"class": torch.tensor([0, 1, 2, 0]), "tokens": torch.randn(4, 2, 5)}
    base = network(x, t, cond)
    changes = [
        network(x, t / 2, cond),
        network(x, t, {**cond, "class": (cond["class"] + 1) % 3}),
        network(x, t, {**cond, "tokens": torch.randn(4, 2, 5)}),
    ]
    for changed in changes:
        assert ((changed - base).abs().amax((1, 2, 3)) > 1e-4).all()
    reordered = network(x, t, {**cond, "tokens": cond["tokens"].flip(1)})
    torch.testing.assert_close(reordered, base, rtol=1e-4, atol=1e-4)  # attention is to a set of tokens


def test_null_condition() -> None:
    network = awake(UNet(shape=(3, 16, 16), classes=3, token_dim=5, **SMALL)).eval()
    x, t = inputs()
    cond = {"class": torch.tensor([0, 1, 2, 0]), "tokens": torch.randn(4, 2, 5)}
    drop = torch.tensor([True, False, True, False])
    dropped = network.null(cond, drop)
    assert dropped["class"].tolist() == [3, 1, 3, 0]
    assert torch.equal(dropped["tokens"][1], cond["tokens"][1])
    out, full, none = network(x, t, dropped), network(x, t, cond), network(x, t)
    torch.testing.assert_close(out[~drop], full[~drop])
    torch.testing.assert_close(out[drop], none[drop], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(network(x, t, {}), none)
    assert network.null(None, drop) is None
    assert cond["class"].tolist() == [0, 1, 2, 0], "the argument stays as it was"


def test_up_convolution_is_doubling_and_convolution() -> None:
    torch.manual_seed(0)
    layer, x = UpConv(4, 6).double(), torch.randn(2, 4, 5, 3, dtype=torch.float64)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(layer(x, torch.Size((9, 6))), expected[:, :, :9])


def test_halving_averages_what_there_is() -> None:
    assert halve(torch.tensor([[[[1.0, 3.0, 5.0]]]])).tolist() == [[[[2.0, 5.0]]]]


def test_copies_are_equal() -> None:
    network = awake(UNet(shape=(3, 16, 16), **SMALL)).eval()
    x, t = inputs()
    torch.testing.assert_close(copy.deepcopy(network)(x, t), network(x, t), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"channels": 0}, "channels must"),
        ({"multipliers": ()}, "multipliers must"),
        ({"multipliers": (1, 0)}, "multipliers must"),
        ({"multipliers": (1,) * 9}, "multipliers must have fewer"),
        ({"blocks": 0}, "blocks must"),
        ({"dropout": 1.0}, "dropout must"),
        ({"heads": 3}, "heads must divide"),
        ({"resample": "linear"}, "resample must"),
        ({"shape": (3, 32)}, "shape must"),
    ],
)
def test_impossible_values(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        UNet(**{"shape": (3, 16, 16), **SMALL, **options})


@pytest.mark.parametrize("shape", [(3, 8, 8), (3, 7, 9)])
def test_asymmetric_halving_looks_beyond_the_right_and_the_lower_edge_only(shape: tuple[int, int, int]) -> None:
    layer, x = Down(3), torch.randn(2, *shape)
    known = torch.nn.functional.conv2d(torch.nn.functional.pad(x, (0, 2, 0, 2)), layer.weight, layer.bias, stride=2)
    assert torch.allclose(layer(x), known[..., : -(-shape[1] // 2), : -(-shape[2] // 2)], atol=1e-6)
    network = UNet(shape=shape, channels=8, multipliers=(1, 2), blocks=1, attention=(), asymmetric=True)
    assert network(x, torch.rand(2)).shape == x.shape


def test_the_time_is_told_as_steps_from_0_on() -> None:
    """Step n of T lies at t = (n + 1) / T, and no rounding of t in single precision is left in it."""
    embedding = TimeEmbedding(8, 16)
    embedding.count(1000, 1.0)
    steps = torch.arange(1000)
    assert torch.equal(embedding._numbers((steps + 1) / 1000), steps.float())
    assert torch.equal(embedding._numbers(torch.tensor([0.0, 0.9995])), torch.tensor([0.0, 998.5]))
    frequencies = 10000 ** -(torch.arange(4, dtype=torch.float64) / 3)
    angles = steps[:, None] * frequencies
    features = torch.cat([angles.cos(), angles.sin()], 1).float()
    assert torch.allclose(embedding((steps + 1) / 1000), embedding.layers(features), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"groups": 3}, "groups"),
        ({"eps": 0.0}, "eps"),
        ({"time_steps": 1}, "time_steps"),
        ({"time_shift": -1.0}, "time_shift"),
    ],
)
def test_impossible_ways_to_count_and_to_normalise(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        UNet(shape=(1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, **options)
