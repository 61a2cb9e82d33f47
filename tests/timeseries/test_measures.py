"""Known answers, laws, and GluonTS's figures of the same paths."""

import math

import numpy as np
import pytest

from diffusionkit.errors import UserError
from diffusionkit.timeseries import measures

ALIKE = {  # what GluonTS calls them
    "CRPS": "mean_wQuantileLoss",
    "CRPS_sum": "m_sum_mean_wQuantileLoss",
    "ND": "ND",
    "ND_sum": "m_sum_ND",
    "NRMSE": "NRMSE",
    "MASE": "MASE",
}
OF_SUMS = ("CRPS_sum", "ND_sum")
SEASON = 7


def drawn(windows=3, paths=20, steps=4, series=3, seed=0):
    rng = np.random.default_rng(seed)
    return 5 + rng.normal(size=(windows, paths, steps, series)), 5 + rng.normal(size=(windows, steps, series))


def with_gaps(target):
    target = target.copy()
    target[0, 1, 0] = target[1, :, 2] = target[2, 2, :] = np.nan
    return target


def formula(paths, gaps):
    """Paths, what came and a history that any machine computes alike, whatever its random generator."""
    windows, steps, series = 3, 4, 3
    level, trend = 5 + 3 * np.arange(series), np.arange(steps)[:, None]

    def spread(size, root):
        k = np.arange(1, size + 1, dtype=float)
        return k * k * math.sqrt(root) % 1 - 0.5

    samples = (
        level * (1 + 0.2 * spread(windows * paths * steps * series, 2).reshape(windows, paths, steps, series)) + trend
    )
    target = level * (1 + 0.3 * spread(windows * steps * series, 3).reshape(windows, steps, series)) + trend
    history = level * (1 + 0.3 * spread(40 * series, 5).reshape(40, series))
    if gaps:
        target, history[7, 1] = with_gaps(target), np.nan
    return samples, target, history


# ---- GluonTS ----

# of MultivariateEvaluator in GluonTS 0.17.0 and pandas 2.3.3, quantiles i/20, seasonality 7, target_agg_funcs {"sum": np.sum};
# with gaps its sums take what is missing for zero, so they are not compared
RECORDED = {
    (11, False): (
        0.039319119835153266, 0.02727911932903459, 0.05546924558921337,
        0.034634559020776855, 0.06420979337219854, 0.6396830203846332,
    ),
    (11, True): (0.03808263093183781, None, 0.05355327003230087, None, 0.0627165608514386, 0.7024677965676333),
    (100, False): (
        0.03770415971131835, 0.02605010872317295, 0.05280994110409367,
        0.03747082133049057, 0.06296272699396929, 0.5933714150319177,
    ),
    (100, True): (0.03715585265490481, None, 0.05144166730314539, None, 0.062144344450910244, 0.6397804334108228),
}  # fmt: skip


@pytest.mark.parametrize("paths, gaps", RECORDED)
def test_figures_are_those_recorded_from_gluonts(paths, gaps):
    samples, target, history = formula(paths, gaps)
    found = measures.evaluate(samples, target, measures.seasonal_error(history, SEASON))
    for name, theirs in zip(ALIKE, RECORDED[paths, gaps], strict=True):
        if theirs is not None:
            assert found[name] == pytest.approx(theirs, abs=1e-6), name


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("paths", [11, 37, 100])
@pytest.mark.parametrize("gaps", [False, True])
def test_figures_are_those_of_gluonts(paths, gaps):
    evaluation = pytest.importorskip("gluonts.evaluation", reason="gluonts is not installed")
    import pandas as pd
    from gluonts.model.forecast import SampleForecast

    samples, target, history = formula(paths, gaps)
    index = pd.period_range("2000-01-01", periods=len(history) + target.shape[1], freq="D")
    evaluator = evaluation.MultivariateEvaluator(
        quantiles=[k / 20 for k in range(1, 20)], seasonality=SEASON, target_agg_funcs={"sum": np.sum}
    )
    theirs, _ = evaluator(
        [pd.DataFrame(np.concatenate([history, window]), index=index) for window in target],
        [SampleForecast(window, start_date=index[len(history)]) for window in samples],
    )
    ours = measures.evaluate(samples, target, measures.seasonal_error(history, SEASON))
    for name, called in ALIKE.items():
        if not (gaps and name in OF_SUMS):
            assert ours[name] == pytest.approx(theirs[called], abs=1e-6), name


# ---- quantiles and intervals ----


