"""Curves as SVG: sharp at every size, and in the colours of the page they stand in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = (
    400,
    230,
)  # in the SVG's own units, in which letters are 11 high: readable when it is as narrow as a phone
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 10, 10, 38
_MOST = 400  # points of a curve
STYLES = 6  # of curves, in page.css


def curves(series: Mapping[str, Points], title: str, x: str, y: str, log: bool = False) -> str:
    """A figure with one curve for each series; empty if there is nothing to draw.

    Args:
        series: points (x, y) by what they are; those that are not finite are left out.
        title: above the curves.
        x: what runs to the right.
        y: what runs up.
        log: whether y is on a logarithmic scale, where all values allow it.
    """
    shown = {name: _thinned([p for p in points if all(map(math.isfinite, p))]) for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if points}
    if not shown:
        return ""
    xs, ys = ([p[k] for points in shown.values() for p in points] for k in (0, 1))
    log = log and min(ys) > 0
    across, up = _Axis(xs, WIDTH - _LEFT - _RIGHT), _Axis(ys, HEIGHT - _TOP - _BOTTOM, log)
    parts = [*_grid(across, up, x, y)]
    for number, points in enumerate(shown.values()):
        style = f"s{number % STYLES + 1}"
        places = [(_LEFT + across(a), HEIGHT - _BOTTOM - up(b)) for a, b in points]
        if len(places) > 1:
            path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
            parts.append(f'<polyline class="{style}" points="{path}"/>')
        if len(places) <= 30:
            parts += [f'<circle class="{style}" cx="{a:.1f}" cy="{b:.1f}" r="2.4"/>' for a, b in places]
    names = "".join(f'<li class="s{k % STYLES + 1}">{escape(name)}</li>' for k, name in enumerate(shown))
    legend = f'<ul class="legend">{names}</ul>' if len(shown) > 1 else ""
    said = f"{title}: {y} over {x}; " + "; ".join(
        f"{name} ends at {points[-1][1]:.4g}" for name, points in shown.items()
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'
        f"{legend}</figure>"
    )


class _Axis:
    """From values to lengths, with the marks that are written on it."""

    def __init__(self, values: Sequence[float], length: float, log: bool = False) -> None:
        low, high = min(values), max(values)
        if low == high:
            low, high = (low / 1.5, high * 1.5) if log else (low - 0.5, high + 0.5)
        self.low, self.high, self.length, self.log = low, high, length, log

    def __call__(self, value: float) -> float:
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return self.length * (value - low) / (high - low)

    def marks(self, most: int) -> list[float]:
        """At most so many round values: decades and parts of them on a long logarithmic scale, else multiples of 1, 2 or 5."""
        if self.log and self.high >= 8 * self.low:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for parts in ((1, 2, 5), (1,)):
                found = [v for k in decades for part in parts if self.low <= (v := part * 10.0**k) <= self.high]
                if len(found) <= most + 1:
                    return found
            return found[:: -(-len(found) // most)]
        unit = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        for step in (unit * m for m in (1, 2, 5, 10)):
            first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
            if last - first < most:
                break
        return [k * step for k in range(first, last + 1)]


def _grid(across: _Axis, up: _Axis, x: str, y: str) -> list[str]:
    """The lines behind the curves and the words beside them."""
    bottom, right, parts = HEIGHT - _BOTTOM, WIDTH - _RIGHT, []
    for value in up.marks(5):
        at = bottom - up(value)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{short(value)}</text>')
    for value in across.marks(6):
        at = min(_LEFT + across(value), right - 10)
        parts.append(f'<text x="{at:.1f}" y="{bottom + 15}" text-anchor="middle">{short(value)}</text>')
    parts.append(f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    parts.append(f'<text x="{(_LEFT + right) / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x)}</text>')
    middle = (_TOP + bottom) / 2
    parts.append(f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">{escape(y)}</text>')
    return parts


def short(value: float) -> str:
    """A mark on an axis: 5e-4, 0.05, 20, 2,000, 30k, 1.5M."""
    for size, letter in ((1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.4g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.2e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6g}"


def _thinned(points: Points) -> Points:
    """At most so many points: means of equal pieces of a longer curve."""
    size = -(-len(points) // _MOST)
    if size <= 1:
        return points
    pieces = [points[k : k + size] for k in range(0, len(points), size)]
    return [(sum(p[0] for p in piece) / len(piece), sum(p[1] for p in piece) / len(piece)) for piece in pieces]
