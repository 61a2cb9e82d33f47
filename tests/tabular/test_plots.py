"""Pictures come out, small, whatever the columns are; associations have known answers."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats.contingency import association

from diffusionkit.errors import UserError
from diffusionkit.tabular import plots
from diffusionkit.tabular.coded import coded

MOST = 300_000  # bytes of a picture


def odd(n=150, seed=0):
    """Every kind of column that a picture must survive."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n),
            "holes": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "spike": np.where(rng.random(n) < 0.9, 0, rng.exponential(size=n)),
            "whole": rng.integers(0, 5, n),
            "when": pd.Timestamp("2021-01-01", tz="UTC") + pd.to_timedelta(rng.integers(0, 9999, n), unit="h"),
            "c": rng.choice(["$u", "v_{", "w" * 60], n),
            "many": rng.integers(0, 99, n).astype(str),
            "flag": rng.random(n) < 0.2,
            "one": 1,
            "none": [None] * n,
        }
    )
    frame[7] = rng.normal(size=n)
    return frame


ODD = dict.fromkeys(["x", "holes", "spike", 7], "continuous") | {
    "whole": "integer",
    "when": "datetime",
    "c": "categorical",
}
ODD |= {"many": "categorical", "flag": "boolean", "one": "constant", "none": "constant"}
DRAW = [plots.marginals, plots.correlations, plots.embedding]


@pytest.mark.parametrize("draw", DRAW)
def test_pictures_of_odd_columns(draw, tmp_path):
    path = draw(odd(), odd(seed=1), tmp_path / "folder" / "odd.png", columns=ODD)
    assert Image.open(path).size[0] > 500 and path.stat().st_size < MOST


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize("label", ["x", "c", "one", "none", "when"])
def test_pictures_of_one_column(draw, label, tmp_path):
    draw(odd()[[label]], odd(seed=1)[[label]], tmp_path / "one.png", columns={label: ODD[label]})
    assert (tmp_path / "one.png").stat().st_size > 2000


@pytest.mark.parametrize("draw", DRAW)
def test_pictures_of_many_columns(draw, tmp_path):
    rng = np.random.default_rng(0)
    real, fake = (pd.DataFrame(rng.normal(size=(80, 90))) for _ in range(2))
    path = draw(real, fake, tmp_path / "many.png", columns=dict.fromkeys(range(90), "continuous"))
    assert path.stat().st_size < MOST


def matrix(frame, kinds):
    return plots.associations(coded(frame, columns=kinds)[0])


def test_associations_of_known_answers():
    x = np.arange(60.0)
    frame = pd.DataFrame({"x": x, "minus": -x, "c": (x // 20).astype(str), "d": (x // 20 + 5).astype(str), "k": "k"})
    kinds = {"x": "continuous", "minus": "continuous", "c": "categorical", "d": "categorical", "k": "constant"}
    found = matrix(frame, kinds)
    between = np.sqrt(1 - (20**2 - 1) / (60**2 - 1))  # variance of 20 whole numbers in a row over that of 60
    assert found[0] == pytest.approx([1, -1, between, between, 0])
    assert found[2] == pytest.approx([between, between, 1, 1, 0])
    assert np.array_equal(found, found.T)


def test_association_of_levels_is_that_of_scipy():
    rng = np.random.default_rng(0)
    c = rng.integers(0, 4, 300)
    frame = pd.DataFrame({"c": c, "d": np.where(rng.random(300) < 0.5, c % 3, rng.integers(0, 3, 300))})
    expected = association(pd.crosstab(frame["c"], frame["d"]).to_numpy(), method="cramer")
    assert matrix(frame, {"c": "categorical", "d": "categorical"})[0, 1] == pytest.approx(expected)


def test_independent_columns_have_no_association():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"x": rng.normal(size=5000), "c": rng.choice(list("ab"), 5000), "d": rng.choice(list("pq"), 5000)}
    )
    found = matrix(frame, {"x": "continuous", "c": "categorical", "d": "categorical"})
    assert np.abs(found - np.eye(3)).max() < 0.05


def test_principal_components_are_those_of_numpy():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"x": rng.normal(size=200), "c": rng.choice(list("abc"), 200), "d": rng.choice([1, 2], 200)})
    table = coded(frame, columns={"x": "continuous", "c": "categorical", "d": "categorical"})[0]
    points, again, held = plots._components(table, table)
    features = plots.features(table, words=True)[0].toarray().astype(float)
    values = np.linalg.svd(features - features.mean(0), compute_uv=False) ** 2
    assert held == pytest.approx(values[:2] / values.sum(), rel=1e-4)
    assert (points**2).sum(0) == pytest.approx(values[:2], rel=1e-4) and np.allclose(points, again)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        plots.marginals(odd()[["x"]], odd()[["x"]], tmp_path / "file" / "x.png", columns={"x": "continuous"})
