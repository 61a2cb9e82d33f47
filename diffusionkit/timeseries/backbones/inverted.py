"""A transformer whose tokens are series: for many of them, whatever their order."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import TimeEmbedding
from diffusionkit.timeseries.backbones.layers import TIME, Block, missing, zero


class InvertedTransformer(nn.Module):
    """Each series is a token of its noised horizon and its features; attention joins them, and all share their weights.

    The tokens are those of iTransformer (Liu et al. 2024). Nothing depends on the order of the series, nor on their number: a
    model may be trained on draws of them.

    Args:
        horizon: H, from the data.
        own: features of each series, from the data.
        shared: features of all, from the data.
        width: of a token.
        depth: number of layers.
        heads: of the attention; 0 leaves the series alone.
        expansion: width of a layer's inside in units of `width`.
        dropout: of features and within the layers.
    """

    masks = staticmethod(missing)

    def __init__(
        self,
        horizon: int,
        own: int,
        shared: int,
        width: int = 128,
        depth: int = 4,
        heads: int = 4,
        expansion: float = 2.0,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.state = nn.Linear(horizon, width)
        self.own = nn.Sequential(nn.Dropout(dropout), nn.Linear(own, width))
        self.shared = nn.Linear(shared, width) if shared else None
        self.time = TimeEmbedding(64, TIME)
        self.blocks = nn.ModuleList(Block(width, heads, expansion, dropout) for _ in range(depth))
        self.norm, self.out = nn.LayerNorm(width), zero(nn.Linear(width, horizon))
        self.through = zero(nn.Linear(TIME, 1))

    def encode(self, cond: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the features say, (B, D, width): the same at every step of a sampler."""
        h = self.own(cond["own"])
        return {"encoded": h if self.shared is None else h + self.shared(cond["shared"])[:, None]}

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor], given: Tensor | None = None) -> Tensor:
        x = x.nan_to_num(0.0)
        time = F.silu(self.time(t))
        h = self.state(x.transpose(1, 2)) + (cond if "encoded" in cond else self.encode(cond))["encoded"]
        for block in self.blocks:
            h = block(h, time)
        return self.out(self.norm(h)).transpose(1, 2) + self.through(time)[:, None] * x
