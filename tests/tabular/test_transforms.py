from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from diffusionkit.tabular.transforms import RankTable, decimals


def columns() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "continuous": rng.normal(size=3000),
        "integers": rng.poisson(3, 3000),
        "spike at zero": np.where(rng.random(3000) < 0.8, 0.0, rng.exponential(size=3000)),
        "capped": np.minimum(rng.exponential(size=3000), 1.0),
        "heavy tails": np.concatenate([10.0 ** rng.uniform(-300, 300, 1500), -(10.0 ** rng.uniform(-300, 300, 1500))]),
        "whole range of int64": rng.integers(-(2**63), 2**63 - 1, 3000),
        "uint64": rng.integers(0, 2**64 - 1, 3000, dtype=np.uint64),
        "two values": rng.integers(0, 2, 3000),
    }


def coded(table: RankTable, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes and residuals, ties drawn at random."""
    index = table.index(values)
    low, high = (torch.from_numpy(edge[index]) for edge in table.intervals)
    position = torch.lerp(low, high, torch.rand(len(values), dtype=torch.float64))
    least, most = (torch.from_numpy(edge[index]) for edge in table.normals())
    return table.codes[index], torch.special.ndtri(position).float().clamp(least, most).numpy()


@pytest.mark.parametrize("bins", [0, 5, 100])
@pytest.mark.parametrize("name", columns())
def test_every_value_comes_back_exactly(name, bins):
    values = columns()[name]
    table = RankTable.fit(values, bins)
    codes, residuals = coded(table, values)
    index, position = table.locate(codes, residuals if table.residual else None)
    assert np.array_equal(table.values[index], values)
    assert ((position >= 0) & (position <= 1)).all()


@pytest.mark.parametrize("name", columns())
def test_the_rank_of_a_whole_column_is_normal_whatever_the_ties(name):
    table = RankTable.fit(columns()[name])
    assert kstest(coded(table, columns()[name])[1], "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", columns())
def test_the_residual_is_normal_within_each_bin(name):
    values = columns()[name]
    table = RankTable.fit(values, 6)
    codes, residuals = coded(table, values)
    for code in range(table.bins):
        assert kstest(residuals[codes == code], "norm").pvalue > 1e-4


def test_many_rows_still_come_back_exactly():
    values = np.arange(400_000)
    table = RankTable.fit(values)
    index, _ = table.locate(*coded(table, values))
    assert np.array_equal(index, values)


def test_bins_hold_whole_values_of_about_equal_mass():
    values = np.random.default_rng(0).normal(size=10_000)
    table = RankTable.fit(values, 50)
    masses = np.bincount(table.codes, table.counts)
    assert table.bins == 50
    assert masses.min() == masses.max() == 200


def test_frequent_values_have_a_bin_of_their_own():
    rng = np.random.default_rng(0)
    values = np.where(rng.random(10_000) < 0.5, np.where(rng.random(10_000) < 0.5, 0.0, 0.7), rng.random(10_000))
    table = RankTable.fit(values, 20)
    for spike in (0.0, 0.7):
        [code] = table.codes[table.values == spike]
        assert (table.codes == code).sum() == 1
    assert 20 <= table.bins <= 22


def test_few_values_have_a_bin_each():
    table = RankTable.fit(np.array([3, 1, 1, 2, 7]), 4)
    assert table.codes.tolist() == [0, 1, 2, 3]
    assert not table.residual


def test_numbers_never_seen_count_as_the_nearest():
    table = RankTable.fit(np.array([0.0, 1.0, 10.0]))
    assert table.index(np.array([-1e308, 0.4, 0.6, 5.4, 5.6, 1e308])).tolist() == [0, 0, 1, 1, 2, 2]
    whole = RankTable.fit(np.array([-(2**63), 0, 2**63 - 1]))
    assert whole.index(np.array([-1e300, -1.0, 1e300])).tolist() == [0, 1, 2]
    assert whole.index(np.array([-(2**62) - 9, 2**62 + 9])).tolist() == [0, 2]
    wide = RankTable.fit(np.array([-1e308, 1e308]))
    assert wide.index(np.array([-1e300, 1e300])).tolist() == [0, 1]


def test_between_neighbours_lie_new_values_and_spikes_stay():
    values = np.array([0.0] * 50 + [1.0, 2.0, 4.0] + [9.0] * 5)
    table = RankTable.fit(values)
    ranks = np.linspace(0, len(values), 200 * len(values) + 1)
    index = (np.searchsorted(table.ranks, ranks, side="right") - 1).clip(0, 4)
    made = table.between(index, (ranks - table.ranks[index]) / table.counts[index])
    assert (np.diff(made) >= 0).all()
    assert set(made) & {0.0, 1.0, 2.0, 4.0, 9.0} == {0.0, 1.0, 2.0, 4.0, 9.0}
    new = made[~np.isin(made, values)]
    assert new.min() < 1.1 and new.max() > 3.9  # all the way from the first to the last of those seen once
    assert ((new > 1) & (new < 4)).all()
    assert (made == 0).mean() == pytest.approx(50 / 58, abs=1e-3)
    assert (made == 9).mean() == pytest.approx(5 / 58, abs=1e-3)


def test_between_heavy_tails_nothing_overflows():
    table = RankTable.fit(np.array([-1.7e308, -1e-300, 1e-300, 1.7e308]))
    made = table.between(np.array([0, 0, 1, 2, 3, 3]), np.array([0.0, 1.0, 0.5, 0.5, 0.0, 1.0]))
    assert np.isfinite(made).all()
    assert made[[0, 2, 3, 5]].tolist() == table.values.tolist()


@pytest.mark.parametrize("between", [False, True])
@pytest.mark.parametrize("bins", [0, 7])
def test_the_span_of_a_range_holds_all_of_it_and_nothing_else(bins, between):
    rng = np.random.default_rng(1)
    values = np.where(rng.random(500) < 0.3, 0.0, rng.normal(size=500))
    table = RankTable.fit(values, bins)
    codes, residuals = np.repeat(np.arange(table.bins), 4000), rng.normal(size=4000 * table.bins).astype(np.float32)
    index, position = table.locate(codes, residuals)
    made = table.between(index, position) if between else table.values[index]
    for low, high in [(-0.5, 0.2), (0.0, 0.0), (None, -1.0), (0.3, None), (0.1, 0.11)]:
        asked = (made >= (-np.inf if low is None else low)) & (made <= (np.inf if high is None else high))
        allowed, least, most = table.span(*table.reach(low, high, between))
        place = {code: i for i, code in enumerate(allowed.tolist())}
        found = np.array([
            code in place and least[place[code]] <= z <= most[place[code]] for code, z in zip(codes.tolist(), residuals, strict=True)
        ])  # fmt: skip
        assert asked.any()
        assert not (found & ~asked).any()
        assert (asked & ~found).mean() < 1e-4  # a step of float32 at the edges


def test_a_range_without_values_has_no_ranks():
    table = RankTable.fit(np.array([1.0, 1.0, 2.0, 5.0]))
    assert table.reach(3.0, 4.0, False) is None
    assert table.reach(3.0, 4.0, True) is not None
    assert table.reach(1.2, 1.8, True) is None  # beside a spike nothing is made
    assert table.reach(6.0, None, True) is None
    assert table.reach(4.0, 3.0, True) is None


@pytest.mark.parametrize(
    "values, dtype, expected",
    [([1.0, 2.0], "float64", 0), ([0.25, 1.5], "float64", 2), ([0.1, 12345.678], "float64", 3), ([0.1, 0.7], "float32", 1),
     ([1 / 3], "float64", None), ([1e300, 0.5], "float64", 1), ([1e-300], "float64", None)],
)  # fmt: skip
def test_decimals(values, dtype, expected):
    assert decimals(np.array(values, dtype).astype(float), dtype) == expected
