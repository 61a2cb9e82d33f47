"""Which parts of a recipe of pictures go together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.latent import KEY as AUTOENCODER
from diffusionkit.image.reconstruction import KEY as PERCEPTUAL
from diffusionkit.image.reconstruction import Reconstruction, check_perceptual
from diffusionkit.image.saved import described


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
        found += _refused(AUTOENCODER, partial(described, data.autoencoder, "autoencoder", AUTOENCODER, data.shape))
    if isinstance(objective, Reconstruction):
        found += _of_reconstruction(data, backbone, objective, latent)
    elif isinstance(backbone, Autoencoder) and objective is not None:
        found.append(
            ("objective.name", "must be 'reconstruction' for the backbone autoencoder, which does not denoise")
        )
    if latent and sampling is not None and sampling.clip is not None:
        text = (
            f"must be null, not {sampling.clip}: it is a bound for pixels, and the latents of an autoencoder have none"
        )
        found.append(("sampling.clip", text))
    return found


def _of_reconstruction(data: Any, backbone: Any, objective: Reconstruction, latent: bool) -> list[tuple[str, str]]:
    found = []
    if backbone is not None and not isinstance(backbone, Autoencoder):
        found.append(("backbone.name", "must be 'autoencoder' for the objective reconstruction"))
    if latent:
        found.append(
            ("data.autoencoder", "must be null for the objective reconstruction, which trains one on pictures")
        )
    elif data is not None:
        found += _refused(PERCEPTUAL, partial(check_perceptual, objective, data.shape))
    return found


def _refused(key: str, action: Callable[[], Any]) -> list[tuple[str, str]]:
    try:
        action()
    except UserError as error:
        return [(key, str(error).removeprefix(f"{key}: "))]
    return []


__all__ = ["misfits"]
