"""A residual network over the whole horizon of all series: the default where they are few."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import TimeEmbedding
from diffusionkit.timeseries.backbones.layers import TIME, Block, missing, zero


class BlockMLP(nn.Module):
    """States and features are embedded, summed, and pass through residual layers; one head gives all steps of all series.

    The state itself reaches the output by a factor that depends on t alone: what is left to learn is how steps and series hang
    together and what the past says of them.

    Args:
        horizon: H, from the data.
        series: D, from the data.
        own: features of each series, from the data.
        shared: features of all, from the data.
        sample: how many series a batch draws, from the data; this network needs all of them.
        width: of the hidden states.
        depth: number of residual layers.
        expansion: width of a layer's inside in units of `width`.
        dropout: of features and within the layers.
    """

    masks = staticmethod(missing)

    def __init__(
        self,
        horizon: int,
        series: int,
        own: int,
        shared: int,
        sample: int = 0,
        width: int = 384,
        depth: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if sample:
            raise ValueError(
                f"has a place for each of the {series} series; set data.codec.sample to 0, or take 'inverted'"
            )
        self.state = nn.Linear(horizon * series, width)
        self.features = nn.Sequential(nn.Dropout(dropout), nn.Linear(series * own + shared, width))
        self.time = TimeEmbedding(64, TIME)
        self.blocks = nn.ModuleList(Block(width, 0, expansion, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), zero(nn.Linear(width, horizon * series))
        self.through = zero(nn.Linear(TIME, 1))

    def encode(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the features say, (B, width): the same at every step of a sampler."""
        return {"encoded": self.features(torch.cat([cond["own"].flatten(1), cond["shared"]], 1))}

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        x = x.nan_to_num(0.0)
        time = F.silu(self.time(t))
        h = (self.state(x.flatten(1)) + (cond if "encoded" in cond else self.encode(cond))["encoded"])[:, None]
        for block in self.blocks:
            h = block(h, time)
        return self.out(self.norm(h)).view_as(x) + self.through(time)[:, None] * x
