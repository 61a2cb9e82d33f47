"""Measures between two tables: marginals, pairs of columns, and what a user's code would trip over.

All take frames, or tables that `diffusionkit.tabular.coded.coded` has coded together. Which columns are numbers and which
levels is inferred from the first frame, or given as `columns`. `docs/tabular_measures.md` tells sources and floors.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Literal

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular.coded import NUMBERS, Coded, Table, coded, joint_levels, kinds_of, same_columns
from diffusionkit.tabular.judges import booster, c2st, efficiency
from diffusionkit.tabular.neighbours import alpha_beta, dcr_share, exact_copies, median_distance

__all__ = [
    "alpha_beta",
    "average",
    "booster",
    "c2st",
    "dcr_share",
    "efficiency",
    "exact_copies",
    "fidelity",
    "levels_found",
    "median_distance",
    "missing",
    "shape",
    "trend",
]

Kinds = Mapping[Hashable, str] | None
BINS = 10  # of a number that is paired with levels
DECIMALS = 7  # up to which rounding is looked for
PAIRS = 5000  # pairs with levels that are measured at most


def shape(real: Table, fake: Table, columns: Kinds = None) -> dict[Hashable, float]:
    """How far each column's marginal is off: 0 is equal, 1 is disjoint.

    Numbers: the Kolmogorov-Smirnov distance; levels, of which a missing value is one: total variation (1 - KSComplement and
    1 - TVComplement of sdmetrics). Numbers with missing values, of share p and q: |p - q| + (1 - max(p, q)) KS of the rest.

    Args:
        real: the table to compare with.
        fake: a table of the same columns.
        columns: kinds of columns; inferred from `real` where not given.

    Returns:
        The error of each column, in the order of the columns.

    Raises:
        UserError: if the tables cannot be compared.
    """
    a, b = coded(real, fake, columns=columns)
    found = {name: _ks(x, y) for name, x, y in zip(a.names, a.numbers.T, b.numbers.T, strict=True)}
    for k, name in enumerate(a.factors):
        found[name] = _variation(a.codes[:, k], b.codes[:, k], int(a.sizes[k]))
    return {name: found[name] for name in a.order}


def _ks(x: np.ndarray, y: np.ndarray) -> float:
    x_seen, y_seen = np.sort(x[~np.isnan(x)]), np.sort(y[~np.isnan(y)])
    p, q = 1 - len(x_seen) / len(x), 1 - len(y_seen) / len(y)
    if not len(x_seen) or not len(y_seen):
        return abs(p - q)
    at = np.concatenate([x_seen, y_seen])
    below = [np.searchsorted(seen, at, side="right") / len(seen) for seen in (x_seen, y_seen)]
    return float(abs(p - q) + (1 - max(p, q)) * np.abs(below[0] - below[1]).max())


def _variation(a: np.ndarray, b: np.ndarray, size: int) -> float:
    """Total variation of two samples of codes below `size`."""
    if size > 4 * (len(a) + len(b)):  # most codes do not occur
        _, both = np.unique(np.concatenate([a, b]), return_inverse=True)
        a, b, size = both[: len(a)], both[len(a) :], int(both.max()) + 1
    p, q = np.bincount(a, minlength=size) / len(a), np.bincount(b, minlength=size) / len(b)
    return float(np.abs(p - q).sum() / 2)


def trend(
    real: Table,
    fake: Table,
    columns: Kinds = None,
    edges: Literal["shared", "separate"] = "shared",
    pairs: int = PAIRS,
    seed: int = 0,
) -> pd.DataFrame:
    """How far each pair of columns is off: 0 is equal, 1 as far as can be.

    Two numbers: |r - r'| / 2 of Pearson's r over the rows that have both; where values are missing that is multiplied by the
    smaller share of such rows, and the total variation of the four patterns of missingness is added. r of a constant is 0. Other
    pairs: total variation of the contingency table (ContingencySimilarity of sdmetrics), numbers in 10 bins of equal width, the
    largest value and missing values in bins of their own.

    Args:
        real: the table to compare with.
        fake: a table of the same columns.
        columns: kinds of columns; inferred from `real` where not given.
        edges: "shared" bins both tables by the range of `real`; "separate" each by its own, as the quality report of sdmetrics
            and with it most published figures do: one outlier then moves all bins, so that two halves of real rows differ.
        pairs: at most so many pairs with levels are measured, drawn by `seed`; the rest stay nan.
        seed: of that draw.

    Returns:
        Errors (columns, columns), symmetric, nan on the diagonal and for pairs not measured; see `average`.

    Raises:
        UserError: if the tables cannot be compared, or for unknown `edges`.
    """
    if edges not in ("shared", "separate"):
        raise UserError(f"edges must be 'shared' or 'separate', not {edges!r}")
    a, b = coded(real, fake, columns=columns)
    labels, count = [*a.names, *a.factors], len(a.names)
    errors = np.full((len(labels), len(labels)), np.nan)
    errors[:count, :count] = _correlations(a.numbers, b.numbers)
    if a.factors:
        x, y, sizes = _binned(a, b, edges)
        chosen = level_pairs(a)
        if len(chosen) > pairs:
            chosen = np.random.default_rng(seed).permutation(chosen)[:pairs]
        for i, j in chosen:
            size = int(sizes[i] * sizes[j])
            errors[i, j] = errors[j, i] = _variation(x[i] * sizes[j] + x[j], y[i] * sizes[j] + y[j], size)
    np.fill_diagonal(errors, np.nan)
    position = {label: k for k, label in enumerate(labels)}
    order = [position[label] for label in a.order]
    index = pd.Index(list(a.order), tupleize_cols=False)
    return pd.DataFrame(errors[np.ix_(order, order)], index=index, columns=index)


def _correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Errors (D, D) of all pairs of numbers."""
    (r, both, one), (s, also, other) = pearson(x), pearson(y)
    patterns = [  # both are there, only the first, only the second, neither
        (both, also),
        (one[:, None] - both, other[:, None] - also),
        (one - both, other - also),
        (1 - one - one[:, None] + both, 1 - other - other[:, None] + also),
    ]
    variation = sum(np.abs(p - q) for p, q in patterns) / 2
    return variation + np.minimum(both, also) * np.abs(r - s) / 2


