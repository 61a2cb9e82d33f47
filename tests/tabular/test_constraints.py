import datetime
import json

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular.constraints import Constraints, FixedSum, LessEqual, OneOf, from_json, parse

N = 300


def holed(column, seed, share=0.2):
    return column.mask(np.random.default_rng(seed).random(len(column)) < share)


def rows(draw, columns, share=0.2):
    return np.repeat(draw.random((N, 1)) < share, columns, 1)


def frames_for():
    """name -> (frame, constraint): every sort of column that each constraint takes."""
    draw = np.random.default_rng(0)
    a, d = draw.integers(-50, 50, N), draw.integers(0, 30, N) * (draw.random(N) < 0.7)
    cents = (a * 7 + draw.integers(0, 100, N)) / 100
    days = pd.Series(pd.Timestamp("2020-02-01") + pd.to_timedelta(a, "D"))
    later = days + pd.to_timedelta(d, "D")
    ints, floats = pd.Series(a), pd.Series(cents)
    order = {
        "int": (ints, ints + d),
        "int8": (ints.astype("int8"), (ints + d).astype("int8")),
        "cents": (floats, (floats + d / 20).round(2)),
        "int and tenths": (ints, ints + d / 10),
        "tenths and int": (ints + 0.1, ints + d + 1),
        "float32": ((floats / 3).astype("float32"), ((floats / 3).astype("float32") + d / 8).astype("float32")),
        "missing": (holed(floats, 1), holed((floats + d / 20).round(2), 2)),
        "Int64": (holed(ints.astype("Int64"), 1), holed((ints + d).astype("Int64"), 2)),
        "Float64": (holed(floats.astype("Float64"), 1), (floats + d).round(2).astype("Float64")),
        "pyarrow": (holed(ints.astype("int32[pyarrow]"), 1), holed((ints + d).astype("int32[pyarrow]"), 2)),
        "all missing": (pd.Series([np.nan] * N), ints),
        "all missing high": (ints, pd.Series([np.nan] * N)),
        "dates": (holed(days, 1), holed(later, 2)),
        "seconds": (days.astype("M8[s]"), later.astype("M8[s]")),
        "units": (days.astype("M8[ns]"), later.astype("M8[s]")),
        "zone": (holed(days.dt.tz_localize("Europe/Berlin"), 1), later.dt.tz_localize("Europe/Berlin")),
        "zones": (days.dt.tz_localize("UTC"), later.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")),
        "plain dates": (
            pd.Series(days.dt.date, dtype=object),
            pd.Series([one if i % 5 else None for i, one in enumerate(later.dt.date)], dtype=object),
        ),
        "spans": (pd.Series(pd.to_timedelta(a, "h")), pd.Series(pd.to_timedelta(a + d, "h"))),
    }
    made = {
        f"order of {k}": (pd.DataFrame({"high": y, "x": "x", "low": x}), LessEqual("low", "high"))
        for k, (x, y) in order.items()
    }

    parts = pd.DataFrame(draw.multinomial(100, [0.5, 0.2, 0.2, 0.1], N), columns=["a", "b", "c", "d"])
    hundredths = (parts * 37 / 100).round(2)
    hundredths["d"] = (37 - hundredths[["a", "b", "c"]].sum(axis=1)).round(2)
    random = pd.DataFrame(draw.dirichlet([1, 1, 1], N), columns=["a", "b", "c"])
    absent = pd.concat([holed(parts[c].astype("Int64"), i, 0.1) for i, c in enumerate(parts)], axis=1)
    mixed = parts.assign(c=parts["c"] - 0.25 * (parts["c"] > 0), d=parts["d"] + 0.25 * (parts["c"] > 0))
    shares = {
        "whole": (parts, 100),
        "uint8": (parts.astype("uint8"), 100),
        "hundredths": (hundredths, 37),
        "mixed": (mixed[["c", "a", "d", "b"]], 100),
        "random": (random, 1),
        "float32": (random.astype("float32"), 1),
        "missing": (absent, 100),
        "missing together": (parts.astype(float).mask(rows(draw, 4)), 100),
    }
    made |= {f"sum of {k}": (df, FixedSum(df.columns.tolist(), n)) for k, (df, n) in shares.items()}

    total = parts.sum(axis=1) + a - a
    columns = {
        "whole": parts.assign(total=parts.sum(axis=1)),
        "signed": pd.DataFrame({"total": a + cents, "a": a, "b": cents}).round(2),
        "rounded": pd.DataFrame({"a": cents, "total": (cents + d / 9).round(1), "b": d / 9}),
        "random": random.assign(total=random.sum(axis=1)),
        "float total": parts.assign(total=parts.sum(axis=1).astype(float)),
        "total missing": parts.assign(total=holed(total.astype("Int64"), 1)),
        "part missing": absent.assign(total=holed(total.astype("Int64"), 9)),
        "missing alike": absent.assign(total=absent.sum(axis=1, skipna=False)),
    }
    made |= {f"total of {k}": (df, FixedSum([c for c in df if c != "total"], "total")) for k, df in columns.items()}

    hot = pd.DataFrame(np.eye(3, dtype=int)[draw.integers(0, 3, N)], columns=["p", "q", 7])
    gone = rows(draw, 3)
    some = {
        "int": hot,
        "bool": hot.astype(bool),
        "float missing": hot.astype(float).mask(gone),
        "boolean": hot.astype("boolean").mask(gone),
        "object": hot.astype(bool).astype(object).mask(gone),
        "pyarrow": hot.astype("bool[pyarrow]"),
        "mixed": hot.astype({"p": bool, 7: "Int8"}),
    }
    made |= {f"one of {k}": (df.assign(x=1), OneOf(["p", "q", 7])) for k, df in some.items()}
    return made


CASES = frames_for()


@pytest.fixture(params=CASES)
def case(request):
    df, constraint = CASES[request.param]
    df = df.copy()
    df.index = np.arange(len(df)) // 2  # labels that are there twice
    return df, from_json(constraint.to_json()).fit(df)


def test_round_trip(case):
    df, constraint = case
    again = from_json(json.loads(json.dumps(constraint.to_json())))
    narrow = "float32" in map(str, df.dtypes)
    for one in (constraint, again):
        pd.testing.assert_frame_equal(one.backward(one.forward(df)), df, rtol=1e-12, atol=1e-6 if narrow else 1e-12)


def decimal(df):
    numbers = df.select_dtypes("number", exclude="timedelta")
    return all(np.array_equal(numbers[c].dropna(), numbers[c].dropna().round(3)) for c in numbers)


@pytest.mark.parametrize("name", [name for name, (df, _) in CASES.items() if decimal(df)])
def test_round_trip_is_exact_where_values_are_rounded(name):
    df, constraint = CASES[name]
    before = df.copy()
    constraint = from_json(constraint.to_json()).fit(df)
    pd.testing.assert_frame_equal(constraint.backward(constraint.forward(df)), before, check_exact=True)
    pd.testing.assert_frame_equal(df, before, check_exact=True)


def shuffled(df, n=2000, seed=1):
    """Rows whose every column is drawn by itself, from its values and numbers between them."""
    draw, made = np.random.default_rng(seed), {}
    for name in df:
        column = df[name].take(draw.integers(0, len(df), n)).reset_index(drop=True)
        if str(column.dtype) == "float64" and column.notna().any():
            between = pd.Series(draw.uniform(column.min(), column.max(), n))
            column = column.where((draw.random(n) < 0.5) | column.isna(), between)
        made[name] = column
    return pd.DataFrame(made)


def test_no_row_breaks_it(case):
    df, constraint = case
    made = constraint.backward(shuffled(constraint.forward(df)))
    fresh = from_json({**constraint.to_json(), "kept": {}})
    assert constraint.holds(made).all() and fresh.holds(made).all()
    assert made.columns.tolist() == df.columns.tolist()
    assert [str(t) for t in made.dtypes] == [str(t) for t in df.dtypes]
    if isinstance(constraint, LessEqual) and df["high"].notna().any():
        seen, high = df["high"].dropna(), made["high"].dropna()
        within = high[~(made["low"].loc[high.index] > seen.max())] if df["low"].notna().any() else high
        assert len(within) and within.min() >= seen.min() and within.max() <= seen.max()
    if isinstance(constraint, FixedSum) and not constraint.column:
        parts = made[constraint.parts].dropna()
        assert len(parts) > 0 and (parts >= 0).all(axis=None)
        if all(pd.api.types.is_integer_dtype(dtype) for dtype in parts.dtypes):
            assert (parts.sum(axis=1) == constraint.total).all()


def test_known_answers():
    df = pd.DataFrame({"low": [1.0, np.nan, 3], "high": [1.5, 4, np.nan]})
    order = LessEqual("low", "high").fit(df)
    assert order.forward(df)["high"].tolist()[:2] == [0.5, 2.5] and order.forward(df)["low"].equals(df["low"])
    made = order.backward(pd.DataFrame({"low": [1.0, np.nan, 3.75, 7.05], "high": [9.0, 1, 0, 0.04]}))
    # Not above the highest seen unless low is; in tenths, as high is.
    assert made["high"].tolist() == [4, 2.5, 3.8, 7.1]

    df = pd.DataFrame({"a": [60, 0], "b": [10, 100], "c": [30, 0]})
    shares = FixedSum(["a", "b", "c"], 100).fit(df)
    assert shares.forward(df).to_dict("list") == {"a": [0.6, 0], "b": [0.25, 1]}
    assert shares.backward(pd.DataFrame({"a": [0.333, 1], "b": [0.5, 0.5]})).to_numpy().tolist() == [
        [33, 34, 33],
        [100, 0, 0],
    ]

    df = pd.DataFrame({"a": [1.5, 2], "total": [4, 4], "b": [2.5, 2]})
    total = FixedSum(["a", "b"], "total").fit(df)
    assert total.forward(df).columns.tolist() == ["a", "b"]
    assert total.backward(pd.DataFrame({"a": [1.25], "b": [3.0]}))["total"].tolist() == [4]

    df = pd.DataFrame({"x": [5, 6, 7], "p": [0, 1, 0], "q": [1, 0, 1]})
    one = OneOf(["p", "q"]).fit(df)
    assert one.forward(df).astype({"one of p, q": str}).to_dict("list") == {
        "x": [5, 6, 7],
        "one of p, q": ["q", "p", "q"],
    }


def test_dates_are_modelled_as_spans():
    df = pd.DataFrame(
        {"a": pd.to_datetime(["2020-01-01", "2020-01-05"]), "b": pd.to_datetime(["2020-01-03", "2020-01-05"])}
    )
    assert LessEqual("a", "b").fit(df).forward(df)["b"].tolist() == [pd.Timedelta(days=2), pd.Timedelta(0)]
    df = pd.DataFrame({"a": [datetime.date(2020, 1, 1)], "b": [datetime.date(2020, 1, 3)]})
    assert LessEqual("a", "b").fit(df).forward(df)["b"].tolist() == [pd.Timedelta(days=2)]


def test_a_narrow_float_is_never_rounded_below():
    low = np.random.default_rng(0).random(200)
    df = pd.DataFrame({"low": low, "high": (low + 0.5).astype("float32")})
    order = LessEqual("low", "high").fit(df)
    made = order.backward(order.forward(df).assign(high=0.0))
    assert (made["high"].astype(float) >= made["low"]).all() and made["high"].dtype == "float32"


# ---- several


def chain():
    draw = np.random.default_rng(0)
    a = draw.integers(0, 10, N)
    b, c = a + draw.integers(0, 5, N), draw.integers(0, 40, N)
    return pd.DataFrame(
        {"d": 2 * (a + b + c), "b": b, "a": a, "sum": a + b + c, "c": c, "z": 1, "m": a % 2, "n": 1 - a % 2}
    )


RULES = ["sum <= d", "a <= b", "a + b + c = sum", "one of m, n"]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]])
def test_chains(order):
    df = chain()
    many = Constraints([RULES[i] for i in order], df.columns).fit(df)
    modelled = many.forward(df)
    assert modelled.columns.tolist() == ["d", "b", "a", "c", "z", "one of m, n"]
    again = Constraints.from_json(json.loads(json.dumps(many.to_json())))
    for one in (many, again):
        pd.testing.assert_frame_equal(one.backward(modelled), df, check_exact=True)
        made = one.backward(shuffled(modelled))
        assert one.holds(made).all() and made.columns.tolist() == df.columns.tolist()
        assert (made.dtypes == df.dtypes).all()
    assert sorted(many.determined) == ["b", "d", "m", "n", "sum"] and len(many) == 4


