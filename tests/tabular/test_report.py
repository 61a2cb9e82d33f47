"""The quality report puts every measure beside its floor and beside independent columns."""

import json

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular.report import quality_report

KINDS = {"x": "continuous", "y": "continuous", "c": "categorical"}


def table(n=600, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    y = np.where(rng.random(n) < 0.2, np.nan, x**2 + rng.normal(size=n) / 3)
    return pd.DataFrame({"x": x, "y": y, "c": np.where(x + rng.normal(size=n) / 2 > 0, "a", "b")})


@pytest.fixture(scope="module")
def report():
    return quality_report(table(), table(500, 1), table(400, 2), target="c", columns=KINDS, quiet=True)


def row(report, measure):
    return report.table.set_index("measure").loc[measure]


def test_every_measure_has_its_row(report):
    assert list(report.table.columns) == ["measure", "fake", "floor", "independent", "better", "comment"]
    assert set(report.table["better"]) == {"lower", "higher"}
    assert set(report.table["measure"]) == {
        "shape error", "trend error", "C2ST, logistic", "C2ST, boosting", "alpha-precision", "beta-recall", "levels found",
        "missing values", "exact copies", "DCR share", "ML efficiency, AUC", "ML efficiency, macro F1", "dtype fidelity",
    }  # fmt: skip
    assert report.table[["fake", "floor", "independent"]].map(np.isfinite).all(axis=None)


def test_a_fresh_sample_is_near_the_floor_and_independent_columns_are_not(report):
    for measure in ("C2ST, boosting", "ML efficiency, AUC", "trend error"):
        found = row(report, measure)
        assert abs(found["fake"] - found["floor"]) < abs(found["independent"] - found["floor"]) / 2
    assert row(report, "C2ST, logistic")["independent"] > 0.8
    assert row(report, "DCR share")["floor"] == 0.5


def test_the_floor_is_brought_to_the_sizes_at_hand():
    real, fake = table(4000), table(4000, 1)
    floors = [
        row(quality_report(real, fake, table(n, 2), columns=KINDS, quiet=True), "shape error")["floor"]
        for n in (300, 4000)
    ]
    assert floors[0] / floors[1] == pytest.approx(1, abs=0.6)  # 2.7 without


def test_without_a_test_part_the_floor_is_two_halves():
    found = quality_report(table(), table(500, 1), target="y", columns=KINDS, quiet=True)
    assert found.facts["rows"]["floor"] == [300, 300] and "halves" in found.facts["floor"]
    assert "DCR share" not in set(found.table["measure"])
    assert {"ML efficiency, R2", "ML efficiency, RMSE"} < set(found.table["measure"])
    assert row(found, "ML efficiency, RMSE")["better"] == "lower"


def test_it_prints_and_goes_into_json(report):
    text = str(report)
    assert "beta-recall" in text and "500 synthetic rows against 600 real ones" in text
    assert "<table" in report._repr_html_()
    kept = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert len(kept["measures"]) == len(report.table) and kept["rows"]["fake"] == 500


def test_what_is_not_known_is_none_in_json():
    found = quality_report(table(), table(500, 1), columns=KINDS, quiet=True).to_dict()
    assert {entry["measure"]: entry for entry in found["measures"]}["dtype fidelity"]["floor"] is None


def test_the_same_seed_gives_the_same_figures():
    tables = [
        quality_report(table(300), table(300, 1), columns=KINDS, seed=seed, quiet=True, rows=200).table
        for seed in (3, 3, 4)
    ]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])


def test_a_copy_is_found_out():
    real = table()
    found = quality_report(real, real, table(400, 2), columns=KINDS, quiet=True)
    assert row(found, "exact copies")["fake"] == 1 and row(found, "exact copies")["floor"] == 0
    assert row(found, "DCR share")["fake"] > 0.8 and row(found, "beta-recall")["fake"] > 0.9


def test_what_differs_is_said_with_the_column():
    fake = table(500, 1).assign(c="z")
    found = quality_report(table(), fake, columns=KINDS, quiet=True)
    assert "'z'" in found.fidelity["c"] and "Column 'c'" in str(found)
    assert row(found, "dtype fidelity")["fake"] < 1


@pytest.mark.parametrize("label", ["x", "c"])
def test_one_column_is_enough(label):
    parts = [table(200, seed)[[label]] for seed in (0, 1, 2)]
    found = quality_report(*parts, columns={label: KINDS[label]}, quiet=True)
    assert "trend error" not in set(found.table["measure"]) and "shape error" in str(found)


def test_refusals():
    real = table(50)
    with pytest.raises(UserError, match="'y' is missing in the synthetic table"):
        quality_report(real, real.drop(columns="y"), columns=KINDS, quiet=True)
    with pytest.raises(UserError, match="'y' is missing in the test table"):
        quality_report(real, real, real.drop(columns="y"), columns=KINDS, quiet=True)
    with pytest.raises(UserError, match="target: 'w'"):
        quality_report(real, real, target="w", columns=KINDS, quiet=True)


def test_pictures(report, tmp_path):
    paths = report.plot(tmp_path / "new")
    assert [path.name for path in paths] == ["marginals.png", "correlations.png", "embedding.png"]
    assert all(path.is_file() for path in paths)
