"""Multi-head attention of sequences to themselves or to others."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head scaled dot-product attention (Vaswani et al. 2017) on (B, L, channels).

    Queries, keys and values come from one matrix product, and no tensor is copied to separate the heads.

    Args:
        channels: width of the sequence that asks.
        heads: number of heads; must divide `channels`.
        context: width of the sequence that is attended to; None for self-attention.
        zero: start with an output of zeros, so that a residual branch starts as the identity.
        qk_norm: normalise queries and keys to a root mean square that is learned, so that their products cannot grow with
            training (Esser et al. 2024, Stable Diffusion 3, section 5.3.2).

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(
        self, channels: int, heads: int = 1, context: int | None = None, zero: bool = False, qk_norm: bool = False
    ) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"heads must divide the {channels} channels of the attention, which {heads} does not")
        self.heads = heads
        self.query = nn.Linear(channels, channels) if context else None
        self.project = nn.Linear(context, 2 * channels) if context else nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.norms = nn.ModuleList(nn.RMSNorm(channels // heads, eps=1e-6) for _ in range(2 if qk_norm else 0))
        if zero:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Attends from x to itself or to `context`.

        Args:
            x: (B, L, channels).
            context: (B, K, width) if the layer was built with a context.
            mask: (B, K), true where attention is allowed; every sample needs one such place.

        Returns:
            (B, L, channels)
        """
        if self.query is None:
            q, k, v = self._heads(self.project(x), 3)
        else:
            (q,), (k, v) = self._heads(self.query(x), 1), self._heads(self.project(context), 2)
        if self.norms:
            q, k = (_normalised(part, norm) for part, norm in zip((q, k), self.norms, strict=True))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
        return self.out(mixed.transpose(1, 2).flatten(2))

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """(B, L, parts * channels) as `parts` views (B, heads, L, channels / heads)."""
        return x.unflatten(2, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)


def _normalised(x: Tensor, norm: nn.RMSNorm) -> Tensor:
    """norm(x) in the precision of x, which mixed precision makes another than that of the weights."""
    return F.rms_norm(x, norm.normalized_shape, norm.weight.to(x.dtype), norm.eps)
