"""The front door: fit series, draw paths, fill gaps. A few small models serve most tests."""

from __future__ import annotations

import copy
import json

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from diffusionkit.core import DDIM
from diffusionkit.core.objectives import Simple
from diffusionkit.errors import TrainingStopped, UserError
from diffusionkit.timeseries import CSDI, TimeGrad, TimeSeriesDiffusion
from tests.timeseries.small import long, wide

TINY = {"training.batch_size": 16, "sampling.steps": 3, "training.warmup": 2}
WIDTHS = {
    "default": {"backbone.width": 16, "backbone.depth": 1},
    "many": {"backbone.width": 16, "backbone.depth": 1, "backbone.heads": 2},
    "timegrad": {"backbone.hidden": 8, "backbone.depth": 2, "sampling.steps": 3},
    "timeseries/recurrent": {"backbone.hidden": 8, "backbone.depth": 1, "backbone.channels": 8},
    "csdi": {"backbone.channels": 8, "backbone.depth": 1, "backbone.heads": 2},
}
PRESETS = list(WIDTHS)
KINDS = {"timegrad": TimeGrad, "csdi": CSDI}


def untrained(preset: str = "default", horizon: int = 6, steps: int = 3, **how) -> TimeSeriesDiffusion:
    settings = {**TINY, **WIDTHS[preset], **how.pop("settings", {})}
    made = {
        "preset": preset,
        "steps": steps,
        "settings": settings,
        "verbose": False,
        "random_state": 0,
        "device": "cpu",
        **how,
    }
    return TimeSeriesDiffusion(horizon, **made)


def daily(rows: int = 80, **how) -> pd.DataFrame:
    return wide(rows, freq="D", **how)


@pytest.fixture(scope="module")
def models() -> dict[str, TimeSeriesDiffusion]:
    return {preset: untrained(preset).fit(daily()) for preset in PRESETS}


@pytest.fixture(scope="module")
def model(models) -> TimeSeriesDiffusion:
    return models["default"]


def weights(model: TimeSeriesDiffusion) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.run_.diffusion.parameters()])


def listed(model) -> dict:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in model.get_params().items()}


def same(a, b) -> None:
    assert np.array_equal(a.samples, b.samples) and a.names == b.names and np.array_equal(a.times, b.times)


# ---- fitting


def test_fit_returns_the_model_and_leaves_the_frame_alone():
    df, made = daily(60), untrained()
    before = df.copy(deep=True)
    assert made.fit(df) is made
    pd.testing.assert_frame_equal(df, before)
    assert len(made.history_) and made.codec_.names == ("a", "b", "c")


def test_parameters_are_kept_as_scikit_learn_has_them():
    for kind in (TimeSeriesDiffusion, TimeGrad, CSDI):
        made = kind(prediction_length=5, freq="B", target={"lag": 1}, known=["x"], steps=7, random_state=3)
        twin = clone(made)
        assert type(twin) is kind and twin is not made and twin.get_params() == made.get_params()
        assert twin.set_params(steps=9).get_params()["steps"] == 9 and "prediction_length=5" in repr(twin).replace(
            "\n", ""
        )
    assert TimeGrad().preset == "timegrad" and CSDI(8, "h").preset == "csdi" and CSDI(8, "h").freq == "h"


def test_the_same_seed_gives_the_same_model_and_paths():
    a, b, c = (untrained(random_state=seed).fit(daily(60)) for seed in (1, 1, 2))
    assert torch.equal(weights(a), weights(b)) and not torch.equal(weights(a), weights(c))
    same(a.predict(num_samples=3), b.predict(num_samples=3))
    same(a.predict(num_samples=3), a.predict(num_samples=3))
    assert not np.array_equal(a.predict(num_samples=3).samples, a.predict(num_samples=3, random_state=5).samples)


def test_a_seed_leaves_torchs_own_numbers_alone(model):
    expected = torch.rand(3)
    torch.manual_seed(0)
    model.predict(num_samples=2)
    model.backtest(daily(), 1, num_samples=2, baselines=[])
    assert torch.equal(torch.rand(3), expected)


def test_beyond_32_joint_series_the_default_is_the_network_of_tokens():
    df = pd.DataFrame(np.random.default_rng(0).normal(size=(50, 33)), index=pd.date_range("2024", periods=50))
    made = untrained(settings={"backbone.heads": 2}).fit(df)
    assert made.run_.recipe.name.endswith("many") and made.predict(num_samples=2).samples.shape == (2, 6, 33)
    with pytest.raises(UserError):  # and not the other
        untrained(settings={"backbone.heads": 2}).fit(df.iloc[:, :5])


