from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries.frames import read

N = 60


def wide(freq="h", size=3, rows=N, tz=None, seed=0) -> pd.DataFrame:
    index = pd.date_range("2021-03-01", periods=rows, freq=freq, tz=tz)
    values = np.random.default_rng(seed).normal(size=(rows, size))
    return pd.DataFrame(values, index=index, columns=[f"s{i}" for i in range(size)])


def melted(df: pd.DataFrame) -> pd.DataFrame:
    return df.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")[["unique_id", "ds", "y"]]


def refused(match: str, data, **arguments) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read(data, **arguments)
    assert "\n" not in str(caught.value)


def same(one, other) -> None:
    assert one.names == other.names and one.freq == other.freq and one.joint == other.joint
    for a, b in zip(one.blocks, other.blocks, strict=True):
        assert a.index.equals(b.index)
        np.testing.assert_array_equal(a.values, b.values)


def test_a_wide_frame_is_read_as_it_stands():
    df = wide()
    panel = read(df)
    [block] = panel.blocks
    assert panel.joint and panel.freq == "h" and panel.names == ("s0", "s1", "s2") and block.index.freq is not None
    np.testing.assert_array_equal(block.values, df.to_numpy())
    assert block.past.shape == (N, 1, 0) and block.known.shape == (N, 1, 0) and panel.static.shape == (3, 0)
    assert json.loads(json.dumps(panel.schema)) == panel.schema and not panel.integer.any()
    back = panel.frame()
    pd.testing.assert_frame_equal(back, df, check_freq=False)


def test_the_ways_to_hand_over_the_same_series_agree():
    df = wide(rows=40)
    panel = read(df)
    column = df.rename_axis("Date").reset_index()
    texts = column.assign(Date=column["Date"].astype(str))
    for other in (
        column,
        texts,
        melted(df),
        melted(df).set_index(["unique_id", "ds"]),
        melted(df).set_index("unique_id"),
    ):
        same(panel, read(other))
    same(panel, read(melted(df).rename(columns={"unique_id": "id", "ds": "t", "y": "v"}), long=("id", "t", "v")))
    entry = {"start": pd.Period("2021-03-01", freq="h"), "target": df.to_numpy().T}
    np.testing.assert_array_equal(read([entry]).blocks[0].values, df.to_numpy())
    array = read(df.to_numpy(), freq="h")
    assert array.names == (0, 1, 2) and array.blocks[0].index[0] == pd.Timestamp("2000-01-01")
    np.testing.assert_array_equal(array.blocks[0].values, df.to_numpy())
    one = read(df["s1"])
    assert one.names == ("s1",) and one.joint
    assert read(df["s1"].rename(None)).names == ("y",) and read(df["s1"].to_numpy(), freq="D").names == (0,)


@pytest.mark.parametrize(
    "freq", ["h", "D", "B", "W-THU", "MS", "ME", "QS-FEB", "QE", "YS", "YE-JUN", "15min", "2h", "2D", "10s"]
)
@pytest.mark.parametrize("gaps", [False, True])
def test_the_frequency_is_inferred(freq, gaps):
    df = wide(freq, rows=80)
    seen = df.drop(df.index[[5, 6, 7, 30, 51, 52]]) if gaps else df
    panel = read(seen)
    assert panel.freq == freq and panel.blocks[0].index.equals(df.index)
    missing = np.isnan(panel.blocks[0].values)
    assert missing[[5, 6, 7, 30, 51, 52]].all() == gaps and missing.sum() == 18 * gaps
    np.testing.assert_array_equal(panel.blocks[0].values[~missing[:, 0]], seen.to_numpy())


def test_periods_begin_where_they_start():
    for freq, alias in (("M", "MS"), ("Q-DEC", "QS"), ("h", "h"), ("W-SUN", "W-MON"), ("Y-DEC", "YS")):
        df = wide(rows=30).set_axis(pd.period_range("2000-01", periods=30, freq=freq))
        panel = read(df)
        assert panel.freq == alias and panel.blocks[0].index.equals(pd.DatetimeIndex(df.index.to_timestamp()))
        assert read(df, schema=panel.schema).freq == alias


def test_days_and_hours_across_a_change_of_clocks():
    for freq, rows in (("D", 60), ("h", 900)):
        df = wide(freq, rows=rows, tz="Europe/Berlin")
        panel = read(df)
        assert panel.freq == freq and panel.blocks[0].index.equals(df.index) and panel.schema["tz"] == "Europe/Berlin"
        assert not np.isnan(panel.blocks[0].values).any()
        holes = read(df.drop(df.index[20:23]))
        assert holes.freq == freq and holes.blocks[0].index.equals(df.index)


