"""Copies are found out, fresh rows are not accused."""

import json

import numpy as np
import pandas as pd
import pytest

from diffusionkit.errors import UserError
from diffusionkit.tabular.privacy import privacy_report

KINDS = {"x": "continuous", "y": "continuous", "c": "categorical", "d": "categorical"}


def table(n=500, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n)
    secret = rng.choice(["p", "q", "r"], n)  # nothing tells it but the row itself
    y = np.where(rng.random(n) < 0.1, np.nan, rng.normal(size=n))
    return pd.DataFrame({"x": x, "y": y, "c": np.where(x > 0, "a", "b"), "d": secret})


def report(fake, **rest):
    return privacy_report(table(), table(seed=1), fake, columns=KINDS, quiet=True, **rest)


def test_fresh_rows_give_nothing_away():
    found = report(table(seed=2), sensitive="d")
    assert abs(found.value("nearer to train") - 0.5) < 0.08
    assert found.value("exact copies") == 0
    assert abs(found.value("membership by density, AUC") - 0.5) < 0.08
    assert abs(found.value("d by nearest row, accuracy") - 1 / 3) < 0.08
    assert "as it should be" in found.sentence and "no better than by tossing a coin" in found.sentence
    assert "guesses their 'd' no better" in found.sentence


def test_copies_are_found_out_by_every_attack():
    found = report(table(), sensitive=["d", "c"])
    assert found.value("nearer to train") > 0.95
    assert found.value("exact copies") == 1
    assert found.value("membership by density, AUC") > 0.95
    assert found.value("d by nearest row, accuracy") == 1
    rows = found.table.set_index("measure")
    assert rows["ideal"]["d by nearest row, accuracy"] < 0.5
    for words in (
        "learned by heart",
        "100.00 % are exact copies",
        " better than by tossing",
        "'d' and 'c' better than",
    ):
        assert words in found.sentence


def test_a_few_copies_among_fresh_rows_are_counted():
    fake = pd.concat([table().iloc[:50], table(450, seed=2)])
    assert report(fake).value("exact copies") == pytest.approx(0.1)


def test_losses_that_tell_members():
    rng = np.random.default_rng(0)
    losses = rng.normal(size=800), rng.normal(size=900) + 1
    found = report(table(seed=2), losses=losses)
    assert found.value("membership by loss, AUC") == pytest.approx(0.76, abs=0.03)  # Phi(1 / sqrt 2)
    assert "better than by tossing a coin" in found.sentence
    assert report(table(seed=2), losses=(losses[0], losses[0])).value("membership by loss, AUC") == pytest.approx(0.5)


def test_a_number_as_the_secret():
    found = report(table(), sensitive="y")
    assert found.value("y by nearest row, R2") == pytest.approx(1)
    assert "guesses their 'y' better" in found.sentence
    assert "no better" in report(table(seed=2), sensitive="y").sentence


def test_it_prints_and_goes_into_json():
    found = report(table(seed=2), sensitive="c")
    assert str(found).startswith(found.sentence) and "exact copies" in str(found)
    assert "<table" in found._repr_html_()
    kept = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert kept["sentence"] == found.sentence and kept["rows"] == {"train": 500, "holdout": 500, "fake": 500}


def test_the_same_seed_gives_the_same_figures():
    one, two = (report(table(seed=2), seed=5, rows=200) for _ in range(2))
    assert one.table.equals(two.table)


def test_one_column_of_few_values():
    few = {"c": "categorical"}
    parts = [table(seed=seed)[["c"]] for seed in (0, 1, 2)]
    found = privacy_report(*parts, columns=few, quiet=True)
    assert found.value("nearer to train") == 0.5 and found.value("exact copies") == 1
    assert "100.00 % are exact copies of training rows (of unseen real rows 100.00 % are)" in found.sentence


def test_refusals():
    with pytest.raises(UserError, match="sensitive: 'z'"):
        report(table(seed=2), sensitive="z")
    with pytest.raises(UserError, match="losses"):
        report(table(seed=2), losses=([], [1.0]))
    with pytest.raises(UserError, match="losses"):
        report(table(seed=2), losses=([np.nan], [1.0]))
    with pytest.raises(UserError, match="holdout table has 5 rows"):
        privacy_report(table(), table(5), table(), columns=KINDS, quiet=True)
    with pytest.raises(UserError, match="'x' is missing in the holdout table"):
        privacy_report(table(), table().drop(columns="x"), table(), columns=KINDS, quiet=True)
    with pytest.raises(UserError, match="'d' is missing nearly everywhere"):
        privacy_report(table(), table(), table().assign(d=None), sensitive="d", columns=KINDS, quiet=True)
