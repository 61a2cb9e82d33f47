from __future__ import annotations

import json
import os

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular.data import Csv, Named, Rand, parts, split
from diffusionkit.tabular.schema import Schema

real = pytest.mark.skipif(not os.environ.get("DIFFUSIONKIT_DATA"), reason="DIFFUSIONKIT_DATA is not set")
N = 80


def frame() -> pd.DataFrame:
    return pd.DataFrame({
        "age": np.arange(N) % 50, "zip": [f"{i % 7:05d}" for i in range(N)], "job": ["a", "b", "?", "c"] * 20,
        "when": pd.date_range("2020-01-01", periods=N), "part": (["train"] * 6 + ["val", "test"]) * 10,
    })  # fmt: skip


def write(df: pd.DataFrame, path) -> str:
    if path.suffix == ".parquet":
        df.to_parquet(path)
    else:
        df.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return str(path)


def test_rand_is_bundled():
    data = Rand()
    found = data.load()
    assert {part: len(rows) for part, rows in found.items()} == {"train": 18171, "test": 2019}
    assert data.target in found["train"] and found["train"].shape[1] == 10
    kinds = Schema.infer(found["train"], data.columns).kinds
    assert kinds["lpi"] == "continuous" and kinds["hlthg"] == kinds["mdvis"] == "integer"


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.TSV.GZ", "t.parquet"])
def test_files_are_read_whole(name, tmp_path):
    columns = {"zip": "categorical", "when": "datetime"}
    found = Csv(write(frame(), tmp_path / name.lower()), columns, split="part").load()
    assert list(found) == ["train", "val", "test"]
    rows = pd.concat(found.values()).sort_values("when", ignore_index=True)
    expected = frame().drop(columns="part")
    assert rows["when"].dtype.kind == "M" and list(rows.columns) == list(expected.columns)
    assert (rows["zip"] == expected["zip"]).all() and (rows["age"] == expected["age"]).all()
    assert (rows["when"] == expected["when"]).all() and found["val"].index.tolist() == list(range(10))


def test_levels_written_as_plain_numbers_stay_numbers(tmp_path):
    df = frame().assign(code=np.arange(N) % 3)
    rows = Csv(write(df, tmp_path / "t.csv"), {"code": "categorical", "zip": "ordinal"}).load()["train"]
    assert rows["code"].dtype == np.int64 and rows["zip"].str.len().eq(5).all()


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_further_texts_mean_missing(name, tmp_path):
    path = write(frame(), tmp_path / name)
    assert sum(rows["job"].isna().sum() for rows in Csv(path, missing=["?"]).load().values()) == 20
    assert sum(rows["job"].isna().sum() for rows in Csv(path).load().values()) == 0
    rows = Csv(path, drop=["job", "part"], target="age").load()["train"]
    assert list(rows.columns) == ["age", "zip", "when"]


def test_rows_are_held_out_at_random_and_repeatably():
    df = frame()
    one, again, other = split(df, 0.25, 1), split(df, 0.25, 1), split(df, 0.25, 2)
    assert len(one["test"]) == 20 and len(one["train"]) == 60
    pd.testing.assert_frame_equal(one["test"], again["test"])
    assert not one["test"].equals(other["test"])
    together = pd.concat([one["train"], one["test"]]).sort_values("when", ignore_index=True)
    pd.testing.assert_frame_equal(together, df)
    assert {part: len(rows) for part, rows in split(df[:2], 0.001).items()} == {"train": 1, "test": 1}
    with pytest.raises(UserError, match="at least 2"):
        split(df[:1], 0.5)


