"""What the commands ask of the domain, and the commands themselves on small files."""

from __future__ import annotations

import json
import pkgutil

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from diffusionkit.cli import main
from diffusionkit.domain import get_domain
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.timeseries import Forecast, TimeSeriesDiffusion
from diffusionkit.timeseries.domain import TimeSeriesDomain
from diffusionkit.training import Run, fit
from tests.timeseries.small import long, wide

SHORT = {
    "training.steps": "8", "training.batch_size": "16", "training.pictures": "4", "training.every": "4", "backbone.width": "16",
    "backbone.depth": "1", "sampling.steps": "3", "data.prediction_length": "6", "data.windows": "3",
}  # fmt: skip


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return wide(150).assign(
        temp=rng.normal(size=150), day=np.where(np.arange(150) % 2, "odd", "even"), seen=rng.normal(size=150)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with files of series and the runs of short trainings on them."""
    folder = tmp_path_factory.mktemp("series")
    table().rename_axis("ds").to_csv(folder / "my.csv")
    long((80, 70, 90)).to_csv(folder / "long.csv", index=False)
    given = {"data.known": "[temp, day]", "data.past": "[seen]"}
    for name, path, more in (("run", "my.csv", given), ("separate", "long.csv", {})):
        recipe = Recipe.load("timeseries/csv", {"data.path": str(folder / path), **SHORT, **more})
        torch.manual_seed(0)
        fit(recipe, folder / name, console=Console(quiet=True))
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


def test_every_network_and_data_set_that_is_named_is_there():
    assert isinstance(get_domain("timeseries"), TimeSeriesDomain)
    for path in [*TimeSeriesDomain.data.values(), *TimeSeriesDomain.backbones.values(), TimeSeriesDomain.codec]:
        assert isinstance(pkgutil.resolve_name(path), type)


def test_prepare_gives_codec_and_parts(run):
    codec, parts = run.domain.prepare(run.recipe.build("data"))
    assert set(parts) == {"train", "test"} and len(parts["test"]) == 13
    assert codec.names == ("a", "b", "c") and codec.tail.blocks[0].index[-1] == table().index[-19]
    assert set(codec.arguments()) <= {*run.domain.sketch(None), "length"}
    assert run.step == 8 and (run.folder / "recipe.yaml").exists()


def test_a_run_leaves_pictures_and_metrics(run):
    assert any(run.folder.rglob("*.png"))
    rows = run.metrics()
    assert rows[-1]["step"] == 8 and np.isfinite(rows[-1]["loss"]) and np.isfinite(rows[-1]["valid_loss"])


def test_draws_are_paths(run):
    calls = []
    x = run.domain.draw(run.diffusion, run.codec, run.sampler(), torch.arange(5), lambda *_: calls.append(1))
    assert x.shape == (5, 6, 3) and x.isfinite().all() and len(calls) == 3


def test_evaluating_measures_beside_baselines(run):
    found = run.domain.evaluate(run, n=9)
    json.dumps(found)
    rows = {row["measure"]: row for row in found["table"]}
    assert {"CRPS", "CRPS_sum", "energy", "MASE", "coverage_80"} <= set(rows)
    assert {"model", "seasonal naive", "persistence", "comment"} <= set(rows["CRPS"])
    for name, row in rows.items():  # a model that loses says so
        better = [k for k in row if k not in ("measure", "model", "comment") and found[k][name] < found["model"][name]]
        lower = not name.startswith(("coverage", "width"))
        assert row["comment"].startswith("LOSES") == bool(better and lower)
    assert found["verdict"].startswith("THE MODEL LOSES") or found["verdict"].startswith("No baseline")
    assert {"backtest.png", "last_window.png", "pit.png"} <= {path.name for path in (run.folder / "pictures").iterdir()}
    assert run.domain.evaluate(run, n=9, pictures=False)["table"] == found["table"]
    with pytest.raises(UserError, match="n: at least two paths, not 1"):
        run.domain.evaluate(run, n=1)


def test_the_front_door_opens_runs_of_the_commands(folder):
    model = TimeSeriesDiffusion.load(folder / "run", device="cpu")
    assert model.prediction_length == 6 and model.freq == "h"
    assert model.predict(num_samples=3).names == ("a", "b", "c")
    assert TimeSeriesDiffusion.load(folder / "separate", device="cpu").predict(num_samples=3).times.shape == (6, 3)


# ---- the commands


def test_sampling_into_every_file(folder, run):
    start = pd.Timestamp("2024-01-06 12:00")  # 18 rows before the last are kept for the test
    for name in ("a.csv", "a.csv.gz", "a.parquet", "a.npz", "a.png"):
        call("sample", folder / "run", "-n", 7, "--out", folder / name, "--seed", 1)
        assert (folder / name).stat().st_size > 100
    made = pd.read_csv(folder / "a.csv", parse_dates=["ds"])
    assert list(made.columns) == ["unique_id", "ds", "sample_id", "y"] and len(made) == 7 * 6 * 3
    assert made["ds"].min() == start and set(made["unique_id"]) == {"a", "b", "c"}
    pd.testing.assert_frame_equal(made, pd.read_csv(folder / "a.csv.gz", parse_dates=["ds"]))
    pd.testing.assert_frame_equal(made, pd.read_parquet(folder / "a.parquet"), check_dtype=False)
    saved = Forecast.load(folder / "a.npz")
    assert np.allclose(saved.samples.swapaxes(1, 2).ravel(), made["y"]) and saved.times[0] == start


def test_sampling_from_new_history(folder):
    df = table()
    df.rename_axis("ds").to_csv(folder / "new.csv")
    future = pd.DataFrame({"ds": pd.date_range(df.index[-1], periods=31, freq="h")[1:], "temp": 0.1, "day": "odd"})
    future.to_csv(folder / "fut.csv", index=False)
    words = (
        "sample",
        folder / "run",
        "--history",
        folder / "new.csv",
        "--horizon",
        30,
        "-n",
        7,
        "--out",
        folder / "f.parquet",
    )
    call(*words, "--future", folder / "fut.csv")
    made = pd.read_parquet(folder / "f.parquet")
    assert (
        len(made) == 7 * 30 * 3
        and made["ds"].min() == df.index[-1] + pd.Timedelta("1h")
        and np.isfinite(made["y"]).all()
    )
    (folder / "f.parquet").unlink()
    future[:20].to_csv(folder / "short.csv", index=False)
    call(*words, "--future", folder / "short.csv", code=2)
    call(*words, code=2)
    assert not (folder / "f.parquet").exists()


def test_what_is_missing_is_said_in_one_sentence(folder, capsys):
    for words, said in [
        (("--horizon", 30), "covariate 'temp' is missing"),
        (("--horizon", 0), "horizon: at least one step"),
        (("--history", folder / "none.csv"), "there is no such file"),
        (("--history", folder / "long.csv"), "long.csv"),
    ]:
        call("sample", folder / "run", "-n", 2, "--out", folder / "x.csv", *words, code=2)
        told = " ".join(capsys.readouterr().err.split())
        assert said in told and "Traceback" not in told


def test_separate_series_on_the_command_line(folder):
    call("sample", folder / "separate", "-n", 3, "--horizon", 9, "--out", folder / "s.csv")
    made = pd.read_csv(folder / "s.csv", parse_dates=["ds"])
    ends = long((80, 70, 90)).groupby("unique_id")["ds"].max() - pd.Timedelta("18D")
    assert len(made) == 3 * 9 * 3 and made.groupby("unique_id")["ds"].min().equals(ends + pd.Timedelta("1D"))
    long((60,), seed=4).replace("s0", "fresh").to_csv(folder / "fresh.csv", index=False)
    call("sample", folder / "separate", "-n", 3, "--history", folder / "fresh.csv", "--out", folder / "fresh.png")
    assert (folder / "fresh.png").exists()


def test_chunks_of_paths_are_numbered_on(folder):
    call("sample", folder / "run", "-n", 7, "--batch-size", 3, "--out", folder / "chunks.csv")
    made = pd.read_csv(folder / "chunks.csv")
    assert sorted(made["sample_id"].unique()) == list(range(7)) and len(made) == 7 * 6 * 3


def test_thresholds_may_be_set(folder):
    call("sample", folder / "run", "-n", 2, "--clip", 3, "--out", folder / "clip.csv")
    assert len(pd.read_csv(folder / "clip.csv")) == 36


def test_the_evaluation_is_printed(folder, capsys):
    call("evaluate", folder / "run", "-n", 5)
    told = capsys.readouterr().out
    assert "CRPS_sample" in told and "seasonal naive" in told  # nothing is cut off, however narrow the terminal
    assert "LOSES to" in told or "No baseline" in json.loads((folder / "run" / "metrics.json").read_text())["verdict"]
    call("evaluate", folder / "separate", "-n", 5)
    assert "MASE" in capsys.readouterr().out


def test_training_on_the_command_line(folder, capsys):
    words = [word for key, value in SHORT.items() for word in (f"--{key}", value)]
    call(
        "train",
        "timeseries/csv",
        "--data.path",
        folder / "my.csv",
        "--data.drop",
        "[day]",
        *words,
        "--out",
        folder / "cli",
    )
    told = capsys.readouterr().out
    assert "4 series" not in told and "series of frequency h, jointly" in " ".join(told.split())
    call("train", "timeseries/csv", "--data.path", folder / "my.csv", *words, "--out", folder / "no", code=2)
    assert "'day' is not numeric" in " ".join(capsys.readouterr().err.split())
    call(
        "train",
        "timeseries/csv",
        "--data.path",
        folder / "long.csv",
        "--data.freq",
        "moon",
        *words,
        "--out",
        folder / "no",
        code=2,
    )
    assert "is no known frequency" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("recipe", ["macro", "many", "recurrent", "timegrad", "csdi"])
def test_recipes_can_be_trained_and_drawn_from(recipe, folder, tmp_path):
    short = {
        "training.steps": "2", "training.batch_size": "4", "training.pictures": "0", "sampling.steps": "2", "data.prediction_length": "4",
        "data.windows": "2", "data.context_length": "60",
    }  # fmt: skip
    if recipe == "timegrad":
        short |= {"sampling.sampler": "ddpm"}
    if recipe != "macro":
        wide(150, freq="D").rename_axis("ds").to_csv(tmp_path / "d.csv")
        short["data.path"] = str(tmp_path / "d.csv")
    run = fit(Recipe.load(f"timeseries/{recipe}", short), tmp_path / "run", console=Console(quiet=True))
    x = run.domain.draw(run.diffusion, run.codec, run.sampler(), torch.arange(2), horizon=6)
    assert x.shape == (2, 6, 12 if recipe == "macro" else 3) and x.isfinite().all()