# ---- what comes


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("horizon", [None, 2, 15])
def test_paths_of_every_preset(models, preset, horizon):
    found = models[preset].predict(num_samples=4, horizon=horizon)
    steps = horizon or 6
    assert found.samples.shape == (4, steps, 3) and found.names == ("a", "b", "c") and found.joint
    assert found.times.equals(pd.date_range("2024-03-21", periods=steps, freq="D"))
    assert np.std(found.samples, 0).mean() > 0
    pd.testing.assert_series_equal(
        found.past("b"), daily()["b"][-len(found.past("b")) :], check_freq=False, check_names=False
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_frame_of_training_or_its_end_is_the_same_start(models, preset):
    same(models[preset].predict(num_samples=2), models[preset].predict(daily(), num_samples=2))


def test_new_history_is_predicted_without_refitting(model):
    before = weights(model)
    new = daily(120, seed=5)
    found = model.predict(new[["c", "a", "b"]], num_samples=2)
    assert (
        found.times[0] == pd.Timestamp("2024-04-30")
        and found.names == ("a", "b", "c")
        and torch.equal(weights(model), before)
    )
    same(found, model.predict(new, num_samples=2))


def test_several_histories_are_one_call(models):
    parts = [daily()[:k] for k in (50, 70, 80)]
    for preset in ("default", "timegrad", "csdi"):
        model, calls = models[preset], []
        sampler = Counting(calls)
        found = model.predict(parts, num_samples=300, sampler=sampler)
        assert [f.times[0] for f in found] == [p.index[-1] + pd.Timedelta("1D") for p in parts]
        assert len(calls) in (1, 6) if preset != "csdi" else len(calls) == -(-900 // 32)
        alone = model.predict(parts[0], num_samples=300, random_state=1)
        spread = alone.samples.std(0)
        assert (np.abs(alone.samples.mean(0) - found[0].samples.mean(0)) < 0.4 * spread).all()  # as in law
    assert models["default"].predict([]) == []
    one = models["default"].predict([parts[0]], num_samples=2)
    assert isinstance(one, list) and len(one) == 1
    with pytest.raises(UserError, match="future: 1 frames for 2"):
        models["default"].predict(parts[:2], future=[None])


class Counting(DDIM):
    """Notes every time that it is called."""

    def __init__(self, calls: list) -> None:
        super().__init__(3)
        self.calls = calls

    def __call__(self, *args, **how):
        self.calls.append(1)
        return super().__call__(*args, **how)


# ---- forms of data


@pytest.mark.parametrize("preset", ["default", "timeseries/recurrent", "csdi"])
@pytest.mark.parametrize("joint", [True, False])
def test_long_frames_with_covariates_and_features(preset, joint):
    rng = np.random.default_rng(0)
    df = long((70, 60, 80)).assign(x=rng.normal(size=210), k=rng.choice(["u", "v"], 210), p=rng.normal(size=210))
    static = pd.DataFrame({"size": [1.0, 2.0, 3.0], "kind": ["x", "y", "x"]}, index=["s0", "s1", "s2"])
    model = untrained(preset, known=["x", "k"], past=["p"], joint=joint).fit(df, static=static)
    ends = df.groupby("unique_id")["ds"].max()
    ends = {name: ends.max() for name in ends.index} if joint else ends.to_dict()
    future = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": pd.date_range(end, periods=9)[1:], "x": 1.0, "k": "u"})
        for name, end in ends.items()
    )
    if joint:  # those of series that have ended are not known up to the common end
        future = pd.concat([future, *_rest(df, ends)])
        future = future.sort_values(["unique_id", "ds"])
    found = model.predict(df, num_samples=3, horizon=8, future=future)
    assert found.samples.shape == (3, 8, 3) and found.joint == joint
    if not joint:
        assert found.index("s1")[0] == ends["s1"] + pd.Timedelta("1D")
        new = df[df["unique_id"] == "s1"].assign(unique_id="new")
        given = static.rename(index={"s1": "new"})
        assert model.predict(
            new, num_samples=2, future=future.replace("s1", "new").query("unique_id == 'new'"), static=given
        ).names == ("new",)
        with pytest.raises(UserError, match="static has no row for series 'new'"):
            model.predict(new, num_samples=2)
    with pytest.raises(UserError, match=r"covariate 'x'.* is missing for 2024"):
        model.predict(df, num_samples=3)
    with pytest.raises(UserError, match=r"covariate 'k' has level 'w', which the model does not know"):
        model.predict(df, num_samples=3, future=future.replace({"k": {"u": "w"}}))


def _rest(df, ends):
    for name, part in df.groupby("unique_id"):
        times = pd.date_range(part["ds"].max(), ends[name])[1:]
        yield pd.DataFrame({"unique_id": name, "ds": times, "x": 0.0, "k": "v"})


def test_series_arrays_and_entries(tmp_path):
    values = daily()["a"].to_numpy()
    series = untrained().fit(daily()["a"])
    assert series.predict(daily()["a"], num_samples=2).names == ("a",)
    array = untrained(freq="D").fit(np.stack([values, -values], 1))
    assert array.predict(np.stack([values, -values], 1)[:60], num_samples=2).samples.shape == (2, 6, 2)
    assert array.backtest(np.stack([values, -values], 1), 2, num_samples=3, baselines=[]).scores["model"]["CRPS"] > 0
    entries = [
        {"start": pd.Period("2024-01-01", "D"), "target": values[:k] * f, "item_id": i}
        for i, k, f in (("u", 80, 1), ("v", 60, 9))
    ]
    model = untrained().fit(entries)
    found = model.predict(entries, num_samples=2)
    assert found.names == ("u", "v") and found.times.shape == (6, 2) and not found.joint
    single = model.predict([entries[1]], num_samples=2)
    assert single.names == ("v",) and single.samples.shape == (2, 6, 1)
    assert model.backtest(entries, 2, num_samples=3, baselines=["persistence"]).forecasts[0].names == ("u", "v")
    wide_entry = [{"start": "2024-01-01", "target": daily().to_numpy().T, "freq": "D"}]
    assert untrained(freq="D").fit(wide_entry).predict(num_samples=2).samples.shape == (2, 6, 3)


def test_gaps_zones_and_periods():
    df = daily(100, holes=0.3).drop(pd.Timestamp("2024-02-01"))
    found = untrained(freq="D").fit(df).predict(num_samples=2)
    assert found.samples.shape == (2, 6, 3)
    berlin = daily().tz_localize("Europe/Berlin")
    found = untrained().fit(berlin).predict(berlin[:60], num_samples=2)
    assert str(found.times.tz) == "Europe/Berlin" and found.times[0] == pd.Timestamp("2024-03-01", tz="Europe/Berlin")
    months = wide(80, freq="MS").to_period("M")
    assert untrained().fit(months).predict(num_samples=2).times[0] == pd.Timestamp("2030-09-01")


@pytest.mark.parametrize("preset", PRESETS)
def test_one_series(preset):
    made = untrained(preset).fit(daily(size=1))
    assert made.predict(num_samples=2, horizon=8).samples.shape == (2, 8, 1)


def test_counts_stay_counts_and_positive():
    counts = pd.DataFrame(
        np.random.default_rng(0).poisson(2, (80, 2)), index=pd.date_range("2024", periods=80), columns=list("ab")
    )
    drawn = untrained().fit(counts).predict(num_samples=5).samples
    assert (drawn == drawn.round()).all() and (drawn >= 0).all()


# ---- files


@pytest.mark.parametrize("preset", PRESETS)
def test_save_and_load_give_the_same_forecasts(models, preset, tmp_path):
    model = models[preset]
    model.save(tmp_path / "m")
    kind = KINDS.get(preset, TimeSeriesDiffusion)
    again = kind.load(tmp_path / "m", device="cpu")
    assert type(again) is kind and listed(again) == listed(model)
    same(again.predict(num_samples=3), model.predict(num_samples=3))
    new = daily(120, seed=3)
    same(again.predict(new, num_samples=3, horizon=9), model.predict(new, num_samples=3, horizon=9))


def test_separate_models_come_back(tmp_path):
    df = long((70, 50, 90))
    model = untrained(joint=False, known=[]).fit(df)
    model.save(tmp_path)
    again = TimeSeriesDiffusion.load(tmp_path, device="cpu")
    same(again.predict(num_samples=3), model.predict(num_samples=3))
    same(again.predict(df, num_samples=3), model.predict(df, num_samples=3))


def test_a_damaged_or_foreign_folder_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="there is no such run folder"):
        TimeSeriesDiffusion.load(tmp_path / "none")
    model.save(tmp_path)
    (tmp_path / "estimator.json").write_text(json.dumps({"size": 3}))
    with pytest.raises(UserError, match=r"estimator.json: damaged"):
        TimeSeriesDiffusion.load(tmp_path)


