"""Every recipe that ships is built, and trained for one step on a few of its pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rich.console import Console

from diffusionkit.core import Diffusion
from diffusionkit.recipe import Recipe, find, listing
from diffusionkit.training import train

NAMES = [name for name, _ in listing()]


@pytest.fixture
def recipe(request, tmp_path) -> Recipe:
    """The recipe; where it needs a folder of the user's, one with two classes of random pictures."""
    if request.param != "image/folder":
        return Recipe.load(request.param)
    from PIL import Image

    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(4):
            Image.fromarray(random.integers(0, 255, (70, 80, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    return Recipe.load(request.param, {"data.path": str(tmp_path)})


@pytest.mark.parametrize("recipe", NAMES, indirect=True)
def test_recipe_builds_and_trains_one_step(recipe):
    recipe.check()
    data = recipe.build("data")
    known = {"shape": data.shape, "classes": data.classes}
    process = recipe.build("process")
    network = recipe.build("backbone", **known, outputs=process.outputs)
    diffusion = Diffusion(network, process, recipe.build("objective"))
    x, cond = torch.rand(2, *data.shape) * 2 - 1, None
    if data.classes:
        cond = {"class": torch.tensor([0, 1])}
    before = [p.detach().clone() for p in diffusion.parameters()]
    rows = train(diffusion, (x, cond), steps=1, batch_size=2, warmup=0, console=Console(quiet=True))
    assert len(rows) == 1 and np.isfinite(rows[0]["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, diffusion.parameters(), strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_recipe_says_in_two_lines_what_to_expect(name):
    text = find(name).read_text("utf-8").splitlines()
    assert text[0].startswith("# ") and text[1].startswith("# ") and not text[2].startswith("#")


def test_every_recipe_is_listed_with_its_line():
    assert {"image/digits", "image/mnist", "image/fashion", "image/cifar", "image/folder"} <= set(NAMES)
    assert all(line for _, line in listing())


def test_ho_et_al_is_reproduced_in_size():
    """35.7 M parameters (Ho et al. 2020, appendix B)."""
    recipe = Recipe.load("image/cifar")
    data = recipe.build("data")
    with torch.device("meta"):
        network = recipe.build("backbone", shape=data.shape, classes=data.classes, outputs=1)
    assert sum(p.numel() for p in network.parameters()) == 35_746_307
