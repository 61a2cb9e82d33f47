"""The evaluation of a run from end to end, on models whose quality is known."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from diffusionkit.cli import look
from diffusionkit.core import DDIM, Categorical, Cosine, Diffusion, Gaussian, Linear, NoisyClassifier, RectifiedFlow
from diffusionkit.errors import UserError
from diffusionkit.image import features, plots
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import Digits
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.evaluate import chain_length
from diffusionkit.image.features import FILE, SmallClassifier, inception, judge
from diffusionkit.image.pictures import ImageData, Pictures, PictureSet
from diffusionkit.recipe import Sampling


class Untrained(nn.Module):
    """Says that the noise-free picture is a fixed grey."""

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        return torch.full_like(x, -0.4)

    def null(self, cond: Any, drop: torch.Tensor) -> Any:
        return cond


class Posterior(nn.Module):
    """The exact posterior mean of the pictures that it holds, those of one class if there is a class: the perfect copyist."""

    def __init__(self, pictures: torch.Tensor, labels: torch.Tensor, schedule: Cosine) -> None:
        super().__init__()
        self.pictures, self.labels, self.schedule = pictures, labels, schedule

    def forward(self, x: torch.Tensor, t: torch.Tensor, cond: Any = None) -> torch.Tensor:
        alpha, sigma = (v[:, None] for v in self.schedule(t))
        flat = self.pictures.flatten(1)
        distances = (x.flatten(1)[:, None] - alpha[..., None] * flat).square().sum(2) / (2 * sigma**2)
        if cond is not None:
            distances = distances.masked_fill(cond["class"][:, None] != self.labels, torch.inf)
        return ((-distances).softmax(1) @ flat).reshape(x.shape)


@dataclass
class Recipe:
    data: Any
    common: Sampling

    def build(self, section: str) -> Any:
        assert section == "data"
        return self.data

    def sampling(self) -> Sampling:
        return self.common


@dataclass
class FakeRun:
    folder: Path
    domain: ImageDomain
    codec: PixelCodec
    diffusion: Any
    recipe: Recipe
    step: int = 0

    def sampler(self) -> DDIM:
        return DDIM(steps=12)


def make(folder: Path, network: nn.Module, data: Any = None, objective: Any = None, process: Any = None) -> FakeRun:
    data = data or Digits()
    network.register_parameter("unused", nn.Parameter(torch.zeros(1)))
    diffusion = Diffusion(network, process or Gaussian(Cosine(), predict="x0"), objective).eval()
    codec = ImageDomain().prepare(data)[0]
    return FakeRun(folder, ImageDomain(), codec, diffusion, Recipe(data, Sampling(clip=1.0)))


def copyist(folder: Path, data: Any, part: str = "train") -> FakeRun:
    sets = ImageDomain().prepare(data)[1]
    batch = sets[part].batch(torch.arange(len(sets[part])))
    return make(folder, Posterior(batch.x, batch.cond["class"], Cosine()), data)


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_STEPS", 120)


class Tiny(Digits):
    """The first digits only, to be quick."""

    def load(self) -> dict[str, Pictures]:
        parts = super().load()
        return {name: Pictures(p.images[:400], p.labels[:400]) for name, p in parts.items()}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any]]:
    """A run that returns training pictures, and what is found."""
    torch.manual_seed(0)
    run = copyist(tmp_path_factory.mktemp("run"), Tiny())
    return run, run.domain.evaluate(run, n=100, levels=4, draws=6, inception="off")


def test_all_is_there_and_fits_json(copied: Any) -> None:
    run, found = copied
    assert {
        "n", "seed", "step", "device", "versions", "sampling", "seconds", "classifier", "data", "loss", "table", "pictures", "better",
        "bits_per_dimension", "frechet_classifier", "fid_inception", "precision", "recall", "nearest_training", "class_accuracy",
    } == set(found)  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["sampling"] | {"sampler": "DDIM", "steps": 12, "guidance": 1.0, "clip": 1.0} == found["sampling"]
    assert {row["measure"].strip() for row in found["table"]} > {
        "loss",
        "bits/dim",
        "L_T",
        "L_0",
        "recall",
        "near copies",
    }
    assert all(set(row) == {"measure", "model", "beside", "comment"} for row in found["table"])
    assert Image.open(run.folder / plots.EVALUATION).size[0] > 800
    assert not [path for path in run.folder.iterdir() if path.name.startswith(".")]


def test_copying_is_noticed(copied: Any) -> None:
    near = copied[1]["nearest_training"]
    assert near["copying"] is True
    assert near["samples"] == pytest.approx(0, abs=0.01)
    assert near["near_copies"]["samples"] > 0.9
    assert near["near_copies"]["held_out"] < 0.05
    assert any("it copies" in row["comment"] for row in copied[1]["table"])


def test_copies_look_real_and_are_of_their_class(copied: Any) -> None:
    found = copied[1]
    assert found["precision"]["samples"] > 0.75
    assert found["class_accuracy"]["samples"] > 0.85
    assert found["class_accuracy"]["chance"] == pytest.approx(0.1)
    assert found["frechet_classifier"]["samples"] < 3 * found["frechet_classifier"]["train"]


def test_overfitting_shows_in_the_loss_and_in_the_bound(copied: Any) -> None:
    found = copied[1]
    loss, bits = found["loss"], found["bits_per_dimension"]
    assert loss["objective"]["train"] < 0.7 * loss["objective"]["held_out"]
    assert loss["train"]["x0_mse"][0] < 0.1 * loss["held_out"]["x0_mse"][0]
    assert bits["train"]["total"] < bits["held_out"]["total"]


def test_the_terms_add_up(copied: Any) -> None:
    bits = copied[1]["bits_per_dimension"]
    for part in ("held_out", "train"):
        found = bits[part]
        assert found["total"] == pytest.approx(found["L_T"] + found["L_t"] + found["L_0"], rel=1e-5)
        assert found["L_t"] == pytest.approx(sum(found["L_t_per_interval"]))
        assert len(found["L_t_per_interval"]) == 6
    assert 0 < bits["independent_pixels"] < bits["uniform"] == pytest.approx(math.log2(17))


def test_errors_of_noise_and_picture_belong_together(copied: Any) -> None:
    loss = copied[1]["loss"]
    snr = torch.tensor(loss["log_snr"]).exp()
    for part in ("held_out", "train"):
        found = torch.tensor(loss[part]["x0_mse"]), torch.tensor(loss[part]["eps_mse"])
        torch.testing.assert_close(found[0] * snr, found[1], rtol=1e-4, atol=1e-9)
        # the objective of a network that predicts x0, plainly weighted, is the error in x0
        torch.testing.assert_close(torch.tensor(loss[part]["objective"]), found[0], rtol=1e-4, atol=1e-9)


def test_a_model_of_nothing_scores_badly_and_does_not_copy(tmp_path: Path) -> None:
    found = (run := make(tmp_path, Untrained(), Tiny())).domain.evaluate(run, n=60, levels=3, draws=3)
    assert found["precision"]["samples"] < 0.1
    assert found["recall"]["samples"] == 0
    assert found["class_accuracy"]["samples"] == pytest.approx(0.1, abs=0.05)
    assert found["frechet_classifier"]["samples"] > 5 * found["frechet_classifier"]["train"]
    assert not found["nearest_training"]["copying"]
    objective = found["loss"]["objective"]
    assert objective["train"] == pytest.approx(objective["held_out"], rel=0.1)


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_callers_alone(tmp_path: Path) -> None:
    run = make(tmp_path, Untrained(), Tiny())
    found = []
    for caller in (1, 2):
        torch.manual_seed(caller)
        state = torch.get_rng_state()
        measures = run.domain.evaluate(run, n=20, levels=2, draws=2)
        assert torch.equal(torch.get_rng_state(), state)
        found.append({k: v for k, v in measures.items() if k != "seconds"})
    assert found[0] == found[1]


def test_the_table_fits_a_terminal_of_80_columns(
    copied: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    look._table(copied[1])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(copied[1]["table"])  # no line is broken
    assert lines[0].split() == ["measure", "model", "beside", "comment"]


# ---- data without classes, mirrored, coloured


class Stripes(ImageData):
    """Rectangular colour pictures without classes, mirrored at random: stripes, brighter upwards."""

    shape, class_names = (3, 6, 10), None

    def load(self) -> dict[str, Pictures]:
        generator = torch.Generator().manual_seed(0)
        ramp = torch.linspace(240, 0, 6)[:, None].expand(60, 3, 6, 10)
        images = (ramp + 16 * torch.rand(60, 3, 6, 10, generator=generator)).to(torch.uint8)
        return {"train": Pictures(images[:40]), "test": Pictures(images[40:])}


def test_pictures_without_classes(tmp_path: Path) -> None:
    data = Stripes(flip=True)
    # A model of mirrored training pictures only: copies as well.
    mirrored = PictureSet(data.load()["train"], PixelCodec(data.shape), False).batch(torch.arange(40)).x.flip(3)
    run = make(tmp_path, Posterior(mirrored, torch.zeros(40), Cosine()), data)
    found = run.domain.evaluate(run, n=16, levels=2, draws=2)
    assert "class_accuracy" not in found
    assert found["classifier"] == {"task": "rotations", "outputs": 2, "accuracy": pytest.approx(1, abs=0.1)}
    assert found["nearest_training"]["copying"] is True
    assert found["bits_per_dimension"]["uniform"] == 8


# ---- the classifier


def sets() -> dict[str, Any]:
    return ImageDomain().prepare(Tiny())[1]


def trained(folder: Path, parts: dict[str, Any] | None = None) -> tuple[features.Judge, int]:
    steps: list[int] = []
    parts = parts or sets()
    found = judge(parts["train"], parts["test"], folder, torch.device("cpu"), lambda done, total: steps.append(done))
    return found, len(steps)


def test_the_classifier_is_stored_and_used_again_only_where_it_fits(tmp_path: Path) -> None:
    first, steps = trained(tmp_path)
    assert steps == 120
    assert first.accuracy > 0.8
    again, steps = trained(tmp_path)
    pictures = sets()["test"].pictures.images[:20]
    assert steps == 0
    assert again.accuracy == first.accuracy
    assert torch.equal(first.look(pictures)[0], again.look(pictures)[0])
    other = sets()
    other["train"].pictures.images[0, 0, 0, 0] += 1
    assert trained(tmp_path, other)[1] == 120
    (tmp_path / FILE).write_bytes(b"damaged")
    assert trained(tmp_path)[1] == 120


def test_features_do_not_depend_on_the_company_a_picture_is_in(tmp_path: Path) -> None:
    found, _ = trained(tmp_path)
    pictures = torch.randint(0, 256, (70, 1, 8, 8), dtype=torch.uint8)
    together, classes = found.look(pictures)
    alone, _ = found.look(pictures[13:14])
    order = torch.randperm(70)
    assert together.shape == (70, 64)
    torch.testing.assert_close(together[13:14], alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.look(pictures[order], batch_size=9)[0], together[order], rtol=1e-4, atol=1e-5)
    assert torch.equal(found.look(pictures[order])[1], classes[order])


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 5, 40), (4, 64, 64)])
def test_the_classifier_takes_any_shape(shape: tuple[int, int, int]) -> None:
    assert SmallClassifier(shape, 3)(torch.zeros(2, *shape, dtype=torch.uint8)).shape == (2, 3)


# ---- the chain of the bound


@pytest.mark.parametrize("schedule", [Linear(), Cosine()])
def test_published_chains_keep_their_length_for_256_levels(schedule: Any) -> None:
    assert chain_length(Gaussian(schedule), 2 / 255) == 1000


@pytest.mark.parametrize("levels", [2, 17, 64, 256])
@pytest.mark.parametrize("schedule", [Cosine(), RectifiedFlow()])
def test_the_first_step_is_no_finer_than_the_levels(schedule: Any, levels: int) -> None:
    process, bin = Gaussian(schedule), 2 / (levels - 1)
    steps = chain_length(process, bin)
    alpha, sigma = schedule(torch.tensor(1 / steps, dtype=torch.float64))
    assert steps == 2 or sigma >= alpha * bin / 2
    if 2 < steps < process.steps:
        alpha, sigma = schedule(torch.tensor(1 / (steps + 1), dtype=torch.float64))
        assert sigma < alpha * bin / 2 * 1.1


# ---- Inception


def test_inception_is_never_fetched_unasked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(features, "_inception", lambda path: pytest.fail("must not be loaded"))
    assert isinstance(said := inception("auto", torch.device("cpu")), str)
    assert said and "\n" not in said
    assert "off" in inception("off", torch.device("cpu"))


def test_inception_that_was_asked_for_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: SimpleNamespace())
    with pytest.raises(UserError, match="there is no file"):
        inception(str(tmp_path / "weights.pth"), torch.device("cpu"))
    (tmp_path / "weights.pth").write_bytes(b"damaged")
    with pytest.raises(UserError, match="failed"):
        inception(str(tmp_path / "weights.pth"), torch.device("cpu"))
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: None)
    for choice in ("download", str(tmp_path / "weights.pth")):
        with pytest.raises(UserError, match="torch-fidelity"):
            inception(choice, torch.device("cpu"))
    assert "torch-fidelity" in inception("auto", torch.device("cpu"))


@pytest.mark.slow
def test_fid_with_weights_that_lie_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of random weights: that it runs, keeps its own name and is 0 for equals."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    kept: dict[str, Any] = {}
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: kept)
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    torch.save(features._inception(None).state_dict(), tmp_path / features.INCEPTION)
    monkeypatch.undo()
    monkeypatch.setattr(features, "_STEPS", 20)
    run = make(tmp_path, Untrained(), Digits(holdout=0.01))
    found = run.domain.evaluate(run, n=8, levels=2, draws=2, inception=str(tmp_path / features.INCEPTION))
    fid = found["fid_inception"]
    assert {"samples", "train", "n", "n_train", "n_held_out"} == set(fid)
    assert fid["samples"] != found["frechet_classifier"]["samples"]
    assert fid["n"] == 8


# ---- refusals


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n": 7}, "-n: must be at least 8"),
        ({"levels": 0}, "--levels"),
        ({"draws": 0}, "--draws"),
        ({"chain": 1}, "--chain"),
    ],
)
def test_impossible_options(options: dict[str, int], said: str, tmp_path: Path) -> None:
    run = make(tmp_path, Untrained())
    with pytest.raises(UserError, match=said):
        run.domain.evaluate(run, **options)


def test_runs_that_cannot_be_evaluated(tmp_path: Path) -> None:
    def refused(run: FakeRun, said: str) -> None:
        with pytest.raises(UserError, match=said):
            run.domain.evaluate(run)

    refused(make(tmp_path, Untrained(), objective=NoisyClassifier()), "noisy classifier")
    refused(make(tmp_path, Untrained(), process=Categorical(17)), "Categorical")
    changed = make(tmp_path, Untrained())
    changed.codec = PixelCodec((1, 8, 8), ["a", "b"], 17)
    refused(changed, "data have changed")
    refused(make(tmp_path, Untrained(), Digits(holdout=0.001)), "needs 8 test pictures")


def test_a_diverged_run_is_named(tmp_path: Path) -> None:
    run = make(tmp_path, Untrained(), Tiny())
    run.diffusion.network.forward = lambda x, t, cond=None: x * torch.nan
    run.recipe.common = Sampling()
    with pytest.raises(UserError, match="not finite numbers"):
        run.domain.evaluate(run, n=8, levels=1, draws=1)


def test_numbers_on_the_screen() -> None:
    assert [plots.number(x) for x in (0.0, 1.2e-9, 0.0312, 0.2, 3.14159, 100.0, 1234.5, 3e9, None)] == [
        "0.000", "0.000", "0.031", "0.200", "3.14", "100", "1,234", "3e+09", "not finite",
    ]  # fmt: skip
