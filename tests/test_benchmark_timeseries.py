from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import timeseries, timeseries_quality, timeseries_speed
from benchmarks.timeseries_figures import comparison, judged, missed, number, summary, verdict
from benchmarks.timeseries_impute import hidden, measure, table
from benchmarks.timeseries_quality import fit, steps_in
from benchmarks.timeseries_reference import alone, recurrent
from benchmarks.timeseries_sets import SETS, Goal, seasons, task
from benchmarks.timing import fresh_peak, peak
from diffusionkit.timeseries import published
from diffusionkit.timeseries.prepare import prepared

EXCHANGE, TOURISM, ETT, AIR = "exchange_rate_nips", "tourism_monthly", "etth1", "air_quality_uci"
TINY = ["backbone.width=8", "backbone.depth=1", "training.batch_size=8", "sampling.steps=2", "data.context_length=12"]
CSDI = [
    "backbone.channels=8",
    "backbone.depth=1",
    "training.batch_size=4",
    "sampling.steps=2",
    "data.context_length=12",
]


def walks(rows, series, freq, seed=0):
    """Positive walks with a daily wave."""
    rng = np.random.default_rng(seed)
    wave = np.sin(2 * np.pi * np.arange(rows) / 24)[:, None]
    values = np.exp(rng.normal(size=(rows, series)).cumsum(0) / 50 + wave / 10)
    index = pd.date_range("2020-01-01", periods=rows, freq=freq, name="ds")
    return pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(series)])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Short series in the folder of the published ones, under their names."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "timeseries"
    folder.mkdir()
    walks(124, 3, "B").to_parquet(folder / f"{EXCHANGE}.parquet")
    walks(420, 2, "h").to_parquet(folder / f"{ETT}.parquet")
    walks(420, 4, "5min").to_parquet(folder / "metr_la_week.parquet")
    walks(220, 5, "h").mul(3).round().to_parquet(folder / "montevideo_bus.parquet")
    air = walks(230, 4, "h")
    air = air.mask(np.random.default_rng(1).random(air.shape) < 0.1)
    air.iloc[100:, 3] = np.nan  # an instrument that was switched off
    air.to_parquet(folder / f"{AIR}.parquet")
    long = walks(60, 4, "MS").reset_index().melt("ds", var_name="unique_id", value_name="y")
    late = long.groupby("unique_id").cumcount(ascending=False) < 4
    long.assign(split=np.where(late, "test", "train")).to_parquet(folder / f"{TOURISM}.parquet")
    return str(root)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """The splits of the short series."""
    changes = {
        EXCHANGE: {"horizon": 2, "windows": 2, "start": 120},
        TOURISM: {"horizon": 4, "start": -4},
        ETT: {"horizon": 4, "windows": 2, "start": 400},
        AIR: {"horizon": 4, "windows": 3, "start": 200, "stride": 10},
        "metr_la_week": {"horizon": 4, "windows": 2, "start": 400},
        "montevideo_bus": {"horizon": 4, "windows": 2, "start": 210},
    }
    for name, change in changes.items():
        monkeypatch.setitem(published.SPLITS, name, replace(published.SPLITS[name], **change))
    monkeypatch.setattr(timeseries_quality, "_TRIAL", 8)


@pytest.fixture
def run(data, tmp_path, capsys):
    """The command on the short series; gives what it has printed."""

    def call(*words):
        where = ["--data", data, "--out", str(tmp_path / "out"), "--models", str(tmp_path / "models"), "--threads", "1"]
        timeseries.main([*words, *where])
        return capsys.readouterr().out

    return call


@pytest.fixture
def options(data, tmp_path):
    """Those of the command on the short series."""

    def make(*words):
        parser = timeseries._parser()
        return parser.parse_args(["quality", *words, "--data", data, "--models", str(tmp_path / "models")])

    return make


def cells(tmp_path, part):
    return json.loads((tmp_path / "out" / f"timeseries_{part}.json").read_text())["cells"]


def tiny(*words, settings=TINY):
    return [*words, "--seeds", "0", "--samples", "8", "--settings", *settings]


# ---- quality ----


