"""The measuring of Fashion-MNIST: what is compared is what is said."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import image_quality
from benchmarks.image_quality import CALLS, SAMPLERS, Judge, _half_figures, _halves, drawn, main
from diffusionkit.core import DDIM

needs_fashion = pytest.mark.skipif(
    not (Path(os.environ.get("DIFFUSIONKIT_DATA", "/nowhere")) / "image/FashionMNIST").is_dir(),
    reason="Fashion-MNIST is not at hand: set DIFFUSIONKIT_DATA",
)


class Asked:
    """A network that notes how often it is asked, and sees noise everywhere."""

    def __init__(self, run):
        self.network, self.calls = run.diffusion.network, 0
        run.diffusion.network.register_forward_hook(self.count)

    def count(self, *_):
        self.calls += 1


@pytest.fixture
def run():
    from diffusionkit.recipe import Recipe
    from diffusionkit.training.run import assemble

    recipe = Recipe.load("image/digits").override({"backbone.channels": "8", "backbone.multipliers": "[1]"})
    codec, _ = recipe.domain.prepare(recipe.build("data"))
    return Namespace(diffusion=assemble(recipe, codec).eval(), codec=codec, recipe=recipe)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("calls", CALLS[:3])
def test_every_sampler_has_the_same_number_of_evaluations(run, name, calls):
    make, cost = SAMPLERS[name]
    asked = Asked(run)
    pictures, classes = drawn(run, 10, make(max(1, calls // cost)), 1.0, 0)
    assert calls - cost <= asked.calls <= calls
    assert pictures.shape == (10, 1, 8, 8) and classes.tolist() == list(range(10))


def test_the_same_seed_draws_the_same(run):
    first, again, other = (drawn(run, 4, DDIM(2), 1.5, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


@needs_fashion
def test_a_picture_left_alone_has_no_error_and_its_own_class(tmp_path, monkeypatch):
    from diffusionkit.image import features

    monkeypatch.setattr(features, "_STEPS", 2)
    judge = Judge(tmp_path)
    pictures, labels, given = _halves(judge, 20)
    assert given[:14].all() and not given[14:].any()
    same = _half_figures(judge, pictures, pictures, labels)
    other = _half_figures(judge, pictures.flip(0), pictures, labels)
    assert same["rmse"] == 0 < other["rmse"]
    real, classes = judge.real(20)
    assert torch.equal(real, judge.real(20)[0]) and classes.shape == (20,)


def test_a_part_that_there_is_not_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["nothing"])
    assert "latent, guidance, samplers, repaint" in capsys.readouterr().err


def test_the_pictures_for_the_docs_are_drawn(tmp_path):
    rows = [(scale, {"frechet": 1.0, "accuracy": 0.5, "precision": 0.6, "recall": 0.7}) for scale in (0.0, 1.0)]
    image_quality._guidance_picture(rows, rows[0][1], tmp_path / "deep" / "guidance.png")
    assert (tmp_path / "deep" / "guidance.png").stat().st_size > 1000
