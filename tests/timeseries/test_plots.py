"""What pictures show is what the forecast holds; they come out, small, whatever the series are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.dates import num2date
from PIL import Image

from diffusionkit.errors import UserError
from diffusionkit.timeseries import plots
from diffusionkit.timeseries.forecast import Forecast

MOST = 400_000  # bytes of a picture


def made(count=3, steps=8, past=30, freq="h", tz=None, start=0, paths=50, joint=True) -> Forecast:
    rng = np.random.default_rng(start)
    names = tuple(f"s{k}" for k in range(count))
    times = pd.date_range("2020-03-27", periods=start + past + steps, freq=freq, tz=tz)[start:]
    history = pd.DataFrame(rng.normal(size=(past, count)), index=times[:past], columns=list(names)) if past else None
    return Forecast(rng.normal(size=(paths, steps, count)), names, times[past:], freq, history, joint)


def actual(forecast: Forecast, rows: int = 400) -> pd.DataFrame:
    first = pd.Timestamp("2020-03-27", tz=forecast.tz)
    index = pd.date_range(first, periods=rows, freq=forecast.freq)
    values = np.random.default_rng(9).normal(size=(rows, len(forecast.names)))
    return pd.DataFrame(values, index=index, columns=list(forecast.names))


def line(axis, label):
    return next(one for one in axis.lines if one.get_label() == label)


def band(axis, label):
    shape = next(one for one in axis.collections if one.get_label() == label)
    return shape.get_paths()[0].vertices


def drawn(figure):
    return [axis for axis in figure.axes if axis.axison]


def titles(figure):
    return [axis.get_title(loc="left") for axis in drawn(figure)]


def test_a_fan_holds_the_intervals_and_begins_at_the_last_value():
    forecast = made(1)
    frame = actual(forecast)
    axis = drawn(forecast.plot(actual=frame))[0]
    last = forecast.history["s0"].iloc[-1]
    middle = line(axis, "median").get_ydata()
    assert middle[0] == last and np.array_equal(middle[1:], forecast.median["s0"])
    for level in (50, 80, 95):
        low, high = (bound["s0"].to_numpy() for bound in forecast.interval(level))
        assert {last, *low, *high} == set(band(axis, f"{level} %")[:, 1])
    assert np.array_equal(line(axis, "actual").get_ydata()[1:], forecast.align(frame)[:, 0])
    seen = line(axis, "observed")
    assert np.array_equal(seen.get_ydata(), forecast.history["s0"].iloc[-24:])  # three times the steps
    assert len(line(drawn(forecast.plot(history=5))[0], "observed").get_ydata()) == 5


def test_wide_bands_lie_beneath_narrow_ones():
    labels = [shape.get_label() for shape in drawn(made(1).plot(levels=(80, 99, 50)))[0].collections]
    assert labels == ["99 %", "80 %", "50 %"]


def test_dates_are_in_the_zone_of_the_series():
    forecast = made(1, tz="Asia/Tokyo")
    axis = drawn(forecast.plot())[0]
    last = num2date(axis.convert_xunits(line(axis, "median").get_xdata()[-1]))
    assert last == forecast.times[-1]
    hours = [axis.convert_xunits(np.datetime64(f"2020-03-27T{hour}:00")) for hour in (14, 15)]
    assert axis.xaxis.get_major_formatter().format_ticks(hours) == ["23:00", "28 Mar"]


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (2, 3), (8, 9), (9, 9), (40, 9)])
def test_many_series_end_with_their_sum(count, expected):
    forecast = made(count)
    figure = forecast.plot(actual=actual(forecast))
    assert len(drawn(figure)) == expected
    if count > 1:
        assert titles(figure)[-1] == f"sum of all {count}"
        total = line(drawn(figure)[-1], "median").get_ydata()[1:]
        assert np.array_equal(total, forecast.total().median["sum"])
        assert np.allclose(line(drawn(figure)[-1], "actual").get_ydata()[1:], forecast.align(actual(forecast)).sum(1))


def test_series_can_be_chosen():
    forecast = made(5)
    assert titles(forecast.plot(["s3", "s0"])) == ["s3", "s0"] and len(drawn(forecast.plot("s2"))) == 1
    assert titles(made(3, joint=False).plot()) == ["s0", "s1", "s2"]
    with pytest.raises(UserError, match="no series 'z'"):
        forecast.plot("z")


def odd() -> list[Forecast]:
    plain = made(2)
    holes = plain.history.copy()
    holes.iloc[-3:, 0] = np.nan
    long = holes.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    ends = np.stack([plain.times, plain.times + pd.Timedelta("5D")], 1)
    return [
        made(1, steps=1, past=0), made(2, steps=1), made(2, past=0), replace(plain, history=holes),
        replace(plain, history=holes.iloc[:1]), Forecast(plain.samples, plain.names, ends, "h", long, joint=False),
        replace(plain, samples=np.zeros((1, 8, 2))), replace(plain, samples=plain.samples * 1e12), made(4, freq="YS"),
        Forecast(plain.samples, ("$x_{", "y" * 200), plain.times, "h"), made(3, freq="s"), made(2, freq="QS"),
    ]  # fmt: skip


@pytest.mark.parametrize("forecast", odd())
def test_odd_series_are_drawn(forecast, tmp_path):
    path = tmp_path / "folder" / "odd.png"
    forecast.plot(path=path)
    assert Image.open(path).size[0] > 500 and path.stat().st_size < MOST


def test_notebooks_show_a_figure_without_pyplot():
    assert made(1).plot()._repr_png_()[:4] == b"\x89PNG"


def test_windows_in_a_row_share_an_axis(tmp_path):
    windows = [made(6, start=8 * k) for k in range(15)]
    frame = actual(windows[0])
    figure = plots.backtest(windows, frame, tmp_path / "b.png")
    assert titles(figure) == ["s0", "s1", "s2", "sum of all 6"] and (tmp_path / "b.png").stat().st_size < MOST
    assert "12 of 15 windows" in figure.get_suptitle()
    axis = drawn(figure)[1]
    medians = [one.get_ydata() for one in axis.lines if one.get_label() == "median"]
    assert len(medians) == 12 and all(
        np.array_equal(m, w.median["s1"]) for m, w in zip(medians, windows[3:], strict=True)
    )
    first = frame.index.get_loc(windows[3].times[0])
    seen = line(axis, "observed").get_ydata()  # two windows of the past, and what came in all of them
    assert np.array_equal(seen, frame["s1"].iloc[first - 16 : first + 12 * 8])


def test_windows_far_apart_stand_side_by_side():
    windows = [made(2, start=50 * k, tz="UTC") for k in range(7)]
    figure = plots.backtest(windows, actual(windows[0]), series=["s1"])
    assert len(drawn(figure)) == 5 and "s1: 5 of 7 windows" in figure.get_suptitle()
    for axis, k in zip(drawn(figure), (0, 2, 3, 4, 6), strict=True):
        assert np.array_equal(line(axis, "median").get_ydata()[1:], windows[k].median["s1"])


def test_of_windows_that_overlap_no_two_are_drawn_on_top_of_each_other():
    windows = [made(2, start=4 * k) for k in range(6)]  # of 8 steps
    figure = plots.backtest(windows, actual(windows[0]))
    assert "3 of 6 windows" in figure.get_suptitle()
    medians = [one.get_ydata() for one in drawn(figure)[0].lines if one.get_label() == "median"]
    assert all(np.array_equal(m, windows[k].median["s0"]) for m, k in zip(medians, (1, 3, 5), strict=True))


def test_windows_of_one_step_share_an_axis():
    windows = [made(1, steps=1, start=k) for k in range(4)]
    assert len(drawn(plots.backtest(windows, actual(windows[0])))) == 1


def test_windows_without_what_came_are_refused():
    with pytest.raises(UserError, match="no windows"):
        plots.backtest([], pd.DataFrame())
    with pytest.raises(UserError, match="'s1' is missing"):
        plots.backtest([made(2)], actual(made(2))[["s0"]])


def gaps(rows=500, count=6, tz=None):
    rng = np.random.default_rng(0)
    index = pd.date_range("2020", periods=rows, freq="h", tz=tz)
    truth = pd.DataFrame(rng.normal(size=(rows, count)).cumsum(0), index=index, columns=list("abcdef")[:count])
    hidden = np.zeros(truth.shape, bool)
    hidden[300:340:2] = rng.random((20, count)) < 0.8
    hidden[:, 0] = True  # nothing was seen of it
    observed = truth.mask(hidden)
    draws = [truth.where(~hidden, truth + rng.normal(size=truth.shape)) for _ in range(5)]
    return truth, observed, draws


def test_the_picture_of_gaps_is_where_they_are(tmp_path):
    truth, observed, draws = gaps()
    figure = plots.imputation(observed, draws, tmp_path / "i.png", truth=truth, rows=60)
    assert titles(figure) == sorted(set(titles(figure))) and "a" not in titles(figure) and len(titles(figure)) == 4
    axis, name = drawn(figure)[0], titles(figure)[0]
    seen = line(axis, "observed")
    first, last = truth.index.get_indexer(pd.DatetimeIndex(seen.get_xdata()[[0, -1]]))
    part = slice(first, last + 1)
    assert len(truth[part]) == 60 and part.start <= 300 and part.stop >= 339
    assert np.array_equal(seen.get_ydata(), observed[name].iloc[part], equal_nan=True)
    expected = np.where(observed[name].isna(), truth[name], np.nan)[part]
    assert np.array_equal(line(axis, "hidden").get_ydata(), expected, equal_nan=True)
    middle, filled = line(axis, "median").get_ydata(), np.median([draw[name] for draw in draws], 0)[part]
    assert np.array_equal(middle[np.isfinite(middle)], filled[np.isfinite(middle)])
    assert np.isfinite(middle[np.isfinite(expected)]).all() and np.isnan(middle).any()
    assert (tmp_path / "i.png").stat().st_size < MOST


@pytest.mark.parametrize(("rows", "tz"), [(200, "Europe/Berlin"), (10, None), (9999, None)])
def test_any_stretch_of_gaps_is_drawn(rows, tz):
    _, observed, draws = gaps(tz=tz)
    figure = plots.imputation(observed, np.stack([draw.to_numpy() for draw in draws]), series=["c", "a"], rows=rows)
    assert titles(figure) == ["c", "a"] and len(line(drawn(figure)[0], "observed").get_ydata()) == min(rows, 500)
    with pytest.raises(UserError, match="no series 'z'"):
        plots.imputation(observed, draws, series=["c", "z"])


def test_histograms_are_densities(tmp_path):
    rng = np.random.default_rng(0)
    values = {"flat": rng.random((4, 5, 3)), "narrow": rng.beta(0.4, 0.4, 1000), "$": np.array([0.0, 1.0, np.nan])}
    figure = plots.pit_histogram(values, tmp_path / "p.png", bins=10)
    assert [len(axis.patches) for axis in drawn(figure)] == [2, 2, 2]
    for axis, part in zip(drawn(figure), values.values(), strict=True):
        heights = axis.patches[0].get_data().values
        assert heights.sum() == pytest.approx(10)
        assert heights[0] == pytest.approx(10 * np.mean(part[np.isfinite(part)] < 0.1))
        assert axis.get_ylim()[1] >= heights.max()
    assert len(drawn(plots.pit_histogram(values["flat"]))) == 1 and (tmp_path / "p.png").stat().st_size < MOST
    for bad, said in ((np.full(3, np.nan), "no values"), (np.array([0.5, 1.5]), "from 0 to 1"), ({}, "no values")):
        with pytest.raises(UserError, match=said):
            plots.pit_histogram(bad)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        made(1).plot(path=tmp_path / "file" / "x.png")
