"""Diffusion in the latents of an autoencoder (Rombach et al. 2022): a codec around that of pixels.

The network that is trained and whatever samples from it see states of unit variance, smaller than pictures, and know of
nothing else. The run folder keeps the autoencoder's weights with the codec, and needs its run no more.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.core.state import Batch
from diffusionkit.domain import Dataset
from diffusionkit.errors import UserError
from diffusionkit.image import readers
from diffusionkit.image.backbones.autoencoder import Autoencoder
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.pictures import ImageData, Pictures, PictureSet
from diffusionkit.image.saved import described, loaded, made

FILE = "codec.safetensors"
KEY = "data.autoencoder"
_CHUNK = 128  # pictures that the autoencoder sees at a time
_MEASURED = 4096  # pictures whose latents tell the scale
_MOST = 65504.0  # the largest number that the cache holds


class LatentCodec(PixelCodec):
    """Maps pictures to the latents of a frozen autoencoder, brought to mean 0 and variance 1, and back.

    Args:
        pixels: the codec of the pictures.
        network: the autoencoder.
        arguments: of its constructor.
        shift: mean of each channel of the latents.
        scale: one over the standard deviation of each channel.

    Raises:
        ValueError: for impossible values.
    """

    pixels = False

    def __init__(
        self,
        pixels: PixelCodec,
        network: Autoencoder,
        arguments: dict[str, Any],
        shift: list[float] | None = None,
        scale: list[float] | None = None,
    ) -> None:
        super().__init__(pixels.shape, pixels.classes, pixels.levels, smaller=pixels.smaller, text=pixels.text)
        self.network, self.built = network, json.loads(json.dumps(arguments))
        channels = network.latent_shape[0]
        self.shift, self.scale = shift or [0.0] * channels, scale or [1.0] * channels
        numbers = [*self.shift, *self.scale]
        if len(numbers) != 2 * channels or not all(isinstance(n, float) and abs(n) < 1e30 for n in numbers):
            raise ValueError(f"shift and scale must be {channels} finite numbers each")
        if not min(self.scale) > 0:
            raise ValueError("scale must be above 0")

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"shape": self.network.latent_shape}

    def like(self, n: int) -> tuple[int, ...]:
        return (n, *self.network.latent_shape)

    def notes(self) -> list[str]:
        size, latent = ("x".join(map(str, shape)) for shape in (self.shape, self.network.latent_shape))
        return [
            *super().notes(),
            f"pictures of {size} as latents of {latent}, by an autoencoder that is kept with the run",
        ]

    def posterior(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 (N, C, H, W) -> means and standard deviations of the autoencoder's posterior, not yet scaled."""
        device = self.network.last.device
        with torch.no_grad():
            pixels = (super(LatentCodec, self).encode(chunk.to(device)) for chunk in pictures.split(_CHUNK))
            parts = [self.network.encode(chunk) for chunk in pixels]
        mean, logvar = (torch.cat(values).to(pictures.device) for values in zip(*parts, strict=True))
        return mean, (logvar / 2).exp()

    def normalise(self, z: Tensor) -> Tensor:
        """The autoencoder's latents -> states."""
        return (z - self._wide(self.shift, z)) * self._wide(self.scale, z)

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (N, C, H, W) with values below `levels` -> states: the posterior's means."""
        return self.normalise(self.posterior(pictures)[0])

    def render(self, x: Tensor) -> Tensor:
        """States -> pixels (N, C, H, W), about in [-1, 1]; differentiable."""
        self.network.to(x.device)
        z = x.float() / self._wide(self.scale, x) + self._wide(self.shift, x)
        return torch.cat([self.network.decode(part) for part in z.split(_CHUNK)])

    @staticmethod
    def _wide(values: list[float], like: Tensor) -> Tensor:
        return torch.tensor(values, device=like.device)[:, None, None]

    def described(self) -> dict[str, Any]:
        return super().described() | {
            "codec": "latent",
            "autoencoder": self.built,
            "shift": self.shift,
            "scale": self.scale,
        }

    def save(self, folder: Path) -> None:
        from safetensors.torch import save

        state = {name: value.cpu().contiguous() for name, value in self.network.state_dict().items()}
        (Path(folder) / FILE).write_bytes(save(state))
        super().save(folder)

    @classmethod
    def read(cls, content: dict[str, Any], folder: Path) -> LatentCodec:
        path = Path(folder) / FILE
        network = made("autoencoder", content["autoencoder"], str(folder))
        loaded(network, path, str(path))
        assert isinstance(network, Autoencoder)
        return cls(
            PixelCodec.read(content, folder), network, content["autoencoder"], content["shift"], content["scale"]
        )


