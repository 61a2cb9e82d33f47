"""Between series and states: what is missing does not count, the future does not leak, and a codec comes back from its files."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from diffusionkit.core import Diffusion, Gaussian
from diffusionkit.errors import UserError
from diffusionkit.timeseries.backbones.csdi import CSDINetwork
from diffusionkit.timeseries.backbones.inverted import InvertedTransformer
from diffusionkit.timeseries.backbones.mlp import BlockMLP
from diffusionkit.timeseries.backbones.timegrad import TimeGradNetwork
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.windows import Rows
from tests.timeseries.small import codec, long, panel, wide

FORMS = ("block", "steps", "window")
NETWORKS = {
    "mlp": ("block", BlockMLP, {"width": 16, "depth": 1, "dropout": 0.0}),
    "inverted": ("block", InvertedTransformer, {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0}),
    "timegrad": ("steps", TimeGradNetwork, {"hidden": 8, "layers": 1, "dropout": 0.0, "depth": 2}),
    "csdi": ("window", CSDINetwork, {"channels": 8, "depth": 1, "heads": 2, "masks": "forecast"}),
}


def daily(**how) -> pd.DataFrame:
    return wide(freq="D", **how)


def network(name: str, made: SeriesCodec) -> nn.Module:
    import inspect

    _, kind, how = NETWORKS[name]
    takes = inspect.signature(kind).parameters
    torch.manual_seed(0)
    made = kind(**{k: v for k, v in made.arguments().items() if k in takes}, **how)
    for p in made.parameters():  # heads start as zeros, which would hide everything
        nn.init.normal_(p, std=0.3)
    return made


# ---- states


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_shapes_are_as_said(form, lag):
    p = panel(daily())
    made = codec(p, form=form, lag=lag)
    batch = made.windows(p).batch(torch.tensor([20, 40]))
    said = made.arguments()
    assert batch.x.shape[1:] == (said["length"], said["series"]) and batch.x.dtype == torch.float32
    assert all(batch.cond[k].shape[-1] == said[k] for k in batch.cond)
    assert all(leaf.isfinite().all() and leaf.dtype == torch.float32 for leaf in batch.cond.values())
    if form != "steps":
        assert tuple(made.like(2)) == tuple(batch.x.shape)


@pytest.mark.parametrize("lag", [0, 1, 4])
def test_a_block_comes_back_as_values(lag):
    p = panel(daily(holes=0.1))
    made = codec(p, lag=lag)
    rows = Rows(p, made)
    window = rows.windows(rows.starts + torch.tensor([40, 70]), 6)
    frame = made.frame(window)
    state = made.state(window, frame)
    found, truth = made.values(state, window, frame), window.z[:, 24:]
    seen = state.isfinite().cumprod(1).bool()  # after a gap a chain of steps has lost its way
    assert seen.any() and torch.allclose(found[seen], truth[seen], rtol=1e-9)


def test_values_stay_within_reach_and_above_zero_and_whole():
    counts = pd.DataFrame(
        np.random.default_rng(0).poisson(3, (60, 2)), index=pd.date_range("2024", periods=60), columns=list("ab")
    )
    p = panel(counts)
    made = codec(p, lag=0)
    rows = Rows(p, made, 6)
    window = made.widened(rows.windows(rows.ends, 6))
    found = made.values(torch.full((1, 6, 2), torch.nan).double(), window, made.frame(window))
    assert found.isfinite().all()
    for sign in (-1, 1):
        found = made.values(torch.full((1, 6, 2), sign * 1e12).double(), window, made.frame(window))
        assert (found >= 0).all() and (found <= 11 * counts.max().max()).all() and (found == found.round()).all()


def test_series_that_have_left_the_range_of_training_may_go_on_there():
    flat = pd.DataFrame({"a": 3.0}, index=pd.date_range("2024", periods=60))
    made = codec(panel(flat), lag=1)
    moved = panel(flat + np.linspace(0, 100, 60)[:, None])
    window = made.widened(made.latest(moved))
    found = made.values(torch.zeros(1, 6, 1).double(), window, made.frame(window))
    assert torch.allclose(found, torch.full_like(found, 103))


# ---- what is missing


@pytest.mark.parametrize("name", NETWORKS)
def test_missing_values_change_neither_loss_nor_gradient(name):
    form = NETWORKS[name][0]
    p = panel(daily())
    made = codec(p, form=form)
    net = network(name, made)
    diffusion = Diffusion(net, Gaussian(predict="v"))
    batch = made.windows(p).batch(torch.arange(40, 44))
    hole = torch.zeros_like(batch.x, dtype=torch.bool)
    hole[:, -3:, 1] = True
    x = torch.where(hole, torch.nan, batch.x)
    seen = (~hole[:, -6:]).sum((1, 2)) if form == "window" else (~hole).sum((1, 2))

    def run(network_sees):
        torch.manual_seed(3)
        net.zero_grad()
        loss = diffusion.loss(network_sees, batch.cond)
        loss.sum().backward()
        return loss.detach(), torch.cat([q.grad.flatten() for q in net.parameters() if q.grad is not None])

    loss, gradient = run(x)
    assert loss.isfinite().all() and gradient.isfinite().all() and gradient.abs().sum() > 0
    whole, other = run(batch.x)
    assert not torch.allclose(loss, whole) and not torch.allclose(gradient, other)  # the mask has an effect
    # by hand: the squared error over what was seen, divided by how much that is
    torch.manual_seed(3)
    t = diffusion.objective.draw(diffusion.process, 4, torch.device("cpu"))
    x_t, noise = diffusion.process.diffuse(x, t)
    given = diffusion.masks(x, None)
    with torch.no_grad():
        output = diffusion(torch.where(given, x, x_t), t, batch.cond, None, given)
    alpha, sigma = (v[:, None, None] for v in diffusion.process.schedule(t))
    error = (output - (alpha * noise - sigma * x)).square()
    assert torch.equal(given, hole if form != "window" else hole | (torch.arange(30)[None, :, None] < 24))
    assert torch.allclose(loss, torch.where(given, 0.0, error.nan_to_num(0)).sum((1, 2)) / seen, rtol=1e-5)


def test_a_window_of_nothing_has_no_loss():
    made = codec(panel(daily()))
    diffusion = Diffusion(network("mlp", made), Gaussian())
    batch = made.windows(panel(daily())).batch(torch.tensor([40, 50]))
    x = batch.x.clone()
    x[0] = torch.nan
    loss = diffusion.loss(x, batch.cond)
    assert loss[0] == 0 and loss[1] > 0


# ---- no leakage


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_the_condition_does_not_see_the_future(form, lag):
    df = daily(holes=0.05).assign(p=np.arange(120.0))
    made = codec(panel(df, past=("p",)), form=form, lag=lag)
    other = df.copy()
    other.iloc[60:] = 1.0
    found = []
    for one in (df, other):
        rows = Rows(panel(one, past=("p",)), made)
        window = rows.windows(rows.starts + 60, 6)
        found.append(made.condition(window, made.frame(window)))
    for key in found[0]:
        a, b = (entry[key] for entry in found)
        if key == "lags":  # a step is shown those before it: the first of the future differs in nothing
            cut = a.shape[1] - 6 + 1
            assert torch.equal(a[:, :cut], b[:, :cut]) and not torch.equal(a[:, cut:], b[:, cut:])
        else:
            assert torch.equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_past_covariates_are_shown_or_it_is_said_that_they_are_not(form):
    df = daily().assign(p=np.arange(120.0))
    made = codec(panel(df, past=("p",)), form=form)
    conditions = []
    for one in (df, df.assign(p=df["p"] * 3)):
        rows = Rows(panel(one, past=("p",)), made)
        window = rows.windows(rows.starts + 60, 6)
        conditions.append(made.condition(window, made.frame(window)))
    differ = any(not torch.equal(conditions[0][key], conditions[1][key]) for key in conditions[0])
    assert differ != any(note.startswith("p: not shown") for note in made.notes())


def test_each_step_is_shown_the_lags_before_it():
    df = pd.DataFrame({"a": np.arange(80.0)}, index=pd.date_range("2024", periods=80))
    p = panel(df)
    made = codec(p, form="steps", lag=0, center="zero", scale="series")
    rows = Rows(p, made)
    window = rows.windows(rows.starts + 60, 6)
    frame = made.frame(window)
    x, lags = made.state(window, frame)[0, :, 0], made.condition(window, frame)["lags"][0]
    scale = float(frame.scale)
    assert torch.allclose(x * scale, torch.arange(50.0, 66).double())
    wanted = torch.stack([torch.arange(50.0, 66) - lag for lag in (1, 7, 14)], 1) / scale
    assert torch.allclose(lags, wanted, atol=1e-5)


# ---- statistics


def test_statistics_are_those_of_training():
    p = panel(daily())
    made = codec(p, lag=1)
    steps = np.diff(p.blocks[0].values, axis=0)
    assert np.allclose(made.stats.spread, np.sqrt((steps**2).mean(0)))
    assert np.allclose(made.stats.mean, p.blocks[0].values.mean(0))
    assert made.known_stats(panel(2 * daily())) is made.stats
    levels = codec(p, lag=0, center="zero", scale="series")
    assert np.allclose(levels.stats.spread, np.sqrt((p.blocks[0].values ** 2).mean(0)))


def test_what_never_changes_has_the_scale_one():
    df = daily().assign(a=0.0, b=0.1, x=7.7)
    made = codec(panel(df, known=("x",)), lag=1)
    assert (
        made.stats.level[:2].tolist() == made.stats.spread[:2].tolist() == [1, 1]
        and float(made.moments["known"][1]) == 1
    )


def test_separate_series_are_measured_where_they_are_new():
    p = panel(long(), joint=False)
    made = codec(p)
    assert made.known_stats(made.tail) is made.stats
    new = made.known_stats(panel(long((80,), seed=9), joint=False))
    assert new.mean.shape == (1,) and not torch.isin(new.mean, made.stats.mean).any()


def test_impossible_codecs_are_refused():
    with pytest.raises(ValueError, match="form must be one of block, steps, window, not 'row'"):
        codec(form="row")
    with pytest.raises(UserError, match="data.context_length: 24 steps are too few, the longest lag reaches back 24"):
        codec(panel(daily()), form="steps", lag=10)
    with pytest.raises(UserError, match="data.context_length: 20 steps are too few, the longest lag reaches back 21"):
        codec(lag=21, context=20)
    with pytest.raises(ValueError, match="sample draws series"):
        codec(panel(daily()), form="window", sample=2)


# ---- files


def frames_of(kind: str):
    if kind == "zone":
        df = daily()
        return panel(df.tz_localize("Europe/Berlin"))
    if kind == "separate":
        static = pd.DataFrame({"size": [1.0, 2.0, 4.0]}, index=["s0", "s1", "s2"])
        return panel(long().assign(x=np.arange(210.0)), joint=False, known=("x",), static=static)
    if kind == "names":
        return panel(daily().set_axis([1, "b", ("c", 2)], axis=1))
    if kind == "quarters":
        return panel(wide(freq="QS"))
    return panel(daily(holes=0.1).assign(x=np.arange(120.0), k=["u", "v"] * 60), known=("x", "k"))


@pytest.mark.parametrize("kind", ["zone", "separate", "names", "quarters", "covariates"])
@pytest.mark.parametrize("form", FORMS)
def test_a_codec_comes_back_from_its_files(kind, form, tmp_path):
    p = frames_of(kind)
    made = codec(p, form=form)
    made.reasons = ["because"]
    made.save(tmp_path)
    again = SeriesCodec.load(tmp_path)
    assert again.names == made.names and again.notes() == made.notes() and again.tz == made.tz
    assert again.arguments() == made.arguments() and again.like(3) == made.like(3)
    for a, b in zip(again.tail.blocks, made.tail.blocks, strict=True):
        assert a.index.equals(b.index) and a.index.dtype == b.index.dtype and a.index.freq == b.index.freq
    a, b = again.encode(again.latest(again.tail)), made.encode(made.latest(made.tail))
    assert torch.equal(a.x.isnan(), b.x.isnan()) and all(torch.equal(a.cond[k], b.cond[k]) for k in a.cond)
    assert all(torch.equal(x, y) for x, y in zip(again.stats, made.stats, strict=True))
    pd.testing.assert_frame_equal(again.history(), made.history())
    times = [found.times(5) for found in (again, made)]
    assert np.array_equal(*map(np.asarray, times))


def test_damaged_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"codec.json: cannot be read"):
        SeriesCodec.load(tmp_path)
    codec().save(tmp_path)
    path = tmp_path / "codec.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"codec": "table"}))
    with pytest.raises(UserError, match='"codec" must be "series"'):
        SeriesCodec.load(tmp_path)
    path.write_text(json.dumps(content | {"target": {"transform": "sqrt"}}))
    with pytest.raises(UserError, match="transform must be one of none, log, log1p"):
        SeriesCodec.load(tmp_path)
    path.write_text(json.dumps(content))
    (tmp_path / "codec.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match=r"codec.safetensors: damaged"):
        SeriesCodec.load(tmp_path)


def test_moved_codecs_start_elsewhere():
    p = panel(long(), joint=False)
    made = codec(p)
    q = panel(long((90, 40), seed=5), joint=False)
    moved = made.moved(q)
    assert moved.names == ("s0", "s1") and made.names == ("s0", "s1", "s2") and len(moved.stats.mean) == 2
    assert moved.latest(moved.tail).z.shape == (2, 30, 1)
