"""What a model has to beat: forecasts and imputations without a network.

A forecast is `f(history, horizon, paths, rng, season=...)` with history (T, D), NaN where nothing was observed; it returns
joint paths (S, H, D). Values are left as they come: counts are not rounded and nothing is clipped at zero.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.impute import KNNImputer

from diffusionkit.errors import UserError

Baseline = Callable[..., np.ndarray]

WALK = 250  # increments that the walk takes its covariance from: a year of business days
SEASONS = 365  # that errors of the seasonal naive forecast come from
ORIGINS = 10  # of past errors that are worth drawing from
ROUNDS = 20  # of drawing again what was not observed
NEIGHBOURS = 10


def seasonal_naive(
    history: np.ndarray, horizon: int, paths: int, rng: np.random.Generator, season: int = 1
) -> np.ndarray:
    """The last season over and over; every path the same.

    Where it was not observed, the last value of the same phase stands in, or else the last value before.

    Args:
        history: (T, D), T at least 1.
        horizon: steps H.
        paths: S.
        rng: not used.
        season: steps.

    Returns:
        (S, H, D).

    Raises:
        UserError: if nothing of a series was observed, or a number is below 1.
    """
    last = _last_season(_checked(history, horizon, paths, season), season)
    return np.repeat(last[np.arange(horizon) % season][None], paths, axis=0)


def persistence(history: np.ndarray, horizon: int, paths: int, rng: np.random.Generator, season: int = 1) -> np.ndarray:
    """The last observed value of each series; `seasonal_naive` of season 1, whatever the season."""
    return seasonal_naive(history, horizon, paths, rng)


def walk(
    history: np.ndarray,
    horizon: int,
    paths: int,
    rng: np.random.Generator,
    season: int = 1,
    window: int = WALK,
    log: bool | None = None,
) -> np.ndarray:
    """Gaussian random walk without drift, with the covariance r'r / N of the last N increments r.

    Over a gap the last value is carried forward: the increment after it has the variance of the steps that it spans. A series
    that begins within the window has a covariance of the increments since.

    Args:
        history: (T, D), T at least 1.
        horizon: steps H.
        paths: S.
        rng: of the increments.
        season: not used.
        window: N; fewer where the history is shorter.
        log: whether to walk on logarithms; None: each series of which all values are positive does.

    Returns:
        (S, H, D).

    Raises:
        UserError: if nothing of a series was observed, a number is below 1, or logarithms are asked of values not positive.
    """
    values = _checked(history, horizon, paths, season, window)
    levels, back = _levels(values, log)
    levels = _carried(levels)
    steps = np.diff(levels[-window - 1 :], axis=0)
    before = np.argmin(np.isnan(values), axis=0) - (len(values) - 1 - len(steps))  # increments before the first value
    count = np.maximum(len(steps) - np.maximum(before, 0), 1)
    root = np.linalg.qr(steps / np.sqrt(count), mode="r")  # root'root = r'r / N, whatever its rank
    drawn = rng.standard_normal((paths, horizon, len(root))) @ root
    return back(levels[-1] + drawn.cumsum(axis=1))


def blocks(
    history: np.ndarray,
    horizon: int,
    paths: int,
    rng: np.random.Generator,
    season: int = 1,
    window: int = SEASONS,
    length: int | None = None,
    log: bool | None = False,
) -> np.ndarray:
    """Seasonal naive forecast plus what such a forecast missed from a random past origin, all series and steps together.

    Origins are of the same phase, or of any where fewer than ten of that phase are left. What was not observed of an error is
    drawn from another origin. With season 1 these are joint changes since a random past time. Blocks shorter than the horizon,
    because of `length` or of a short history, are chained: the next one continues the path.

    Args:
        history: (T, D), T at least 1.
        horizon: steps H.
        paths: S.
        rng: of the origins.
        season: steps; a history of fewer than two seasons is taken to have none.
        window: how many seasons of origins there are at most, counted back from the last one whose block is over.
        length: steps of a block, rounded up to whole seasons; None: the horizon.
        log: whether on logarithms, which makes errors relative; None: for each series of which all values are positive.

    Returns:
        (S, H, D).

    Raises:
        UserError: if nothing of a series was observed, a number is below 1, or logarithms are asked of values not positive.
    """
    values = _checked(history, horizon, paths, season, window, length or horizon)
    if len(values) == 1:
        return persistence(values, horizon, paths, rng)
    levels, back = _levels(values, log)
    season, ahead, origins = _origins(len(values), length or horizon, season, window)
    lag = season * (ahead // season + 1)
    path = np.repeat(_last_season(levels, season)[None], paths, axis=0)
    found = []
    for _ in range(0, horizon, len(ahead)):
        error = _drawn(lambda rows: levels[rows] - levels[rows - lag], origins, ahead, paths, rng)
        path = path[:, -season:][:, ahead % season] + np.where(np.isnan(error), 0.0, error)
        found.append(path)
    return back(np.concatenate(found, axis=1)[:, :horizon])


def changes(history: np.ndarray, horizon: int, paths: int, rng: np.random.Generator, season: int = 1) -> np.ndarray:
    """`blocks` of season 1, whatever the season: last value plus the joint changes that followed a random past time."""
    return blocks(history, horizon, paths, rng)


def climatology(
    history: np.ndarray,
    horizon: int,
    paths: int,
    rng: np.random.Generator,
    season: int = 1,
    window: int = SEASONS,
) -> np.ndarray:
    """What followed random past origins, as it was: hard to beat far ahead where levels return to a mean.

    Origins, gaps, arguments and errors are those of `blocks`; stretches shorter than the horizon follow one another.
    """
    values = _checked(history, horizon, paths, season, window)
    naive = seasonal_naive(values, horizon, paths, rng, season)
    if len(values) == 1:
        return naive
    _, ahead, origins = _origins(len(values), horizon, season, window)
    found = [_drawn(values.__getitem__, origins, ahead, paths, rng) for _ in range(0, horizon, len(ahead))]
    path = np.concatenate(found, axis=1)[:, :horizon]
    return np.where(np.isnan(path), naive, path)


BASELINES: dict[str, Baseline] = {
    "persistence": persistence,
    "seasonal naive": seasonal_naive,
    "random walk": walk,
    "climatology": climatology,
    "past changes": changes,
    "seasonal blocks": blocks,
}


# ---- imputation: f(values (T, D) with NaN, season) -> (T, D); everything observed comes back untouched ----


def interpolate(values: np.ndarray, season: int = 1) -> np.ndarray:
    """Straight lines in time between observed neighbours; before the first and after the last their values."""
    table = pd.DataFrame(_checked(values))
    return _kept(values, table.interpolate(limit_direction="both").to_numpy())


def seasonal_mean(values: np.ndarray, season: int = 1) -> np.ndarray:
    """Mean of the observed values of the same phase, or of all where none of that phase was."""
    table = pd.DataFrame(_checked(values, season))
    means = table.groupby(np.arange(len(table)) % season).transform("mean")
    return _kept(values, means.fillna(table.mean()).to_numpy())


def nearest(values: np.ndarray, season: int = 1, neighbours: int = NEIGHBOURS) -> np.ndarray:
    """Mean of the rows nearest in the standardised series observed in both and in phase (sine and cosine of the season)."""
    table = _checked(values, season, neighbours)
    centre, spread = np.nanmean(table, axis=0), np.nanstd(table, axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    angle = 2 * np.pi * np.arange(len(table)) / season
    rows = np.column_stack([(table - centre) / spread, np.sin(angle), np.cos(angle)])
    filled = KNNImputer(n_neighbors=neighbours, weights="distance").fit_transform(rows)[:, : table.shape[1]]
    return _kept(values, filled * spread + centre)


IMPUTE_BASELINES: dict[str, Callable[..., np.ndarray]] = {
    "linear interpolation": interpolate,
    "seasonal mean": seasonal_mean,
    "nearest neighbours": nearest,
}


# ---- small ----


def _checked(values: np.ndarray, *numbers: int) -> np.ndarray:
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2 or not table.size:
        raise UserError(f"A history is (time, series) with at least one of each; this one is {table.shape}.")
    if any(number < 1 for number in numbers):
        raise UserError("Horizon, paths, season, window, length and neighbours are whole numbers of at least 1.")
    wrong = np.isinf(table).any(axis=0)
    if wrong.any():
        raise UserError(
            f"Series {wrong.argmax()} has an infinite value at row {np.isinf(table[:, wrong.argmax()]).argmax()}."
        )
    empty = np.isnan(table).all(axis=0)
    if empty.any():
        raise UserError(f"Nothing of series {empty.argmax()} was observed in the {len(table)} rows of its history.")
    return table


def _carried(values: np.ndarray) -> np.ndarray:
    """The last observed value carried forward, and the first one back to the start."""
    seen = ~np.isnan(values)
    rows = np.where(seen, np.arange(len(values))[:, None], seen.argmax(axis=0))
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)


def _last_season(values: np.ndarray, season: int) -> np.ndarray:
    """(season, D) without gaps: each phase as last observed, or else the last value before."""
    size = values.shape[1]
    padded = np.concatenate([np.full((-len(values) % season, size), np.nan), values])
    phases = _carried(padded.reshape(-1, season * size))[-1].reshape(season, size)
    return _carried(phases)


def _levels(values: np.ndarray, log: bool | None) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Values or their logarithms, and the way back for paths (S, H, D), which it overwrites."""
    positive = ~(values <= 0).any(axis=0)
    if log and not positive.all():
        raise UserError(f"Series {positive.argmin()} has values that are not positive, which have no logarithm.")
    chosen = positive if log is None else np.full(positive.shape, log)
    levels = np.where(chosen, np.log(np.where(chosen, values, 1.0)), values)

    def back(paths: np.ndarray) -> np.ndarray:
        np.exp(paths, out=paths, where=chosen)
        return paths

    return levels, back


def _origins(rows: int, length: int, season: int, window: int) -> tuple[int, np.ndarray, np.ndarray]:
    """The season, 1 in a history without two; the steps of a block; rows with a season before them at which blocks begin."""
    season = season if rows >= 2 * season else 1
    most = max((rows - season - ORIGINS) // season, 1)  # seasons in a block that leave some origins
    size = min(-(-length // season), most) * season
    first = max(rows - size - window * season + 1, season)
    phase = np.arange(rows - season * -(-size // season), first - 1, -season)  # of the row to come
    return season, np.arange(size), phase if len(phase) >= ORIGINS else np.arange(first, rows - size + 1)


def _drawn(
    at: Callable[[np.ndarray], np.ndarray], origins: np.ndarray, ahead: np.ndarray, paths: int, rng: np.random.Generator
) -> np.ndarray:
    """`at` the rows after random origins, (S, steps, D); what was not observed there comes from other origins, if ever."""
    found = at(rng.choice(origins, paths)[:, None] + ahead)
    for _ in range(ROUNDS):
        hole = np.isnan(found)
        if not hole.any():
            break
        found = np.where(hole, at(rng.choice(origins, paths)[:, None] + ahead), found)
    return found


def _kept(values: np.ndarray, filled: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(values), filled, values)
