from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor

from diffusionkit.image.augment import FEATURES, draw, warp
from diffusionkit.image.backbones.dit import DiT
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import CIFAR10, Digits
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.pictures import Pictures, PictureSet
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from diffusionkit.training.sample import sample


def said(n: int = 1, **numbers: float) -> Tensor:
    """Features of n pictures of which only these are not zero."""
    names = ("mirror", "upend", "scale", "cos", "sin", "along_x", "along_y", "right", "down")
    features = torch.zeros(n, FEATURES)
    for name, value in numbers.items():
        features[:, names.index(name)] = value
    return features


def turned(angle: float) -> dict[str, float]:
    return {"cos": math.cos(angle) - 1, "sin": math.sin(angle)}


def pictures(n: int = 3, size: tuple[int, int] = (8, 8)) -> Tensor:
    return torch.randn(n, 2, *size, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def places(size: tuple[int, int]) -> Tensor:
    """(H, W, 2) positions (x, y) of pixels from the middle of a picture, y downwards."""
    rows, columns = (torch.arange(n).double() - (n - 1) / 2 for n in size)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), -1)


def blob(middle: Tensor, covariance: Tensor, size: tuple[int, int]) -> Tensor:
    """(H, W) a Gaussian bell."""
    away = places(size) - middle
    return torch.exp(-0.5 * torch.einsum("hwi,ij,hwj->hw", away, covariance.inverse(), away))


def moments(picture: Tensor) -> tuple[Tensor, Tensor]:
    """Middle (2,) and covariance (2, 2) of the brightness of a picture (H, W)."""
    at = places(tuple(picture.shape)).flatten(0, 1)
    weights = picture.double().flatten() / picture.double().sum()
    middle = weights @ at
    return middle, (at - middle).T @ ((at - middle) * weights[:, None])


def test_no_probability_is_the_identity() -> None:
    x = pictures(50)
    features = draw(50, 0.0, (8, 8), seeded())
    assert features.shape == (50, 9) and not features.any()
    assert torch.equal(warp(x, features), x)
    x = pictures(100)
    some = draw(100, 0.1, (8, 8), seeded())
    alone = ~some.any(1)
    result = warp(x, some)
    assert 10 < int(alone.sum()) < 90
    assert torch.equal(result[alone], x[alone])
    assert ((result - x).abs().amax((1, 2, 3)) > 1e-3)[~alone].all()
    assert torch.equal(x, pictures(100)), "the argument stays as it was"


@pytest.mark.parametrize(("name", "dim"), [("mirror", 3), ("upend", 2)])
def test_a_flip_twice_is_the_identity(name: str, dim: int) -> None:
    x, flip = pictures(), said(3, **{name: 1})
    assert torch.equal(warp(x, flip), x.flip(dim))
    assert torch.equal(warp(warp(x, flip), flip), x)


@pytest.mark.parametrize("quarters", [-1, 1, 2, 3])
def test_quarter_turns_are_those_of_torch(quarters: int) -> None:
    x = pictures()
    torch.testing.assert_close(
        warp(x, said(3, **turned(quarters * math.pi / 2))), torch.rot90(x, quarters, (2, 3)), rtol=0, atol=1e-4
    )


def test_whole_pixels_are_moved_exactly() -> None:
    x = pictures(3, (8, 16))
    moved = warp(x, said(3, right=1, down=-2))  # an eighth of 16 is 2, two eighths of 8 are 2
    torch.testing.assert_close(moved[:, :, :-2, 2:], x[:, :, 2:, :-2], rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[:, :, :-2, :2], x[:, :, 2:, :2].flip(3), rtol=0, atol=1e-5)  # mirrored at the edge


