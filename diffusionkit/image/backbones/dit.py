"""The diffusion transformer of Peebles & Xie 2023 (DiT), with adaLN-Zero."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diffusionkit.image.backbones.layers import Conditions, beside
from diffusionkit.image.backbones.text import TextEncoder, Tokens, read
from diffusionkit.image.backbones.unet import null
from diffusionkit.nn import Attention, sinusoidal

_FEATURES = 256  # sinusoidal features of the time


class DiT(nn.Module):
    """Transformer over the patches of a picture, with time, class and token conditions.

    The published sizes, which are named with the patch as in DiT-XL/2, are

    | name | depth | width | heads |
    |------|-------|-------|-------|
    | S    | 12    | 384   | 6     |
    | B    | 12    | 768   | 12    |
    | L    | 24    | 1024  | 16    |
    | XL   | 28    | 1152  | 16    |

    With shape (4, 32, 32), 1000 classes and a learned variance they have 33, 130, 458 and 675 million parameters. Pictures need
    not be square, nor of the size that the network was built for, as long as the patch divides their sides.

    Args:
        shape: channels, height and width of the pictures.
        classes: number of classes, if the network is told the class; index `classes` stands for none.
        patch: side of the patches, in pixels; it must divide the sides of the pictures.
        width: numbers that stand for a patch: a multiple of 4 that `heads` divides.
        depth: number of blocks.
        heads: number of attention heads.
        mlp: width of the hidden layer of a block, in units of `width`.
        dropout: share of features left out in training, after each attention and each hidden layer.
        token_dim: width of `cond["tokens"]`, which each block then also attends to.
        vocabulary: number of ids of `cond["text"]`, if the network reads texts itself; the data decide. Its encoder's tokens, of
            width `text_width`, are then what is attended to.
        text_length: the most ids in a text; the data decide.
        text_width: numbers per token of the text encoder.
        text_depth: blocks of the text encoder.
        text_heads: attention heads of the text encoder.
        pooled_dim: width of `cond["pooled"]`, one vector for a text whose tokens were computed elsewhere; the data decide.
        qk_norm: normalise queries and keys (Esser et al. 2024, Stable Diffusion 3), which keeps long trainings stable.
        augment: whether `cond["augment"]` tells what augmentation did to a picture; the data decide.
        low: channels of `cond["low"]`, a smaller picture brought to the size of x, and seen beside it; the data decide.
        outputs: numbers predicted for each one of a picture: 2 where the variance is learned too.
        eps: added to the variance before the hidden layer of a block; elsewhere it is 1e-6.
        time_steps: length T of a chain of which the network is told the step, 0 to T - 1, in place of 1000 t; so do the networks of
            other libraries.
        time_shift: of n frequencies of the time the last is 10000^-((n - 1) / (n - time_shift)).
        checkpoint: compute activations anew in the backward pass: less memory, about a third more time.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, int, int] = (3, 32, 32),
        classes: int | None = None,
        patch: int = 2,
        width: int = 384,
        depth: int = 12,
        heads: int = 6,
        mlp: float = 4.0,
        dropout: float = 0.0,
        token_dim: int | None = None,
        vocabulary: int | None = None,
        text_length: int = 32,
        text_width: int = 128,
        text_depth: int = 2,
        text_heads: int = 4,
        pooled_dim: int | None = None,
        qk_norm: bool = False,
        augment: bool = False,
        low: int = 0,
        outputs: int = 1,
        eps: float = 1e-6,
        time_steps: int | None = None,
        time_shift: float = 0.0,
        checkpoint: bool = False,
    ) -> None:
        super().__init__()
        if len(shape) != 3 or min(shape) < 1:
            raise ValueError(f"shape must be (channels, height, width), each at least 1, not {tuple(shape)}")
        for name, value in {"patch": patch, "width": width, "depth": depth, "heads": heads}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if width % 4:
            raise ValueError(f"width must be a multiple of 4, not {width}: sines and cosines of rows and of columns")
        if not mlp * width >= 1:
            raise ValueError(f"mlp must be above 0, not {mlp:g}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), not {dropout:g}")
        self.text = TextEncoder(vocabulary, text_length, text_width, text_depth, text_heads) if vocabulary else None
        if self.text is not None:
            token_dim = pooled_dim = text_width
        self.classes, self.token_dim, self.low, self.patch, self.checkpoint = classes, token_dim, low, patch, checkpoint
        self.grid = self._grid(shape[1:])
        self.register_buffer("places", positions(*self.grid, width), persistent=False)
        self.embed = nn.Conv2d(shape[0] + low, width, patch, patch)
        asked = [6 * width] * depth + [2 * width]
        self.conditions = Conditions(_FEATURES, asked, classes, augment, width, low > 0, pooled_dim)
        self.blocks = nn.ModuleList(DiTBlock(width, heads, mlp, dropout, token_dim, qk_norm) for _ in range(depth))
        for block in self.blocks:
            block.norm2.eps = eps
        self.conditions.time.count(time_steps, time_shift)
        self.norm = _norm(width)
        self.last = nn.Linear(width, patch**2 * outputs * shape[0])
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """As the authors do: each block starts as the identity, and the network with zeros."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight.flatten(1))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        time, label = self.conditions.time.layers, self.conditions.label
        for layer in (time[0], time[2], *([label] if label is not None else [])):
            nn.init.normal_(layer.weight, std=0.02)
        zero = [block.token_attention.out for block in self.blocks if block.token_attention is not None]
        for layer in (self.conditions.project, self.last, *zero):
            nn.init.zeros_(layer.weight)

    def forward(self, x: Tensor, t: Tensor, cond: dict[str, Tensor] | None = None) -> Tensor:
        """Pictures (B, C, H, W), times (B,) and conditions -> (B, outputs * C, H, W).

        Args:
            cond: may hold "class" (B,), "text" (B, L) with "text_weights" (B, L), or "tokens" (B, L, token_dim) with "tokens_mask"
                (B, L), true where there is one, and "pooled" (B, pooled_dim); of augmented pictures, "augment" (B, 9). What is
                missing counts as the null condition. With `low`, it holds "low"
                (B, low, H, W) and may hold its noise "low_noise" (B,).

        Raises:
            ValueError: if the patch does not divide the sides of the pictures.
        """
        cond, grid = cond or {}, self._grid(x.shape[2:])
        tokens, pooled = read(self.text, self.token_dim, cond, x)
        places = self.places if grid == self.grid else positions(*grid, self.places.shape[1]).to(self.places)
        h = self.embed(beside(x, cond, self.low)).flatten(2).mT + places
        *conditions, last = self.conditions(t, cond, pooled)
        for block, condition in zip(self.blocks, conditions, strict=True):
            h = self._run(block, h, condition, tokens)
        h = self.last(_modulate(self.norm(h), *last[:, None].chunk(2, 2)))
        return _picture(h, grid, self.patch)

    def null(self, cond: dict[str, Tensor] | None, drop: Tensor) -> dict[str, Tensor] | None:
        """The condition with that of the samples in `drop` (B,) replaced by none: class `classes`, the empty text, tokens of zeros.

        Where it has an entry "negative", what that says takes the place of no text.
        """
        return null(cond, drop, self.classes)

    def _grid(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many patches lie above and beside one another in pictures of this height and width."""
        height, width = size
        if height % self.patch or width % self.patch:
            raise ValueError(f"patch must divide the sides of the pictures, {height}x{width}, not be {self.patch}")
        return height // self.patch, width // self.patch

    def _run(self, block: nn.Module, *arguments: Tensor | Tokens | None) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            from torch.utils.checkpoint import checkpoint

            return checkpoint(block, *arguments, use_reentrant=False)
        return block(*arguments)


