"""Known answers, laws, and the figures measured before on exchange rates and ETTh1."""

import os
from pathlib import Path

import numpy as np
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries import baselines, measures
from diffusionkit.timeseries.baselines import BASELINES, IMPUTE_BASELINES

DATA = os.environ.get("DIFFUSIONKIT_DATA")
real = pytest.mark.skipif(not DATA, reason="DIFFUSIONKIT_DATA is not set")
every = pytest.mark.parametrize("baseline", BASELINES.values(), ids=BASELINES)
imputers = pytest.mark.parametrize("impute", IMPUTE_BASELINES.values(), ids=IMPUTE_BASELINES)


def rng(seed=0):
    return np.random.default_rng(seed)


def levels(rows=200, series=3, seed=0):
    """Walks that wander above and below zero."""
    return rng(seed).normal(size=(rows, series)).cumsum(axis=0)


def wave(rows, season=6):
    return np.stack([np.sin(2 * np.pi * np.arange(rows) / season), np.arange(rows) % season], axis=1)


# ---- laws of all ----


@every
@pytest.mark.parametrize(
    "rows, horizon, season", [(1, 3, 4), (2, 5, 1), (5, 7, 4), (9, 30, 4), (60, 3, 7), (60, 25, 7)]
)
def test_any_history_and_horizon(baseline, rows, horizon, season):
    history = levels(rows)
    found = baseline(history, horizon, 4, rng(), season=season)
    assert found.shape == (4, horizon, 3) and np.isfinite(found).all()
    assert (found == baseline(history, horizon, 4, rng(), season=season)).all()
    one = baseline(history[:, :1], horizon, 4, rng(), season=season)
    assert one == pytest.approx(found[..., :1]) or baseline is baselines.walk  # series do not change one another


@every
def test_gaps_and_late_starts(baseline, recwarn):
    history = levels(90, 4)
    history[rng(1).random(history.shape) < 0.3] = np.nan
    history[:60, 1] = np.nan
    history[5:, 2] = np.nan  # not seen for long
    history[4, 2] = 1.0
    kept = history.copy()
    found = baseline(history, 20, 5, rng(), season=7)
    assert np.isfinite(found).all() and not recwarn.list
    assert np.array_equal(kept, history, equal_nan=True)  # nothing is written into the history


@every
def test_units_cancel(baseline):
    history = levels() + 100
    ours, theirs = (baseline(factor * history, 12, 5, rng(), season=5) for factor in (1, 8))
    assert theirs == pytest.approx(8 * ours)


@every
def test_a_history_that_never_changes_goes_on(baseline):
    assert baseline(np.full((40, 2), 3.0), 9, 3, rng(), season=4) == pytest.approx(3.0)


@every
def test_counts_stay_counts_unless_they_walk(baseline):
    history = rng().poisson(1.0, size=(80, 3))
    found = baseline(history, 12, 20, rng(), season=4)
    assert (found == np.rint(found)).all() or baseline is baselines.walk


@every
def test_refusals(baseline):
    history = levels()
    with pytest.raises(UserError, match="Nothing of series 1 was observed in the 200 rows"):
        baseline(np.where(np.arange(3) == 1, np.nan, history), 3, 2, rng())
    with pytest.raises(UserError, match="Series 2 has an infinite value at row 0"):
        baseline(np.where(np.arange(3) == 2, np.inf, history), 3, 2, rng())
    with pytest.raises(UserError, match="at least one of each"):
        baseline(np.empty((0, 3)), 3, 2, rng())
    with pytest.raises(UserError, match="at least 1"):
        baseline(history, 0, 2, rng())


# ---- seasonal naive and persistence ----


def test_seasonal_naive_repeats_the_last_season():
    history = np.arange(10.0)[:, None]
    assert baselines.seasonal_naive(history, 7, 2, rng(), season=3)[:, :, 0].tolist() == [[7, 8, 9, 7, 8, 9, 7]] * 2
    assert baselines.persistence(history, 3, 1, rng(), season=3).ravel().tolist() == [9, 9, 9]


