"""The measuring of Fashion-MNIST: what is compared is what is said."""

import os
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from benchmarks import image_cascade, image_quality
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
    return untrained("image/digits")


def untrained(name, **settings):
    from diffusionkit.recipe import Recipe
    from diffusionkit.training.run import assemble

    recipe = Recipe.load(name).override({"backbone.channels": "8", "backbone.multipliers": "[1]", **settings})
    codec, _ = recipe.domain.prepare(recipe.build("data"))
    made = Namespace(diffusion=assemble(recipe, codec).eval(), codec=codec, recipe=recipe, step=0)
    made.sampler = lambda: recipe.build("sampling")
    return made


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


def test_the_second_model_of_a_cascade_is_shown_the_pictures_of_the_first():
    large = untrained("image/fashion_sr", **{"data.name": "digits", "data.noised": "30"})
    asked, seen = Asked(large), []
    large.diffusion.network.register_forward_hook(lambda _, given, __: seen.append(given[2]))
    small = torch.arange(4 * 16, dtype=torch.uint8).reshape(4, 1, 4, 4) * 4
    found = image_cascade.made_larger(large, small, torch.arange(4), 10.0, 0, batch=2)
    assert found.shape == (4, 1, 8, 8) and found.dtype == torch.uint8
    assert asked.calls == 2 * large.sampler().steps
    low = torch.cat([seen[0]["low"], seen[-1]["low"]])  # enlarged and noised, in the order of the pictures
    brightness = (low.mean((1, 2, 3)) + 1) * 127.5
    assert torch.allclose(brightness, small.float().mean((1, 2, 3)), atol=25)
    assert seen[0]["low_noise"].tolist() == pytest.approx([10 / 127.5] * 2)


def test_what_enlarged_pictures_have_to_reach():
    plain = {"frechet": 16.0, "psnr": 19.0}
    assert image_cascade.verdict({"frechet": 0.2, "psnr": 18.5}, plain).count("MISSED") == 0
    assert image_cascade.verdict({"frechet": 17.0, "psnr": 17.5}, plain).count("MISSED") == 2


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
    assert "latent, guidance, samplers, repaint, cascade" in capsys.readouterr().err


def test_the_pictures_for_the_docs_are_drawn(tmp_path):
    rows = [(scale, {"frechet": 1.0, "accuracy": 0.5, "precision": 0.6, "recall": 0.7}) for scale in (0.0, 1.0)]
    image_quality._guidance_picture(rows, rows[0][1], tmp_path / "deep" / "guidance.png")
    assert (tmp_path / "deep" / "guidance.png").stat().st_size > 1000


def test_models_whose_figures_are_there_are_not_trained(monkeypatch, capsys):
    figures = {"frechet": 1.0, "precision": 0.9, "recall": 0.8, "accuracy": 0.7, "steps": 3}
    asked = []

    def get(name, make):  # all is there but what goes through the autoencoder
        if name.startswith("latent/real ones"):
            make()
        return make() if name == "latent/cost" else figures

    monkeypatch.setattr(image_quality, "Judge", lambda _: None)
    monkeypatch.setattr(image_quality, "model", lambda name, *settings: asked.append((name, *settings[1:])))
    monkeypatch.setattr(image_quality, "_decoded", lambda *_: figures)
    steps = lambda recipes: {name: int(settings.get("training.steps", 0)) for name, settings in recipes.items()}  # noqa: E731
    monkeypatch.setattr(image_quality, "_cost", lambda recipes: {"minutes": {"fashion": 2.0}, "steps": steps(recipes)})
    options = Namespace(models="here", pixel_steps=7, dit=False, seeds=[0], n=10)
    image_quality.latent(Namespace(get=get), options)
    assert asked == [("fashion_vae",), ("fashion_ldm", {"data.autoencoder": "here/fashion_vae"})]
    assert "fashion: 3 steps are 2.0 minutes" in capsys.readouterr().out


def test_the_cost_of_a_recipe_is_its_steps_by_the_time_of_one():
    settings = {"backbone.channels": "8", "training.batch_size": "4"}
    few, many = (image_quality._cost({"digits": {**settings, "training.steps": n}}, 3) for n in ("5", "5000"))
    assert few["steps"] == {"digits": 5} and many["steps"] == {"digits": 5000}
    assert 0 < few["minutes"]["digits"] < many["minutes"]["digits"]
