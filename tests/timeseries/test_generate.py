"""Paths of ideal networks have the law of their processes; windows, batches and the future do not mix."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.core import DDIM, DDPM, guided
from diffusionkit.errors import UserError
from diffusionkit.timeseries import generate
from diffusionkit.timeseries.windows import Rows
from tests.timeseries import ideal
from tests.timeseries.small import codec, long, panel, wide

SAMPLER = DDIM(steps=200)
N = 6000


def moments(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    flat = paths.reshape(len(paths), -1)
    return flat.mean(0), np.cov(flat.T)


# ---- laws


@pytest.mark.parametrize("horizon", [3, 8])
def test_a_random_walk_on_logs_is_foretold_with_its_law(horizon):
    rng = np.random.default_rng(0)
    true = np.array([[1.0, 0.6], [0.6, 0.8]]) * 1e-4
    logs = np.cumsum(rng.multivariate_normal([0, 0], true, 300), 0)
    p = panel(pd.DataFrame(np.exp(logs), index=pd.date_range("2024", periods=300), columns=["a", "b"]))
    made = codec(p, 3, 20, transform="log", lag=1, scale="series")
    scale = made.stats.spread.numpy()
    drift = np.array([1e-3, -2e-3])
    net = ideal.Walk(torch.tensor(drift / scale), torch.tensor(true / np.outer(scale, scale)))
    (paths,) = generate.continued(net.diffusion(), made, [p], horizon, N, SAMPLER, 4096)
    assert paths.shape == (N, horizon, 2) and paths.dtype == torch.float64
    mean, cov = moments(np.log(paths.numpy()))
    steps = np.arange(1, horizon + 1)
    wanted = np.kron(np.minimum(steps[:, None], steps), true)
    deviation = np.sqrt(np.diag(wanted))
    assert np.abs((mean - (logs[-1] + steps[:, None] * drift).ravel()) / deviation).max() < 0.06
    assert np.abs((cov - wanted) / np.outer(deviation, deviation)).max() < 0.06


@pytest.mark.parametrize("horizon", [4, 7])
def test_recurrent_steps_have_the_law_of_the_process(horizon):
    rng = np.random.default_rng(0)
    y = np.zeros(400)
    for i in range(1, 400):
        y[i] = ideal.PHI * y[i - 1] + ideal.NOISE * rng.normal()
    y[-1] = 2.0
    p = panel(pd.DataFrame({"a": y}, index=pd.date_range("2024", periods=400)))
    made = codec(p, 4, 30, form="steps", lag=0, center="zero", scale="series")
    net = ideal.Recurrent(ideal.NOISE / float(made.stats.spread))
    (paths,) = generate.continued(net.diffusion(), made, [p], horizon, N, SAMPLER, 4096)
    mean, cov = moments(paths.numpy())
    steps = np.arange(1, horizon + 1)
    variance = ideal.NOISE**2 * (1 - ideal.PHI ** (2 * steps)) / (1 - ideal.PHI**2)
    wanted = ideal.PHI ** np.abs(steps[:, None] - steps) * np.minimum(variance[:, None], variance)
    assert np.abs(mean - 2 * ideal.PHI**steps).max() < 0.05
    assert np.abs(cov - wanted).max() < 0.05


def autocovariance(length: int) -> np.ndarray:
    places = np.arange(length)
    return ideal.NOISE**2 / (1 - ideal.PHI**2) * ideal.PHI ** np.abs(places[:, None] - places)


def windowed(rows: int = 200):
    rng = np.random.default_rng(0)
    y = rng.multivariate_normal(np.zeros(rows), autocovariance(rows))
    p = panel(pd.DataFrame({"a": y}, index=pd.date_range("2024", periods=rows)))
    made = codec(p, 3, 5, form="window", lag=0, center="zero", scale="series")
    return y, p, made, ideal.Whole(torch.tensor(autocovariance(8) / float(made.stats.spread) ** 2))


def test_whole_windows_are_foretold_with_the_law_of_the_process():
    y, p, made, net = windowed()
    (paths,) = generate.continued(net.diffusion(), made, [p], 5, N, SAMPLER, 4096)
    mean, cov = moments(paths.numpy())
    steps = np.arange(1, 6)
    variance = ideal.NOISE**2 * (1 - ideal.PHI ** (2 * steps)) / (1 - ideal.PHI**2)
    wanted = ideal.PHI ** np.abs(steps[:, None] - steps) * np.minimum(variance[:, None], variance)
    assert np.abs(mean - y[-1] * ideal.PHI**steps).max() < 0.06
    assert np.abs(cov - wanted).max() < 0.06


def test_new_windows_have_the_law_of_the_process():
    _, _, made, net = windowed()
    x = generate.unconditional(net.diffusion(), made, N, SAMPLER, 4096)
    assert x.shape == (N, 8, 1)
    mean, cov = moments(x.numpy())
    assert np.abs(mean).max() < 0.06 and np.abs(cov - autocovariance(8)).max() < 0.06


def test_a_gap_is_filled_with_the_law_given_its_neighbours():
    y, p, made, net = windowed()
    rows = Rows(p, made)
    window = rows.windows(rows.starts + torch.full((1,), 50), 3).take(torch.zeros(N, dtype=torch.long))
    missing = torch.zeros_like(window.z, dtype=torch.bool)
    missing[:, 3:5] = True
    holed = window._replace(z=window.z.masked_fill(missing, torch.nan))
    x = generate.filled(net.diffusion(), made, holed, missing, SAMPLER)
    assert torch.allclose(x[:, [0, 1, 2, 5, 6, 7]], window.z[:, [0, 1, 2, 5, 6, 7]], atol=1e-5)
    c, k, f = autocovariance(8), [0, 1, 2, 5, 6, 7], [3, 4]
    weights = c[np.ix_(f, k)] @ np.linalg.inv(c[np.ix_(k, k)])
    mean, cov = moments(x[:, 3:5].numpy())
    assert np.abs(mean - weights @ y[45:53][k]).max() < 0.06
    assert np.abs(cov - (c[np.ix_(f, f)] - weights @ c[np.ix_(k, f)])).max() < 0.06


# ---- windows


class Telling(ideal.Ideal):
    """Answers with a fixed mix of everything it is shown, so that whatever changes shows."""

    def recur(self, lags, time, scale, memory=None):
        kept = lags.sum((1, 2))[:, None] + time.sum((1, 2))[:, None] + (0 if memory is None else memory)
        return lags.sum(2, keepdim=True) + kept[:, None], kept

    def forward(self, x, t, cond, given=None):
        told = sum(leaf.flatten(1).sum(1) for leaf in cond.values())
        told = told + x.nan_to_num(3.0).flatten(1).sum(1)
        return torch.sin(told)[:, None, None].expand_as(x)


FORMS = ("block", "steps", "window")


def prior(monkeypatch, diffusion):
    """Noise that depends on the shape of a path alone, not on how many are drawn at a time."""

    def draw(shape, t=None, rows=None, device=None, dtype=None):
        rng = torch.Generator().manual_seed(7)
        return torch.randn(shape[1:], generator=rng).expand(shape).clone()

    monkeypatch.setattr(diffusion.process, "prior", draw)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("horizon", [4, 6, 15])
def test_many_windows_in_one_call_are_what_each_is_alone(form, horizon, monkeypatch):
    df = wide(200, freq="D", holes=0.05)
    made, diffusion = codec(panel(df), form=form), Telling().diffusion()
    prior(monkeypatch, diffusion)
    histories = [panel(df[:k]) for k in (90, 120, 200)]
    together = generate.continued(diffusion, made, histories, horizon, 2, DDIM(steps=3), batch_size=4)
    for one, found in zip(histories, together, strict=True):
        (alone,) = generate.continued(diffusion, made, [one], horizon, 2, DDIM(steps=3))
        assert found.shape == (2, horizon, 3) and torch.allclose(alone, found, rtol=1e-5)
    assert not torch.allclose(together[0], together[1])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("horizon", [6, 15])
def test_what_came_later_changes_no_path(form, horizon, monkeypatch):
    df = wide(120, freq="D", holes=0.05).assign(p=np.random.default_rng(0).normal(size=120))
    other = df.copy()
    other.iloc[60:] = 1.0
    made, diffusion = codec(panel(df, past=("p",)), form=form), Telling().diffusion()
    prior(monkeypatch, diffusion)
    found = []
    for one in (df, other, df[:60]):
        rows = Rows(panel(one, past=("p",)), made, 20)
        starts = [(rows, rows.starts + 60)]
        found.append(generate.forecast(diffusion, made, starts, 2, horizon, DDIM(steps=3)))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert found[0].shape == (1, 2, horizon, 3)


@pytest.mark.parametrize("form", FORMS)
def test_gaps_in_the_past_leave_paths_finite(form):
    df = wide(120, freq="D", holes=0.3)
    df.iloc[-20:, 0] = np.nan
    p = panel(df)
    (paths,) = generate.continued(Telling().diffusion(), codec(p, form=form), [p], 15, 3, DDPM(steps=3))
    assert paths.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_separate_series_of_different_ends(form):
    df = long((70, 50, 90))
    p = panel(df, joint=False)
    made = codec(p, form=form)
    (paths,) = generate.continued(Telling().diffusion(), made, [p], 15, 4, SAMPLER)
    assert paths.shape == (4, 15, 3)
    both = generate.continued(Telling().diffusion(), made, [p, panel(long((60,)), joint=False)], 5, 4, SAMPLER)
    assert [tuple(one.shape) for one in both] == [(4, 5, 3), (4, 5, 1)]


def test_covariates_of_the_coming_steps_are_shown_in_every_round(monkeypatch):
    df = wide(60, freq="D").assign(x=np.random.default_rng(0).normal(size=60))
    made, diffusion = codec(panel(df, known=("x",)), form="steps"), Telling().diffusion()
    prior(monkeypatch, diffusion)
    coming = pd.DataFrame({"x": np.arange(9.0)}, index=pd.date_range(df.index[-1], periods=10)[1:])
    found = []
    for step in (None, 2, 8):
        future = coming.copy()
        if step is not None:
            future.iloc[step] += 5
        p = panel(df, known=("x",), future=future)
        found.append(generate.continued(diffusion, made, [p], 9, 1, DDIM(steps=2))[0][0])
    assert not torch.allclose(found[0][2:], found[1][2:]) and torch.equal(found[0][:6], found[2][:6])


def test_thresholds_and_modes_are_left_as_they_were():
    p = panel(wide(60, freq="D"))
    diffusion = Telling().diffusion()
    diffusion.train()
    wrapped = guided(diffusion, clip=0.5)
    (paths,) = generate.continued(wrapped, codec(p), [p], 6, 2, DDIM(steps=2))
    assert diffusion.network.training and paths.isfinite().all()


def test_models_of_blocks_fill_no_gaps():
    with pytest.raises(UserError, match="one of whole windows fills gaps: use preset='csdi'"):
        generate.refuse(codec(), "fills gaps")
    generate.refuse(codec(panel(wide(freq="D")), form="window", lag=0), "fills gaps")