def test_quantiles_are_paths_and_halves_round_to_even():
    paths = np.random.default_rng(0).permutation(11.0 * np.arange(11))[:, None, None]
    wanted = {0: 0, 0.05: 0, 0.15: 22, 0.25: 22, 0.5: 55, 0.75: 88, 0.94: 99, 1: 110}
    for level, value in wanted.items():
        assert measures.quantile(paths, level).item() == value
    assert measures.quantile(np.stack([paths, paths]), (0, 0.5, 1)).tolist() == [[[[0]], [[55]], [[110]]]] * 2


def test_interval_of_hundred_paths():
    paths = np.random.default_rng(0).permutation(np.arange(100.0))[:, None, None]
    low, high = measures.interval(paths, 0.8)
    assert (low.item(), high.item()) == (10, 89)  # round(9.9) and round(89.1)


def test_coverage_and_width_of_known_answers():
    samples = np.tile(np.arange(101.0)[None, :, None, None], (1, 1, 5, 1))
    target = np.array([9.0, 10, 50, 90, 91]).reshape(1, 5, 1)
    assert measures.coverage(samples, target, 0.8) == pytest.approx(3 / 5)  # bounds belong to it
    assert measures.width(samples, target, 0.8) == pytest.approx(80 / 50)


def test_intervals_of_the_true_law_cover_what_they_say():
    samples, target = drawn(windows=40, paths=201, steps=10)
    found = measures.evaluate(samples, target)
    for level in (50, 80, 95):
        assert found[f"coverage_{level}"] == pytest.approx(level / 100, abs=0.04)
    assert found["width_50"] < found["width_80"] < found["width_95"]


# ---- scores ----


def test_a_point_forecast_has_its_absolute_error():
    samples, target = np.full((1, 7, 2, 1), 3.0), np.array([[[1.0], [4.0]]])
    found = measures.evaluate(samples, target, np.array([2.0]))
    assert found["ND"] == found["ND_sum"] == found["CRPS_sample"] == pytest.approx(3 / 5)
    assert found["CRPS"] == found["CRPS_sum"] == pytest.approx(3 / 5)
    assert found["energy"] == pytest.approx(1.5)
    assert found["energy_path"] == pytest.approx(math.sqrt(5))
    assert found["NRMSE"] == pytest.approx(math.sqrt(2.5) / 2.5)
    assert found["MASE"] == pytest.approx(1.5 / 2)
    assert found["coverage_80"] == 0


def test_weighted_quantile_loss_by_hand():
    samples, target = np.array([0.0, 10.0]).reshape(1, 2, 1, 1), np.full((1, 1, 1), 4.0)
    # the quantile .2 is 0, below 4: 2 * 4 * .2 / 4; the quantile .9 is 10, above: 2 * 6 * .1 / 4
    assert measures.weighted_quantile_loss(samples, target, (0.2, 0.9)) == pytest.approx([0.4, 0.3])


def test_sorted_form_of_the_crps_is_the_mean_over_pairs():
    samples, target = drawn()
    found = measures.crps_entries(samples, target)
    pairs = np.abs(samples[:, :, None] - samples[:, None]).sum(axis=(1, 2)) / (20 * 19)
    assert found == pytest.approx(np.abs(samples - target[:, None]).mean(axis=1) - pairs / 2)
    assert measures.crps_sample(samples, target) == pytest.approx(found.sum() / np.abs(target).sum())


def test_crps_of_a_normal_law_is_the_closed_form():
    samples = np.random.default_rng(0).normal(size=(1, 100_000, 1, 1))
    for y in (0.0, 1.5):
        density, below = math.exp(-y * y / 2) / math.sqrt(2 * math.pi), (1 + math.erf(y / math.sqrt(2))) / 2
        exact = y * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)
        assert measures.crps_entries(samples, np.full((1, 1, 1), y)).item() == pytest.approx(exact, abs=5e-3)


def test_the_sample_crps_is_unbiased_in_the_number_of_paths():
    few, target = drawn(windows=4000, paths=2, steps=1, series=1)
    many, _ = drawn(windows=4000, paths=60, steps=1, series=1, seed=1)
    ours = measures.crps_entries(few, target).mean()
    assert ours == pytest.approx(measures.crps_entries(many, target).mean(), abs=0.05)
    plain = ours + np.abs(few[:, 0] - few[:, 1]).mean() / 4  # what pairs of a path with itself would add
    assert abs(plain - measures.crps_entries(many, target).mean()) > 0.2


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("path", [False, True])
def test_energy_score_by_pairs(gaps, path):
    samples, target = drawn()
    target = with_gaps(target) if gaps else target
    scores = []
    for window, truth in zip(samples, target, strict=True):
        for steps in [slice(None)] if path else [slice(h, h + 1) for h in range(4)]:
            x, y = window[:, steps].reshape(20, -1), truth[steps].ravel()
            x, y = x[:, ~np.isnan(y)], y[~np.isnan(y)]
            if len(y):
                between = np.linalg.norm(x[:, None] - x[None], axis=2).sum() / (20 * 19)
                scores.append(np.linalg.norm(x - y, axis=1).mean() - between / 2)
    assert measures.energy_score(samples, target, path) == pytest.approx(np.mean(scores))