def test_a_row_of_orders():
    df = pd.DataFrame(np.sort(np.random.default_rng(0).integers(0, 99, (N, 4)), 1), columns=list("abcd"))
    many = Constraints(["b <= c", "c <= d", "a <= b"]).fit(df)
    pd.testing.assert_frame_equal(many.backward(many.forward(df)), df)
    assert (np.diff(many.backward(shuffled(many.forward(df))).to_numpy(), axis=1) >= 0).all()


def test_none_at_all():
    df = chain()
    none = Constraints().fit(df)
    assert none.forward(df) is df and none.holds(df).all() and not len(none)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (["a <= b", "b <= a"], "constraints (a <= b and b <= a|b <= a and a <= b) go round in a circle"),
        (["a <= b", "b <= c", "c <= a"], "go round in a circle"),
        (["a <= c", "b <= c"], "constraints a <= c and b <= c both determine column 'c'"),
        (["a + b = c", "d <= c"], "both determine column 'c'"),
        (["a + b = 100", "one of b, c"], "both determine column 'b'"),
        (["a + b = c", "c <= a"], "go round in a circle"),
    ],
)
def test_what_cannot_be_together(rules, said):
    with pytest.raises(UserError, match=said):
        Constraints(rules)


# ---- refusals


def test_check_names_the_constraint_the_rows_and_the_first():
    df = pd.DataFrame({"a": [1, 5, 2, 9], "b": [2, 4, 2, 1]}, index=["r", "s", "t", "u"])
    with pytest.raises(UserError, match="constraint a <= b does not hold in 2 of 4 rows, the first of which is 's'"):
        LessEqual("a", "b").check(df)
    assert LessEqual("a", "b").holds(df).tolist() == [True, False, True, False]
    with pytest.raises(UserError, match="does not hold in 4 of 4 rows, the first of which is 'r'"):
        FixedSum(["a", "b"], 100).fit(df)
    with pytest.raises(UserError, match="one of a, b does not hold in 4 of 4"):
        Constraints(["one of a, b"]).fit(df)


