"""Cascades: a model of small pictures, and others that make them larger one after the other (Ho et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from diffusionkit.domain import Dataset
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.resize import fitted_channels
from diffusionkit.image.smaller import examples, shrunk


def fitting(runs: Sequence[Any], wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of `condition` that each stage takes; see `Domain.stages`.

    What no stage takes is left to the first, which refuses it.

    Raises:
        UserError: if a stage does not go on where the one before ends, or knows classes that that one does not draw.
    """
    for before, after in pairwise(runs):
        _fit(before, after)
    taken = [{name for name, has in _takes(run.codec).items() if has} for run in runs]
    nobody = set(wanted) - set().union(*taken)
    found = [{name: value for name, value in wanted.items() if name in names} for names in taken]
    found[0] |= {name: wanted[name] for name in nobody}
    return found


def _takes(codec: PixelCodec) -> dict[str, bool]:
    words = dict.fromkeys(("prompt", "negative", "prompts"), codec.text is not None)
    return {"class_": bool(codec.classes), "noise": codec.smaller is not None} | words


def _fit(before: Any, after: Any) -> None:
    """Refuses a stage that does not fit the one before it."""
    drawn, codec = before.codec.shape, after.codec
    if codec.smaller is None:
        raise UserError(
            f"{after.folder}: does not enlarge pictures, so it cannot come after {before.folder}; train one with a recipe such as "
            "image/fashion_sr"
        )
    if codec.small[0] != drawn[0]:
        raise UserError(
            f"{after.folder}: enlarges pictures of {codec.small[0]} channels, those of {before.folder} have {drawn[0]}"
        )
    if codec.small[1:] != drawn[1:]:
        raise UserError(
            f"{after.folder}: enlarges pictures of {_by(codec.small)}, those of {before.folder} are {_by(drawn)}"
        )
    if codec.classes and codec.classes != before.codec.classes:
        others = "is told of none" if not before.codec.classes else "has others"
        raise UserError(
            f"{after.folder}: is told the class of a picture, of {len(codec.classes)}, but {before.folder} {others}"
        )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))


def low_channels(data: Any, shape: Any) -> int | None:
    """How many channels a network sees beside states of this shape; None if that is not known yet, or does not fit."""
    if shape is ...:
        return None
    channels, height, width = data.trained_shape
    try:
        return fitted_channels((channels, height // data.smaller, width // data.smaller), tuple(shape[1:]))
    except ValueError:
        return None


def with_examples(codec: PixelCodec, parts: dict[str, Dataset]) -> tuple[PixelCodec, dict[str, Dataset]]:
    """Codec and parts, the codec with small held-out pictures for where nobody brings others."""
    if codec.smaller:
        pictures: Any = parts.get("test", parts["train"])
        images, labels = pictures.pictures.images, pictures.pictures.labels if codec.classes else None
        chosen = images[examples(images, labels, len(codec.classes or ()))]
        codec.smaller.examples = shrunk(chosen, codec.smaller.factor, codec.levels)
    return codec, parts


def shown_examples(
    codec: PixelCodec, indices: Tensor, labels: Tensor | None, fixed: bool, noise: float | None
) -> dict[str, Tensor]:
    """The condition that shows examples, of the labels wanted; nothing for a model that sees no smaller pictures.

    Args:
        codec: of the model.
        indices: running numbers (B,).
        labels: classes (B,), or None.
        fixed: whether all are of one class, rather than the classes taking turns.
        noise: on them, in levels of 255.

    Raises:
        UserError: if there is noise that the model does not know, or there are no examples.
    """
    levels = noise_of(codec, noise, len(indices))
    if codec.smaller is None:
        return {}
    if codec.smaller.examples is None:
        raise UserError("this model enlarges pictures and has none of its own: name the run of another model before it")
    chosen = codec.smaller.chosen(indices, labels, len(codec.classes or ()), fixed)
    return codec.shown(chosen, levels)


def noise_of(codec: PixelCodec, noise: float | None, n: int) -> Tensor:
    """(n,) the noise that is asked for, in levels of 255.

    Raises:
        UserError: if the model was not trained with so much.
    """
    if noise is None:
        return torch.zeros(n)
    if codec.smaller is None:
        raise UserError("--noise: this model is shown no smaller pictures that noise could be put on")
    if not 0 <= noise <= codec.smaller.noised:
        most = f"{codec.smaller.noised:g}, with which this model was trained"
        raise UserError(f"--noise: must lie between 0 and {most}, not {noise:g}")
    return torch.full((n,), float(noise))


def as_levels(pictures: Tensor, codec: PixelCodec) -> Tensor:
    """uint8 brightness 0 ... 255 -> the levels of a codec, uint8."""
    if codec.levels == 256:
        return pictures
    return (pictures.float() * ((codec.levels - 1) / 255)).round().to(torch.uint8)


__all__ = ["as_levels", "fitting", "low_channels", "noise_of", "shown_examples", "with_examples"]
