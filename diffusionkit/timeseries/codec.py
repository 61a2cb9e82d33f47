"""Between series and states: windows, targets and what a network is shown beside them."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusionkit.core.state import Batch, tree_map
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, covariates
from diffusionkit.timeseries.features import features
from diffusionkit.timeseries.panel import Block, Panel
from diffusionkit.timeseries.targets import Frame, Target
from diffusionkit.timeseries.windows import Rows, Stats, Window, Windows

FILE, TENSORS = "codec.json", "codec.safetensors"
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
        moments: dict[str, Tensor] | None = None,
        stats: Stats | None = None,
        reasons: list[str] | None = None,
    ) -> None:
        if form not in Form.__args__:
            raise ValueError(f"form must be one of {', '.join(Form.__args__)}, not {form!r}")
        self.horizon, self.context, self.season, self.target, self.form = horizon, context, season, target, form
        self.sample, self.limit, self.joint, self.reasons = sample, limit, panel.joint, reasons or []
        self.lags = calendar.lags(panel.freq)
        self.shortest = max(target.lag, 1)
        if form == "steps" and context < target.lag + max(self.lags) + 1:
            raise UserError(
                f"data.context_length: {context} steps are too few, the longest lag reaches back "
                f"{target.lag + max(self.lags)}; set it to {target.lag + max(self.lags) + horizon}"
            )
        self.moments = moments or {
            "past": _moments([b.past for b in panel.blocks]),
            "known": _moments([b.known for b in panel.blocks]),
        }
        self.stats = stats or self.measure(panel)
        self.integer = torch.from_numpy(panel.integer) if panel.joint else torch.tensor(bool(panel.integer.all()))
        self.tail = panel.tail(context + 2 * max(season, 1))

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
        return [said, *self.reasons]

    # ---- statistics

    def measure(self, panel: Panel) -> Stats:
        """What is known of the series of a panel."""
        rows = []
        for block in panel.blocks:
            z = self.target.forward(torch.from_numpy(block.values))
            mean = z.nanmean(0).nan_to_num(0.0)
            level = _root(z - mean)
            low, high = (_edges(z, mean, sign) for sign in (-1, 1))
            reach = _BEYOND * (high - low).clamp(min=1e-6)
            floor = low - reach
            if self.target.transform != "log":  # where nothing was below zero, no path goes there
                floor = torch.where(low >= 0, floor.clamp(min=0.0), floor)
            steps = self.target.steps(z, mean) if len(z) > self.target.lag else z - mean
            rows.append([mean, level, _root(steps, level), floor, high + reach])
        parts = [torch.cat(part) for part in zip(*rows, strict=True)]
        return Stats(*parts, torch.from_numpy(np.asarray(panel.static, np.float64)))

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

    def encode(self, window: Window, generator: torch.Generator | None = None) -> Batch:
        """The state of windows with their futures (NaN where missing), and the condition; a draw of the series if there are many."""
        if generator is not None and 0 < self.sample < window.z.shape[2]:
            window = window.columns(torch.randperm(window.z.shape[2], generator=generator)[: self.sample])
        frame = self.frame(window)
        x0 = self.state(window, frame)
        return Batch(x0.clamp(-self.limit, self.limit).float(), self.condition(window, frame))

    def state(self, window: Window, frame: Frame) -> Tensor:
        """Targets of windows in the codec's form."""
        if self.form == "block":
            return self.target.encode(window.z[:, self.context :], frame)
        whole = self._whole(window, frame)
        return whole if self.form == "window" else whole[:, max(self.lags) :]

    def _whole(self, window: Window, frame: Frame) -> Tensor:
        """(B, L - lag + H, D) targets along past and future."""
        return self.target.steps(window.z, frame.base) / frame.scale

    def condition(self, window: Window, frame: Frame) -> dict[str, Tensor]:
        """What the network is shown of windows, their futures not among it (but for `steps`, where each step is shown those before)."""
        if self.form == "block":
            return features(self, window, frame)
        skip = self.target.lag + (max(self.lags) if self.form == "steps" else 0)
        parts = [
            window.calendar,
            *(part.flatten(2) for part in (window.known, window.past)[: 1 + (self.form == "window")]),
        ]
        cond = {"time": torch.cat(parts, 2)[:, skip:].nan_to_num(0.0).float()}
        if self.form == "steps":
            cond["lags"] = self.lagged(self._whole(window, frame))
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
        batch = self.encode(Window(*(part[:1] for part in window[:4]), Stats(*(part[:1] for part in window.stats))))
        sizes = tree_map(lambda leaf: leaf.shape[-1], batch.cond)
        return {
            "horizon": self.horizon, "series": batch.x.shape[2], "length": batch.x.shape[1], "lags": len(self.lags), **sizes,
        }  # fmt: skip

    def like(self, n: int) -> tuple[int, ...]:
        size = len(self.names) if self.joint else 1
        return (n, self.context - self.target.lag + self.horizon if self.form == "window" else self.horizon, size)

    def decode(self, x: Tensor) -> np.ndarray:
        """Paths are drawn in the units of the series already; see `generate`."""
        return x.numpy()

    def save(self, folder: Path) -> None:
        blocks, tensors = [], {}
        for i, block in enumerate(self.tail.blocks):
            names = [covariates.plain(name, "series") for name in block.names]
            blocks.append({"names": names, "start": block.index[0].isoformat(), "unit": block.index.unit})
            for key in ("values", "past", "known"):
                tensors[f"{i}.{key}"] = torch.from_numpy(np.ascontiguousarray(getattr(block, key)))
        for key, (mean, deviation) in self.moments.items():
            tensors |= {f"{key}.mean": mean, f"{key}.deviation": deviation}
        tensors |= {f"stats.{key}": part.contiguous() for key, part in self.stats._asdict().items()}
        tensors |= {"static": torch.from_numpy(self.tail.static), "integer": torch.from_numpy(self.tail.integer)}
        kept = {
            name: getattr(self, name) for name in ("horizon", "context", "season", "form", "sample", "limit", "reasons")
        }
        panel = {name: getattr(self.tail, name) for name in ("freq", "joint", "past_names", "known_names", "schema")}
        content = {"codec": "series", **kept, "target": asdict(self.target), "panel": panel, "blocks": blocks}
        (Path(folder) / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        save_file(tensors, Path(folder) / TENSORS)

    @classmethod
    def load(cls, folder: Path) -> SeriesCodec:
        """The codec of a run.

        Raises:
            UserError: if a file is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.pop("codec", None) != "series":
                raise ValueError('"codec" must be "series"')
            path = Path(folder) / TENSORS
            tensors = load_file(path)
            panel = _panel(content.pop("panel"), content.pop("blocks"), tensors)
            moments = {key: (tensors[f"{key}.mean"], tensors[f"{key}.deviation"]) for key in ("past", "known")}
            stats = Stats(*(tensors[f"stats.{key}"] for key in Stats._fields))
            return cls(panel, target=Target(**content.pop("target")), moments=moments, stats=stats, **content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: cannot be read, so this is no run of series: {error}") from error
        except Exception as error:  # safetensors has an error class of its own
            raise UserError(f"{path}: damaged: {error}") from error

    def moved(self, panel: Panel) -> SeriesCodec:
        """The same codec with another panel to start forecasts from."""
        found = object.__new__(SeriesCodec)
        found.__dict__.update(self.__dict__, tail=panel.tail(self.context + 2 * max(self.season, 1)))
        return found


def _panel(kept: dict[str, Any], blocks: list[dict[str, Any]], tensors: dict[str, Tensor]) -> Panel:
    made = []
    for i, block in enumerate(blocks):
        values, past, known = (tensors[f"{i}.{key}"].numpy() for key in ("values", "past", "known"))
        index = pd.date_range(pd.Timestamp(block["start"]), periods=len(values), freq=kept["freq"]).as_unit(
            block["unit"]
        )
        names = tuple(covariates.unplain(name) for name in block["names"])
        made.append(Block(names, index, values, past, known))
    schema = kept["schema"]
    zone = schema.get("tz")
    if zone:
        made = [replace(block, index=_zoned(block.index, zone)) for block in made]
    return Panel(
        tuple(made), kept["freq"], kept["joint"], tuple(kept["past_names"]), tuple(kept["known_names"]),
        tensors["static"].numpy(), schema, tensors["integer"].numpy(),
    )  # fmt: skip


def _zoned(index: pd.DatetimeIndex, zone: str) -> pd.DatetimeIndex:
    start = index[0].tz_convert(zone)
    return pd.date_range(start, periods=len(index), freq=index.freq).as_unit(index.unit)


def _moments(parts: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(K,) mean and deviation of covariates (T, D or 1, K) over rows and series."""
    rows = torch.from_numpy(
        np.concatenate([part.reshape(part.shape[0] * part.shape[1], part.shape[2]) for part in parts])
    )
    mean = rows.nanmean(0).nan_to_num(0.0)
    return mean, _root(rows - mean)


def _root(deviations: Tensor, otherwise: Tensor | float = 1.0) -> Tensor:
    """(D,) root mean square over what is there; `otherwise` where there is nothing but zeros."""
    root = deviations.square().nanmean(0).sqrt().nan_to_num(0.0)
    return torch.where(root > 1e-9, root, torch.as_tensor(otherwise, dtype=root.dtype))


def _edges(z: Tensor, mean: Tensor, sign: int) -> Tensor:
    edge = (sign * z).nan_to_num(-torch.inf).amax(0) * sign
    return torch.where(edge.isfinite(), edge, mean)