def test_holds():
    nan = np.nan
    df = pd.DataFrame({"p": [1, 1, 0, nan, nan, 2], "q": [0, 1, 0, nan, 1, -1]})
    assert OneOf(["p", "q"]).holds(df).tolist() == [True, False, False, True, False, False]
    df = pd.DataFrame({"a": [0.1, 0.1, nan], "b": [0.2, 0.2, 1], "t": [0.3, 0.4, 5]})
    assert FixedSum(["a", "b"], "t").holds(df).tolist() == [True, False, True]
    df = pd.DataFrame({"a": [0.14, 0.16, 0.14], "b": [0.0, 0, 0], "t": [0.1, 0.1, 0.2]})
    assert FixedSum(["a", "b"], "t").holds(df).tolist() == [True, False, False]  # the total is rounded to tenths


@pytest.mark.parametrize(
    ("frame", "constraint", "said"),
    [
        ({"a": [1]}, LessEqual("a", "b"), "there is no column 'b'"),
        ({"a": ["x"], "b": [1]}, LessEqual("a", "b"), "column 'a' is .*; it must hold numbers, time spans, dates"),
        ({"a": [True], "b": [1]}, LessEqual("a", "b"), "column 'a' is bool"),
        ({"a": [pd.Timestamp(0)], "b": [1]}, LessEqual("a", "b"), "one column holds datetime and the other number"),
        (
            {"a": [pd.Timestamp(0)], "b": [pd.Timestamp(0, tz="UTC")]},
            LessEqual("a", "b"),
            "time zone and the other has none",
        ),
        ({"a": [np.inf], "b": [1]}, LessEqual("a", "b"), "infinite"),
        ({"a": [-1, 50], "b": [101, 50]}, FixedSum(["a", "b"], 100), "column 'a' is negative"),
        ({"a": ["x"], "b": [1]}, FixedSum(["a", "b"], 1), "it must hold numbers"),
        ({"a": ["x"], "b": [1]}, OneOf(["a", "b"]), "it must hold numbers, booleans"),
    ],
)
def test_columns_that_do_not_fit(frame, constraint, said):
    with pytest.raises(UserError, match=said):
        constraint.fit(pd.DataFrame(frame))


