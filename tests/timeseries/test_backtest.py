"""Rolling backtests: the right windows, the same for all, and a verdict that says who wins."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffusionkit.core import DDIM
from diffusionkit.errors import UserError
from diffusionkit.timeseries import measures
from diffusionkit.timeseries.backtest import (
    Backtest,
    actual_frames,
    backtested,
    baseline_paths,
    forecasts,
    model_paths,
    rolling,
    scores,
)
from diffusionkit.timeseries.baselines import BASELINES
from tests.timeseries import ideal
from tests.timeseries.small import codec, long, panel, wide

SAMPLER = DDIM(steps=20)


def walk(made) -> object:
    size = len(made.stats.spread) if made.joint else 1
    return ideal.Walk(torch.zeros(size), torch.eye(size)).diffusion()


@pytest.mark.parametrize(
    ("stride", "cuts"), [(0, [96, 102, 108, 114]), (2, [108, 110, 112, 114]), (9, [84, 93, 102, 111])]
)
def test_windows_are_the_last_ones(stride, cuts):
    p = panel(wide(120))
    test = rolling(p, 6, 4, stride)
    assert test.cuts[:, 0].tolist() == cuts and test.season == 24
    values = p.blocks[0].values
    assert all(np.array_equal(test.actual[i], values[cut : cut + 6]) for i, cut in enumerate(cuts))
    assert np.allclose(test.scale[0], np.abs(values[24 : cuts[0]] - values[: cuts[0] - 24]).mean(0))
    assert len(test.head(1).blocks[0]) == cuts[1]


def test_separate_series_have_windows_at_their_own_ends():
    p = panel(long((70, 50, 90)), joint=False)
    test = rolling(p, 5, 2)
    assert test.cuts.tolist() == [[60, 40, 80], [65, 45, 85]] and test.actual.shape == (2, 5, 3)
    assert np.array_equal(test.actual[1, :, 1], p.blocks[1].values[45:, 0])


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("horizon", [6, 10])
def test_paths_use_nothing_that_came_later(joint, horizon):
    df = wide(120, freq="D").assign(p=np.arange(120.0))
    later = df.copy()
    later.iloc[108:] = 1.0
    made = codec(panel(df, joint=joint, past=("p",)), lag=1)
    found = []
    for one in (df, later):
        test = rolling(panel(one, joint=joint, past=("p",)), horizon, 2)
        torch.manual_seed(0)
        found.append(model_paths(walk(made), made, test, 5, SAMPLER))
    assert found[0].shape == (2, 5, horizon, 3)
    assert np.array_equal(found[0][0], found[1][0])
    drawn = [
        {name: baseline_paths(name, rolling(panel(one, joint=joint, past=("p",)), horizon, 2), 5) for name in BASELINES}
        for one in (df, later)
    ]
    for name in BASELINES:
        assert np.array_equal(drawn[0][name][0], drawn[1][name][0]), name


def test_a_model_is_measured_as_its_paths_are():
    p = panel(wide(120))
    made, test = codec(p, lag=1), rolling(panel(wide(120)), 6, 3)
    torch.manual_seed(0)
    found = backtested(walk(made), made, test, 20, SAMPLER, seed=3)
    torch.manual_seed(0)
    paths = model_paths(walk(made), made, test, 20, SAMPLER)
    assert found.scores["model"] == scores(paths, test)
    assert found.scores["model"]["CRPS_sum"] == pytest.approx(measures.crps_sum(paths, test.actual))
    assert list(found.scores) == ["model", *BASELINES] and list(found.table.columns) == list(found.scores)
    assert [np.array_equal(one.samples, path) for one, path in zip(found.forecasts, paths, strict=True)] == [True] * 3
    assert found.forecasts[1].times[0] == p.blocks[0].index[test.cuts[1, 0]]
    assert found.pit.size == test.actual.size


def test_sums_are_measured_of_joint_series_alone():
    p = panel(long(), joint=False)
    test, made = rolling(p, 6, 2), codec(p, lag=1)
    found = backtested(walk(made), made, test, 20, SAMPLER, baselines=["persistence"])
    assert list(found.scores) == ["model", "persistence"]
    assert (
        not {"CRPS_sum", "energy", "energy_path", "ND_sum"} & set(found.scores["model"])
        and "MASE" in found.scores["model"]
    )
    assert found.forecasts[0].times.shape == (6, 3) and set(found.actual["unique_id"]) == {"s0", "s1", "s2"}


def test_the_verdict_names_who_is_better():
    test = rolling(panel(wide(60)), 6, 1)
    paths = np.zeros((1, 4, 6, 3))

    def found(model: float, energy: float) -> Backtest:
        rows = {
            "model": {"CRPS": model, "energy": 1.0},
            "walk": {"CRPS": 0.2, "energy": energy},
            "blocks": {"CRPS": 0.1, "energy": 2.0},
        }
        return Backtest(rows, forecasts(paths, test), actual_frames(test), np.zeros(3))

    assert found(0.05, 2.0).verdict() == "No baseline beats the model." and not found(0.05, 2.0).beaten_by()
    lost = found(0.3, 0.5)
    assert lost.beaten_by() == {"CRPS": ["blocks", "walk"], "energy": ["walk"]}
    assert lost.verdict() == "THE MODEL LOSES to blocks, walk by CRPS; walk by energy."
    assert "LOSES" in str(lost) and "LOSES" in lost._repr_html_() and "0.3" in str(lost)


def test_what_came_may_have_gaps():
    df = wide(120, holes=0.2)
    test, made = rolling(panel(df), 6, 3), codec(panel(df), lag=1)
    found = backtested(walk(made), made, test, 20, SAMPLER)
    assert all(np.isfinite(list(row.values())).all() for row in found.scores.values())


def test_a_picture_of_the_windows(tmp_path):
    made, test = codec(lag=1), rolling(panel(), 6, 3)
    found = backtested(walk(made), made, test, 20, SAMPLER, baselines=["random walk"])
    found.plot(tmp_path / "windows.png")
    assert (tmp_path / "windows.png").stat().st_size > 5000


def test_impossible_tests_are_refused():
    p, made = panel(), codec(lag=1)
    for (horizon, windows, stride), said in [((0, 1, 0), "horizon"), ((6, 0, 0), "windows"), ((6, 1, -1), "stride")]:
        with pytest.raises(UserError, match=f"{said}: at least one"):
            rolling(p, horizon, windows, stride)
    with pytest.raises(UserError, match="num_samples: at least two paths, not 1"):
        backtested(walk(made), made, rolling(p, 6, 1), 1, SAMPLER)
    with pytest.raises(UserError, match="baselines: there is no 'best'; there are"):
        backtested(walk(made), made, rolling(p, 6, 1), 5, SAMPLER, baselines=["best"])
