from __future__ import annotations

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular.schema import Schema

N = 60


def column(values, kind=None):
    df = pd.DataFrame({"x": values})
    return Schema.infer(df, {"x": kind} if kind else None)["x"]


@pytest.mark.parametrize(
    "values, kind",
    [
        ([True, False] * 30, "boolean"),
        (pd.array([True, None] * 30, dtype="boolean"), "boolean"),
        (np.array([True, None, False] * 20, dtype=object), "boolean"),
        (np.arange(N), "integer"),
        (pd.array([1, None, 3] * 20, dtype="Int64"), "integer"),
        (np.array([1, None, 3] * 20, dtype=object), "integer"),
        ([1.0, 2.0, np.nan] * 20, "integer"),
        ([1.0, 2.5, np.nan] * 20, "continuous"),
        ([1e300, 3e300] * 30, "continuous"),
        (pd.to_timedelta(range(N), unit="s"), "continuous"),
        (pd.date_range("2020", periods=N, tz="Europe/Berlin"), "datetime"),
        ([datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)] * 30, "datetime"),
        (["a", "b", None] * 20, "categorical"),
        (pd.Categorical(["a", "b"] * 30), "categorical"),
        (pd.Categorical(["a", "b"] * 30, ordered=True), "ordinal"),
        (pd.cut(np.arange(N), 4), "ordinal"),
        ([f"{i:04x}" for i in range(N)], "identifier"),
        (pd.Categorical([f"{i:04x}" for i in range(N)]), "categorical"),
        ([3] * N, "constant"),
        (["a"] * N, "constant"),
        ([None] * N, "constant"),
        ([np.nan] * N, "constant"),
        (["a", None] * 30, "categorical"),
    ],
    ids=str,
)
def test_kinds_are_inferred(values, kind):
    assert column(values).kind == kind


def test_all_different_texts_of_a_short_table_are_levels():
    with pytest.warns(UserWarning, match="only 49 rows"):
        assert column([f"{i}" for i in range(49)]).kind == "categorical"


@pytest.mark.parametrize(
    "values, kind",
    [(np.arange(N), "categorical"), (np.arange(N), "identifier"), (np.arange(N), "continuous"), ([0, 1] * 30, "boolean"),
     (["a", "b"] * 30, "ordinal"), ([0.5, 1.5] * 30, "categorical"), (["a", "b"] * 30, "identifier")],
)  # fmt: skip
def test_kinds_can_be_chosen(values, kind):
    assert column(values, kind).kind == kind


@pytest.mark.parametrize(
    "values, kind, words",
    [(["a", "b"] * 30, "continuous", "not numbers"), ([0.5, 1.5] * 30, "integer", "not all whole"),
     ([0, 1, 2] * 20, "boolean", "3 different"), (["2020-01-01", "b"] * 30, "datetime", "not dates"),
     ([0, 1] * 30, "constant", "differ"), ([0.5, 1.5] * 30, "identifier", "neither"), ([0, 1] * 30, "number", "a kind is one of"),
     (pd.Categorical([1, 2] * 30), "integer", "not all whole")],
)  # fmt: skip
def test_kinds_that_the_values_do_not_allow_are_refused(values, kind, words):
    with pytest.raises(UserError, match=f"'x' cannot be .*{words}"):
        column(values, kind)


