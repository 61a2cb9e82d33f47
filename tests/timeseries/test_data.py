from __future__ import annotations

import gzip
import json
import os
import tarfile

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries.data import Csv, Frame, Macro, Named, Nips
from diffusionkit.timeseries.nips import SHAPES
from diffusionkit.timeseries.published import SPLITS

real = pytest.mark.skipif(not os.environ.get("DIFFUSIONKIT_DATA"), reason="DIFFUSIONKIT_DATA is not set")


def frame(rows=40) -> pd.DataFrame:
    index = pd.date_range("2022-01-01", periods=rows, freq="D", name="ds")
    values = np.random.default_rng(0).normal(size=(rows, 2))
    return pd.DataFrame(values, index=index, columns=["a", "b"]).assign(temp=np.arange(float(rows)))


def write(df: pd.DataFrame, path) -> str:
    df = df.reset_index() if "ds" in (df.index.names or []) else df
    if path.suffix == ".parquet":
        df.to_parquet(path)
    else:
        df.to_csv(path, index=False, sep="\t" if ".tsv" in path.name else ",")
    return str(path)


def melted(df: pd.DataFrame) -> pd.DataFrame:
    return df[["a", "b"]].reset_index().melt("ds", var_name="unique_id", value_name="y")


def test_macro_is_bundled():
    data = Macro()
    parts = data.load()
    whole = parts["test"]
    assert whole.size == 12 and len(whole.blocks[0]) == 203 and whole.freq == "QS" and whole.joint
    assert whole.blocks[0].index[0] == pd.Timestamp("1959-01-01") and not np.isnan(whole.blocks[0].values).any()
    assert len(parts["train"].blocks[0]) == 203 - data.test == data.origins(203)[0]
    assert whole.series("realgdp").iloc[0] == 2710.349 and whole.series("unemp").iloc[-1] == 9.6


