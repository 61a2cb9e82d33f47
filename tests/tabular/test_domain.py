"""What the commands ask of the domain, and the commands themselves on a small CSV."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from diffusionkit.cli import main
from diffusionkit.core import Diffusion
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.tabular import TabularDiffusion
from diffusionkit.tabular.conditions import Wanted
from diffusionkit.tabular.domain import TabularDomain
from diffusionkit.training import Run, fit

N = 240
SHORT = {
    "training.steps": "12", "training.batch_size": "32", "training.pictures": "6", "training.every": "6", "backbone.width": "16",
    "backbone.depth": "1", "sampling.steps": "3", "sampling.batch_size": "100", "data.target": "job",
    "data.columns": "{zip: categorical}", "data.constraints": "[low <= high]",
}  # fmt: skip


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    low = rng.integers(0, 40, N)
    return pd.DataFrame({
        "job": rng.choice(["clerk", "nurse"], N), "age": rng.integers(18, 90, N), "pay": rng.normal(30, 9, N).round(1),
        "zip": [f"{i:05d}" for i in rng.integers(0, 9, N)], "note": pd.Series(rng.choice(["x", "y"], N)).mask(rng.random(N) < 0.2),
        "low": low, "high": low + rng.integers(0, 9, N),
    })  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with my.csv and the run of a short training on it."""
    folder = tmp_path_factory.mktemp("tables")
    table().to_csv(folder / "my.csv", index=False)
    recipe = Recipe.load("tabular/csv", {"data.path": str(folder / "my.csv"), **SHORT})
    torch.manual_seed(0)
    fit(recipe, folder / "run", console=Console(quiet=True))
    return folder


@pytest.fixture
def run(folder):
    return Run.load(folder / "run")


def call(*words, code=0):
    """Runs a command, which exits with this code."""
    try:
        main([str(word) for word in words])
    except SystemExit as end:
        assert (end.code or 0) == code
    else:
        assert code == 0


# ---- the domain


def test_prepare_gives_codec_and_parts(run):
    codec, parts = run.domain.prepare(run.recipe.build("data"))
    assert {name: len(part) for name, part in parts.items()} == {"train": 216, "test": 24}
    assert codec.outer.kinds["zip"] == "categorical" and codec.outer.names == list(table().columns)
    batch = parts["train"].batch(torch.arange(4))
    assert batch.cond is None and {name: leaf.shape[0] for name, leaf in batch.x.items()} == {"num": 4, "cat": 4}
    twice = [parts["train"].batch(torch.arange(4), torch.Generator().manual_seed(1)).x for _ in range(2)]
    assert all(torch.equal(twice[0][name], twice[1][name]) for name in twice[0])


def test_held_out_rows_that_the_training_part_cannot_tell_are_left_out_aloud(tmp_path):
    df = table().assign(part=["train"] * 200 + ["test"] * 40)
    df.loc[239, "job"] = "pilot"
    df.to_csv(tmp_path / "my.csv", index=False)
    recipe = Recipe.load("tabular/csv", {"data.path": str(tmp_path / "my.csv"), "data.split": "part"})
    with pytest.warns(UserWarning, match="1 held-out rows have levels that the training part has not"):
        _, parts = recipe.domain.prepare(recipe.build("data"))
    assert (len(parts["train"]), len(parts["test"])) == (200, 39)


def test_a_condition_is_read_or_refused(run):
    domain = run.domain
    assert domain.condition(run.codec, torch.arange(3)) is None
    wanted = domain.condition(run.codec, torch.arange(3), where="job=nurse; age=30..40", balance="note")
    assert isinstance(wanted, Wanted) and wanted.fixed == {"job": "nurse"} and wanted.turns == "note"
    with pytest.raises(UserError, match="column 'job': level 'pilot' was never seen"):
        domain.condition(run.codec, torch.arange(3), where="job=pilot")


def test_rows_are_drawn_as_asked(run):
    calls = []
    x = run.domain.draw(
        run.diffusion, run.codec, run.sampler(), torch.arange(9), lambda *_: calls.append(1), balance="job"
    )
    frame = run.codec.decode(x)
    assert frame["job"].value_counts().to_dict() == {"clerk": 5, "nurse": 4} and len(calls) == 3
    assert (frame["low"] <= frame["high"]).all()


