"""`inpaint`, `edit` and `restore` as typed, with a run of handwritten digits that has hardly been trained."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from diffusionkit.cli import app
from diffusionkit.domain import Domain, domains
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training import fit
from diffusionkit.training.edit import function
from tests.cli.words import call, fails

TINY = {
    "backbone.channels": "8",
    "training.steps": "2",
    "training.batch_size": "8",
    "training.pictures": "0",
    "sampling.steps": "3",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("edit") / "run"
    fit(Recipe.load("image/digits", TINY), folder, console=Console(quiet=True))
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    values = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values[:4, :4]).save(tmp_path / "small.png")
    hole = np.zeros((8, 8), np.uint8)
    hole[:, 4:] = 255
    Image.fromarray(hole).save(tmp_path / "m.png")
    Image.fromarray(hole[:4]).save(tmp_path / "low.png")
    return tmp_path


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("method", ["repaint", "replace", "posterior"])
def test_inpaint_keeps_what_is_known_bit_by_bit(
    run: Path, files: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call(
        f"inpaint {run} {files}/a.png {files}/m.png -n 3 --method {method} --resample 2 --jump 2 --class 4 --out {files}/o/"
    )
    assert capsys.readouterr().out.strip() == f"3 results in {files}/o"
    found = [read(path) for path in sorted((files / "o").iterdir())]
    assert [picture.shape for picture in found] == [(8, 8)] * 3
    assert all((picture[:, :4] == read(files / "a.png")[:, :4]).all() for picture in found)
    assert not (found[0][:, 4:] == found[1][:, 4:]).all()


def test_the_same_seed_gives_the_same_file_and_one_result_its_own_size(run: Path, files: Path) -> None:
    for name, seed in (("x", 5), ("y", 5), ("z", 6)):
        call(f"edit {run} {files}/a.png -n 1 --strength 0.7 --steps 4 --seed {seed} --out {files}/{name}.png")
    x, y, z = ((files / f"{name}.png").read_bytes() for name in "xyz")
    assert x == y != z and read(files / "x.png").shape == (8, 8)
    call(f"edit {run} {files}/a.png --coarse 4 --reference {files}/m.png --sampler ddpm --steps 3")
    assert Image.open(run / "edit.png").size == (2 * 66 + 2, 2 * 66 + 2)


@pytest.mark.parametrize(
    "words",
    [
        "small.png --operator downsample:2",
        "a.png --operator blur:0.8 --noise 5 --method pigdm",
        "a.png --operator mask:m.png --guidance 2 --class 3",
        "a.png --operator blur:0.8,downsample:2 --degrade --method dps --scale 0.3",
        "m.png --operator identity --noise 30 --sampler dpmpp --steps 4 --order 3",
    ],
)
def test_restore_takes_what_was_seen(run: Path, files: Path, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(files)
    call(f"restore {run} {words} -n 2 --batch-size 1 --out o.npz")
    assert np.load("o.npz")["images"].shape == (2, 8, 8, 1)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("inpaint RUN a.png", "requires an argument"),
        ("inpaint RUN a.png m.png more.png", "inpaint takes run, picture, mask, and not"),
        ("inpaint RUN a.png low.png", "low.png: is of 4x8 pixels, it must be of 8x8; --fit cuts and resizes it"),
        ("inpaint RUN none.png m.png", "none.png: there is no such file"),
        (
            "inpaint RUN a.png m.png --method paint",
            "--method: must be 'repaint' or 'replace' or 'posterior', not 'paint'",
        ),
        ("inpaint RUN a.png m.png --resample many", "--resample: must be an integer, not 'many'"),
        ("edit RUN a.png --strength 2", "--strength: must lie above 0 and not above 1, not 2"),
        ("restore RUN a.png", "--operator is missing"),
        ("restore RUN a.png --operator downsample:2", "a.png: is of 8x8 pixels, it must be of 4x4"),
    ],
)
def test_files_are_refused_before_the_network_is_read(
    run: Path,
    files: Path,
    line: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    shutil.copytree(run, files / "bare", ignore=shutil.ignore_patterns("weights*"))  # a run whose weights are missing
    assert expected in fails(line.replace("RUN", "bare"), capsys)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("edit RUN a.png --strenght 0.5", "unknown option --strenght; did you mean '--strength'?"),
        ("edit RUN a.png --resample 3", "unknown option --resample"),
        ("edit RUN a.png --class eleven", "class"),
        ("edit RUN a.png --sampler dim", "unknown name 'dim'; did you mean 'ddim'?"),
        ("edit RUN a.png --out o.tiff", "unknown ending '.tiff'"),
        ("edit RUN a.png -n 0", "-n: at least one result, not 0"),
        ("edit nowhere a.png", "nowhere is no run"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_run_is_refused(
    run: Path,
    files: Path,
    line: str,
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(files)
    before = set(files.iterdir())
    assert expected in fails(line.replace("RUN", str(run)), capsys)
    assert set(files.iterdir()) == before


def test_a_model_that_knows_no_null_condition_wants_one_named(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(Recipe.load("image/digits", {**TINY, "objective.drop": "0"}), tmp_path / "run", console=Console(quiet=True))
    assert "objective.drop 0" in fails(f"edit {tmp_path}/run {files}/a.png", capsys)
    call(f"edit {tmp_path}/run {files}/a.png --class 3 --out {tmp_path}/o.png")
    assert (tmp_path / "o.png").is_file()


def test_domains_without_edits_say_so(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert not domains()["tabular"].edits
    (files / "run").mkdir()
    text = (Path(__file__).parents[2] / "domains" / "tabular" / "csv.yaml").read_text()
    (files / "run" / "recipe.yaml").write_text(text)
    said = fails(f"edit {files}/run {files}/a.png", capsys)
    assert "edit: not for runs of the domain tabular: use `sample --where`" in said


@pytest.mark.parametrize("domain", domains().values(), ids=lambda domain: domain.name)
def test_every_edit_is_there_or_its_refusal_says_what_to_do(domain: Domain) -> None:
    for name in ("inpaint", "edit", "restore", "upscale", "dock"):
        if name in domain.edits:
            assert callable(function(domain, name)) and name not in domain.instead
        else:
            with pytest.raises(UserError, match=re.escape(domain.instead[name])):
                function(domain, name)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("inpaint", ["RUN", "PICTURE", "MASK", "--resample", "--jump", "--method", "--fit", "--class"]),
        ("edit", ["RUN", "PICTURE", "--strength", "--coarse", "--reference", "--until"]),
        ("restore", ["RUN", "PICTURE", "--operator", "--noise", "--method", "--scale", "--iterations", "--degrade"]),
    ],
)
def test_help_names_every_option(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command in list(app)
    call(f"{command} --help")
    printed = capsys.readouterr().out
    shared = ["-n", "--out", "--sampler", "--guidance", "--clip", "--seed", "--batch-size", "--device", "--recipe"]
    assert [word for word in [*words, *shared, "Example: "] if word not in printed] == []


@pytest.mark.parametrize(
    ("words", "eta"), [("", 1.0), ("--eta 0.3", 0.3), ("--sampler ddim", 0.0), ("--sampler dpmpp --eta 1", 1.0)]
)
def test_steps_are_ancestral_unless_told_otherwise(
    run: Path, files: Path, words: str, eta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(
        "diffusionkit.training.edit.edit", lambda *args, sampler, **more: asked.append(sampler.eta) or files
    )
    call(f"edit {run} {files}/a.png {words}")
    assert asked == [eta]


def test_a_recipe_whose_sampler_knows_no_noise_is_edited_by_ddim(
    run: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, asked = files / "heun", []
    shutil.copytree(run, other)
    Recipe.from_run(run).resample("heun").save(other / "recipe.yaml")
    monkeypatch.setattr(
        "diffusionkit.training.edit.edit",
        lambda *args, sampler, **more: asked.append((type(sampler).__name__, sampler.eta)) or files,
    )
    for words in ("", "--sampler heun"):
        call(f"edit {other} {files}/a.png {words}")
    assert asked == [("DDIM", 1.0), ("Heun", 0.0)]
