from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from diffusionkit.core import DDIM, Diffusion, Gaussian, Simple
from diffusionkit.image.backbones.dit import DiT, positions
from diffusionkit.image.backbones.text import Tokens
from diffusionkit.nn import Attention
from diffusionkit.recipe import Recipe
from diffusionkit.training import train

SMALL: dict[str, Any] = {"shape": (3, 8, 12), "width": 16, "depth": 2, "heads": 2}


def awake(network: nn.Module) -> nn.Module:
    """The network with its zeros replaced: a fresh one returns zeros whatever it is given."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    return network


def inputs(n: int = 4, shape: tuple[int, int, int] = (3, 8, 12)) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(n, *shape), torch.rand(n)


def conditions(n: int = 4) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return {"class": torch.arange(n) % 3, "tokens": torch.randn(n, 5, 6)}


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("depth", "width", "heads", "millions"), [(12, 384, 6, 33), (12, 768, 12, 130), (24, 1024, 16, 458), (28, 1152, 16, 675)]
)  # fmt: skip
def test_published_sizes(depth: int, width: int, heads: int, millions: float) -> None:
    """Table 1 of Peebles and Xie 2023, whose networks predict the variance, too."""
    with torch.device("meta"):
        network = DiT(shape=(4, 32, 32), classes=1000, patch=2, width=width, depth=depth, heads=heads, outputs=2)
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


def test_the_recipes_have_the_sizes_they_say() -> None:
    for name, millions in {"cifar_dit": 32.5, "fashion_dit": 1.87, "cifar_edm": 56.5}.items():
        recipe = Recipe.load(f"image/{name}")
        with torch.device("meta"):
            network = recipe.build("backbone", **recipe.domain.sketch(recipe.build("data")), outputs=1)
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(("shape", "patch"), [((1, 28, 28), 4), ((3, 6, 10), 2), ((2, 5, 7), 1), ((1, 9, 3), 3)])
def test_shape_is_kept(shape: tuple[int, int, int], patch: int) -> None:
    x, t = inputs(2, shape)
    network = DiT(**{**SMALL, "shape": shape}, patch=patch, outputs=2)
    assert network(x, t).shape == (2, 2 * shape[0], *shape[1:])
    assert not network(x, t).any(), "the last layer starts with zeros"


def test_blocks_start_as_the_identity() -> None:
    """With a head of its own, a fresh network is a head on embedded patches, whatever the time and the condition."""
    network = DiT(**SMALL, classes=3, token_dim=6)
    nn.init.normal_(network.last.weight)
    x, t = inputs()
    embedded = network.embed(x).flatten(2).mT + network.places
    for block in network.blocks:
        assert torch.equal(block(embedded, torch.zeros(4, 6 * 16), Tokens(conditions()["tokens"])), embedded)
    full = network(x, t, conditions())
    assert full.any() and torch.equal(full, network(x, 1 - t))


def test_patches_go_back_to_where_they_come_from() -> None:
    """Without attention a pixel can only reach its own patch."""
    network = DiT(**SMALL)
    nn.init.normal_(network.last.weight)
    x, t = inputs(1)
    changed = x.clone()
    changed[0, 0, 3, 8] += 1
    different = (network(changed, t) != network(x, t))[0].any(0)
    assert different[2:4, 8:10].all() and int(different.sum()) == 4
    # A head that inverts the embedding gives the picture back: rows, columns and channels are where they were.
    network = DiT(shape=(2, 4, 6), width=8, depth=1, heads=1)
    x, t = inputs(2, (2, 4, 6))
    with torch.no_grad():
        network.embed.weight.copy_(torch.eye(8).reshape(8, 2, 2, 2))  # channel, row, column of a patch
        network.last.weight.copy_(torch.eye(8).reshape(2, 4, 8).transpose(0, 1).reshape(8, 8))  # row, column, channel
        network.places.zero_()
    network.norm = nn.Identity()
    close(network(x, t), x)


def test_positions() -> None:
    rows, columns, width = 3, 5, 8
    table = positions(rows, columns, width)
    assert table.shape == (15, 8) and len(table.unique(dim=0)) == 15
    for row in range(rows):
        for column in range(columns):
            expected = [f(n * w) for n in (column, row) for f in (math.sin, math.cos) for w in (1, 1e-2)]
            assert table[row * columns + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_other_sizes_than_it_was_built_for() -> None:
    network = awake(DiT(**SMALL)).eval()
    other = awake(DiT(**{**SMALL, "shape": (3, 4, 16)})).eval()
    other.load_state_dict(network.state_dict())  # the positions are not among the weights
    x, t = inputs(2, (3, 4, 16))
    close(network(x, t), other(x, t))
    with pytest.raises(ValueError, match="patch must divide the sides of the pictures, 5x16"):
        network(torch.randn(2, 3, 5, 16), t)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"augment": True, "mlp": 1.5, "patch": 4}])
def test_gradient_reaches_every_parameter(options: dict[str, Any]) -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6, **options))
    x, t = inputs()
    cond = conditions() | {"class": torch.tensor([0, 1, 2, 3])} | ({"augment": torch.randn(4, 9)} if options else {})
    network(x, t, cond).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_checkpointing_changes_no_gradient() -> None:
    plain = awake(DiT(**SMALL, token_dim=6, dropout=0.3))
    saving = DiT(**SMALL, token_dim=6, dropout=0.3, checkpoint=True)
    saving.load_state_dict(plain.state_dict())
    x, t = inputs()
    for network in (plain, saving):
        torch.manual_seed(5)
        network(x, t, conditions()).square().sum().backward()
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_samples_do_not_see_one_another() -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6)).eval()
    x, t = inputs()
    cond = conditions()
    together = network(x, t, cond)
    for i in range(4):
        one = slice(i, i + 1)
        close(network(x[one], t[one], {k: v[one] for k, v in cond.items()}), together[one])


def test_time_class_and_tokens_matter() -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6)).eval()
    (x, t), cond = inputs(), conditions()
    base = network(x, t, cond)
    changes = [
        network(x, t / 2, cond),
        network(x, t, {**cond, "class": (cond["class"] + 1) % 3}),
        network(x, t, {**cond, "tokens": torch.randn(4, 5, 6)}),
    ]
    for changed in changes:
        assert ((changed - base).abs().amax((1, 2, 3)) > 1e-4).all()
    close(network(x, t, {**cond, "tokens": cond["tokens"].flip(1)}), base)  # attention is to a set of tokens


def test_null_condition() -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6)).eval()
    (x, t), cond = inputs(), conditions()
    cond["tokens_mask"] = torch.tensor([[True] * 3 + [False] * 2] * 4)
    drop = torch.tensor([True, False, True, False])
    dropped = network.null(cond, drop)
    out, full, none = network(x, t, dropped), network(x, t, cond), network(x, t)
    close(out[~drop], full[~drop])
    close(out[drop], none[drop])
    assert ((full - none).abs().amax((1, 2, 3)) > 1e-4).all()
    assert network.null(None, drop) is None


def test_padding_is_not_looked_at() -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6)).eval()
    (x, t), cond = inputs(), conditions()
    mask = torch.ones(4, 5, dtype=torch.bool)
    close(network(x, t, cond | {"tokens_mask": mask}), network(x, t, cond))
    mask[:, 3:] = False
    masked = network(x, t, cond | {"tokens_mask": mask})
    close(masked, network(x, t, {**cond, "tokens": cond["tokens"][:, :3]}))
    mask[0] = False  # a caption without a word
    close(network(x, t, cond | {"tokens_mask": mask})[:1], network(x, t, {"class": cond["class"]})[:1])


def test_normalised_queries_have_no_strength() -> None:
    """Products of normalised queries and keys do not grow with the weights that make them."""
    torch.manual_seed(0)
    x = torch.randn(2, 7, 12)
    for norm in (True, False):
        layer = Attention(12, 3, qk_norm=norm)
        nn.init.zeros_(layer.project.bias)
        before = layer(x)
        with torch.no_grad():
            layer.project.weight[:24] *= 50
        assert torch.allclose(layer(x), before, atol=1e-3) is norm


@pytest.mark.parametrize("qk_norm", [False, True])
def test_half_precision_is_near(qk_norm: bool) -> None:
    network = awake(DiT(**SMALL, classes=3, token_dim=6, qk_norm=qk_norm)).eval()
    (x, t), cond = inputs(), conditions()
    with torch.no_grad():
        exact = network(x, t, cond)
        with torch.autocast("cpu", torch.bfloat16):
            rough = network(x, t, cond)
    assert float((rough - exact).norm() / exact.norm()) < 0.03


def test_it_learns_and_is_guided() -> None:
    """Two classes of flat pictures, dark and bright: a few steps tell them apart."""
    torch.manual_seed(0)
    label = torch.arange(256) % 2
    x = (2.0 * label - 1)[:, None, None, None].expand(-1, 1, 4, 8) * 0.8 + 0.05 * torch.randn(256, 1, 4, 8)
    network = DiT(shape=(1, 4, 8), classes=2, width=32, depth=2, heads=2)
    diffusion = Diffusion(network, Gaussian(predict="v"), Simple(drop=0.1))
    train(
        diffusion,
        (x, {"class": label}),
        steps=120,
        batch_size=64,
        lr=2e-3,
        warmup=10,
        ema=0.9,
        console=Console(quiet=True),
    )
    torch.manual_seed(1)
    drawn = DDIM(20)(diffusion, like=(8, 1, 4, 8), cond={"class": torch.arange(8) % 2}).mean((1, 2, 3))
    assert drawn[::2].max() < -0.4 and drawn[1::2].min() > 0.4


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"shape": (3, 8)}, "shape must"),
        ({"patch": 3}, "patch must divide the sides of the pictures, 8x12"),
        ({"patch": 0}, "patch must be at least 1"),
        ({"width": 18}, "width must be a multiple of 4"),
        ({"heads": 3}, "heads must divide"),
        ({"depth": 0}, "depth must"),
        ({"mlp": 0.0}, "mlp must"),
        ({"dropout": 1.0}, "dropout must"),
    ],
)
def test_impossible_values(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        DiT(**{**SMALL, **options})
