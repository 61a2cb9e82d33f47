"""The measures that a quality report lists: names, functions, comments, and the samples that they are taken on."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffusionkit.errors import UserError
from diffusionkit.tabular import metrics, neighbours
from diffusionkit.tabular.coded import Coded


@dataclass(frozen=True)
class Work:
    """What the measures share: tables coded together. `base` and `other` are the two samples of real rows of the floor."""

    real: Coded
    fake: Coded
    test: Coded | None
    base: Coded
    other: Coded
    independent: Coded
    target: Hashable | None
    edges: str
    seed: int
    n_jobs: int | None

    @property
    def scale(self) -> float:
        """From the noise of the floor's samples to that of samples of the sizes at hand."""
        return math.sqrt((1 / len(self.real) + 1 / len(self.fake)) / (1 / len(self.base) + 1 / len(self.other)))

    @property
    def either(self) -> int:
        """How many rows of either there are."""
        return min(len(self.real), len(self.fake))

    @property
    def near(self) -> int:
        """How many rows of either are compared with each other."""
        return min(neighbours.cap(self.real), self.either)


def prepare(tables: list[Coded], target: Hashable | None, rows: int, edges: str, seed: int, n_jobs: int | None) -> Work:
    """Draws at most `rows` of each of (real, fake, perhaps test), the floor's two samples and the independent columns.

    Raises:
        UserError: if there is no such target, or too few rows for a floor.
    """
    if target is not None and target not in tables[0].order:
        raise UserError(
            f"target: {target!r} is not a column of numbers or levels: choose one of {list(tables[0].order)}"
        )
    rng = np.random.default_rng(seed)
    real, fake, *unseen = [table.sample(rows, rng) for table in tables]
    test = unseen[0] if unseen else None
    if test is not None:
        base, other = real, test
    elif len(real) > 1:
        base, other = (real.take(half) for half in np.array_split(rng.permutation(len(real)), 2))
    else:
        raise UserError("the real table has one row: give at least two")
    alone = real.independent(len(fake), rng)
    return Work(real, fake, test, base, other.sample(len(fake), rng), alone, target, edges, seed, n_jobs)


@dataclass(frozen=True)
class Measure:
    """Names, and what gives a figure for each, of (reference rows, rows to judge); `better` and a comment for each.

    A floor that is not `of` two samples of real rows has its own function. One that is `scaled` is noise that goes with the
    root of 1/n + 1/m, and is brought to the sizes at hand.
    """

    names: Sequence[str]
    of: Callable[[Coded, Coded], Sequence[float]]
    better: Sequence[str]
    comments: Sequence[str]
    floor: Callable[[], Sequence[float]] | None = None
    scaled: bool = False


def measures(work: Work) -> list[Measure]:
    """Those that the tables at hand allow."""
    found = [_single("shape error", _shape, "lower", "marginals", scaled=True)]
    if len(work.real.order) > 1:
        found.append(_trend(work))
    found += _told_apart(work)
    if work.real.factors:
        found.append(
            _single(
                "levels found", metrics.levels_found, "higher", "of those of the real rows; rare ones need many rows"
            )
        )
    found.append(_single("missing values", _missing, "lower", "mean difference of the columns' shares", scaled=True))
    found.append(_single("exact copies", metrics.exact_copies, "lower", "of real rows, in all columns"))
    if work.test is not None:
        found.append(_closest(work, work.test))
    if work.target is not None:
        found.append(_usefulness(work, work.target))
    return found


def _single(name: str, of: Callable[[Coded, Coded], float], better: str, comment: str, **rest: Any) -> Measure:
    return Measure([name], lambda a, b: [of(a, b)], [better], [comment], **rest)


def _shape(a: Coded, b: Coded) -> float:
    return metrics.average(metrics.shape(a, b))


def _missing(a: Coded, b: Coded) -> float:
    return float(np.abs(list(metrics.missing(a, b).values())).mean())


def _trend(work: Work) -> Measure:
    def of(a: Coded, b: Coded) -> float:
        return metrics.average(metrics.trend(a, b, edges=work.edges, seed=work.seed))

    pairs = len(metrics.level_pairs(work.real))
    capped = f", {metrics.PAIRS:,} of {pairs:,} pairs with levels" if pairs > metrics.PAIRS else ""
    return _single("trend error", of, "lower", f"pairs of columns, {work.edges} edges{capped}", scaled=True)


def _told_apart(work: Work) -> list[Measure]:
    def logistic(a: Coded, b: Coded) -> float:
        return metrics.c2st(a, b, "logistic", seed=work.seed)

    def boosting(a: Coded, b: Coded) -> float:
        return metrics.c2st(a, b, seed=work.seed, n_jobs=work.n_jobs)

    rows = f"{work.either:,} rows of either"
    near = f"{work.near:,} rows of either"
    return [
        _single("C2ST, logistic", logistic, "higher", f"blind to dependence; {rows}"),
        _single("C2ST, boosting", boosting, "higher", f"{metrics.booster()}, {rows}"),
        Measure(
            ["alpha-precision", "beta-recall"],
            lambda a, b: metrics.alpha_beta(a, b, work.seed),
            ["higher", "higher"],
            [near, "a perfect sample has about .5, more is copying"],
        ),
    ]


def _closest(work: Work, test: Coded) -> Measure:
    def of(_: Coded, table: Coded) -> float:
        return metrics.dcr_share(work.real, test, table, work.seed)

    comment = "nearer to real than to test rows; .5 is ideal"
    return _single("DCR share", of, "lower", comment, floor=lambda: [0.5])


def _usefulness(work: Work, target: Hashable) -> Measure:
    judge = work.other if work.test is None else work.test
    keys = {"R2": "r2", "RMSE": "rmse"} if target in work.real.names else {"AUC": "auc", "macro F1": "f1"}

    def of(_: Coded, table: Coded) -> list[float]:
        found = metrics.efficiency(table, judge, target, seed=work.seed, n_jobs=work.n_jobs)
        return [found[key] for key in keys.values()]

    rows = f"{len(judge):,} {'real' if work.test is None else 'test'} rows"
    return Measure(
        [f"ML efficiency, {name}" for name in keys],
        of,
        ["lower" if key == "rmse" else "higher" for key in keys.values()],
        [
            f"{metrics.booster()} fitted on {len(work.fake):,}, judged on {rows}",
            f"of {target!r}; floor: fitted on real rows",
        ],
        lambda: of(work.base, work.base.sample(len(work.fake), np.random.default_rng(work.seed))),
    )