@pytest.mark.parametrize(
    "numbers",
    [
        {"scale": 2.0},
        {"along_x": 2.0, "along_y": 1.5},
        {"right": 0.7, "down": -1.3},
        {"mirror": 1, "upend": 1, **turned(0.7)},
        {"mirror": 1, "scale": -0.5, **turned(2.5), "along_x": -1.0, "along_y": 2.0, "right": 0.5, "down": 0.25},
    ],
)
def test_numbers_say_what_was_done(numbers: dict[str, float]) -> None:
    """A bell under an affine map is the bell of the mapped middle and covariance."""
    size = (96, 128)
    middle = torch.tensor([8.0, -6.0], dtype=torch.float64)
    covariance = torch.tensor([[30.0, 8.0], [8.0, 50.0]], dtype=torch.float64)
    get = lambda name: float(numbers.get(name, 0))  # noqa: E731
    flip = torch.diag(torch.tensor([1 - 2 * get("mirror"), 1 - 2 * get("upend")], dtype=torch.float64))
    angle, along = math.atan2(get("sin"), get("cos") + 1), math.atan2(get("along_y"), get("along_x"))
    # Counter-clockwise for the eye, with y downwards.
    turn = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    axes = torch.tensor([[math.cos(along), -math.sin(along)], [math.sin(along), math.cos(along)]], dtype=torch.float64)
    much = 2 ** (0.2 * math.hypot(get("along_x"), get("along_y")))
    stretch = axes @ torch.diag(torch.tensor([much, 1 / much], dtype=torch.float64)) @ axes.T
    affine = stretch @ turn @ (2 ** (0.2 * get("scale")) * flip)
    shift = torch.tensor([get("right") * size[1] / 8, get("down") * size[0] / 8], dtype=torch.float64)
    result = warp(blob(middle, covariance, size)[None, None].float(), said(**numbers))[0, 0]
    expected = blob(affine @ middle + shift, affine @ covariance @ affine.T, size)
    source = (places(size) - shift) @ affine.inverse().T
    inside = (source.abs() < torch.tensor([size[1] / 2, size[0] / 2])).all(-1)  # beyond, the picture is mirrored
    assert inside.float().mean() > 0.5 and expected[inside].max() > 0.98
    torch.testing.assert_close(result.double()[inside], expected[inside], rtol=0, atol=8e-3)


def test_the_mean_goes_nowhere() -> None:
    """All done to a round bell in the middle leaves it, on average, round and in the middle."""
    n, size = 4000, (24, 24)
    bell = blob(torch.zeros(2).double(), 4 * torch.eye(2).double(), size).float()
    mean = warp(bell.expand(n, 1, *size).contiguous(), draw(n, 1.0, size, seeded())).mean((0, 1))
    middle, covariance = moments(mean)
    assert middle.abs().max() < 0.25  # shifts have a deviation of 3 pixels, over sqrt(4000)
    assert abs(covariance[0, 1]) < 1 and abs(covariance[0, 0] / covariance[1, 1] - 1) < 0.1
    assert covariance[0, 0] > 10, "and it is moved"


@pytest.mark.parametrize("flip", [False, True])
def test_how_often_each_is_drawn(flip: bool) -> None:
    features = draw(20_000, 0.3, (32, 32), seeded(), flip)
    share = features.ne(0).float().mean(0).tolist()
    whole = 1 - 1 / 8  # eighths of 32 pixels: of uniform shifts within 4 pixels an eighth is rounded to none
    either = 1 - 0.7 * (1 - 0.3 * whole)
    expected = [0.5 if flip else 0.15, 0.15, 0.3, 0.3, 0.3, 0.3, 0.3, either, either]
    assert share == pytest.approx(expected, abs=0.015)
    assert set(features[:, :2].unique().tolist()) == {0.0, 1.0}
    assert features[:, [2, 4, 5, 6, 7, 8]].mean(0).abs().max() < 0.02
    pixels = features[:, 7:] * 4
    alone = (pixels - pixels.round()).abs().lt(1e-5) & pixels.ne(0)
    assert 0.1 < float(alone.float().mean()) < 0.25, "some shifts are whole pixels"


