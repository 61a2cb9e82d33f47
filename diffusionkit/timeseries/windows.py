"""Windows of series as tensors: all rows of a panel lie in a few flat tensors, and a batch is one gather from each.

Calendar features and transforms are computed once for a panel, not once for a window.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core.state import Batch
from diffusionkit.timeseries import calendar
from diffusionkit.timeseries.panel import Panel

if TYPE_CHECKING:
    from diffusionkit.timeseries.codec import SeriesCodec


class Stats(NamedTuple):
    """What is known of each series among all, (N,) or (N, S), in terms of z: mean, deviation of levels, root mean square of
    targets, bounds that no path crosses, and covariates that do not change."""

    mean: Tensor
    level: Tensor
    spread: Tensor
    low: Tensor
    high: Tensor
    static: Tensor

    def of(self, series: Tensor) -> Stats:
        """Those of windows' series (B, D), as (B, 1, D); static (B, D, S)."""
        return Stats._make([*(part[series][:, None] for part in self[:5]), self.static[series]])


class Window(NamedTuple):
    """B windows: a past of L steps and the H steps after it.

    Attributes:
        z: (B, L + H, D) transformed values, NaN where missing or still to come.
        calendar: (B, L + H, C).
        past: (B, L + H, D or 1, P) covariates known up to the last row, standardised.
        known: (B, L + H, D or 1, K) covariates known ahead, standardised.
        stats: of the series in them.
    """

    z: Tensor
    calendar: Tensor
    past: Tensor
    known: Tensor
    stats: Stats

    def take(self, chosen: Tensor) -> Window:
        """Some of the windows (n,), in this order and as often as they are named."""
        z, calendar, past, known = (part[chosen] for part in self[:4])
        return Window(z, calendar, past, known, Stats(*(part[chosen] for part in self.stats)))


def joined(windows: list[Window]) -> Window:
    """Windows of several batches as one."""
    z, calendar, past, known = (torch.cat(part) for part in zip(*(window[:4] for window in windows), strict=True))
    stats = zip(*(window.stats for window in windows), strict=True)
    return Window(z, calendar, past, known, Stats(*(torch.cat(part) for part in stats)))


class Rows:
    """The rows of a panel as flat tensors, each block behind as many empty rows as a window has past.

    Args:
        panel: the series.
        codec: transforms values and standardises covariates.
        ahead: rows behind each block, for windows whose future has not come.
    """

    def __init__(self, panel: Panel, codec: SeriesCodec, ahead: int = 0) -> None:
        before, self.codec = codec.context, codec
        parts: list[list[np.ndarray]] = [[], [], [], []]
        lengths = [len(block) for block in panel.blocks]
        for block, rows in zip(panel.blocks, lengths, strict=True):
            known = block.known[: rows + ahead]
            parts[0].append(_padded(block.values, before, ahead))
            parts[1].append(_calendar(block.index, before, ahead, panel.freq))
            parts[2].append(_padded(block.past, before, ahead))
            parts[3].append(_padded(known, before, rows + ahead - len(known)))
        flat = [torch.from_numpy(np.concatenate(part)) for part in parts]
        self.z, self.calendar = codec.target.forward(flat[0]), flat[1]
        self.past, self.known = codec.standardised(flat[2], "past"), codec.standardised(flat[3], "known")
        sizes = torch.tensor([before + rows + ahead for rows in lengths])
        self.starts = sizes.cumsum(0) - sizes + before
        self.ends = self.starts + torch.tensor(lengths)
        self.block = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
        self.stats = codec.known_stats(panel)

    def windows(self, origins: Tensor, horizon: int, chosen: Tensor | None = None) -> Window:
        """The windows whose futures of so many steps begin at these rows (B,); of some of the joint series (n,), or of all."""
        rows = origins[:, None] + torch.arange(-self.codec.context, horizon)
        series = torch.arange(self.z.shape[1]) if chosen is None else chosen
        series = series.expand(len(origins), -1) if self.codec.joint else self.block[origins][:, None]

        def gathered(part: Tensor) -> Tensor:
            return part[rows] if chosen is None or part.shape[1] == 1 else part[rows[:, :, None], chosen]

        return Window(
            gathered(self.z), self.calendar[rows], gathered(self.past), gathered(self.known), self.stats.of(series)
        )


def _padded(values: np.ndarray, before: int, after: int) -> np.ndarray:
    return np.pad(values, [(before, max(after, 0)), *[(0, 0)] * (values.ndim - 1)], constant_values=np.nan)


def _calendar(index: pd.DatetimeIndex, before: int, after: int, freq: str) -> np.ndarray:
    rows = calendar.features(index if not after else index.append(calendar.extend(index, after, freq)), freq)
    return np.pad(
        rows, [(before, 0), (0, 0)]
    )  # nothing was observed in the rows before, so that their time does not matter


class Windows:
    """A data set: windows with their futures, as states and conditions of the codec's form.

    Args:
        rows: of a panel.
        codec: encodes windows.
        test: rows at the end of each block in which the futures lie; all but the first by default.
    """

    def __init__(self, rows: Rows, codec: SeriesCodec, test: int | None = None) -> None:
        self.rows, self.codec = rows, codec
        spans = []
        for start, end in zip(rows.starts.tolist(), rows.ends.tolist(), strict=True):
            first = start + codec.shortest if test is None else max(end - test, start + 1)
            spans.append(torch.arange(first, max(end - codec.horizon + 1, first)))
        self.origins = torch.cat(spans)

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        series = self.codec.drawn(self.rows.z.shape[1], generator)
        return self.codec.encode(self.rows.windows(self.origins[indices], self.codec.horizon, series))