class DiTBlock(nn.Module):
    """Self-attention, attention to tokens and a hidden layer, each a residual branch.

    The condition shifts and scales what enters the first and the last, and gates what leaves them (adaLN-Zero).

    Args:
        width: numbers per patch.
        heads: number of attention heads.
        mlp: width of the hidden layer, in units of `width`.
        dropout: share of features left out in training.
        token_dim: width of the tokens; None for self-attention only.
        qk_norm: normalise queries and keys.
    """

    def __init__(
        self, width: int, heads: int, mlp: float, dropout: float, token_dim: int | None = None, qk_norm: bool = False
    ) -> None:
        super().__init__()
        hidden = round(mlp * width)
        self.norm1, self.norm2 = _norm(width), _norm(width)
        self.attention = Attention(width, heads, qk_norm=qk_norm)
        self.token_norm = nn.LayerNorm(width, eps=1e-6) if token_dim else None
        self.token_attention = Attention(width, heads, token_dim, zero=True, qk_norm=qk_norm) if token_dim else None
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU("tanh"), nn.Dropout(dropout), nn.Linear(hidden, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, condition: Tensor, tokens: Tokens | None = None) -> Tensor:
        """(B, L, width), a condition (B, 6 * width) and tokens of width token_dim -> (B, L, width)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = condition[:, None].chunk(6, 2)
        h = h + gate1 * self.dropout(self.attention(_modulate(self.norm1(h), shift1, scale1)))
        if self.token_attention is not None and tokens is not None:
            h = h + self.dropout(self.token_attention(self.token_norm(h), *tokens))
        return h + gate2 * self.mlp(_modulate(self.norm2(h), shift2, scale2))


def positions(rows: int, columns: int, width: int) -> Tensor:
    """(rows * columns, width) sines and cosines of the column, then of the row, of each place of a grid, row by row."""
    across, down = (sinusoidal(torch.arange(n).float(), width // 2, scale=1.0) for n in (columns, rows))
    both = torch.cat([across.expand(rows, -1, -1), down[:, None].expand(-1, columns, -1)], 2)
    return both.unflatten(2, (2, 2, -1)).flip(3).flatten(2).flatten(0, 1)  # the authors have the sines first


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)


def _modulate(h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return torch.addcmul(shift, h, scale + 1)


def _picture(h: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """(B, rows * columns, patch * patch * C) -> (B, C, rows * patch, columns * patch)."""
    h = h.unflatten(1, grid).unflatten(3, (patch, patch, -1))
    return h.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


__all__ = ["DiT"]
