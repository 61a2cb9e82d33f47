from __future__ import annotations

import datetime

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.conditions import known, overwrite, parse, read

N = 200


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    days, holes = rng.integers(0, 300, N), np.arange(N) % 10 == 0
    when = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(days, unit="D"))
    return pd.DataFrame({
        "job": pd.Series(rng.choice(["a", "b|c", " >50K", "d"], N)).mask(holes), "flag": rng.random(N) < 0.5,
        "size": pd.Categorical(rng.choice(["lo", "hi"], N), ["lo", "mid", "hi"], ordered=True), 7: rng.choice([1, 2, 5], N),
        "age": rng.integers(18, 90, N), "x": pd.Series(rng.normal(size=N).round(2)).mask(holes), "small": rng.normal(size=N).astype("float32"),
        "count": pd.Series(rng.integers(0, 500, N), dtype="Int64").mask(holes), "when": when,
        "zone": when.dt.tz_localize("Europe/Berlin"), "day": when.dt.date, "span": pd.to_timedelta(days, unit="h"),
        "flags": pd.Series(rng.random(N) < 0.5, dtype=object).mask(holes, None), "part": pd.cut(pd.Series(days), [-1, 100, 200, 300]),
        "one": 3, "id": [f"K-{i:03d}" for i in range(N)], "low": days, "high": days + 5,
    })  # fmt: skip


@pytest.fixture(scope="module", params=[dict(bins=20, residual=False), dict(bins=20), dict(bins=0)], ids=str)
def codec(request):
    return TableCodec.fit(table(), columns={7: "categorical"}, constraints=["low <= high"], **request.param)


def made(codec, where, n=3):
    """Rows that are given nothing but what is asked for; the rest of the state is zero."""
    wanted = read(codec, where)
    _, state = known(codec, wanted, torch.arange(n))
    return codec.decode(state, 0, lambda frame: overwrite(codec, wanted, frame))


EXACT = [
    ("job", "a", "a"), ("job", " >50K", " >50K"), ("job", None, None), ("job", np.nan, None), ("flag", True, True),
    ("flag", np.bool_(False), False), ("flags", True, True), ("flags", None, None), ("size", "hi", "hi"), (7, 2, 2),
    ("part", pd.Interval(100, 200), pd.Interval(100, 200)), ("age", 40, 40), ("age", 40.0, 40), ("x", 0.1234, 0.1234), ("x", None, None),
    ("small", 0.1, np.float32(0.1)), ("count", 123, 123), ("count", pd.NA, None), ("one", 3, 3),
    ("when", "2020-03-01 12:30", pd.Timestamp("2020-03-01 12:30")), ("when", datetime.date(2020, 3, 1), pd.Timestamp("2020-03-01")),
    ("when", np.datetime64("2020-03-01"), pd.Timestamp("2020-03-01")),
    ("zone", "2020-03-01 12:30", pd.Timestamp("2020-03-01 12:30", tz="Europe/Berlin")),
    ("zone", pd.Timestamp("2020-03-01 11:30", tz="UTC"), pd.Timestamp("2020-03-01 12:30", tz="Europe/Berlin")),
    ("day", "2020-03-01", datetime.date(2020, 3, 1)), ("day", datetime.date(2020, 3, 2), datetime.date(2020, 3, 2)),
    ("day", pd.Timestamp("2020-03-01"), datetime.date(2020, 3, 1)), ("span", pd.Timedelta("5h 30min"), pd.Timedelta("5h 30min")),
    ("span", "5h", pd.Timedelta("5h")), ("low", 17, 17),
]  # fmt: skip


@pytest.mark.parametrize(("column", "value", "expected"), EXACT)
def test_values_come_back_exactly(codec, column, value, expected):
    frame = made(codec, {column: value})
    pd.testing.assert_series_equal(frame.dtypes, table().dtypes)
    assert frame[column].isna().all() if expected is None else (frame[column] == expected).all()
    assert (frame["low"] <= frame["high"]).all()