# ---- update


@pytest.mark.parametrize("joint", [True, False])
def test_update_trains_on_and_keeps_scales(joint):
    df = long((80, 80, 80)) if not joint else daily(110)
    model = untrained(joint=joint).fit(df.groupby("unique_id").head(60) if not joint else df[:80])
    before, stats, target = weights(model), model.codec_.stats, model.codec_.target
    assert model.update(df, 4) is model
    assert not torch.equal(weights(model), before) and model.codec_.target == target
    if joint:
        assert model.codec_.stats is stats
    assert model.predict(num_samples=2).times[0] == pd.Timestamp("2024-04-20" if joint else "2024-03-21")
    same(model.predict(num_samples=2), model.predict(df, num_samples=2))
    assert len(model.history_) > 1 and model.run_.step == 7


def test_update_goes_back_where_the_loss_is_not_finite(monkeypatch):
    model = untrained().fit(daily())
    before, codec = weights(model), model.codec_
    forecast = model.predict(num_samples=2)
    real = Simple.__call__
    monkeypatch.setattr(Simple, "__call__", lambda *args: real(*args) * torch.nan)
    with pytest.raises(TrainingStopped, match="not a finite number at step"):
        model.update(daily(100), 3)
    assert torch.equal(weights(model), before) and model.codec_ is codec
    same(model.predict(num_samples=2), forecast)


