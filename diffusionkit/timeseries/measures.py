"""How good sample paths are: what forecasting papers report, from arrays of numbers alone.

Everywhere `samples` is (windows W, paths S, steps H, series D) and finite, `target` is (W, H, D) and NaN where nothing was
observed, which no measure counts. What a measure of nothing, or one relative to nothing but zeros, would be is NaN.
CRPS, CRPS_sum, ND, ND_sum, NRMSE and MASE are those of GluonTS's `MultivariateEvaluator` (Alexandrov et al., JMLR 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from diffusionkit.errors import UserError

LEVELS = tuple(k / 20 for k in range(1, 20))  # of the CRPS of papers: .05, .10, ... .95
INTERVALS = (0.5, 0.8, 0.95)
CELLS = 1 << 17  # distances between paths that are held at once, little enough for the cache


def quantile(samples: np.ndarray, q: float | Sequence[float]) -> np.ndarray:
    """The sorted path at round((S - 1) q), without interpolation, as GluonTS has it; halves round to even.

    Args:
        samples: (..., S, H, D), with or without windows.
        q: one level between 0 and 1, or several.

    Returns:
        (..., H, D) for one level, (..., levels, H, D) for several.

    Raises:
        UserError: if a level is not between 0 and 1.
    """
    return _pick(np.sort(samples, axis=-3), q)


def interval(samples: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the central interval, each (..., H, D); a level of .8 spans the quantiles .1 to .9."""
    return _between(np.sort(samples, axis=-3), level)


def weighted_quantile_loss(
    samples: np.ndarray, target: np.ndarray, levels: Sequence[float] = LEVELS, summed: bool = False
) -> np.ndarray:
    """2 sum |(forecast - y) (1[y <= forecast] - q)| / sum |y| at each level, both sums over all that was observed.

    Args:
        samples: (W, S, H, D).
        target: (W, H, D).
        levels: between 0 and 1.
        summed: of the sum over the series instead; steps at which one of them was not observed do not count.

    Returns:
        The losses, (levels,).

    Raises:
        UserError: if shapes do not belong together, a path is not finite or a level is not between 0 and 1.
    """
    paths, truth = _checked(samples, target)
    return _losses(*((_sorted_sum(paths), _sum(truth)) if summed else (np.sort(paths, axis=1), truth)), levels)


def crps(samples: np.ndarray, target: np.ndarray) -> float:
    """The CRPS of papers: mean of the weighted quantile losses at 19 levels (GluonTS's mean_wQuantileLoss)."""
    return float(weighted_quantile_loss(samples, target).mean())


def crps_sum(samples: np.ndarray, target: np.ndarray) -> float:
    """`crps` of the sum over the series inside each path (m_sum_mean_wQuantileLoss); it asks for joint paths.

    Steps at which one of the series was not observed do not count; GluonTS would take its value for zero.
    """
    return float(weighted_quantile_loss(samples, target, summed=True).mean())


def crps_entries(samples: np.ndarray, target: np.ndarray) -> np.ndarray:
    """E|X - y| - E|X - X'| / 2 of each value, in its unit, NaN where it was not observed (Gneiting and Raftery 2007).

    X and X' are two different paths, which makes it an unbiased estimate for any number of paths (below zero at times). The
    second term comes from the sorted paths: memory does not grow with the square of their number.

    Returns:
        (W, H, D).
    """
    paths, truth = _checked(samples, target)
    return _crps_entries(np.sort(paths, axis=1), truth)


def crps_sample(samples: np.ndarray, target: np.ndarray) -> float:
    """Sum of `crps_entries` over all that was observed / sum |y|: what `crps` approximates by levels."""
    return _relative(crps_entries(samples, target), np.asarray(target))


