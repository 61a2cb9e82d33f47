"""What a window's past says in a few numbers a series: the condition of models that draw the whole horizon at once.

What a condition shows matters more than the network: recent steps, recent levels, the same steps of earlier seasons, the
means of earlier seasons, all relative to the last value and in the window's own scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diffusionkit.timeseries.targets import Frame, filled

if TYPE_CHECKING:
    from diffusionkit.timeseries.codec import SeriesCodec
    from diffusionkit.timeseries.windows import Stats, Window

SHOWN = ("steps", "levels", "standing", "seasons", "means", "calendar")
"""Parts of the past that are shown, each of which may be left out: the last targets; the last levels; where the last one stands
in the range of training; the steps to come in earlier seasons; the means of earlier seasons; the calendar. Scales and covariates
always are."""
_RECENT = 60  # steps of the past that are shown one by one where nobody says how many
_SEASONS = 14  # seasons whose means are shown
_LIMIT = 10.0


def features(codec: SeriesCodec, window: Window, frame: Frame) -> dict[str, Tensor]:
    """The condition of windows.

    Returns:
        own: (B, D, F) of each series; shared: (B, S) of all.
    """
    past = window.z[:, : codec.context]
    full = filled(past, window.stats.mean)
    last = full[:, -1:]
    made = {
        "steps": lambda: _steps(codec, past, frame),
        "levels": lambda: _levels(codec, full, last, frame),
        "standing": lambda: [(last - window.stats.mean) / window.stats.level],
        "seasons": lambda: _seasons(codec, full, last, frame),
        "means": lambda: _means(codec, full, last, frame),
    }
    parts = [part for name in codec.shown if name in made for part in made[name]()]
    parts.append(_state(codec, past, frame, window.stats))
    each, shared = _covariates(codec, window)
    now = [window.calendar[:, codec.context, : None if "calendar" in codec.shown else 0]]
    own = torch.cat([torch.cat(parts, 1).transpose(1, 2), *each, window.stats.static], 2)
    return {
        "own": own.nan_to_num(0.0).clamp(-_LIMIT, _LIMIT).float(),
        "shared": torch.cat([*now, *shared], 1).nan_to_num(0.0).float(),
    }


def _recent(codec: SeriesCodec) -> int:
    wanted = codec.recent or min(max(2 * codec.horizon, 24), _RECENT)
    return min(codec.context - codec.target.lag, wanted)


def _steps(codec: SeriesCodec, past: Tensor, frame: Frame) -> list[Tensor]:
    """The latest targets, (B, n, D)."""
    if not codec.target.lag:
        return []
    return [codec.target.steps(past, frame.base)[:, -_recent(codec) :] / frame.scale]


def _levels(codec: SeriesCodec, full: Tensor, last: Tensor, frame: Frame) -> list[Tensor]:
    """The latest levels relative to the last one, in the scale of what they may do from step to step."""
    return [(full[:, -min(_recent(codec), codec.context) :] - last) / frame.scale]


def _seasons(codec: SeriesCodec, full: Tensor, last: Tensor, frame: Frame) -> list[Tensor]:
    """The steps to come, one season before and on the average of up to seven."""
    seasons = _cut(codec, full)
    if seasons is None:
        return []
    ahead = torch.arange(codec.horizon) % codec.season
    return [(part[:, ahead] - last) / frame.scale for part in (seasons[:, -1], seasons[:, -7:].mean(1))]


def _means(codec: SeriesCodec, full: Tensor, last: Tensor, frame: Frame) -> list[Tensor]:
    """The means of the latest seasons."""
    seasons = _cut(codec, full)
    return [] if seasons is None else [(seasons[:, -_SEASONS:].mean(2) - last) / frame.scale]


def _cut(codec: SeriesCodec, full: Tensor) -> Tensor | None:
    """(B, seasons, s, D) whole seasons of a past, up to its end; None if there is none."""
    s, length = codec.season, full.shape[1]
    if s < 2 or length < s:
        return None
    return full[:, length - length // s * s :].unflatten(1, (-1, s))


def _state(codec: SeriesCodec, past: Tensor, frame: Frame, stats: Stats) -> Tensor:
    """How lively the series is beside what it was in training: scale, recent scale, share observed; (B, 3, D)."""
    center = frame.base[:, -1:]
    recent = codec.target.steps(past, center)[:, -max(5, codec.season) :].square().nanmean(1, keepdim=True).sqrt()
    return torch.cat(
        [
            (frame.scale / stats.spread).log(),
            (recent / frame.scale + 0.05).log(),
            past.isfinite().to(past.dtype).mean(1, keepdim=True),
        ],
        1,
    )


def _covariates(codec: SeriesCodec, window: Window) -> tuple[list[Tensor], list[Tensor]]:
    """Covariates as (B, D, n) of each series and (B, n) of all: those known ahead over the horizon and one season before it,
    those known up to now at the last row and on the average of a season."""
    own, shared = [], []
    now, s = codec.context, min(max(codec.season, 1), codec.context)
    before = now - s + torch.arange(codec.horizon) % s
    for values, known in ((window.known, True), (window.past, False)):
        if not values.shape[3]:
            continue
        if known:
            shown = torch.cat([values[:, now:], values[:, before]], 1)
        else:
            shown = torch.cat([values[:, now - 1 : now], values[:, now - s : now].nanmean(1, keepdim=True)], 1)
        if shown.shape[2] == 1:
            shared.append(shown.flatten(1))
        else:
            own.append(shown.transpose(1, 2).flatten(2))
    return own, shared
