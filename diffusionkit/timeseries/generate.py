"""From windows of the past to paths of what comes, filled gaps and new series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from diffusionkit.core import Sampler
from diffusionkit.core.samplers import evaluating
from diffusionkit.errors import UserError
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.targets import Frame
from diffusionkit.timeseries.windows import Rows, Window, joined

Watch = Callable[..., None] | None


def paths(
    diffusion: Any,
    codec: SeriesCodec,
    windows: Window,
    n: int,
    sampler: Sampler,
    batch_size: int = 1024,
    watch: Watch = None,
) -> Tensor:
    """n joint paths of the horizon for each window, all windows in the same calls.

    Args:
        diffusion: a `Diffusion`, or a guided one.
        codec: of the run.
        windows: W of them; their futures are not looked at.
        n: paths of each.
        sampler: how to step from noise to data.
        batch_size: paths drawn at a time.
        watch: called at every step of the sampler.

    Returns:
        (W, n, H, D) float64, in the units of the data.
    """
    windows = _hidden(codec, windows)
    draw = {"block": _block, "steps": _steps, "window": _window}[codec.form]
    numbers = torch.arange(len(windows.z)).repeat_interleave(n)
    frame, device = codec.frame(windows), next(diffusion.parameters()).device
    shown = _prepared(diffusion, codec, windows, frame, device)
    drawn = []
    for part in numbers.split(batch_size):
        own = Frame(*(entry[part] for entry in frame))
        x = draw(diffusion, codec, {name: entry[part.to(device)] for name, entry in shown.items()}, sampler, watch)
        stats = type(windows.stats)(*(entry[part] for entry in windows.stats))
        drawn.append(codec.values(x.cpu().double(), windows._replace(stats=stats), own))
    return torch.cat(drawn).unflatten(0, (len(windows.z), n))


def _hidden(codec: SeriesCodec, windows: Window) -> Window:
    """The windows without their futures."""
    z = windows.z.clone()
    z[:, codec.context :] = torch.nan
    return windows._replace(z=z)


def _prepared(diffusion: Any, codec: SeriesCodec, windows: Window, frame: Frame, device: torch.device) -> dict:
    """What the paths of a window share, worked out once for all of them."""
    cond = {name: entry.to(device) for name, entry in codec.condition(windows, frame).items()}
    if codec.form == "window":
        return cond | {"state": codec.state(windows, frame).float().to(device)}
    network = _network(diffusion)
    with torch.no_grad(), evaluating(network):
        if codec.form == "block":
            return network.encode(cond)
        past, coming = ({k: v.split([v.shape[1] - codec.horizon, codec.horizon], 1)[i] for k, v in cond.items() if k != "scale"}
                        for i in (0, 1))  # fmt: skip
        _, memory = network.recur(past["lags"], past["time"], cond["scale"])
    whole = codec.whole(windows, frame).float().to(device)
    return {"memory": memory, "scale": cond["scale"], "time": coming["time"], "past": whole[:, : -codec.horizon]}


def _network(diffusion: Any) -> Any:
    """The network of a diffusion, or of one that is guided."""
    while hasattr(diffusion, "diffusion"):
        diffusion = diffusion.diffusion
    return diffusion.network


def _block(diffusion: Any, codec: SeriesCodec, shown: dict, sampler: Sampler, watch: Watch) -> Tensor:
    size = codec.like(1)[2]
    return sampler(diffusion, like=(len(next(iter(shown.values()))), codec.horizon, size), cond=shown, watch=watch)


def _steps(diffusion: Any, codec: SeriesCodec, shown: dict, sampler: Sampler, watch: Watch) -> Tensor:
    """One step of time after the other; each is drawn given the state of the recurrent network, which is then moved on."""
    memory, m, states, network = shown["memory"], max(codec.lags), [], _network(diffusion)
    whole = shown["past"][:, -m:]
    for step in range(codec.horizon):
        lags = codec.lagged(torch.cat([whole[:, -m:], whole[:, -1:]], 1))  # of the last row itself nothing is shown
        with torch.no_grad(), evaluating(network):
            hidden, memory = network.recur(lags, shown["time"][:, step : step + 1], shown["scale"], memory)
        x = sampler(diffusion, like=(len(whole), 1, whole.shape[2]), cond={"hidden": hidden}, watch=watch)
        whole = torch.cat([whole, x], 1)
        states.append(x)
    return torch.cat(states, 1)


def _window(diffusion: Any, codec: SeriesCodec, shown: dict, sampler: Sampler, watch: Watch) -> Tensor:
    shown = dict(shown)
    state = shown.pop("state")
    given = torch.ones_like(state, dtype=torch.bool)
    given[:, -codec.horizon :] = False
    x = sampler(diffusion, like=tuple(state.shape), cond=shown, given=given, known=state, watch=watch)
    return x[:, -codec.horizon :]


def forecast(
    diffusion: Any,
    codec: SeriesCodec,
    starts: Sequence[tuple[Rows, Tensor]],
    n: int,
    horizon: int,
    sampler: Sampler,
    batch_size: int = 1024,
    watch: Watch = None,
) -> Tensor:
    """n paths from each origin; beyond the horizon that was trained for, they go on from what has been drawn.

    Args:
        diffusion: a `Diffusion`, or a guided one.
        codec: of the run.
        starts: rows that hold the pasts, and as many behind them as the horizon, with the rows (W,) where futures begin.
        n: paths of each.
        horizon: steps.
        sampler: how to step from noise to data.
        batch_size: paths drawn at a time.
        watch: called at every step of the sampler.

    Returns:
        (W, n, horizon, D) float64, in the units of the data; the windows of all starts one after the other.
    """
    first = codec.widened(_hidden(codec, _windows(codec, starts, 0)))
    found = paths(diffusion, codec, first, n, sampler, batch_size, watch)
    while found.shape[2] < horizon:
        windows, flat = _windows(codec, starts, found.shape[2])._replace(stats=first.stats), found.flatten(0, 1)
        numbers = torch.arange(len(flat)).split(batch_size)
        more = [
            paths(diffusion, codec, _grown(codec, windows.take(part // n), flat[part]), 1, sampler, batch_size, watch)
            for part in numbers
        ]
        found = torch.cat([found, torch.cat(more)[:, 0].unflatten(0, (-1, n))], 2)
    return found[:, :, :horizon]


def _windows(codec: SeriesCodec, starts: Sequence[tuple[Rows, Tensor]], after: int) -> Window:
    return joined([rows.windows(origins + after, codec.horizon) for rows, origins in starts])


def _grown(codec: SeriesCodec, windows: Window, drawn: Tensor) -> Window:
    """Windows whose pasts end with what has been drawn (B, h, D), where covariates known up to now are not known."""
    new = codec.target.forward(drawn)[:, -codec.context :]
    z, past, first = windows.z.clone(), windows.past.clone(), codec.context - new.shape[1]
    z[:, first : codec.context] = new
    past[:, first:] = torch.nan
    return windows._replace(z=z, past=past)


def continued(
    diffusion: Any,
    codec: SeriesCodec,
    panels: Sequence[Panel],
    horizon: int,
    n: int,
    sampler: Sampler,
    batch_size: int = 1024,
    watch: Watch = None,
) -> list[Tensor]:
    """n paths (n, horizon, D) of all series after the last rows of each panel, drawn in the same calls."""
    rounds = -(-horizon // codec.horizon)
    rows = [Rows(panel, codec, rounds * codec.horizon) for panel in panels]
    x = forecast(diffusion, codec, [(one, one.ends) for one in rows], n, horizon, sampler, batch_size, watch)
    parts = x.split([len(one.ends) for one in rows])
    return [part[0] if codec.joint else part[..., 0].permute(1, 2, 0) for part in parts]


def filled(
    diffusion: Any, codec: SeriesCodec, windows: Window, missing: Tensor, sampler: Sampler, watch: Watch = None
) -> Tensor:
    """Windows (B, L + H, D) of values, drawn where `missing` says so given everything else in them.

    Entries that are NaN but not to be drawn are shown to the network as missing. Where nothing is drawn, values come back only up
    to rounding.
    """
    windows = codec.widened(windows)
    frame, device = codec.frame(windows), next(diffusion.parameters()).device
    state = codec.state(windows, frame).float().clamp(-codec.limit, codec.limit)
    cond = {name: entry.to(device) for name, entry in codec.condition(windows, frame).items()}
    given, known = ~missing.to(device), state.to(device)
    x = sampler(diffusion, like=tuple(state.shape), cond=cond, given=given, known=known, watch=watch)
    return codec.values(x.cpu().double(), windows, frame)


def unconditional(diffusion: Any, codec: SeriesCodec, n: int, sampler: Sampler, batch_size: int = 64) -> Tensor:
    """(n, L + H, D) new windows, which end at random times of the last two seasons of the training part."""
    rows = Rows(codec.tail, codec)
    block = torch.randint(len(rows.ends), (n,))
    back = torch.randint(2 * max(codec.season, 1), (n,)).minimum((rows.ends - rows.starts)[block] - codec.horizon)
    drawn = []
    for part in (rows.ends[block] - codec.horizon - back.clamp(min=0)).split(batch_size):
        windows = rows.windows(part, codec.horizon)
        empty = windows._replace(z=torch.full_like(windows.z, torch.nan))
        drawn.append(filled(diffusion, codec, empty, torch.ones_like(empty.z, dtype=torch.bool), sampler))
    return torch.cat(drawn)


def refuse(codec: SeriesCodec, what: str) -> None:
    """Refuses a model whose states are not whole windows of levels."""
    if codec.form != "window" or codec.target.lag:
        raise UserError(f"this model draws what comes after a past; one of whole windows {what}: use preset='csdi'")
