"""Pictures of synthetic beside real rows: marginals, associations of pairs of columns, and a map in two dimensions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from scipy.sparse.linalg import LinearOperator, svds

from diffusionkit.errors import UserError
from diffusionkit.tabular.coded import Coded, coded, features
from diffusionkit.tabular.metrics import pearson, shape

REAL, FAKE = "#1f77b4", "#ff7f0e"
PANELS = 30  # columns of which marginals are drawn
BARS = 12  # levels drawn of a column; the rest are added up
CELLS = 60  # columns of an association matrix
PAIRED = 100_000  # rows that associations are taken of at most
MAPPED = 20_000  # rows that a map is made of at most
DOTS = 4_000  # drawn on it

Kinds = Mapping[Hashable, str] | None


def marginals(real: pd.DataFrame, fake: pd.DataFrame, path: str | Path, columns: Kinds = None) -> Path:
    """Draws each column's distribution in both tables: histograms of numbers, bars of levels, with the shape error.

    Numbers are drawn between the .5 % and 99.5 % quantiles of the real ones; what lies beyond is in the outermost bars. Of many
    columns the 30 with the largest errors are drawn, of many levels the 12 commonest.

    Args:
        real: a table.
        fake: a table of the same columns.
        path: of the PNG; its folder is made if need be.
        columns: kinds of columns; inferred from `real` where not given.

    Returns:
        The path.

    Raises:
        UserError: if the tables cannot be compared or the file cannot be written.
    """
    a, b = coded(real, fake, columns=columns)
    errors = shape(a, b)
    drawn = list(a.order)
    title = f"{len(a):,} real and {len(b):,} synthetic rows"
    if len(drawn) > PANELS:
        worst = set(sorted(drawn, key=lambda label: -errors[label])[:PANELS])
        drawn = [label for label in drawn if label in worst]
        title += f"; the {PANELS} of {len(a.order)} columns with the largest errors"
    across = min(len(drawn), 4)
    down = -(-len(drawn) // across)
    figure = _figure(3.1 * across + 0.4, 2.5 * down + 0.7)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[len(drawn) :]:
        axis.axis("off")
    for axis, label in zip(axes, drawn, strict=False):
        if label in a.names:
            k = a.names.index(label)
            _histogram(axis, a.numbers[:, k], b.numbers[:, k], _instants(real[label]))
        else:
            k = a.factors.index(label)
            _bars(axis, a.codes[:, k], b.codes[:, k], a.levels[k])
        axis.set_title(f"{_short(label, 20)}   {100 * errors[label]:.1f} %", fontsize=9, loc="left")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7.5)
    figure.suptitle(f"{title}: shares of rows, and beside each name its shape error", fontsize=10, x=0.01, ha="left")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2, fontsize=9, frameon=False)
    return _save(figure, path)


def _histogram(axis: Any, real: np.ndarray, fake: np.ndarray, instants: bool) -> None:
    seen = real[~np.isnan(real)]
    low, high = np.quantile(seen if len(seen) else np.zeros(1), (0.005, 0.995))
    values = np.unique(seen[(seen >= low) & (seen <= high)])
    if 1 < len(values) <= 25 and not instants:  # bars of their own, between the midpoints
        middle = (values[1:] + values[:-1]) / 2
        edges = np.concatenate([[2 * values[0] - middle[0]], middle, [2 * values[-1] - middle[-1]]])
        heights = [np.histogram(np.clip(x, values[0], values[-1]), edges)[0] / len(x) for x in _present(real, fake)]
    else:
        edges = np.linspace(low, high if high > low else low + 1, 31)
        heights = [np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0] / len(x) for x in _present(real, fake)]
    at = edges.astype("datetime64[us]") if instants else edges
    axis.stairs(heights[0], at, fill=True, color=REAL, alpha=0.45, label="real")
    axis.stairs(heights[1], at, color=FAKE, linewidth=1.4, label="synthetic")
    if max(map(np.max, heights)) > 0.5:  # a spike: what lies beside it would not be seen
        axis.set_yscale("log")
        axis.set_ylim(max(1e-4, 0.5 / max(len(real), 1)), 1.5)
    shares = [float(np.isnan(x).mean()) for x in (real, fake)]
    if any(shares):
        words = f"missing {100 * shares[0]:.1f} % | {100 * shares[1]:.1f} %"
        axis.text(0.98, 0.97, words, transform=axis.transAxes, ha="right", va="top", fontsize=7)
    if instants:
        axis.tick_params(axis="x", rotation=30)
    else:
        axis.locator_params(axis="x", nbins=5)


def _present(*parts: np.ndarray) -> list[np.ndarray]:
    return [x[~np.isnan(x)] if not np.isnan(x).all() else np.zeros(1) for x in parts]


def _bars(axis: Any, real: np.ndarray, fake: np.ndarray, levels: np.ndarray) -> None:
    counts = np.stack([np.bincount(codes, minlength=len(levels) + 1) / len(codes) for codes in (real, fake)])
    names = [*map(_short, levels), "(missing)"]
    order = [k for k in np.argsort(-counts[0], kind="stable") if counts[:, k].any()]
    shown, rest = (order, []) if len(order) <= BARS + 1 else (order[:BARS], order[BARS:])
    heights, labels = counts[:, shown], [names[k] for k in shown]
    if rest:
        heights = np.column_stack([heights, counts[:, rest].sum(1)])
        labels.append(f"({len(rest)} others)")
    at = np.arange(len(labels))
    axis.barh(at - 0.2, heights[0], 0.4, color=REAL, alpha=0.6, label="real")
    axis.barh(at + 0.2, heights[1], 0.4, color=FAKE, label="synthetic")
    axis.set_yticks(at, labels)
    axis.set_ylim(max(len(at), 5) - 0.5, -0.5)


def associations(table: Coded) -> np.ndarray:
    """(C, C) how strongly each pair of columns is tied, in the order of the columns; the diagonal is 1.

    Two numbers: Pearson's r, with its sign. A number and levels: the correlation ratio, root of the share of the number's variance
    that lies between the levels. Levels: Cramér's V. Missing numbers are left out, missing levels are a level. 0 for a constant.
    """
    labels, count = [*table.names, *table.factors], len(table.names)
    found = np.eye(len(labels))
    if count:
        found[:count, :count] = pearson(table.numbers)[0]
    for k, codes in enumerate(table.codes.T):
        size = int(table.sizes[k])
        for i, values in enumerate(table.numbers.T):
            found[i, count + k] = found[count + k, i] = _correlation_ratio(values, codes, size)
        for j in range(k):
            found[count + j, count + k] = found[count + k, count + j] = _cramer(codes, table.codes[:, j])
    np.fill_diagonal(found, 1.0)
    order = [labels.index(label) for label in table.order]
    return found[np.ix_(order, order)]


def _correlation_ratio(values: np.ndarray, codes: np.ndarray, size: int) -> float:
    seen = ~np.isnan(values)
    values, codes = values[seen], codes[seen]
    if not len(values):
        return 0.0
    values = values - values.mean()
    whole = (values**2).sum()
    counts = np.bincount(codes, minlength=size)
    between = (np.bincount(codes, values, minlength=size) ** 2 / np.maximum(counts, 1)).sum()
    return float(np.sqrt(min(between / whole, 1.0))) if whole > 0 else 0.0


def _cramer(a: np.ndarray, b: np.ndarray) -> float:
    _, a, of_a = np.unique(a, return_inverse=True, return_counts=True)
    _, b, of_b = np.unique(b, return_inverse=True, return_counts=True)
    least = min(len(of_a), len(of_b)) - 1
    if least < 1:
        return 0.0
    pair, counts = np.unique(a * len(of_b) + b, return_counts=True)  # those that occur: never levels x levels
    expected = of_a[pair // len(of_b)] * (of_b[pair % len(of_b)] / len(a))
    chi = (counts**2 / expected).sum() - len(a)
    return float(np.sqrt(min(max(chi, 0.0) / (len(a) * least), 1.0)))


def correlations(
    real: pd.DataFrame, fake: pd.DataFrame, path: str | Path, columns: Kinds = None, seed: int = 0
) -> Path:
    """Draws the associations of all pairs of columns in both tables, and their difference; see `associations`.

    Of more than 60 columns the first 60 are drawn, of more than 100,000 rows as many, drawn by `seed`. Other arguments, what is
    returned and raised as of `marginals`.
    """
    a, b = _tables(real, fake, columns, PAIRED, seed)
    some = len(a.order) > CELLS
    for label in a.order[CELLS:]:
        a, b = a.without(label), b.without(label)
    ours, theirs = associations(a), associations(b)
    difference = theirs - ours
    off = np.abs(difference[~np.eye(len(ours), dtype=bool)])
    words = f"synthetic − real: mean {off.mean():.3f}, most {off.max():.2f}" if len(off) else "synthetic − real"
    figure = _figure(13.5, 5.4)
    axes = figure.subplots(1, 3)
    names = [_short(label) for label in a.order]
    size = 8 if len(names) <= 26 else 5
    for axis, values, title in zip(axes, (ours, theirs, difference), ("real", "synthetic", words), strict=True):
        limit = max(0.2, float(off.max(initial=0))) if axis is axes[2] else 1.0
        image = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest", aspect="auto")
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
        axis.set_yticks(range(len(names)), names if axis is axes[0] else [], fontsize=size)
        if axis is not axes[0]:  # the first two have one scale
            figure.colorbar(image, ax=axis, shrink=0.7, pad=0.02).ax.tick_params(labelsize=8)
    words = "Pearson's r of numbers, Cramér's V of levels, correlation ratio of one of each"
    figure.suptitle(words + (f"; the first {CELLS} columns" if some else ""), fontsize=10, x=0.01, ha="left")
    return _save(figure, path)


def embedding(real: pd.DataFrame, fake: pd.DataFrame, path: str | Path, columns: Kinds = None, seed: int = 0) -> Path:
    """Draws the real rows, the synthetic ones and both densities on the two main axes of the real rows.

    Numbers are replaced by their ranks among the real ones, so that no outlier takes an axis for itself, levels are one-hot; then
    principal components. At most 20,000 rows of either are used, drawn by `seed`, and 4,000 dots drawn. Other arguments, what
    is returned and raised as of `marginals`.
    """
    a, b = _tables(real, fake, columns, MAPPED, seed)
    ours, theirs, held = _components(_ranked(a, a), _ranked(b, a))
    figure = _figure(13, 4.9)
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    low, high = np.quantile(np.concatenate([ours, theirs]), (0.001, 0.999), axis=0)
    margin = np.maximum(0.1 * (high - low), 1e-3)
    edges = [np.linspace(*ends, 41) for ends in zip(low - margin, high + margin, strict=True)]
    for axis, points, colour, title in zip(axes, (ours, theirs), (REAL, FAKE), ("real", "synthetic"), strict=False):
        axis.plot(*points[:DOTS].T, ".", markersize=3.5, alpha=0.4, color=colour, markeredgewidth=0)
        axis.set_title(f"{title}, {min(DOTS, len(points)):,} of {len(points):,} rows", loc="left", fontsize=10)
    shares = [np.histogram2d(*points.T, bins=edges)[0] / len(points) for points in (ours, theirs)]
    difference = 100 * (shares[1] - shares[0])
    limit = max(float(np.abs(difference).max()), 0.05)
    image = axes[2].pcolormesh(*edges, difference.T, cmap="RdBu_r", vmin=-limit, vmax=limit)
    bar = figure.colorbar(image, ax=axes[2], shrink=0.8, pad=0.02)
    bar.set_label("% of rows in each cell", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    axes[2].set_title("synthetic − real", loc="left", fontsize=10)
    axes[0].set(xlim=edges[0][[0, -1]], ylim=edges[1][[0, -1]])
    axes[0].set_ylabel("second component", fontsize=9)
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.set_xlabel("first component", fontsize=9)
    words = (
        f"Principal components of the real rows, with {100 * held[0]:.0f} % and {100 * held[1]:.0f} % of the variance"
    )
    figure.suptitle(f"{words} (ranks of numbers, one-hot levels)", fontsize=10, x=0.01, ha="left")
    return _save(figure, path)


def _ranked(table: Coded, real: Coded) -> Coded:
    """The table with numbers replaced by their ranks among the real ones, from -1 to 1."""
    columns = []
    for values, ours in zip(table.numbers.T, real.numbers.T, strict=True):
        known = np.sort(ours[~np.isnan(ours)])
        place = np.searchsorted(known, values, "left") + np.searchsorted(known, values, "right")
        columns.append(np.where(np.isnan(values), np.nan, place / max(len(known), 1) - 1))
    return replace(table, numbers=np.stack(columns, 1)) if columns else table


def _components(real: Coded, fake: Coded) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both tables on the two main axes of the real one (n, 2), and the share of the variance that each axis holds."""
    x, y = features(real, fake, words=True)
    centre = np.asarray(x.mean(0)).ravel()
    total = float(x.power(2).mean(0).sum() - (centre**2).sum())
    if min(x.shape) < 3 or total <= 0:  # one or two features: they are the axes
        width = np.zeros((2, x.shape[1]))
        np.fill_diagonal(width, 1.0)
        axes, values = width, np.zeros(2)
    else:
        centred = LinearOperator(
            x.shape,
            matvec=lambda v: x @ np.ravel(v) - centre @ np.ravel(v),
            rmatvec=lambda u: x.T @ np.ravel(u) - centre * u.sum(),
            dtype=np.float64,
        )
        _, values, axes = svds(centred, k=2, v0=np.ones(min(x.shape)))
        order = np.argsort(-values)
        axes, values = axes[order], values[order]
        axes = axes * np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])[:, None]
    points = [np.asarray(table @ axes.T - centre @ axes.T) for table in (x, y)]
    return *points, values**2 / (len(real) * max(total, 1e-300))


def _tables(real: pd.DataFrame, fake: pd.DataFrame, columns: Kinds, rows: int, seed: int) -> tuple[Coded, Coded]:
    rng = np.random.default_rng(seed)
    a, b = coded(real, fake, columns=columns)
    return a.sample(rows, rng), b.sample(rows, rng)


def _instants(series: pd.Series) -> bool:
    return series.dtype.kind == "M"


def _short(label: Any, most: int = 16) -> str:
    words = str(label).replace("$", r"\$")
    return words if len(words) <= most else words[: most - 1] + "…"


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=100, format="png")
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return path