@pytest.mark.parametrize(
    "df, words",
    [
        (pd.DataFrame({"x": []}), "empty: it has 0 rows"),
        (pd.DataFrame(index=range(3)), "0 columns"),
        (pd.DataFrame([[1, 2]] * N, columns=["x", "x"]), "'x' is there more than once"),
        (pd.DataFrame({"x": [1.0, np.inf] * 30}), "'x' holds 30 infinite"),
        (
            pd.DataFrame({"x": np.array([1, "a"] * 30, dtype=object)}),
            "'x' holds values of several types, such as int and str",
        ),
        (pd.DataFrame({"x": [[1], [2]] * 30}), "'x' holds objects of type list"),
        (pd.DataFrame({"x": [b"1", b"2"] * 30}), "'x' holds bytes"),
        (pd.DataFrame({"x": [1j, 2j] * 30}), "'x': dtype complex128 is not supported"),
        (pd.DataFrame({"x": pd.period_range("2020", periods=N)}), "'x': dtype period"),
        (pd.DataFrame({("a", "b"): range(N)}), "a name must be a text or a whole number"),
        ({"x": [1]}, "must be a pandas DataFrame, not dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_a_table_is_refused(df, words):
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        Schema.infer(df)


def test_unknown_columns_are_refused():
    with pytest.raises(UserError, match="no column 'y'; there are 'x'"):
        Schema.infer(pd.DataFrame({"x": range(N)}), {"y": "integer"})
    with pytest.raises(UserError, match="no column 'y'; there are 'x'"):
        Schema.infer(pd.DataFrame({"x": range(N)}))["y"]


def mixed() -> pd.DataFrame:
    return pd.DataFrame({
        "age": range(N), 7: [0.5, 1.25] * 30, "kind": pd.Categorical(["b", "a"] * 30, ["b", "c", "a"], ordered=True),
        "cut": pd.cut(np.arange(N), 3), "day": pd.date_range("2020", periods=N, tz="UTC"), "hole": ["x", None] * 30,
        "month": pd.Categorical(pd.to_datetime(["2020-01-01", "2020-02-01"] * 30)),
    })  # fmt: skip


def test_the_schema_goes_through_json():
    schema = Schema.infer(mixed())
    again = Schema.from_json(json.loads(json.dumps(schema.to_json())))
    assert again == schema
    assert all(a.pandas_dtype() == mixed()[a.name].dtype for a in again.columns)
    assert again.names == list(mixed().columns)


def test_the_schema_is_shown_as_a_table():
    lines = str(Schema.infer(mixed())).splitlines()
    assert len(lines) == 1 + mixed().shape[1]
    assert len({line.index(c.kind, 5) for line, c in zip(lines[1:], Schema.infer(mixed()).columns, strict=True)}) == 1
    assert "0 to 59" in lines[1] and "50.0%" in lines[6] and "b, a" in lines[3]


def test_a_frame_of_the_same_sort_passes():
    schema = Schema.infer(mixed())
    other = mixed()[::-1].astype({"age": float, "kind": str})
    other.loc[3, "age"] = np.nan
    other["day"] = other["day"].dt.tz_convert("Europe/Berlin")
    other["hole"] = None
    schema.check(other[other.columns[::-1]])
    schema.check(other[["age"]], only=["age"])


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda df: df.drop(columns="age"), "column 'age' is missing"),
        (lambda df: df.assign(more=1), "'more' was not in the table"),
        (lambda df: df.assign(age=df.age.astype(str)), "column 'age' held .*'number' .* holds 'text' now"),
        (lambda df: df.assign(age=df.age + 0.5), "column 'age' held whole numbers"),
        (lambda df: df.assign(age=df.age.astype(float) / 0.0), "column 'age' holds .* infinite"),
        (lambda df: df.assign(hole=1.0), "column 'hole' held"),
        (lambda df: df.assign(day=df.day.dt.tz_localize(None)), "column 'day' has no time zone now"),
        (lambda df: df.assign(day=df.day.dt.date), "column 'day' held"),
        (lambda df: pd.concat([df, df[["age"]]], axis=1), "'age' is there more than once"),
    ],
)
def test_a_frame_of_another_sort_is_refused(change, words):
    with pytest.raises(UserError, match=words):
        Schema.infer(mixed()).check(change(mixed()))


def test_only_identifiers_can_be_left_out():
    df = mixed().assign(id=[f"{i:05d}" for i in range(N)])
    schema = Schema.infer(df).leave_out("id")
    assert schema["id"].drop
    assert Schema.infer(df, {"id": "drop"}) == schema
    schema.check(df.drop(columns="id"))
    with pytest.raises(UserError, match="'age' is integer"):
        schema.leave_out("age")
