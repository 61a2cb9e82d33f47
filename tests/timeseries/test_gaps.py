"""Filling gaps: what was observed is returned as it was, in the form that it came in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.core import DDIM
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.gaps import fill, imputed
from diffusionkit.timeseries.panel import Block
from tests.timeseries.ideal import Ideal
from tests.timeseries.small import codec, long, panel, wide


class Flat(Ideal):
    """Draws the same everywhere: the state 0.5."""

    masks = None

    def forward(self, x, t, cond, given=None):
        return torch.full_like(x, 0.5)


def drawn(df, p=None, draws: int = 1, made=None, batch_size: int = 8, **how):
    p = panel(df, **how) if p is None else p
    made = made or codec(p, 6, 10, form="window", lag=0, center="series", scale="series")
    diffusion = Flat().diffusion()
    diffusion.masks = lambda x0, rows=None: x0.isnan()
    return made, imputed(diffusion, made, p, df, draws, DDIM(steps=2), batch_size)


def holed(rows: int = 75, freq: str = "D", size: int = 3) -> pd.DataFrame:
    df = wide(rows, size, freq, holes=0.2)
    df.iloc[30:52, 0] = np.nan  # more than a window
    df.iloc[[0, -1], -1] = np.nan
    return df


def check(df: pd.DataFrame, made: pd.DataFrame, codec_) -> None:
    seen = df.notna()
    assert made.notna().all(axis=None) and df.isna().any(axis=None)
    assert made.index.equals(df.index) and list(made.columns) == list(df.columns)
    pd.testing.assert_frame_equal(made.where(seen), df)
    for i, name in enumerate(df.columns):
        level = float(codec_.stats.mean[i] + 0.5 * codec_.stats.spread[i])
        assert np.allclose(made[name][~seen[name]], level, rtol=1e-5)


@pytest.mark.parametrize("rows", [3, 6, 15, 16, 17, 49])
def test_a_wide_frame_of_any_length(rows):
    df = holed()
    made, _ = drawn(df)
    part = df.iloc[26 : 26 + rows]
    block = made.tail.blocks[0]
    none, index = np.zeros((rows, 1, 0)), pd.DatetimeIndex(part.index, freq="D")
    p = replace(made.tail, blocks=(Block(block.names, index, part.to_numpy(), none, none),))
    _, (filled,) = drawn(part, p, made=made)
    check(part, filled, made)


def test_several_draws_and_a_batch_that_splits_them():
    df = holed()
    made, tables = drawn(df, draws=3, batch_size=2)
    assert len(tables) == 3
    for table in tables:
        check(df, table, made)


def test_labels_of_columns_may_be_anything():
    df = holed().set_axis([1, ("x", 2), "c"], axis=1)
    df.columns = pd.Index([1, ("x", 2), "c"], tupleize_cols=False)
    made, (filled,) = drawn(df)
    check(df, filled, made)


def test_a_time_zone_and_a_column_of_times_stay():
    df = holed().tz_localize("Europe/Berlin")
    made, (filled,) = drawn(df)
    check(df, filled, made)
    column = holed().rename_axis("ds").reset_index()
    made, (filled,) = drawn(column)
    assert filled["ds"].equals(column["ds"]) and filled.index.equals(column.index)
    check(column.set_index("ds"), filled.set_index("ds"), made)
    other = df.tz_convert("UTC")
    made, _ = drawn(df)
    p = frames.read(other, schema=made.tail.schema)
    _, (filled,) = drawn(other, p, made=made)
    check(other, filled, made)


def test_periods_stay_periods():
    df = holed(freq="MS")
    df.index = df.index.to_period("M")
    made, (filled,) = drawn(df)
    assert isinstance(filled.index, pd.PeriodIndex)
    check(df, filled, made)


def test_rows_that_are_not_there_stay_so():
    df = holed().drop(pd.Timestamp("2024-01-20"))
    made, (filled,) = drawn(df)
    check(df, filled, made)


def test_covariates_are_no_series():
    df = holed().assign(x=np.arange(75.0))
    _, (filled,) = drawn(df, known=("x",))
    assert filled["x"].equals(df["x"]) and filled.notna().all(axis=None)


def test_dtypes_that_can_hold_the_values_stay():
    df = holed().astype({"a": "float32", "b": "Float64"})
    _, (filled,) = drawn(df)
    assert list(filled.dtypes) == list(df.dtypes) and filled.notna().all(axis=None)
    counts = pd.DataFrame({"n": pd.array([1, 2, None, 4] * 20, dtype="Int64")}, index=pd.date_range("2024", periods=80))
    _, (filled,) = drawn(counts)
    assert (
        filled["n"].dtype == "Int64"
        and filled["n"].notna().all()
        and (filled["n"][counts["n"].notna()] == counts["n"].dropna()).all()
    )


def test_a_series_and_an_array():
    series = holed(size=1)["a"]
    _, (filled,) = drawn(series)
    assert isinstance(filled, pd.Series) and filled.name == "a" and filled.index.equals(series.index)
    assert filled.notna().all() and filled[series.notna()].equals(series.dropna())
    array = holed().to_numpy()
    _, (filled,) = drawn(array, freq="D")
    seen = np.isfinite(array)
    assert np.isfinite(filled).all() and np.array_equal(filled[seen], array[seen])
    one = array[:, 0].astype(np.float32)
    _, (filled,) = drawn(one, freq="D")
    assert filled.shape == one.shape and filled.dtype == np.float32 and np.isfinite(filled).all()


@pytest.mark.parametrize("joint", [True, False])
def test_a_long_frame_in_any_order_of_series(joint):
    df = long((70, 50, 90))
    hole = np.random.default_rng(0).random(len(df)) < 0.2
    df["y"] = df["y"].mask(hole)
    df = df.sort_values(["ds", "unique_id"], ignore_index=True).set_axis(np.arange(len(df)) * 3, axis=0)
    made, (filled,) = drawn(df, joint=joint)
    seen = df["y"].notna()
    assert filled.drop(columns="y").equals(df.drop(columns="y")) and filled["y"].notna().all()
    assert filled["y"][seen].equals(df["y"][seen])
    levels = dict(zip(made.names, (made.stats.mean + 0.5 * made.stats.spread).tolist(), strict=True))
    assert np.allclose(filled["y"][~seen], df["unique_id"][~seen].map(levels), rtol=1e-5)
    indexed = df.set_index(["unique_id", "ds"])
    _, (again,) = drawn(indexed, joint=joint)
    assert again.index.equals(indexed.index) and np.array_equal(again["y"], filled["y"])


def test_without_gaps_nothing_is_drawn():
    df = wide(40, freq="D")
    made, (filled,) = drawn(df)
    pd.testing.assert_frame_equal(filled, df)
    calls = []
    diffusion = Flat().diffusion()
    found = fill(diffusion, made, panel(df), 2, DDIM(steps=2), 8, lambda *_: calls.append(1))
    assert not calls and found[0].shape == (2, 40, 3)