def test_series_of_different_length():
    df = melted(wide(rows=50))
    short = df[~((df["unique_id"] == "s1") & (df["ds"] < "2021-03-01 20:00"))]
    joint = read(short)
    assert (
        joint.joint
        and np.isnan(joint.blocks[0].values[:20, 1]).all()
        and not np.isnan(joint.blocks[0].values[20:]).any()
    )
    ended = df[~((df["unique_id"] == "s1") & (df["ds"] > "2021-03-01 20:00"))]
    apart = read(ended)
    assert (
        not apart.joint and [len(block) for block in apart.blocks] == [50, 21, 50] and apart.names == ("s0", "s1", "s2")
    )
    same(read(df, joint=False), read(wide(rows=50), joint=False))
    back = apart.frame()
    pd.testing.assert_frame_equal(back, ended.reset_index(drop=True), check_dtype=False)
    assert np.isnan(read(ended, joint=True).blocks[0].values[21:, 1]).all()


def test_rows_of_a_long_frame_may_be_interleaved():
    df = melted(wide())
    same(read(df), read(df.sort_values(["ds", "unique_id"], kind="stable")))
    same(read(df), read(df.assign(unique_id=df["unique_id"].astype("category"))))


def test_two_thousand_series():
    rows = 50
    df = wide(size=2000, rows=rows)
    long = melted(df)
    panel = read(long, joint=False)
    assert panel.size == 2000 and len(panel.blocks) == 2000
    np.testing.assert_array_equal(np.stack([b.values[:, 0] for b in panel.blocks], axis=1), df.to_numpy())
    assert len({id(block.index) for block in panel.blocks}) == 1  # one grid, made once
    same(read(long), read(df))


def test_covariates_of_a_wide_frame():
    df = wide(rows=30).assign(temp=np.arange(30.0), holiday=np.arange(30) % 7 == 0, sky=["clear", "rain"] * 15)
    future = pd.DataFrame(
        {"temp": [30.0, 31.0], "holiday": [False, True]}, index=pd.date_range("2021-03-02 06:00", periods=2, freq="h")
    )
    panel = read(df, known=["temp", "holiday"], past=["sky"], future=future)
    [block] = panel.blocks
    assert (
        panel.names == ("s0", "s1", "s2")
        and panel.known_names == ("temp", "holiday")
        and panel.past_names == ("sky=clear", "sky=rain")
    )
    assert block.known.shape == (32, 1, 2) and block.past.shape == (30, 1, 2)
    np.testing.assert_array_equal(block.known[:, 0, 0], np.arange(32.0))
    assert block.known[31, 0, 1] == 1 and block.known[30, 0, 1] == 0 and (block.past.sum(-1) == 1).all()
    panel.check_future(2)
    with pytest.raises(UserError, match=r"'temp' is missing for 2021-03-02 08:00:00, step 3"):
        panel.check_future(3)
    holed = read(df, known=["temp", "holiday"], past=["sky"], future=future.assign(temp=[30.0, np.nan]))
    with pytest.raises(UserError, match=r"'temp' is missing for 2021-03-02 07:00:00, step 2"):
        holed.check_future(2)
    again = read(
        df.iloc[:20],
        schema=panel.schema,
        future=future.set_axis(pd.date_range("2021-03-01 20:00", periods=2, freq="h")),
    )
    assert again.known_names == panel.known_names and again.schema == panel.schema
    assert (
        len(read(df, known=["temp"], past=["holiday", "sky"], future=df).blocks[0].known) == 30
    )  # nothing of it is to come


