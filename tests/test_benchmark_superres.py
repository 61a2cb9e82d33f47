"""The measuring of enlarged photographs: what agrees with its input does so, and bicubic enlargement has its known figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.cells import read
from benchmarks.superres import WAYS, main
from diffusionkit.recipe import Recipe
from diffusionkit.training.run import Run, assemble


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """An untrained run that enlarges by 2, and a photograph of waves."""
    from diffusionkit.image.codec import PixelCodec
    from diffusionkit.image.smaller import Smaller

    folder = tmp_path_factory.mktemp("superres")
    recipe = Recipe.load("image/cifar_sr").override({"backbone.channels": "8", "sampling.steps": "2"})
    codec = PixelCodec((3, 32, 32), smaller=Smaller(2, 20.0, torch.zeros(1, 3, 16, 16, dtype=torch.uint8)))
    Run(folder / "run", recipe, recipe.domain, codec, assemble(recipe, codec).eval(), 0).save(folder / "run")
    y, x = np.mgrid[:41, :50]
    waves = np.stack([128 + 100 * np.sin(y / 5) * np.cos(x / 7 + k) for k in range(3)], -1)
    (folder / "photos").mkdir()
    Image.fromarray(waves.astype(np.uint8)).save(folder / "photos" / "waves.png")
    return folder


def test_what_is_made_to_agree_agrees_and_smooth_waves_are_enlarged_well(place, capsys):
    words = [str(place / "run"), "--folder", str(place / "photos"), "--out", str(place)]
    means = main(words)
    (cell,) = read(place / "image_superres.json").values()
    assert cell["ways"] == means, "one photograph"
    assert set(means) == set(WAYS) and means["bicubic"]["psnr"] > 35
    assert means["bicubic, consistent"]["consistency"] > 60  # up to rounding
    # An untrained run leaves the range of brightness, and is cut there after it was made to agree.
    assert means["ours"]["consistency"] + 15 < means["ours, consistent"]["consistency"]
    assert means["ours"]["psnr"] < means["ours, consistent"]["psnr"] < means["bicubic"]["psnr"]
    assert main([*words, "--pictures", str(place)]) == means
    assert Image.open(place / "superres.png").size[0] > 100
    said = capsys.readouterr().out
    assert "mean bicubic" in said and "measured already" in said


def test_an_empty_folder_is_named(place, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([str(place / "run"), "--folder", str(tmp_path)])
    assert f"{tmp_path}: holds no pictures" in capsys.readouterr().err
