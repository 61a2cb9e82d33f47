from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file

from diffusionkit.cli import main
from diffusionkit.errors import UserError
from diffusionkit.image import features, latent
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import Digits
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.latent import LatentCodec, LatentSet, prepared
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit

QUIET = Console(quiet=True)
LDM = {
    "domain": "image",
    "data": {"name": "digits", "flip": True},
    "process": {"name": "gaussian", "schedule": "cosine", "predict": "v"},
    "backbone": {"name": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
    "training": {"steps": 2, "batch_size": 8, "warmup": 0, "pictures": 4},
    "sampling": {"sampler": "ddim", "steps": 2},
}


class Few(Digits):
    """A few of the digits."""

    def load(self) -> dict[str, Any]:
        return {name: type(p)(p.images[:70], p.labels[:70]) for name, p in super().load().items()}


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of an autoencoder of digits, with weights that do something, but learned nothing."""
    sections = {
        "domain": "image",
        "data": {"name": "digits"},
        "backbone": {"name": "autoencoder", "channels": 8, "multipliers": [1, 2], "blocks": 1, "latent": 2},
        "objective": {"name": "reconstruction", "adversarial": 0.1, "width": 4},
        "training": {"steps": 2, "batch_size": 8, "warmup": 0, "pictures": 0},
    }
    folder = tmp_path_factory.mktemp("runs") / "vae"
    run = fit(Recipe.of(sections), folder, console=QUIET)
    with torch.no_grad():
        torch.manual_seed(0)
        for parameter in run.diffusion.network.parameters():
            parameter.add_(0.3 * parameter.std(correction=0).clamp(min=0.1) * torch.randn_like(parameter))
    run.save(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "diffusionkit" / "latents"


def recipe(autoencoder: Path | str, **changes: str) -> Recipe:
    sections = {**LDM, "data": LDM["data"] | {"autoencoder": str(autoencoder)}}
    return Recipe.of(sections).override({key.replace("__", "."): value for key, value in changes.items()})


# ---- the codec ----


def test_states_are_the_latents_of_the_run_scaled(autoencoder: Path) -> None:
    codec, parts = prepared(Few(autoencoder=str(autoencoder)))
    network, pictures = Run.load(autoencoder).diffusion.network, parts["test"].pictures.images[:5]
    mean, _ = network.encode(PixelCodec((1, 8, 8), levels=17).encode(pictures))
    shift, scale = (torch.tensor(v)[:, None, None] for v in (codec.shift, codec.scale))
    assert torch.allclose(codec.encode(pictures), (mean - shift) * scale, atol=1e-5)
    x = torch.randn(codec.like(3))
    assert codec.arguments() == {"shape": (2, 4, 4), "classes": 10} and codec.like(3) == (3, 2, 4, 4)
    assert torch.allclose(codec.render(x), network.decode(x / scale + shift), atol=1e-5)
    shown = codec.decode(x)
    assert shown.dtype == torch.uint8 and shown.shape == (3, 1, 8, 8)
    assert set(shown.flatten().tolist()) <= {round(i * 255 / 16) for i in range(17)}  # the levels that digits have


def test_what_training_sees_has_mean_0_and_variance_1(autoencoder: Path) -> None:
    codec, parts = prepared(Digits(autoencoder=str(autoencoder), flip=True))
    generator = torch.Generator().manual_seed(0)
    x = torch.cat([parts["train"].batch(torch.arange(len(parts["train"])), generator).x for _ in range(4)])
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(2), atol=0.03)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(2), atol=0.03)
    assert x.shape[1:] == codec.like(1)[1:]


def test_the_codec_comes_back_without_its_run(autoencoder: Path, tmp_path: Path) -> None:
    codec, _ = prepared(Few(autoencoder=str(autoencoder)))
    codec.save(tmp_path)
    again, pictures = PixelCodec.load(tmp_path), torch.randint(0, 17, (4, 1, 8, 8), dtype=torch.uint8)
    assert isinstance(again, LatentCodec) and again.described() == codec.described()
    assert torch.equal(again.encode(pictures), codec.encode(pictures))
    x = torch.randn(codec.like(4))
    assert torch.equal(again.decode(x), codec.decode(x))
    assert not any(p.requires_grad for p in again.network.parameters()) and not again.network.training


def test_pictures_can_be_followed_back_to_states(autoencoder: Path) -> None:
    codec, _ = prepared(Few(autoencoder=str(autoencoder)))
    x = torch.randn(codec.like(2), requires_grad=True)
    codec.render(x).square().sum().backward()
    assert x.grad.abs().amax((1, 2, 3)).min() > 0
    assert codec.encode(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).grad_fn is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"autoencoder": {"shape": [1, 8, 8], "nonsense": 1}}, "says of its network what cannot be"),
        ({"autoencoder": {"shape": [1, 8, 8], "channels": -1}}, "says of its network what cannot be"),
        ({"autoencoder": {"shape": [1, 8, 8], "channels": 4}}, "does not fit its network"),
        ({"autoencoder": "os.system"}, "says of its network what cannot be"),
        ({"scale": [1.0]}, "is damaged"),
        ({"scale": [0.0, 1.0]}, "is damaged"),
        ({"shift": [float("nan"), 1.0]}, "is damaged"),
        ({"codec": "mine.Codec"}, "is damaged"),
    ],
)
def test_damaged_files_are_refused(autoencoder: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    codec, _ = prepared(Few(autoencoder=str(autoencoder)))
    codec.save(tmp_path)
    path = tmp_path / "codec.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=message):
        PixelCodec.load(tmp_path)


def test_cut_off_weights_are_refused(autoencoder: Path, tmp_path: Path) -> None:
    prepared(Few(autoencoder=str(autoencoder)))[0].save(tmp_path)
    weights = tmp_path / latent.FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"codec\.safetensors: is damaged"):
        PixelCodec.load(tmp_path)


# ---- cached latents ----


def test_latents_are_computed_once_and_kept(autoencoder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Few(autoencoder=str(autoencoder), flip=True)
    calls: list[int] = []
    encode = Autoencoder.encode
    monkeypatch.setattr(Autoencoder, "encode", lambda self, x: (calls.append(len(x)), encode(self, x))[1])
    _, parts = prepared(data)
    assert sum(calls) == 70 * 2 + 70  # both sides of the training part, held-out pictures as they are
    assert isinstance(parts["train"].moments, np.memmap) and parts["train"].moments.shape == (70, 2, 2, 2, 4, 4)
    first = parts["train"].batch(torch.arange(9), torch.Generator().manual_seed(3))
    files = {path.name for path in cache.iterdir()}
    _, again = prepared(data)
    second = again["train"].batch(torch.arange(9), torch.Generator().manual_seed(3))
    assert sum(calls) == 210 and torch.equal(first.x, second.x)
    prepared(Few(autoencoder=str(autoencoder)))  # not mirrored: other latents
    assert sum(calls) == 210 + 70 and {path.name for path in cache.iterdir()} > files


def test_other_weights_and_damaged_files_are_computed_anew(autoencoder: Path, cache: Path, tmp_path: Path) -> None:
    prepared(Few(autoencoder=str(autoencoder)))
    files = {path.name: path for path in cache.iterdir()}
    assert len(files) == 2
    whole = {name: path.read_bytes() for name, path in files.items()}
    for path in files.values():
        path.write_bytes(path.read_bytes()[:-50])
    prepared(Few(autoencoder=str(autoencoder)))
    assert {name: path.read_bytes() for name, path in files.items()} == whole
    other = tmp_path / "other"
    shutil.copytree(autoencoder, other)
    run = Run.load(other)
    with torch.no_grad():
        run.diffusion.network.moments[0].bias.add_(1e-3)
    run.save(other)
    prepared(Few(autoencoder=str(other)))
    assert len(list(cache.iterdir())) == 4


def test_batches_are_means_and_draws_of_the_posterior(autoencoder: Path) -> None:
    codec, parts = prepared(Few(autoencoder=str(autoencoder), flip=True))
    data, indices = parts["train"], torch.tensor([3, 60, 7])
    assert isinstance(data, LatentSet)
    pictures = data.pictures.images[indices]
    plain = data.batch(indices)
    assert torch.allclose(plain.x, codec.encode(pictures), atol=0.02)
    assert plain.cond["class"].tolist() == data.pictures.labels[indices].tolist()
    generator = torch.Generator().manual_seed(0)
    drawn = torch.stack([data.batch(indices, generator).x for _ in range(600)])
    sides = [codec.posterior(side) for side in (pictures, pictures.flip(3))]
    mean = torch.stack([codec.normalise(side) for side, _ in sides])
    scale = torch.tensor(codec.scale)[:, None, None]
    variance = torch.stack([(std * scale).square() for _, std in sides]).mean(0) + mean.var(0, correction=0)
    assert ((drawn.mean(0) - mean.mean(0)).abs() < 5 * (variance / 600).sqrt() + 0.01).all()
    assert torch.allclose(drawn.var(0), variance, rtol=0.4, atol=0.01)


def test_the_same_generator_gives_the_same_batch(autoencoder: Path) -> None:
    data = prepared(Few(autoencoder=str(autoencoder), flip=True))[1]["train"]
    one, two, three = (data.batch(torch.arange(9), torch.Generator().manual_seed(seed)).x for seed in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)


# ---- runs ----


@pytest.fixture(scope="module")
def run(autoencoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    place = tmp_path_factory.mktemp("latent")
    patch = pytest.MonkeyPatch()
    patch.setenv("XDG_CACHE_HOME", str(place / "cache"))
    try:
        return fit(recipe(autoencoder), place / "run", console=QUIET)
    finally:
        patch.undo()


def test_a_latent_run_trains_and_needs_its_autoencoder_no_more(run: Run, autoencoder: Path, tmp_path: Path) -> None:
    assert (run.folder / "pictures" / "final.png").is_file()
    away = autoencoder.with_name("away")
    autoencoder.rename(away)
    try:
        loaded = Run.load(run.folder)
        assert loaded.codec.like(1) == (1, 2, 4, 4)
        with pytest.raises(SystemExit) as stop:
            main(["sample", str(run.folder), "-n", "3", "--class", "7", "--out", str(tmp_path / "x.npz")])
        assert not stop.value.code
    finally:
        away.rename(autoencoder)
    assert np.load(tmp_path / "x.npz")["images"].shape == (3, 8, 8, 1)


def test_a_latent_run_is_evaluated_by_its_pictures(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(features, "_STEPS", 40)
    found = ImageDomain().evaluate(Run.load(run.folder), n=40, levels=2, inception="off")
    assert found["bits_per_dimension"] == {"absent": "states are latents, not pixels"}
    rows = {row["measure"]: row for row in found["table"]}
    assert rows["bits/dim"]["model"] == "absent" and "latents" in rows["bits/dim"]["comment"]
    assert "through the autoencoder" in rows["Fréchet, classifier"]["comment"]
    assert found["frechet_classifier"]["decoded"] >= 0
    assert (run.folder / "evaluation.png").is_file()


@pytest.mark.parametrize("backbone", ["unet", "dit"])
def test_networks_are_made_for_the_latents(autoencoder: Path, backbone: str) -> None:
    small = {"unet": LDM["backbone"], "dit": {"name": "dit", "patch": 2, "width": 16, "depth": 1, "heads": 2}}[backbone]
    sections = {**LDM, "data": LDM["data"] | {"autoencoder": str(autoencoder)}, "backbone": small}
    network = Recipe.of(sections).build("backbone", shape=(2, 4, 4), classes=10, outputs=1)
    assert network(torch.randn(2, 2, 4, 4), torch.rand(2), {"class": torch.tensor([0, 1])}).shape == (2, 2, 4, 4)
    with pytest.raises(UserError, match=r"backbone\."):  # of the latents, not of the pictures: 4x4 has too few levels
        wrong = {"multipliers": [1, 1, 1, 1]} if backbone == "unet" else {"patch": 8}
        Recipe.of({**sections, "backbone": small | wrong})


def test_a_threshold_of_pixels_is_refused(autoencoder: Path) -> None:
    for value in ("1.0", "dynamic"):
        with pytest.raises(UserError, match="sampling.clip: must be null, not"):
            recipe(autoencoder, sampling__clip=value).check()


def test_augmented_latents_are_refused(autoencoder: Path) -> None:
    with pytest.raises(UserError, match="data.augment: transforms pixels"):
        recipe(autoencoder, data__augment="0.1").check()


def test_an_autoencoder_in_latents_is_refused(autoencoder: Path) -> None:
    backbone = {"name": "autoencoder", "channels": 8, "multipliers": [1], "blocks": 1}
    data = LDM["data"] | {"autoencoder": str(autoencoder)}
    with pytest.raises(UserError, match="data.autoencoder: must be null"):
        Recipe.of({**LDM, "data": data, "backbone": backbone, "objective": "reconstruction"})


# ---- an autoencoder that is none ----


def refused(data: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the pictures are read."""
    monkeypatch.setattr(type(data), "load", lambda self: pytest.fail("the pictures were read"))
    with pytest.raises(UserError, match=message):
        ImageDomain().prepare(data)


def test_no_folder_and_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(
        Few(autoencoder=str(tmp_path / "no")), "data.autoencoder: there is no run .*--data.autoencoder", monkeypatch
    )
    refused(Few(autoencoder=str(tmp_path)), "is no run: its recipe.yaml cannot be read", monkeypatch)
    for text in ("{", "[]", "backbone: 3", "!!python/object/apply:os.system [true]", "backbone: {name: [1]}"):
        (tmp_path / "recipe.yaml").write_text(text)
        refused(Few(autoencoder=str(tmp_path)), "data.autoencoder: ", monkeypatch)


def test_runs_of_something_else(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(Few(autoencoder=str(run.folder)), "is not an autoencoder but a run of the backbone unet", monkeypatch)
    with pytest.raises(UserError, match="data.autoencoder: .* is not an autoencoder"):
        recipe(run.folder).check()


def test_pictures_of_another_shape(autoencoder: Path) -> None:
    sections = {**LDM, "data": {"name": "cifar10", "autoencoder": str(autoencoder)}}
    with pytest.raises(UserError, match="was trained on pictures of 1x8x8, these are 3x32x32"):
        Recipe.of(sections)


def test_weights_that_do_not_fit(autoencoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(autoencoder, copy)
    save_file({"network.encoder.0.weight": torch.zeros(2)}, copy / "weights.safetensors")
    refused(Few(autoencoder=str(copy)), r"weights\.safetensors: does not fit its network", monkeypatch)
    (copy / "weights.safetensors").unlink()
    refused(Few(autoencoder=str(copy)), "has not come to a first checkpoint", monkeypatch)


def test_latents_without_variance(autoencoder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(autoencoder, copy)
    run = Run.load(copy)
    with torch.no_grad():
        run.diffusion.network.moments[1].bias.fill_(torch.nan)
    run.save(copy)
    with pytest.raises(UserError, match="data.autoencoder: the latents of .* are not finite or all the same"):
        prepared(Few(autoencoder=str(copy)))


# ---- the command line ----


def test_an_option_finds_the_one_key_of_its_name(autoencoder: Path, tmp_path: Path) -> None:
    loaded = Recipe.load("image/fashion_ldm", {"autoencoder": "somewhere", "training.steps": "3", "lr": "0.5"})
    assert loaded.sections["data"]["autoencoder"] == "somewhere" and loaded.sections["training"]["lr"] == 0.5
    with pytest.raises(UserError, match=r"--steps: could be any of .*--sampling\.steps, --training\.steps"):
        Recipe.load("image/fashion_ldm", {"steps": "3"})
    with pytest.raises(UserError, match="autoencodr: unknown key"):
        Recipe.load("image/fashion_ldm", {"autoencodr": "x"})
