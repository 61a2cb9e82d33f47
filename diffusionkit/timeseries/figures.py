"""What all pictures of time series have in common: colours, dates along the axis, titles and legends, files."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from diffusionkit.errors import UserError

SEEN, FAN, CAME = "#333333", "#1f77b4", "#d9480f"


class Picture(Figure):
    """A figure that notebooks show without pyplot."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(self)
        self.get_layout_engine().set(w_pad=0.07, wspace=0.03, hspace=0.03)

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, dpi=100, format="png")
        return file.getvalue()


def cells(count: int, single: tuple[float, float], each: tuple[float, float]) -> tuple[Picture, Any]:
    """A figure of `count` axes in a row of one, two or three, and sizes in inches; cells that are left over stay empty."""
    across = 1 if count == 1 else 2 if count in (2, 4) else 3
    down = -(-count // across)
    figure = Picture(*single) if count == 1 else Picture(each[0] * across + 0.2, each[1] * down + 0.8)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.axis("off")
    return figure, axes


def date(time: pd.Timestamp) -> str:
    """A date, with the time of day where it is not midnight."""
    return time.strftime("%Y-%m-%d" if time == time.normalize() else "%Y-%m-%d %H:%M")


def tidy(axis: Any, tz: Any, ticks: int) -> None:
    """Dates in a time zone along an axis, at most so many; few numbers, and a light grid."""
    locator = AutoDateLocator(tz=tz, minticks=min(3, ticks), maxticks=ticks)
    axis.xaxis.set_major_locator(locator)
    formats, zeros = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"], ["", "%Y", "%d %b", "%d %b", "%H:%M", "%H:%M"]
    axis.xaxis.set_major_formatter(
        ConciseDateFormatter(locator, tz=tz, formats=formats, zero_formats=zeros, show_offset=False)
    )
    axis.locator_params(axis="y", nbins=5)
    axis.ticklabel_format(axis="y", useOffset=False, scilimits=(-4, 6))
    axis.yaxis.get_offset_text().set_fontsize(8)
    axis.margins(x=0.01)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25, linewidth=0.7)
    axis.set_axisbelow(True)


def head(figure: Figure, axis: Any, words: str) -> None:
    """The title, and the legend beside it or, where there is no room, below."""
    title = figure.suptitle(words, fontsize=10, x=0.01, ha="left")
    entries = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))  # one of each name
    for place in ("outside upper right", "outside lower right"):
        legend = figure.legend(entries.values(), entries, loc=place, ncols=len(entries), fontsize=8.5, frameon=False)
        if title.get_window_extent().width + legend.get_window_extent().width < 0.96 * figure.bbox.width:
            return
        if place == "outside upper right":
            legend.remove()


def mixed(colour: str, share: float) -> tuple[float, ...]:
    """A colour thinned with white; unlike transparency it stays what the legend shows where things overlap."""
    return tuple(1 - share * (1 - part) for part in to_rgb(colour))


def short(label: Any, most: int) -> str:
    """A label of at most so many characters."""
    words = str(label).replace("$", r"\$")
    return words if len(words) <= most else words[: most - 1] + "…"


def save(figure: Figure, path: str | Path | None) -> Figure:
    """Writes a PNG where a path is given.

    Raises:
        UserError: if it cannot be written.
    """
    if path is not None:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=100, format="png")
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from error
    return figure
