"""What a window's past is summed up in: known answers, no future, no units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.features import SHOWN, features
from diffusionkit.timeseries.targets import Target
from diffusionkit.timeseries.windows import Rows
from tests.timeseries.small import codec, long, panel, wide


def window(made, p, origin: int = 60, horizon: int = 6):
    rows = Rows(p, made, horizon)
    return rows.windows(rows.starts[:1] + origin, horizon)


def shown(made, p, origin: int = 60):
    w = window(made, p, origin)
    return features(made, w, made.frame(w))


def test_levels_and_seasons_are_relative_to_the_last_value():
    ramp = pd.DataFrame({"a": np.arange(100.0)}, index=pd.date_range("2024", periods=100, freq="h"))
    p = panel(ramp)
    made = codec(p, 6, 24, season=8, lag=0, center="zero", scale="series")
    w = window(made, p)
    scale = float(made.frame(w).scale)
    own = features(made, w, made.frame(w))["own"][0, 0].double() * scale
    levels, rest = own[:24], own[25:]  # of the last 24 steps, and the last one beside the mean of the series
    assert torch.allclose(levels, torch.arange(-23.0, 1).double().clamp(-10 * scale, 10 * scale), atol=1e-4)
    analogue, profile, means = rest[:6], rest[6:12], rest[12:15]
    assert torch.allclose(analogue, torch.arange(-7.0, -1).double(), atol=1e-4)
    assert torch.allclose(profile, torch.arange(-7.0, -1).double() - 8, atol=1e-4)
    assert torch.allclose(means, torch.tensor([-19.5, -11.5, -3.5]).double(), atol=1e-4)


def test_what_is_left_out_is_not_shown():
    p = panel(wide())
    sizes = {}
    for names in ((), *((name,) for name in SHOWN), SHOWN):
        found = shown(codec(p, context=24, season=8, lag=1, shown=names), p)
        sizes[names] = found["own"].shape[2], found["shared"].shape[1]
    (least, none), (whole, all_of_it) = sizes[()], list(sizes.values())[-1]
    assert none == 0 and sizes["calendar",] == (least, all_of_it)
    assert all(sizes[name,][0] > least for name in SHOWN if name != "calendar")
    assert sum(sizes[name,][0] - least for name in SHOWN) == whole - least
    moved = shown(codec(p, lag=1, shown=()), panel(wide() + 100))["own"]
    assert torch.allclose(moved, shown(codec(p, lag=1, shown=()), p)["own"], atol=1e-5)  # nothing of the level
    with pytest.raises(ValueError, match=f"shown must be some of {', '.join(SHOWN)}, not 'all'"):
        codec(p, shown=["all"])


def test_so_many_recent_steps_are_shown_as_asked():
    p = panel(wide())
    sizes = [shown(prepared(p, recent), p)["own"].shape[2] for recent in (0, 5, 6, 1000)]
    assert (
        sizes[2] == sizes[1] + 1 and sizes[0] == sizes[3] == sizes[1] + 19 - 5
    )  # 24 by default, where there are so many
    with pytest.raises(ValueError, match="recent must not be negative, and is -1"):
        prepared(p, -1)


def prepared(p, recent: int) -> SeriesCodec:
    return SeriesCodec(p, 6, 20, 4, Target(lag=1), shown=["steps"], recent=recent)


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_the_future_changes_nothing(lag):
    df = wide(holes=0.1)
    df["p"] = np.random.default_rng(0).normal(size=len(df))
    other = df.copy()
    other.iloc[60:] = -5.0
    p = panel(df, past=("p",))
    made = codec(p, lag=lag)
    a, b = shown(made, p), shown(made, panel(other, past=("p",)))
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("unit", [1e9, 1e-12])
def test_units_do_not_matter(unit):
    p, q = panel(wide()), panel(unit * wide())
    a, b = shown(codec(p, lag=1), p), shown(codec(q, lag=1), q)
    assert all(torch.allclose(a[k], b[k], atol=1e-5) for k in a)


@pytest.mark.parametrize("context", [1, 2, 5, 24, 90])
@pytest.mark.parametrize("lag", [0, 1])
def test_any_context_and_any_gap_give_finite_numbers(context, lag):
    df = wide()
    df.iloc[20:70, 0] = np.nan
    df.iloc[:, 1] = 3.0
    p = panel(df)
    made = codec(p, context=context, lag=lag)
    found = shown(made, p)
    assert all(leaf.isfinite().all() and leaf.dtype == torch.float32 for leaf in found.values())
    assert {k: leaf.shape[-1] for k, leaf in found.items()} == {k: made.arguments()[k] for k in found}


def test_covariates_of_all_are_shared_and_those_of_each_are_its_own():
    df = wide().assign(temp=np.arange(120.0), seen=np.arange(120.0) ** 2)
    p = panel(df, known=("temp",), past=("seen",))
    made = codec(p)
    found = shown(made, p)
    m, s = (float(v) for v in made.moments["known"])
    extra = found["shared"][0, -14:]  # 6 to come, 6 a season before, 2 of what is known up to now
    assert torch.allclose(extra[:6] * s + m, torch.arange(60.0, 66), atol=1e-3)
    assert torch.allclose(extra[6:12] * s + m, torch.tensor([56.0, 57, 58, 59, 56, 57]), atol=1e-3)
    m, s = (float(v) for v in made.moments["past"])
    assert torch.allclose(extra[12:] * s + m, torch.tensor([59.0**2, sum(v**2 for v in range(56, 60)) / 4]), rtol=1e-4)
    each = long((80, 80)).assign(x=np.arange(160.0))
    q = panel(each, known=("x",))
    made = codec(q)
    own = shown(made, q)["own"]
    m, s = (float(v) for v in made.moments["known"])
    assert torch.allclose(
        own[0, :, -12:-6] * s + m, torch.arange(60.0, 66) + 80 * torch.arange(2.0)[:, None], atol=1e-2
    )
    assert found["own"].shape[2] == own.shape[2] - 12


def test_what_is_static_is_a_feature_of_its_series():
    static = pd.DataFrame({"size": [1.0, 2.0, 4.0], "kind": ["x", "y", "x"]}, index=["a", "b", "c"])
    p = panel(wide(), static=static)
    own = shown(codec(p), p)["own"]
    assert own[0, :, -3:].tolist() == [[1, 1, 0], [2, 0, 1], [4, 1, 0]]
