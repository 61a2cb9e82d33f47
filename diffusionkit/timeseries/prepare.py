"""From series to what a model is trained on: the codec, chosen where the recipe leaves it open, and the windows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.domain import Dataset
from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar, measures
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.panel import Block, Panel
from diffusionkit.timeseries.targets import Frame, Target, Transform
from diffusionkit.timeseries.windows import Rows, Stats

_TARGET = tuple(field.name for field in fields(Target))
OPTIONS = (*_TARGET, "season", "form", "sample", "limit", "shown", "recent")
_SEASONS = 14  # in a context
_LONGEST = 336  # steps of a context that nobody asked for
_SHARE = 0.2  # of the training part, at its end, to choose on
_NUMBERS = 10_000_000  # in the windows by which one choice is judged
_PATHS = 100
_SERIES = 32


def prepared(source: Any, parts: Mapping[str, Panel]) -> tuple[SeriesCodec, dict[str, Dataset]]:
    """The codec, fitted on the training part, and the windows of the parts.

    Args:
        source: says `prediction_length`, `context_length` and `codec` (`OPTIONS`).
        parts: "train", and "test" (the training part first) to measure the held-out loss on.

    Raises:
        UserError: if the series have to be put right first.
    """
    train, horizon = parts["train"], source.prediction_length
    codec = fitted(train, horizon, source.context_length, source.codec)
    sets: dict[str, Dataset] = {"train": codec.windows(train)}
    if not len(sets["train"]):
        longest, needed = max(train.blocks, key=len), codec.shortest + horizon
        raise UserError(
            f"series {longest.names[0]!r} has {len(longest)} rows to train on, until {longest.index[-1]}; the longest lag "
            f"{codec.shortest} and the horizon {horizon} take {needed}: give more rows or a shorter prediction_length"
        )
    if "test" in parts:
        grown = max(len(whole) - len(part) for whole, part in zip(parts["test"].blocks, train.blocks, strict=True))
        held = codec.windows(parts["test"], grown)
        if len(held):
            sets["test"] = held
    return codec, sets


def fitted(train: Panel, horizon: int, context: int = 0, options: Mapping[str, Any] | None = None) -> SeriesCodec:
    """The codec of a training part; what the options leave open is chosen on its last fifth.

    Args:
        train: the series.
        horizon: steps to be foretold.
        context: steps to be shown; 0 chooses: 14 seasons, at least two horizons, at most 336 steps.
        options: some of `OPTIONS`.
    """
    options = dict(options or {})
    for name in options:
        if name not in OPTIONS:
            raise UserError(f"codec has no option {name!r}; its options are {', '.join(OPTIONS)}")
    rows = max(len(block) for block in train.blocks)
    seasons = calendar.seasons(train.freq)
    season = options.pop("season", None) or seasons[0]
    known = {name: options.pop(name) for name in _TARGET if name in options}
    further = max(calendar.lags(train.freq)) + 1 if options.get("form") == "steps" else 0
    least = max(2 * horizon, known.get("lag", 0) + max(further, 1), further + horizon)
    context = context or max(least, min(_SEASONS * season, _LONGEST, rows // 3))
    with _told():
        target, reasons = Target(**known), []
    positive(train, target.transform)
    if not {"transform", "lag", "center"} & set(known):
        lags = tuple(dict.fromkeys(lag for lag in (1, *seasons) if lag + further <= context))
        target, reason = chosen(train, horizon, context, lags, known)
        reasons.append(reason)
    with _told():
        return SeriesCodec(train, horizon, context, season, target, reasons=reasons, **options)


@contextmanager
def _told() -> Iterator[None]:
    """Says of impossible options what they are options of."""
    try:
        yield
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"codec: {error}") from error


def positive(train: Panel, transform: str) -> None:
    """Refuses a logarithm of values that have none.

    Raises:
        UserError: naming the first of them.
    """
    floor = {"none": -np.inf, "log": 0.0, "log1p": -1.0}[transform]
    for block in train.blocks:
        if (block.values <= floor).any():
            row, column = np.argwhere(block.values <= floor)[0]
            raise UserError(
                f"series {block.names[column]!r} is {block.values[row, column]:g} at {block.index[row]}, of which transform "
                f"{transform!r} has no value; set codec.transform to 'none'"
            )


def candidates(train: Panel, lags: tuple[int, ...], known: Mapping[str, Any]) -> list[Target]:
    """Levels, steps and changes from season to season, of values and, where all are positive, of their logarithms."""
    low = min(float(np.nanmin(block.values)) for block in train.blocks)
    logs: list[Transform] = ["log"] if low > 0 else ["log1p"] if low == 0 and train.integer.all() else []
    transforms: list[Transform] = ["none", *logs]
    found = []
    for transform in transforms:
        found += [Target(transform, 0, center, **known) for center in ("mean", "series")]
        found += [Target(transform, lag, **known) for lag in lags]
    return found


def chosen(
    train: Panel, horizon: int, context: int, lags: tuple[int, ...], known: Mapping[str, Any]
) -> tuple[Target, str]:
    """The target under which windows of the past are most like those to come.

    Each candidate forecasts windows in the last fifth of the training part by targets drawn from windows before it, of the same
    phase of the longest season: what a model of this target would start from. The lowest CRPS wins.

    Returns:
        The target, and a sentence that says why.
    """
    train = some(train, _SERIES)
    rows = max(len(block) for block in train.blocks)
    test = max(round(_SHARE * rows), horizon)
    scores = {}
    for target in candidates(train, lags, known):
        score = _judged(train, SeriesCodec(train, horizon, context, 1, target), test, max(lags, default=1))
        if np.isfinite(score):
            scores[target] = score
    if not scores:
        return Target(**known), "the series are too short to choose a target on: their level is foretold"
    best = min(scores, key=lambda target: scores[target])
    others = sorted(scores.values())
    second = f" (the next best {others[1]:.3g})" if len(others) > 1 else ""
    return best, f"foretold is {_said(best)}: CRPS {scores[best]:.3g} on the last fifth of the training part{second}"


def some(panel: Panel, most: int) -> Panel:
    """At most so many series of a panel, evenly spaced."""
    if panel.size <= most:
        return panel
    chosen = np.linspace(0, panel.size - 1, most).astype(int)
    if panel.joint:
        block = panel.blocks[0]
        past, known = (part if part.shape[1] == 1 else part[:, chosen] for part in (block.past, block.known))
        blocks = (Block(tuple(block.names[i] for i in chosen), block.index, block.values[:, chosen], past, known),)
    else:
        blocks = tuple(panel.blocks[i] for i in chosen)
    return replace(panel, blocks=blocks, static=panel.static[chosen], integer=panel.integer[chosen])


def _said(target: Target) -> str:
    of = {"none": "", "log": " of the logarithm", "log1p": " of log(1 + y)"}[target.transform]
    if target.lag:
        steps = "last step" if target.lag == 1 else f"{target.lag} steps before"
        return f"the change{of} from the {steps}"
    return f"the level{of}, from the mean of {'the series' if target.center == 'series' else 'the past shown'}"


def _judged(train: Panel, codec: SeriesCodec, test: int, season: int) -> float:
    windows = codec.windows(train)
    origins, ends = windows.origins, windows.rows.ends[windows.rows.block[windows.origins]]
    late = origins >= ends - test
    early = origins + codec.horizon <= ends - test
    if not late.any() or not early.any():
        return float("nan")
    generator = torch.Generator().manual_seed(0)
    size = _PATHS * (codec.context + codec.horizon) * windows.rows.z.shape[1]
    count = max(min(_NUMBERS // size, int(late.sum()), 64), 1)
    judged = origins[late][torch.linspace(0, int(late.sum()) - 1, count).long()]
    pool, phase = origins[early], (ends - origins)[early] % season
    like = []
    for origin in judged:
        same = pool[phase == (windows.rows.ends[windows.rows.block[origin]] - origin) % season]
        same = same if len(same) >= 10 else pool
        like.append(same[torch.randint(len(same), (_PATHS,), generator=generator)])
    shown = windows.rows.windows(judged, codec.horizon)
    frame, targets = codec.frame(shown), _targets(codec, windows.rows, torch.stack(like))
    each = torch.arange(count).repeat_interleave(_PATHS)
    stats = Stats(*(part[each] for part in shown.stats))
    paths = codec.values(targets, shown._replace(stats=stats), Frame(*(part[each] for part in frame)))
    came = codec.target.back(shown.z[:, codec.context :])
    return measures.crps(paths.unflatten(0, (count, _PATHS)).numpy(), came.numpy())


def _targets(codec: SeriesCodec, rows: Rows, origins: Tensor) -> Tensor:
    """(all origins, H, D) targets of windows, each worked out once and few at a time."""
    once, places = torch.unique(origins, return_inverse=True)
    found = []
    for part in once.split(_PATHS):
        windows = rows.windows(part, codec.horizon)
        found.append(codec.state(windows, codec.frame(windows)).nan_to_num(0.0))
    return torch.cat(found)[places.flatten()]