class LatentSet(PictureSet):
    """Pictures whose latents have been computed beforehand.

    Args:
        pictures: images and labels.
        codec: what scales the latents.
        flip: mirror at random, which takes the latents of the mirrored picture.
        moments: means and standard deviations (N, 2 with mirrored ones else 1, 2, C, h, w), such as a memory map.
    """

    def __init__(self, pictures: Pictures, codec: LatentCodec, flip: bool, moments: np.ndarray) -> None:
        super().__init__(pictures, codec, flip)
        self.moments = moments

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """States of the pictures at `indices`: drawn from the posterior by a generator, or its means without one."""
        moments = torch.from_numpy(np.asarray(self.moments[indices.numpy()], np.float32))
        side = torch.zeros(len(indices), dtype=torch.long)
        if generator is not None and self.flip:
            side = (torch.rand(len(indices), generator=generator) < 0.5).long()
        mean, std = moments[torch.arange(len(indices)), side].unbind(1)
        if generator is not None:
            mean = torch.addcmul(mean, std, torch.randn(mean.shape, generator=generator))
        assert isinstance(self.codec, LatentCodec)
        cond = self.told(indices, generator)
        if self.codec.smaller:
            images = self.pictures.images[indices]
            images[side > 0] = images[side > 0].flip(3)
            cond |= self.shown(images, generator)
        return Batch(self.codec.normalise(mean), cond or None)


def shape_of(data: ImageData) -> tuple[int, int, int] | None:
    """The shape of the latents of a data set with an autoencoder; None if its run is not there yet, or is none."""
    try:
        with torch.device("meta"):
            return (
                described(data.autoencoder, "autoencoder", KEY, data.trained_shape)
                .network(KEY, empty=True)
                .latent_shape
            )
    except UserError:
        return None


def prepared(data: ImageData) -> tuple[LatentCodec, dict[str, Dataset]]:
    """Loads the autoencoder, encodes all pictures unless that has been done before, and measures the scale.

    Raises:
        UserError: if the run is no autoencoder of such pictures, before they are read; or its latents are no numbers.
    """
    saved = described(data.autoencoder, "autoencoder", KEY, data.trained_shape)
    network = saved.network(KEY)
    assert isinstance(network, Autoencoder)
    plain = LatentCodec(data.codec, network, saved.arguments)
    parts = data.parts(plain)
    for name, part in parts.items():
        part.flip = part.flip and name == "train"  # held-out pictures are never mirrored
    moments = {name: _cached(plain, part) for name, part in parts.items()}
    codec = LatentCodec(data.codec, network, saved.arguments, *_standard(moments["train"], saved.folder))
    return codec, {name: LatentSet(part.pictures, codec, part.flip, moments[name]) for name, part in parts.items()}


def _standard(moments: np.ndarray, folder: Path) -> tuple[list[float], list[float]]:
    """Mean and one over the standard deviation of each channel of latents drawn from the posterior."""
    rows = np.linspace(0, len(moments) - 1, min(len(moments), _MEASURED)).round().astype(int)
    mean, std = torch.from_numpy(np.asarray(moments[rows], np.float64)).transpose(0, 2).flatten(1, 2).unbind(0)
    mean, std = (value.transpose(0, 1).flatten(1) for value in (mean, std))
    variance = mean.var(1, correction=0) + std.square().mean(1)
    if not (variance.isfinite().all() and variance.min() > 1e-12 and mean.isfinite().all()):
        raise UserError(f"{KEY}: the latents of {folder} are not finite or all the same; its training diverged")
    return mean.mean(1).tolist(), variance.rsqrt().tolist()


# ---- the cache ----


def _cached(codec: LatentCodec, data: PictureSet) -> np.ndarray:
    """The moments of all pictures (N, 1 or 2, 2, C, h, w), from the file of this autoencoder and these pictures."""
    path = readers.cache() / "latents" / f"{_key(codec, data)}.npy"
    shape = (len(data), 2 if data.flip else 1, 2, *codec.network.latent_shape)
    if not _whole(path, shape):
        from diffusionkit.image.features import replace

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{path.parent}: cannot be made ({error.strerror}), and latents are kept there") from error
        replace(path, lambda part: _write(part, codec, data.pictures.images, shape))
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _key(codec: LatentCodec, data: PictureSet) -> str:
    """Tells the weights of an autoencoder and the pictures."""
    digest = hashlib.blake2b(data.fingerprint().encode(), digest_size=16)
    digest.update(json.dumps(codec.built, sort_keys=True).encode())
    for name, value in codec.network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _whole(path: Path, shape: tuple[int, ...]) -> bool:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False).shape == shape
    except (OSError, ValueError, EOFError):
        return False


def _write(path: Path, codec: LatentCodec, images: Tensor, shape: tuple[int, ...]) -> None:
    """Encodes all pictures, on a GPU where there is one, in memory that does not grow with them."""
    codec.network.to("cuda" if torch.cuda.is_available() else "cpu")
    # By `write`, since a full disk under a writable map kills the process.
    with path.open("wb") as file, _progress(len(images)) as tick:
        header = {"descr": "<f2", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in images.split(_CHUNK):
            sides = [chunk, chunk.flip(3)][: shape[1]]
            _append(file, torch.stack([torch.stack(codec.posterior(side), 1) for side in sides], 1))
            tick(len(chunk))
    codec.network.cpu()


def _append(file: IO[bytes], moments: Tensor) -> None:
    file.write(moments.clamp(-_MOST, _MOST).half().contiguous().numpy().data)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """A bar on a terminal, which goes away at the end."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"encoding {total:,} pictures", total=total)
        yield lambda done: bar.advance(task, done)


__all__ = ["LatentCodec", "LatentSet", "prepared", "shape_of"]
