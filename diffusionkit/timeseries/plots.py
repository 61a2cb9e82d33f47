"""Pictures of forecasts: fan charts, windows of a backtest, filled gaps, and histograms of the probability integral transform."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from diffusionkit.errors import UserError
from diffusionkit.timeseries.figures import CAME, FAN, SEEN, Picture, cells, date, head, mixed, save, short, tidy
from diffusionkit.timeseries.forecast import Forecast, counted, ends
from diffusionkit.timeseries.measures import quantile
from diffusionkit.timeseries.tables import utc
from diffusionkit.timeseries.wide import timed

LEVELS = (50, 80, 95)
PANELS = 9  # pictures of series in one figure
ROWS = 4  # series of a backtest or an imputation
WINDOWS = 12  # of a backtest along one axis
APART = 5  # of a backtest whose windows are far from each other


class _Curve(NamedTuple):
    """One series of a forecast: H times, (S, H) paths, what was before and what came (H,)."""

    title: str
    times: pd.DatetimeIndex
    samples: np.ndarray
    past: pd.Series
    actual: np.ndarray | None


def forecasts(
    forecast: Forecast,
    path: str | Path | None = None,
    levels: Sequence[float] = LEVELS,
    actual: Any = None,
    history: int = 0,
    total: bool | None = None,
) -> Figure:
    """Draws fan charts of up to nine series, side by side.

    Args:
        forecast: what to draw.
        path: of a PNG; its folder is made if need be.
        levels: of the central intervals, per cent.
        actual: what came; see `Forecast.align`.
        history: rows before the forecast; 0 for three times its steps.
        total: whether the sum of all series is drawn last; by default of joint forecasts.

    Raises:
        UserError: if `actual` does not fit or the file cannot be written.
    """
    curves, words = _curves(forecast, actual, total, PANELS)
    figure, axes = cells(len(curves), (9.5, 4.2), (4.4, 2.3))
    for axis, curve in zip(axes, curves, strict=False):
        past = curve.past.iloc[-(history or 3 * len(forecast)) :]
        fan(axis, curve.times, curve.samples, levels, past, curve.actual)
        tidy(axis, forecast.tz, 9 if len(curves) == 1 else 5)
        if len(curves) > 1:
            axis.set_title(curve.title, loc="left", fontsize=9)
    start = f" from {date(forecast.times[0])}" if forecast.common else ""
    head(figure, axes[0], f"{words}: {forecast.words()}{start}")
    return save(figure, path)


def fan(
    axis: Any,
    times: pd.DatetimeIndex,
    samples: np.ndarray,
    levels: Sequence[float] = LEVELS,
    past: pd.Series | None = None,
    actual: np.ndarray | None = None,
) -> None:
    """Draws one fan into an axis: central intervals around the median, opening at the last value of the past.

    Args:
        axis: of matplotlib; times are drawn in UTC.
        times: (H,).
        samples: (S, H).
        levels: of the intervals, per cent.
        past: values before, indexed by time; NaN makes a gap.
        actual: (H,) what came, NaN where it is not known.
    """
    levels = sorted(levels, reverse=True)
    middle, *bounds = quantile(samples[:, :, None], [0.5, *ends(levels)])[:, :, 0]
    at = utc(times)
    if past is not None and len(past):
        axis.plot(utc(past.index), past.to_numpy(), color=SEEN, linewidth=1.1, label="observed")
        last = past.to_numpy()[-1]
        if np.isfinite(last):
            at = np.concatenate([utc(past.index[-1:]), at])
            middle, *bounds = (np.concatenate([[last], line]) for line in (middle, *bounds))
            actual = None if actual is None else np.concatenate([[last], actual])
    shades = np.linspace(0.2, 0.55, len(levels)) if len(levels) > 1 else [0.3]
    for level, low, high, shade in zip(levels, bounds[::2], bounds[1::2], shades, strict=True):
        colour = mixed(FAN, shade)
        axis.fill_between(at, low, high, color=colour, linewidth=0 if len(at) > 1 else 6, label=f"{level:g} %")
    axis.plot(at, middle, color=FAN, linewidth=1.6, label="median", marker="" if len(at) > 1 else "o")
    if actual is not None:
        marker = "" if len(at) > 2 else "o"
        axis.plot(at, actual, color=CAME, linewidth=1.3, label="actual", marker=marker, markersize=4)


def backtest(
    windows: Iterable[Forecast],
    actual: pd.DataFrame,
    path: str | Path | None = None,
    series: Iterable[Hashable] | None = None,
    levels: Sequence[float] = LEVELS,
) -> Figure:
    """Draws the forecasts of several windows against what came: along one axis, or side by side where they are far apart.

    Of windows that overlap, the last one is drawn and those before it that do not reach into the next.

    Args:
        windows: forecasts of the same series, in the order of time.
        actual: all that was observed, before the windows and in them: a frame of time x series, or a long one.
        path: of a PNG.
        series: up to four of them; by default the first, of joint forecasts with the sum of all series.
        levels: of the central intervals, per cent.

    Raises:
        UserError: as of `forecasts`.
    """
    windows = list(windows)
    if not windows:
        raise UserError("backtest: no windows to draw")
    shown = _side_by_side(windows)
    apart = _apart(shown)
    most = APART if apart else WINDOWS
    places = np.unique(np.linspace(0, len(shown) - 1, most).round().astype(int)) if apart else range(len(shown))[-most:]
    chosen = [shown[k] if series is None else shown[k].select(list(series)) for k in places]
    chosen = [replace(window, history=actual) for window in chosen]
    rows = [_curves(window, actual, None if series is None else False, ROWS) for window in chosen]
    words, table = rows[0][1], [curves for curves, _ in rows]
    figure = Picture(13, 1.9 * len(table[0]) + 0.7)
    axes = figure.subplots(len(table[0]), len(table) if apart else 1, squeeze=False, sharey="row")
    for row, curves in zip(axes, zip(*table, strict=True), strict=True):
        if apart:
            for axis, curve in zip(row, curves, strict=True):
                past = curve.past[curve.past.index < curve.times[0]].iloc[-2 * len(curve.times) :]
                fan(axis, curve.times, curve.samples, levels, past, curve.actual)
        else:
            _along(row[0], curves, levels)
        row[0].set_title(curves[0].title, loc="left", fontsize=9)
        for axis in row:
            tidy(axis, windows[0].tz, 4 if apart else 10)
    some = f"{len(chosen)} of " if len(chosen) < len(windows) else ""
    span = " to ".join(date(w.index(w.names[0])[k]) for w, k in ((chosen[0], 0), (chosen[-1], -1)))
    head(figure, axes[0, 0], f"{words}: {some}{counted(len(windows), 'window')} of {chosen[0].words()}, {span}")
    return save(figure, path)


def _along(axis: Any, curves: Sequence[_Curve], levels: Sequence[float]) -> None:
    """The windows of one series on one axis; what came has the colour of the past, which it is for the next window."""
    for curve in curves:
        fan(axis, curve.times, curve.samples, levels)
        axis.axvline(utc(curve.times[:1])[0], color=SEEN, linewidth=0.6, linestyle=(0, (2, 3)))
    past = curves[0].past
    first = max(past.index.searchsorted(curves[0].times[0]) - 2 * len(curves[0].times), 0)
    seen = past.iloc[first : past.index.searchsorted(curves[-1].times[-1], "right")]
    axis.plot(utc(seen.index), seen.to_numpy(), color=SEEN, linewidth=1.1, label="observed")


def _side_by_side(windows: Sequence[Forecast]) -> list[Forecast]:
    """The last window and those before it of which none reaches into the next one: fans on top of each other say nothing."""
    name, kept = windows[0].names[0], [windows[-1]]
    for window in reversed(windows[:-1]):
        if window.index(name)[-1] < kept[-1].index(name)[0]:
            kept.append(window)
    return kept[::-1]


def _apart(windows: Sequence[Forecast]) -> bool:
    """Whether the windows cover less than half of the time that they are spread over."""
    name, first, last = windows[0].names[0], windows[0], windows[-1]
    span = last.index(name)[-1] - first.index(name)[0]
    one = first.index(name)[-1] - first.index(name)[0]
    return len(windows) > 1 and len(first) > 1 and 2 * len(windows) * one < span


def imputation(
    observed: pd.DataFrame,
    draws: Sequence[pd.DataFrame] | np.ndarray,
    path: str | Path | None = None,
    truth: pd.DataFrame | np.ndarray | None = None,
    series: Sequence[Hashable] | None = None,
    rows: int = 200,
    levels: Sequence[float] = LEVELS,
) -> Figure:
    """Draws how gaps were filled, in the stretch of `rows` rows in which most gaps begin or end.

    Args:
        observed: (T, D) time x series, NaN where nothing was seen.
        draws: (n, T, D) filled frames.
        path: of a PNG.
        truth: (T, D) what was hidden, NaN where it is not known either.
        series: up to four of them; by default those in which most gaps begin or end.
        rows: of the stretch.
        levels: of the central intervals of the draws, per cent.

    Raises:
        UserError: if a series is missing or the file cannot be written.
    """
    index, observed = timed(observed, "ds", "observed")
    filled = np.stack([np.asarray(draw, dtype=np.float64) for draw in draws])
    gaps = observed.isna().to_numpy()
    turns = np.abs(np.diff(gaps.astype(np.int8), axis=0, prepend=gaps[:1])).cumsum(0)
    if series is None:
        places = np.sort(np.argsort(-turns[-1], kind="stable")[:ROWS])
    else:
        places = observed.columns.get_indexer(pd.Index(list(series)[:ROWS], tupleize_cols=False))
    if (places < 0).any():
        raise UserError(f"imputation: there is no series {list(series or ())[int(np.argmin(places))]!r}")
    counts = turns[:, places].sum(1)
    rows = min(rows, len(counts))
    start = int(np.argmax(counts[rows - 1 :] - counts[: len(counts) - rows + 1]))
    part = slice(start, start + rows)
    figure = Picture(13, 1.9 * len(places) + 0.7)
    axes = figure.subplots(len(places), 1, squeeze=False, sharex=True).ravel()
    hidden = None if truth is None else np.where(gaps, np.asarray(truth, dtype=np.float64), np.nan)
    for axis, d in zip(axes, places, strict=True):
        times, seen = index[part], observed.iloc[part, d].to_numpy(np.float64)
        known = np.isfinite(np.concatenate([[seen[0]], seen, [seen[-1]]]))
        inside = known[:-2] & known[1:-1] & known[2:]  # nothing was drawn there
        fan(axis, times, np.where(inside, np.nan, filled[:, part, d]), levels)
        axis.plot(utc(times), seen, color=SEEN, linewidth=1.1, label="observed")
        alone = known[1:-1] & ~known[:-2] & ~known[2:]
        axis.plot(utc(times)[alone], seen[alone], ".", color=SEEN, markersize=4)
        if hidden is not None:
            axis.plot(utc(times), hidden[part, d], ".", color=CAME, markersize=4.5, label="hidden")
        axis.set_title(short(observed.columns[d], 40), loc="left", fontsize=9)
        tidy(axis, index.tz, 10)
    words = f"{100 * gaps.mean():.0f} % of all cells filled, {len(filled)} draws"
    some = f"; {len(places)} of {observed.shape[1]} series" if len(places) < observed.shape[1] else ""
    span = f"{date(index[start])} to {date(index[start + rows - 1])}"
    head(figure, axes[0], f"{words}{some}, {span}")
    return save(figure, path)


def pit_histogram(
    values: np.ndarray | Mapping[str, np.ndarray], path: str | Path | None = None, bins: int = 20
) -> Figure:
    """Draws how the probability integral transforms are spread; flat if the forecasts are calibrated.

    Args:
        values: from 0 to 1, any shape, NaN where nothing was observed; or several of them by name, a picture each.
        path: of a PNG.
        bins: of the histogram.

    Raises:
        UserError: if there are no values, or some are not from 0 to 1, or the file cannot be written.
    """
    parts = {str(k): _units(v, str(k)) for k, v in (values if isinstance(values, Mapping) else {"": values}).items()}
    if not parts:
        raise UserError("pit_histogram: no values")
    figure, axes = cells(len(parts), (6.6, 3.6), (3.6, 2.2))
    edges = np.linspace(0, 1, bins + 1)
    tops = []
    for axis, (name, seen) in zip(axes, parts.items(), strict=False):
        heights = np.histogram(seen, edges)[0] * bins / len(seen)
        axis.stairs(heights, edges, fill=True, color=mixed(FAN, 0.4))
        axis.stairs(heights, edges, color=FAN, linewidth=1)
        axis.axhline(1, color=SEEN, linewidth=1)
        spread = 1.96 * np.sqrt((bins - 1) / len(seen))
        for bound in (1 - spread, 1 + spread):
            axis.axhline(bound, color=SEEN, linewidth=0.8, linestyle=(0, (4, 3)))
        tops.append(1.05 * max(heights.max(), 1 + spread))
        axis.set_title(f"{short(name, 30)}   {len(seen):,} values".strip(), loc="left", fontsize=9)
        axis.locator_params(axis="y", nbins=5)
        axis.set(xlim=(0, 1), xticks=np.linspace(0, 1, 5), xticklabels=["0", ".25", ".5", ".75", "1"])
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    for axis in axes[: len(parts)]:
        axis.set_ylim(0, max(2.0, *tops))
    words = "Share of paths below what came, as a density; flat: calibrated, ∪: too narrow, ∩: too wide"
    small = "dashed: where 95 % of the bars would be if the values were uniform and independent of each other"
    figure.suptitle(f"{words}\n{small}", fontsize=9 if len(parts) > 1 else 8, x=0.01, ha="left")
    return save(figure, path)


def _units(values: Any, name: str) -> np.ndarray:
    seen = np.asarray(values, dtype=np.float64).ravel()
    seen = seen[~np.isnan(seen)]
    of = f" of {name}" if name else ""
    if not len(seen):
        raise UserError(f"pit_histogram: no values{of}")
    if seen.min() < 0 or seen.max() > 1:
        raise UserError(f"pit_histogram: values{of} must be from 0 to 1")
    return seen


def _curves(forecast: Forecast, actual: Any, total: bool | None, most: int) -> tuple[list[_Curve], str]:
    """What is drawn of a forecast, the sum last, and words that say so."""
    count = len(forecast.names)
    total = count > 1 and forecast.joint and forecast.common and total is not False
    came = None if actual is None else forecast.align(actual)
    some = forecast if count + total <= most else forecast.select(list(forecast.names[: most - total]))
    curves = list(_each(some, came))
    if total:
        whole = forecast.total()
        curves += [
            c._replace(title=f"sum of all {count:,}")
            for c in _each(whole, None if came is None else came.sum(1, keepdims=True))
        ]
    shown = len(some.names)
    if count == 1:
        return curves, short(forecast.names[0], 40)
    words = f"{count:,} series" if shown == count else f"{shown} of {count:,} series"
    return curves, words + (" and their sum" if total and shown == count else " and the sum of all" if total else "")


def _each(forecast: Forecast, came: np.ndarray | None) -> Iterator[_Curve]:
    for d, name in enumerate(forecast.names):
        actual = None if came is None else came[:, d]
        yield _Curve(short(name, 34), forecast.index(name), forecast.samples[:, :, d], forecast.past(name), actual)
