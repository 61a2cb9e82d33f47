"""A recipe becomes a run folder, which is found, resumed, loaded and refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from rich.console import Console

from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from tests.training.toys import QUIET, same

TINY = {
    "backbone.channels": "8",
    "backbone.multipliers": "[1]",
    "backbone.attention": "[]",
    "training.steps": "3",
    "training.batch_size": "8",
    "training.every": "2",
    "training.pictures": "4",
    "training.decay": "constant",
    "sampling.steps": "2",
}


def recipe(**further: str) -> Recipe:
    return Recipe.load("image/digits", {**TINY, **{key.replace("__", "."): value for key, value in further.items()}})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    console = Console(record=True, width=200, file=(tmp_path_factory.mktemp("log") / "log").open("w"))
    return fit(recipe(), tmp_path_factory.mktemp("runs") / "digits", console=console), console.export_text()


@pytest.fixture
def copy(made: tuple[Run, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made[0].folder, tmp_path / "digits"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_what_is_printed(made: tuple[Run, str]) -> None:
    run, text = made
    parameters = sum(p.numel() for p in run.diffusion.network.parameters())
    assert [line.split()[0] for line in text.splitlines()[:5]] == ["data", "network", "process", "run", "training"]
    assert f"unet, {parameters:,} parameters" in text and "gaussian, schedule cosine, predict v" in text
    assert "digits, 1," in text and "1 x 8 x 8" in text and "3 steps of 8 samples, 32-bit, on " in text
    assert f"look at {run.folder}/pictures/final.png" in text and f"diffusionkit sample {run.folder}" in text


def test_what_is_left(made: tuple[Run, str]) -> None:
    folder = made[0].folder
    names = {
        "recipe.yaml",
        "weights.safetensors",
        "weights_raw.safetensors",
        "last.ckpt",
        "metrics.csv",
        "environment.json",
    }
    assert names <= {path.name for path in folder.iterdir()}
    assert sorted(path.name for path in (folder / "pictures").iterdir()) == ["final.png", "step_000002.png"]
    assert [row["step"] for row in made[0].metrics()] == [1, 2, 3]


def test_a_loaded_run_is_the_run(made: tuple[Run, str]) -> None:
    run = Run.load(made[0].folder)
    assert same(run.diffusion, made[0].diffusion) and run.step == 3 and not run.diffusion.training
    assert run.recipe.sections == made[0].recipe.sections
    assert not same(run.diffusion, Run.load(made[0].folder, weights="raw").diffusion)
    x = run.sampler()(run.diffusion, like=run.codec.like(2), cond=run.domain.condition(run.codec, torch.arange(2)))
    assert x.shape == (2, 1, 8, 8) and x.isfinite().all()


def test_the_same_seed_gives_the_same_weights(made: tuple[Run, str], tmp_path: Path) -> None:
    torch.rand(3)
    assert same(fit(recipe(), tmp_path / "again", console=QUIET).diffusion, made[0].diffusion)
    assert not same(fit(recipe(seed="1"), tmp_path / "other", console=QUIET).diffusion, made[0].diffusion)


def test_a_finished_run_is_resumed_with_more_steps(copy: Path, tmp_path: Path) -> None:
    run = fit(recipe(training__steps="5"), copy, resume=True, console=QUIET)
    straight = fit(recipe(training__steps="5"), tmp_path / "straight", console=QUIET)
    assert same(run.diffusion, straight.diffusion) and [row["step"] for row in run.metrics()] == [1, 2, 3, 4, 5]
    assert Recipe.from_run(copy).sections["training"]["steps"] == 5


def test_the_next_free_folder_and_the_newest_run(here: Path) -> None:
    short = recipe(training__steps="1", training__pictures="0")
    assert fit(short, console=QUIET).folder == Path("runs/digits")
    assert fit(short, console=QUIET).folder == Path("runs/digits-2")
    assert fit(recipe(training__steps="2", training__pictures="0"), resume=True, console=QUIET).folder == Path(
        "runs/digits-2"
    )


def test_folders_that_are_refused(copy: Path, here: Path) -> None:
    with pytest.raises(UserError, match="holds a run already; continue it with --resume"):
        fit(recipe(), copy, console=QUIET)
    with pytest.raises(UserError, match="there is no run to resume"):
        fit(recipe(), here / "nothing", resume=True, console=QUIET)
    with pytest.raises(UserError, match="runs/digits: there is no run to resume"):
        fit(recipe(), resume=True, console=QUIET)
    (here / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        fit(recipe(), here / "file" / "run", console=QUIET)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backbone__channels": "16"}, "backbone.channels: 8, the recipe now says 16"),
        ({"process__predict": "eps"}, "process.predict: v, the recipe now says eps"),
        ({"training__accumulate": "2"}, "training.accumulate: 1, the recipe now says 2"),
        ({"seed": "4"}, "seed: 0, the recipe now says 4"),
    ],
)
def test_a_resumed_run_keeps_what_it_was_started_with(change: dict[str, str], words: str, copy: Path) -> None:
    with pytest.raises(UserError, match=words):
        fit(recipe(**change), copy, resume=True, console=QUIET)


def test_ctrl_c_shows_the_command_that_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, out: Path, **__: object) -> None:
        (out / "last.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr("diffusionkit.training.fitting.train", interrupted)
    console = Console(record=True, width=60, file=(tmp_path / "log").open("w"))
    with pytest.raises(KeyboardInterrupt):
        fit(recipe(), tmp_path / "my run", console=console)
    said = console.export_text()
    assert "diffusionkit train image/digits --backbone.attention '[]' --backbone.channels 8 " in said
    assert f"--out '{tmp_path}/my run' --resume\n" in said


@pytest.mark.parametrize("name", ["recipe.yaml", "weights.safetensors"])
def test_loading_names_what_is_missing(name: str, copy: Path) -> None:
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        Run.load(copy)


def test_loading_what_is_no_run(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such run folder"):
        Run.load(tmp_path / "nowhere")
    (copy / "weights.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match="weights.safetensors: damaged"):
        Run.load(copy)
