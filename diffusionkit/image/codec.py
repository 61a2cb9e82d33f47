"""Between uint8 pictures and the state in [-1, 1]."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.image.resize import fitted_channels
from diffusionkit.image.smaller import Smaller
from diffusionkit.image.text import TextReader, text_reader

FILE = "codec.json"


class PixelCodec(Codec):
    """Maps the levels 0 ... levels - 1 of a pixel to [-1, 1] and back.

    Args:
        shape: channels, height and width.
        classes: names of the classes, or None if the pictures have none.
        levels: how many values a pixel may have: 256, or fewer where the data have fewer.
        augment: whether the pictures that a network is trained on are augmented, which it has to be told of.
        smaller: the smaller pictures that a network is shown, of super-resolution.
        text: what reads captions and prompts, if the network is told any.

    Raises:
        ValueError: for impossible values.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        classes: list[str] | None = None,
        levels: int = 256,
        augment: bool = False,
        smaller: Smaller | None = None,
        text: TextReader | None = None,
    ) -> None:
        shape = tuple(shape)
        if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape):
            raise ValueError(f"shape must be three positive integers (channels, height, width), not {list(shape)}")
        if type(levels) is not int or not 2 <= levels <= 256:
            raise ValueError(f"levels must be an integer from 2 to 256, not {levels!r}")
        if classes is not None and not (classes and all(isinstance(name, str) for name in classes)):
            raise ValueError(f"classes must be a list of names, or null, not {classes!r}")
        self.shape, self.classes, self.levels, self.augment, self.smaller = shape, classes, levels, augment, smaller
        self.text = text

    pixels = True
    """Whether states are pixels, bounded by -1 and 1 and lying on levels."""

    def columns(self, n: int) -> int | None:
        """How many of n pictures to show in a row: one of each class, where the classes take turns in few enough columns."""
        return (
            len(self.classes) if self.classes and 2 * len(self.classes) <= n <= 20 * len(self.classes) <= 400 else None
        )

    def arguments(self) -> dict[str, Any]:
        known = {"shape": self.shape, "classes": len(self.classes) if self.classes else None}
        known |= {"augment": True} if self.augment else {}
        known |= self.text.arguments() if self.text else {}
        return known | ({"low": fitted_channels(self.small, self.like(1)[2:])} if self.smaller else {})

    @property
    def small(self) -> tuple[int, int, int]:
        """The shape of the smaller pictures that a network is shown."""
        factor = self.smaller.factor if self.smaller else 1
        return self.shape[0], self.shape[1] // factor, self.shape[2] // factor

    def shown(
        self, small: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """The condition that shows smaller pictures, uint8 (N, C, h, w) with values below `levels`.

        Args:
            small: `small` is their shape; larger ones belong to larger states.
            noise: (N,) standard deviation of the noise to put on them, in levels of 255; none if not given.
            generator: of the noise.
        """
        assert self.smaller is not None
        tall, wide = (self.like(1)[i] * small.shape[i] // self.small[i - 1] for i in (2, 3))
        noise = torch.zeros(len(small)) if noise is None else noise
        return self.smaller.show(PixelCodec.encode(self, small), (tall, wide), noise, generator)

    def like(self, n: int) -> tuple[int, ...]:
        return (n, *self.shape)

    def encode(self, pictures: Tensor) -> Tensor:
        """uint8 (N, C, H, W) with values below `levels` -> float32 in [-1, 1]."""
        return pictures.to(torch.float32).mul_(2 / (self.levels - 1)).sub_(1)

    def render(self, x: Tensor) -> Tensor:
        """States -> pixels (N, C, H, W), about in [-1, 1]; differentiable."""
        return x

    def quantise(self, x: Tensor) -> Tensor:
        """States -> uint8 levels 0 ... levels - 1, rounded and clipped: the inverse of `encode`."""
        return (
            self.render(x)
            .float()
            .add(1)
            .mul_((self.levels - 1) / 2)
            .round_()
            .clamp_(0, self.levels - 1)
            .to(torch.uint8)
        )

    def display(self, pictures: Tensor) -> Tensor:
        """uint8 levels -> uint8 brightness 0 ... 255."""
        if self.levels == 256:
            return pictures
        return pictures.float().mul_(255 / (self.levels - 1)).round_().to(torch.uint8)

    def decode(self, x: Tensor) -> Tensor:
        """States (N, C, H, W) -> pictures for the eye: uint8, 0 ... 255, on the levels that the data have."""
        return self.display(self.quantise(x))

    def described(self) -> dict[str, Any]:
        """What the codec's file says."""
        content = {"codec": "pixel", "shape": list(self.shape), "classes": self.classes, "levels": self.levels}
        content |= {"augment": True} if self.augment else {}
        about = self.smaller and {"factor": self.smaller.factor, "noised": self.smaller.noised}
        content |= {"smaller": about} if about else {}
        return content | ({"text": self.text.described()} if self.text else {})

    def notes(self) -> list[str]:
        return self.text.notes() if self.text else []

    def save(self, folder: Path) -> None:
        if self.smaller:
            self.smaller.save(folder)
        (Path(folder) / FILE).write_text(json.dumps(self.described(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, content: dict[str, Any], folder: Path) -> PixelCodec:
        """The codec that `described` described."""
        smaller = Smaller.read(content["smaller"], folder, content["shape"]) if "smaller" in content else None
        text = text_reader(content["text"]) if "text" in content else None
        return cls(content["shape"], content["classes"], content["levels"], bool(content.get("augment")), smaller, text)

    @staticmethod
    def load(folder: Path) -> PixelCodec:
        """The codec of a run: of pixels, or a `LatentCodec`.

        Raises:
            UserError: if the file is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("codec") not in ("pixel", "latent"):
                raise ValueError('"codec" must be "pixel" or "latent"')
            if content["codec"] == "pixel":
                return PixelCodec.read(content, Path(folder))
            from diffusionkit.image.latent import LatentCodec

            return LatentCodec.read(content, Path(folder))
        except UserError:
            raise
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs to every image run") from error
        except KeyError as error:
            raise UserError(f"{path}: the key {error} is missing") from error
        except (ValueError, TypeError) as error:  # also JSONDecodeError and UnicodeDecodeError
            raise UserError(f"{path}: is damaged: {error}") from error
