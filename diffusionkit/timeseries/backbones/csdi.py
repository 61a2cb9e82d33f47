"""CSDI: attention along time and across series over a whole window, of which any part may be given (Tashiro et al. 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import Attention, TimeEmbedding
from diffusionkit.nn.embedding import sinusoidal
from diffusionkit.timeseries.backbones.layers import zero
from diffusionkit.timeseries.targets import neighbours


class WindowMasks:
    """What of a window (B, T, D) is given in training; missing entries (NaN) are given, too, as missing ones.

    Args:
        ahead: steps at the end that are never given.
        kind: `random` gives a share of the entries that is itself drawn from 0 to 1; `forecast` all but the last `ahead` steps;
            `mixed` a half of each, and nothing at all for one window in twenty, so that new ones can be drawn.
    """

    def __init__(self, ahead: int, kind: Literal["random", "forecast", "mixed"]) -> None:
        if kind not in ("random", "forecast", "mixed"):
            raise ValueError(f"masks must be random, forecast or mixed, not {kind!r}")
        self.ahead, self.kind = ahead, kind

    def __call__(self, x0: Tensor, rows: None = None) -> Tensor:
        n, device = len(x0), x0.device
        past = torch.ones_like(x0, dtype=torch.bool)
        past[:, x0.shape[1] - self.ahead :] = False
        if self.kind == "forecast":
            return past | x0.isnan()
        given = torch.rand_like(x0) < torch.rand(n, 1, 1, device=device)
        if self.kind == "mixed":
            chance = torch.rand(n, 1, 1, device=device)
            given = torch.where(chance < 0.475, past, given) & (chance < 0.95)
        return given | x0.isnan()


class CSDINetwork(nn.Module):
    """Gated residual layers, each with attention along time, then across series, on channels of every entry of a window.

    Args:
        horizon: H, from the data.
        series: D, from the data.
        time: features of a step, from the data.
        channels: of each entry.
        depth: residual layers.
        heads: of the attentions.
        steps: width of the embedding of t.
        positions: width of the embedding of the place in the window.
        names: width of the embedding of a series.
        masks: what is given in training: random, forecast or mixed.
        interpolated: show the line between what is given before and after as well (after Liu et al. 2023, PriSTI), and let line and
            state reach the output by factors that depend on t alone: what is left to learn is how series depart from it.
    """

    def __init__(
        self,
        horizon: int,
        series: int,
        time: int,
        channels: int = 64,
        depth: int = 4,
        heads: int = 8,
        steps: int = 128,
        positions: int = 128,
        names: int = 16,
        masks: Literal["random", "forecast", "mixed"] = "mixed",
        interpolated: bool = False,
    ) -> None:
        super().__init__()
        self.masks, self.positions = WindowMasks(horizon, masks), positions
        self.time = nn.Sequential(TimeEmbedding(steps, steps), nn.SiLU())
        self.names = nn.Parameter(torch.randn(series, names))
        self.through = zero(nn.Linear(steps, 2)) if interpolated else None
        self.first = nn.Linear(4 if interpolated else 3, channels)
        self.layers = nn.ModuleList(
            WindowLayer(channels, heads, steps, positions + names + time + 1) for _ in range(depth)
        )
        self.mix, self.last = nn.Linear(channels, channels), nn.Linear(channels, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        absent = x.isnan()
        given = absent if given is None else given
        x = x.nan_to_num(0.0)
        known = (given & ~absent).to(x.dtype)
        side = self._side(cond["time"], known)
        time, total = self.time(t), 0.0
        shown, out = [x * known, x * (1 - known), absent.to(x.dtype)], 0.0
        if self.through is not None:
            shown.append(line := between(x, known > 0))
            of_state, of_line = self.through(time)[:, :, None, None].unbind(1)
            out = of_state * x + of_line * line
        h = F.relu(self.first(torch.stack(shown, 3)))
        for layer in self.layers:
            h, skip = layer(h, time, side)
            total = total + skip
        return out + self.last(F.relu(self.mix(total / len(self.layers) ** 0.5)))[..., 0]

    def _side(self, time: Tensor, known: Tensor) -> Tensor:
        """(B, T, D, channels) where and when each entry is, and whether it is given."""
        n, length, series = known.shape
        places = torch.arange(length, device=known.device, dtype=time.dtype)
        where = sinusoidal(places, self.positions, scale=1.0)
        parts = [where[None, :, None], self.names[None, None], time[:, :, None], known[..., None]]
        return torch.cat([part.expand(n, length, series, -1) for part in parts], 3)


def between(x: Tensor, known: Tensor) -> Tensor:
    """(B, T, D) the line between the known entries before and after each one; the nearest beyond them, 0 where there are none."""
    length = x.shape[1]
    before, after = neighbours(known)
    left, right = x.gather(1, before.clamp(min=0)), x.gather(1, after.clamp(max=length - 1))
    left, right = torch.where(before < 0, right, left), torch.where(after < length, right, left)
    place = torch.arange(length, device=x.device)[:, None]
    line = torch.lerp(left, right, (place - before) / (after - before).clamp(min=1))
    return torch.where((before < 0) & (after == length), 0.0, line)


class WindowLayer(nn.Module):
    """One residual layer: time added, attention along time, attention across series, a gate under the side information."""

    def __init__(self, channels: int, heads: int, steps: int, side: int) -> None:
        super().__init__()
        self.time = nn.Linear(steps, channels)
        self.along, self.across = Mixer(channels, heads), Mixer(channels, heads)
        self.inner, self.side = nn.Linear(channels, 2 * channels), nn.Linear(side, 2 * channels)
        self.out = nn.Linear(channels, 2 * channels)

    def forward(self, h: Tensor, time: Tensor, side: Tensor) -> tuple[Tensor, Tensor]:
        n, length, series, _ = h.shape
        y = h + self.time(time)[:, None, None]
        y = self.along(y.transpose(1, 2).flatten(0, 1)).unflatten(0, (n, series)).transpose(1, 2)
        if series > 1:
            y = self.across(y.flatten(0, 1)).unflatten(0, (n, length))
        gate, values = (self.inner(y) + self.side(side)).chunk(2, 3)
        rest, skip = self.out(gate.sigmoid() * values.tanh()).chunk(2, 3)
        return (h + rest) / 2**0.5, skip


class Mixer(nn.Module):
    """A post-norm transformer layer over (N, L, channels), with an inner width of 64 as in the reference."""

    def __init__(self, channels: int, heads: int, inner: int = 64) -> None:
        super().__init__()
        self.attention = Attention(channels, heads)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.layers = nn.Sequential(nn.Linear(channels, inner), nn.GELU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = self.norms[0](x + self.attention(x))
        return self.norms[1](x + self.layers(x))