def test_seasonal_naive_over_gaps():
    history = np.array([0, 1, 2, 3, np.nan, 5, 6, np.nan, np.nan])[:, None]
    assert baselines.seasonal_naive(history, 3, 1, rng(), season=3).ravel().tolist() == [6, 1, 5]
    assert baselines.persistence(history, 1, 1, rng()).item() == 6
    # no value of that phase was ever seen: the one before
    history = np.array([4, np.nan, 6, 7, np.nan, 9.0])[:, None]
    assert baselines.seasonal_naive(history, 3, 1, rng(), season=3).ravel().tolist() == [7, 7, 9]


# ---- walk ----


def test_walk_has_the_covariance_of_the_increments():
    history = levels(61) @ np.array([[1, 0.5, 0], [0, 1, 0], [0.3, 0, 2]])
    steps = np.diff(history, axis=0)
    found = baselines.walk(history, 4, 40_000, rng(), window=60) - history[-1]
    wanted = steps.T @ steps / 60
    for ahead in range(4):
        moments = found[:, ahead].T @ found[:, ahead] / len(found)
        assert moments == pytest.approx((ahead + 1) * wanted, abs=0.03 * (ahead + 1) * np.abs(wanted).max())


def test_walk_looks_back_no_further_than_its_window():
    history = levels()
    before = history.copy()
    before[:149] *= 100
    assert (baselines.walk(history, 5, 3, rng(), window=50) == baselines.walk(before, 5, 3, rng(), window=50)).all()
    assert (baselines.walk(history, 5, 3, rng(), window=51) != baselines.walk(before, 5, 3, rng(), window=51)).any()


def test_walk_of_more_series_than_increments():
    history = levels(11, 40)
    found = baselines.walk(history, 3, 50, rng(), window=10, log=False) - history[-1]
    assert np.linalg.matrix_rank(found[:, 0], tol=1e-9) == 10


def test_walk_on_logarithms_where_all_is_positive():
    history = np.exp(0.3 * levels(series=2)) * [1, -1]
    found = baselines.walk(history, 50, 500, rng())
    assert (found[..., 0] > 0).all() and (found[..., 1] > 0).any()
    logs = np.log(history[:, :1])
    alone = baselines.walk(history[:, :1], 5, 3, rng(), log=True)
    assert alone == pytest.approx(np.exp(baselines.walk(logs, 5, 3, rng(), log=False)))
    with pytest.raises(UserError, match="Series 1 has values that are not positive"):
        baselines.walk(history, 5, 3, rng(), log=True)


def test_walk_takes_variance_over_gaps_and_since_the_start():
    history = levels(2001, 1)
    gappy, late = history.copy(), history.copy()
    gappy[1:-1][rng(1).random(1999) < 0.7] = np.nan
    late[:1500] = np.nan

    def variance(values):
        return baselines.walk(values, 1, 20_000, rng(2), window=2000, log=False).var()

    assert variance(gappy) == pytest.approx(variance(history), rel=0.15)
    assert variance(late) == pytest.approx(variance(history[1500:]), rel=0.05)


# ---- blocks, changes, climatology ----


def test_blocks_go_on_with_a_wave_and_changes_with_a_line():
    history = wave(100)
    found = baselines.blocks(history, 20, 5, rng(), season=6)
    assert found == pytest.approx(np.repeat(wave(120)[None, 100:], 5, axis=0))
    assert baselines.climatology(history, 20, 5, rng(), season=6) == pytest.approx(found)
    line = np.arange(100.0)[:, None] * [1, -3]
    assert baselines.changes(line, 20, 5, rng(), season=6) == pytest.approx(
        np.repeat(np.arange(100, 120)[None, :, None] * [1.0, -3], 5, 0)
    )