def test_update_refuses_what_does_not_fit(model):
    twin = copy.deepcopy(model)
    with pytest.raises(UserError, match="series 'c' of the model is not in the data"):
        twin.update(daily()[["a", "b"]])
    with pytest.raises(UserError, match="too short to train on"):
        twin.update(daily(5))


# ---- a loss that is not finite


@pytest.mark.parametrize("good", [False, True])
def test_fit_stops_and_keeps_the_last_good_weights(monkeypatch, good):
    real, count = Simple.__call__, [0]

    def bad(self, diffusion, x0, cond=None, rows=None):
        count[0] += 1
        loss = real(self, diffusion, x0, cond, rows)
        return loss * torch.nan if count[0] > 5 else loss

    monkeypatch.setattr(Simple, "__call__", bad)
    model = untrained(steps=12, settings={"training.every": 4 if good else 12})
    with pytest.raises(TrainingStopped, match="has the weights of step 4" if good else "nothing was saved"):
        model.fit(daily())
    monkeypatch.undo()
    assert hasattr(model, "run_") == good
    if good:
        assert weights(model).isfinite().all() and model.predict(num_samples=2).samples.shape == (2, 6, 3)
        shorter = untrained(steps=12, settings={"training.every": 4})
        shorter.fit(daily())
        assert not torch.equal(weights(shorter), weights(model))


# ---- gaps and new series


def test_impute_returns_what_was_observed_untouched(models):
    df = daily(90, holes=0.3)
    found = models["csdi"].impute(df, draws=3)
    assert len(found) == 3 and not np.array_equal(found[0], found[1])
    for one in found:
        assert one.notna().all(axis=None)
        pd.testing.assert_frame_equal(one.where(df.notna()), df)
    single = models["csdi"].impute(df, draws=1, random_state=4)
    pd.testing.assert_frame_equal(single, models["csdi"].impute(df, draws=1, random_state=4))


def test_new_series(models):
    found = models["csdi"].generate(4)
    assert found.shape == (4, models["csdi"].codec_.context + 6, 3) and np.isfinite(found).all()
    assert not np.array_equal(found[0], found[1])
    assert np.array_equal(models["csdi"].generate(2, random_state=3), models["csdi"].generate(2, random_state=3))


def test_only_whole_windows_fill_gaps(models):
    for preset in ("default", "many", "timegrad"):
        for call in (lambda m: m.impute(daily()), lambda m: m.generate()):
            with pytest.raises(UserError, match="use preset='csdi'"):
                call(models[preset])


# ---- measuring


def test_a_backtest(models):
    for preset in ("default", "timegrad", "csdi"):
        found = models[preset].backtest(daily(), windows=3, num_samples=5, stride=4, baselines=["random walk"])
        assert list(found.table.columns) == ["model", "random walk"] and len(found.forecasts) == 3
        assert found.forecasts[0].times[0] == pd.Timestamp("2024-03-21") - pd.Timedelta("14D")
        assert np.isfinite(found.table.loc[["CRPS", "CRPS_sum", "energy"]]).all(axis=None)
    again = models["default"].backtest(daily(), windows=2, num_samples=5, horizon=9, baselines=[])
    assert again.forecasts[0].samples.shape == (5, 9, 3)


# ---- refusals


def test_impossible_wishes_are_refused(models):
    model = models["default"]
    for call, said in [
        (lambda: model.predict(horizon=0), "horizon: at least one"),
        (lambda: model.predict(num_samples=0), "num_samples: at least one"),
        (lambda: model.predict(steps=0), "steps: at least one"),
        (lambda: model.backtest(daily(), windows=0), "windows: at least one"),
        (
            lambda: model.backtest(daily(), windows=30),
            "series 'a' has 80 rows until 2024-03-20 00:00:00, and 30 windows of 6 steps need 18",
        ),
        (lambda: models["csdi"].impute(daily(), draws=0), "draws: at least one"),
        (lambda: models["csdi"].generate(0), "n: at least one"),
        (lambda: untrained(target={"lag": 99}, context_length=20).fit(daily()), "longest lag reaches back 99"),
        (lambda: untrained(horizon=100).fit(daily()), "give more rows or a shorter prediction_length"),
        (lambda: untrained(horizon=0).fit(daily()), "prediction_length"),
        (lambda: untrained(target={"log": 1}).fit(daily()), "codec has no option 'log'"),
        (lambda: untrained(freq="fortnight").fit(daily()), "'fortnight' is no known frequency"),
        (lambda: untrained().fit(daily()[::-1]), "not sorted by time"),
        (lambda: untrained().fit(daily().assign(b="x")), "'b' is not numeric"),
        (lambda: untrained().fit(daily().assign(b=np.nan)), "series 'b' holds no value"),
        (lambda: untrained(known=["zz"]).fit(daily()), "covariate 'zz' of known is not in the frame"),
        (
            lambda: TimeSeriesDiffusion(6, preset="image/digits", verbose=False).fit(daily()),
            "is a recipe of the domain image",
        ),
        (
            lambda: untrained(settings={"data.codec": {"sample": 2}}).fit(daily()),
            "set data.codec.sample to 0, or take 'inverted'",
        ),
    ]:
        with pytest.raises(UserError, match=said):
            call()


# ---- many series


@pytest.mark.parametrize("size", [8, 2000])
def test_many_series_in_bounded_memory(size):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(rng.normal(size=(90, size)).cumsum(0), index=pd.date_range("2024", periods=90))
    made = untrained(
        "many", steps=2, context_length=30, settings={"training.batch_size": 4, "data.codec": {"sample": 16, "lag": 1}}
    ).fit(df)
    assert made.predict(num_samples=2).samples.shape == (2, 6, size)
    batch = made.codec_.windows(made.codec_.tail).batch(torch.tensor([0]), torch.Generator())
    assert batch.x.shape[2] == min(size, 16)


def test_draws_of_the_series_take_their_covariates_along():
    rng = np.random.default_rng(0)
    df = long((60,) * 5).assign(x=rng.normal(size=300), p=rng.normal(size=300))
    made = untrained("many", known=["x"], past=["p"], settings={"data.codec": {"sample": 2, "lag": 1}}).fit(df)
    future = pd.concat(
        pd.DataFrame({"unique_id": f"s{i}", "ds": pd.date_range("2024-02-29", periods=7)[1:], "x": 1.0})
        for i in range(5)
    )
    assert made.predict(df, num_samples=2, future=future).samples.shape == (2, 6, 5)
    with pytest.raises(UserError, match="sample draws series for networks whose tokens they are"):
        untrained("csdi", settings={"data.codec": {"form": "window", "lag": 0, "sample": 2}}).fit(daily())


def test_many_separate_series():
    made = untrained(joint=False, steps=2, target={"lag": 1}, context_length=12).fit(
        long(tuple(20 + i % 15 for i in range(300)))
    )
    assert made.predict(num_samples=2).samples.shape == (2, 6, 300)
