"""Known answers, laws, and what must not go wrong."""

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular import judges, metrics
from diffusionkit.tabular.coded import coded
from diffusionkit.tabular.neighbours import Ruler

NUMBER, LEVEL = "continuous", "categorical"
KINDS = {"x": NUMBER, "y": NUMBER, "c": LEVEL}


def table(n=400, seed=0):
    """Two numbers and a level that hang together."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    level = np.where(x + rng.normal(size=n) > 0, "a", "b")
    return pd.DataFrame({"x": x, "y": x**2 + rng.normal(size=n) / 3, "c": level})


def shuffled(frame, seed=1):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: rng.permutation(frame[name].to_numpy()) for name in frame})


# ---- shape ----


def test_shape_of_known_answers():
    real = pd.DataFrame({"x": [0.0, 1, 2, 3], "y": [1, 1, 2, 2], "c": ["a", "a", "a", "b"]})
    fake = pd.DataFrame({"x": [1.0, 2, 3, 4], "y": [5, 6, 7, 8], "c": ["a", "b", "b", "z"]})
    assert metrics.shape(real, fake, KINDS) == pytest.approx({"x": 0.25, "y": 1.0, "c": 0.5})


def test_shape_counts_missing_numbers():
    real = pd.DataFrame({"x": [0.0, 1, np.nan, np.nan]})
    fake = pd.DataFrame({"x": [0.0, 0, 0, np.nan]})
    # shares 1/2 and 1/4 are missing, and half of the others differ
    assert metrics.shape(real, fake, {"x": NUMBER})["x"] == pytest.approx(0.25 + 0.5 * 0.5)
    none = pd.DataFrame({"x": [np.nan] * 3})
    assert metrics.shape(real, none, {"x": NUMBER})["x"] == pytest.approx(0.5)
    assert metrics.shape(none, none, {"x": NUMBER})["x"] == 0


def test_a_missing_level_is_a_level():
    real, fake = pd.DataFrame({"c": ["a", None]}), pd.DataFrame({"c": ["a", "a"]})
    assert metrics.shape(real, fake, {"c": LEVEL})["c"] == pytest.approx(0.5)


def test_equal_rows_in_any_order_have_no_error():
    real = table()
    fake = real.sample(frac=1, random_state=0)[["c", "x", "y"]]
    assert max(metrics.shape(real, fake, KINDS).values()) == 0
    assert np.nanmax(metrics.trend(real, fake, KINDS).to_numpy()) == pytest.approx(0, abs=1e-12)


def test_the_values_count_and_not_the_dtype():
    real = pd.DataFrame({"x": pd.array([1, 2, None], dtype="Int64"), "c": pd.Categorical(["u", "v", None])})
    fake = pd.DataFrame({"x": [1.0, 2.0, np.nan], "c": np.array(["u", "v", None], dtype=object)})
    assert metrics.shape(real, fake, {"x": "integer", "c": LEVEL}) == {"x": 0, "c": 0}


def test_instants_and_durations_are_numbers():
    start = pd.Timestamp("2020-03-01", tz="Asia/Tokyo")
    real = pd.DataFrame(
        {"at": start + pd.to_timedelta([0, 1, 2, 3], unit="D"), "for": pd.to_timedelta([0, 1, 2, None], unit="s")}
    )
    fake = real.assign(at=real["at"] + pd.Timedelta(days=1))
    found = metrics.shape(real, fake, {"at": "datetime", "for": "timedelta"})
    assert found == pytest.approx({"at": 0.25, "for": 0})


def test_identifiers_are_left_out():
    real = pd.DataFrame({"id": ["p1", "p2", "p3"], "x": [1.0, 2, 3]})
    fake = pd.DataFrame({"id": ["q1", "q2", "q3"], "x": [1.0, 2, 3]})
    kinds = {"id": "identifier", "x": NUMBER}
    assert metrics.shape(real, fake, kinds) == {"x": 0}
    assert metrics.exact_copies(real, fake, kinds) == 1
    with pytest.raises(UserError, match="identifier"):
        metrics.shape(real[["id"]], fake[["id"]], {"id": "identifier"})


# ---- trend ----


def test_trend_of_known_answers():
    x = np.arange(8.0)
    real, fake = pd.DataFrame({"x": x, "y": x}), pd.DataFrame({"x": x, "y": -x})
    assert metrics.trend(real, fake, {"x": NUMBER, "y": NUMBER}).loc["x", "y"] == pytest.approx(1.0)
    real = pd.DataFrame({"a": ["p", "p", "q", "q"], "b": ["u", "u", "v", "v"]})
    fake = pd.DataFrame({"a": ["p", "p", "q", "q"], "b": ["u", "v", "u", "v"]})
    found = metrics.trend(real, fake, {"a": LEVEL, "b": LEVEL})
    assert found.loc["a", "b"] == found.loc["b", "a"] == pytest.approx(0.5)
    assert np.isnan(found.loc["a", "a"])


def test_trend_sees_that_holes_belong_together():
    rng = np.random.default_rng(0)
    x, hole = rng.normal(size=(2, 1000)), rng.random((2, 1000)) < 0.5
    together = pd.DataFrame({"x": np.where(hole[0], np.nan, x[0]), "y": np.where(hole[0], np.nan, x[1])})
    apart = pd.DataFrame({"x": np.where(hole[0], np.nan, x[0]), "y": np.where(hole[1], np.nan, x[1])})
    kinds = {"x": NUMBER, "y": NUMBER}
    assert metrics.trend(together, apart, kinds).loc["x", "y"] == pytest.approx(0.5, abs=0.05)
    assert metrics.trend(together, together, kinds).loc["x", "y"] == pytest.approx(0, abs=1e-12)


def test_pairs_with_holes_weigh_less():
    x = np.arange(8.0)
    x[::2] = np.nan
    real, fake = pd.DataFrame({"x": x, "y": np.arange(8.0)}), pd.DataFrame({"x": x, "y": -np.arange(8.0)})
    assert metrics.trend(real, fake, {"x": NUMBER, "y": NUMBER}).loc["x", "y"] == pytest.approx(0.5)


def test_correlations_of_pairs_are_those_of_pandas():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) * [1, 1e6, 1e-6, 1] + [0, 1e9, 0, 5])
    frame = frame.mask(rng.random(frame.shape) < 0.3)
    assert np.allclose(metrics.pearson(frame.to_numpy())[0], frame.corr().to_numpy(), atol=1e-6)


def test_an_outlier_moves_separate_edges_only():
    real = pd.DataFrame({"x": np.linspace(0, 1, 1000), "c": ["a", "b"] * 500})
    fake = real.copy()
    fake.loc[0, "x"] = 100.0
    kinds = {"x": NUMBER, "c": LEVEL}
    assert metrics.average(metrics.trend(real, fake, kinds)) < 0.01
    assert metrics.average(metrics.trend(real, fake, kinds, edges="separate")) > 0.5
    with pytest.raises(UserError, match="edges"):
        metrics.trend(real, fake, kinds, edges="mixed")


def test_only_so_many_pairs_are_measured():
    rng = np.random.default_rng(0)
    real = pd.DataFrame(rng.integers(0, 3, (50, 12)))
    found = metrics.trend(real, real, dict.fromkeys(range(12), LEVEL), pairs=10)
    assert found.notna().sum().sum() == 20 and found.equals(found.T)


def test_trend_of_thousands_of_levels():
    many = np.arange(6000) % 3000
    real = pd.DataFrame({"a": many.astype(str), "b": many.astype(str)})
    fake = pd.DataFrame({"a": many.astype(str), "b": np.roll(many, 1).astype(str)})
    found = metrics.trend(real, fake, {"a": LEVEL, "b": LEVEL})
    assert found.loc["a", "b"] == pytest.approx(1.0)


def test_a_single_column_has_no_trend():
    real = pd.DataFrame({"x": [1.0, 2.0]})
    assert np.isnan(metrics.average(metrics.trend(real, real, {"x": NUMBER})))


# ---- two samples ----


def test_c2st_logistic_is_blind_where_boosting_sees():
    real = table(900)
    fake = shuffled(table(900, seed=1))
    assert metrics.c2st(real, fake, "logistic", columns=KINDS) > 0.85
    assert metrics.c2st(real, fake, columns=KINDS) < 0.5
    assert metrics.c2st(real, table(900, seed=2), columns=KINDS) > 0.85


def test_c2st_of_tables_that_never_meet():
    real = table()
    for classifier in ("logistic", "boosting"):
        assert metrics.c2st(real, real.assign(c="z"), classifier, columns=KINDS) < 0.01
        assert metrics.c2st(real, real.assign(x=np.nan), classifier, columns=KINDS) < 0.01


def test_c2st_takes_equally_many_rows():
    assert metrics.c2st(table(2000), table(300, seed=1), columns=KINDS) > 0.75


def test_without_xgboost_the_boosting_of_sklearn(monkeypatch):
    monkeypatch.setattr(judges, "find_spec", lambda name: None)
    judges.booster.cache_clear()
    try:
        assert "scikit-learn" in metrics.booster()
        real = table(600)
        assert metrics.c2st(real, shuffled(real), columns=KINDS) < 0.6
        assert metrics.efficiency(real, table(300, seed=1), "y", KINDS)["r2"] > 0.7
        assert metrics.efficiency(real, table(300, seed=1), "c", KINDS)["auc"] > 0.7
    finally:
        judges.booster.cache_clear()


# ---- efficiency ----


def test_efficiency_knows_real_from_independent():
    real, test = table(1500), table(1000, seed=1)
    good, bad = (metrics.efficiency(part, test, "y", KINDS) for part in (real, shuffled(real)))
    assert good["r2"] > 0.8 > 0.2 > bad["r2"]
    assert good["rmse"] == pytest.approx(np.sqrt((1 - good["r2"]) * test["y"].var(ddof=0)))
    good, bad = (metrics.efficiency(part, test, "c", KINDS) for part in (real, shuffled(real)))
    assert good["auc"] > 0.8 and good["auc"] > bad["auc"] + 0.15 and good["f1"] > bad["f1"]


def test_efficiency_of_several_classes_some_of_them_new():
    rng = np.random.default_rng(0)
    x = rng.random(900)
    frame = pd.DataFrame({"x": x, "c": np.floor(3 * x).astype(int)})
    kinds = {"x": NUMBER, "c": LEVEL}
    found = metrics.efficiency(frame[:600], frame[600:], "c", kinds)
    assert found["auc"] > 0.99 and found["accuracy"] > 0.97
    for absent in (0, 2):
        part = frame[:600][frame["c"][:600] != absent]
        rest = frame[600:].sort_values("c", ascending=False)
        assert metrics.efficiency(part, rest, "c", kinds)["accuracy"] == pytest.approx(2 / 3, abs=0.06)
    alone = metrics.efficiency(part[part["c"] == 0], frame[600:], "c", kinds)
    assert alone["auc"] == 0.5


def test_rows_without_a_target_are_left_out():
    real, test = table(800), table(400, seed=1)
    whole = metrics.efficiency(real, test, "y", KINDS)
    holes = pd.concat([real, real.assign(y=np.nan)], ignore_index=True)
    assert metrics.efficiency(holes, test, "y", KINDS)["r2"] == pytest.approx(whole["r2"])
    with pytest.raises(UserError, match="'y'"):
        metrics.efficiency(real.assign(y=np.nan), test, "y", KINDS)
    with pytest.raises(UserError, match="'z'"):
        metrics.efficiency(real, test, "z", KINDS)


# ---- neighbours ----


def one_hot(frame, low, extent, half=False):
    """Coordinates as written in the definitions, the slow way."""
    numbers = ((frame[["x", "y"]] - low) / extent).to_numpy()
    levels = np.stack([(frame["c"] == level).to_numpy(float) for level in "ab"], 1)
    return np.hstack([numbers, levels * (0.5**0.5 if half else 1)])


def scale(frame):
    numbers = frame[["x", "y"]]
    return numbers.min(), numbers.max() - numbers.min()


def test_alpha_beta_is_the_definition():
    real, fake = table(120), shuffled(table(120, seed=3))
    a, b = (one_hot(part, *scale(real)) for part in (real, fake))
    alphas = np.linspace(0, 1, 30)
    to_centre = np.linalg.norm(a - a.mean(0), axis=1)
    inside = [(np.linalg.norm(b - a.mean(0), axis=1) <= np.quantile(to_centre, q)).mean() for q in alphas]
    to_real = np.linalg.norm(a[:, None] - a, axis=2) + np.diag(np.full(len(a), np.inf))
    to_fake = np.linalg.norm(a[:, None] - b, axis=2)
    outward = np.linalg.norm(b - b.mean(0), axis=1)[to_fake.argmin(1)]
    covered = [((to_fake.min(1) <= to_real.min(1)) & (outward <= np.quantile(outward, q))).mean() for q in alphas]
    expected = [1 - np.abs(alphas - found).sum() / alphas.sum() for found in (inside, covered)]
    assert metrics.alpha_beta(real, fake, columns=KINDS) == pytest.approx(expected, abs=0.01)


def test_beta_of_a_perfect_sample_is_one_half():
    real = table(2000)
    alpha, beta = metrics.alpha_beta(real, table(2000, seed=1), columns=KINDS)
    assert alpha > 0.95 and 0.44 < beta < 0.56
    assert metrics.alpha_beta(real, real, columns=KINDS)[1] > 0.95  # copies
    narrow = pd.concat([real.iloc[:1]] * 2000)
    assert metrics.alpha_beta(real, narrow, columns=KINDS)[1] < 0.05


def test_distances_are_the_definition():
    train, test, fake = table(90), table(90, seed=1), table(70, seed=2)
    low, extent = scale(train)
    a, b, c = (one_hot(part, low, extent) for part in (train, test, fake))
    near = [np.abs(c[:, None] - part).sum(2).min(1) for part in (a, b)]
    assert metrics.dcr_share(train, test, fake, columns=KINDS) == pytest.approx((near[0] < near[1]).mean())
    a, c = (one_hot(part, low, extent, half=True) for part in (train, fake))
    median = np.median(np.linalg.norm(c[:, None] - a, axis=2).min(1))
    assert metrics.median_distance(train, fake, columns=KINDS) == pytest.approx(median)


def test_distances_to_a_centre_are_those_of_one_hots():
    real, fake = table(60), table(50, seed=1)
    a, b = (one_hot(part, *scale(real)) for part in (real, fake))
    coded_real, coded_fake = coded(real, fake, columns=KINDS)
    found = Ruler(coded_real, "l2").to_centre(coded_fake, coded_real)
    assert found == pytest.approx(np.linalg.norm(b - a.mean(0), axis=1))


def test_another_level_has_the_distance_one():
    train, fake = pd.DataFrame({"x": [0.0, 4.0], "c": ["a", "a"]}), pd.DataFrame({"x": [0.0], "c": ["z"]})
    assert metrics.median_distance(train, fake, columns={"x": NUMBER, "c": LEVEL}) == 1
    a, b = coded(train, fake, columns={"x": NUMBER, "c": LEVEL})
    assert Ruler(a, "l1").nearest(b, a)[0] == [2] and Ruler(a, "l2").nearest(b, a)[0] == [2**0.5]


def test_dcr_share_of_copies_and_of_ties():
    train, test = table(200), table(200, seed=1)
    assert metrics.dcr_share(train, test, train, columns=KINDS) == 1
    assert metrics.dcr_share(train, test, test, columns=KINDS) == 0
    assert metrics.dcr_share(train, train.iloc[::-1], table(50, seed=2), columns=KINDS) == 0.5


def test_equally_many_rows_of_a_90_10_split_are_compared():
    found = metrics.dcr_share(table(3600), table(400, seed=1), table(3000, seed=2), columns=KINDS)
    assert 0.42 < found < 0.58


def test_a_missing_number_is_nearest_to_another():
    train = pd.DataFrame({"x": [0.0, 1.0, np.nan]})
    assert metrics.median_distance(train, pd.DataFrame({"x": [np.nan]}), columns={"x": NUMBER}) == 0
    assert metrics.median_distance(train.iloc[:2], pd.DataFrame({"x": [np.nan]}), columns={"x": NUMBER}) > 1


def test_exact_copies_look_at_every_column():
    train = pd.DataFrame({"x": [0.0, 1.0, np.nan], "c": ["a", "b", None]})
    fake = pd.DataFrame({"x": [-0.0, 1.0, np.nan, 1.0], "c": ["a", "b", None, "a"]})
    assert metrics.exact_copies(train, fake, {"x": NUMBER, "c": LEVEL}) == 0.75


# ---- holes, levels, dtypes ----


def test_missing_and_levels_found():
    real = pd.DataFrame({"x": [1.0, 2, np.nan, np.nan], "c": ["a", "b", "c", None]})
    fake = pd.DataFrame({"x": [1.0, 2, 3, np.nan], "c": ["a", "a", None, None]})
    kinds = {"x": NUMBER, "c": LEVEL}
    assert metrics.missing(real, fake, kinds) == pytest.approx({"x": -0.25, "c": 0.25})
    assert metrics.levels_found(real, fake, kinds) == 0.5
    assert np.isnan(metrics.levels_found(real[["x"]], fake[["x"]], {"x": NUMBER}))


@pytest.mark.parametrize(
    ("real", "fake", "kind", "words"),
    [
        ([1, 2, 3], [1, 3, 2], "integer", ""),
        ([1, 2, 3], [1.0, 2.0, 3.0], "integer", "dtype float64, not int64"),
        ([1.0, 2.0, 3.0], [1.0, 2.5, 3.0], "integer", "not whole"),
        ([1.25, 2.5, 3.0], [1.25, 2.333, 3.0], NUMBER, "more than 2 decimals"),
        ([1.0, 2.0, 3.0], [1.0, 4.0, 3.0], NUMBER, "beyond 1 to 3"),
        ([1.0, 2.0, 3.0], [1.0, np.nan, 3.0], NUMBER, "missing values"),
        ([1.0, np.nan, 3.0], [1.0, np.nan, 3.0], NUMBER, ""),
        (["a", "b"], ["a", "z"], LEVEL, "level 'z' is unknown"),
        (["a", "b"], ["a", "b"], LEVEL, ""),
    ],
)
def test_fidelity_names_what_differs(real, fake, kind, words):
    found = metrics.fidelity(pd.DataFrame({"v": real}), pd.DataFrame({"v": fake}), {"v": kind})["v"]
    assert words in found and bool(words) == bool(found)


def test_fidelity_of_categories():
    real = pd.DataFrame({"c": pd.Categorical(["a", "b"], ["a", "b", "c"])})
    fake = pd.DataFrame({"c": pd.Categorical(["a", "b"], ["a", "b"])})
    assert metrics.fidelity(real, fake, {"c": LEVEL})["c"] == "other categories"
    assert metrics.fidelity(real, real.iloc[::-1], {"c": LEVEL})["c"] == ""


# ---- refusals ----


def test_other_columns_are_refused_by_name():
    real = table(20)
    for fake, name in ((real.drop(columns="y"), "'y'"), (real.assign(extra=1), "'extra'")):
        with pytest.raises(UserError, match=name):
            metrics.shape(real, fake, KINDS)
    twice = pd.concat([real, real[["x"]]], axis=1)
    with pytest.raises(UserError, match="'x' stands twice"):
        metrics.shape(real, twice, KINDS)
    with pytest.raises(UserError, match="synthetic table is empty"):
        metrics.shape(real, real.iloc[:0], KINDS)


def test_values_of_another_kind_are_refused_by_name():
    real = table(20)
    with pytest.raises(UserError, match="'x' of the synthetic table"):
        metrics.shape(real, real.assign(x="word"), KINDS)
    with pytest.raises(UserError, match="'x' of the synthetic table holds an infinite"):
        metrics.shape(real, real.assign(x=np.inf), KINDS)
    with pytest.raises(UserError, match="'q'"):
        metrics.shape(real, real, KINDS | {"q": NUMBER})


def test_rows_are_too_few_to_tell_apart():
    with pytest.raises(UserError, match="3 folds"):
        metrics.c2st(table(20), table(2), columns=KINDS)
    with pytest.raises(UserError, match="classifier"):
        metrics.c2st(table(20), table(20), "forest", columns=KINDS)