def energy_score(samples: np.ndarray, target: np.ndarray, path: bool = False) -> float:
    """E||X - y|| - E||X - X'|| / 2 over vectors of the observed series, in their unit (Gneiting and Raftery 2007, eq. 22).

    X and X' are two different paths. With one series it is the mean of `crps_entries`.

    Args:
        samples: (W, S, H, D).
        target: (W, H, D).
        path: one vector of all steps for each window, instead of one for each step.

    Returns:
        The mean over windows, and over steps unless `path`, of which something was observed.

    Raises:
        UserError: if shapes do not belong together or a path is not finite.
    """
    paths, truth = _checked(samples, target)
    return _energy(paths, truth, path)


def nd(samples: np.ndarray, target: np.ndarray) -> float:
    """sum |y - median| / sum |y|."""
    paths, truth = _checked(samples, target)
    return _nd(np.sort(paths, axis=1), truth)


def nd_sum(samples: np.ndarray, target: np.ndarray) -> float:
    """`nd` of the sum over the series inside each path; steps at which one was not observed do not count."""
    paths, truth = _checked(samples, target)
    return _nd(_sorted_sum(paths), _sum(truth))


def nrmse(samples: np.ndarray, target: np.ndarray) -> float:
    """Root of the mean squared error of the mean path / mean |y|, both means of what each series has in each window."""
    paths, truth = _checked(samples, target)
    error = _mean(_mean(np.square(paths.mean(axis=1) - truth), axis=1))
    return float(np.sqrt(error) / _positive(_mean(_mean(np.abs(truth), axis=1))))


def mase(samples: np.ndarray, target: np.ndarray, scale: np.ndarray) -> float:
    """Mean of |y - median| / scale, first over the steps, then over series and windows (Hyndman and Koehler 2006).

    Args:
        samples: (W, S, H, D).
        target: (W, H, D).
        scale: `seasonal_error` of the history before each window, (W, D), or of one history, (D,). Series that have not
            changed in it (0) or were not observed (NaN) do not count; GluonTS has infinity there.

    Raises:
        UserError: if shapes do not belong together or a path is not finite.
    """
    paths, truth = _checked(samples, target)
    return _mase(np.sort(paths, axis=1), truth, scale)


def seasonal_error(history: np.ndarray, season: int = 1) -> np.ndarray:
    """Mean |y[t] - y[t - season]| of each series, the scale of `mase`; of a history of at most one season, season 1.

    Args:
        history: (T, D), NaN where nothing was observed.
        season: steps.

    Returns:
        (D,), NaN for a series of which no such pair was observed.
    """
    values = np.asarray(history, dtype=np.float64)
    lag = season if season < len(values) else 1
    return _mean(np.abs(values[lag:] - values[:-lag]), axis=0)


def coverage(samples: np.ndarray, target: np.ndarray, level: float = 0.8) -> float:
    """Share of the observed values within the central interval, its bounds included."""
    paths, truth = _checked(samples, target)
    return _coverage(np.sort(paths, axis=1), truth, level)


def width(samples: np.ndarray, target: np.ndarray, level: float = 0.8) -> float:
    """Sum of the widths of the central intervals where something was observed / sum |y|: narrow is good if it covers."""
    paths, truth = _checked(samples, target)
    return _width(np.sort(paths, axis=1), truth, level)