def test_energy_score_of_one_series_is_the_sample_crps():
    samples, target = drawn(series=1)
    assert measures.energy_score(samples, target) == pytest.approx(measures.crps_entries(samples, target).mean())


def test_energy_score_keeps_small_distances_at_a_high_level():
    samples, target = drawn()
    assert measures.energy_score(samples + 1e8, target + 1e8) == pytest.approx(
        measures.energy_score(samples, target), rel=1e-6
    )


def test_energy_score_does_not_depend_on_the_portions(monkeypatch):
    samples, target = drawn()
    at_once = measures.evaluate(samples, target)
    monkeypatch.setattr(measures, "CELLS", 1)
    one_by_one = measures.evaluate(samples, target)
    assert [one_by_one[name] for name in ("energy", "energy_path")] == pytest.approx(
        [at_once["energy"], at_once["energy_path"]]
    )


@pytest.mark.parametrize("name", ["CRPS", "CRPS_sum", "CRPS_sample", "energy", "energy_path"])
def test_the_true_law_scores_best(name):
    samples, target = drawn(windows=60, paths=100)
    true = measures.evaluate(samples, target)[name]
    for wrong in (samples + 0.5, 5 + 2 * (samples - 5), 5 + (samples - 5) / 2):
        assert measures.evaluate(wrong, target)[name] > true


def test_only_joint_scores_see_dependence():
    rng = np.random.default_rng(0)
    common = rng.normal(size=(200, 1, 1))
    target = 5 + common + 0.1 * rng.normal(size=(200, 1, 4))
    joint = 5 + rng.normal(size=(200, 100, 1, 1)) + 0.1 * rng.normal(size=(200, 100, 1, 4))
    shuffled = rng.permuted(joint, axis=1)
    ours, theirs = measures.evaluate(joint, target), measures.evaluate(shuffled, target)
    assert theirs["CRPS"] == pytest.approx(ours["CRPS"], rel=1e-12)
    assert theirs["CRPS_sum"] > 1.05 * ours["CRPS_sum"] and theirs["energy"] > 1.02 * ours["energy"]
    assert abs(ours["coverage_80_sum"] - 0.8) < 0.1 < 0.8 - theirs["coverage_80_sum"]


def test_seasonal_error_of_known_answers():
    history = np.array([[0.0, 1], [1, 1], [3, np.nan], [4, 1], [6, 2]])
    assert measures.seasonal_error(history, 2) == pytest.approx([3, 0])
    assert measures.seasonal_error(history, 5) == pytest.approx([1.5, 0.5])  # no longer than a season: season 1
    assert np.isnan(measures.seasonal_error(np.full((4, 1), np.nan))).all()


def test_series_that_never_changed_do_not_count_in_mase():
    samples, target = drawn(series=2)
    alone = measures.mase(samples[..., :1], target[..., :1], np.array([2.0]))
    for still in (0.0, np.nan):
        assert measures.mase(samples, target, np.array([2.0, still])) == pytest.approx(alone)
    assert measures.mase(samples, target, np.full((3, 2), 2.0)) == measures.mase(samples, target, np.array([2.0, 2.0]))


# ---- what was not observed ----


def test_a_step_at_which_nothing_was_observed_is_as_if_it_were_not_there():
    samples, target = drawn()
    target[:, 2] = np.nan
    left = [0, 1, 3]
    scale = np.ones(3)
    found = measures.evaluate(samples, target, scale)
    without = measures.evaluate(samples[:, :, left], target[:, left], scale)
    assert found == pytest.approx(without)


def test_sums_leave_out_steps_of_which_a_part_is_missing():
    samples, target = drawn()
    gappy, empty = target.copy(), target.copy()
    gappy[:, 2, 1], empty[:, 2] = np.nan, np.nan
    for measure in (measures.crps_sum, measures.nd_sum):
        assert measure(samples, gappy) == measure(samples, empty) != measure(samples, target)


def test_paths_of_what_was_not_observed_do_not_matter():
    samples, target = drawn()
    target = with_gaps(target)
    other = np.where(np.isnan(target)[:, None], 1e6, samples)
    ours, theirs = measures.evaluate(samples, target, np.ones(3)), measures.evaluate(other, target, np.ones(3))
    assert theirs == pytest.approx(ours)