def test_a_column_can_say_which_part_a_row_is_of():
    df = pd.DataFrame({"x": range(4), "s": ["test", "train", "train", "test"]})
    assert {part: rows["x"].tolist() for part, rows in parts(df, "s", "t").items()} == {"train": [1, 2], "test": [0, 3]}
    with pytest.raises(UserError, match="t: column 's' must say train, val or test of each row, not 'no'"):
        parts(df.assign(s="no"), "s", "t")
    with pytest.raises(UserError, match="train of no row"):
        parts(df.assign(s="test"), "s", "t")


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"path": ""}, "data.path is missing"),
        ({"path": "no.csv"}, "no.csv: there is no such file"),
        ({"columns": {"x": "integer"}}, "data.columns: .* has no column 'x'; it has 'age', 'zip'"),
        ({"drop": ["x"]}, "data.drop: .* no column 'x'"),
        ({"target": "x"}, "data.target: .* no column 'x'"),
        ({"split": "x"}, "data.split: .* no column 'x'"),
        ({"target": "age", "drop": ["age"]}, "data.target: column 'age' is also in data.drop"),
        ({"columns": {"job": "datetime"}}, "column 'job' is no datetime"),
        ({"split": "job"}, "column 'job' must say train, val or test"),
    ],
)
@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_what_does_not_fit_the_file_is_refused(arguments, words, name, tmp_path):
    path = write(frame(), tmp_path / name)
    with pytest.raises(UserError, match=words):
        Csv(**{"path": path, **arguments}).load()


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet", "t.xls"])
def test_damaged_and_unknown_files_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"" if name == "t.csv" else b"\x1f\x8b damaged")
    with pytest.raises(UserError, match="unknown ending" if name == "t.xls" else f"{name}: cannot be read"):
        Csv(str(tmp_path / name)).load()
    (tmp_path / "empty.csv").write_text("a,b\n")
    with pytest.raises(UserError, match="holds no rows"):
        Csv(str(tmp_path / "empty.csv")).load()
    with pytest.raises(ValueError, match="test must lie between 0 and 1"):
        Csv("t.csv", test=1.0)


def make_named(folder) -> pd.DataFrame:
    df = frame().rename(columns={"part": "split"})
    (folder / "tabular").mkdir()
    df.to_parquet(folder / "tabular" / "tiny.parquet")
    entry = {"target": "age", "task": "multiclass", "numerical": [], "categorical": ["zip", "job"]}
    content = {"tiny": entry, "other": {**entry, "task": "regression"}}
    (folder / "tabular" / "columns.json").write_text(json.dumps(content))
    return df


def test_published_tables_bring_their_kinds_and_their_split(tmp_path):
    df = make_named(tmp_path)
    data = Named("tiny", str(tmp_path), missing=["?"])
    assert data.columns == {"zip": "categorical", "job": "categorical", "age": "categorical"} and data.target == "age"
    found = data.load()
    assert {part: len(rows) for part, rows in found.items()} == {"train": 60, "val": 10, "test": 10}
    assert list(found["train"].columns) == list(df.columns[:-1]) and found["train"]["job"].isna().any()
    assert "age" not in Named("other", str(tmp_path)).columns


def test_published_tables_that_are_not_there_are_refused(tmp_path, monkeypatch):
    make_named(tmp_path)
    with pytest.raises(UserError, match="there is no 'none' in .*; there are other, tiny"):
        Named("none", str(tmp_path)).load()
    with pytest.raises(UserError, match=r"other.parquet: there is no such file"):
        Named("other", str(tmp_path)).load()
    with pytest.raises(UserError, match=r"columns.json: cannot be read"):
        Named("tiny", str(tmp_path / "nowhere")).load()
    monkeypatch.delenv("DIFFUSIONKIT_DATA", raising=False)
    with pytest.raises(UserError, match="data.root is missing"):
        Named("tiny").load()


@real
@pytest.mark.parametrize(
    "table", ["adult", "shoppers", "default", "churn2", "diabetes", "california", "insurance", "abalone"]
)
def test_published_tables_as_they_are(table):
    data = Named(table)
    found = data.load()
    schema = Schema.infer(found["train"], data.columns)
    schema.check(found["test"])
    assert data.target in schema.names and "split" not in schema.names
    assert ("val" in found) == (table in ("churn2", "diabetes", "california", "insurance", "abalone"))