def test_impossible_constraints():
    with pytest.raises(UserError, match="column 'a' is named twice"):
        LessEqual("a", "a")
    with pytest.raises(UserError, match="at least two parts"):
        FixedSum(["a"], 100)
    with pytest.raises(UserError, match="above 0, not -1"):
        FixedSum(["a", "b"], -1)
    with pytest.raises(UserError, match="at least two columns"):
        OneOf(["a"])


# ---- texts


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("low <= high", LessEqual("low", "high")),
        ("high>=low", LessEqual("low", "high")),
        ("capital-gain <= hours per week", LessEqual("capital-gain", "hours per week")),
        ("`a <= b` <= `c, d`", LessEqual("a <= b", "c, d")),
        ("a + b + c = total", FixedSum(["a", "b", "c"], "total")),
        ("total = a + b", FixedSum(["a", "b"], "total")),
        ("a + b = 100", FixedSum(["a", "b"], 100)),
        ("a + b = 0.5", FixedSum(["a", "b"], 0.5)),
        ("a + b = `100`", FixedSum(["a", "b"], "100", column=True)),
        ("one of a, b, c", OneOf(["a", "b", "c"])),
        ("one of `x + y`,z", OneOf(["x + y", "z"])),
    ],
)
def test_parse(text, constraint):
    assert parse(text) == constraint == parse(str(constraint))


def test_parse_finds_labels_that_are_numbers():
    assert parse("3 <= 4", [3, 4]) == LessEqual(3, 4)
    assert parse("3 + 4 = `5`", [3, 4, 5]) == FixedSum([3, 4], 5, column=True)
    assert parse(str(LessEqual(3, 4)), [3, 4]) == LessEqual(3, 4)
    with pytest.raises(UserError, match="no column 'c'; there are a, b"):
        parse("a <= c", ["a", "b"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is none"),
        ("a", "is none"),
        ("a < b", "is none"),
        ("a <=", "is none"),
        ("<= b", "is none"),
        ("a = b", "is none"),
        ("a + b = c + d", "is none"),
        ("a + b", "is none"),
        ("a + = b", "is none"),
        ("a <= b <= c", "one constraint for each"),
        ("one of a", "at least two columns"),
        ("one of a + b", "separated by commas"),
        ("`a <= b", "backtick is not closed"),
        ("a <= a", "named twice"),
    ],
)
def test_parse_refuses(text, said):
    with pytest.raises(UserError, match=said):
        parse(text)
