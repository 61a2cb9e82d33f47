"""`upscale`, `sample` over several runs and `evaluate` of one that enlarges, as typed; with runs that have hardly been trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffusionkit.image.resize import reduce
from diffusionkit.recipe import Recipe
from diffusionkit.training import fit
from tests.cli.words import call, fails

TINY = {
    "backbone.channels": "8",
    "backbone.attention": "[]",
    "training.steps": "2",
    "training.batch_size": "8",
    "training.pictures": "0",
    "sampling.steps": "3",
}
SR = TINY | {"data.smaller": "2", "data.noised": "30"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`base` draws 4x4 by class, `sr` makes 8x8 of it by class, `bare` without classes and without a null condition."""
    folder = tmp_path_factory.mktemp("runs")
    bare = SR | {"data.labels": "false", "objective.drop": "0", "sampling.guidance": "1"}
    for name, changes in {"base": TINY | {"data.reduce": "2"}, "sr": SR, "bare": bare}.items():
        fit(Recipe.load("image/digits", changes), folder / name, console=Console(quiet=True))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    y, x = np.mgrid[:9, :14]
    colours = np.stack([120 + 60 * np.sin(x / 3 + k) + 50 * np.cos(y / 4 - k) for k in range(3)], 2)
    Image.fromarray(colours.round().astype(np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(colours[..., 0].round().astype(np.uint8)).save(tmp_path / "grey.jpg")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    return tmp_path


def states(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.atleast_3d(np.asarray(Image.open(path))).copy()).permute(2, 0, 1)[None].float()


@pytest.mark.parametrize(
    ("words", "size"),
    [
        ("sr a.png", (28, 18)),
        ("bare a.png --factor 4 --tile 16 --tiles 3", (56, 36)),
        ("sr grey.jpg --class 3 --guidance 2 --steps 2 --noise 20 --clip 1", (28, 18)),
    ],
)
def test_one_picture_is_written_in_its_own_size(
    runs: Path, files: Path, words: str, size: tuple[int, int], capsys: pytest.CaptureFixture[str]
) -> None:
    name, picture, *rest = words.split()
    call(" ".join([f"upscale {runs}/{name} {files}/{picture}", *rest, f"--out {files}/o.png"]))
    assert capsys.readouterr().out.strip() == f"1 results in {files}/o.png"
    made = Image.open(files / "o.png")
    assert made.size == size and made.mode == ("L" if picture.startswith("grey") else "RGB")


def test_several_results_and_seeds(runs: Path, files: Path) -> None:
    call(f"upscale {runs}/bare {files}/a.png -n 2 --out {files}/o.npz")
    images = np.load(files / "o.npz")["images"]
    assert images.shape == (2, 18, 28, 3) and not (images[0] == images[1]).all()
    for name, seed in (("x", 5), ("y", 5), ("z", 6)):
        call(f"upscale {runs}/bare {files}/a.png --seed {seed} --out {files}/{name}.png")
    x, y, z = ((files / f"{name}.png").read_bytes() for name in "xyz")
    assert x == y != z


def test_consistent_results_are_so_in_the_file(runs: Path, files: Path) -> None:
    off = {}
    for words in ("--consistent", ""):
        call(f"upscale {runs}/bare {files}/a.png {words} --out {files}/o.png")
        off[words] = float((reduce(states(files / "o.png"), 2) - states(files / "a.png")).abs().mean())
    assert off["--consistent"] < 0.1 * off[""]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("upscale R/sr a.png more.png", "upscale takes run, picture, and not"),
        ("upscale R/sr none.png", "none.png: there is no such file"),
        ("upscale R/sr broken.png", "broken.png: is no picture that can be read"),
        ("upscale R/sr a.png --factor 3", "--factor: this model enlarges by 2, so it can be 2, 4, 8, ..., not 3"),
        ("upscale R/sr a.png --factor two", "--factor: must be an integer or null, not 'two'"),
        ("upscale R/sr a.png --noise 40", "--noise: must lie between 0 and 30"),
        ("upscale R/base a.png", "this run was not trained to enlarge pictures"),
    ],
)
def test_upscaling_is_refused_before_the_network_is_read(
    runs: Path,
    files: Path,
    line: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    shutil.copytree(runs, files / "R", ignore=shutil.ignore_patterns("weights*"))
    assert expected in fails(line, capsys)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("upscale R/sr a.png --factr 2", "unknown option --factr; did you mean '--factor'?"),
        ("upscale R/bare a.png --class 3", "this model was trained without classes"),
        ("upscale R/sr a.png -n 0", "-n: at least one result, not 0"),
        ("sample R/base R/base", "R/base: does not enlarge pictures, so it cannot come after R/base"),
        ("sample R/base R/sr R/sr", "R/sr: enlarges pictures of 4x4, those of R/sr are 8x8"),
        (
            "sample R/base R/sr --noise 31",
            "--noise: must lie between 0 and 30, with which this model was trained, not 31",
        ),
        ("sample R/base --noise 3", "--noise: this model is shown no smaller pictures"),
        ("sample R/base R/sr --class eleven", "class"),
        ("sample R/base none", "none: there is no such run folder"),
        ("sample R/base R/sr --recipe R/sr/recipe.yaml", "--recipe: belongs to a single run, and several are given"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_written(
    runs: Path,
    files: Path,
    line: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    (files / "R").symlink_to(runs)
    before = set(files.iterdir()) | set(runs.rglob("*"))
    assert expected in fails(line, capsys)
    assert set(files.iterdir()) | set(runs.rglob("*")) == before


@pytest.mark.parametrize("last", ["sr", "bare"])
def test_a_cascade_is_one_call(runs: Path, files: Path, last: str, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"sample {runs}/base {runs}/{last} -n 5 --class 3 --batch-size 2"
    for name, more in (("x", ""), ("y", ""), ("z", "--noise 25")):
        call(f"{line} {more} --out {files}/{name}.npz")
    assert f"5 samples in {files}/z.npz" in capsys.readouterr().out
    x, y, z = (np.load(files / f"{name}.npz")["images"] for name in "xyz")
    assert x.shape == (5, 8, 8, 1) and (x == y).all() and not (x == z).all()
    call(f"sample {runs}/{last} -n 12")  # enlarges pictures that were held out
    assert (runs / last / "samples.png").is_file()


def test_evaluation_sets_it_beside_bicubic_enlargement(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"evaluate {runs}/sr -n 20 --steps 2")
    found = json.loads((runs / "sr" / "metrics.json").read_text())
    for name in ("psnr", "ssim", "consistency"):
        assert found[name]["bicubic"] > found[name]["enlarged"]  # of a model that has learned nothing
    assert found["consistency"]["held"] > found["consistency"]["bicubic"]
    assert found["frechet_classifier"]["n"] == 20
    assert 0 < found["frechet_classifier"]["train"] < found["frechet_classifier"]["enlarged"]
    assert (runs / "sr" / "evaluation.png").is_file()
    assert "enlarged by 2 from" in " ".join(capsys.readouterr().out.split())


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    call("upscale --help")
    printed = capsys.readouterr().out
    words = [
        "--factor",
        "--noise",
        "--consistent",
        "--tile",
        "--tiles",
        "--class",
        "-n",
        "--out",
        "--sampler",
        "--seed",
    ]
    assert [word for word in [*words, "Example: ", "[default: 1]"] if word not in printed] == []
