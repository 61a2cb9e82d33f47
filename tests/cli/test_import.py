"""The commands `import` and `export`, and what other commands do with a run that was imported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from diffusionkit.cli import app
from diffusionkit.domain import domains
from diffusionkit.recipe import Recipe
from diffusionkit.training import Run, fit
from tests.cli.words import call, fails

TINY = {
    "training.steps": "2",
    "training.pictures": "0",
    "backbone.channels": "8",
    "backbone.groups": "4",
    "backbone.time_steps": "1000",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    fit(Recipe.load("image/digits", TINY), folder, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def saved(run: Path) -> Path:
    call(f"export {run} --out {run.parent}/saved")
    return run.parent / "saved"


def test_there_and_back(run: Path, saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parts = {
        "model_index.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "scheduler/scheduler_config.json",
    }
    assert {str(path.relative_to(saved)) for path in saved.rglob("*") if path.is_file()} == parts
    call(f"import {saved} --out {tmp_path}/run --sampling.steps 3")
    assert capsys.readouterr().out.splitlines() == [
        f"DDIMPipeline of diffusers in {saved}: now in {tmp_path}/run",
        f"Next: diffusionkit sample {tmp_path}/run",
    ]
    first, second = Run.load(run), Run.load(tmp_path / "run")
    state = second.diffusion.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in first.diffusion.state_dict().items())
    assert second.codec.classes == first.codec.classes and second.recipe.sections["sampling"]["steps"] == 3


def test_an_imported_run_is_a_run(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    for name in "0123456789":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    Image.new("L", (8, 8), 100).save(tmp_path / "a.png")
    Image.fromarray(np.uint8([[0] * 4 + [255] * 4] * 8)).save(tmp_path / "m.png")
    imported = tmp_path / "run"
    call(f"import {saved} --out {imported} --data.path {tmp_path}/pictures --sampling.steps 2")
    capsys.readouterr()
    call(f"info {imported}")
    printed = capsys.readouterr().out
    assert f"DDIMPipeline of diffusers in {saved}" in printed and "steps   " not in printed.replace("time_steps", "")
    call(f"sample {imported} -n 3 --class 4 --out {tmp_path}/s.npz")
    assert np.load(tmp_path / "s.npz")["images"].shape == (3, 8, 8, 1)
    call(f"inpaint {imported} {tmp_path}/a.png {tmp_path}/m.png -n 1 --class 4 --out {tmp_path}/i.png")
    assert (np.asarray(Image.open(tmp_path / "i.png").convert("L"))[:, :4] == 100).all()
    call(f"edit {imported} {tmp_path}/a.png -n 1 --out {tmp_path}/e.png")
    call(f"restore {imported} {tmp_path}/a.png --operator blur:1 -n 1 --out {tmp_path}/r.png")
    assert (tmp_path / "e.png").is_file() and (tmp_path / "r.png").is_file()


@pytest.mark.slow
def test_an_imported_run_is_measured_on_data_named_later(saved: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "0123456789":
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    call(f"import {saved} --out {tmp_path}/run --data.path {tmp_path}/pictures --sampling.steps 2")
    call(f"evaluate {tmp_path}/run -n 20 --levels 2 --draws 2 --inception off")
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["table"]


def test_the_first_free_run_is_taken(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    call(f"import {saved}")
    call(f"import {saved}")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {"saved", "saved-2"}
    assert Run.load("runs/saved-2").step == 0


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import nowhere", "nowhere: there is no such folder"),
        ("import empty", "empty: is no model that can be imported: there is no model_index.json"),
        ("import SAVED --out full", "full: is there already, and not empty; choose another --out"),
        (
            "import SAVED --out new --backbone.channels 9",
            "--backbone.channels: only keys of data and sampling can be set",
        ),
        ("import SAVED --out new --sampling.stebs 9", "sampling.stebs: unknown key"),
        ("import SAVED other", "only one folder can be given"),
        (
            "import text",
            "model_index.json: text_encoder: this part of a TextPipeline is not supported; unet, transformer",
        ),
        ("import broken", "broken/config.json: is no JSON that can be read"),
        ("export nowhere --out new", "nowhere: there is no such run folder"),
        ("export RUN --out full", "full: is there already, and not empty"),
    ],
)
def test_mistakes_are_told_and_leave_nothing(
    line: str,
    expected: str,
    run: Path,
    saved: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file, text in (
        ("full", "a", "b"),
        ("broken", "config.json", "{"),
        (
            "text",
            "model_index.json",
            '{"_class_name": "TextPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}',
        ),
    ):
        Path(name).mkdir()
        (Path(name) / file).write_text(text)
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    assert expected in fails(line.replace("SAVED", str(saved)).replace("RUN", str(run)), capsys)
    assert sorted(Path().rglob("*")) == before


def test_a_damaged_file_of_weights_leaves_nothing(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    shutil.copytree(saved, tmp_path / "saved")
    path = tmp_path / "saved" / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert "is damaged, or no safetensors file" in fails(f"import {tmp_path}/saved --out {tmp_path}/run", capsys)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_domains_without_a_format_say_so(tmp_path: Path) -> None:
    from diffusionkit.errors import UserError
    from diffusionkit.training.exchange import export_run

    class Other:
        folder, domain = tmp_path, next(domain for domain in domains().values() if not domain.exchange)

    with pytest.raises(UserError, match=f"export: not for runs of the domain {Other.domain.name}: no format is shared"):
        export_run(Other(), tmp_path / "out")  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words"),
    [("import", ["FOLDER", "--out", "--data.name", "Example: "]), ("export", ["RUN", "--out", "Example: "])],
)
def test_help(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert command in list(app)
    call(f"{command} --help")
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []
