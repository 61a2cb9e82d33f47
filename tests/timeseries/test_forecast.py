"""What is read off paths has known answers; tables, files and GluonTS hold the same numbers, names and times."""

from __future__ import annotations

import datetime
import sys

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries import saved
from diffusionkit.timeseries.forecast import Forecast

NAMES = ("a", 3, ("x", 1))


def made(names=NAMES, steps=6, paths=40, freq="h", tz="Europe/Berlin", past=10, seed=0, **rest) -> Forecast:
    rng = np.random.default_rng(seed)
    times = pd.date_range("2020-03-28 18:00", periods=past + steps, freq=freq, tz=tz)
    history = (
        pd.DataFrame(rng.normal(size=(past, len(names))), index=times[:past], columns=list(names)) if past else None
    )
    return Forecast(rng.normal(size=(paths, steps, len(names))), names, times[past:], freq, history, **rest)


def ragged(tz="Asia/Tokyo") -> Forecast:
    """Two series that end at different times, with a long history."""
    rng = np.random.default_rng(1)
    starts = [pd.Timestamp("2020-01-01"), pd.Timestamp("2020-02-01")]
    times = np.stack([pd.date_range(start, periods=3, freq="D").to_numpy() for start in starts], 1)
    past = [
        pd.date_range(end=start - pd.Timedelta("1D"), periods=4, freq="D", tz="UTC").tz_convert(tz) for start in starts
    ]
    history = pd.DataFrame(
        {"unique_id": np.repeat(["p", "q"], 4), "ds": past[0].append(past[1]), "y": rng.normal(size=8)}
    )
    return Forecast(rng.normal(size=(20, 3, 2)), ("p", "q"), times, "D", history, joint=False, tz=tz)


@pytest.mark.parametrize("paths", [1, 4, 11, 100])
def test_quantiles_are_sorted_paths(paths):
    forecast = made(paths=paths)
    ordered = np.sort(forecast.samples, 0)
    for q in (0, 0.1, 0.5, 0.625, 1):
        assert np.array_equal(forecast.quantile(q), ordered[int(np.round((paths - 1) * q))])
    assert np.array_equal(forecast.median, forecast.quantile(0.5))
    assert np.allclose(forecast.mean, forecast.samples.mean(0))


def test_an_interval_holds_its_share_of_the_paths():
    forecast = made(paths=1001)
    for level in (50, 80, 99.5):
        low, high = (bound.to_numpy() for bound in forecast.interval(level))
        held = ((forecast.samples >= low) & (forecast.samples <= high)).mean(0)
        assert np.abs(held - level / 100).max() < 2.1 / 1001
    with pytest.raises(UserError, match="level 0.8: levels are per cent"):
        forecast.interval(0.8)
    with pytest.raises(UserError, match="1.2"):
        forecast.quantile(1.2)


def test_frames_have_the_labels_of_the_series_and_the_times():
    forecast = made()
    assert list(forecast.mean.columns) == list(NAMES) and forecast.mean.index.equals(forecast.times)
    wide = forecast.to_frame([80, 99.5])
    assert list(wide.columns[:5]) == ["a", "a-lo-80", "a-hi-80", "a-lo-99.5", "a-hi-99.5"]
    assert wide[3].equals(forecast.mean[3]) and wide.index.name == "ds" and wide.shape == (6, 15)
    low, high = forecast.interval(99.5)
    assert np.array_equal(wide["3-lo-99.5"], low[3]) and np.array_equal(wide["3-hi-99.5"], high[3])


def test_long_and_wide_tables_agree():
    forecast = made(("b", "a"))
    wide, long = forecast.to_frame([90]), forecast.to_frame([90], long=True, name="Model")
    assert list(long.columns) == ["unique_id", "ds", "Model", "Model-median", "Model-lo-90", "Model-hi-90"]
    for name in ("b", "a"):
        rows = long[long["unique_id"] == name].set_index("ds")
        assert np.array_equal(rows["Model"], wide[name]) and np.array_equal(rows["Model-hi-90"], wide[f"{name}-hi-90"])
        assert rows.index.equals(wide.index) and np.array_equal(rows["Model-median"], forecast.median[name])


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(UserError, match="'a-lo-80'; take to_frame"):
        made(("a", "a-lo-80")).to_frame([80])


def test_paths_come_back_from_their_table():
    for forecast in (made(("b", "a", "c")), ragged()):
        table = forecast.paths()
        assert list(table.columns) == ["unique_id", "ds", "sample_id", "y"]
        for d, name in enumerate(forecast.names):
            rows = table[table["unique_id"] == name].pivot(index="sample_id", columns="ds", values="y")
            assert np.array_equal(rows, forecast.samples[:, :, d]) and rows.columns.equals(
                forecast.index(name).rename("ds")
            )


def test_series_that_end_at_different_times():
    forecast = ragged()
    assert not forecast.common and list(forecast.mean.index) == [1, 2, 3] and forecast.mean.index.name == "step"
    long = forecast.to_frame([80], long=True)
    expected = pd.date_range("2020-02-01", periods=3, freq="D", tz="UTC").tz_convert("Asia/Tokyo")
    assert pd.DatetimeIndex(long["ds"][3:]).equals(expected) and forecast.index("q").equals(expected)
    assert forecast.past("q").index[-1] == expected[0] - pd.Timedelta("1D")
    assert forecast.select("q").common and forecast.select("q").times.equals(expected)


def test_equal_times_become_an_index():
    forecast = made(tz=None)
    again = Forecast(forecast.samples, NAMES, np.repeat(forecast.times.to_numpy()[:, None], 3, 1), "h")
    assert again.times.equals(forecast.times)


def test_selection_and_sum():
    forecast = made()
    some = forecast.select([("x", 1), "a"])
    assert some.names == (("x", 1), "a") and np.array_equal(some.samples, forecast.samples[:, :, [2, 0]])
    assert list(some.history.columns) == [("x", 1), "a"]
    one = forecast.select(("x", 1))
    assert one.names == (("x", 1),) and one.past(("x", 1)).equals(forecast.past(("x", 1)))
    total = forecast.total("all")
    assert total.names == ("all",) and np.allclose(total.samples[:, :, 0], forecast.samples.sum(2))
    assert np.allclose(total.past("all"), forecast.history.to_numpy().sum(1))
    with pytest.raises(UserError, match=r"no series 'z'; there are 'a', 3, \('x', 1\)"):
        forecast.select("z")
    for other in (ragged(), made(joint=False)):
        with pytest.raises(UserError, match="joint"):
            other.total()


def test_what_came_is_found_by_name_and_time():
    forecast = made(("a", "b"))
    span = forecast.history.index.append(forecast.times)
    frame = pd.DataFrame({"b": np.arange(16.0), "other": "text", "a": np.arange(16) + 0.5}, index=span)
    expected = np.stack([np.arange(10, 16) + 0.5, np.arange(10.0, 16)], 1)
    assert np.array_equal(forecast.align(frame), expected)
    assert np.array_equal(forecast.align(frame.tz_convert("Asia/Tokyo")), expected)
    long = frame[["a", "b"]].rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    assert np.array_equal(forecast.align(long.sample(frac=1, random_state=0)), expected)
    assert np.array_equal(forecast.align(expected), expected)
    assert np.array_equal(forecast.select("a").align(frame["a"].rename("z")), expected[:, :1])
    part = forecast.align(frame.drop(index=forecast.times[[1, 4]]))
    assert np.isnan(part[[1, 4]]).all() and np.array_equal(part[[0, 2, 3, 5]], expected[[0, 2, 3, 5]])
    other = ragged()
    assert np.array_equal(
        other.align(other.to_frame([80], long=True).rename(columns={"diffusionkit": "y"})), other.mean
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop(columns="b"), "actual: series 'b' is missing"),
        (lambda frame: frame.tz_localize(None), "actual: the time stamps have no time zone"),
        (lambda frame: frame.iloc[:10], "actual: has no row at the times of the forecast, 2020-03-29"),
        (lambda frame: frame.iloc[[*range(16), 12]], "stands twice"),
        (lambda frame: frame.assign(b="x"), "column 'b' is not numeric"),
        (lambda frame: frame.to_numpy(), r"shape \(16, 2\); the forecast has \(steps, series\) = \(6, 2\)"),
    ],
)
def test_what_came_is_refused_if_it_does_not_fit(change, said):
    forecast = made(("a", "b"))
    frame = pd.DataFrame({"a": 1.0, "b": 2.0}, index=forecast.history.index.append(forecast.times))
    with pytest.raises(UserError, match=said):
        forecast.align(change(frame))


def same(a: Forecast, b: Forecast) -> None:
    assert np.array_equal(a.samples, b.samples) and a.names == b.names and a.freq == b.freq and a.joint == b.joint
    assert [type(name) for name in a.names] == [type(name) for name in b.names]
    assert a.common == b.common
    for name in a.names:
        assert a.index(name).equals(b.index(name)) and a.index(name).dtype == b.index(name).dtype
    if a.history is None:
        assert b.history is None
    else:
        pd.testing.assert_frame_equal(a.history, b.history)


@pytest.mark.parametrize(
    "forecast",
    [
        made(), made(tz=None, freq="B"), made(past=0, freq="MS", tz=None, joint=False), made(("ä\n", True, 2.5)),
        made(tz=datetime.timezone(datetime.timedelta(hours=-3.5))), made(tz="UTC", freq="5min"), ragged(), ragged(None),
        made((("x", 1), ("x", 2)), freq="QS", tz=None),
    ],
)  # fmt: skip
def test_files_give_everything_back(forecast, tmp_path):
    path = forecast.save(tmp_path / "new" / "f.npz")
    again = Forecast.load(path)
    same(forecast, again)
    assert again.save(tmp_path / "g.npz").read_bytes() == path.read_bytes()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["f.npz"]


def test_files_keep_time_stamps_in_their_resolution(tmp_path):
    for unit in ("s", "ns"):
        forecast = made(past=0)
        forecast = Forecast(forecast.samples, NAMES, forecast.times.as_unit(unit), "h")
        assert Forecast.load(forecast.save(tmp_path / "f.npz")).times.unit == unit


def test_files_that_are_none_are_refused(tmp_path, monkeypatch):
    forecast = made()
    with pytest.raises(UserError, match=r"f.csv: forecasts are saved as .npz"):
        forecast.save(tmp_path / "f.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        forecast.save(tmp_path / "file" / "f.npz")
    with pytest.raises(UserError, match="cannot be read"):
        Forecast.load(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("text")
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    whole = forecast.save(tmp_path / "f.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "other", "cut"):
        with pytest.raises(UserError, match=f"{name}.npz: is not a forecast"):
            Forecast.load(tmp_path / f"{name}.npz")
    monkeypatch.setattr(saved, "FORMAT", 0)
    with pytest.raises(UserError, match="later version"):
        Forecast.load(tmp_path / "f.npz")
    with pytest.raises(UserError, match="give text or numbers"):
        made((pd.Interval(0, 1),)).save(tmp_path / "g.npz")
    assert not (tmp_path / "g.npz").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"samples": np.zeros((4, 5, 3))}, "do not fit"),
        ({"samples": np.zeros((0, 6, 3))}, "at least one of each"),
        ({"names": ("a", "a", "b")}, "series 'a' is there twice"),
        ({"times": pd.date_range("2020", periods=5, freq="h")}, "do not fit"),
        (
            {"history": pd.DataFrame({"a": [1.0]}, index=pd.date_range("2020", periods=1, tz="UTC"))},
            "history: series 3 is missing",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, said):
    good = made()
    parts = {"samples": good.samples, "names": NAMES, "times": good.times, "freq": "h", "history": good.history}
    with pytest.raises(UserError, match=said):
        Forecast(**(parts | change))


def test_a_path_that_is_not_finite_is_refused():
    samples = made().samples.copy()
    samples[7, 2, 1] = np.inf
    with pytest.raises(UserError, match="path 7 of series 3 is not finite at step 3"):
        Forecast(samples, NAMES, made().times, "h")


def test_what_is_shown_is_short_and_safe():
    forecast = made(("<b>", *range(500)))
    assert len(forecast) == 6 and "501 series: 40 joint paths of 6 steps (h)" in repr(forecast)
    shown = forecast._repr_html_()
    assert "<b>" not in shown and "&lt;b&gt;" in shown and len(shown) < 10_000
    assert "each series from its own end" in repr(ragged())


def test_gluonts_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "gluonts.model.forecast", None)
    with pytest.raises(UserError, match="pip install gluonts"):
        made().to_gluonts()


@pytest.mark.parametrize("freq", ["h", "B", "MS", "QS", "5min", "W", "D"])
def test_gluonts_reads_the_same_figures(freq):
    pytest.importorskip("gluonts")
    forecast = made(freq=freq, tz=None)
    theirs = forecast.to_gluonts()
    assert theirs.samples.shape == (40, 6, 3) and np.allclose(theirs.mean, forecast.mean)
    assert np.array_equal(theirs.quantile(0.9), forecast.quantile(0.9)) and np.array_equal(
        theirs.median, forecast.median
    )
    assert (theirs.index.to_timestamp() <= forecast.times).all() and len(theirs.index) == 6
    single = forecast.to_gluonts(joint=False)
    assert [one.item_id for one in single] == ["a", "3", "('x', 1)"] and single[1].samples.shape == (40, 6)
    assert len(ragged().to_gluonts()) == 2