def test_several_values_at_once(codec):
    frame = made(codec, {"job": "d", "age": 55, "x": 0.777, "day": "2020-02-02", "count": None})
    row = frame[["job", "age", "x", "day"]].iloc[0].tolist()
    assert row == ["d", 55, 0.777, datetime.date(2020, 2, 2)] and frame["count"].isna().all()
    wanted = read(codec, {"job": "d", "age": 55})
    given, _ = known(codec, wanted, torch.arange(3))
    for column in ("job", "age", "x"):
        shown = [given[name][:, places] for name, places in codec.entries(column).items() if places]
        assert all(mask.all() if column != "x" else not mask.any() for mask in shown)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("job=a", {"job": "a"}),
        ("job= >50K", {"job": " >50K"}),
        ("job=>50K", {"job": ">50K"}),  # read as a level, which there is not
        ("job=b|c", {"job": "b|c"}),
        ("job=a|d", {"job": ["a", "d"]}),
        (" job = a ; age = 30..40 ", {"job": "a", "age": (30, 40)}),
        ("age>=30;x<=-0.5;count=7", {"age": (30, None), "x": (None, -0.5), "count": 7}),
        ("x=-1.5..-.25", {"x": (-1.5, -0.25)}),
        ("job=missing; x=nan; count=", {"job": None, "x": None, "count": None}),
        ("7=5; flag=True; size=hi", {7: 5, "flag": True, "size": "hi"}),
        ("when=2020-01-05..", {"when": (pd.Timestamp("2020-01-05"), None)}),
        ("span<=5h", {"span": (None, pd.Timedelta("5h"))}),
        ("day=2020-01-05", {"day": pd.Timestamp("2020-01-05")}),
        ("", {}),
        (" ; ", {}),
    ],
)
def test_text_is_read(codec, text, expected):
    assert parse(codec, text) == expected


def test_text_asks_for_the_same_as_values(codec):
    a = read(codec, "job=a|d; age=30..40; when>=2020-06-01; x=0.5")
    b = read(codec, {"job": ["d", "a"], "age": (30, 40), "when": ("2020-06-01", None), "x": 0.5})
    assert a.fixed == b.fixed and a.codes.keys() == b.codes.keys() == {"job", "age", "when"}
    assert all(torch.equal(a.codes[name], b.codes[name]) for name in a.codes)
    assert all(torch.equal(x, y) for name in a.ranges for x, y in zip(a.ranges[name], b.ranges[name], strict=True))


