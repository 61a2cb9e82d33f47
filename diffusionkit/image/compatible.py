"""Which parts of a recipe of pictures go together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.clip import ImageText
from diffusionkit.image.contrastive import Contrastive
from diffusionkit.image.latent import KEY as AUTOENCODER
from diffusionkit.image.latent import shape_of
from diffusionkit.image.reconstruction import KEY as PERCEPTUAL
from diffusionkit.image.reconstruction import Reconstruction, check_perceptual
from diffusionkit.image.saved import described
from diffusionkit.image.stages import low_channels


def misfits(data: Any, backbone: Any, objective: Any, sampling: Any) -> list[tuple[str, str]]:
    """Pairs of a dotted key and what is wrong with it beside the other sections; see `Domain.check`.

    Args:
        data: a data set; each of these is None where it could not be made.
        backbone: a network.
        objective: what training minimises.
        sampling: the keys that all samplers share.
    """
    found, latent = [], data is not None and data.autoencoder is not None
    if latent and Path(data.autoencoder).expanduser().is_dir():  # else `Domain.prepare` says so
        found += _refused(
            AUTOENCODER, partial(described, data.autoencoder, "autoencoder", AUTOENCODER, data.trained_shape)
        )
    if data is not None:
        found += _of_sizes(data)
        if getattr(backbone, "low", 0) and not data.smaller:
            found.append(("backbone.low", "is decided by data.smaller, which is null"))
    if isinstance(objective, Reconstruction):
        found += _of_reconstruction(data, backbone, objective, latent)
    elif isinstance(backbone, Autoencoder) and objective is not None:
        found.append(
            ("objective.name", "must be 'reconstruction' for the backbone autoencoder, which does not denoise")
        )
    if (
        objective is not None
        and backbone is not None
        and isinstance(objective, Contrastive) != isinstance(backbone, ImageText)
    ):
        found.append(("objective.name", "must be 'contrastive' for the backbone clip, and for no other"))
    if latent and sampling is not None and sampling.clip is not None:
        text = (
            f"must be null, not {sampling.clip}: it is a bound for pixels, and the latents of an autoencoder have none"
        )
        found.append(("sampling.clip", text))
    return found


def _of_sizes(data: Any) -> list[tuple[str, str]]:
    """Of pictures that are to be made smaller."""
    height, width = data.shape[1:]
    if height % data.reduce or width % data.reduce:
        return [("data.reduce", f"must divide the pictures' {height}x{width}, not be {data.reduce}")]
    height, width = data.trained_shape[1:]
    if data.smaller and (height % data.smaller or width % data.smaller):
        return [("data.smaller", f"must divide the pictures' {height}x{width}, not be {data.smaller}")]
    if data.smaller and data.autoencoder is not None:
        latent = shape_of(data)
        if latent is not None and low_channels(data, latent) is None:
            small, states = (f"{h}x{w}" for h, w in ((height // data.smaller, width // data.smaller), latent[1:]))
            text = f"makes pictures of {small}, which neither divide the latents' {states} nor are their multiple"
            return [("data.smaller", text)]
    return []


def _of_reconstruction(data: Any, backbone: Any, objective: Reconstruction, latent: bool) -> list[tuple[str, str]]:
    found = []
    if backbone is not None and not isinstance(backbone, Autoencoder):
        found.append(("backbone.name", "must be 'autoencoder' for the objective reconstruction"))
    if latent:
        found.append(
            ("data.autoencoder", "must be null for the objective reconstruction, which trains one on pictures")
        )
    elif data is not None and data.smaller:
        found.append(("data.smaller", "must be null for the objective reconstruction, which sees whole pictures only"))
    elif data is not None:
        found += _refused(PERCEPTUAL, partial(check_perceptual, objective, data.trained_shape))
    return found


def _refused(key: str, action: Callable[[], Any]) -> list[tuple[str, str]]:
    try:
        action()
    except UserError as error:
        return [(key, str(error).removeprefix(f"{key}: "))]
    return []


__all__ = ["misfits"]
