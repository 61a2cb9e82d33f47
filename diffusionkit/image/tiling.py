"""Pictures larger than a network: overlapping tiles, whose results are blended smoothly."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from diffusionkit.core.guidance import Guided
from diffusionkit.core.state import tree_map


class Tiled(Guided):
    """A diffusion on states of any size: its output is that of overlapping tiles, blended at every step (Bar-Tal et al. 2023).

    As each step blends, neighbouring tiles are drawn from states that agree where they overlap, and nothing is to be seen of their
    borders. With one tile it is the diffusion itself. Guidance goes inside, a threshold outside.

    Args:
        diffusion: of states that may be as large as a tile.
        tile: height and width of the tiles.
        overlap: how far neighbours overlap at least, as a share of a tile.
        batch: tiles that the network sees at a time, which settles the memory that it takes.
        spatial: the entries of the condition that are cut like the state; all others belong to a sample.
    """

    def __init__(
        self,
        diffusion: nn.Module,
        tile: tuple[int, int],
        overlap: float = 0.25,
        batch: int = 16,
        spatial: tuple[str, ...] = ("low",),
    ) -> None:
        super().__init__(diffusion)
        self.tile, self.overlap, self.batch, self.spatial = tile, overlap, batch, spatial

    def forward(self, x_t: Tensor, t: Tensor, cond: Any = None, rows: Any = None, given: Any = None) -> Tensor:
        if rows is not None or given is not None:
            raise ValueError("tiles take neither ragged batches nor given parts")
        wide = {key: value for key, value in (cond or {}).items() if key in self.spatial}
        narrow = {key: value for key, value in (cond or {}).items() if key not in self.spatial}

        def look(tiles: dict[str, Tensor], samples: Tensor) -> Tensor:
            x = tiles.pop("")
            own = tiles | tree_map(lambda leaf: leaf[samples.to(leaf.device)], narrow)
            return self.diffusion(x, t[samples.to(t.device)] if t.ndim else t, own or None)

        return blended(look, {"": x_t, **wide}, self.tile, self.overlap, self.batch)


def blended(
    function: Callable[[dict[str, Tensor], Tensor], Tensor],
    inputs: dict[str, Tensor],
    tile: tuple[int, int],
    overlap: float = 0.25,
    batch: int = 16,
    scale: int = 1,
) -> Tensor:
    """What a function makes of tiles, put together: (B, C', H * scale, W * scale).

    Args:
        function: `function(tiles, samples)` of some tiles of each input, and the number of the sample that each tile is of.
        inputs: (B, C, H, W) each, C their own.
        tile: height and width of a tile.
        overlap: how far neighbours overlap at least, as a share of a tile.
        batch: tiles at a time.
        scale: how much larger the results are than the tiles.
    """
    first = next(iter(inputs.values()))
    height, width = min(tile[0], first.shape[2]), min(tile[1], first.shape[3])
    places = [(y, x) for y in starts(first.shape[2], height, overlap) for x in starts(first.shape[3], width, overlap)]
    window = _window(height * scale, overlap, first)[:, None] * _window(width * scale, overlap, first)
    total: Tensor | None = None
    weight = first.new_zeros(first.shape[2] * scale, first.shape[3] * scale)
    for y, x in places:
        weight[y * scale : (y + height) * scale, x * scale : (x + width) * scale] += window
    every = [(sample, y, x) for sample in range(len(first)) for y, x in places]
    for k in range(0, len(every), batch):
        part = every[k : k + batch]
        cut = {
            name: torch.stack([value[b, :, y : y + height, x : x + width] for b, y, x in part])
            for name, value in inputs.items()
        }
        result = function(cut, torch.tensor([b for b, _, _ in part]))
        if total is None:
            total = result.new_zeros(len(first), result.shape[1], *weight.shape)
        for (b, y, x), one in zip(part, result, strict=True):
            total[b, :, y * scale : (y + height) * scale, x * scale : (x + width) * scale] += one * window
    assert total is not None
    return total.div_(weight)


def starts(size: int, tile: int, overlap: float) -> list[int]:
    """Where tiles begin along a side: evenly spread from end to end, with neighbours that overlap by at least that share."""
    if size <= tile:
        return [0]
    count = 1 + math.ceil((size - tile) / max(1, tile - round(overlap * tile)))
    return [round(i * (size - tile) / (count - 1)) for i in range(count)]


def _window(size: int, overlap: float, like: Tensor) -> Tensor:
    """(size,) weights above 0 that rise over the overlap and fall again, as a squared sine."""
    edge = max(1.0, overlap * size)
    place = torch.arange(size, device=like.device, dtype=like.dtype) + 0.5
    near = torch.minimum(place, size - place) / edge
    return torch.sin(math.pi / 2 * near.clamp(max=1)).square()


__all__ = ["Tiled", "blended", "starts"]