def test_quality_measures_once_and_goes_on(run, tmp_path, monkeypatch):
    words = tiny("quality", "--sets", EXCHANGE, TOURISM, "--steps", "3")
    said = run(*words, "--pictures", str(tmp_path / "pictures"))
    found = cells(tmp_path, "quality")
    ours = [name for name in found if name.startswith("own/")]
    assert [name.split("/")[1] for name in ours] == [EXCHANGE, TOURISM] and len(found) == 4
    assert all("3steps" in name and "8paths" in name and "backbone.width=8" in name for name in ours)
    joint, single = (found[name]["figures"] for name in ours)
    assert joint["CRPS_sum"] > 0 and joint["peak_mb"] > 50 and "CRPS_sum" not in single and single["MASE"] > 0
    assert found[ours[0]]["steps"] == 3 and found[ours[0]]["recipe"]["backbone"]["width"] == 8
    assert "root" not in found[ours[0]]["recipe"]["data"]
    plain = found[f"baselines/{EXCHANGE}/0/8paths"]["figures"]
    assert plain["persistence"]["CRPS"] == pytest.approx(plain["persistence"]["ND"]), "a point"
    assert (
        "climatology *" in said and "gates missed" in said and (tmp_path / "pictures" / "timeseries_pit.png").exists()
    )

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(timeseries_quality, "fit", never)
    assert "measured already" in run(*words)
    with pytest.raises(AssertionError, match="again"):
        run(*words, "--fresh")
    with pytest.raises(AssertionError, match="again"):
        run(*tiny("quality", "--sets", EXCHANGE, "--steps", "4"))


def test_a_changed_recipe_is_noticed(run, tmp_path):
    words = tiny("quality", "--sets", EXCHANGE, "--steps", "2")
    assert "another then" not in run(*words) + run(*words)
    path = tmp_path / "out" / "timeseries_quality.json"
    path.write_text(path.read_text().replace('"width": 8', '"width": 9'))
    assert "another then" in run(*words)


def test_choices_are_made_before_the_test(options):
    test, validation = (task(EXCHANGE, options(*words)) for words in ((), ("--validation",)))
    assert test.judged == EXCHANGE and validation.judged == f"{EXCHANGE}@validation"
    assert validation.test.panel.blocks[0].index[-1] == test.train.blocks[0].index[-1]
    assert validation.test.actual.shape == test.test.actual.shape
    assert len(test.train.blocks[0]) == 120 and len(validation.train.blocks[0]) == 116 == validation.test.cuts[0, 0]


def test_other_recipes_get_the_data_of_a_set(options):
    one = task(TOURISM, options("--preset", "timegrad"))
    sections = one.recipe.sections
    assert sections["data"]["set"] == TOURISM and not one.train.joint and one.label == f"timegrad/{TOURISM}"
    assert sections["data"]["codec"]["form"] == "steps" and sections["backbone"]["name"] == "timegrad"


def test_seasons_of_which_there_are_two(options):
    assert seasons(task(ETT, options()).test) == [24, 168]
    assert seasons(task("montevideo_bus", options()).test) == [24]