def pit(samples: np.ndarray, target: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomised probability integral transform: the rank of y among paths and itself, uniform on [0, 1] if calibrated.

    (paths below y + U (paths equal to y + 1)) / (S + 1) with U uniform: exactly uniform where y comes from the law of the
    paths, for any number of them and for counts too (Czado, Gneiting and Held 2009).

    Returns:
        (W, H, D), NaN where nothing was observed.
    """
    paths, truth = _checked(samples, target)
    below = (paths < truth[:, None]).sum(axis=1)
    equal = (paths == truth[:, None]).sum(axis=1)
    ranks = (below + rng.random(truth.shape) * (equal + 1)) / (paths.shape[1] + 1)
    return np.where(np.isnan(truth), np.nan, ranks)


def evaluate(samples: np.ndarray, target: np.ndarray, scale: np.ndarray | None = None) -> dict[str, float]:
    """Every measure of this module but `pit`, with the paths sorted once.

    Args:
        samples: (W, S, H, D).
        target: (W, H, D).
        scale: of `mase`, (W, D) or (D,); MASE is NaN without it.

    Returns:
        CRPS, CRPS_sum, CRPS_sample, energy (per step), energy_path, ND, ND_sum, NRMSE, MASE, coverage_50, _80, _95, width_50,
        _80, _95, and coverage_80_sum of the sum over the series.

    Raises:
        UserError: if shapes do not belong together or a path is not finite.
    """
    paths, truth = _checked(samples, target)
    ordered, total, of_total = np.sort(paths, axis=1), _sorted_sum(paths), _sum(truth)
    return {
        "CRPS": float(_losses(ordered, truth, LEVELS).mean()),
        "CRPS_sum": float(_losses(total, of_total, LEVELS).mean()),
        "CRPS_sample": _relative(_crps_entries(ordered, truth), truth),
        "energy": _energy(paths, truth, path=False),
        "energy_path": _energy(paths, truth, path=True),
        "ND": _nd(ordered, truth),
        "ND_sum": _nd(total, of_total),
        "NRMSE": nrmse(paths, truth),
        "MASE": float("nan") if scale is None else _mase(ordered, truth, scale),
        **{f"coverage_{100 * level:.0f}": _coverage(ordered, truth, level) for level in INTERVALS},
        **{f"width_{100 * level:.0f}": _width(ordered, truth, level) for level in INTERVALS},
        "coverage_80_sum": _coverage(total, of_total, 0.8),
    }


# ---- of sorted paths; `ordered` is (W, S, H, D) and rises along S ----


def _pick(ordered: np.ndarray, q: float | Sequence[float]) -> np.ndarray:
    levels = np.asarray(q, dtype=np.float64)
    if not ((levels >= 0) & (levels <= 1)).all():
        raise UserError(f"A quantile has a level between 0 and 1, not {q}.")
    return np.take(ordered, np.rint((ordered.shape[-3] - 1) * levels).astype(int), axis=-3)


def _between(ordered: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    # rounding brings (1 - .8) / 2 back to .1, and with it the path that GluonTS takes
    return _pick(ordered, round((1 - level) / 2, 12)), _pick(ordered, round((1 + level) / 2, 12))


def _losses(ordered: np.ndarray, truth: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    y, q = truth[:, None], np.asarray(levels, dtype=np.float64)[:, None, None]
    forecast = _pick(ordered, levels)
    losses = 2 * np.abs((forecast - y) * ((y <= forecast) - q))
    return np.nansum(losses, axis=(0, 2, 3)) / _positive(np.nansum(np.abs(truth)))


def _crps_entries(ordered: np.ndarray, truth: np.ndarray) -> np.ndarray:
    count = ordered.shape[1]
    # a gap between the kth and the next of the sorted paths lies between k (S - k) of the pairs
    below = np.arange(1, count)
    pairs = np.tensordot(below * (count - below), np.diff(ordered, axis=1), axes=(0, 1))
    return np.abs(ordered - truth[:, None]).mean(axis=1) - pairs / max(count * (count - 1), 1)


def _nd(ordered: np.ndarray, truth: np.ndarray) -> float:
    return _relative(np.abs(truth - _pick(ordered, 0.5)), truth)


def _mase(ordered: np.ndarray, truth: np.ndarray, scale: np.ndarray) -> float:
    of = np.asarray(scale, dtype=np.float64)
    if of.shape not in (truth.shape[::2], truth.shape[2:]):
        raise UserError(f"The scale of {truth.shape[0]} windows of {truth.shape[2]} series cannot be {of.shape}.")
    error = _mean(np.abs(truth - _pick(ordered, 0.5)), axis=1)
    return float(_mean(error / np.where(of > 0, of, np.nan)))


def _coverage(ordered: np.ndarray, truth: np.ndarray, level: float) -> float:
    low, high = _between(ordered, level)
    return float(_mean(np.where(np.isnan(truth), np.nan, (low <= truth) & (truth <= high))))


def _width(ordered: np.ndarray, truth: np.ndarray, level: float) -> float:
    low, high = _between(ordered, level)
    return _relative(np.where(np.isnan(truth), np.nan, high - low), truth)


# ---- energy score ----


def _energy(paths: np.ndarray, truth: np.ndarray, path: bool) -> float:
    windows, count, _, series = paths.shape
    if not path and series == 1:  # the sorted form costs far less
        return float(_mean(_crps_entries(np.sort(paths, axis=1), truth)))
    if path:
        vectors, y = paths.reshape(windows, count, -1), truth.reshape(windows, -1)
    else:
        vectors, y = paths.swapaxes(1, 2).reshape(-1, count, series), truth.reshape(-1, series)
    scores = [_energies(vectors[some], y[some]) for some in _portions(len(y), count**2)]
    return float(_mean(np.concatenate(scores)))


def _energies(vectors: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Energy scores (C,) of vectors (C, S, K) at the observed of truth (C, K), NaN where nothing was observed."""
    count, seen = vectors.shape[1], ~np.isnan(truth)
    centre = vectors.mean(
        axis=1, keepdims=True
    )  # without it the squares below would lose the digits of small distances
    x = np.where(seen[:, None], vectors - centre, 0.0)
    y = np.where(seen, truth - centre[:, 0], 0.0)
    between = x @ x.swapaxes(1, 2)  # products, then squared distances, then distances
    squares = np.diagonal(between, axis1=1, axis2=2).copy()
    between *= -2
    between += squares[:, :, None] + squares[:, None]
    np.sqrt(np.maximum(between, 0, out=between), out=between)
    scores = np.linalg.norm(x - y[:, None], axis=2).mean(axis=1)
    scores -= between.sum(axis=(1, 2)) / (2 * max(count * (count - 1), 1))
    return np.where(seen.any(axis=1), scores, np.nan)


def _portions(length: int, size: int) -> Iterator[slice]:
    """Slices of at most CELLS numbers where one entry of `length` takes `size`."""
    step = max(CELLS // size, 1)
    return (slice(start, start + step) for start in range(0, length, step))


# ---- small ----


def _checked(samples: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    paths, truth = np.asarray(samples, dtype=np.float64), np.asarray(target, dtype=np.float64)
    windows_steps_series = paths.shape[:1] + paths.shape[2:]
    if paths.ndim != 4 or truth.shape != windows_steps_series or not paths.size:
        raise UserError(
            "Sample paths are (windows, paths, steps, series) and what came (windows, steps, series); "
            f"these are {paths.shape} and {truth.shape}."
        )
    wrong = ~np.isfinite(paths)
    if wrong.any():
        window, path, step, series = np.argwhere(wrong)[0]
        raise UserError(f"Path {path} of window {window} is not finite at step {step} of series {series}.")
    if np.isinf(truth).any():
        window, step, series = np.argwhere(np.isinf(truth))[0]
        raise UserError(f"What came in window {window} is infinite at step {step} of series {series}.")
    return paths, truth


def _sum(truth: np.ndarray) -> np.ndarray:
    return truth.sum(axis=-1, keepdims=True)  # NaN where one of the series is


def _sorted_sum(paths: np.ndarray) -> np.ndarray:
    return np.sort(_sum(paths), axis=1)


def _mean(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Mean of what is not NaN, NaN where there is nothing."""
    count = np.asarray((~np.isnan(values)).sum(axis=axis))
    return np.where(count > 0, np.nansum(values, axis=axis) / np.maximum(count, 1), np.nan)


def _relative(values: np.ndarray, truth: np.ndarray) -> float:
    """sum of values / sum |y|, both over what was observed."""
    return float(np.nansum(values) / _positive(np.nansum(np.abs(truth))))


def _positive(value: np.ndarray | float) -> float:
    """The value, or NaN for zero: nothing is relative to it."""
    return float(value) if value > 0 else float("nan")