def test_test_windows_end_with_the_rows():
    for length, windows, stride in ((8, 5, 4), (30, 5, 0), (24, 28, 312), (6, 1, 0)):
        data = Frame(prediction_length=length, windows=windows, stride=stride)
        origins = data.origins(10_000)
        assert (
            len(origins) == windows
            and (np.diff(origins) == (stride or length)).all()
            and origins[0] == 10_000 - data.test
        )
        assert origins[-1] + max(length, data.stride) == 10_000
    for wrong in ({"windows": 0}, {"prediction_length": 0}, {"stride": -1}, {"context_length": -1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Frame(**wrong)
    with pytest.raises(UserError, match="in memory"):
        Frame().load()


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.tsv", "t.tsv.gz", "t.parquet"])
@pytest.mark.parametrize("shape", ["wide", "long"])
def test_files_are_read_whole(name, shape, tmp_path):
    df = frame()
    path = write(df if shape == "wide" else melted(df), tmp_path / name)
    data = Csv(path, prediction_length=5, windows=3, drop=["temp"] if shape == "wide" else [])
    parts = data.load()
    [block] = parts["test"].blocks
    assert (
        block.names == ("a", "b")
        and parts["test"].freq == "D"
        and np.allclose(block.values, df[["a", "b"]], rtol=1e-12)
    )
    assert block.index.equals(df.index) and len(parts["train"].blocks[0]) == 25
    np.testing.assert_array_equal(parts["train"].blocks[0].values, block.values[:25])


def test_columns_of_a_file(tmp_path):
    path = write(frame().reset_index().rename(columns={"ds": "when"}), tmp_path / "t.csv")
    panel = Csv(path, time="when", series=["b"], known=["temp"]).panel()
    assert panel.names == ("b",) and panel.known_names == ("temp",)
    assert Csv(path, time="when").panel().names == ("a", "b", "temp")
    long = melted(frame()).set_axis(["t", "id", "v"], axis=1).assign(id=lambda d: d["id"].map({"a": 7, "b": 8}))
    panel = Csv(write(long, tmp_path / "long.csv"), time="t", id="id", value="v", series=["8"], joint=False).panel()
    assert panel.names == (8,)
    static = write(pd.DataFrame({"unique_id": ["b", "a"], "area": [2.0, 1.0]}), tmp_path / "static.csv")
    path = write(melted(frame()), tmp_path / "l.csv")
    np.testing.assert_array_equal(Csv(path, static=static).panel().static, [[1], [2]])


def test_what_cannot_be_read_is_said(tmp_path):
    path = write(frame(), tmp_path / "t.csv")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"no parquet")
    for match, data in (
        ("data.path is missing", Csv()),
        ("no such file", Csv(str(tmp_path / "other.csv"))),
        ("unknown ending '.xls'", Csv(str(tmp_path / "t.xls"))),
        ("broken.parquet: cannot be read", Csv(str(broken))),
        ("data.static", Csv(path, static=str(tmp_path / "s.csv"))),
        ("data.drop: there is no column 'z'", Csv(path, drop=["z"])),
        ("data.series: there is no series 'z'", Csv(path, series=["z"])),
        ("t.csv: covariate 'z' of known", Csv(path, known=["z"])),
        ("t.csv: freq: 'often'", Csv(path, freq="often")),
        ("series 'a' has 40 rows, and 5 test windows of 24 steps take the last 120", Csv(path)),
    ):
        with pytest.raises(UserError, match=match):
            data.load()


@real
@pytest.mark.parametrize("name", SPLITS)
def test_published_sets_have_their_windows(name):
    data = Named(name)
    parts = data.load()
    whole, train, split = parts["test"], parts["train"], SPLITS[name]
    assert whole.freq == split.freq and whole.known_names == split.known
    ends = [len(block) for block in train.blocks]
    if split.start > 0:
        assert whole.joint and ends == [split.start] and data.origins(len(whole.blocks[0]))[0] == split.start
    else:
        assert not whole.joint and all(
            len(block) - rows == -split.start for block, rows in zip(whole.blocks, ends, strict=True)
        )
    whole.split(rows=data.test)[0].check_future(data.test)


@real
def test_rows_of_published_sets():
    folder = os.path.join(os.environ["DIFFUSIONKIT_DATA"], "timeseries")
    exchange = Named().load()["test"].blocks[0]
    df = pd.read_parquet(f"{folder}/exchange_rate_nips.parquet")
    np.testing.assert_array_equal(exchange.values, df)
    assert exchange.index.equals(pd.DatetimeIndex(df.index)) and Named().origins(6221).tolist() == [
        6071,
        6101,
        6131,
        6161,
        6191,
    ]
    m4 = Named("m4_hourly").load()
    rows = pd.read_parquet(f"{folder}/m4_hourly.parquet")
    assert m4["test"].size == 414 and {len(block) for block in m4["train"].blocks} == {700, 960}
    for name in ("H1", "H400"):
        of = rows[rows["unique_id"] == name]
        np.testing.assert_array_equal(m4["test"].series(name), of["y"])
        np.testing.assert_array_equal(m4["train"].series(name), of.loc[of["split"] == "train", "y"])
    wind = Named("irish_wind")
    assert wind.load()["train"].blocks[0].index[-1] == pd.Timestamp("1977-12-31")
    air = Named("air_quality_uci").load()["test"].blocks[0]
    assert np.isnan(air.values).sum() == 1683 + 8443 + 1639 + 1642 + 9 * 366


@real
def test_other_windows_begin_where_the_published_test_does():
    data = Named("etth1", prediction_length=48, windows=2)
    parts = data.load()
    assert len(parts["train"].blocks[0]) == 13936 and len(parts["test"].blocks[0]) == 13936 + 96
    month = Named("tourism_monthly", prediction_length=12)
    parts = month.load()
    lengths = [len(block) for block in parts["train"].blocks]
    assert lengths == [len(block) for block in Named("tourism_monthly").load()["train"].blocks]
    with pytest.raises(UserError, match="need 36"):
        Named("tourism_monthly", prediction_length=12, windows=3).load()
    with pytest.raises(UserError, match="has 6221 rows"):
        Named(windows=6).load()


def test_a_set_needs_a_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("DIFFUSIONKIT_DATA", raising=False)
    with pytest.raises(UserError, match="data.root is missing"):
        Named().load()
    with pytest.raises(UserError, match="no such file"):
        Named(root=str(tmp_path)).load()
    with pytest.raises(ValueError, match="set must be one of"):
        Named("m5")


def nips(folder, ending=".json.gz", size=3, steps=40, horizon=5, windows=2, start="2014-01-01 00:00:00"):
    """A set in the folder, as GluonTS writes it, and its rows."""
    rows = np.random.default_rng(1).normal(size=(size, steps + horizon * windows)).round(3)
    for part, ends in (("train", [steps]), ("test", [steps + horizon * (k + 1) for k in range(windows)])):
        (folder / part).mkdir(parents=True, exist_ok=True)
        lines = [
            json.dumps({"start": start, "target": row[:end].tolist(), "feat_static_cat": [i]})
            for end in ends
            for i, row in enumerate(rows)
        ]
        opened = gzip.open if ending.endswith(".gz") else open
        with opened(folder / part / f"data{ending}", "wt") as file:
            file.write("\n".join(lines) + "\n")
    return rows.T


@pytest.fixture
def small(monkeypatch):
    shape = type(SHAPES["solar"])("tiny_nips", 3, "h", 40, 5, 2)
    monkeypatch.setitem(SHAPES, "solar", shape)


@pytest.mark.parametrize("kind", [".json", ".json.gz", "tar.gz"])
def test_gluonts_folders_and_archives(kind, small, tmp_path, monkeypatch):
    rows = nips(tmp_path / "timeseries" / "tiny_nips", ".json" if kind == "tar.gz" else kind)
    path = tmp_path / "timeseries" / "tiny_nips"
    if kind == "tar.gz":
        with tarfile.open(tmp_path / "tiny.tar.gz", "w:gz") as archive:
            archive.add(path, "./tiny_nips")
        path = tmp_path / "tiny.tar.gz"
    monkeypatch.setenv("DIFFUSIONKIT_DATA", str(tmp_path))
    for given in (str(path), ""):
        data = Nips("solar", given)
        parts = data.load()
        np.testing.assert_array_equal(parts["train"].blocks[0].values, rows[:40])
        np.testing.assert_array_equal(parts["test"].blocks[0].values, rows)
        assert parts["test"].joint and parts["test"].names == (0, 1, 2) and data.origins(50).tolist() == [40, 45]
        assert parts["test"].blocks[0].index[0] == pd.Timestamp("2014-01-01") and parts["test"].freq == "h"


def test_sets_of_another_shape_are_refused(small, tmp_path, monkeypatch):
    for number, (match, arguments) in enumerate((
        ("train holds 4 entries, and tiny_nips has 3", {"size": 4}), (r"\[39\] steps, and those of tiny_nips have \[40\]", {"steps": 39}),
        ("test holds 9 entries, and tiny_nips has 6: 3 series in each of 2", {"windows": 3}), (r"\[44, 48\] steps.*\[43, 48\]", {"horizon": 4}),
    )):  # fmt: skip
        nips(tmp_path / str(number), **arguments)
        with pytest.raises(UserError, match=match):
            Nips("solar", str(tmp_path / str(number))).load()
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no JSON lines in train"):
        Nips("solar", str(tmp_path / "none")).load()
    for name, content in (("archive.tar.gz", b"no archive"), ("empty.tar.gz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read"):
            Nips("solar", str(tmp_path / name)).load()
    for line, match in (("{", "cannot be read"), ('{"start": "2014"}', "train: every line")):
        (tmp_path / "odd" / "train").mkdir(parents=True, exist_ok=True)
        (tmp_path / "odd" / "train" / "data.json").write_text(f"{line}\n" * 3)
        with pytest.raises(UserError, match=match):
            Nips("solar", str(tmp_path / "odd")).load()
    with pytest.raises(UserError, match="no such folder"):
        Nips("solar", str(tmp_path / "lost")).load()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DIFFUSIONKIT_DATA", str(tmp_path))
    with pytest.raises(UserError, match="data.path is missing.*electricity_nips"):
        Nips("electricity").load()
    with pytest.raises(ValueError, match="set must be one of"):
        Nips("m4")


def test_shapes_of_the_published_table():
    table = {"exchange_rate": (8, 6071, 30, 5), "solar": (137, 7009, 24, 7), "electricity": (370, 5833, 24, 7),
             "traffic": (963, 4001, 24, 7), "taxi": (1214, 1488, 24, 56), "wikipedia": (2000, 792, 30, 5)}  # fmt: skip
    assert {name: (s.size, s.steps, s.horizon, s.windows) for name, s in SHAPES.items()} == table