def test_a_writer_puts_in_what_was_asked_for(run, tmp_path):
    asked = {"where": "pay=31.234; job=nurse"}
    with run.domain.writer(run.codec, tmp_path / "a.csv", 5, **asked) as writer:
        writer.write(run.domain.draw(run.diffusion, run.codec, run.sampler(), torch.arange(5), **asked))
    made = pd.read_csv(tmp_path / "a.csv")
    assert (made["pay"] == 31.234).all() and (made["job"] == "nurse").all()


def test_evaluating_measures_beside_floors(run):
    found = run.domain.evaluate(run, n=60, pictures=False)
    assert [row["measure"] for row in found["table"]] and all(
        {"model", "real rows", "independent"} <= row.keys() for row in found["table"]
    )
    json.dumps(found)
    again = run.domain.evaluate(run, n=60, pictures=False)
    private = run.domain.evaluate(run, n=60, pictures=False, privacy=True)
    assert private["privacy"]["sentence"]
    assert {"membership by loss, AUC", "exact copies"} <= {row["measure"] for row in private["table"]}
    assert again["table"] == found["table"]
    with pytest.raises(UserError, match="target: there is no column 'jop'"):
        run.domain.evaluate(run, n=60, target="jop")


def test_every_network_and_data_set_that_is_named_is_there():
    import pkgutil

    from diffusionkit.domain import get_domain

    assert isinstance(get_domain("tabular"), TabularDomain)
    for path in [*TabularDomain.data.values(), *TabularDomain.backbones.values(), TabularDomain.codec]:
        assert isinstance(pkgutil.resolve_name(path), type)


def test_the_front_door_opens_runs_of_the_commands(folder, run):
    model = TabularDiffusion.load(folder / "run", device="cpu")
    rows = model.sample(20, where={"job": "nurse"}, random_state=0)
    assert (rows["job"] == "nurse").all() and list(rows.dtypes) == list(
        run.codec.decode(run.codec.encode(table())).dtypes
    )


# ---- the commands


