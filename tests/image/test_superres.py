"""Super-resolution: what is shown of a smaller picture, tiles that leave no seams, cascades, and results that agree with their input."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffusionkit.core import DDIM, Cosine, Diffusion, Gaussian, guided
from diffusionkit.errors import UserError
from diffusionkit.image.backbones.dit import DiT
from diffusionkit.image.backbones.unet import UNet
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import Digits
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.pictures import Pictures, PictureSet
from diffusionkit.image.resize import bicubic, enlarge, fitted, fitted_channels, match, reduce
from diffusionkit.image.smaller import Smaller, examples, shrunk
from diffusionkit.image.stages import fitting
from diffusionkit.image.tiling import Tiled, blended, starts
from diffusionkit.image.upscale import upscale
from diffusionkit.recipe import Recipe

DOMAIN = ImageDomain()


def random_pictures(n: int, shape: tuple[int, int, int], levels: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, levels, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


class Pointwise(Diffusion):
    """Takes for the clean picture what is shown, and a share of the state at the same place; counts what it is asked."""

    def __init__(self, share: float = 0.0) -> None:
        super().__init__(torch.nn.Linear(1, 1), Gaussian(Cosine(), "x0"))
        self.share, self.seen = share, []

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        self.seen.append((tuple(x_t.shape), cond))
        return cond["low"] + self.share * x_t + 0.1 * cond["class"][:, None, None, None]

    def null(self, cond, drop):
        return cond


# ---- smaller and larger ----


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_resizing_is_that_of_pillow(factor):
    x = torch.rand(1, 1, 12, 24, generator=torch.Generator().manual_seed(0))
    small = np.asarray(Image.fromarray(x[0, 0].numpy()).resize((24 // factor, 12 // factor), Image.Resampling.BICUBIC))
    assert np.allclose(reduce(x, factor)[0, 0], small, atol=1e-6)
    large = np.asarray(Image.fromarray(x[0, 0].numpy()).resize((24 * factor, 12 * factor), Image.Resampling.BICUBIC))
    assert np.allclose(enlarge(x, factor)[0, 0], large, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 4])
def test_matching_is_the_orthogonal_projection_onto_pictures_that_reduce_to_the_small_one(factor):
    generator = torch.Generator().manual_seed(1)
    x, truth = torch.randn(2, 2, 3, 8, 16, generator=generator, dtype=torch.float64).unbind(0)
    small = reduce(truth, factor)
    matched = match(x, small, factor)
    assert torch.allclose(reduce(matched, factor), small)
    assert torch.allclose(match(matched, small, factor), matched)
    moved, left = (matched - x).flatten(), (truth - matched).flatten()
    assert abs(float(moved @ left)) < 1e-9 * float(moved.norm() * left.norm())  # so it comes nearer to the truth, too
    assert (matched - truth).norm() < (x - truth).norm()


def test_pictures_are_shrunk_on_their_levels():
    pictures = random_pictures(5, (3, 8, 12))
    expected = reduce(pictures.float(), 2).round().clamp(0, 255)
    assert torch.equal(shrunk(pictures, 2).float(), expected)
    few = shrunk(random_pictures(50, (1, 8, 8), 17), 2, 17)
    assert few.dtype == torch.uint8 and int(few.max()) <= 16
    assert torch.equal(shrunk(pictures, 1), pictures)


def test_a_small_picture_is_brought_to_states_of_its_size_or_larger_or_smaller():
    low = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert torch.equal(fitted(low, (4, 4)), low)
    assert fitted(low, (8, 8)).shape == (1, 1, 8, 8)
    assert torch.equal(fitted(low, (2, 2))[0, :, 0, 1], torch.tensor([2.0, 3.0, 6.0, 7.0]))  # nothing of it is lost
    assert [fitted_channels((3, 4, 8), size) for size in ((4, 8), (8, 16), (2, 4))] == [3, 3, 12]
    for size in ((3, 6), (8, 8), (6, 12)):
        with pytest.raises(ValueError, match="4x8 do not fit states"):
            fitted_channels((3, 4, 8), size)


# ---- what a network is shown ----


def codec(
    noised: float = 30.0, classes: list[str] | None = None, shape: tuple[int, int, int] = (1, 8, 8)
) -> PixelCodec:
    return PixelCodec(shape, classes, smaller=Smaller(2, noised))


def test_batches_show_the_smaller_picture_with_noise_of_a_known_level():
    pictures = random_pictures(4000, (1, 4, 4))
    data = PictureSet(Pictures(pictures, torch.arange(4000) % 3), codec(60.0, list("abc"), (1, 4, 4)), flip=True)
    clean = data.batch(torch.arange(4000))
    assert set(clean.cond) == {"class", "low", "low_noise"} and not clean.cond["low_noise"].any()
    low = shrunk(pictures, 2).float() / 127.5 - 1
    assert torch.allclose(clean.cond["low"], enlarge(low, 2), atol=1e-6)
    noised = data.batch(torch.arange(4000), torch.Generator().manual_seed(0))
    again = data.batch(torch.arange(4000), torch.Generator().manual_seed(0))
    assert torch.equal(noised.cond["low"], again.cond["low"])
    levels = noised.cond["low_noise"] * 127.5
    assert 0 <= float(levels.min()) < 1 and 59 < float(levels.max()) <= 60
    # What is shown is the smaller one of the mirrored picture, and the noise on it has the standard deviation that is told.
    own = shrunk(((noised.x + 1) * 127.5).round().to(torch.uint8), 2).float() / 127.5 - 1
    noise = fitted(noised.cond["low"] - enlarge(own, 2), (4, 4))
    drawn = [float(noise[(levels > a) & (levels <= a + 10)].std()) for a in (0, 20, 50)]
    middle = [
        float(noised.cond["low_noise"][(levels > a) & (levels <= a + 10)].square().mean().sqrt()) for a in (0, 20, 50)
    ]
    ratios = [a / b for a, b in zip(drawn, middle, strict=True)]
    assert max(ratios) / min(ratios) < 1.05 and 0.5 < ratios[0] < 1.1  # enlarging takes the same part of each


@pytest.mark.parametrize("make", [UNet, DiT])
def test_networks_see_the_smaller_picture_and_its_noise(make):
    small = (
        {"channels": 8, "multipliers": (1, 2), "attention": ()}
        if make is UNet
        else {"width": 16, "depth": 1, "heads": 2}
    )
    torch.manual_seed(0)
    network = make(shape=(1, 8, 8), classes=3, low=2, **small).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x, t = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.7])
    cond = {"class": torch.tensor([0, 1]), "low": torch.randn(2, 2, 8, 8), "low_noise": torch.tensor([0.1, 0.4])}
    output = network(x, t, cond)
    assert output.shape == x.shape
    for key in ("low", "low_noise"):
        assert not torch.allclose(network(x, t, cond | {key: cond[key].flip(0)}), output)
    unsaid = {key: value for key, value in cond.items() if key != "low_noise"}
    assert torch.equal(network(x, t, unsaid), network(x, t, cond | {"low_noise": torch.zeros(2)}))
    dropped = network.null(cond, torch.tensor([True, True]))
    assert torch.equal(dropped["low"], cond["low"]) and dropped["class"].tolist() == [3, 3]
    with pytest.raises(ValueError, match="needs a smaller picture"):
        network(x, t, {"class": cond["class"]})
    with pytest.raises(ValueError, match="needs a smaller picture"):
        network(x, t, cond | {"low": cond["low"][:, :1]})


def test_the_codec_tells_the_network_and_comes_back_with_its_examples(tmp_path):
    made, parts = DOMAIN.prepare(Digits(smaller=2, noised=12.5))
    assert made.arguments() == {"shape": (1, 8, 8), "classes": 10, "low": 1}
    assert parts["train"].batch(torch.arange(2)).cond["low"].shape == (2, 1, 8, 8)
    made.save(tmp_path)
    back = PixelCodec.load(tmp_path)
    assert back.smaller.factor == 2 and back.smaller.noised == 12.5 and back.small == (1, 4, 4)
    assert torch.equal(back.smaller.examples, made.smaller.examples) and back.arguments() == made.arguments()
    (tmp_path / "examples.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match="examples.safetensors cannot be read"):
        PixelCodec.load(tmp_path)
    PixelCodec((1, 4, 4)).save(tmp_path)
    assert PixelCodec.load(tmp_path).smaller is None


def test_examples_are_of_the_classes_that_are_asked_for():
    labels = torch.tensor([2, 2, 0, 1, 0, 2])
    pictures = torch.arange(6, dtype=torch.uint8)[:, None, None, None].expand(6, 1, 8, 8)
    chosen = examples(pictures, labels, 3)
    assert len(chosen) == 63 and torch.equal(labels[chosen], torch.arange(63) % 3)
    assert chosen[:12:3].tolist() == [2, 4, 2, 4]
    made = codec(30, list("abc"))
    made.smaller.examples = shrunk(pictures[chosen], 2)
    turns = DOMAIN.condition(made, torch.arange(7))
    assert torch.equal(labels[((turns["low"][:, 0, 0, 0] + 1) * 127.5).round().long()], turns["class"])
    fixed = DOMAIN.condition(made, torch.arange(4), class_="c", noise=0)
    assert ((fixed["low"][:, 0, 0, 0] + 1) * 127.5).round().tolist() == [0, 1, 5, 0]
    noised = DOMAIN.condition(made, torch.arange(4), class_="c", noise=15)
    assert torch.allclose(noised["low_noise"], torch.full((4,), 15 / 127.5))
    assert not torch.equal(noised["low"], fixed["low"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"data.smaller": "3"}, "data.smaller: must divide the pictures' 8x8, not be 3"),
        ({"data.reduce": "3"}, "data.reduce: must divide the pictures' 8x8, not be 3"),
        ({"data.reduce": "4", "data.smaller": "4"}, "data.smaller: must divide the pictures' 2x2, not be 4"),
        ({"data.smaller": "1"}, "data.smaller: is a factor and must be at least 2, not 1"),
        ({"data.reduce": "0"}, "data.reduce: is a factor and must be at least 1, not 0"),
        ({"data.noised": "5"}, "data.noised: must not be negative, and above 0 only beside smaller, not 5"),
        ({"backbone.low": "3"}, "backbone.low: is decided by data.smaller, which is null"),
    ],
)
def test_recipes_that_cannot_be_are_refused_before_data_are_read(changes, said, monkeypatch):
    monkeypatch.setattr(Digits, "load", lambda self: pytest.fail("read"))
    with pytest.raises(UserError, match=said.replace(".", "\\.")):
        Recipe.load("image/digits", changes).check()


def test_reduced_pictures_are_trained_on_as_if_they_were_so_small():
    made, parts = DOMAIN.prepare(Digits(reduce=2))
    assert made.shape == (1, 4, 4) and made.arguments()["shape"] == (1, 4, 4)
    whole = Digits().load()["test"].images
    assert torch.equal(parts["test"].pictures.images, shrunk(whole, 2, 17))
    assert DOMAIN.sketch(Digits(reduce=2))["shape"] == (1, 4, 4)


# ---- tiles ----


def test_tiles_start_evenly_and_overlap_enough():
    assert starts(8, 8, 0.25) == starts(5, 8, 0.25) == [0]
    for size, tile, overlap in ((9, 8, 0.25), (100, 32, 0.25), (384, 32, 0.5), (33, 16, 0.0)):
        found = starts(size, tile, overlap)
        gaps = np.diff(found)
        assert found[0] == 0 and found[-1] == size - tile
        assert gaps.max() <= tile - round(overlap * tile) and gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("size", [(20, 33), (8, 9), (8, 8), (5, 30)])
@pytest.mark.parametrize("batch", [1, 5, 100])
def test_tiles_of_a_pointwise_network_are_the_whole(size, batch):
    model, generator = Pointwise(0.5), torch.Generator().manual_seed(0)
    x, low = torch.randn(2, 2, 3, *size, generator=generator).unbind(0)
    cond = {"low": low, "class": torch.tensor([0.0, 3.0])}
    whole = model(x, torch.tensor([0.3, 0.6]), cond)
    model.seen.clear()
    tiled = Tiled(model, (8, 8), 0.25, batch)(x, torch.tensor([0.3, 0.6]), cond)
    assert torch.allclose(tiled, whole, atol=1e-5)
    tile = (min(8, size[0]), min(8, size[1]))
    assert all(shape[0] <= batch and shape[2:] == tile for shape, _ in model.seen)
    assert all(given["low"].shape[2:] == tile and len(given["class"]) == shape[0] for shape, given in model.seen)


def test_one_tile_is_the_network_itself_whatever_it_computes():
    model = Diffusion(UNet(shape=(1, 8, 8), channels=8, multipliers=(1, 2), attention=(), low=1, dropout=0), Gaussian())
    torch.nn.init.normal_(model.network.last.weight)
    x, cond = torch.randn(3, 1, 8, 8), {"low": torch.randn(3, 1, 8, 8), "low_noise": torch.rand(3)}
    sampler = DDIM(3)
    draw = lambda net: sampler(guided(net, clip=1.0), like=(3, 1, 8, 8), cond=cond, start=x)  # noqa: E731
    assert torch.allclose(draw(Tiled(model.eval(), (8, 8))), draw(model), atol=1e-5)


def test_results_of_tiles_are_blended_without_seams():
    """A network that answers each tile with another constant: from one tile to the next it goes over gently."""
    count = 0

    def numbered(tiles: dict[str, torch.Tensor], samples: torch.Tensor) -> torch.Tensor:
        nonlocal count
        count += 1
        return torch.full_like(tiles[""], float(count % 2))

    made = blended(numbered, {"": torch.zeros(1, 1, 16, 100)}, (16, 16), 0.5, batch=1)
    assert count == 12 and float(made.min()) >= 0 and float(made.max()) <= 1
    assert float(made[0, 0].diff(dim=1).abs().max()) < 0.3 and float(made[0, 0].diff(dim=0).abs().max()) < 1e-6
    even = blended(lambda tiles, _: torch.ones_like(tiles[""]), {"": torch.zeros(2, 1, 21, 40)}, (8, 8), 0.3, batch=3)
    assert torch.allclose(even, torch.ones_like(even))
    grown = blended(lambda tiles, _: enlarge(tiles[""], 3), {"": torch.full((1, 1, 10, 21), 0.5)}, (8, 8), scale=3)
    assert grown.shape == (1, 1, 30, 63) and torch.allclose(grown, torch.full_like(grown, 0.5))


# ---- upscale ----


class Shown(Pointwise):
    """Draws what it is shown."""

    def forward(self, x_t, t, cond=None, rows=None, given=None):
        self.seen.append((tuple(x_t.shape), cond))
        return cond["low"]


def save(path: Path, values: np.ndarray, mode: str | None = None) -> Path:
    picture = Image.fromarray(values)
    (picture.convert(mode) if mode else picture).save(path)
    return path


def smooth(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    colours = [120 + 60 * np.sin(x / 3 + k) + 50 * np.cos(y / 4 - k) for k in range(3)]
    return np.stack(colours, 2).round().astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_any_size_and_kind_are_enlarged_exactly(tmp_path, mode, channels):
    made, path = codec(shape=(channels, 8, 8)), save(tmp_path / "a.png", smooth(7, 21), mode)
    model = Shown()
    drawn = upscale(made, path, tiles=3).draw(model, DDIM(2), 2, None, cond=None)
    values = np.atleast_3d(np.asarray(Image.open(path).convert("L" if mode in ("L", "LA", "1") else "RGB")))
    parts = [Image.fromarray(part.astype(np.float32)) for part in values.transpose(2, 0, 1)]
    wanted = np.stack([np.asarray(part.resize((42, 14), Image.Resampling.BICUBIC)) for part in parts]).clip(0, 255)
    assert drawn.shape == (2, *wanted.shape) and drawn.dtype == torch.uint8
    assert np.abs(drawn[0].numpy().astype(int) - wanted).max() <= 2
    assert all(shape[0] <= 3 and shape[1:] == (channels, 8, 8) for shape, _ in model.seen)


def test_small_pictures_are_padded_and_the_result_cut(tmp_path):
    drawn = upscale(codec(), save(tmp_path / "a.png", smooth(2, 3)[..., 0])).draw(Shown(), DDIM(2), 1, 1.0)
    assert drawn.shape == (1, 1, 4, 6)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("channels", [1, 3])
def test_consistent_results_made_smaller_are_the_picture(tmp_path, times, channels):
    class Noisy(Shown):
        def forward(self, x_t, t, cond=None, rows=None, given=None):
            return cond["low"] + 0.05 * torch.randn(x_t.shape, generator=torch.Generator().manual_seed(0))

    made, path = codec(shape=(channels, 8, 8)), save(tmp_path / "a.png", smooth(9, 12))
    small, factor = torch.from_numpy(smooth(9, 12)).permute(2, 0, 1)[None].float(), 2**times
    off = {}
    for consistent in (True, False):
        task = upscale(made, path, factor=factor, consistent=consistent)
        drawn = task.draw(Noisy(), DDIM(2), 1, None).float()
        off[consistent] = float((reduce(drawn, factor) - small).abs().max())
    assert off[True] < 1.0 < off[False]  # rounding to levels is all that is left


def test_noise_is_put_on_the_picture_and_told(tmp_path):
    path, model = save(tmp_path / "a.png", np.full((8, 8), 100, np.uint8)), Shown()
    torch.manual_seed(0)
    upscale(codec(30), path, noise=20).draw(
        model, DDIM(1), 1, None, cond={"low": torch.ones(1, 1), "class": torch.ones(1)}
    )
    cond = model.seen[0][1]
    assert torch.allclose(cond["low_noise"], torch.full_like(cond["low_noise"], 20 / 127.5)) and "class" in cond
    assert 0.05 < float(cond["low"].std()) < 0.2


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"factor": 3}, "--factor: this model enlarges by 2, so it can be 2, 4, 8, ..., not 3"),
        ({"factor": 1}, "--factor: this model enlarges by 2"),
        ({"noise": 31.0}, "--noise: must lie between 0 and 30, with which this model was trained, not 31"),
        ({"tiles": 0}, "--tiles must be at least 1"),
        ({"tile": 4}, "--tile a multiple of 1 of at least 8"),
    ],
)
def test_impossible_options_are_refused_before_the_picture_is_read(options, said):
    with pytest.raises(UserError, match=said.replace(".", "\\.")):
        upscale(codec(), "none.png", **options)


def test_models_that_do_not_enlarge_and_files_that_are_no_pictures_are_refused(tmp_path):
    with pytest.raises(UserError, match="was not trained to enlarge"):
        upscale(PixelCodec((1, 8, 8)), "none.png")
    with pytest.raises(UserError, match="there is no such file"):
        upscale(codec(), "none.png")
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match="is no picture that can be read"):
        upscale(codec(), tmp_path / "a.png")
    frames = [Image.new("L", (4, 4), k) for k in (0, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(UserError, match="an animation"):
        upscale(codec(), tmp_path / "a.gif")


def test_pictures_of_sixteen_bits_keep_their_upper_levels(tmp_path):
    values = (np.arange(64).reshape(8, 8) * 1000).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    task = upscale(codec(), tmp_path / "a.png")
    assert np.abs(task.picture[0].numpy() - values / 257).max() <= 1


# ---- cascades ----


def stage(name: str, codec: PixelCodec) -> Any:
    return SimpleNamespace(folder=name, codec=codec)


BASE = stage("base", PixelCodec((1, 4, 4), list("ab")))
SR = stage("sr", codec(30, list("ab")))
BARE = stage("bare", codec(30, None, (1, 16, 16)))


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ((SR, BASE), "base: does not enlarge pictures, so it cannot come after sr"),
        ((BASE, BARE), "bare: enlarges pictures of 8x8, those of base are 4x4"),
        ((BASE, SR, SR), "sr: enlarges pictures of 4x4, those of sr are 8x8"),
        ((BASE, stage("rgb", codec(shape=(3, 8, 8)))), "rgb: enlarges pictures of 3 channels, those of base have 1"),
        (
            (stage("plain", PixelCodec((1, 4, 4))), SR),
            "sr: is told the class of a picture, of 2, but plain is told of none",
        ),
        (
            (stage("others", PixelCodec((1, 4, 4), list("xy"))), SR),
            "is told the class of a picture, of 2, but others has others",
        ),
    ],
)
def test_stages_that_do_not_fit_are_refused(runs, said):
    with pytest.raises(UserError, match=said):
        fitting(runs, {})


def test_each_stage_is_asked_what_it_takes():
    assert fitting((BASE, SR, BARE), {"class_": "a", "noise": 3.0}) == [
        {"class_": "a"},
        {"class_": "a", "noise": 3.0},
        {"noise": 3.0},
    ]
    assert fitting((BASE,), {"noise": 3.0}) == [{"noise": 3.0}]  # which `condition` refuses
    with pytest.raises(UserError, match="shown no smaller pictures"):
        DOMAIN.condition(BASE.codec, torch.arange(2), noise=3.0)


def test_a_stage_is_shown_what_the_one_before_has_drawn():
    made = PixelCodec((1, 8, 8), list("ab"), smaller=Smaller(2, 30.0, random_pictures(2, (1, 4, 4))))
    drawn = random_pictures(3, (1, 4, 4), seed=5)
    cond = DOMAIN.onward(BASE.codec, BASE.codec.encode(drawn), made, torch.arange(3), class_="b")
    assert torch.allclose(cond["low"], enlarge(drawn.float() / 127.5 - 1, 2), atol=1e-5)
    assert cond["class"].tolist() == [1, 1, 1] and not cond["low_noise"].any()
    noised = DOMAIN.onward(BASE.codec, BASE.codec.encode(drawn), made, torch.arange(3), noise=10.0)
    assert torch.allclose(noised["low_noise"], torch.full((3,), 10 / 127.5)) and not torch.equal(
        noised["low"], cond["low"]
    )
    coarse = PixelCodec((1, 8, 8), levels=17, smaller=Smaller(2))  # a stage of other levels
    coarse.smaller.examples = random_pictures(2, (1, 4, 4), 17)
    again = DOMAIN.onward(BASE.codec, BASE.codec.encode(drawn), coarse, torch.arange(3))
    assert torch.allclose(fitted(again["low"], (8, 8)), cond["low"], atol=0.15)


# ---- latents ----


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from diffusionkit.training import fit

    sections = {
        "domain": "image",
        "data": {"name": "digits"},
        "backbone": {"name": "autoencoder", "channels": 8, "multipliers": [1, 2], "blocks": 1, "latent": 2},
        "objective": {"name": "reconstruction"},
        "training": {"steps": 2, "batch_size": 8, "warmup": 0, "pictures": 0},
    }
    folder = tmp_path_factory.mktemp("runs") / "vae"
    fit(Recipe.of(sections), folder, console=Console(quiet=True))
    return folder


@pytest.mark.parametrize("factor", [2, 4])
def test_models_of_latents_enlarge_too(autoencoder, tmp_path, monkeypatch, factor):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = Digits(flip=True, autoencoder=str(autoencoder), smaller=factor, noised=10)
    made, parts = DOMAIN.prepare(data)
    assert made.arguments() == DOMAIN.sketch(data) == {"shape": (2, 4, 4), "classes": 10, "low": 1}
    batch = parts["train"].batch(torch.arange(6), torch.Generator().manual_seed(0))
    assert batch.x.shape == (6, 2, 4, 4) and batch.cond["low"].shape == (6, 1, 4, 4) and batch.cond["low_noise"].any()
    clean = parts["train"].batch(torch.arange(6)).cond["low"]
    small = shrunk(parts["train"].pictures.images[:6], factor, 17).float() / 8 - 1
    assert torch.allclose(clean, fitted(small, (4, 4)), atol=1e-6)
    made.save(tmp_path)
    back = PixelCodec.load(tmp_path)
    assert not back.pixels and back.smaller.factor == factor
    model = Diffusion(UNet(**back.arguments(), channels=8, multipliers=(1, 2), attention=()), Gaussian())
    for n in (1, 2):
        save(tmp_path / "a.png", smooth(5, 13)[..., 0])
        drawn = upscale(back, tmp_path / "a.png", factor=factor**n, consistent=True).draw(
            model, DDIM(2), 1, None, cond={"class": torch.tensor([10])}
        )
        assert drawn.shape == (1, 1, 5 * factor**n, 13 * factor**n)


def test_latents_that_no_small_picture_fits_are_refused(autoencoder, monkeypatch):
    changes = {"data.autoencoder": str(autoencoder), "data.smaller": "8", "sampling.clip": "null"}
    Recipe.load("image/digits", changes).check()  # 1x1 goes into 4x4
    monkeypatch.setattr("diffusionkit.image.compatible.shape_of", lambda data: (2, 3, 3))
    with pytest.raises(
        UserError, match="data.smaller: makes pictures of 2x2, which neither divide the latents' 3x3 nor"
    ):
        Recipe.load("image/digits", changes | {"data.smaller": "4"}).check()


def test_autoencoders_are_shown_no_smaller_pictures():
    with pytest.raises(UserError, match="data.smaller: must be null for the objective reconstruction"):
        Recipe.of(
            {
                "domain": "image",
                "data": {"name": "digits", "smaller": 2},
                "backbone": {"name": "autoencoder", "channels": 8, "multipliers": [1, 2]},
                "objective": {"name": "reconstruction"},
            }
        ).check()


def test_bicubic_enlargement_leaves_a_plain_picture_plain():
    found = bicubic(torch.full((2, 1, 14, 14), 200, dtype=torch.uint8), 2)
    assert found.shape == (2, 1, 28, 28) and found.unique().tolist() == [200]
