"""The parts of which the networks of series are made."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.nn import Attention

TIME = 128  # width of the embedding of t


def missing(x0: Tensor, rows: None = None) -> Tensor:
    """Entries that were not observed: the network is shown that they are missing, and they do not count."""
    return x0.isnan()


def zero(layer: nn.Linear) -> nn.Linear:
    """A layer whose output starts as zeros."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


class Block(nn.Module):
    """Pre-norm attention over the second dimension, if asked for, and a SiLU layer, modulated by the time; at first the identity.

    Args:
        width: of the hidden states (B, N, width).
        heads: of the attention; 0 for none.
        expansion: inner width in units of `width`.
        dropout: of both branches.
    """

    def __init__(self, width: int, heads: int = 0, expansion: float = 2.0, dropout: float = 0.0) -> None:
        super().__init__()
        inner = int(expansion * width)
        self.attention = Attention(width, heads, zero=True) if heads else None
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(1 + bool(heads)))
        self.up, self.down = nn.Linear(width, inner), zero(nn.Linear(inner, width))
        self.modulation = zero(nn.Linear(TIME, 2 * width * len(self.norms)))
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """h (B, N, width) under time (B, TIME), one for each sample."""
        *first, scale, shift = self.modulation(time)[:, None].chunk(2 * len(self.norms), 2)
        if self.attention is not None:
            y = self.norms[0](h)
            h = h + self.dropout(self.attention(torch.addcmul(y + first[1], y, first[0])))
        y = self.norms[-1](h)
        y = torch.addcmul(y + shift, y, scale)
        return h + self.down(self.dropout(F.silu(self.up(y))))
