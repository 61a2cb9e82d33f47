"""Where in a folder of diffusers the parts of a model lie."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusionkit.errors import UserError
from diffusionkit.image.weights.files import read_json

INDEX = "model_index.json"
_NETWORKS, _VAES, _SCHEDULER = ("unet", "transformer"), ("vae", "vqvae"), "scheduler"


@dataclass(frozen=True)
class Places:
    """The parts of a model, by the names of their folders.

    Attributes:
        folder: of the whole.
        network: of the denoiser, or of an autoencoder alone; empty for the folder itself.
        vae: of the autoencoder beside it.
        scheduler: of the scheduler.
        index: what `model_index.json` says.
    """

    folder: Path
    network: str
    vae: str | None = None
    scheduler: str | None = None
    index: dict[str, Any] | None = None

    @property
    def title(self) -> str:
        """The pipeline's name."""
        return str((self.index or {}).get("_class_name", ""))

    def path(self, part: str, name: str) -> Path:
        return self.folder / part / name


def find(folder: Path) -> Places | None:
    """The parts of a model in a folder; None if it is none.

    Raises:
        UserError: if a file is damaged, or the model has a part that we have nothing for.
    """
    if (folder / "config.json").is_file():
        return Places(folder, "") if "_class_name" in read_json(folder / "config.json") else None
    index = read_json(folder / INDEX) if (folder / INDEX).is_file() else None
    if index is not None:
        _known(folder, index)
    networks = [name for name in _NETWORKS if (folder / name / "config.json").is_file()]
    vae = next((name for name in _VAES if (folder / name / "config.json").is_file()), None)
    scheduler = _SCHEDULER if (folder / _SCHEDULER / "scheduler_config.json").is_file() else None
    if len(networks) > 1:
        raise UserError(f"{folder}: has both {' and '.join(networks)}; a model has one of them")
    if not networks:
        if index is not None:
            raise UserError(f"{folder / INDEX}: neither unet/config.json nor transformer/config.json is there")
        return None if vae is None else Places(folder, vae)
    return Places(folder, networks[0], vae, scheduler, index)


def _known(folder: Path, index: dict[str, Any]) -> None:
    for name, part in index.items():
        there = isinstance(part, list) and any(entry is not None for entry in part)
        if there and name not in (*_NETWORKS, *_VAES, _SCHEDULER):
            supported = ", ".join((*_NETWORKS, *_VAES, _SCHEDULER))
            raise UserError(
                f"{folder / INDEX}: {name}: this part of a {index.get('_class_name')} is not supported; {supported} are"
            )


__all__ = ["Places", "find"]
