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

    Several members are an ensemble: each learns from a part of its own of every batch, and drawing averages their outputs. What one
    network learns by heart, the others do not (bagging, Breiman 1996).

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
        members: number of networks.
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
        members: int = 1,
    ) -> None:
        super().__init__()
        if sample:
            raise ValueError(
                f"has a place for each of the {series} series; set data.codec.sample to 0, or take 'inverted'"
            )
        if members < 1:
            raise ValueError(f"members must be at least 1, not {members}")
        size, features = horizon * series, series * own + shared
        self.members = nn.ModuleList(_Member(size, features, width, depth, expansion, dropout) for _ in range(members))

    def encode(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the features say, (B, members, width): the same at every step of a sampler."""
        shown = _flat(cond)
        return {"encoded": torch.stack([member.features(shown) for member in self.members], 1)}

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        flat = x.nan_to_num(0.0).flatten(1)
        if self.training and "encoded" not in cond:
            parts = zip(*(part.tensor_split(len(self.members)) for part in (flat, t, _flat(cond))), strict=True)
            found = [member(x, t, member.features(f)) for member, (x, t, f) in zip(self.members, parts, strict=True)]
            return torch.cat(found).view_as(x)
        encoded = (cond if "encoded" in cond else self.encode(cond))["encoded"].unbind(1)
        found = [member(flat, t, shown) for member, shown in zip(self.members, encoded, strict=True)]
        return torch.stack(found).mean(0).view_as(x)


def _flat(cond: dict[str, Tensor]) -> Tensor:
    return torch.cat([cond["own"].flatten(1), cond["shared"]], 1)


class _Member(nn.Module):
    """One network of states (B, size) under features (B, features)."""

    def __init__(self, size: int, features: int, width: int, depth: int, expansion: float, dropout: float) -> None:
        super().__init__()
        self.state = nn.Linear(size, width)
        self.features = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, width))
        self.time = TimeEmbedding(64, TIME)
        self.blocks = nn.ModuleList(Block(width, 0, expansion, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), zero(nn.Linear(width, size))
        self.through = zero(nn.Linear(TIME, 1))

    def forward(self, x: Tensor, t: Tensor, encoded: Tensor) -> Tensor:
        time = F.silu(self.time(t))
        h = (self.state(x) + encoded)[:, None]
        for block in self.blocks:
            h = block(h, time)
        return self.out(self.norm(h))[:, 0] + self.through(time) * x
