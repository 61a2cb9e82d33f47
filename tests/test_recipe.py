"""Recipes: what is wrong is told before any data are read, by file, key and what would be right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from torch import nn

import diffusionkit.recipe
from diffusionkit.core import Categorical, Cosine, Gaussian, Product, Sampler
from diffusionkit.domain import get_domain
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe, find, folder, listing, parse
from diffusionkit.schema import Reader, parameters

GOOD = """\
# A tiny recipe for tests.
# It says nothing more.
domain: fake
data: {name: dots, size: 4}
backbone: {name: net, widths: [2, 3]}
process: {name: gaussian, schedule: {name: cosine, s: 0.01}, predict: v}
training: {steps: 5, lr: 1e-4}
"""


class Dots:
    def __init__(
        self, size: int = 8, path: Path | None = None, mode: Literal["a", "b"] = "a", flip: bool = False
    ) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, not {size}")
        self.size, self.path, self.mode, self.flip = size, path, mode, flip


class Net(nn.Module):
    def __init__(
        self, shape: tuple[int, int], classes: int | None = None, widths: tuple[int, ...] = (1,), drop: float = 0.0
    ):
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"drop must lie in [0, 1), not {drop:g}")
        if len(widths) > shape[0]:
            raise ValueError("more widths than pixels")
        self.shape, self.classes, self.widths, self.drop = shape, classes, widths, drop
        self.layer = nn.Linear(10**6, 10**6)  # 4 TB, unless made without memory
        self.where = self.layer.weight.device.type


class Fake:
    name = "fake"
    data = {"dots": Dots}
    backbones = {"net": Net}
    objectives: dict[str, Any] = {}

    def check(self, sections: Any) -> list[tuple[str, str]]:
        return []

    def length(self, rows: int, batch_size: int | None = None) -> dict[str, int]:
        return {}

    def sketch(self, data: Dots) -> dict[str, Any]:
        return {"shape": (data.size, data.size), "classes": 10}


@pytest.fixture(autouse=True)
def fake_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    def get(name: str, where: str = "") -> Any:
        return Fake() if name == "fake" else get_domain(name, where)

    monkeypatch.setattr(diffusionkit.recipe, "get_domain", get)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str = GOOD, name: str = "mine.yaml") -> str:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return str(path)

    return write


def complaint(path: str, overrides: dict[str, str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        Recipe.load(path, overrides)
    return str(caught.value)


def test_sections_become_objects(write: Any) -> None:
    recipe = Recipe.load(write())
    process = recipe.build("process")
    assert isinstance(process, Gaussian) and isinstance(process.schedule, Cosine)
    assert process.schedule.s == 0.01 and process.predict == "v"
    training = recipe.build("training")
    assert training.steps == 5 and training.lr == 1e-4
    assert recipe.build("data").size == 4
    assert recipe.name == "mine" and recipe.description.startswith("A tiny recipe")


def test_left_out_sections_have_defaults(write: Any) -> None:
    recipe = Recipe.load(write("domain: fake\ndata: dots\nbackbone: net\n"))
    assert type(recipe.build("process")).__name__ == "Gaussian"
    assert type(recipe.build("objective")).__name__ == "Simple"
    assert type(recipe.build("sampling")).__name__ == "DDIM"
    assert recipe.build("trainer") == {} and recipe.sections["seed"] == 0
    assert recipe.sampling().guidance == 1.0


def test_provided_arguments_are_those_the_constructor_takes(write: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nn, "Linear", lambda *a: nn.Bilinear(1, 1, 1))
    net = Recipe.load(write()).build("backbone", shape=(4, 4), classes=3, colours=7)
    assert net.shape == (4, 4) and net.classes == 3 and net.widths == (2, 3)


def test_the_check_takes_no_memory_for_weights(write: Any) -> None:
    Recipe.load(write()).check()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("size: 4", "sise: 4", ["data.sise: unknown key; did you mean 'size'?", "flip, mode, name, path, size"]),
        ("size: 4", "size: many", ["data.size: must be an integer, not 'many'"]),
        ("size: 4", "size: 4.5", ["data.size: must be an integer, not 4.5"]),
        ("size: 4", "size: true", ["data.size: must be an integer, not true"]),
        ("size: 4", "size: .inf", ["data.size: must be an integer, not inf"]),
        ("size: 4", "size: 0", ["data.size: must be at least 1, not 0"]),
        ("size: 4", "flip: 1", ["data.flip: must be true or false, not 1"]),
        ("size: 4", "mode: c", ["data.mode: must be 'a' or 'b', not 'c'"]),
        ("size: 4", "path: [1]", ["data.path: must be a path or null, not [1]"]),
        ("size: 4", "classes: 3", ["data.classes: unknown key"]),
        ("name: dots", "name: dotz", ["data.name: unknown name 'dotz'; did you mean 'dots'?"]),
        ("name: dots, ", "", ["data.name: is missing; it must be one of dots"]),
        ("data:", "date:", ["date: unknown key; did you mean 'data'?", "data: this section is missing"]),
        ("{name: dots, size: 4}", "[1]", ["data: must be a mapping of keys and values, not [1]"]),
        ("name: net", "name: nett", ["backbone.name: unknown name 'nett'; did you mean 'net'?"]),
        ("[2, 3]", "[2, x]", ["backbone.widths: must be a list of integers, not [2, 'x']"]),
        ("[2, 3]", "2", ["backbone.widths: must be a list of integers, not 2"]),
        ("[2, 3]", "[1, 1, 1, 1, 1]", ["backbone: more widths than pixels"]),
        ("[2, 3]", "[2], drop: 3", ["backbone.drop: must lie in [0, 1), not 3"]),
        ("[2, 3]", "[2], drop: .nan", ["backbone.drop: must be a number, not nan"]),
        ("[2, 3]", "[2], shape: [4, 4]", ["backbone.shape: comes from the data, a recipe cannot set it"]),
        ("[2, 3]", "[2], classes: 3", ["backbone.classes: comes from the data"]),
        ("name: gaussian", "name: gausian", ["process.name: unknown name 'gausian'; did you mean 'gaussian'?"]),
        ("name: cosine", "name: cosin", ["process.schedule.name: unknown name 'cosin'; did you mean 'cosine'?"]),
        ("s: 0.01", "z: 0.01", ["process.schedule.z: unknown key", "beta_clip"]),
        ("s: 0.01", "s: -1", ["process.schedule.s: must not be negative"]),
        ("predict: v", "predict: w", ["process.predict: must be 'eps' or 'x0'"]),
        ("predict: v", "predict: edm, sigma_data: 0", ["process.sigma_data: must be above 0"]),
        ("steps: 5", "steps: many", ["training.steps: must be an integer, not 'many'"]),
        ("steps: 5", "steps: 0", ["training.steps: must be at least 1, not 0"]),
        ("steps: 5", "betas: [0.9]", ["training.betas: must be a list of 2 numbers, not [0.9]"]),
        ("steps: 5", "precision: 64", ["training.precision: must be '32' or 'bf16' or 'fp16', not 64"]),
        (
            "training:",
            "sampling: {sampler: dim}\ntraining:",
            ["sampling.sampler: unknown name 'dim'; did you mean 'ddim'?"],
        ),
        (
            "training:",
            "sampling: {sampler: ddim, etta: 1}\ntraining:",
            ["sampling.etta: unknown key; did you mean 'eta'?"],
        ),
        (
            "training:",
            "sampling: {guidence: 1}\ntraining:",
            ["sampling.guidence: unknown key; did you mean 'guidance'?"],
        ),
        ("training:", "sampling: {eta: 2}\ntraining:", ["sampling.eta: must lie between 0"]),
        ("training:", "sampling: {clip: hard}\ntraining:", ["sampling.clip: must be a number or 'dynamic' or null"]),
        ("training:", "sampling: {clip: -1}\ntraining:", ["sampling.clip: must be above 0"]),
        ("training:", "seed: x\ntraining:", ["seed: must be an integer, not 'x'"]),
        ("training:", "trainings:", ["trainings: unknown key; did you mean 'training'?"]),
        ("domain: fake", "seed: 1", ["domain: is missing"]),
        ("domain: fake", "domain: [1]", ["domain: must be the name of a domain, not [1]"]),
        ("domain: fake", "domain: imago", ["domain: there is no 'imago'", "image"]),
        (
            "{name: gaussian, schedule: {name: cosine, s: 0.01}, predict: v}",
            "categorical",
            ["process.sizes: is missing"],
        ),
    ],
)
def test_a_mistake_names_file_key_and_what_would_be_right(write: Any, old: str, new: str, expected: list[str]) -> None:
    assert old in GOOD
    path = write(GOOD.replace(old, new, 1))
    message = complaint(path)
    assert path in message
    for words in expected:
        assert words in message


def test_a_sampler_that_does_not_fit_the_process_is_refused(write: Any) -> None:
    path = write("domain: fake\ndata: dots\nbackbone: net\nprocess: torus\nsampling: heun\n")
    message = complaint(path)
    assert f"{path}: sampling: " in message and "use ddpm or ddim" in message


def test_temperatures_are_a_number_or_one_for_each_part(write: Any) -> None:
    parts = "{name: product, parts: {tr: gaussian, rot: rotation}}"
    text = f"domain: fake\ndata: dots\nbackbone: net\nprocess: {parts}\nsampling: {{temperature: 0.5}}\n"
    recipe = Recipe.load(write(text), {"sampling.temperature.rot": "0.8"})
    assert recipe.sections["sampling"]["temperature"] == {"rot": 0.8}
    assert recipe.build("sampling").temperature == {"rot": 0.8}
    assert "sampling: temperature for parts that are not there: rott; parts: tr, rot" in complaint(
        write(text.replace("0.5", "{rott: 0.5}"))
    )


def test_all_mistakes_come_in_one_message(write: Any) -> None:
    text = (
        GOOD.replace("size: 4", "sise: 4, flip: 3").replace("steps: 5", "steps: 0").replace("predict: v", "predict: u")
    )
    lines = complaint(write(text)).splitlines()
    assert len(lines) == 4
    assert [line.split(": ")[1] for line in lines] == ["data.sise", "data.flip", "process.predict", "training.steps"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the file is empty"),
        ("# only words\n", "the file is empty"),
        ("- 1\n", "a recipe is a mapping of sections"),
        ("domain: fake\ndomain: fake\n", "line 2, column 1: the key 'domain' stands twice"),
        ("data: {size: 1, size: 2}\n", "the key 'size' stands twice"),
        ("data: {size: 1\n", "line 2"),
        ("a: b: c\n", "line 1, column 5: mapping values are not allowed here"),
        ("data: !!python/object/apply:os.system ['true']\n", "is not allowed in a recipe"),
        ("data: !!python/name:os.system\n", "is not allowed in a recipe"),
        ("data: &a [*a]\n", "data: must be a mapping"),
        ("data: 2024-99-99\n", "cannot be read" if sys.version_info < (3, 0) else "can be read"),
    ],
)
def test_broken_yaml_is_one_sentence(write: Any, text: str, expected: str) -> None:
    path = write(text if "data: &a" not in text else "domain: fake\n" + text)
    message = complaint(path)
    assert message.startswith(path) and expected in message


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "picture.yaml"
    path.write_bytes(b"\x89PNG\xff\xfe")
    assert "no text file" in complaint(str(path))


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(UserError, match="not a YAML file"):
        parse("data: " + "[" * 5000, "deep.yaml")


def test_yaml_numbers_are_read_by_the_declared_type(write: Any) -> None:
    text = GOOD.replace("steps: 5", "steps: 1e3, ema: 1e-1, clip: 1, precision: 32")
    training = Recipe.load(write(text)).build("training")
    assert training.steps == 1000 and isinstance(training.steps, int)
    assert training.lr == 1e-4 and training.ema == 0.1
    assert isinstance(training.clip, float) and training.precision == "32"


@pytest.mark.parametrize(
    ("key", "text", "section", "name", "value"),
    [
        ("training.steps", "2000", "training", "steps", 2000),
        ("training.lr", "3e-3", "training", "lr", 3e-3),
        ("training.betas", "[0.5, 0.6]", "training", "betas", [0.5, 0.6]),
        ("training.betas", "0.5,0.6", "training", "betas", [0.5, 0.6]),
        ("training.compile", "true", "training", "compile", True),
        ("backbone.widths", "[1,2]", "backbone", "widths", [1, 2]),
        ("backbone.widths", "1,2", "backbone", "widths", [1, 2]),
        ("backbone.widths", "3", "backbone", "widths", [3]),
        ("data.path", "007", "data", "path", "007"),
        ("data.path", "null", "data", "path", None),
        ("data.mode", "b", "data", "mode", "b"),
        (
            "process.schedule",
            "linear",
            "process",
            "schedule",
            {"name": "linear", "steps": 1000, "beta_min": 1e-4, "beta_max": 0.02, "power": 1.0},
        ),
        ("objective.drop", "0.2", "objective", "drop", 0.2),
        ("sampling.clip", "dynamic", "sampling", "clip", "dynamic"),
        ("sampling.clip", "none", "sampling", "clip", None),
        ("sampling.clip", "2", "sampling", "clip", 2.0),
        ("sampling.sampler", "unipc", "sampling", "sampler", "unipc"),
    ],
)
def test_overrides(write: Any, key: str, text: str, section: str, name: str, value: Any) -> None:
    assert Recipe.load(write(), {key: text}).sections[section][name] == value


def test_an_override_reaches_into_a_bare_name(write: Any) -> None:
    path = write(GOOD.replace("{name: cosine, s: 0.01}", "cosine"))
    assert Recipe.load(path, {"process.schedule.s": "0.02"}).build("process").schedule.s == 0.02


def test_an_override_replaces_a_section_by_name(write: Any) -> None:
    recipe = Recipe.load(write(), {"objective": "vlb", "seed": "3"})
    assert type(recipe.build("objective")).__name__ == "VLB" and recipe.sections["seed"] == 3


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("training.stepz", "1", "command line: training.stepz: unknown key; did you mean 'steps'?"),
        ("training.steps", "many", "command line: training.steps: must be an integer, not 'many'"),
        ("training.steps", "-1", "command line: training.steps: must be at least 1, not -1"),
        ("training.steps", "[1", "command line: training.steps: cannot read '[1'"),
        ("trainin.steps", "1", "command line: trainin: unknown key; did you mean 'training'?"),
        ("process.schedule", "cosin", "command line: process.schedule: unknown name 'cosin'; did you mean 'cosine'?"),
        ("domain.x", "1", "command line: domain: must be the name of a domain"),
    ],
)
def test_mistakes_on_the_command_line_say_so(write: Any, key: str, text: str, expected: str) -> None:
    assert expected in complaint(write(), {key: text})


def test_trainer_keys_are_those_of_lightning(write: Any) -> None:
    recipe = Recipe.load(write(), {"trainer.devices": "2", "trainer.strategy": "ddp"})
    assert recipe.build("trainer") == {"devices": 2, "strategy": "ddp"}
    assert "command line: trainer.device: unknown key; did you mean 'devices'?" in complaint(
        write(), {"trainer.device": "2"}
    )


def test_saving_and_loading_gives_the_same_recipe(write: Any, tmp_path: Path) -> None:
    first = Recipe.load(write(), {"trainer.devices": "2", "backbone.drop": "0.25"})
    first.save(tmp_path / "saved.yaml")
    again = Recipe.load(tmp_path / "saved.yaml")
    assert again.sections == first.sections
    assert (again.name, again.description) == (first.name, first.description)
    written = yaml.safe_load((tmp_path / "saved.yaml").read_text())
    assert written["training"]["batch_size"] == 128 and written["process"]["schedule"]["beta_clip"] == 0.999
    assert "shape" not in written["backbone"] and "classes" not in written["backbone"]


def test_a_run_folder_gives_its_recipe_back(write: Any, tmp_path: Path) -> None:
    first = Recipe.load(write())
    first.save(tmp_path / "recipe.yaml")
    again = Recipe.from_run(tmp_path)
    assert again.sections == first.sections and again.name == "mine"


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no run"):
        Recipe.from_run(tmp_path)


def test_own_classes_are_reached_from_a_recipe_but_never_from_a_run(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_code_for_test.py").write_text(
        "from pathlib import Path\n"
        f"Path({str(tmp_path / 'ran')!r}).touch()\n"
        "class Own:\n"
        "    def __init__(self, shape: tuple[int, int], depth: int = 2) -> None:\n"
        "        self.shape, self.depth = shape, depth\n"
    )
    text = GOOD.replace("{name: net, widths: [2, 3]}", "{name: own_code_for_test.Own, depth: 3}")
    path = write(text, "recipe.yaml")
    with pytest.raises(UserError, match="code of your own"):
        Recipe.from_run(tmp_path)
    assert not (tmp_path / "ran").exists()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    own = Recipe.load(path).build("backbone", shape=(4, 4), classes=2)
    assert (own.shape, own.depth) == ((4, 4), 3)
    assert "has no 'Owm'; did you mean 'Own'?" in complaint(write(text.replace("Own", "Owm")))
    assert "backbone.dept: unknown key; did you mean 'depth'?" in complaint(write(text.replace("depth", "dept")))
    assert "cannot import 'no_such_module.Net'" in complaint(
        write(text.replace("own_code_for_test.Own", "no_such_module.Net"))
    )


def test_recipe_from_python() -> None:
    recipe = Recipe.of({"domain": "fake", "data": {"name": "dots"}, "backbone": {"name": "net"}}, "tiny")
    assert recipe.build("data").size == 8
    with pytest.raises(UserError, match="tiny: data.sise: unknown key"):
        Recipe.of({"domain": "fake", "data": {"name": "dots", "sise": 1}, "backbone": "net"}, "tiny")


def test_products_of_processes() -> None:
    process = {"name": "product", "parts": {"numbers": "gaussian", "codes": {"name": "categorical", "sizes": [2, 3]}}}
    sections = {"domain": "fake", "data": "dots", "backbone": "net", "process": process}
    made = Recipe.of(sections).build("process")
    assert isinstance(made, Product) and isinstance(
        dict(zip(made.names, made.parts, strict=True))["codes"], Categorical
    )
    with pytest.raises(
        UserError, match="process.parts.codes.sizes: is missing; it must be an integer or a list of integers"
    ):
        Recipe.of({**sections, "process": {"name": "product", "parts": {"codes": "categorical"}}})
    with pytest.raises(UserError, match="process.parts.codes: unknown name 'categoric'"):
        Recipe.of({**sections, "process": {"name": "product", "parts": {"codes": "categoric"}}})


def test_another_sampler_starts_at_its_own_defaults(write: Any) -> None:
    text = GOOD + "sampling: {sampler: ddim, steps: 7, guidance: 2.0}\n"
    recipe = Recipe.load(write(text))
    assert recipe.resample("ddim").build("sampling").steps == 7
    other = recipe.resample("ddpm")
    assert other.build("sampling").steps == 1000 and other.sampling().guidance == 2.0
    assert {"steps", "variance", "guidance", "clip", "batch_size"} <= set(other.sampling_keys())
    with pytest.raises(UserError, match="command line: sampling.sampler: unknown name 'dpm'"):
        recipe.resample("dpm").build("sampling")


# ---- shipped recipes ----


def test_shipped_recipes_have_a_line_that_says_what_they_are() -> None:
    names = dict(listing())
    assert {"image/digits", "image/mnist", "image/fashion", "image/cifar", "image/folder"} <= set(names)
    assert all(len(line) > 20 for line in names.values())


def test_a_recipe_is_found_by_name_and_by_path() -> None:
    path = folder() / "image" / "digits.yaml"
    assert find("image/digits") == path and find(str(path)) == path


@pytest.mark.parametrize("wrong", ["image/digts", "digits", "Image/Digits", "image/digits.yml"])
def test_unknown_recipes_suggest_the_nearest(wrong: str) -> None:
    with pytest.raises(UserError, match="did you mean .*image/digits"):
        find(wrong)


def test_a_missing_file_suggests_its_neighbour(write: Any) -> None:
    path = Path(write())
    with pytest.raises(UserError, match="mine.yaml"):
        find(path.with_name("mime.yaml"))


def test_listing_needs_no_torch() -> None:
    code = "import sys, diffusionkit.recipe as r; assert r.listing(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- schema ----


class Quick(Sampler):
    def __init__(self, speed: float = 2.0, **rest: Any) -> None:
        super().__init__(**rest)


class Base:
    pass


class Part(Base):
    def __init__(self, width: int = 3) -> None:
        self.width = width


class Whole:
    def __init__(self, part: Base = Part(4), hook: Any = print, parts: dict[str, Base] | None = None) -> None:  # noqa: B008
        self.part = part


def test_arguments_behind_keywords_are_those_of_the_base_class() -> None:
    assert {"speed", "steps", "eta"} <= set(parameters(Quick))


def test_defaults_that_are_components_are_written_as_such() -> None:
    reader = Reader({Base: {"part": Part}}, trusted=True)
    component = reader.component("whole", {"whole": Whole}, "x")
    assert component is not None
    assert component.plain == {"name": "whole", "part": {"name": "part", "width": 4}, "parts": None}
    assert not reader.problems and component.make().part.width == 4
