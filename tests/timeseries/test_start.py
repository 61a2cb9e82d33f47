"""Where forecasts may start: series that fit the model, long enough, with what must be known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries.start import read, ready, started
from tests.timeseries.small import codec, long, panel, wide


def test_without_a_file_forecasts_start_where_training_ended():
    made = codec()
    found, steps = started(made)
    assert found is made.tail and steps == 6
    assert started(made, 30)[1] == 30
    with pytest.raises(UserError, match="horizon: at least one step, not 0"):
        started(made, 0)


def test_a_file_of_series_to_start_from(tmp_path):
    made = codec()
    df = wide(200)
    df.rename_axis("ds").to_csv(tmp_path / "new.csv")
    found, steps = started(made, 9, str(tmp_path / "new.csv"))
    assert steps == 9 and found.blocks[0].index[-1] == df.index[-1] and found.names == ("a", "b", "c")
    df[["b", "a"]].rename_axis("ds").to_parquet(tmp_path / "few.parquet")
    with pytest.raises(UserError, match=r"few.parquet: series 'c' of the model is not in the data"):
        started(made, 9, str(tmp_path / "few.parquet"))
    with pytest.raises(UserError, match="there is no such file; --history must name one"):
        started(made, 9, str(tmp_path / "none.csv"))


def test_covariates_from_a_file(tmp_path):
    df = wide(60).assign(x=np.arange(60.0))
    made = codec(panel(df, known=("x",)))
    df.rename_axis("ds").to_csv(tmp_path / "h.csv")
    future = pd.DataFrame({"ds": pd.date_range(df.index[-1], periods=9, freq="h")[1:], "x": 1.0})
    future.to_csv(tmp_path / "f.csv", index=False)
    found, _ = started(made, 8, str(tmp_path / "h.csv"), str(tmp_path / "f.csv"))
    assert found.blocks[0].known.shape == (68, 1, 1)
    with pytest.raises(
        UserError, match=r"covariate 'x' is missing for 2024-01-03 20:00:00, step 9 of the horizon of 9"
    ):
        started(made, 9, str(tmp_path / "h.csv"), str(tmp_path / "f.csv"))
    with pytest.raises(UserError, match="covariate 'x' is missing for 2024-01-03 12:00:00, step 1"):
        started(made, 8, str(tmp_path / "h.csv"))
    with pytest.raises(UserError, match="--future: give --history as well"):
        started(made, 8, None, str(tmp_path / "f.csv"))


def test_a_history_shorter_than_the_longest_lag_is_refused():
    made = codec(lag=12)
    with pytest.raises(
        UserError, match="series 'a' ends at 2024-01-01 10:00:00 after 11 rows, and the longest lag .* reaches back 12"
    ):
        ready(made, read(made, wide(11)), 6)
    assert ready(made, read(made, wide(12)), 6).size == 3
    steps = codec(panel(wide(freq="D")), form="steps", lag=1)
    with pytest.raises(UserError, match="after 14 rows, and the longest lag of this model reaches back 15"):
        ready(steps, read(steps, wide(14, freq="D")), 6)


def test_a_series_without_a_recent_value_is_refused():
    made, df = codec(), wide()
    df.iloc[-24:, 1] = np.nan
    with pytest.raises(UserError, match="series 'b' has no value in the last 24 rows before 2024-01-05 23:00:00"):
        ready(made, read(made, df), 6)
    df.iloc[-24, 1] = 3.0
    ready(made, read(made, df), 6)


def test_frames_that_do_not_fit_are_refused():
    made, df = codec(), wide()
    for wrong, said in [
        (df.rename(columns={"c": "z"}), "series 'c' of the model is not in the data"),
        (df.assign(z=1.0), "series 'z' is not one of the model's"),
        (wide(freq="30min"), "2024-01-01 00:30:00"),
        (df.tz_localize("UTC"), "have time zone UTC"),
        (df[::-1], "the frame is not sorted by time: 2024-01-05 22:00:00 comes after 2024-01-05 23:00:00"),
        (pd.concat([df[:5], df[4:]]), "time stamp 2024-01-01 04:00:00 more than once"),
        (df.assign(b=["x"] * 120), "'b' is not numeric"),
        (df.assign(b=np.nan), "series 'b' holds no value"),
        (df.assign(b=np.inf), "series 'b' is infinite at 2024-01-01 00:00:00"),
        (df.to_numpy(), "an array has no time stamps"),
    ]:
        with pytest.raises(UserError, match=said):
            ready(made, read(made, wrong), 6)


def test_whole_numbers_stay_a_property_of_training():
    counts = (wide() // 1).astype(int)
    made = codec(panel(counts))
    assert read(made, counts + 0.5).integer.all() and not read(codec(), counts).integer.any()
    separate = codec(panel(long().assign(y=lambda df: df["y"] // 1), joint=False))
    assert read(separate, long()).integer.all()


def test_what_is_static_is_remembered_for_series_of_training():
    static = pd.DataFrame({"size": [1.0, 2.0, 4.0], "kind": list("xyx")}, index=["s0", "s1", "s2"])
    made = codec(panel(long(), joint=False, static=static))
    df = long((80, 60, 40), seed=3)
    kept = read(made, df[df["unique_id"] != "s0"])
    assert kept.static.tolist() == [[2, 0, 1], [4, 1, 0]] and kept.schema == made.tail.schema
    new = df.replace({"unique_id": {"s1": "new"}})
    with pytest.raises(UserError, match="static has no row for series 'new', and the model was not fitted on it"):
        read(made, new)
    given = pd.DataFrame({"size": [9.0, 9.0, 9.0], "kind": list("yyy")}, index=["s0", "new", "s2"])
    assert read(made, new, static=given).static.tolist() == [[9, 0, 1]] * 3
