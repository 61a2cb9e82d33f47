"""Between series and states: windows, targets and what a network is shown beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core.state import Batch, tree_map
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, codec_file
from diffusionkit.timeseries.features import SHOWN, features
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.targets import Frame, Target
from diffusionkit.timeseries.windows import Rows, Stats, Window, Windows

Form = Literal["block", "steps", "window"]
_BEYOND = 10.0  # times the range seen, beyond which no path goes


class SeriesCodec(Codec):
    """What fits series to a network and its paths back to the series.

    A network sees windows in one of three forms: a `block` is the horizon (B, H, D) under features of the past; `steps` are one
    state for each time (B, n + H, D) under lagged values, for recurrent networks; a `window` is past and horizon together
    (B, L + H, D), of which any part may be given.

    Attributes:
        horizon, context, season: H, L and the season in steps.
        shortest: rows that a series must have before its first future.
        joint: whether a state holds all series, or just one.
        tail: the last rows of the training part, from which forecasts start unless they are given others.
    """

    def __init__(
        self,
        panel: Panel,
        horizon: int,
        context: int,
        season: int,
        target: Target,
        form: Form = "block",
        sample: int = 0,
        limit: float = 10.0,
        shown: Sequence[str] = SHOWN,
        recent: int = 0,
        moments: dict[str, tuple[Tensor, Tensor]] | None = None,
        stats: Stats | None = None,
        reasons: list[str] | None = None,
    ) -> None:
        if form not in get_args(Form):
            raise ValueError(f"form must be one of {', '.join(get_args(Form))}, not {form!r}")
        self.horizon, self.context, self.season, self.target, self.form = horizon, context, season, target, form
        self.sample, self.limit, self.joint, self.reasons = sample, limit, panel.joint, reasons or []
        self.shown, self.recent = list(shown), recent
        for name in self.shown:
            if name not in SHOWN:
                raise ValueError(f"shown must be some of {', '.join(SHOWN)}, not {name!r}")
        if sample and form != "block":
            raise ValueError(
                f"sample draws series for networks whose tokens they are; form {form!r} has a place for each"
            )
        if recent < 0:
            raise ValueError(f"recent must not be negative, and is {recent}")
        self.lags = calendar.lags(panel.freq)
        self.shortest = max(target.lag + (max(self.lags) if form == "steps" else 0), 1)
        if context < self.shortest + (form == "steps"):
            raise UserError(
                f"data.context_length: {context} steps are too few, the longest lag reaches back {self.shortest}; "
                f"set it to {self.shortest + horizon}, or leave it out"
            )
        self.moments = moments or {
            "past": _moments([b.past for b in panel.blocks]),
            "known": _moments([b.known for b in panel.blocks]),
        }
        self.stats = stats or self.measure(panel)
        self.integer = torch.tensor(panel.integer) if panel.joint else torch.tensor(bool(panel.integer.all()))
        self.tail = self._end(panel)

    # ---- what the writers ask

    @property
    def names(self) -> tuple[Any, ...]:
        """The series."""
        return self.tail.names

    @property
    def freq(self) -> str:
        """Alias of the step."""
        return self.tail.freq

    @property
    def tz(self) -> Any:
        """Time zone of the times."""
        return self.tail.blocks[0].index.tz

    def times(self, horizon: int) -> pd.DatetimeIndex | np.ndarray:
        """The times after the training part."""
        return self.tail.coming(horizon)

    def history(self) -> pd.DataFrame:
        """The last rows of the training part."""
        return self.tail.frame()

    def notes(self) -> list[str]:
        kind = "jointly" if self.joint else "one by one"
        count = len(self.names)
        said = f"{count:,} series of frequency {self.freq}, {kind}; {self.context} steps are shown, {self.horizon} foretold"
        found = [said, *self.reasons]
        if self.form == "steps" and self.tail.past_names:
            left = ", ".join(map(str, self.tail.past_names))
            found.append(f"{left}: not shown, since a recurrent network goes on to steps where they are not known")
        return found

    # ---- statistics

    def measure(self, panel: Panel) -> Stats:
        """What is known of the series of a panel."""
        rows = []
        for block in panel.blocks:
            z = self.target.forward(torch.tensor(block.values))
            mean = z.nanmean(0).nan_to_num(0.0)
            level = _root(z - mean, z)
            center = torch.zeros_like(mean) if self.target.center == "zero" else mean
            steps = self.target.steps(z, center) if len(z) > self.target.lag else z - mean
            rows.append([mean, level, _root(steps, z, level), *self._bounds(z, mean)])
        parts = [torch.cat(part) for part in zip(*rows, strict=True)]
        return Stats._make([*parts, torch.tensor(panel.static, dtype=torch.float64)])

    def known_stats(self, panel: Panel) -> Stats:
        """Those of training for its own series, or measured on a panel of separate series."""
        return self.stats if self.joint or panel is self.tail else self.measure(panel)

    def _bounds(self, z: Tensor, otherwise: Tensor) -> tuple[Tensor, Tensor]:
        """What no path crosses: ten times the range of z (..., T, D) away from it, and zero where nothing was below."""
        low, high = (_edges(z, otherwise, sign) for sign in (-1, 1))
        reach = _BEYOND * (high - low).clamp(min=1e-6)
        floor = low - reach
        if self.target.transform != "log":
            floor = torch.where(low >= 0, floor.clamp(min=0.0), floor)
        return floor, high + reach

    def widened(self, window: Window) -> Window:
        """Windows with bounds that leave room for what they hold: series may have left their range since training."""
        low, high = (part[:, None] for part in self._bounds(window.z, window.stats.mean[:, 0]))
        stats = window.stats
        return window._replace(
            stats=stats._replace(low=torch.minimum(stats.low, low), high=torch.maximum(stats.high, high))
        )

    def standardised(self, values: Tensor, kind: str) -> Tensor:
        """Covariates with the mean and the deviation that they had in training."""
        mean, deviation = self.moments[kind]
        return (values - mean) / deviation

    # ---- windows

    def windows(self, panel: Panel, test: int | None = None) -> Windows:
        """All windows of a panel, or those whose futures lie in the last `test` rows."""
        return Windows(Rows(panel, self), self, test)

    def latest(self, panel: Panel) -> Window:
        """The one window of each block whose future begins after its last row."""
        rows = Rows(panel, self, self.horizon)
        return rows.windows(rows.ends, self.horizon)

    def frame(self, window: Window) -> Frame:
        """What turns targets of these windows into values."""
        return self.target.frame(window.z[:, : self.context], window.stats.mean, window.stats.spread)

    def drawn(self, size: int, generator: torch.Generator | None) -> Tensor | None:
        """A draw of the series for one batch, where there are more of them than `sample`."""
        if generator is None or not 0 < self.sample < size:
            return None
        return torch.randperm(size, generator=generator)[: self.sample]

    def encode(self, window: Window) -> Batch:
        """The state of windows with their futures (NaN where missing), and the condition."""
        frame = self.frame(window)
        x0 = self.state(window, frame)
        return Batch(x0.clamp(-self.limit, self.limit).float(), self.condition(window, frame))

    def state(self, window: Window, frame: Frame) -> Tensor:
        """Targets of windows in the codec's form."""
        if self.form == "block":
            return self.target.encode(window.z[:, self.context :], frame)
        whole = self.whole(window, frame)
        return whole if self.form == "window" else whole[:, max(self.lags) :]

    def whole(self, window: Window, frame: Frame) -> Tensor:
        """(B, L - lag + H, D) targets along past and future."""
        return self.target.steps(window.z, frame.base) / frame.scale

    def condition(self, window: Window, frame: Frame) -> dict[str, Tensor]:
        """What the network is shown of windows, but for their futures; of `steps`, each one is shown those before it."""
        if self.form == "block":
            return features(self, window, frame)
        skip = self.target.lag + (max(self.lags) if self.form == "steps" else 0)
        parts = [window.calendar, window.known.flatten(2)]
        if self.form == "window":  # what is known up to now is not known of the steps to come
            parts.append(torch.nn.functional.pad(window.past[:, : self.context].flatten(2), (0, 0, 0, self.horizon)))
        cond = {"time": torch.cat(parts, 2)[:, skip:].nan_to_num(0.0).float()}
        if self.form == "steps":
            cond["lags"] = self.lagged(self.whole(window, frame))
            cond["scale"] = torch.cat([frame.scale[:, 0].log(), window.stats.static.flatten(1)], 1).float()
        return cond

    def lagged(self, whole: Tensor) -> Tensor:
        """(B, T - m, lags * D) the targets (B, T, D) that each step is shown, m the longest lag; 0 where they are missing."""
        m, steps = max(self.lags), whole.shape[1]
        shown = [whole[:, m - lag : steps - lag] for lag in self.lags]
        return torch.cat(shown, 2).nan_to_num(0.0).clamp(-self.limit, self.limit).float()

    def values(self, x: Tensor, window: Window, frame: Frame) -> Tensor:
        """Values (B, H, D) of the targets of a future (B, H, D): within ten times the range seen, not below zero if none was."""
        z = self.target.decode(x, frame).nan_to_num(0.0)
        values = self.target.back(torch.minimum(torch.maximum(z, window.stats.low), window.stats.high))
        return torch.where(self.integer, values.round(), values)

    # ---- the contract

    def arguments(self) -> dict[str, Any]:
        window = self.latest(self.tail)
        batch = self.encode(window.take(torch.zeros(1, dtype=torch.long)))
        sizes = tree_map(lambda leaf: leaf.shape[-1], batch.cond)
        shape = {"horizon": self.horizon, "series": batch.x.shape[2], "length": batch.x.shape[1]}
        return {**shape, "sample": self.sample if self.sample < batch.x.shape[2] else 0, **sizes}

    def like(self, n: int) -> tuple[int, ...]:
        size = len(self.names) if self.joint else 1
        return (n, self.context - self.target.lag + self.horizon if self.form == "window" else self.horizon, size)

    def decode(self, x: Any) -> np.ndarray:
        """Paths are drawn in the units of the series already; see `generate`."""
        return x.numpy()

    def save(self, folder: Path) -> None:
        """Writes codec.json and codec.safetensors.

        Raises:
            UserError: for names of series that cannot be saved.
        """
        codec_file.write(self, Path(folder))

    @classmethod
    def load(cls, folder: Path) -> SeriesCodec:
        """The codec of a run.

        Raises:
            UserError: if a file is missing or damaged.
        """
        return codec_file.read(cls, Path(folder))

    def moved(self, panel: Panel) -> SeriesCodec:
        """The same codec with another panel to start forecasts from."""
        found = object.__new__(SeriesCodec)
        found.__dict__.update(self.__dict__, tail=self._end(panel), stats=self.known_stats(panel))
        return found

    def _end(self, panel: Panel) -> Panel:
        """As many of the last rows as forecasts, pictures and new windows take."""
        return panel.tail(self.context + self.horizon + 2 * max(self.season, 1))


def _moments(parts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(K,) mean and deviation of covariates (T, D or 1, K) over rows and series."""
    rows = torch.from_numpy(
        np.concatenate([part.reshape(part.shape[0] * part.shape[1], part.shape[2]) for part in parts])
    )
    mean = rows.nanmean(0).nan_to_num(0.0)
    return mean, _root(rows - mean, rows)


def _root(deviations: Tensor, values: Tensor, otherwise: Tensor | float = 1.0) -> Tensor:
    """(D,) root mean square over what is there; `otherwise` where it is nothing but the rounding of the values (T, D)."""
    root, size = deviations.square().nanmean(0).sqrt().nan_to_num(0.0), values.abs().nan_to_num(0.0).amax(0)
    return torch.where(root > 1e-12 * size, root, torch.as_tensor(otherwise, dtype=root.dtype))


def _edges(z: Tensor, mean: Tensor, sign: int) -> Tensor:
    edge = (sign * z).nan_to_num(-torch.inf).amax(-2) * sign
    return torch.where(edge.isfinite(), edge, mean)
