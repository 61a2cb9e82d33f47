from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.export import open_writer

N = 100
ENDINGS = [".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet"]


def table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    holes = rng.random(N) < 0.3
    return pd.DataFrame({
        "x": rng.normal(size=N).round(3), "k": pd.Series(rng.integers(0, 9, N), dtype="Int64").mask(holes),
        "job": pd.Series(rng.choice(["a, b", 'c"d', "e\tf"], N)).mask(holes), "flag": rng.random(N) < 0.5,
        "kind": pd.Categorical(rng.choice(["lo", "hi"], N), ["lo", "mid", "hi"], ordered=True),
        "when": pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 5, N) * 12, unit="h")).mask(holes),
        "day": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 50, N), unit="D"),
        "tz": pd.Timestamp("2020-01-01", tz="Europe/Berlin") + pd.to_timedelta(rng.integers(0, 10**8, N), unit="s"),
        "none": pd.Series([None] * N, dtype=object), "one": 3, "flags": pd.Series(rng.random(N) < 0.5, dtype=object).mask(holes, None),
        7: rng.integers(0, 3, N).astype("int8"), "id": [f"K-{i:03d}" for i in range(N)],
    })  # fmt: skip


def states(codec: TableCodec, df: pd.DataFrame, chunks: int = 4) -> list[dict]:
    x = codec.encode(df)
    return [{name: leaf[rows] for name, leaf in x.items()} for rows in torch.arange(len(df)).chunk(chunks)]


def written(codec, df, path, chunks=4):
    with open_writer(codec, path, len(df)) as writer:
        for x in states(codec, df, chunks):
            writer.write(x)
    return path


def test_parquet_keeps_every_dtype(tmp_path):
    df = table()
    df.loc[df.index[:50], "k"] = pd.NA  # the first chunks show no value
    df.loc[df.index[:50], "flags"] = None
    codec = TableCodec.fit(df, between=False)
    path = written(codec, df, tmp_path / "new" / "t.parquet")
    made = pd.read_parquet(path)
    assert made["id"].is_unique and not made["id"].isin(df["id"]).any()
    pd.testing.assert_frame_equal(made.drop(columns="id"), df.rename(columns=str).drop(columns="id"))
    assert pq.ParquetFile(path).num_row_groups == 4


@pytest.mark.parametrize("ending", ENDINGS[:4])
def test_text_holds_every_value(ending, tmp_path):
    df = table()
    codec = TableCodec.fit(df, between=False)
    path = written(codec, df, tmp_path / f"t{ending}")
    made = pd.read_csv(path, sep="\t" if "tsv" in ending else ",", parse_dates=["when", "day"])
    assert made["id"].is_unique and len(made) == N
    for name in ("x", "one", "flag", "when", "day"):
        assert np.array_equal(made[name].to_numpy(), df[name].to_numpy(), equal_nan=name in ("when", "x"))
    assert (made["job"].fillna("") == df["job"].fillna("")).all() and (made["kind"] == df["kind"].astype(str)).all()
    assert made["none"].isna().all() and (pd.to_datetime(made["tz"], utc=True) == df["tz"]).all()


@pytest.mark.parametrize("ending", ENDINGS[:4])
def test_text_does_not_depend_on_the_chunks(ending, tmp_path):
    df = table().sort_values("when", ignore_index=True)  # chunks with and without a time of day
    codec = TableCodec.fit(df, between=False)
    one, many = (written(codec, df, tmp_path / f"{k}{ending}", k).read_bytes() for k in (1, 25))
    assert (gzip.decompress(one) == gzip.decompress(many)) if ending.endswith("gz") else (one == many)


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_chunk_can_be_changed(ending, tmp_path):
    codec = TableCodec.fit(table())
    with open_writer(codec, tmp_path / f"t{ending}", 25, lambda frame: frame.assign(one=4)) as writer:
        writer.write(states(codec, table())[0])
    path = tmp_path / f"t{ending}"
    made = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path, sep="\t" if "tsv" in ending else ",")
    assert (made["one"] == 4).all()


@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_half_written_is_left(ending, tmp_path):
    df = table()
    codec = TableCodec.fit(df)
    path = tmp_path / f"t{ending}"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_writer(codec, path, N) as writer:
        writer.write(states(codec, df)[0])
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="25 samples instead of the 100"), open_writer(codec, path, N) as writer:
        writer.write(states(codec, df)[0])
    with pytest.raises(ValueError, match="more samples than the 10"), open_writer(codec, path, 10) as writer:
        writer.write(states(codec, df)[0])
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "before"
    written(codec, df, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() != b"before"


@pytest.mark.parametrize("ending", ENDINGS)
def test_no_rows_make_a_file_of_names(ending, tmp_path):
    codec = TableCodec.fit(table())
    with open_writer(codec, tmp_path / f"t{ending}", 0) as writer:
        writer.write({name: leaf[:0] for name, leaf in codec.encode(table()).items()})
    path = tmp_path / f"t{ending}"
    made = pd.read_parquet(path) if ending == ".parquet" else pd.read_csv(path, sep="\t" if "tsv" in ending else ",")
    assert len(made) == 0 and made.shape[1] == table().shape[1]


def test_places_that_cannot_be_written_are_refused_first(tmp_path):
    codec = TableCodec.fit(table())
    with pytest.raises(UserError, match="unknown ending '.xlsx'; known are .csv, .csv.gz"):
        open_writer(codec, tmp_path / "t.xlsx", 1)
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        open_writer(codec, tmp_path / "f.csv", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), open_writer(codec, tmp_path / "file" / "t.csv", 0):
        pass


def test_what_parquet_cannot_hold_is_refused_first(tmp_path):
    df = table()[["x"]].assign(cut=pd.cut(table()["x"], 3))
    codec = TableCodec.fit(df)
    with pytest.raises(UserError, match=r"t.parquet: parquet cannot hold column 'cut' of dtype category; write .csv"):
        with open_writer(codec, tmp_path / "t.parquet", 0):
            pass
    assert not list(tmp_path.iterdir())
    made = pd.read_csv(written(codec, df, tmp_path / "t.csv"))
    assert (made["cut"] == df["cut"].astype(str)).all()