def test_coming_covariates_that_do_not_fit():
    df = wide(rows=30).assign(temp=np.arange(30.0), holiday=np.arange(30) % 7 == 0, sky=["clear", "rain"] * 15)
    coming = pd.date_range("2021-03-02 06:00", periods=3, freq="h")
    future = pd.DataFrame({"temp": 1.0, "holiday": [0, 1, 0], "sky": ["snow", "rain", "clear"]}, index=coming)
    known = ["temp", "holiday", "sky"]
    panel = read(df, known=known, future=future)
    assert panel.known_names == ("temp", "holiday", "sky=clear", "sky=rain", "sky=snow")
    np.testing.assert_array_equal(panel.blocks[0].known[30:, 0, 1:], [[0, 0, 0, 1], [1, 0, 1, 0], [0, 1, 0, 0]])
    fitted = read(df, known=known).schema
    refused("'sky' has level 'snow'.*knows 'clear', 'rain'", df, schema=fitted, future=future)
    refused("not in the frame", df.drop(columns="temp"), schema=fitted)
    refused("future of the frame is not sorted", df, known=known, future=future[::-1])
    refused(
        "future of the frame: time stamp 2021-03-02 06:30:00 is off", df, known=known, future=future.shift(30, "min")
    )
    refused("time stamps of future have time zone UTC", df, known=known, future=future.tz_localize("UTC"))
    refused("no time stamps", df, known=known, future=future.reset_index(drop=True))
    refused("infinite at 2021-03-02 07:00:00", df, known=known, future=future.assign(temp=[0, np.inf, 0]))
    assert len(read(df, known=known, future=future[2:]).blocks[0].known) == 33  # a gap is missing, not moved


def test_covariates_of_a_long_frame():
    df = melted(wide(rows=20)).assign(price=np.arange(60.0), kind=pd.Categorical(list("ab") * 30, list("bac")))
    future = pd.DataFrame(
        {"unique_id": ["s2", "s0", "s1"], "ds": pd.Timestamp("2021-03-01 20:00"), "price": [2.0, 0.0, 1.0]}
    )
    joint = read(df, known=["price"], past=["kind"], future=future)
    assert joint.blocks[0].known.shape == (21, 3, 1) and joint.blocks[0].past.shape == (20, 3, 3)
    assert joint.past_names == ("kind=b", "kind=a", "kind=c")
    np.testing.assert_array_equal(joint.blocks[0].known[-1, :, 0], [0, 1, 2])
    np.testing.assert_array_equal(joint.blocks[0].known[:20, :, 0].T.ravel(), np.arange(60))
    apart = read(df, known=["price"], past=["kind"], future=future, joint=False)
    assert [block.known[-1, 0, 0] for block in apart.blocks] == [0, 1, 2]
    lacking = read(df, known=["price"], past=["kind"], future=future[:2], joint=False)
    with pytest.raises(UserError, match=r"'price' of series 's1' is missing for 2021-03-01 20:00:00"):
        lacking.check_future(1)


def test_static_covariates():
    df = wide(size=3)
    static = pd.DataFrame({"unique_id": ["s2", "s0", "s1"], "area": [3.0, 1.0, 2.0], "type": ["x", "y", "x"]})
    panel = read(df, static=static)
    np.testing.assert_array_equal(panel.static, [[1, 0, 1], [2, 1, 0], [3, 1, 0]])
    np.testing.assert_array_equal(
        read(df, static=static.set_index("unique_id"), schema=panel.schema).static, panel.static
    )
    refused("static is missing.*area", df, schema=panel.schema)
    refused("no row for series 's1'", df, static=static[:2])
    refused("more than one row for series 's0'", df, static=pd.concat([static, static[1:2]]))
    refused("level 'z'", df, static=static.assign(type=["x", "z", "x"]), schema=panel.schema)
    refused("'area' of series 's0'", df, static=static.assign(area=[1, np.nan, 3]))


def test_gluonts_entries():
    start = pd.Period("2020-01", freq="M")
    entries = [
        {"item_id": f"i{i}", "start": start + i, "target": np.arange(10.0 + i), "feat_static_cat": [i % 2], "feat_static_real": [i / 2],
         "feat_dynamic_real": np.arange(2 * (13.0 + i)).reshape(2, -1), "past_feat_dynamic_real": np.ones((1, 10 + i))}
        for i in range(3)
    ]  # fmt: skip
    panel = read(entries)
    assert (
        panel.freq == "MS"
        and not panel.joint
        and panel.names == ("i0", "i1", "i2")
        and panel.schema["kind"] == "entries"
    )
    assert panel.known_names == ("feat_dynamic_real_0", "feat_dynamic_real_1") and panel.past_names == (
        "past_feat_dynamic_real_0",
    )
    assert [block.known.shape for block in panel.blocks] == [(13 + i, 1, 2) for i in range(3)]
    np.testing.assert_array_equal(panel.blocks[2].known[:, 0, 1], entries[2]["feat_dynamic_real"][1])
    np.testing.assert_array_equal(panel.static, [[1, 0, 0], [0, 1, 0.5], [1, 0, 1]])
    panel.check_future(3)
    assert read(iter(entries), schema=panel.schema).schema == panel.schema
    short = [{**entry, "feat_dynamic_real": entry["feat_dynamic_real"][:1]} for entry in entries]
    refused("1 covariates in feat_dynamic_real.*2", short, schema=panel.schema)
    aligned = read(
        [{"start": "2020-01-01", "target": [1, 2, None]}, {"start": "2020-01-02", "target": [3, "NaN"]}], freq="D"
    )
    assert aligned.joint and aligned.names == (0, 1)
    np.testing.assert_array_equal(aligned.blocks[0].values, [[1, np.nan], [2, 3], [np.nan, np.nan]])


