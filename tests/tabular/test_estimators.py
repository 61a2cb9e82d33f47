from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from diffusionkit.errors import UserError
from diffusionkit.tabular import DiffusionImputer, DiffusionOverSampler, TabularDiffusion

SMALL = {
    "backbone.width": 32, "backbone.depth": 1, "backbone.dropout": 0, "training.batch_size": 64, "training.lr": 1e-2,
    "training.warmup": 5, "data.codec": {"bins": 10, "residual": False}, "sampling.steps": 4,
}  # fmt: skip


def model(steps: int = 5) -> TabularDiffusion:
    return TabularDiffusion(steps=steps, settings=SMALL, verbose=False, random_state=0)


def table(n: int = 150, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """x and c tell the class, 15 % of which are rare."""
    rng = np.random.default_rng(seed)
    rare = np.arange(n) % 7 == 0
    X = pd.DataFrame(
        {
            "x": rng.normal(size=n).round(2) + 4 * rare,
            "k": rng.integers(0, 5, n),
            "c": np.where(rare, "p", rng.choice(["q", "r"], n)),
        }
    )
    return X, pd.Series(np.where(rare, "rare", "common"), name="class")


def array(n: int = 150) -> np.ndarray:
    X = table(n)[0][["x", "k"]].to_numpy(float)
    X[::4, 0] = X[1::4, 1] = np.nan
    return X


# ---- imputer


def test_an_imputer_fills_frames_and_keeps_what_is_known():
    X = table()[0]
    holes = X.assign(x=X["x"].mask(X.index % 3 == 0), c=X["c"].mask(X.index % 5 == 0)).set_index(X.index + 7)
    before = holes.copy()
    imputer = DiffusionImputer(model())
    filled = imputer.fit(holes).transform(holes)
    pd.testing.assert_frame_equal(holes, before)
    assert filled.index.equals(holes.index) and not filled.isna().any(axis=None)
    pd.testing.assert_series_equal(filled.dtypes, X.dtypes)
    for name in X:
        known = holes[name].notna()
        assert (filled[name][known] == holes[name][known]).all()
    pd.testing.assert_frame_equal(imputer.transform(holes), filled)
    assert not DiffusionImputer(model(), random_state=5).fit(holes).transform(holes).equals(filled)
    assert imputer.get_feature_names_out().tolist() == list(X.columns) and imputer.n_features_in_ == 3


def test_an_imputer_fills_arrays():
    X = array()
    filled = DiffusionImputer(model()).fit_transform(X)
    assert isinstance(filled, np.ndarray) and filled.shape == X.shape and np.isfinite(filled).all()
    known = np.isfinite(X)
    assert (filled[known] == X[known]).all()


def test_an_imputer_stands_in_a_pipeline():
    X, y = array(), table()[1]
    pipeline = make_pipeline(DiffusionImputer(model()), LogisticRegression())
    assert clone(pipeline).fit(X, y).score(X, y) > 0.8
    pipeline.set_params(diffusionimputer__steps=2, diffusionimputer__model__steps=3).fit(X, y)
    fitted = pipeline[0]
    assert fitted.steps == 2 and fitted.model_.run_.step == 3
    assert fitted.model is not fitted.model_ and not hasattr(fitted.model, "run_")


def test_an_imputer_gives_frames_where_asked():
    made = DiffusionImputer(model()).set_output(transform="pandas").fit_transform(array())
    assert list(made.columns) == ["x0", "x1"]


def test_an_imputer_refuses_other_tables():
    from sklearn.exceptions import NotFittedError

    X = table()[0]
    with pytest.raises(NotFittedError):
        DiffusionImputer(model()).transform(X)
    imputer = DiffusionImputer(model()).fit(X)
    with pytest.raises(UserError, match="column 'c' is missing"):
        imputer.transform(X[["x", "k"]])
    with pytest.raises(UserError, match="column 'c': level 'z' was never seen"):
        imputer.transform(X.assign(c="z"))
    imputer.fit(array())
    with pytest.raises(UserError, match="column 'x2' was not in the table that was fitted"):
        imputer.transform(np.ones((3, 3)))
    with pytest.raises(UserError, match="this array has 1 dimensions"):
        imputer.transform(np.ones(3))


# ---- over-sampler


def test_classes_get_as_many_rows_as_the_largest():
    X, y = table()
    sampler = DiffusionOverSampler(model(120))
    rows, classes = sampler.fit_resample(X.set_index(X.index + 9), y)
    common = int((y == "common").sum())
    assert (classes.value_counts() == common).all() and len(rows) == 2 * common
    assert sampler.sampling_strategy_ == {"rare": 2 * common - len(y), "common": 0}
    pd.testing.assert_frame_equal(rows[: len(X)], X)
    pd.testing.assert_series_equal(classes[: len(y)], y)
    pd.testing.assert_series_equal(rows.dtypes, X.dtypes)
    assert isinstance(rows.index, pd.RangeIndex) and rows.index.equals(classes.index)
    drawn = rows[len(X) :]
    assert (classes[len(y) :] == "rare").all() and (drawn["c"] == "p").mean() > 0.7 and drawn["x"].mean() > 2.5


def test_classes_get_the_rows_asked_for():
    X, y = table()
    _, classes = DiffusionOverSampler(model(), sampling_strategy={"rare": 40}).fit_resample(X, y)
    assert classes.value_counts().to_dict() == {"common": int((y == "common").sum()), "rare": 40}
    same, unchanged = DiffusionOverSampler(model(), sampling_strategy={"rare": int((y == "rare").sum())}).fit_resample(
        X, y
    )
    pd.testing.assert_frame_equal(same, X)
    pd.testing.assert_series_equal(unchanged, y)


@pytest.mark.parametrize("kind", ["int", "bool", "category", "string", "Int64", "object"])
def test_classes_of_any_dtype_keep_it(kind):
    X, y = table(60)
    numbers = (y == "rare").astype(int)
    y = {"int": numbers, "bool": y == "rare", "category": y.astype("category"), "string": y.astype("string"),
         "Int64": numbers.astype("Int64"), "object": y.astype(object)}[kind].rename(0)  # fmt: skip
    _, classes = DiffusionOverSampler(model()).fit_resample(X, y)
    assert classes.dtype == y.dtype and classes.name == 0 and classes.value_counts().nunique() == 1


def test_arrays_give_arrays():
    X, y = table()[0][["x", "k"]].to_numpy(), (table()[1] == "rare").to_numpy().astype("int8")
    rows, classes = DiffusionOverSampler(model()).fit_resample(X, y)
    assert isinstance(rows, np.ndarray) and rows.dtype == X.dtype and (rows[:150] == X).all()
    assert (
        isinstance(classes, np.ndarray) and classes.dtype == np.int8 and (np.bincount(classes) == (y == 0).sum()).all()
    )


def test_resampling_can_be_repeated():
    X, y = table(60)
    a, b, c = (DiffusionOverSampler(model(), random_state=seed).fit_resample(X, y)[0] for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(a, b)
    assert not a.equals(c)


def test_an_over_sampler_stands_in_a_pipeline_of_imbalanced_learn():
    pipelines = pytest.importorskip("imblearn.pipeline")
    X, y = table()
    pipeline = pipelines.make_pipeline(DiffusionOverSampler(model(80)), LogisticRegression())
    fitted = clone(pipeline).fit(X[["x", "k"]], y)
    assert fitted.score(X[["x", "k"]], y) > 0.9
    assert len(fitted.predict(X[["x", "k"]])) == len(X)  # nothing is drawn to predict


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("minority", "sampling_strategy: 'auto' or numbers of rows by class, not 'minority'"),
        ({"new": 9}, "sampling_strategy: there is no class 'new'; there are rare, common"),
        ({"rare": 2}, "sampling_strategy: class 'rare' has 22 rows already, more than 2"),
    ],
)
def test_impossible_strategies_are_refused(strategy, words):
    with pytest.raises(UserError, match=words):
        DiffusionOverSampler(model(), sampling_strategy=strategy).fit_resample(*table())


def test_tables_that_do_not_fit_their_classes_are_refused():
    X, y = table()
    with pytest.raises(UserError, match="y: 'class' does not fit the table: 149 values for 150 rows"):
        DiffusionOverSampler(model()).fit_resample(X, y[:149])
    with pytest.raises(UserError, match="y: 'x' does not fit the table: the table has a column of this name"):
        DiffusionOverSampler(model()).fit_resample(X, y.rename("x"))
    with pytest.raises(UserError, match="y: a class is missing in places"):
        DiffusionOverSampler(model()).fit_resample(X, y.mask(y.index == 3))


def test_parameters_are_kept_as_scikit_learn_has_them():
    for made in (DiffusionImputer(model(), steps=3), DiffusionOverSampler(model(), guidance=2.0)):
        twin = clone(made)
        assert str(twin.get_params()) == str(made.get_params()) and twin.model is not made.model
        assert type(made)().get_params()["model"] is None