def pearson(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pearson's r of each pair over the rows that have both (D, D), the share of such rows, the share that has each (D,)."""
    seen = ~np.isnan(x)
    there = seen.astype(float)
    count = np.maximum(there.sum(0), 1)
    z = np.where(seen, x, 0.0)
    z = np.where(seen, x - z.sum(0) / count, 0.0)
    scale = np.abs(z).max(0, initial=0.0)
    z = z / np.where(scale > 0, scale, 1.0)
    z /= np.maximum(np.sqrt((z**2).sum(0) / count), 1e-150)
    pairs = np.maximum(there.T @ there, 1)
    mean = z.T @ there / pairs  # [i, j]: of i where j is there too
    spread = (z**2).T @ there / pairs - mean**2
    product = spread * spread.T
    covariance = z.T @ z / pairs - mean * mean.T
    r = np.where(np.minimum(spread, spread.T) > 1e-12, covariance / np.sqrt(np.maximum(product, 1e-24)), 0.0)
    return np.clip(r, -1, 1), there.T @ there / len(x), there.mean(0)


def _binned(a: Coded, b: Coded, edges: str) -> tuple[list[np.ndarray], list[np.ndarray], list[int]]:
    """Codes of all columns, numbers first, in either table, and how many codes each has."""
    x, y = [], []
    for p, q in zip(a.numbers.T, b.numbers.T, strict=True):
        limits = _edges(p)
        x.append(_bin(p, limits))
        y.append(_bin(q, limits if edges == "shared" else _edges(q)))
    sizes = [BINS + 3] * len(x) + [int(size) for size in a.sizes]
    return x + list(a.codes.T), y + list(b.codes.T), sizes


def _edges(values: np.ndarray) -> np.ndarray:
    values = values[~np.isnan(values)]
    return np.histogram_bin_edges(values, BINS) if len(values) else np.linspace(0, 1, BINS + 1)


def _bin(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """0 below the limits, 1 to BINS between them, BINS + 1 from the last one on, BINS + 2 where missing."""
    return np.where(np.isnan(values), BINS + 2, np.digitize(values, limits))


def level_pairs(table: Coded) -> np.ndarray:
    """Pairs (P, 2) i < j of columns, the numbers first, with levels in them."""
    pairs = np.stack(np.triu_indices(len(table.order), 1), 1)
    return pairs[pairs[:, 1] >= len(table.names)]


def average(errors: Mapping[Hashable, float] | pd.DataFrame) -> float:
    """Mean of what `shape` or `trend` gives; nan if nothing was measured, as in a table of one column."""
    values = errors.to_numpy() if isinstance(errors, pd.DataFrame) else np.array(list(errors.values()), dtype=float)
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def missing(real: Table, fake: Table, columns: Kinds = None) -> dict[Hashable, float]:
    """The difference of the shares of missing values, fake less real, of each column."""
    a, b = coded(real, fake, columns=columns)
    shares = [_missing(table) for table in (a, b)]
    return {name: shares[1][name] - shares[0][name] for name in a.order}


def _missing(table: Coded) -> dict[Hashable, float]:
    numbers, levels = np.isnan(table.numbers).mean(0), (table.codes == table.sizes - 1).mean(0)
    return dict(zip((*table.names, *table.factors), (*numbers.tolist(), *levels.tolist()), strict=True))


def fidelity(real: pd.DataFrame, fake: pd.DataFrame, columns: Kinds = None) -> dict[Hashable, str]:
    """What user code would trip over, for each column: "" if dtype, bounds, decimals, levels and missing values agree.

    Raises:
        UserError: if the columns are not the same.
    """
    same_columns((real, fake), ("the real table", "the synthetic table"))
    kinds = kinds_of(real, columns)
    return {label: "; ".join(_differences(real[label], fake[label], kinds[label])) for label in real.columns}


def _differences(real: pd.Series, fake: pd.Series, kind: str) -> list[str]:
    found = []
    if str(real.dtype) != str(fake.dtype):
        found.append(f"dtype {fake.dtype}, not {real.dtype}")
    elif real.dtype != fake.dtype:
        found.append("other categories")
    a, b = real.dropna(), fake.dropna()
    if len(b) < len(fake) and len(a) == len(real):
        found.append("missing values that real rows never have")
    if kind == "identifier" or not len(a) or not len(b):
        return found
    try:
        found += _beyond(a, b) if kind in NUMBERS else _unknown(a, b)
    except (TypeError, ValueError):
        found.append("values of another type")
    return found


def _beyond(real: pd.Series, fake: pd.Series) -> list[str]:
    found = []
    ends = [real.min(), real.max(), fake.min(), fake.max()]
    if ends[2] < ends[0] or ends[3] > ends[1]:
        low, high, least, most = (f"{end:.6g}" if isinstance(end, float) else str(end) for end in ends)
        found.append(f"values from {least} to {most}, beyond {low} to {high}")
    if real.dtype.kind in "fiu" and fake.dtype.kind in "fiu":
        ours, theirs = (part.to_numpy(dtype=float) for part in (real, fake))
        digits = next((d for d in range(DECIMALS) if _rounded(ours, d)), None)
        if digits is not None and not _rounded(theirs, digits):
            found.append(f"more than {digits} decimals" if digits else "numbers that are not whole")
    return found


def _rounded(values: np.ndarray, digits: int) -> bool:
    return bool((np.abs(np.round(values, digits) - values) <= 1e-12 * np.abs(values)).all())


def _unknown(real: pd.Series, fake: pd.Series) -> list[str]:
    values, (ours, theirs) = joint_levels([real, fake])
    new = np.unique(theirs[theirs > ours.max()])
    if not len(new):
        return []
    return [
        f"level {values[new[0]]!r} is unknown"
        if len(new) == 1
        else f"{len(new)} unknown levels, such as {values[new[0]]!r}"
    ]


def levels_found(real: Table, fake: Table, columns: Kinds = None) -> float:
    """Share of the levels of the real table, all columns together, that occur in the fake one; nan if there are none.

    A model that forgets what is rare loses here and nowhere else. Grows with the number of fake rows.
    """
    a, b = coded(real, fake, columns=columns)
    there = found = 0
    for ours, theirs in zip(a.codes.T, b.codes.T, strict=True):
        seen = np.unique(ours)
        there += len(seen)
        found += int(np.isin(seen, theirs).sum())
    return found / there if there else float("nan")
