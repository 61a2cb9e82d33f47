"""Files of paths hold every path, are all or nothing, and do not depend on the chunks."""

from __future__ import annotations

import gzip
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from diffusionkit.errors import UserError
from diffusionkit.timeseries import export
from diffusionkit.timeseries.export import open_writer
from diffusionkit.timeseries.forecast import Forecast

N, STEPS = 12, 5
TABLES = [".csv", ".csv.gz", ".parquet"]
ALL = [*TABLES, ".png", ".npz"]


def codec(names=("a", 'b, "c"'), tz="Europe/Berlin", joint=True):
    """Stands in for the domain's codec."""
    index = pd.date_range("2020-03-28 20:00", periods=30 + STEPS, freq="h", tz=tz)
    past = pd.DataFrame(1.0, index=index[:30], columns=list(names))

    def times(horizon):
        if joint:
            return index[30 : 30 + horizon]
        later = index[30 : 30 + horizon].tz_convert(None)
        return np.stack([later + pd.Timedelta(days=k) for k in range(len(names))], 1)

    history = past if joint else past.rename_axis("ds").reset_index().melt("ds", var_name="unique_id", value_name="y")
    return SimpleNamespace(names=names, freq="h", joint=joint, tz=index.tz, times=times, history=lambda: history)


def paths(source, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(N, STEPS, len(source.names))))


def written(source, x, path, chunks=3):
    with open_writer(source, path, len(x)) as writer:
        for part in x.chunk(chunks):
            writer.write(part)
    return path


def whole(source, x):
    return Forecast(x.numpy(), source.names, source.times(STEPS), "h", None, source.joint, source.tz)


@pytest.mark.parametrize("joint", [True, False])
def test_parquet_holds_the_table_of_all_paths(joint, tmp_path):
    source = codec(joint=joint)
    x = paths(source)
    made = pd.read_parquet(written(source, x, tmp_path / "new" / "f.parquet"))
    pd.testing.assert_frame_equal(made, whole(source, x).paths())


def test_parquet_keeps_names_that_are_numbers(tmp_path):
    source = codec(names=(7, 3))
    made = pd.read_parquet(written(source, paths(source), tmp_path / "f.parquet"))
    assert made["unique_id"].dtype.kind == "i" and list(made["unique_id"].unique()) == [7, 3]
    with pytest.raises(UserError, match=r"f.parquet: parquet cannot hold names of series of several types; write .csv"):
        written(codec(names=("a", 3)), paths(source), tmp_path / "f.parquet")
    text = pd.read_csv(written(codec(names=("a", 3)), paths(source), tmp_path / "f.csv"))
    assert list(text["unique_id"].unique()) == ["a", "3"]


@pytest.mark.parametrize("ending", TABLES[:2])
@pytest.mark.parametrize("tz", ["Europe/Berlin", None])
def test_text_holds_every_digit_and_hour(ending, tz, tmp_path):
    source = codec(tz=tz)
    x = paths(source)
    made, expected = (
        pd.read_csv(written(source, x, tmp_path / f"f{ending}"), dtype={"y": str}),
        whole(source, x).paths(),
    )
    assert np.array_equal(made["y"].astype(float), expected["y"]) and np.array_equal(
        made["sample_id"], expected["sample_id"]
    )
    assert list(made["unique_id"]) == list(expected["unique_id"])
    assert (pd.to_datetime(made["ds"], utc=True) == pd.to_datetime(expected["ds"], utc=True)).all()


@pytest.mark.parametrize("ending", TABLES)
def test_tables_do_not_depend_on_the_chunks(ending, tmp_path, monkeypatch):
    source = codec()
    x = paths(source)
    one = written(source, x, tmp_path / f"1{ending}", 1)
    monkeypatch.setattr(export, "CELLS", 3 * STEPS * 2)  # three paths at once
    many = written(source, x, tmp_path / f"2{ending}", 2)
    if ending == ".parquet":
        assert pq.ParquetFile(one).num_row_groups == 1 and pq.ParquetFile(many).num_row_groups == 4
        pd.testing.assert_frame_equal(pd.read_parquet(one), pd.read_parquet(many))
    else:
        read = gzip.decompress if ending.endswith("gz") else bytes
        assert read(one.read_bytes()) == read(many.read_bytes())


def test_packed_text_names_neither_its_time_nor_its_file(tmp_path):
    source = codec()
    head = written(source, paths(source), tmp_path / "f.csv.gz").read_bytes()[:10]
    assert head[3] == 0 and head[4:8] == bytes(4)  # flags, time


def test_a_forecast_is_written_whole(tmp_path):
    for joint in (True, False):
        source = codec(joint=joint)
        x = paths(source)
        made = Forecast.load(written(source, x, tmp_path / "f.npz"))
        assert np.array_equal(made.samples, x) and made.names == source.names and made.joint == joint
        assert (
            made.paths().equals(whole(source, x).paths()) and made.past("a").eq(1).all() and len(made.past("a")) == 30
        )


def test_a_picture_is_written(tmp_path):
    source = codec()
    path = written(source, paths(source), tmp_path / "f.png")
    assert Image.open(path).format == "PNG" and Image.open(path).size[0] > 500


def test_arrays_and_small_floats_are_taken(tmp_path):
    source = codec()
    x = paths(source).float()
    with open_writer(source, tmp_path / "f.parquet", N) as writer:
        writer.write(x.numpy())
    assert np.array_equal(pd.read_parquet(tmp_path / "f.parquet")["y"], whole(source, x).paths()["y"])


@pytest.mark.parametrize("ending", ALL)
def test_nothing_half_written_is_left(ending, tmp_path):
    source = codec()
    x = paths(source)
    path = tmp_path / f"f{ending}"
    path.write_text("before")
    with pytest.raises(KeyboardInterrupt), open_writer(source, path, N) as writer:
        writer.write(x[:4])
        raise KeyboardInterrupt
    with pytest.raises(ValueError, match="4 samples instead of the 12"), open_writer(source, path, N) as writer:
        writer.write(x[:4])
    with pytest.raises(ValueError, match="more samples than the 10"), open_writer(source, path, 10) as writer:
        writer.write(x)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "before"
    written(source, x, path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_bytes() != b"before"


@pytest.mark.parametrize("ending", TABLES)
def test_no_paths_make_a_table_of_names(ending, tmp_path):
    source = codec()
    with open_writer(source, tmp_path / f"f{ending}", 0) as writer:
        writer.write(paths(source)[:0])
    made = pd.read_parquet(tmp_path / f"f{ending}") if ending == ".parquet" else pd.read_csv(tmp_path / f"f{ending}")
    assert len(made) == 0 and list(made.columns) == ["unique_id", "ds", "sample_id", "y"]


def test_places_that_cannot_be_written_are_refused_first(tmp_path):
    source = codec()
    with pytest.raises(UserError, match=r"unknown ending '.xlsx'; known are .csv, .csv.gz, .parquet, .png, .npz"):
        open_writer(source, tmp_path / "f.xlsx", 1)
    with pytest.raises(UserError, match="needs at least one path"):
        open_writer(source, tmp_path / "f.png", 0)
    (tmp_path / "f.csv").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        open_writer(source, tmp_path / "f.csv", 1)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"), open_writer(source, tmp_path / "file" / "f.csv", 0):
        pass