def test_other_ways_to_write_choices_and_ranges(codec):
    for choice in ({"a", "d"}, np.array(["a", "d"]), pd.Series(["a", "d"]), pd.Index(["d", "a"]), ["a", "a", "d"]):
        assert torch.equal(read(codec, {"job": choice}).codes["job"], read(codec, {"job": ["a", "d"]}).codes["job"])
    assert None in ([None] if len(read(codec, {"job": ["a", None]}).codes["job"]) == 2 else [])
    expected = read(codec, {"age": (30, 40)}).ranges["age"]
    for value in (pd.Interval(30, 40, closed="both"), slice(30, 40), (30.0, np.int64(40))):
        assert all(torch.equal(a, b) for a, b in zip(read(codec, {"age": value}).ranges["age"], expected, strict=True))
    assert not read(codec, None) and not read(codec, {}) and read(codec, {}, balance="job")


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"jop": "a"}, "where: there is no column 'jop'; did you mean 'job'?"),
        ({"job": "e"}, "column 'job': level 'e' was never seen; the levels are"),
        ({"job": ["a", "e"]}, "column 'job': level 'e' was never seen"),
        ({"size": "mid"}, "column 'size': level 'mid' was never seen"),
        ({"flag": None}, "column 'flag': no value was missing in the table that was fitted"),
        ({"age": None}, "column 'age': no value was missing"),
        ({"job": []}, "where: column 'job' is asked for with an empty list"),
        ({"job": {"a": 1}}, "where: {'a': 1} is no value of column 'job'"),
        ({"job": ("a", "d")}, "where: column 'job' is categorical; a range needs numbers or dates"),
        ({"age": [30, 40]}, "where: column 'age' is integer; ask for one value or a range (low, high)"),
        ({"age": (30, 40, 50)}, "where: a range of column 'age' is (low, high), not 3 values"),
        ({"age": (40, 30)}, "column 'age' holds no value in the range asked for; those seen reach from 18 to 89"),
        ({"age": (200, None)}, "column 'age' holds no value in the range"),
        ({"age": 200}, "column 'age' holds no value in the range"),
        ({"age": 10**30}, "column 'age'"),
        ({"age": 30.5}, "column 'age' is integer (int64) and cannot hold 30.5"),
        ({"age": "old"}, "column 'age': 'old' is not a value of a integer column"),
        ({"count": 7.5}, "column 'count' is integer (Int64) and cannot hold 7.5"),
        ({"when": "soon"}, "column 'when': 'soon' is not a value"),
        ({"when": ("2030-01-01", None)}, "column 'when' holds no value in the range"),
        ({"day": "2020-03-01 12:00"}, "column 'day' is datetime (object) and cannot hold '2020-03-01 12:00'"),
        ({"id": "K-001"}, "where: column 'id' is an identifier; its values are made up and cannot be asked for"),
        ({"high": 7}, "where: column 'high' follows from others by a constraint; ask for those"),
        ({"one": 4}, "column 'one': level 4 was never seen"),
        ("age", "where: 'age' is no condition; write column=value"),
        ("job>=a", "where: column 'job' is categorical; >= needs numbers or dates"),
        ("age=old", "where: 'old' is no value of column 'age' (integer)"),
        ("when=2020-13-45", "where: '2020-13-45' is no value of column 'when'"),
        ("job=a|e", "column 'job': level 'e' was never seen"),
        ("jop=a", "where: there is no column 'jop'; did you mean 'job'?"),
    ],
)
def test_impossible_wishes_are_refused_with_the_name_of_the_column(codec, where, words):
    with pytest.raises(UserError) as caught:
        read(codec, where)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("balance", "words"),
    [
        ("jop", "balance: there is no column 'jop'; did you mean 'job'?"),
        ("age", "balance: column 'age' must have levels"),
        ("one", "balance: column 'one' must have levels"),
        ("id", "balance: column 'id' is an identifier"),
        ("flag", "balance: column 'flag' must have levels and must not be asked for otherwise"),
    ],
)
def test_impossible_balances_are_refused(codec, balance, words):
    with pytest.raises(UserError, match="^" + words):
        read(codec, {"flag": True}, balance)


def test_columns_that_only_the_model_has_cannot_be_asked_for():
    rng = np.random.default_rng(0)
    hot = np.eye(3, dtype=int)[rng.integers(0, 3, N)]
    df = pd.DataFrame(hot, columns=["a", "b", "c"]).assign(p=rng.integers(0, 9, N), q=rng.integers(0, 9, N))
    df["sum"] = df["p"] + df["q"]
    codec = TableCodec.fit(df, constraints=["one of a, b, c", "p + q = sum"])
    for name in ("a", "sum"):
        with pytest.raises(UserError, match=f"column '{name}' follows from others by a constraint"):
            read(codec, {name: 1})
    with pytest.raises(UserError, match="there is no column 'one of a, b, c'"):
        read(codec, {"one of a, b, c": "a"})
    assert (made(codec, {"p": 4})["p"] == 4).all()


def test_turns_leave_missing_values_out(codec):
    wanted = read(codec, None, balance="job")
    _, state = known(codec, wanted, torch.arange(8))
    frame = codec.decode(state)
    assert (frame["job"].value_counts(dropna=False) == 2).all() and frame["job"].notna().all()
