"""Measures by nearest rows: coverage, and distance to closest record.

Distances are those of numbers divided by their range in the first table and of one-hot levels. A missing number counts as the
median, one range away from any that is there. All pairs are compared, in blocks, hence a cap on the rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from diffusionkit.tabular.coded import Coded, Table, coded

ROWS = 10_000  # whose nearest rows are sought
AMONG = 4  # times as many are sought through
_WORK = 4e9  # pairs of rows times columns, beyond which fewer rows are compared
_BLOCK = 2**22  # distances held at a time

Kinds = Mapping[Hashable, str] | None
Metric = Literal["l1", "l2", "l2 halved"]


def cap(table: Coded, rows: int | None = None) -> int:
    """How many rows are compared with as many: `rows` if given, else 10,000, and fewer if there are many columns."""
    return rows or min(ROWS, int((_WORK / max(len(table.order), 1)) ** 0.5))


class Ruler:
    """Distances between rows of tables coded together; numbers are scaled by the range of one of them.

    Metrics: "l1" and "l2" take levels as one-hot; "l2 halved" divides one-hots by the root of 2, so that two rows that differ in
    one level have distance 1 (TabDDPM).
    """

    def __init__(self, table: Coded, metric: Metric) -> None:
        self.metric = metric
        numbers = np.where(np.isnan(table.numbers).all(0), 0.0, table.numbers)
        if not numbers.shape[1]:
            self.low = self.range = self.middle = np.empty(0)
            return
        self.low, self.middle = np.nanmin(numbers, 0), np.nanmedian(numbers, 0)
        extent = np.nanmax(numbers, 0) - self.low
        self.range = np.where(extent > 0, extent, 1.0)

    def nearest(self, queries: Coded, references: Coded, others: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Of each query the distance to its nearest reference (n,), and which that is (n,).

        With `others` the references are the queries, of which each row is compared with the others only.
        """
        holes = np.isnan(queries.numbers).any(0) | np.isnan(references.numbers).any(0)
        (x, c), (y, d) = self._points(queries, holes), self._points(references, holes)
        distances, found = np.empty(len(x)), np.empty(len(x), dtype=np.int64)
        step = max(1, _BLOCK // len(y))
        for start in range(0, len(x), step):
            rows = slice(start, start + step)
            block = self._distances(x[rows], c[rows], y, d)
            if others:
                block[np.arange(len(block)), start + np.arange(len(block))] = np.inf
            found[rows] = block.argmin(1)
            distances[rows] = block[np.arange(len(block)), found[rows]]
        return distances if self.metric == "l1" else np.sqrt(distances), found

    def _points(self, table: Coded, holes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates (n, D + columns with holes), the last of which tell that a number is missing, and codes (n, K)."""
        absent = np.isnan(table.numbers)
        scaled = (np.where(absent, self.middle, table.numbers) - self.low) / self.range
        return np.hstack([scaled, absent[:, holes]]), table.codes.astype(float)

    def to_centre(self, table: Coded, centre: Coded) -> np.ndarray:
        """(n,) Euclidean distances ("l2") of rows to the mean of another table, with its levels as one-hots."""
        holes = np.isnan(table.numbers).any(0) | np.isnan(centre.numbers).any(0)
        (x, c), (y, d) = self._points(table, holes), self._points(centre, holes)
        squared = ((x - y.mean(0)) ** 2).sum(1)
        for k, size in enumerate(table.sizes):
            share = np.bincount(d[:, k].astype(np.int64), minlength=size) / len(d)
            squared += 1 - 2 * share[c[:, k].astype(np.int64)] + (share**2).sum()  # of the one-hot to the mean one-hot
        return np.sqrt(np.maximum(squared, 0.0))

    def _distances(self, x: np.ndarray, c: np.ndarray, y: np.ndarray, d: np.ndarray) -> np.ndarray:
        """(n, m), squared for the Euclidean ones; differences are taken first, so that a copy has distance 0 and ties are ties."""
        found = cdist(x, y, "cityblock" if self.metric == "l1" else "sqeuclidean") if x.shape[1] else 0.0
        if c.shape[1]:
            each = 1 if self.metric == "l2 halved" else 2
            found = found + cdist(c, d, "hamming") * (each * c.shape[1])
        return found


def alpha_beta(
    real: Table, fake: Table, seed: int = 0, columns: Kinds = None, rows: int | None = None
) -> tuple[float, float]:
    """Alpha-precision and beta-recall (Alaa et al. 2022) without an embedding, as synthcity's "naive" scores.

    alpha: 1 - sum |a - P(a)| / sum a over 30 values of a, P(a) being the share of fake rows within the a-quantile of the real
    rows' distances to their mean. beta: the same with the share of real rows whose nearest fake row is no farther than their
    nearest real one and lies within the a-quantile of such fake rows' distances to the fake mean. A perfect sample has alpha 1
    and **beta about .5**: a real row's nearest neighbour is as likely a fake as a real one. Above .5 it copies.

    Args:
        real: the table to compare with; its ranges scale the numbers.
        fake: a table of the same columns.
        seed: of the rows drawn: equally many of both.
        columns: kinds of columns; inferred from `real` where not given.
        rows: compared at most; by default 10,000, fewer above 40 columns.

    Returns:
        (alpha, beta), 1 at best.

    Raises:
        UserError: if the tables cannot be compared.
    """
    a, b = coded(real, fake, columns=columns)
    rng = np.random.default_rng(seed)
    count = min(len(a), len(b), cap(a, rows))
    a, b = a.sample(count, rng), b.sample(count, rng)
    if count < 2:
        return float("nan"), float("nan")
    ruler = Ruler(a, "l2")
    levels = np.linspace(0, 1, 30)
    inside = np.quantile(ruler.to_centre(a, a), levels)[:, None]
    alpha = 1 - np.abs(levels - (ruler.to_centre(b, a) <= inside).mean(1)).sum() / levels.sum()
    to_real, _ = ruler.nearest(a, a, others=True)
    to_fake, which = ruler.nearest(a, b)
    outward = ruler.to_centre(b, b)[which]
    covered = (to_fake <= to_real) & (outward <= np.quantile(outward, levels)[:, None])
    return float(alpha), float(1 - np.abs(levels - covered.mean(1)).sum() / levels.sum())


def dcr_share(
    train: Table, test: Table, fake: Table, seed: int = 0, columns: Kinds = None, rows: int | None = None
) -> float:
    """Share of fake rows that lie nearer to a training row than to a test row (L1, levels as one-hots); ties count one half.

    Equally many rows of train and test are compared, drawn by `seed`: then .5 is ideal, and more means that training rows
    were learned by heart. Most telling where train and test are halves of the data: a copy of a training row that was not
    drawn goes unseen. Published figures of 90/10 splits that do not draw equally many have the ideal .9.

    Args:
        train: rows that the model was fitted on.
        test: rows that it has not seen.
        fake: its rows.
        seed: of the rows drawn.
        columns: kinds of columns; inferred from `train` where not given.
        rows: fake rows at most, by default 10,000, fewer above 40 columns; four times as many of train and of test.

    Raises:
        UserError: if the tables cannot be compared.
    """
    a, b, c = coded(
        train, test, fake, columns=columns, names=("the training table", "the test table", "the synthetic table")
    )
    to_train, to_test = dcr(a, b, c, seed, rows)
    return nearer(to_train, to_test)


def dcr(
    train: Coded, test: Coded, fake: Coded, seed: int = 0, rows: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Distances (L1) of fake rows to the nearest of equally many rows of train and of test."""
    rng = np.random.default_rng(seed)
    most = cap(train, rows)
    count = min(len(train), len(test), AMONG * most)
    ruler = Ruler(train, "l1")
    fake = fake.sample(most, rng)
    return ruler.nearest(fake, train.sample(count, rng))[0], ruler.nearest(fake, test.sample(count, rng))[0]


def nearer(one: np.ndarray, other: np.ndarray) -> float:
    """Share of entries that are smaller in the first array, ties counted one half."""
    return float((one < other).mean() + (one == other).mean() / 2)


def median_distance(train: Table, fake: Table, seed: int = 0, columns: Kinds = None, rows: int | None = None) -> float:
    """TabDDPM's distance to closest record: median Euclidean distance of fake rows to the nearest training row.

    Two rows that differ in one level alone have distance 1. Falls with the number of training rows: all of them are compared
    unless `rows` is given, with at most 10,000 fake ones drawn by `seed` (fewer above 40 columns).

    Raises:
        UserError: if the tables cannot be compared.
    """
    a, b = coded(train, fake, columns=columns, names=("the training table", "the synthetic table"))
    rng = np.random.default_rng(seed)
    distances, _ = Ruler(a, "l2 halved").nearest(b.sample(cap(a, rows), rng), a.sample(rows or len(a), rng))
    return float(np.median(distances))


def exact_copies(train: Table, fake: Table, columns: Kinds = None) -> float:
    """Share of fake rows that equal a training row in every column that is not an identifier; all rows are looked at.

    Raises:
        UserError: if the tables cannot be compared.
    """
    a, b = coded(train, fake, columns=columns, names=("the training table", "the synthetic table"))
    return float(np.isin(_hashes(b), _hashes(a)).mean())


def _hashes(table: Coded) -> np.ndarray:
    """(n,) 64 bits of each row; that two different rows of a million share them has a chance of one in ten million."""
    frame = pd.DataFrame(np.hstack([table.numbers, table.codes]))
    return pd.util.hash_pandas_object(frame, index=False).to_numpy()
