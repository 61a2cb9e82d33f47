"""Pictures of any size made larger by a model that has learned it: `diffusionkit upscale`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffusionkit.core import Sampler, guided
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.export import open_writer
from diffusionkit.image.readers import read_whole
from diffusionkit.image.resize import enlarge, match
from diffusionkit.image.stages import as_levels, noise_of
from diffusionkit.image.tiling import Tiled, blended
from diffusionkit.writer import Writer

_LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


@dataclass(frozen=True)
class Upscale:
    """A picture to be made larger, read and checked; what a `diffusionkit.domain.Edit` has to be.

    Args:
        codec: of the model.
        picture: uint8 (1 or 3, h, w).
        times: how often to enlarge by the model's factor.
        noise: on the picture, in levels of 255.
        consistent: change the results so that, made smaller, they are the picture.
        tile: side of the tiles in pixels of the result; that of the pictures the model was trained on if None.
        tiles: tiles at a time.
    """

    codec: PixelCodec
    picture: Tensor
    times: int = 1
    noise: float = 0.0
    consistent: bool = False
    tile: int | None = None
    tiles: int = 16

    def draw(
        self, diffusion: nn.Module, sampler: Sampler, n: int, clip: float | str | None = None, **more: Any
    ) -> Tensor:
        """n results as pictures, uint8 (n, 1 or 3, h factor, w factor); the options are those of `PictureEdit.draw`."""
        cond = {key: value for key, value in (more.pop("cond", None) or {}).items() if not key.startswith("low")}
        with torch.no_grad():
            drawn = [self._one(diffusion, sampler, clip, _rows(cond, i), **more) for i in range(n)]  # memory of one
        return torch.stack(drawn)

    def writer(self, path: str | Path, n: int) -> Writer:
        """Takes what `draw` gives; a single picture keeps its size."""
        channels, height, width = self.picture.shape
        factor = self.codec.smaller.factor**self.times  # type: ignore[union-attr]
        return open_writer(PixelCodec((channels, height * factor, width * factor)), path, n, plain=n == 1)

    def _one(self, diffusion: nn.Module, sampler: Sampler, clip: Any, cond: dict[str, Any], **more: Any) -> Tensor:
        first = _values(self.picture[None])
        values = first
        for k in range(self.times):
            values = self._enlarged(diffusion, sampler, clip, cond, _values(_bytes(values)) if k else values, **more)
        if self.consistent:
            values = match(values, first, values.shape[2] // first.shape[2])
        return _bytes(values)[0]

    def _enlarged(
        self, diffusion: nn.Module, sampler: Sampler, clip: Any, cond: dict[str, Any], values: Tensor, **more: Any
    ) -> Tensor:
        """(1, C, h, w) in [-1, 1] -> (1, C, h factor, w factor), for a model of as many channels or others."""
        channels, factor = self.codec.shape[0], self.codec.smaller.factor  # type: ignore[union-attr]
        seen = values if values.shape[1] == channels else _converted(values, channels)
        pixels = self._states(diffusion, sampler, clip, cond, _bytes(seen), **more)
        if (
            values.shape[1] == 3 and channels == 1
        ):  # colours as bicubic enlargement has them, brightness as the model has it
            return enlarge(values, factor) + pixels - enlarge(seen, factor)
        return pixels if values.shape[1] == channels else pixels.mean(1, keepdim=True)

    def _states(
        self, diffusion: nn.Module, sampler: Sampler, clip: Any, cond: dict[str, Any], seen: Tensor, **more: Any
    ) -> Tensor:
        """uint8 (1, C, h, w) -> what the model draws of it, (1, C, h factor, w factor) about in [-1, 1]."""
        codec, device = self.codec, next(diffusion.parameters()).device
        factor = codec.smaller.factor  # type: ignore[union-attr]
        per = codec.shape[1] // codec.like(1)[2]  # pixels to a side of a state's entry
        padded = _padded(as_levels(seen, codec), codec.small[1:], max(1, per // factor))
        shown = codec.shown(padded, noise_of(codec, self.noise, 1))
        shown = {key: value.to(device) for key, value in shown.items()}
        sides = codec.like(1)[2:] if self.tile is None else (max(1, self.tile // per),) * 2
        like = (1, codec.like(1)[1], *shown["low"].shape[2:])
        tiled = guided(Tiled(diffusion, sides, batch=self.tiles), clip=clip)
        x = sampler(tiled, like=like, cond=cond | shown, **more)
        pixels = x
        if not codec.pixels:
            pixels = blended(lambda part, _: codec.render(part[""]), {"": x}, sides, batch=self.tiles, scale=per)
        height, width = (side * factor for side in seen.shape[2:])
        return pixels[..., :height, :width].float().cpu()


def upscale(
    codec: PixelCodec,
    picture: str | Path,
    *,
    factor: int | None = None,
    noise: float = 0.0,
    consistent: bool = False,
    tile: int | None = None,
    tiles: int = 16,
) -> Upscale:
    """Makes a picture larger, whatever its size.

    Args:
        codec: of the model.
        picture: file of the picture; transparency is laid on white.
        factor: how much larger, either way: that of the model, or a power of it, for which the model is used repeatedly.
        noise: standard deviation of noise that is put on the picture, in levels of 255, and that the model is told of: it then
            takes less of it for real.
        consistent: change the result as little as possible so that, made smaller, it is the picture.
        tile: side in pixels of the tiles that the model draws, which overlap by a quarter; that of its training if not given.
        tiles: how many of them at a time; fewer need less memory.

    Raises:
        UserError: if the model does not enlarge, or an option or the file does not fit it.
    """
    if codec.smaller is None:
        raise UserError(
            "upscale: this run was not trained to enlarge pictures; train one with a recipe such as image/fashion_sr, or use "
            "`restore --operator downsample:4`"
        )
    times, reached = 1, codec.smaller.factor
    while factor is not None and reached < factor:
        times, reached = times + 1, reached * codec.smaller.factor
    if factor is not None and reached != factor:
        right = ", ".join(str(codec.smaller.factor**k) for k in (1, 2, 3))
        raise UserError(
            f"--factor: this model enlarges by {codec.smaller.factor}, so it can be {right}, ..., not {factor}"
        )
    noise_of(codec, noise, 1)
    per = codec.shape[1] // codec.like(1)[2]
    if tiles < 1 or (tile is not None and (tile < 8 or tile % per)):
        raise UserError(
            f"--tiles must be at least 1 and --tile a multiple of {per} of at least 8, not {tiles} and {tile}"
        )
    if codec.shape[0] not in (1, 3):
        raise UserError(f"upscale: this model draws {codec.shape[0]} channels, and pictures have 1 or 3")
    return Upscale(codec, read_whole(picture), times, noise, consistent, tile, tiles)


def _values(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1


def _bytes(values: Tensor) -> Tensor:
    return ((values + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def _converted(values: Tensor, channels: int) -> Tensor:
    """Grey in three channels, or the brightness of colours."""
    if channels == 3:
        return values.expand(-1, 3, -1, -1)
    return (values * torch.tensor(_LUMA)[:, None, None]).sum(1, keepdim=True)


def _padded(small: Tensor, least: tuple[int, int], multiple: int) -> Tensor:
    """Pixels of the edges repeated, until a picture is as large as those of training and its sides are multiples."""
    more = [max(side, low) for side, low in zip(small.shape[2:], least, strict=True)]
    more = [-(-side // multiple) * multiple for side in more]
    by = [wanted - side for wanted, side in zip(more, small.shape[2:], strict=True)]
    return F.pad(small.float(), [0, by[1], 0, by[0]], mode="replicate").to(small.dtype)


def _rows(cond: dict[str, Any], i: int) -> dict[str, Any]:
    from diffusionkit.core.state import tree_map

    return tree_map(lambda leaf: leaf[i : i + 1], cond)


__all__ = ["Upscale", "upscale"]
