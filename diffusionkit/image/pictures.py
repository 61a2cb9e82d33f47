"""Pictures in memory, and what all data sets of pictures have in common.

A new data set is a class with `shape`, `class_names`, `levels`, `flip` and `load`, and one line in `ImageDomain.data`.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core.state import Batch
from diffusionkit.image.augment import draw, warp
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.smaller import Smaller, shrunk


class Pictures(NamedTuple):
    """Pictures in memory: uint8 (N, C, H, W), their classes (N,), or None, and the captions of each, or None."""

    images: Tensor
    labels: Tensor | None = None
    captions: list[list[str]] | None = None


class PictureSet:
    """Pictures in reach of the training loop: kept as uint8, a whole batch encoded at once.

    Args:
        pictures: images and labels.
        codec: what encodes them.
        flip: mirror each picture left to right with probability one half when a generator is given.
        augment: then transform the pictures with this probability, too, and say in the condition what was done, the flip
            included.
    """

    def __init__(self, pictures: Pictures, codec: PixelCodec, flip: bool = False, augment: float = 0.0) -> None:
        self.pictures, self.codec, self.flip, self.augment = pictures, codec, flip, augment

    def __len__(self) -> int:
        return len(self.pictures.images)

    def batch(self, indices: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The pictures at `indices` as states, with {"class": ...} if they have classes, "augment" if they are augmented, "low"
        and "low_noise" if smaller ones are shown, and what the codec's text says of their captions."""
        images, cond = self.pictures.images[indices], self.told(indices, generator)
        if generator is not None and self.augment:
            done = cond["augment"] = draw(len(images), self.augment, images.shape[2:], generator, self.flip)
            x = warp(self.codec.encode(images), done)
            return Batch(x, cond | self.shown(self.codec.quantise(x), generator))
        if generator is not None and self.flip:
            chosen = torch.rand(len(images), generator=generator) < 0.5
            images[chosen] = images[chosen].flip(3)
        return Batch(self.codec.encode(images), cond | self.shown(images, generator) or None)

    def told(self, indices: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What the condition says in classes and in words: of several captions the first, or one that a generator draws."""
        labels, captions = self.pictures.labels, self.pictures.captions
        cond = {} if labels is None else {"class": labels[indices]}
        if captions is None or self.codec.text is None:
            return cond
        places = torch.zeros(len(indices)) if generator is None else torch.rand(len(indices), generator=generator)
        said = [captions[i][int(u * len(captions[i]))] for i, u in zip(indices.tolist(), places.tolist(), strict=True)]
        return cond | self.codec.text.condition(said)

    def shown(self, images: Tensor, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """What the condition says of these uint8 pictures where smaller ones are shown: with noise of a level that a generator
        draws, or without any."""
        smaller = self.codec.smaller
        if smaller is None:
            return {}
        noise = None if generator is None else torch.rand(len(images), generator=generator) * smaller.noised
        return self.codec.shown(shrunk(images, smaller.factor, self.codec.levels), noise, generator)

    def some(self, n: int, seed: int = 0) -> Tensor:
        """Indices (n,) of pictures at random, the same for the same seed; all in order where that is all.

        Classes take turns, as they do in samples: chance in how many there are of each would count as a distance.
        """
        if n >= len(self):
            return torch.arange(len(self))
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        if self.pictures.labels is not None:
            labels = self.pictures.labels[order]
            turn = F.one_hot(labels).cumsum(0).gather(1, labels[:, None])[:, 0]  # the how manieth of its class
            order = order[turn.argsort(stable=True)]
        return order[:n]

    def fingerprint(self) -> str:
        """Tells these pictures, their classes and whether they are mirrored from others."""
        digest = hashlib.blake2b(digest_size=16)
        for tensor in self.pictures[:2]:
            if tensor is not None:
                digest.update(str(list(tensor.shape)).encode())
                digest.update(tensor.contiguous().numpy().data)
        digest.update(f"{self.codec.levels} {self.flip}".encode())
        return digest.hexdigest()


class ImageData(ABC):
    """What the domain asks of a data set.

    Args:
        flip: mirror at random.
        labels: tell the model the classes.
        augment: probability of each geometric transformation; see `diffusionkit.image.augment`.
        autoencoder: run of an autoencoder, in whose latents the model then works; see `diffusionkit.image.latent`.
        reduce: make the pictures smaller by this factor; for the first of several stages, or for less work.
        smaller: show the model each picture smaller by this factor, of which it learns to make the whole one (super-resolution).
        noised: with `smaller`, the largest standard deviation of noise on what is shown, in levels of 255; each sample has its own.
    """

    shape: tuple[int, int, int]
    flip: bool = False
    labels: bool = True
    augment: float = 0.0
    autoencoder: str | None = None
    levels: int = 256
    reduce: int = 1
    smaller: int | None = None
    noised: float = 0.0

    def __init__(
        self,
        flip: bool = False,
        labels: bool = True,
        augment: float = 0.0,
        autoencoder: str | None = None,
        reduce: int = 1,
        smaller: int | None = None,
        noised: float = 0.0,
    ) -> None:
        if not 0 <= augment <= 1:
            raise ValueError(f"augment is a probability and must lie in [0, 1], not {augment:g}")
        if augment and autoencoder is not None:
            raise ValueError("augment transforms pixels, but an autoencoder gives latents: choose one of the two")
        if reduce < 1 or (smaller is not None and smaller < 2):
            name, value, least = ("reduce", reduce, 1) if reduce < 1 else ("smaller", smaller, 2)
            raise ValueError(f"{name} is a factor and must be at least {least}, not {value}")
        if noised < 0 or (noised and smaller is None):
            raise ValueError(f"noised must not be negative, and above 0 only beside smaller, not {noised:g}")
        self.flip, self.labels, self.augment, self.autoencoder = flip, labels, augment, autoencoder
        self.reduce, self.smaller, self.noised = reduce, smaller, noised

    @property
    @abstractmethod
    def class_names(self) -> list[str] | None:
        """The names of the classes, or None without classes."""

    @property
    def classes(self) -> int | None:
        """The number of classes that the model is told of, or None."""
        return len(self.class_names) if self.labels and self.class_names else None

    @property
    def codec(self) -> PixelCodec:
        """What encodes the pictures as pixels."""
        names = self.class_names if self.classes else None
        smaller = Smaller(self.smaller, self.noised) if self.smaller else None
        return PixelCodec(self.trained_shape, names, self.levels, self.augment > 0, smaller)

    @property
    def trained_shape(self) -> tuple[int, int, int]:
        """The shape of the pictures that a model is trained on: `shape`, made smaller by `reduce`."""
        return self.shape[0], self.shape[1] // self.reduce, self.shape[2] // self.reduce

    def text_arguments(self) -> dict[str, Any]:
        """Arguments of a network that reads captions, as far as they are known before the data are read."""
        return {}

    @abstractmethod
    def load(self) -> dict[str, Pictures]:
        """Reads everything: {"train": ..., "test": ...}."""

    def parts(self, codec: PixelCodec) -> dict[str, PictureSet]:
        """Everything as states of a codec; without labels where the model is told nothing of them."""
        found = self.load()
        if self.reduce > 1:
            found = {k: p._replace(images=shrunk(p.images, self.reduce, self.levels)) for k, p in found.items()}
        if not self.classes:
            found = {name: pictures._replace(labels=None) for name, pictures in found.items()}
        return {name: PictureSet(pictures, codec, self.flip, self.augment) for name, pictures in found.items()}


def split(pictures: Pictures, holdout: float, seed: int = 0) -> dict[str, Pictures]:
    """Holds out a share of each class, drawn with a seed, the order kept; at least one picture for either part."""
    n = len(pictures.images)
    labels = np.zeros(n, int) if pictures.labels is None else pictures.labels.numpy()
    random, test = np.random.default_rng(seed), np.zeros(n, bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        test[random.permutation(members)[: round(holdout * len(members))]] = True
    if not test.any():
        test[random.integers(n)] = True
    parts = {"train": torch.from_numpy(~test), "test": torch.from_numpy(test)}
    return {name: chosen_of(pictures, chosen.nonzero()[:, 0]) for name, chosen in parts.items()}


def chosen_of(pictures: Pictures, indices: Tensor) -> Pictures:
    """The pictures at `indices` with what belongs to them."""
    captions = pictures.captions and [pictures.captions[i] for i in indices.tolist()]
    labels = None if pictures.labels is None else pictures.labels[indices]
    return Pictures(pictures.images[indices], labels, captions)


def fitted_shape(channels: int, size: int | tuple[int, int], resize: str) -> tuple[int, int, int]:
    """Channels, height and width of pictures brought to a size; one number for square ones.

    Raises:
        ValueError: for impossible values, in the words of a recipe.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise ValueError(f"size must be at least 1, not {size}")
    if resize not in ("crop", "stretch"):
        raise ValueError(f"resize must be 'crop' or 'stretch', not {resize!r}")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 1 (grey) or 3 (colour), not {channels}")
    return channels, height, width


def share(holdout: float) -> float:
    """The share of pictures that is held out.

    Raises:
        ValueError: if it is none.
    """
    if not 0 < holdout < 1:
        raise ValueError(f"holdout must lie between 0 and 1, not {holdout:g}")
    return holdout