def test_data_sets_of_gluonts_itself():
    common = pytest.importorskip("gluonts.dataset.common", reason="gluonts is not installed")
    from gluonts.dataset.multivariate_grouper import MultivariateGrouper

    data = common.ListDataset(
        [{"start": "2020-01-01", "target": np.arange(10.0) + i, "item_id": f"x{i}"} for i in range(3)], freq="h"
    )
    panel = read(data)
    assert panel.names == ("x0", "x1", "x2") and panel.freq == "h" and panel.joint
    np.testing.assert_array_equal(read(MultivariateGrouper()(data)).blocks[0].values, panel.blocks[0].values)


def test_entries_that_cannot_be_read():
    good = {"start": pd.Period("2020-01", freq="M"), "target": np.ones(5)}
    refused("no entries", [])
    refused("entry 1.*'start' and 'target'", [good, {"target": [1]}])
    refused("give freq", [{"start": "2020-01-01", "target": [1, 2]}])
    refused("2 entries of several series", [{**good, "target": np.ones((2, 5))}] * 2)
    refused("item_id 'a' stands", [{**good, "item_id": "a"}] * 2)
    refused("entry 0: target must hold numbers", [{**good, "target": ["a", "b"]}])
    refused("feat_dynamic_real has 3 steps, and the target 5", [{**good, "feat_dynamic_real": [[1, 2, 3]]}])
    refused("is no time", [{**good, "start": "soon"}], freq="D")


def test_a_fitted_schema_reorders_and_refuses():
    df = wide()
    schema = json.loads(json.dumps(read(df).schema))
    same(read(df[["s2", "s0", "s1"]], schema=schema), read(df))
    same(read(melted(df[["s1", "s2", "s0"]]), schema=schema), read(df))
    refused("series 's1' of the model is not in the data", df[["s0", "s2"]], schema=schema)
    refused("'s9' is not one of the model's", df.assign(s9=1.0), schema=schema)
    refused("time zone UTC", df.tz_localize("UTC"), schema=schema)
    refused("steps of 'h'", wide("D"), schema=schema)
    refused("frequency 'D'.*'h'", df.set_axis(pd.period_range("2020", periods=N, freq="D")), schema=schema)
    refused("no time stamps", df.to_numpy(), schema=schema)
    separate = read(df, joint=False).schema
    assert read(wide(size=5), schema=separate).size == 5 and not read(wide(size=1), schema=separate).joint
    zoned = read(wide(tz="Europe/Berlin"))
    utc = read(wide(tz="Europe/Berlin").tz_convert("UTC"), schema=zoned.schema)
    assert str(utc.blocks[0].index.tz) == "Europe/Berlin"
    refused("have no time zone", df, schema=zoned.schema)
    arrays = read(df.to_numpy(), freq="h")
    assert read(df.to_numpy()[:7], schema=arrays.schema).freq == "h"
    refused("series 2 of the model", df.to_numpy()[:, :2], schema=arrays.schema)


def test_names_that_are_no_texts():
    df = wide().set_axis([("a", 1), ("a", 2), ("b", 1)], axis=1)
    df.columns = pd.MultiIndex.from_tuples(df.columns)
    panel = read(df)
    assert panel.names == (("a", 1), ("a", 2), ("b", 1)) and json.loads(json.dumps(panel.schema)) == panel.schema
    same(panel, read(df.iloc[:, ::-1], schema=json.loads(json.dumps(panel.schema))))
    pd.testing.assert_frame_equal(panel.frame(), df, check_freq=False)
    numbered = read(wide().set_axis(np.array([7, 8, 9], np.int16), axis=1))
    assert [type(name) for name in numbered.names] == [int] * 3