def test_the_reference_is_trained_for_as_long(run, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(timeseries_quality, "steps_in", lambda *words: asked.append(words[-1]) or 2)
    said = run(*tiny("quality", "--sets", EXCHANGE, "--steps", "3", "--reference"))
    found = cells(tmp_path, "quality")
    ours, theirs = (next(cell for name, cell in found.items() if name.startswith(who)) for who in ("own", "timegrad"))
    assert asked == [ours["figures"]["train_seconds"] / 60] and theirs["steps"] == 2
    assert theirs["recipe"]["backbone"]["name"] == "timegrad" and theirs["recipe"]["sampling"]["steps"] == 100
    assert "TimeGrad" in said


def test_minutes_become_steps(options, capsys):
    one = task(EXCHANGE, options("--settings", *TINY))
    run, spent = fit(one.recipe, one.train, 0, minutes=1 / 120)
    rate = float(capsys.readouterr().out.split()[0])  # steps a second
    assert run.step == pytest.approx(max(rate / 2, 1), abs=1) and spent["train_seconds"] > 0
    windows = prepared(one.recipe.build("data"), {"train": one.train})[1]["train"]
    before = {name: value.clone() for name, value in run.diffusion.state_dict().items()}
    assert steps_in(run.diffusion, windows, one.recipe.build("training"), 0.0) == 1
    assert all(torch.equal(value, before[name]) for name, value in run.diffusion.state_dict().items())


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux starts it anew")
def test_memory_is_that_of_a_cell():
    fresh_peak()
    before = peak()
    block = np.ones(8_000_000)
    assert peak() > before + 50 and block[0] == 1


# ---- imputation ----


def test_gaps_are_filled_and_measured(run, tmp_path):
    said = run(*tiny("impute", "--steps", "2", settings=CSDI))
    found = cells(tmp_path, "impute")
    assert len(found) == 4 and {f"baselines/{AIR}/{share}/0" for share in (0.1, 0.5, 0.9)} < set(found)
    (ours,) = (cell for name, cell in found.items() if name.startswith("own"))
    assert set(ours["figures"]) == {"0.1", "0.5", "0.9"} and ours["figures"]["0.5"]["crps"] > 0
    plain = found[f"baselines/{AIR}/0.5/0"]["figures"]
    line = plain["linear interpolation"]
    assert line["crps"] == pytest.approx(line["mae"]) and line["crps_pooled"] == pytest.approx(line["mae_pooled"])
    assert plain["seasonal mean"]["mae"] != plain["seasonal mean, and training"]["mae"]
    assert "90% hidden" in said and "CRPS / deviation" in said


def test_hidden_cells_are_a_share_of_the_observed_ones():
    values = np.where(np.random.default_rng(0).random((50, 4)) < 0.3, np.nan, 1.0)
    for share in (0.1, 0.9):
        mask = hidden(values, share, 1)
        assert mask.sum() == round(share * np.isfinite(values).sum()) and not mask[np.isnan(values)].any()
    assert (hidden(values, 0.5, 1) == hidden(values, 0.5, 1)).all() and (
        hidden(values, 0.5, 1) != hidden(values, 0.5, 2)
    ).any()


def test_figures_of_fills_with_known_answers():
    values, mask = np.array([[1.0, 10.0], [2.0, 20.0]]), np.array([[True, False], [False, True]])
    found = measure(np.stack([values + np.diag([3.0, 4.0])] * 2), values, mask, np.array([1.0, 2.0]))
    assert found["mae"] == found["crps"] == pytest.approx((3 / 1 + 4 / 2) / 2)
    assert found["mae_pooled"] == pytest.approx(7 / 21) and found["coverage_80"] == 0
    ours, others = [{"crps": 1.0}], [{"a": {"crps": 2.0}, "b": {"crps": 1.5}}]
    assert table(ours, others)[0] | {"measure": ""} == {
        "measure": "", "model": "1.00", "gate": "1.50", "reached": "gate", "a": "2.00", "b": "1.50",
    }  # fmt: skip
    assert table([{"crps": 1.5}], others)[0]["reached"] == "MISSED"


# ---- speed ----


@pytest.mark.parametrize(
    ("preset", "name"), [("default", EXCHANGE), ("default", ETT), ("timegrad", EXCHANGE), ("timegrad", ETT)]
)
def test_a_loader_by_window_makes_the_same_batches(options, preset, name):
    one = task(name, options("--settings", "data.codec={lag: 1}") if preset == "default" else options(), preset)
    codec, parts = prepared(one.recipe.build("data"), {"train": one.train})
    windows = parts["train"]
    indices = torch.tensor([0, 1, len(windows) // 2, len(windows) - 1])
    ours = windows.batch(indices)
    ways = [alone, recurrent] if preset == "timegrad" else [alone]
    for way in ways:
        theirs = way(one.train, codec, windows)(indices)
        assert set(theirs.cond) == set(ours.cond)
        pairs = [(ours.x, theirs.x), *((ours.cond[key], theirs.cond[key]) for key in ours.cond)]
        for mine, other in pairs:
            assert mine.dtype == other.dtype and torch.allclose(mine, other, rtol=1e-5, atol=1e-6, equal_nan=True)
    if preset == "default":
        with pytest.raises(ValueError, match="TimeGrad"):
            recurrent(one.train, codec, windows)


@pytest.mark.slow
def test_speed_has_a_line_for_each_comparison(run, tmp_path):
    said = run("speed", "--samples", "2", "--wide", "1", "--repeats", "1", "--fast", "3", "--batch", "4")
    found = cells(tmp_path, "speed")
    chain = found[f"chain/{EXCHANGE}/2"]
    names = list(chain["samplers"])
    assert names[0] == "chain, 100 steps" and names[1].startswith("default") and names[2].endswith(", 3 steps")
    assert chain["samplers"][names[0]]["ratio"] == 1 < chain["samplers"][names[2]]["ratio"]
    assert chain["windows"] == 2 and found["chain/metr_la_week/1"]["windows"] == 1
    assert set(found[f"reference/{EXCHANGE}/2"]["ratios"]) == {
        "TimeGrad, window by window", "TimeGrad, all windows at once", "ours",
    }  # fmt: skip
    assert {found[f"batches/{preset}/{ETT}/4"]["form"] for preset in ("default", "timegrad")} == {"block", "steps"}
    assert said.count("at least 8") == 3 and said.count("at least 3") == 4 and "untrained" in said


def test_speed_takes_the_weights_that_quality_left(run, options):
    run("quality", "--sets", EXCHANGE, "--seeds", "0", "--settings", "training.steps=2")
    one = task(EXCHANGE, options())
    assert timeseries_speed._model(one, options())[1] == "untrained", "trained with other settings"
    fit(one.recipe.override({"training.steps": "1"}), one.train, 0)[0].save(
        timeseries_quality.folder(options().models, timeseries_quality.key(one, 0, options()))
    )
    assert timeseries_speed._model(one, options())[1] == "weights of 1 steps"


def test_quality_within_the_noise_of_the_rounds_is_as_good():
    good = timeseries_speed._as_good
    assert good([1.0, 1.2, 1.1], [1.0, 1.2, 1.05])[0] and good([0.5], [1.0])[0] and good([], [])[0]
    assert not good([1.3, 1.31, 1.32], [1.0, 1.01, 1.02])[0]


# ---- figures ----


def test_goals_in_figures_and_in_shares_of_baselines():
    plain = Goal(0.5, 0.4)
    assert [plain.met(value, {}) for value in (0.6, 0.5, 0.4)] == ["MISSED", "gate", "ambition"]
    below, others = Goal(1.0, 0.9, ("a", "b")), {"a": 2.0, "b (7)": 1.0, "c": 0.1}
    assert below.bounds(others) == (1.0, 0.9), "other seasons count, other baselines do not"
    assert [below.met(value, others) for value in (1.0, 0.95, 0.85)] == ["MISSED", "gate", "ambition"]
    assert Goal(1.0, None, ("a",)).met(1.9, others) == "gate"


def test_every_set_has_goals_that_its_baselines_can_set():
    others = dict.fromkeys(("persistence", "seasonal naive", "random walk", "seasonal blocks", "climatology"), 1.0)
    for name, one in SETS.items():
        assert one.goals and name in published.SPLITS
        for goal in one.goals.values():
            gate, ambition = goal.bounds(others)
            assert ambition is None or ambition < gate
    assert judged(EXCHANGE, "coverage_80", 0.8, {})[2] == "gate"
    assert {judged(EXCHANGE, "coverage_80", value, {})[2] for value in (0.7, 0.9)} == {"MISSED"}
    assert judged(EXCHANGE, "ND", 0.1, {}) == ("", "", "")


def test_tables_say_what_is_missed_and_what_is_better():
    runs = [{"CRPS": 0.1, "energy": 1.0, "coverage_80": 0.8}, {"CRPS": 0.3, "energy": 1.0, "coverage_80": None}]
    plain = [{"persistence": {"CRPS": 0.1, "energy": 2.0}, "climatology": {"CRPS": 0.4, "energy": 0.9}}]
    rows = comparison("irish_wind", {"model": runs}, plain)
    assert [row["measure"] for row in rows] == ["CRPS", "energy score, a step", "80 % cover"]
    assert rows[0]["model"] == "0.200 ± 0.1" and rows[0]["gate"] == "0.100" and rows[0]["ambition"] == "0.0900"
    assert missed(rows) == ["CRPS"] and rows[1]["reached"] == "ambition" and "climatology *" in rows[0]
    assert verdict(runs, plain).startswith("better than the model: persistence by CRPS; climatology * by energy")
    assert (
        summary([{"ND": 0.5}], "ND") == "0.500"
        and summary([{}], "ND") == ""
        and number(4096.4) == "4,096"
        and number(312.3) == "312"
    )


def test_what_cannot_be_meant_is_refused(capsys, monkeypatch):
    for words, said in (
        (["quantity"], "no part 'quantity'"), (["quality", "--sets", "exchange"], "no set 'exchange'"),
        (["quality", "--settings", "width"], "KEY=VALUE"),
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            timeseries.main(words)
        assert said in capsys.readouterr().err
    monkeypatch.delenv("DIFFUSIONKIT_DATA", raising=False)
    with pytest.raises(SystemExit):
        timeseries.main(["quality"])
    assert "DIFFUSIONKIT_DATA" in capsys.readouterr().err
