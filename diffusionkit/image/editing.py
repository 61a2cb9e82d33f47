"""Pictures edited by a model that was never trained for it: filled in, drawn anew, restored. Pictures in, pictures out.

Each function reads and checks its files, and gives a `PictureEdit` that draws with whatever model of such pictures it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffusionkit.core import LowPass, Operator, Posterior, Sampler, composed, guided, masked, redraw
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.export import open_writer
from diffusionkit.image.operators import blur, downsample, grey
from diffusionkit.image.operators import coarse as coarse_part
from diffusionkit.image.readers import picture_size, read_picture
from diffusionkit.writer import Writer


@dataclass(frozen=True)
class PictureEdit:
    """An edit that has been read and checked; what a `diffusionkit.domain.Edit` has to be.

    Args:
        codec: of the model.
        states: `states(diffusion, sampler, n, clip, **arguments)` draws n states.
        finish: changes the pictures they are decoded to, uint8 (n, C, H, W).
    """

    codec: PixelCodec
    states: Callable[..., Tensor]
    finish: Callable[[Tensor], Tensor] = lambda pictures: pictures

    def draw(
        self, diffusion: nn.Module, sampler: Sampler, n: int, clip: float | str | None = None, **more: Any
    ) -> Tensor:
        """n results as pictures.

        Args:
            diffusion: guided by a condition or not, without a threshold.
            sampler: any.
            n: how many.
            clip: the threshold, as for `guided`.
            more: `cond` and `watch` of the sampler.
        """
        with torch.no_grad():
            return self.finish(self.codec.decode(self.states(diffusion, sampler, n, clip, **more)).cpu())

    def writer(self, path: str | Path, n: int) -> Writer:
        """Takes what `draw` gives, by its `add`; a single picture keeps its size."""
        return open_writer(self.codec, path, n, plain=n == 1)


def inpaint(
    codec: PixelCodec,
    picture: str | Path,
    mask: str | Path,
    *,
    method: Literal["repaint", "replace", "posterior"] = "repaint",
    resample: int = 10,
    jump: int = 5,
    iterations: int = 3,
    fit: bool = False,
) -> PictureEdit:
    """Fills the white part of the mask; all other pixels come back bit-equal.

    Args:
        codec: of the model.
        picture: file of the picture.
        mask: file of a picture of the same size, white where to fill in, black where to keep.
        method: `repaint` puts the known pixels back at each step and goes back and forth (Lugmayr et al. 2022), `replace` does so
            without going back, `posterior` follows the gradient of the known pixels' probability (Rozet et al. 2024).
        resample: how often `repaint` goes each piece of the way.
        jump: length of these pieces in steps; shorter where the sampler takes fewer.
        iterations: of the solver of `posterior`.
        fit: cut and resize picture and mask to the model's size, and bring the picture to its number of channels.

    Raises:
        UserError: if a file cannot be read or does not fit, or a number is impossible.
    """
    if resample < 1 or jump < 1:
        raise UserError(f"--resample and --jump must be at least 1, not {resample} and {jump}")
    before = read_picture(picture, codec.shape, fit)
    if fit and picture_size(picture) != picture_size(mask):
        raise UserError(f"{mask}: is of {_by(picture_size(mask))} pixels, the picture of {_by(picture_size(picture))}")
    hole = _hole(mask, codec, fit)
    if not hole.any():
        raise UserError(f"{mask}: has no white pixel, so there is nothing to fill in")

    def states(diffusion: nn.Module, sampler: Sampler, n: int, clip: Any, **more: Any) -> Tensor:
        known = _state(codec, before, diffusion)
        like = codec.like(n)
        if method == "posterior":
            keep = masked(~hole.to(known.device))
            bound = _bound(codec, diffusion, keep, keep(_values(before).to(known)), "moments", iterations=iterations)
            return sampler(guided(bound, clip=clip), like=like, **more)
        given = ~nn.functional.adaptive_max_pool2d(hole[None, None].float(), known.shape[2:]).bool().to(known.device)
        again: dict[str, Any] = (
            {"resample": resample, "jump": min(jump, max(1, sampler.steps - 1))} if method == "repaint" else {}
        )
        given, known = given.expand(like), known.expand(like)
        return sampler(guided(diffusion, clip=clip), like=like, given=given, known=known, **again, **more)

    return PictureEdit(codec, states, lambda drawn: torch.where(hole, drawn, before))


def edit(
    codec: PixelCodec,
    picture: str | Path,
    *,
    strength: float | None = None,
    coarse: int | None = None,
    reference: str | None = None,
    until: float = 0.1,
    fit: bool = False,
) -> PictureEdit:
    """Draws a picture anew: from a noised version of it (SDEdit), or with its coarse part held (ILVR), or both.

    Args:
        codec: of the model.
        picture: file of the picture; a rough drawing is enough.
        strength: how far it is noised, up to 1: near 0 it stays as it is, 1 draws freely; 0.5, or 1 with `coarse`, if not given.
        coarse: hold the means of squares of so many pixels (Choi et al. 2021).
        reference: file of the picture whose means are held; the picture itself if not given.
        until: the time, from 1 (noise) down to 0, at which they are let go: with 0 the result has them nearly exactly, at the price
            of a haze where the model would have drawn something else.
        fit: cut and resize pictures to the model's size, and bring them to its number of channels.

    Raises:
        UserError: if a file cannot be read or does not fit, or a number is impossible.
    """
    strength = strength if strength is not None else 0.5 if coarse is None else 1.0
    if not 0 < strength <= 1:
        raise UserError(f"--strength: must lie above 0 and not above 1, not {strength:g}")
    if not 0 <= until < 1:
        raise UserError(f"--until: must lie between 0 and 1, not {until:g}")
    if reference is not None and coarse is None:
        raise UserError("--reference: needs --coarse as well, the size of the squares whose means are held")
    before = read_picture(picture, codec.shape, fit)
    held = before if reference is None else read_picture(reference, codec.shape, fit)
    low = None if coarse is None else _checked("--coarse", lambda: coarse_part(coarse, (1, *codec.like(1)[2:])))

    def states(diffusion: nn.Module, sampler: Sampler, n: int, clip: Any, **more: Any) -> Tensor:
        start = _state(codec, before, diffusion).expand(codec.like(n))
        model = guided(diffusion, clip=clip)
        if low is not None:
            model = LowPass(model, _state(codec, held, diffusion), low, until)
        return redraw(sampler, model, start, strength, **more)

    return PictureEdit(codec, states)


def restore(
    codec: PixelCodec,
    picture: str | Path,
    *,
    operator: str,
    method: Literal["pigdm", "moments", "dps"] = "pigdm",
    noise: float = 0.0,
    scale: float = 1.0,
    iterations: int = 3,
    degrade: bool = False,
    fit: bool = False,
) -> PictureEdit:
    """Draws what a blurred, small, grey, noisy or partly hidden picture may have been.

    Args:
        codec: of the model.
        picture: file of what is seen.
        operator: what happened to it: `blur:2` (standard deviation in pixels), `downsample:4`, `grey`, `mask:FILE` (white is
            hidden), `identity`; several with commas between them, the first first.
        method: how the gradient is weighted: `pigdm` (Song et al. 2023), `moments` (Rozet et al. 2024), which asks the network how
            sure it is and takes longer, or `dps` (Chung et al. 2023).
        noise: standard deviation of the noise in what is seen, in levels of 255.
        scale: how strongly to follow what is seen; for `dps` its step size, for which 1 is a start only.
        iterations: of the solver that `pigdm` and `moments` use.
        degrade: the picture is whole yet: do the operator and the noise to it first, to try things out.
        fit: cut and resize the picture to the size that is needed, and bring it to the number of channels.

    Raises:
        UserError: if a file cannot be read or does not fit, or an option is impossible.
    """
    if noise < 0 or scale < 0 or iterations < 1:
        raise UserError(
            f"--noise and --scale must not be negative and --iterations at least 1, not {noise:g}, {scale:g} and {iterations}"
        )
    steps = [_operator(word, codec, fit) for word in operator.split(",")]
    forward = composed(*steps)
    seen_shape = tuple(forward(torch.zeros(1, *codec.shape)).shape[1:])
    seen = _values(read_picture(picture, codec.shape if degrade else seen_shape, fit))
    std = noise / 127.5

    def states(diffusion: nn.Module, sampler: Sampler, n: int, clip: Any, **more: Any) -> Tensor:
        y = seen.to(next(diffusion.parameters()))
        if degrade:
            y = forward(y)
            y = y + std * torch.randn(y.shape, generator=torch.Generator().manual_seed(0)).to(y)
        if operator.rpartition(",")[2].startswith("mask:"):
            y = steps[-1](y)
        bound = _bound(codec, diffusion, forward, y, method, std, scale, iterations, steps=sampler.steps)
        return sampler(guided(bound, clip=clip), like=codec.like(n), **more)

    return PictureEdit(codec, states)


def _bound(
    codec: PixelCodec, diffusion: nn.Module, operator: Operator, y: Tensor, *args: Any, **kwargs: Any
) -> Posterior:
    """Bound to what the operator makes of the pictures that the states stand for."""
    return Posterior(diffusion, composed(codec.render, operator), y, *args, **kwargs)


def _operator(word: str, codec: PixelCodec, fit: bool) -> Operator:
    """What a word of `--operator` stands for."""
    name, _, value = word.strip().partition(":")
    if name == "mask" and value:
        return masked(~_hole(value, codec, fit))
    if name in ("blur", "downsample") and value:
        return _checked("--operator", lambda: _scaled(name, value, codec))
    if name in ("grey", "identity") and not value:
        return grey if name == "grey" else lambda x: x
    raise UserError(
        f"--operator: must be blur:WIDTH, downsample:FACTOR, grey, mask:FILE or identity, not {word.strip()!r}"
    )


def _scaled(name: str, value: str, codec: PixelCodec) -> Operator:
    if not value.replace(".", "", name == "blur").isdecimal():
        raise ValueError(f"{name}:{value} needs a {'number' if name == 'blur' else 'whole number'} after the colon")
    if name == "blur":
        return blur(float(value))
    if any(size % max(int(value), 1) for size in codec.shape[1:]):
        raise ValueError(f"{name}:{value} does not divide the model's pictures of {_by(codec.shape[1:])}")
    return downsample(int(value))


def _checked(option: str, make: Callable[[], Any]) -> Any:
    try:
        return make()
    except ValueError as error:
        raise UserError(f"{option}: {error}") from error


def _by(size: Any) -> str:
    return "x".join(map(str, size))


def _values(picture: Tensor) -> Tensor:
    """uint8 (C, H, W) -> (1, C, H, W) in [-1, 1]."""
    return picture[None].float() / 127.5 - 1


def _state(codec: PixelCodec, picture: Tensor, diffusion: nn.Module) -> Tensor:
    """The state of a picture of 256 levels, (1, ...), on the device of the diffusion."""
    return codec.encode(picture[None].float() * ((codec.levels - 1) / 255)).to(next(diffusion.parameters()))


def _hole(mask: str | Path, codec: PixelCodec, fit: bool) -> Tensor:
    """(H, W), true where the mask is white."""
    return read_picture(mask, (1, *codec.shape[1:]), fit, any_channels=True)[0] >= 128
