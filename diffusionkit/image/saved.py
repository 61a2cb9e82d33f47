"""Networks of other runs, frozen: an autoencoder whose latents a model works in, a classifier whose features are compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from diffusionkit.errors import UserError
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.backbones.classifier import Classifier
from diffusionkit.image.codec import PixelCodec

WEIGHTS = "weights.safetensors"
# For each backbone its class, what a run of it is called, and how one is trained.
_KINDS: dict[str, tuple[type[nn.Module], str, str]] = {
    "autoencoder": (Autoencoder, "an autoencoder", "train one with a recipe such as image/fashion_vae"),
    "classifier": (Classifier, "a noisy classifier", "train one with a recipe such as image/digits_classifier"),
}


@dataclass(frozen=True)
class Saved:
    """What a run folder says of its network.

    Attributes:
        folder: of the run.
        backbone: its name in recipes.
        arguments: of its constructor, those that the data decide included.
        codec: what its pictures are like.
    """

    folder: Path
    backbone: str
    arguments: dict[str, Any]
    codec: PixelCodec

    def network(self, key: str, empty: bool = False) -> nn.Module:
        """The network with the run's averaged weights, frozen and in evaluation mode; with `empty` without its weights.

        Raises:
            UserError: if the weights are damaged or do not fit.
        """
        path = self.folder / WEIGHTS
        network = made(self.backbone, self.arguments, f"{key}: {self.folder}")
        return network if empty else loaded(network, path, f"{key}: {path}", "network.")


def described(folder: str | Path, backbone: str, key: str, shape: tuple[int, int, int] | None = None) -> Saved:
    """Reads what a run folder says of its network; nothing in it is executed, and no weights are read.

    Args:
        folder: of the run.
        backbone: the name of the network that it must have.
        key: of the recipe, which names the folder; complaints start with it.
        shape: of the pictures that it must be for.

    Raises:
        UserError: if it is no such run.
    """
    folder, (_, what, how) = Path(folder).expanduser(), _KINDS[backbone]
    if not folder.is_dir():
        raise UserError(f"{key}: there is no run {folder}; {how} and name its folder by --{key}")
    try:
        sections = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
        section = sections["backbone"]
        name, arguments = section["name"], {k: v for k, v in section.items() if k != "name"}
    except (OSError, ValueError, yaml.YAMLError, RecursionError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{key}: {folder} is no run: its recipe.yaml cannot be read; {how}") from error
    if name != backbone:
        raise UserError(f"{key}: {folder} is not {what} but a run of the backbone {name}; {how}")
    if not (folder / WEIGHTS).is_file():
        raise UserError(f"{key}: {folder} has no {WEIGHTS}: its training has not come to a first checkpoint")
    codec = PixelCodec.load(folder)
    if not codec.pixels:
        raise UserError(f"{key}: {folder} works in the latents of another autoencoder, and pixels are needed")
    if shape is not None and codec.shape != tuple(shape):
        found, wanted = ("x".join(map(str, one)) for one in (codec.shape, shape))
        raise UserError(f"{key}: {folder} was trained on pictures of {found}, these are {wanted}")
    known = codec.arguments() if backbone == "classifier" else {"shape": codec.shape}
    return Saved(folder, backbone, {**arguments, **known}, codec)


def made(backbone: str, arguments: dict[str, Any], where: str) -> nn.Module:
    """The network of these arguments, which come from a file that may say anything.

    Raises:
        UserError: if they are not those of its constructor.
    """
    try:
        return _KINDS[backbone][0](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"{where}: says of its network what cannot be: {error}") from error


def loaded(network: nn.Module, path: Path, where: str, prefix: str = "") -> nn.Module:
    """The network with the weights of a file, frozen and in evaluation mode.

    Args:
        path: of a safetensors file.
        where: what complaints start with.
        prefix: of the names in the file that are the network's; others are left out.

    Raises:
        UserError: if the file is damaged or does not fit.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            names = [name for name in file.keys() if name.startswith(prefix)]
            network.load_state_dict({name[len(prefix) :]: file.get_tensor(name) for name in names})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{where}: is damaged, or no safetensors file ({error})") from error
    except RuntimeError as error:
        raise UserError(f"{where}: does not fit its network: {str(error).splitlines()[-1].strip()}") from error
    return network.requires_grad_(False).eval()


__all__ = ["Saved", "described", "loaded", "made"]
