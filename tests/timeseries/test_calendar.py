from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar

ALIASES = [
    "h",
    "D",
    "B",
    "W",
    "W-MON",
    "MS",
    "ME",
    "QS",
    "QE",
    "QS-FEB",
    "YS",
    "YE",
    "5min",
    "30min",
    "min",
    "s",
    "2h",
    "2D",
    "2MS",
    "BME",
]


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("H", "h"), ("60min", "h"), ("T", "min"), ("30T", "30min"), ("S", "s"), ("24h", "D"), ("d", "D"), ("w", "W"), ("M", "ME"), ("Q", "QE"), ("A", "YE"),
        ("QS-OCT", "QS"), ("QS-JAN", "QS"), ("QS-NOV", "QS-FEB"), ("QE-MAR", "QE"), ("W-SUN", "W"), ("YE-DEC", "YE"), ("1.5h", "90min"),
        (pd.offsets.Hour(3), "3h"), (datetime.timedelta(minutes=30), "30min"), ("W-mon", "W-MON"),
    ],
)  # fmt: skip
def test_one_name_for_one_frequency(given, name):
    assert calendar.normalise(given) == name == calendar.normalise(name)


@pytest.mark.parametrize("alias", ALIASES)
def test_a_name_keeps_its_grid(alias):
    days = pd.date_range("2021-02-03", periods=40, freq=alias)
    assert pd.date_range(days[0], days[-1], freq=calendar.normalise(alias)).equals(days)


@pytest.mark.parametrize("freq", ["often", "", "-1h", "0D", None, "h h", 7])
def test_an_unknown_frequency_is_refused(freq):
    with pytest.raises(UserError, match="freq"):
        calendar.normalise(freq)


def test_open_names_mean_what_the_times_do():
    months, ends = pd.date_range("2020", periods=5, freq="MS"), pd.date_range("2020", periods=5, freq="ME")
    assert calendar.fitting("M", months) == "MS" and calendar.fitting("M", ends) == "ME"
    assert calendar.fitting("MS", ends) == "MS"  # said plainly: the times are then off its grid
    assert calendar.fitting("Q", pd.date_range("2020", periods=5, freq="QS-FEB")) == "QS-FEB"
    assert calendar.fitting("W", pd.date_range("2020", periods=5, freq="W-WED", tz="Europe/Rome")) == "W-WED"
    assert calendar.fitting("Y", pd.date_range("2020", periods=5, freq="YS-JUL")) == "YS-JUL"


def test_periods_begin_where_pandas_says():
    for freq in ("M", "Q-DEC", "Q-NOV", "Y-DEC", "Y-JUN", "W-SUN", "W-WED", "h", "D"):
        starts = pd.period_range("2019-03-04", periods=9, freq=freq).to_timestamp(how="start")
        alias = calendar.starting(freq)
        assert pd.date_range(starts[0], periods=9, freq=alias).equals(pd.DatetimeIndex(starts, freq=None)), freq


def test_seasons_and_lags():
    seasons = {"h": 24, "B": 5, "D": 7, "MS": 12, "ME": 12, "QS": 4, "W": 52, "W-MON": 52, "min": 60, "5min": 288, "30min": 48,
               "s": 60, "YS": 1, "2h": 12, "15min": 96, "6h": 4, "7D": 52, "2MS": 6, "5h": 1}  # fmt: skip
    assert {freq: calendar.season(freq) for freq in seasons} == seasons
    assert (
        calendar.seasons("h") == (24, 168)
        and calendar.seasons("5min") == (288, 2016)
        and calendar.seasons("YE") == (1,)
    )
    lags = {
        "MS": (1, 12),
        "D": (1, 7, 14),
        "B": (1, 2),
        "h": (1, 24, 168),
        "5min": (1, 4, 12, 24, 48),
        "QS": (1,),
        "W": (1,),
        "YS": (1,),
    }
    assert {freq: calendar.lags(freq) for freq in lags} == lags
    assert calendar.lags("2h") == (1, 12, 84)


@pytest.mark.parametrize("freq", ALIASES)
def test_features_are_waves_of_the_time_alone(freq):
    index = pd.date_range("2019-01-31 00:00", periods=200, freq=freq)
    found = calendar.features(index, freq)
    names = calendar.feature_names(freq)
    assert found.shape == (200, len(names)) and found.dtype == np.float32
    assert np.allclose(found[:, ::2] ** 2 + found[:, 1::2] ** 2, 1, atol=1e-6)
    np.testing.assert_array_equal(
        calendar.features(index[137:140], freq), found[137:140]
    )  # whatever else the frame holds


def test_features_have_fixed_periods():
    hours = pd.date_range("2021-03-01", periods=24 * 400, freq="h")
    found = pd.DataFrame(calendar.features(hours, "h"), columns=calendar.feature_names("h"), index=hours)
    assert np.allclose(found["day_sin"], np.sin(2 * np.pi * hours.hour / 24), atol=1e-6)
    assert np.allclose(found["week_cos"], np.cos(2 * np.pi * hours.day_of_week / 7), atol=1e-6)
    assert found["week_sin"].nunique() == 7
    year = found[["year_sin", "year_cos"]]
    assert np.allclose(year.loc["2022-03-05"].to_numpy(), year.loc["2021-03-05"].to_numpy())


def test_features_are_read_off_the_clock_of_the_zone():
    utc = pd.date_range("2021-06-01 12:00", periods=3, freq="h", tz="UTC")
    there = utc.tz_convert("America/New_York")
    np.testing.assert_array_equal(calendar.features(there, "h"), calendar.features(there.tz_localize(None), "h"))
    assert not np.allclose(calendar.features(utc, "h"), calendar.features(there, "h"))


@pytest.mark.parametrize("freq", ALIASES)
def test_times_to_come_continue_the_grid(freq):
    whole = pd.date_range("2018-11-05", periods=60, freq=freq)
    coming = calendar.extend(whole[:45], 15, freq)
    assert coming.equals(whole[45:]) and coming.dtype == whole.dtype


def test_times_to_come_keep_the_zone_over_its_changes():
    zone = "Europe/Berlin"
    days = calendar.extend(pd.date_range("2021-03-20", periods=5, freq="D", tz=zone), 20, "D")
    assert (days.hour == 0).all() and str(days.tz) == zone and days[0] == pd.Timestamp("2021-03-25", tz=zone)
    hours = calendar.extend(pd.date_range("2021-03-27", periods=20, freq="h", tz=zone), 24, "h")
    assert len(set(np.diff(hours.asi8))) == 1 and hours[0].hour == 20 and hours[-1].hour == 20
    assert hours[-1] - hours[0] == pd.Timedelta("23h")
