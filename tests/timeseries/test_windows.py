"""Windows are slices of the series, calendar and covariates beside them, whatever else is in the batch or the frame."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.windows import Rows, joined
from tests.timeseries.small import codec, long, panel, wide


def with_covariates(rows: int = 60) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    df = wide(rows + 10)
    return df.assign(temp=rng.normal(10, 5, rows + 10), lag=rng.normal(size=rows + 10))


def test_windows_are_slices():
    df = with_covariates()
    whole, future = df[:60], df[["temp"]][60:]
    p = panel(whole, known=("temp",), past=("lag",), future=future)
    made = codec(p, 6, 24)
    rows = Rows(p, made, 6)
    origins = rows.starts + torch.tensor([30, 60, 54])
    found = rows.windows(origins, 6)
    for i, origin in enumerate((30, 60, 54)):
        z = np.full((30, 3), np.nan)
        seen = df[["a", "b", "c"]].to_numpy()[origin - 24 : min(origin + 6, 60)]
        z[: len(seen)] = seen
        assert np.array_equal(found.z[i].numpy(), z, equal_nan=True)
        temp = df["temp"].to_numpy()[origin - 24 : origin + 6]
        m, s = made.moments["known"]
        assert np.allclose(found.known[i, :, 0, 0].numpy() * float(s) + float(m), temp)
        assert np.array_equal(found.calendar[i].numpy(), calendar.features(df.index[origin - 24 : origin + 6], "h"))
        m, s = made.moments["past"]
        past = found.past[i, :, 0, 0].numpy() * float(s) + float(m)
        assert np.allclose(past[: len(seen)], df["lag"].to_numpy()[origin - 24 : min(origin + 6, 60)])
        assert np.isnan(past[len(seen) :]).all()


def test_what_lies_before_the_first_row_is_missing():
    made = codec()
    rows = Rows(panel(), made)
    found = rows.windows(rows.starts + 1, 6)
    assert found.z[0, :23].isnan().all() and found.z[0, 23:].isfinite().all()


def test_blocks_do_not_run_into_each_other():
    p = panel(long(), joint=False)
    made = codec(p, 6, 24)
    rows = Rows(p, made, 6)
    assert (rows.ends - rows.starts).tolist() == [70, 50, 90]
    first = rows.windows(rows.starts, 6)
    assert first.z[:, :24].isnan().all()
    assert [float(z) for z in first.z[:, 24, 0]] == [block.values[0, 0] for block in p.blocks]
    last = rows.windows(rows.ends, 6)
    assert last.z[:, 24:].isnan().all() and last.z[:, :24].isfinite().all()
    assert torch.equal(last.stats.mean[:, 0, 0], made.stats.mean)


def test_a_draw_of_the_series_is_their_columns():
    rng = np.random.default_rng(0)
    df = pd.concat([long((60, 60, 60)).assign(x=rng.normal(size=180), p=rng.normal(size=180))])
    p = panel(df, joint=True, known=("x",), past=("p",))
    rows = Rows(p, codec(p))
    origins, chosen = rows.starts + torch.tensor([40, 50]), torch.tensor([2, 0])
    all_of, some = rows.windows(origins, 6), rows.windows(origins, 6, chosen)
    for name in ("z", "past", "known"):
        assert torch.equal(getattr(some, name), getattr(all_of, name)[:, :, chosen])
    for part, own in zip(all_of.stats[:5], some.stats[:5], strict=True):
        assert torch.equal(own, part[:, :, chosen])
    assert torch.equal(some.stats.static, all_of.stats.static[:, chosen])
    taken = all_of.take(torch.tensor([1, 1, 0]))
    assert torch.equal(taken.z, all_of.z[[1, 1, 0]]) and torch.equal(taken.stats.low, all_of.stats.low[[1, 1, 0]])
    assert torch.equal(joined([all_of, taken]).z, torch.cat([all_of.z, taken.z]))


def test_the_same_time_has_the_same_features_whatever_the_frame_spans():
    df = wide(400)
    parts = [panel(df), panel(df[200:])]
    made = [Rows(p, codec(p)) for p in parts]
    a = made[0].windows(made[0].starts + 250, 6).calendar
    b = made[1].windows(made[1].starts + 50, 6).calendar
    assert torch.equal(a, b) and a.abs().sum() > 0


def test_all_windows_and_those_of_the_last_rows():
    p = panel(wide(60))
    made = codec(p, 6, 24, lag=4)
    data = made.windows(p)
    assert len(data) == 60 - 4 - 6 + 1
    assert (data.origins - data.rows.starts[0]).tolist() == list(range(4, 55))
    held = made.windows(p, 10)
    assert (held.origins - held.rows.starts[0]).tolist() == [50, 51, 52, 53, 54]
    assert len(made.windows(panel(wide(9)))) == 0


def test_batches_are_functions_of_their_indices():
    made = codec(sample=2)
    data = made.windows(panel())
    a, b = (data.batch(torch.tensor([3, 7]), torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a.x, b.x) and all(torch.equal(a.cond[k], b.cond[k]) for k in a.cond)
    assert a.x.shape == (2, 6, 2) and data.batch(torch.tensor([3])).x.shape == (1, 6, 3)


@pytest.mark.parametrize("form", ["block", "steps", "window"])
def test_batches_do_not_depend_on_their_mates(form):
    df = wide(120, freq="D", holes=0.1)
    df.iloc[60:100] = 0.0
    p = panel(df)
    data = codec(p, form=form, context=60).windows(p)
    alone = data.batch(torch.tensor([10]))
    mates = data.batch(torch.tensor([80, 10, 40]))
    assert torch.equal(alone.x.nan_to_num(9), mates.x[1:2].nan_to_num(9))
    assert all(torch.equal(alone.cond[k], mates.cond[k][1:2]) for k in alone.cond)