def test_kinds_of_numbers():
    df = wide(size=4, rows=6)
    df["s0"] = pd.array([1, 2, None, 4, 5, 6], dtype="Int64")
    df["s1"] = pd.Series([1.5, None, 2, 3, 4, 5], dtype="float64[pyarrow]", index=df.index)
    df["s2"] = pd.Series([True, False] * 3, index=df.index)
    df["s3"] = pd.Series([1, 2.0, None, 4, 5, 6], dtype=object, index=df.index)
    panel = read(df)
    assert panel.integer.tolist() == [True, False, True, True]
    np.testing.assert_array_equal(panel.blocks[0].values[2], [np.nan, 2, 1, np.nan])


def test_what_cannot_be_read():
    df, long = wide(), melted(wide())
    refused("not sorted by time: 2021-03-01 00:00:00 comes after 2021-03-01 01:00:00", df.iloc[[1, 0, *range(2, 60)]])
    refused("2021-03-01 02:00:00 more than once", df.iloc[[0, 1, 2, 2, 3]])
    refused("series 's0' is not sorted by time", long.iloc[[1, 0, *range(2, 180)]])
    refused("series 's2' has time stamp 2021-03-03 11:00:00 more than once", pd.concat([long, long[-1:]]))
    refused("column 'note' is not numeric", df.assign(note="x"))
    refused("column 's1' is not numeric", df.assign(s1="1.5"))
    refused("column 'y' is not numeric", long.assign(y="x"))
    refused("series 's1' holds no value", df.assign(s1=np.nan))
    refused("series 's2' holds no value", long.assign(y=long["y"].where(long["unique_id"] != "s2")))
    refused("series 's1' is infinite at 2021-03-01 04:00:00", df.assign(s1=[*range(4), np.inf, *range(55)]))
    refused("holds no rows", df.iloc[:0])
    refused("holds no rows", long.iloc[:0])
    refused("more than one column 's0'", df.set_axis(["s0", "s0", "s1"], axis=1))
    refused("no time stamps", df.reset_index(drop=True))
    refused("holds numbers", df.reset_index(drop=True).assign(ds=range(N)))
    refused("holds no time stamps", df.reset_index(drop=True).assign(ds="soon"))
    refused(
        "time stamp of row 3 is missing",
        df.rename_axis("ds").reset_index().assign(ds=lambda d: d["ds"].where(d.index != 3)),
    )
    refused("'unique_id' of row 2", long.assign(unique_id=long["unique_id"].where(long.index != 2)))
    refused("covariate 'rain' of known", df, known=["rain"])
    refused("column 'extra'", long.assign(extra=1))
    refused("covariate 's0' is not in future", df, known=["s0"], future=df[["s1"]])
    refused("no column of a series", df[["s0"]], known=["s0"])
    refused("covariate 's0' of the frame is infinite at 2021-03-01 00:00:00", df.assign(s0=[np.inf] * N), known=["s0"])
    refused("give freq", df.to_numpy())
    refused("not str", "file.csv")
    refused("shape", np.zeros((2, 2, 2)), freq="h")
    refused("future has series 'zz'", long.assign(k=1.0), known=["k"], future=long[:60].assign(k=1.0, unique_id="zz"))


def test_frequencies_that_do_not_fit():
    df = wide()
    refused("'often' is no known frequency", df, freq="often")
    refused("inferred from one time stamp", df[:1])
    assert read(df[:1], freq="h").freq == "h" and read(df[:2]).freq == "h"
    refused("no two steps", df.iloc[[0, 1, 3, 7, 15]])
    refused(
        "2021-03-01 00:30:00 is off the grid",
        df.set_axis([df.index[0], df.index[0] + pd.Timedelta("30min"), *df.index[1:-1]]),
        freq="h",
    )
    refused("steps of 'min'", df, freq="min")
    refused("off the grid of frequency 'B'", wide("D"), freq="B")
    refused("off the grid of frequency 'MS'", wide("ME"), freq="MS")
    assert read(wide("ME"), freq="M").freq == "ME" and read(wide("MS"), freq="M").freq == "MS"
    long = melted(wide("2h"))
    shifted = long.assign(ds=long["ds"] + pd.to_timedelta((long["unique_id"] == "s1").astype(int), unit="h"))
    assert read(shifted, joint=False).freq == "2h"
    refused("series 's0'|series 's1'", shifted, joint=True)
