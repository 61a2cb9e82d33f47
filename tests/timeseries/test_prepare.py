"""From series to a codec and windows: what is chosen where the recipe leaves it open, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.timeseries.data import Frame
from diffusionkit.timeseries.prepare import candidates, fitted, prepared, some
from tests.timeseries.small import long, panel, wide


def frame(kind: str, rows: int = 300, freq: str = "h", seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    made = {
        "walk": lambda: 5 + rng.normal(size=(rows, 2)).cumsum(0),
        "growth": lambda: np.exp(rng.normal(0.001, 0.02, (rows, 2)).cumsum(0) * 3 + 3),
        "season": lambda: rng.normal(size=(-(-rows // 24), 24, 2)).cumsum(0).reshape(-1, 2)[:rows],
        "noise": lambda: rng.normal(size=(rows, 2)),
        "counts": lambda: rng.poisson(0.5, (rows, 2)).astype(float),
    }[kind]()
    return pd.DataFrame(made, index=pd.date_range("2024", periods=rows, freq=freq), columns=list("ab"))


@pytest.mark.parametrize(
    ("kind", "lag", "centers"),
    [("walk", 1, None), ("season", 24, None), ("noise", 0, ("mean", "series")), ("growth", 1, None)],
)
def test_the_target_is_the_one_that_the_series_ask_for(kind, lag, centers):
    made = fitted(panel(frame(kind)), 6)
    assert made.target.lag == lag and (centers is None or made.target.center in centers)
    assert "CRPS" in made.reasons[0] and "foretold is the" in made.reasons[0]
    assert fitted(panel(frame(kind)), 6).target == made.target


def test_candidates_are_those_that_fit_the_values():
    def transforms(df: pd.DataFrame) -> set[str]:
        return {target.transform for target in candidates(panel(df), (1, 24), {})}

    assert transforms(frame("growth")) == {"none", "log"} and transforms(frame("walk") - 100) == {"none"}
    assert transforms(frame("counts")) == {"none", "log1p"} and transforms(frame("counts") * 0.3) == {"none"}
    found = candidates(panel(frame("walk")), (1, 24), {"scale": "mean", "prior": 3.0})
    assert {target.lag for target in found} == {0, 1, 24} and {(target.scale, target.prior) for target in found} == {
        ("mean", 3.0)
    }


def test_what_is_given_is_kept():
    made = fitted(panel(wide()), 6, 30, {"lag": 2, "season": 8, "form": "block", "limit": 4.0, "sample": 2})
    assert (made.context, made.season, made.limit, made.sample, made.target.lag) == (
        30,
        8,
        4.0,
        2,
        2,
    ) and not made.reasons


@pytest.mark.parametrize(("rows", "freq"), [(500, "h"), (200, "B"), (60, "MS"), (30, "YS"), (700, "5min")])
@pytest.mark.parametrize("form", ["block", "steps"])
def test_any_frequency_gets_a_context_that_holds_its_lags(rows, freq, form):
    df = frame("walk", rows, freq)
    made = fitted(panel(df), 6, 0, {"form": form})
    assert made.context >= made.shortest and (form != "steps" or made.context > made.shortest)
    data = made.windows(panel(df))
    batch = data.batch(torch.tensor([0, len(data) - 1]))
    assert all(leaf.isfinite().all() for leaf in batch.cond.values())


@pytest.mark.parametrize("context", [1, 2, 5])
def test_a_context_may_be_short(context):
    made = fitted(panel(frame("season")), 6, context)
    assert made.context == context and made.target.lag <= context


def test_parts_are_windows_of_training_and_test():
    source = Frame(prediction_length=6, context_length=24, windows=3, codec={"lag": 1})
    whole = panel(wide(120))
    head, _ = whole.split(rows=18)
    codec, parts = prepared(source, {"train": head, "test": whole})
    assert len(parts["train"]) == 102 - 1 - 6 + 1 and len(parts["test"]) == 13
    assert np.allclose(codec.stats.mean, head.blocks[0].values.mean(0))
    assert codec.tail.blocks[0].index[-1] == head.blocks[0].index[-1]


def test_short_series_beside_long_ones_are_left_to_be_conditions():
    df = long((4, 60, 60))
    codec, parts = prepared(Frame(prediction_length=6, codec={"lag": 1}), {"train": panel(df, joint=False)})
    assert len(parts["train"]) == 2 * (60 - 6) and codec.names == ("s0", "s1", "s2")


def test_too_few_rows_are_refused():
    with pytest.raises(
        UserError,
        match="series 'a' has 6 rows to train on, until 2024-01-01 05:00:00; the longest lag 1 and the horizon 6 take 7",
    ):
        prepared(Frame(prediction_length=6), {"train": panel(wide(6))})
    with pytest.raises(UserError, match="data.context_length: 10 steps are too few, the longest lag reaches back 24"):
        fitted(panel(wide()), 6, 10, {"lag": 24})


def test_options_that_cannot_be_are_refused():
    for options, said in [
        ({"lags": 3}, "codec has no option 'lags'; its options are transform, lag"),
        ({"transform": "sqrt"}, "codec: transform must be one of none, log, log1p, not 'sqrt'"),
        ({"lag": -1}, "codec: lag must not be negative"),
    ]:
        with pytest.raises(UserError, match=said):
            fitted(panel(wide()), 6, 0, options)
    df = wide()
    df.iloc[7, 1] = -2.0
    with pytest.raises(
        UserError, match="series 'b' is -2 at 2024-01-01 07:00:00, of which transform 'log' has no value"
    ):
        fitted(panel(df), 6, 0, {"transform": "log"})


@pytest.mark.parametrize("joint", [True, False])
def test_a_choice_is_made_on_some_of_many_series(joint):
    p = panel(wide(60, 50, seed=1).set_axis(range(50), axis=1), joint=joint)
    few = some(p, 7)
    assert few.size == 7 and few.names[0] == 0 and few.names[-1] == 49 and few.joint == joint
    assert np.array_equal(few.series(few.names[3]), p.series(few.names[3]))
    assert some(p, 50) is p