@pytest.mark.parametrize("horizon, season", [(3, 4), (4, 4), (11, 4), (6, 1)])
def test_each_path_misses_what_a_seasonal_naive_forecast_missed_before(horizon, season):
    history = levels(150)
    found = baselines.blocks(history, horizon, 30, rng(), season=season, log=False)
    naive = baselines.seasonal_naive(history, horizon, 1, rng(), season=season)[0]
    size = -(-horizon // season) * season
    past = []
    for origin in range(len(history) - size, season - 1, -1):
        if (len(history) - origin) % season == 0:
            guess = baselines.seasonal_naive(history[:origin], horizon, 1, rng(), season=season)[0]
            past.append(history[origin : origin + horizon] - guess)
    distance = np.abs((found - naive)[:, None] - np.stack(past)).max(axis=(2, 3))
    assert distance.min(axis=1) == pytest.approx(0, abs=1e-9)
    assert len(set(distance.argmin(axis=1))) > 10


def test_paths_of_climatology_are_past_stretches_of_the_same_phase():
    history = np.arange(100.0)[:, None]
    found = baselines.climatology(history, 5, 200, rng(), season=4)
    assert (np.diff(found, axis=1) == 1).all()
    assert set(found[:, 0, 0]) == set(range(4, 93, 4))


def test_blocks_take_origins_of_any_phase_where_few_are_left():
    history = levels(80, 1)
    few = baselines.blocks(history, 8, 400, rng(), season=8)  # origins 8, 16, ... 72 are nine
    many = baselines.blocks(levels(88, 1), 8, 400, rng(), season=8)  # ten
    assert len(np.unique(few[:, 0])) > 50 and len(np.unique(many[:, 0])) == 10


def test_blocks_look_back_no_further_than_their_window():
    before = levels(400)
    before[: 400 - 12 * 4 - 4] += 1000 * rng(5).normal(size=(348, 3))
    near = baselines.blocks(before, 4, 100, rng(), season=4, window=12)
    far = baselines.blocks(before, 4, 100, rng(), season=4, window=99)
    assert np.abs(near).max() < 200 < np.abs(far).max()


def test_chained_blocks_are_changes_of_their_length():
    history = 100.0 * np.arange(60) ** 2  # every change is another
    found = baselines.blocks(history[:, None], 12, 50, rng(), length=4, window=40)[..., 0]
    joined = np.concatenate([np.full((50, 1), history[-1]), found], axis=1)
    pieces = np.diff(joined, axis=1).reshape(50, 3, 4)
    assert (np.diff(pieces, axis=2) == 200).all()  # within a block as in the history
    assert (np.diff(pieces[:, :, 0], axis=1) != 800).mean() > 0.8  # from one to the next at random
    assert set(pieces[:, :, 0].ravel()) <= set(np.diff(history)[-43:-3])


def test_errors_that_were_not_observed_come_from_other_origins():
    history = levels(400, 2)
    gappy = history.copy()
    gappy[:300, 0] = np.nan  # seen in the last quarter only
    whole, found = (
        baselines.blocks(values, 5, 2000, rng(), log=False)[:, :, 0].std(axis=0) for values in (history[300:], gappy)
    )
    assert found == pytest.approx(whole, rel=0.15)


def test_series_of_a_path_move_together():
    common = levels(300, 1)
    history = np.concatenate([common, -common], axis=1)
    for baseline in (baselines.walk, baselines.changes, baselines.blocks, baselines.climatology):
        assert baseline(history, 6, 50, rng(), season=3).sum(axis=2) == pytest.approx(0, abs=1e-9)


# ---- imputation ----


@imputers
def test_imputation_leaves_what_was_observed_and_fills_the_rest(impute, recwarn):
    values = levels(120, 4)
    values[rng(1).random(values.shape) < 0.5] = np.nan
    values[10] = np.nan
    kept = values.copy()
    filled = impute(values, season=12)
    assert np.isfinite(filled).all() and not recwarn.list
    assert np.array_equal(kept, values, equal_nan=True)
    assert np.array_equal(filled[~np.isnan(values)], values[~np.isnan(values)])
    assert np.array_equal(impute(filled, season=12), filled)


@imputers
def test_imputation_refuses_a_series_of_nothing(impute):
    with pytest.raises(UserError, match="Nothing of series 0"):
        impute(np.full((9, 2), np.nan))


def test_interpolation_is_straight():
    values = np.array([np.nan, 1, np.nan, np.nan, 4, np.nan])[:, None]
    assert baselines.interpolate(values).ravel() == pytest.approx([1, 1, 2, 3, 4, 4])


def test_seasonal_means():
    values = np.array([1, 5, np.nan, 3, np.nan, np.nan])[:, None]
    assert baselines.seasonal_mean(values, season=3).ravel() == pytest.approx(
        [1, 5, 3, 3, 5, 3]
    )  # no third of a season: all


def test_neighbours_see_the_other_series_and_the_phase():
    truth = rng().normal(size=(500, 1)) * [1.0, 2.0, 3.0]
    values = truth.copy()
    values[::5, 1] = np.nan
    assert np.abs(baselines.nearest(values)[::5, 1] - truth[::5, 1]).mean() < 0.1
    alone = wave(240, season=24)[:, :1]
    values = alone.copy()
    values[rng().random(alone.shape) < 0.3] = np.nan
    assert baselines.nearest(values, season=24, neighbours=3) == pytest.approx(alone, abs=1e-6)


# ---- figures of the real data ----


def scored(name, first, windows, horizon, baseline, **options):
    """Mean measures of three seeds with 100 paths; each window has everything before it as history."""
    import pandas as pd

    values = pd.read_parquet(Path(DATA) / "timeseries" / f"{name}.parquet").to_numpy(float)
    origins = first + horizon * np.arange(windows)
    target = np.stack([values[at : at + horizon] for at in origins])
    found = []
    for seed in range(3):
        one = rng(seed)
        paths = np.stack([baseline(values[:at], horizon, 100, one, **options) for at in origins])
        found.append(measures.evaluate(paths, target))
    return {name: np.mean([each[name] for each in found]) for name in found[0]}


@real
@pytest.mark.parametrize(
    "window, crps_sum, crps, energy, cover", [(60, 0.0046, 0.0068, 0.0205, 0.78), (250, 0.0051, 0.0070, 0.0210, 0.87), (500, 0.0057, 0.0077, 0.0231, 0.91)]
)  # fmt: skip
def test_walks_of_exchange_rates(window, crps_sum, crps, energy, cover):
    found = scored("exchange_rate_nips", 6071, 5, 30, baselines.walk, season=5, window=window)
    assert found["CRPS_sum"] == pytest.approx(crps_sum, abs=3e-4)
    assert found["CRPS"] == pytest.approx(crps, abs=3e-4)
    assert found["energy"] == pytest.approx(energy, abs=7e-4)
    assert found["coverage_80"] == pytest.approx(cover, abs=0.025)


@real
@pytest.mark.parametrize(
    "window, length, crps_sum, crps",
    [(1000, None, 0.0057, 0.0076), (500, 5, 0.0054, 0.0073), (1000, 10, 0.0058, 0.0077)],
)
def test_blocks_of_exchange_rates(window, length, crps_sum, crps):
    found = scored("exchange_rate_nips", 6071, 5, 30, baselines.blocks, window=window, length=length, log=True)
    assert found["CRPS_sum"] == pytest.approx(crps_sum, abs=4e-4)
    assert found["CRPS"] == pytest.approx(crps, abs=4e-4)


@real
@pytest.mark.parametrize("window, crps, cover", [(30, 0.164, 0.83), (365, 0.161, 0.88)])
def test_blocks_of_etth1(window, crps, cover):
    found = scored("etth1", 13936, 7, 24, baselines.blocks, season=24, window=window)
    assert found["CRPS_sum"] == pytest.approx(0.132, abs=4e-3)
    assert found["CRPS"] == pytest.approx(crps, abs=4e-3)
    assert found["energy"] == pytest.approx(2.83, abs=0.07)
    assert found["coverage_80"] == pytest.approx(cover, abs=0.02)


@real
@pytest.mark.parametrize(
    "name, first, windows, horizon, season, crps_sum, crps",
    [
        ("exchange_rate_nips", 6071, 5, 30, 1, 0.0062, 0.0093),
        ("etth1", 13936, 7, 24, 1, 0.844, 0.805),
        ("etth1", 13936, 7, 24, 24, 0.172, 0.210),
        ("etth1", 13936, 7, 24, 168, 0.511, 0.531),
    ],
)
def test_point_forecasts_of_real_data(name, first, windows, horizon, season, crps_sum, crps):
    found = scored(name, first, windows, horizon, baselines.seasonal_naive, season=season)
    rounding = 5e-5 if crps < 0.1 else 5e-4
    assert [found["CRPS_sum"], found["ND_sum"]] == pytest.approx([crps_sum] * 2, abs=rounding)
    assert [found["CRPS"], found["ND"]] == pytest.approx([crps] * 2, abs=rounding)
