"""TimeGrad: a recurrent network of the past, and a small denoiser of the next step under its state (Rasul et al. 2021)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import TimeEmbedding
from diffusionkit.timeseries.backbones.layers import TIME, Block, missing, zero


class TimeGradNetwork(nn.Module):
    """An LSTM or GRU under lagged values, and for every step the denoiser of the D series under the recurrent state.

    Args:
        series: D, from the data.
        lags: width of the lagged values that each step is shown, from the data.
        time: features of a step, from the data.
        scale: what is shown of the whole window, from the data.
        cell: lstm or gru.
        hidden: width of the recurrent state.
        layers: recurrent layers.
        dropout: between them.
        denoiser: `conv`, the reference's dilated circular convolution along the series, which depends on their order, or
            `attention` between series that share their weights, whatever their order.
        channels: of the denoiser.
        depth: its residual layers.
        heads: of its attention.
    """

    masks = staticmethod(missing)

    def __init__(
        self,
        series: int,
        lags: int,
        time: int,
        scale: int,
        cell: Literal["lstm", "gru"] = "lstm",
        hidden: int = 40,
        layers: int = 2,
        dropout: float = 0.1,
        denoiser: Literal["conv", "attention"] = "conv",
        channels: int = 8,
        depth: int = 8,
        heads: int = 1,
    ) -> None:
        super().__init__()
        self.series, self.layers, self.cell = series, layers, cell
        self.names = nn.Parameter(torch.randn(series))  # an embedding of one number a series, as in the reference
        inputs = lags + series + time + scale
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
        self.recurrent = kind(inputs, hidden, layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        make = {"conv": ConvDenoiser, "attention": AttentionDenoiser}[denoiser]
        self.denoiser = make(series, hidden, channels, depth, heads)

    def recur(self, lags: Tensor, time: Tensor, scale: Tensor, memory: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States (B, T, hidden) after each step, and the memory (B, M) to go on from.

        Args:
            lags: (B, T, lags) what each step is shown of those before.
            time: (B, T, time).
            scale: (B, scale).
            memory: of the steps before.
        """
        shape = (len(lags), lags.shape[1], -1)
        parts = [lags, self.names.expand(*shape), time, scale[:, None].expand(*shape)]
        state = None
        if memory is not None:
            parts_of = (
                memory.unflatten(1, (-1, self.layers, self.recurrent.hidden_size)).permute(1, 2, 0, 3).contiguous()
            )
            state = tuple(parts_of) if self.cell == "lstm" else parts_of[0]
        out, state = self.recurrent(torch.cat(parts, 2), state)
        kept = torch.stack(state if self.cell == "lstm" else (state,))
        return out, kept.permute(2, 0, 1, 3).flatten(1)

    def encode(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """The recurrent state before each step, (B, T, hidden)."""
        return {"hidden": self.recur(cond["lags"], cond["time"], cond["scale"])[0]}

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        hidden = (cond if "hidden" in cond else self.encode(cond))["hidden"]
        steps = x.shape[1]
        out = self.denoiser(x.nan_to_num(0.0).flatten(0, 1), t.repeat_interleave(steps), hidden.flatten(0, 1))
        return out.view_as(x)


class ConvDenoiser(nn.Module):
    """Gated residual convolutions along the series, dilated by 1 and 2 in turn, as in the reference: (N, D) -> (N, D)."""

    def __init__(self, series: int, hidden: int, channels: int, depth: int, heads: int = 1) -> None:
        super().__init__()
        self.time = nn.Sequential(TimeEmbedding(32, 64), nn.SiLU())
        inner = max(series // 2, 1)
        self.condition = nn.Sequential(
            nn.Linear(hidden, 100),
            nn.Linear(100, inner),
            nn.LeakyReLU(0.4),
            nn.Linear(inner, series),
            nn.LeakyReLU(0.4),
        )
        self.first = nn.Conv1d(1, channels, 1)
        self.layers = nn.ModuleList(GatedLayer(channels, 2 ** (i % 2)) for i in range(depth))
        self.mix, self.last = nn.Conv1d(channels, channels, 1), nn.Conv1d(channels, 1, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        time, condition = self.time(t), self.condition(hidden)[:, None]
        h, total = F.leaky_relu(self.first(x[:, None]), 0.4), 0.0
        for layer in self.layers:
            h, skip = layer(h, time, condition)
            total = total + skip
        return self.last(F.leaky_relu(self.mix(total / len(self.layers) ** 0.5), 0.4))[:, 0]


class GatedLayer(nn.Module):
    """A gated dilated convolution with the time added before it and the condition inside (van den Oord et al. 2016)."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.time, self.condition = nn.Linear(64, channels), nn.Conv1d(1, 2 * channels, 1)
        self.conv = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation)
        self.out = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, h: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        y = circular(h + self.time(time)[:, :, None], self.dilation)
        gate, values = (self.conv(y) + self.condition(condition)).chunk(2, 1)
        rest, skip = self.out(gate.sigmoid() * values.tanh()).chunk(2, 1)
        return (h + F.leaky_relu(rest, 0.4)) / 2**0.5, F.leaky_relu(skip, 0.4)


def circular(x: Tensor, reach: int) -> Tensor:
    """(N, C, D) with `reach` neighbours from beyond either end, around the circle as often as it takes for one or two series."""
    places = torch.arange(-reach, x.shape[2] + reach, device=x.device) % x.shape[2]
    return x[:, :, places]


class AttentionDenoiser(nn.Module):
    """Series as tokens with embeddings of their own, joined by attention: (N, D) -> (N, D)."""

    def __init__(self, series: int, hidden: int, channels: int, depth: int, heads: int = 1) -> None:
        super().__init__()
        self.names = nn.Parameter(torch.randn(series, channels) * 0.1)
        self.state, self.condition = nn.Linear(1, channels), nn.Linear(hidden, channels)
        self.time = TimeEmbedding(64, TIME)
        self.blocks = nn.ModuleList(Block(channels, heads) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(channels), zero(nn.Linear(channels, 1))
        self.through = zero(nn.Linear(TIME, 1))

    def forward(self, x: Tensor, t: Tensor, hidden: Tensor) -> Tensor:
        time = F.silu(self.time(t))
        own = torch.einsum("nc,dc->ndc", self.condition(hidden), self.names)
        h = self.state(x[:, :, None]) + self.names + own
        for block in self.blocks:
            h = block(h, time)
        return self.out(self.norm(h))[:, :, 0] + self.through(time) * x
