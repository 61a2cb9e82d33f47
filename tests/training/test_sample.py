"""What is drawn from a run: files, walks, pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffusionkit.core import DDIM, DDPM
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from diffusionkit.training.interpolate import interpolate
from diffusionkit.training.plot import plot
from diffusionkit.training.sample import sample

TINY = {
    "backbone.channels": "8",
    "training.steps": "3",
    "training.batch_size": "8",
    "training.pictures": "0",
    "sampling.steps": "3",
}


def make(tmp_path_factory, name: str, recipe: str = "image/digits", **overrides: str) -> Run:
    folder = tmp_path_factory.mktemp(name) / "run"
    fit(Recipe.load(recipe, {**TINY, **overrides}), folder, console=Console(quiet=True))
    return Run.load(folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return make(tmp_path_factory, "classes")


@pytest.fixture(scope="module")
def unconditional(tmp_path_factory) -> Run:
    return make(tmp_path_factory, "plain", **{"data.labels": "false"})


@pytest.fixture(scope="module")
def classifier(tmp_path_factory) -> Run:
    return make(tmp_path_factory, "classifier", "image/digits_classifier")


def test_same_seed_and_batch_size_give_the_same_bytes(run, tmp_path):
    files = []
    for i, (seed, batch) in enumerate([(0, 4), (0, 4), (1, 4)]):
        files.append(sample(run, 7, tmp_path / f"{i}.npz", seed=seed, batch_size=batch).read_bytes())
    assert files[0] == files[1] and files[0] != files[2]


def test_batches_follow_one_another_without_a_gap(run, tmp_path):
    asked = []
    condition = run.domain.condition
    run.domain.condition = lambda codec, indices, **options: (
        asked.append(indices.tolist()) or condition(codec, indices, **options)
    )
    sample(run, 7, tmp_path / "a.npz", batch_size=3)
    del run.domain.condition
    assert [i for part in asked[1:] for i in part] == list(range(7))
    assert np.load(tmp_path / "a.npz")["images"].shape == (7, 8, 8, 1)


def test_a_run_draws_into_its_own_folder_by_default(run):
    path = sample(run, 20, batch_size=20)
    assert path == run.folder / "samples.png" and Image.open(path).width == 10 * 66 + 2


def test_nothing_is_drawn_before_everything_is_right(run, unconditional, classifier, tmp_path):
    class Never(DDIM):
        def __call__(self, *args, **kwargs):
            pytest.fail("the sampler was called")

    for settings, word in [
        ({"condition": {"class_": "eleven"}}, "class"),
        ({"out": tmp_path / "a.tiff"}, "ending"),
        ({"classifier": run.folder}, "no noisy classifier"),
        ({"classifier": tmp_path}, "no run"),
    ]:
        with pytest.raises(UserError, match=word):
            sample(run, 2, **{"out": tmp_path / "a.png", "sampler": Never(1), **settings})
    with pytest.raises(UserError, match="at least one"):
        sample(run, 0, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_a_classifier_steers_a_model_without_classes(unconditional, classifier, tmp_path):
    files = [
        sample(
            unconditional, 4, tmp_path / f"{k}.npz", classifier=classifier.folder, guidance=3.0, condition={"class_": k}
        ).read_bytes()
        for k in (1, 7)
    ]
    assert files[0] != files[1]
    with pytest.raises(UserError, match="without classes"):
        sample(unconditional, 4, tmp_path / "b.npz", condition={"class_": 1})


def test_walks_start_and_end_at_plain_samples(run, tmp_path):
    path = interpolate(run, 2, 5, tmp_path / "walk.png", sampler=DDIM(3))
    assert Image.open(path).size == (5 * 66 + 2, 2 * 66 + 2)
    same = interpolate(run, 2, 5, tmp_path / "again.png", sampler=DDIM(3))
    assert same.read_bytes() == path.read_bytes()
    real = interpolate(run, 2, 3, tmp_path / "real.png", real=True)
    assert Image.open(real).size == (3 * 66 + 2, 2 * 66 + 2)


def test_walks_refuse_noise_and_nonsense(run):
    with pytest.raises(UserError, match="without randomness"):
        interpolate(run, 2, 5, sampler=DDPM(3))
    with pytest.raises(UserError, match="2 points"):
        interpolate(run, 2, 1)
    with pytest.raises(UserError, match="held-out samples"):
        interpolate(run, 500, 3, real=True)


def test_pictures_of_a_run(run):
    paths = plot(run, n=3, frames=4)
    assert [path.name for path in paths] == ["loss.png", "forward.png", "denoising.png", "estimates.png"]
    for path in paths[1:]:
        assert Image.open(path).size == (4 * 66 + 2, 3 * 66 + 2)
    # The forward chain begins with the data themselves.
    _, parts = run.domain.prepare(run.recipe.build("data"))
    first = run.codec.decode(parts["test"].batch(torch.arange(1)).x)[0, 0]
    drawn = np.asarray(Image.open(paths[1]).convert("L"))[2:66, 2:66].reshape(8, 8, 8, 8)[:, 0, :, 0]
    assert np.array_equal(drawn, first.numpy())