def test_nothing_observed_is_nan_and_no_warning(recwarn):
    samples, target = drawn()
    found = measures.evaluate(samples, np.full_like(target, np.nan), np.ones(3))
    assert all(np.isnan(value) for value in found.values())
    zeros = measures.evaluate(samples, np.zeros_like(target))
    assert np.isnan(zeros["CRPS"]) and np.isfinite(zeros["energy"]) and zeros["coverage_80"] < 0.1
    assert not recwarn.list


# ---- PIT ----


def test_pit_of_the_true_law_is_uniform():
    samples, target = drawn(windows=200, paths=9, steps=10)
    found = np.sort(measures.pit(samples, target, np.random.default_rng(1)).ravel())
    assert np.abs(found - np.linspace(0, 1, len(found))).max() < 1.6 / math.sqrt(len(found))  # Kolmogorov-Smirnov, 1 %
    with_narrow = measures.pit(5 + (samples - 5) / 3, target, np.random.default_rng(1))
    assert np.mean((with_narrow < 0.1) | (with_narrow > 0.9)) > 0.4


def test_pit_of_counts_is_uniform_in_spite_of_ties():
    rng = np.random.default_rng(0)
    samples, target = rng.poisson(0.4, (300, 9, 10, 1)), rng.poisson(0.4, (300, 10, 1))
    found = np.sort(measures.pit(samples, target, rng).ravel())
    assert np.abs(found - np.linspace(0, 1, len(found))).max() < 1.6 / math.sqrt(len(found))


def test_pit_keeps_gaps():
    samples, target = drawn()
    target = with_gaps(target)
    assert (np.isnan(measures.pit(samples, target, np.random.default_rng(0))) == np.isnan(target)).all()


# ---- all of them ----


def test_evaluate_says_what_the_functions_say():
    samples, target = drawn()
    target, scale = with_gaps(target), np.array([1.0, 2.0, 0.5])
    wanted = {
        "CRPS": measures.crps(samples, target),
        "CRPS_sum": measures.crps_sum(samples, target),
        "CRPS_sample": measures.crps_sample(samples, target),
        "energy": measures.energy_score(samples, target),
        "energy_path": measures.energy_score(samples, target, path=True),
        "ND": measures.nd(samples, target),
        "ND_sum": measures.nd_sum(samples, target),
        "NRMSE": measures.nrmse(samples, target),
        "MASE": measures.mase(samples, target, scale),
        **{f"coverage_{100 * level:.0f}": measures.coverage(samples, target, level) for level in (0.5, 0.8, 0.95)},
        **{f"width_{100 * level:.0f}": measures.width(samples, target, level) for level in (0.5, 0.8, 0.95)},
        "coverage_80_sum": measures.coverage(samples.sum(3, keepdims=True), target.sum(2, keepdims=True), 0.8),
    }
    found = measures.evaluate(samples, target, scale)
    assert found == pytest.approx(wanted) and list(found) == list(wanted)
    assert all(type(value) is float for value in found.values())
    assert np.isnan(measures.evaluate(samples, target)["MASE"])


def test_the_order_of_paths_and_windows_does_not_matter():
    samples, target = drawn()
    rng = np.random.default_rng(1)
    turned, paths = rng.permutation(3), rng.permutation(20)
    found = measures.evaluate(samples[turned][:, paths], with_gaps(target)[turned], np.ones(3))
    assert found == pytest.approx(measures.evaluate(samples, with_gaps(target), np.ones(3)))


def test_units_cancel_but_in_energy_scores():
    samples, target = drawn()
    ours, theirs = measures.evaluate(samples, target), measures.evaluate(1000 * samples, 1000 * target)
    for name in set(ours) - {"MASE"}:
        assert theirs[name] == pytest.approx(ours[name] * (1000 if "energy" in name else 1)), name


# ---- refusals ----


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2), (2, 4, 3), (3, 5, 3)])
def test_shapes_that_do_not_belong_together(shape):
    samples, _ = drawn()
    with pytest.raises(UserError, match=r"\(3, 20, 4, 3\)"):
        measures.crps(samples, np.zeros(shape))


def test_values_that_are_not_finite():
    samples, target = drawn()
    samples[1, 7, 2, 0] = np.nan
    with pytest.raises(UserError, match="Path 7 of window 1 is not finite at step 2 of series 0"):
        measures.evaluate(samples, target)
    samples, target = drawn()
    target[2, 3, 1] = np.inf
    with pytest.raises(UserError, match="window 2 is infinite at step 3 of series 1"):
        measures.energy_score(samples, target)


def test_levels_and_scales_that_cannot_be():
    samples, target = drawn()
    with pytest.raises(UserError, match=r"between 0 and 1, not 80"):
        measures.quantile(samples, 80)
    with pytest.raises(UserError, match=r"scale of 3 windows of 3 series"):
        measures.mase(samples, target, np.ones(4))