def test_train_sample_evaluate_from_a_csv(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table().to_csv("my.csv", index=False)
    options = [word for key, value in SHORT.items() for word in (f"--{key}", value)]
    call("train", "tabular/csv", "--data.path", "my.csv", *options, "--out", "run")
    assert "216 to train, 24 held out" in capsys.readouterr().out
    assert {"recipe.yaml", "codec.json", "codec.safetensors", "weights.safetensors", "metrics.csv", "pictures"} <= {
        p.name for p in (tmp_path / "run").iterdir()
    }
    assert (tmp_path / "run/pictures/final.png").stat().st_size > 1000
    call("sample", "run", "-n", 50, "--where", "job=nurse; age=30..40; pay>=25", "--out", "nurses.csv")
    assert capsys.readouterr().out.strip() == "50 samples in nurses.csv"
    rows = pd.read_csv("nurses.csv", dtype={"zip": str})
    assert len(rows) == 50 and list(rows.columns) == list(table().columns)
    assert (rows["job"] == "nurse").all() and rows["age"].between(30, 40).all() and (rows["pay"] >= 25).all()
    assert rows["zip"].isin(table()["zip"]).all() and (rows["low"] <= rows["high"]).all()
    call("sample", "run", "-n", 50, "--out", "rows.parquet", "--balance", "job", "--steps", 5, "--seed", 3)
    assert (pd.read_parquet("rows.parquet")["job"].value_counts() == 25).all()
    call("sample", "run", "-n", 7, "--guidance", 2, "--where", "note=missing")
    assert len(pd.read_csv("run/samples.csv")) == 7
    call("evaluate", "run", "-n", 80, "--pictures", "false")
    printed = capsys.readouterr().out
    assert "real rows" in printed and "independent" in printed and "Numbers in run/metrics.json" in printed
    assert json.loads((tmp_path / "run/metrics.json").read_text())["table"]


def test_info_and_plot_tell_of_a_run(folder, capsys):
    call("info", folder / "run")
    printed = capsys.readouterr().out
    assert all(words in printed for words in ("12 of 12", "ddpm (steps 3", "csv", "diffusionkit sample"))
    call("plot", folder / "run")
    paths = capsys.readouterr().out.split()
    assert [path.rpartition("/")[2] for path in paths] == ["loss.png", "samples.png"]
    assert (folder / "run/pictures/samples.png").stat().st_size > 1000


def test_there_are_no_walks_between_rows(folder, capsys):
    call("interpolate", folder / "run", code=2)
    assert (
        "interpolate: not for runs of the domain tabular: rows hold codes, and nothing lies" in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sample RUN --where jop=nurse", "where: there is no column 'jop'; did you mean 'job'?"),
        ("sample RUN --where job=pilot", "column 'job': level 'pilot' was never seen; the levels are 'clerk', 'nurse'"),
        ("sample RUN --where age=200..300", "column 'age' holds no value in the range asked for; those seen reach from 18 to 89"),
        ("sample RUN --where high=3", "where: column 'high' follows from others by a constraint"),
        ("sample RUN --where job", "where: 'job' is no condition"),
        ("sample RUN --balance pay", "balance: column 'pay' must have levels"),
        ("sample RUN --out rows.xlsx", "rows.xlsx: unknown ending '.xlsx'; known are .csv"),
        ("sample RUN --wehre job=nurse", "unknown option --wehre; did you mean '--where'?"),
        ("sample RUN -n 0", "-n: at least one sample, not 0"),
        ("evaluate RUN --target jop", "target: there is no column 'jop'"),
        ("train tabular/csv", "data.path is missing"),
        ("train tabular/csv --data.path no.csv", "no.csv: there is no such file"),
        ("train tabular/csv --data.path CSV --data.columns {zap: integer}", "has no column 'zap'"),
        ("train tabular/csv --data.path CSV --data.columns {job: integer}", "columns: 'job' cannot be integer"),
        ("train tabular/csv --data.path CSV --data.constraints [high<=low]", "constraint high <= low does not hold in"),
        ("train tabular/csv --data.path CSV --data.target jop", "has no column 'jop'"),
        ("train tabular/csv --data.path CSV --data.codec {bin: 3}", "data.codec: has no option 'bin'; its options are bins, between"),
    ],
)  # fmt: skip
def test_wrong_command_lines_are_told_and_exit_with_2(folder, capsys, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    words = [
        word.replace("RUN", str(folder / "run")).replace("CSV", str(folder / "my.csv"))
        for word in words.replace(": ", ":\0").split()
    ]
    call(*[word.replace("\0", " ") for word in words], code=2)
    _, err = capsys.readouterr()
    assert said in err.replace("\n", " ") and "Traceback" not in err and not list(tmp_path.rglob("*.csv"))


def test_a_run_of_a_frame_cannot_be_measured_by_command(tmp_path, capsys):
    model = TabularDiffusion(steps=2, settings={"backbone.width": 8, "sampling.steps": 2}, verbose=False).fit(table())
    model.save(tmp_path / "m")
    call("sample", tmp_path / "m", "-n", 9)
    assert len(pd.read_csv(tmp_path / "m/samples.csv")) == 9
    call("evaluate", tmp_path / "m", code=2)
    assert "was fitted on a DataFrame in memory" in capsys.readouterr().err
    call("info", tmp_path / "m")


def test_the_domain_fits_the_loop(run):
    assert isinstance(run.diffusion, Diffusion) and run.generates and run.metrics()[-1]["step"] == 12
    assert run.domain.sketch(None).keys() == run.codec.arguments().keys()


@pytest.mark.parametrize(("rows", "batch_size", "steps"), [(100, 32, 500), (10_000, 256, 3906), (10**6, 1024, 6000)])
def test_the_length_of_training_suits_the_table(rows, batch_size, steps):
    assert TabularDomain().length(rows) == {"batch_size": batch_size, "steps": steps}
    assert TabularDomain().length(rows, 50)["batch_size"] == 50


def test_a_recipe_says_or_leaves_open_how_long():
    from diffusionkit.recipe import Recipe
    from diffusionkit.training.run import suited

    left = suited(Recipe.load("tabular/csv"), 10_000).build("training")
    assert (left.steps, left.batch_size) == (3906, 256)
    said = suited(Recipe.load("tabular/csv", {"training.steps": "7", "training.batch_size": "9"}), 10_000)
    assert (said.build("training").steps, said.build("training").batch_size) == (7, 9)
    with pytest.raises(UserError, match="training.steps: must be at least 1"):
        Recipe.load("image/digits", {"training.steps": "0"})