def test_batches_are_a_function_of_indices_and_generator() -> None:
    images = torch.randint(0, 256, (60, 3, 8, 12), dtype=torch.uint8, generator=seeded())
    codec, before = PixelCodec((3, 8, 12), ["a", "b"], augment=True), images.clone()
    data = PictureSet(Pictures(images, torch.arange(60) % 2), codec, flip=True, augment=0.2)
    indices = torch.arange(59, -1, -1)
    plain = data.batch(indices)
    assert set(plain.cond) == {"class"} and torch.equal(plain.x, codec.encode(images.flip(0)))
    one, same, other = (data.batch(indices, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.x, same.x) and torch.equal(one.cond["augment"], same.cond["augment"])
    assert not torch.equal(one.x, other.x)
    assert torch.equal(one.cond["class"], indices % 2)
    assert torch.equal(one.x, warp(plain.x, one.cond["augment"])), "the numbers say all that was done"
    assert 15 < int(one.cond["augment"][:, 0].sum()) < 45, "the flip is among them"
    assert torch.equal(images, before), "the data stay as they are"
    bare = PictureSet(Pictures(images), codec, augment=0.2)
    assert bare.batch(indices).cond is None and set(bare.batch(indices, seeded()).cond) == {"augment"}


def test_the_network_hears_of_it_through_the_codec(tmp_path: Path) -> None:
    domain, data = ImageDomain(), Digits(augment=0.5)
    codec, parts = domain.prepare(data)
    assert codec.arguments() == domain.sketch(data) == {"shape": (1, 8, 8), "classes": 10, "augment": True}
    assert parts["train"].augment == 0.5
    codec.save(tmp_path)
    assert PixelCodec.load(tmp_path).arguments() == codec.arguments()
    assert "augment" not in domain.sketch(Digits())


@pytest.mark.parametrize("value", [-0.1, 1.5])
def test_impossible_probabilities(value: float) -> None:
    with pytest.raises(ValueError, match="augment is a probability"):
        CIFAR10(augment=value)


NETWORKS: list[tuple[type, dict[str, Any]]] = [
    (UNet, {"channels": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0}),
    (DiT, {"width": 16, "depth": 2, "heads": 2}),
]


@pytest.mark.parametrize(("made", "options"), NETWORKS)
def test_missing_numbers_count_as_zeros(made: type, options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    network = made(shape=(1, 8, 8), classes=2, augment=True, **options).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.2)
    x, t, label = torch.randn(4, 1, 8, 8), torch.rand(4), torch.tensor([0, 1, 0, 1])
    base = network(x, t, {"class": label})
    torch.testing.assert_close(network(x, t, {"class": label, "augment": torch.zeros(4, 9)}), base)
    for i in range(FEATURES):
        one = torch.zeros(4, 9)
        one[:, i] = 1
        assert ((network(x, t, {"class": label, "augment": one}) - base).abs().amax((1, 2, 3)) > 1e-4).all()
    cond = {"class": label, "augment": torch.randn(4, 9)}
    dropped = network.null(cond, torch.tensor([True] * 4))
    assert torch.equal(dropped["augment"], cond["augment"]), (
        "who is not told the class is still told of the augmentation"
    )


def test_edm_recipe_reduced(tmp_path: Path) -> None:
    """The recipe's settings on digits: trains with augmentation, and a loaded run draws without it."""
    small = {"data.name": "digits", "backbone.channels": "8", "backbone.blocks": "1", "backbone.attention": "4"}
    recipe = Recipe.load("image/cifar_edm", small).override(
        {"training.steps": "2", "training.batch_size": "16", "training.pictures": "4"}
    )
    run = fit(recipe, tmp_path / "run", console=Console(quiet=True))
    assert run.diffusion.network.conditions.augment is not None
    assert "augment: 0.12" in (tmp_path / "run" / "recipe.yaml").read_text()
    loaded = Run.load(tmp_path / "run")
    assert loaded.diffusion.network.conditions.augment.weight.equal(run.diffusion.network.conditions.augment.weight)
    assert sample(loaded, 2, tmp_path / "two.png").is_file()
