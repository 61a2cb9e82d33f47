"""`sample` with words as typed: a model with a text encoder, one without that is steered, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffusionkit.image.captions import CaptionedFolder
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from tests.cli.words import call, fails

UNET = {"name": "unet", "channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": [4]}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text model, one without text, and an image-text model, of ten grey pictures."""
    folder = tmp_path_factory.mktemp("prompts")
    (folder / "data").mkdir()
    for i in range(20):
        Image.fromarray(np.full((8, 8, 3), 12 * i, np.uint8)).save(folder / "data" / f"{i}.png")
        (folder / "data" / f"{i}.txt").write_text(f"grey number {i}")
    data = {"name": "captioned", "path": str(folder / "data"), "size": 8, "length": 12, "holdout": 0.4}
    shared = {
        "domain": "image",
        "process": {"name": "gaussian", "schedule": "cosine", "predict": "v"},
        "training": {"steps": 2, "batch_size": 8, "pictures": 0},
    }
    words = {
        "backbone": UNET,
        "objective": {"name": "simple", "drop": 0.1},
        "sampling": {"sampler": "ddim", "steps": 2},
    }
    clip = {"backbone": {"name": "clip", "channels": 8, "multipliers": [1, 2]}, "objective": {"name": "contrastive"}}
    kinds = {"text": ({}, words), "plain": ({"labels": False}, {**words, "objective": "simple"}), "clip": ({}, clip)}
    for name, (more, sections) in kinds.items():
        recipe = Recipe.of({**shared, "data": {**data, **more}, **sections})
        fit(recipe, folder / name, console=Console(quiet=True))
    return folder


def test_a_prompt_is_drawn_and_written_beside_the_picture(runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        words = {
            "--prompt": "a (grey:1.5) thing",
            "--negative": "number",
            "--guidance": "4",
            "--out": f"{tmp_path}/{name}.png",
        }
        call(["sample", f"{runs}/text", "-n", "3", *(word for pair in words.items() for word in pair)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.txt").read_text() == "a (grey:1.5) thing\n" * 3


def test_a_folder_of_samples_is_a_captioned_folder(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("grey\nnumber 3\n")
    call(f"sample {runs}/text -n 4 --prompts {tmp_path}/p.txt --out {tmp_path}/drawn/")
    found = CaptionedFolder(f"{tmp_path}/drawn", size=8, holdout=0.25).load()
    assert (
        sorted(text for part in found.values() for each in part.captions for text in each)
        == ["grey"] * 2 + ["number 3"] * 2
    )
    call(f"sample {runs}/text -n 2 --out {tmp_path}/held.npz")
    assert (tmp_path / "held.txt").read_text().splitlines() == Run.load(runs / "text").codec.text.examples[:2]


def test_an_image_text_model_steers_one_without_words(runs: Path, tmp_path: Path) -> None:
    for scale in (0, 200):
        call(
            f"sample {runs}/plain -n 2 --prompt grey --clip-model {runs}/clip --clip-guidance {scale} --out {tmp_path}/{scale}.png"
        )
    call(f"sample {runs}/plain -n 2 --out {tmp_path}/free.png")
    free, none, much = ((tmp_path / f"{name}.png").read_bytes() for name in ("free", 0, 200))
    assert free == none != much and (tmp_path / "200.txt").read_text() == "grey\n" * 2
    assert not (tmp_path / "free.txt").exists()
    call(f"sample {runs}/text -n 2 --prompt grey --clip-model {runs}/clip --guidance 2 --out {tmp_path}/both.png")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("sample {}/plain --prompt grey", "--prompt: 'grey' was asked for, but this model was trained without text"),
        ("sample {}/text --prompt (grey", "does not close a bracket"),
        ("sample {}/text --prompts nowhere.txt", "nowhere.txt cannot be read"),
        ("sample {}/text --prompt a --class 3", "trained without classes"),
        ("sample {}/plain --prompt a --clip-model {}/text", "is no noisy classifier, nor another run that steers"),
        ("sample {}/plain --clip-guidance 20", "--clip-guidance: needs --clip-model"),
        ("sample {}/clip", "it steers other runs"),
        ("evaluate {}/clip", "is an image-text model, which draws nothing"),
        ("evaluate {}/plain --judge {}/clip", "was trained without captions"),
        ("evaluate {}/text --judge {}/plain", "compares no pictures with texts"),
    ],
)
def test_refusals(runs: Path, line: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in fails(line.replace("{}", str(runs)), capsys)


def test_a_judge_reads_samples_and_held_out_pictures(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from diffusionkit.image.retrieval import measure

    text, clip = Run.load(runs / "text"), Run.load(runs / "clip")
    held = text.recipe.build("data").load()["test"]
    found = measure(clip, text.codec.text, torch.zeros(3, 3, 8, 8, dtype=torch.uint8), held)
    assert found["among"] == 8 and found["chance"] == 1 / 8 and 0 <= found["held_out"] <= 1
