"""Commands as typed: what they hand on, what they print, how they fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import diffusionkit
import diffusionkit.cli.start
import diffusionkit.recipe
from diffusionkit.cli import main
from diffusionkit.core import DDIM, DDPM, REGISTRY, Diffusion, Gaussian, NoisyClassifier, Product, Sampler, Torus
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from tests.cli.words import call, fails
from tests.test_recipe import Fake

RECIPE = "domain: fake\ndata: dots\nbackbone: net\nsampling: {sampler: ddim, steps: 7, guidance: 2.0}\n"


class Drawing(Fake):
    def condition(self, codec: Any, indices: Any, *, class_: int | None = None) -> Any: ...

    def evaluate(self, run: Any, *, n: int = 10, seed: int = 0, folds: int = 2) -> dict[str, Any]:
        return {"loss": {"all": 0.25, "floor": 0.125}, "n": n, "folds": folds}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """A run of a fake domain, and stand-ins for what the commands call; `calls` holds what they were called with."""
    monkeypatch.setattr(diffusionkit.recipe, "get_domain", lambda name, where="": Drawing())
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    process: Any = Gaussian()
    run = SimpleNamespace(folder=tmp_path, domain=Drawing(), recipe=Recipe.from_run(tmp_path), generates=True)
    run.diffusion = Diffusion(torch.nn.Identity(), process)
    calls: list[Any] = []

    def record(name: str, result: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append((name, args, kwargs))
            return result

        return call

    def stand_in(module: str, **contents: Any) -> None:
        stub = ModuleType(module)
        vars(stub).update(contents)
        monkeypatch.setitem(sys.modules, module, stub)

    stand_in("diffusionkit.training.fitting", fit=record("fit", run))
    stand_in("diffusionkit.training.run", Run=SimpleNamespace(load=record("load", run)))
    stand_in("diffusionkit.training.sample", sample=record("sample", tmp_path / "out.png"))
    stand_in("diffusionkit.training.plot", plot=record("plot", [tmp_path / "loss.png"]))
    stand_in("diffusionkit.training.interpolate", interpolate=record("interpolate", tmp_path / "walk.png"))
    return SimpleNamespace(run=run, calls=calls, folder=tmp_path)


def test_train_hands_on_the_recipe_with_its_overrides(fake: Any) -> None:
    path = fake.folder / "recipe.yaml"
    call(f"train --training.steps 12 {path} --data.flip --objective.drop=0.5 --out {fake.folder / 'x'} --resume")
    name, (recipe, out, resume), _ = fake.calls[0]
    assert (name, out, resume) == ("fit", fake.folder / "x", True)
    assert recipe.sections["training"]["steps"] == 12 and recipe.sections["objective"]["drop"] == 0.5
    assert recipe.sections["data"]["flip"] is True


def test_sample_uses_the_recipes_settings(fake: Any) -> None:
    call(f"sample {fake.folder}")
    name, (run, n, out), options = fake.calls[1]
    assert (name, run, n, out) == ("sample", fake.run, 64, None)
    assert isinstance(options["sampler"], DDIM) and options["sampler"].steps == 7
    assert (options["guidance"], options["clip"], options["seed"], options["condition"]) == (2.0, None, 0, {})


def test_sample_takes_options_of_the_sampler_and_of_the_domain(fake: Any) -> None:
    call(
        f"sample {fake.folder} -n 9 --sampler ddpm --steps 20 --variance=large --guidance 1.5 --class 3 --seed 4 "
        "--batch-size 5 --clip dynamic --out pictures/ --classifier other --device cpu"
    )
    assert fake.calls[0] == ("load", (str(fake.folder),), {"device": "cpu"})
    _, (_, n, out), options = fake.calls[1]
    sampler = options.pop("sampler")
    assert isinstance(sampler, DDPM) and (sampler.steps, sampler.variance) == (20, "large")
    assert (n, out) == (9, "pictures/")
    assert options == {
        "guidance": 1.5, "clip": "dynamic", "batch_size": 5, "seed": 4, "condition": {"class_": 3}, "classifier": Path("other"),
    }  # fmt: skip


def test_a_recipe_with_own_classes_can_be_named(fake: Any) -> None:
    call(f"sample {fake.folder} --recipe {fake.folder / 'recipe.yaml'}")
    assert isinstance(fake.calls[0][2]["recipe"], Recipe) and fake.calls[0][2]["recipe"].trusted


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("sample RUN --clas 3", "unknown option --clas; did you mean '--class'?"),
        ("sample RUN --stpes 3", "unknown option --stpes; did you mean '--steps'?"),
        ("sample RUN --guidence 3", "unknown option --guidence; did you mean '--guidance'?"),
        ("sample RUN --variance large", "unknown option --variance"),
        ("sample RUN --steps many", "sampling.steps: must be an integer, not 'many'"),
        ("sample RUN --steps 0", "sampling.steps: must be at least 1, not 0"),
        ("sample RUN --sampler dim", "unknown name 'dim'; did you mean 'ddim'?"),
        ("sample RUN --guidance much", "sampling.guidance: must be a number, not 'much'"),
        ("sample RUN --batch-size 0", "sampling.batch_size: must be at least 1, not 0"),
        ("sample RUN --class three", "--class: must be an integer or null, not 'three'"),
        ("sample RUN -n many", 'Invalid value for -n: unable to convert "many" into int'),
        ("sample RUN --device cudo", "--device: cannot use 'cudo'"),
        ("evaluate RUN other", "only one run can be given"),
        ("sample", "requires an argument"),
        ("evaluate RUN --fold 3", "unknown option --fold; did you mean '--folds'?"),
        ("train RUN/recipe.yaml --trainig.steps 3", "unknown option --trainig.steps; did you mean '--training'?"),
        (
            "train RUN/recipe.yaml --training.stepz 3",
            "command line: training.stepz: unknown key; did you mean 'steps'?",
        ),
        ("train RUN/recipe.yaml --resum", "unknown option --resum; did you mean '--resume'?"),
        ("train RUN/recipy.yaml", "there is no file"),
        ("train image/digts", "there is no recipe 'image/digts'; did you mean 'image/digits'?"),
        ("train", "requires an argument"),
        ("trian x", 'Did you mean "train"?'),
        ("info RUN/none", "is no run: it has no recipe.yaml"),
        ("info RUN --foo", "Unknown option: --foo"),
        ("plot", "requires an argument"),
        ("--versoin", "unknown option --versoin; did you mean '--version'?"),
    ],
)
def test_a_wrong_command_line_is_told_and_exits_with_2(
    fake: Any, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    assert expected in fails(line.replace("RUN", str(fake.folder)), capsys)
    assert "sample" not in [name for name, *_ in fake.calls]


def test_a_sampler_that_does_not_fit_the_process_is_refused(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.run.diffusion = Diffusion(torch.nn.Identity(), Torus())
    assert "use ddpm or ddim" in fails(f"sample {fake.folder} --sampler heun", capsys)


def test_parts_of_a_product_have_temperatures_of_their_own(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.run.diffusion = Diffusion(torch.nn.Identity(), Product({"tr": Gaussian(), "tor": Torus()}))
    call(f"sample {fake.folder} --eta 1 --temperature.tor 0.8 --temperature.tr=0.5")
    assert fake.calls[-1][-1]["sampler"].temperature == {"tor": 0.8, "tr": 0.5}
    capsys.readouterr()
    assert "not there: tors; parts: tr, tor" in fails(f"sample {fake.folder} --temperature.tors 0.8", capsys)
    assert "sampling.temperature.tor: must be a number" in fails(f"sample {fake.folder} --temperature.tor hot", capsys)
    assert "sampling.temperature: must not be negative" in fails(f"sample {fake.folder} --temperature.tor=-1", capsys)


def test_evaluate_prints_a_table_and_saves_the_numbers(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"evaluate {fake.folder} -n 5 --folds 3 --steps 9")
    printed = capsys.readouterr().out
    assert f"Report in {fake.folder}/report.html" in printed
    page = (fake.folder / "report.html").read_text()
    assert f"diffusionkit evaluate {fake.folder} --folds 3 --steps 9 -n 5" in page and "0.125" in page
    assert "loss: floor" in printed and "0.125" in printed
    saved = json.loads((fake.folder / "metrics.json").read_text())
    assert saved == {"loss": {"all": 0.25, "floor": 0.125}, "n": 5, "folds": 3}


def test_evaluate_without_a_report(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"evaluate {fake.folder} --no-report")
    assert not (fake.folder / "report.html").exists() and "Report" not in capsys.readouterr().out


def test_compare_sets_evaluated_runs_side_by_side(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [fake.folder / name for name in ("one", "two")]
    for run in runs:
        run.mkdir()
        (run / "recipe.yaml").write_text(RECIPE)
    page = fake.folder / "page.html"
    line = f"compare {runs[0]} {runs[1]} --out {page}"
    assert f"run `diffusionkit evaluate {runs[0]}` first" in fails(line, capsys)
    for run in runs:
        (run / "metrics.json").write_text('{"loss": 0.5}')
    call(line)
    assert capsys.readouterr().out == f"2 runs in {page}\n" and "0.5" in page.read_text()
    assert "unknown option --outt; did you mean '--out'?" in fails(f"{line} --outt x", capsys)
    assert "two or more different ones" in fails(f"compare {runs[0]}", capsys)


def test_plot_and_interpolate_say_where_the_pictures_are(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    call(f"plot {fake.folder}")
    call(f"interpolate {fake.folder} -n 3 --points 5 --steps 9 --class 1")
    assert [line.rsplit("/")[-1] for line in capsys.readouterr().out.splitlines()] == ["loss.png", "walk.png"]
    name, (_, n, points, out), options = fake.calls[-1]
    assert (name, n, points, out, options["sampler"].steps) == ("interpolate", 3, 5, None, 9)
    assert options["condition"] == {"class_": 1}


def test_info_tells_of_a_run(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"a": torch.zeros(3, 5), "b": torch.zeros(1_000)}, str(fake.folder / "weights.safetensors"))
    (fake.folder / "metrics.csv").write_text("step,loss,test_loss\n100,0.5,\n200,0.25,0.75\n")
    call(f"info {fake.folder}")
    printed = capsys.readouterr().out
    for words in (
        "1,015",
        "200",
        "0.25",
        "0.75",
        "ddim (steps 7, guidance 2.0)",
        "metrics.csv",
        f"diffusionkit sample {fake.folder}",
    ):
        assert words in printed
    (fake.folder / "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    assert "no readable weights file" in fails(f"info {fake.folder}", capsys)


def test_recipes_lists_a_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    call("recipes")
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("image/digits ") and "8x8" in line for line in lines)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (UserError("data.csv: column age: must be a number"), 2, "error: data.csv: column age: must be a number\n"),
        (UserError("path [red]is[/red] printed as it is"), 2, "error: path [red]is[/red] printed as it is\n"),
        (OSError(28, "No space left on device", "weights"), 2, "error: No space left on device: weights\n"),
        (KeyboardInterrupt(), 130, "Stopped.\n"),
    ],
)
def test_exit_codes(
    error: BaseException, code: int, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def listing() -> Any:
        raise error

    monkeypatch.setattr(diffusionkit.cli.start, "listing", listing)
    with pytest.raises(SystemExit) as caught:
        main(["recipes"])
    assert caught.value.code == code
    assert capsys.readouterr().err == words


def test_a_fault_of_our_own_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diffusionkit.cli.start, "listing", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["recipes"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", ["train", "sample", "evaluate", "interpolate", "plot", "info", "recipes", "--version", "--install-completion"]),
        ("train", ["RECIPE", "--out", "--resume", "--training.steps", "--trainer.devices", "Example: "]),
        ("sample", [
            "RUN", "-n", "--out", "--sampler", "--steps", "--eta", "--guidance", "--class", "--seed", "--batch-size", "--clip",
            "--classifier", "--device", "--recipe", "Example: ", *REGISTRY[Sampler],
        ]),
        ("evaluate", ["RUN", "-n", "--seed", "--device", "--no-report", "Example: "]),
        ("compare", ["RUN", "--out", "Example: "]),
        ("interpolate", ["RUN", "-n", "--points", "--sampler", "--guidance", "--seed", "--out", "Example: "]),
        ("plot", ["RUN", "--device", "Example: "]),
        ("info", ["RUN", "Example: "]),
        ("recipes", ["Example: "]),
    ],
)  # fmt: skip
def test_help_names_every_option(command: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    call(f"{command} --help")
    printed = capsys.readouterr().out
    assert [word for word in words if word not in printed] == []


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    call("--version")
    assert capsys.readouterr().out.strip() == diffusionkit.__version__


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_written_where_asked_and_nowhere_else(
    shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.setenv(name, str(home))
    call(f"--install-completion --shell {shell} --output {tmp_path / 'script'}")
    assert "interpolate" in (tmp_path / "script").read_text()
    assert not list(home.iterdir())  # startup files such as .bashrc stay as they are


@pytest.mark.parametrize("command", ["--help", "sample --help", "--version", "recipes", "trian"])
def test_light_commands_import_nothing_heavy(command: str) -> None:
    code = (
        "import sys\nfrom diffusionkit.cli import main\n"
        f"try: main({command.split()!r})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'torchvision', 'numpy', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_package_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "diffusionkit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == diffusionkit.__version__


def test_a_reader_that_goes_away_is_no_fault() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "diffusionkit", "recipes"], stdout=write, stderr=subprocess.PIPE, text=True
    )
    os.close(write)
    assert "Traceback" not in done.stderr


def test_a_classifier_is_not_sampled_from(fake: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fake.run.generates, fake.run.diffusion.objective = False, NoisyClassifier()
    with pytest.raises(SystemExit) as stop:
        main(["sample", str(fake.folder)])
    assert stop.value.code == 2 and "--classifier" in capsys.readouterr().err
