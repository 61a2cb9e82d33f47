"""Data sets of pictures. Making one reads nothing; `load` does.

A new data set is a class with `shape`, `class_names`, `levels`, `flip` and `load`, and one line in `ImageDomain.data`.
"""

from __future__ import annotations

import hashlib
import socket
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from diffusionkit.core.state import Batch
from diffusionkit.errors import UserError
from diffusionkit.image import readers
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


class Digits(ImageData):
    """Scikit-learn's bundled 1,797 handwritten digits, 8x8 pixels of 17 levels (UCI optdigits, test part).

    Args:
        holdout: share of each class that is held out.
        seed: of the split.
        shared: what all data sets have; see `ImageData`.
    """

    shape = (1, 8, 8)
    levels = 17
    class_names = [str(i) for i in range(10)]

    def __init__(self, holdout: float = 0.2, seed: int = 0, **shared: Any) -> None:
        super().__init__(**shared)
        self.holdout, self.seed = share(holdout), seed

    def load(self) -> dict[str, Pictures]:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy(bunch.images.astype(np.uint8))[:, None]
        return split(Pictures(images, torch.from_numpy(bunch.target).long()), self.holdout, self.seed)


class _Downloadable(ImageData):
    """A published data set that is read where it lies, or else downloaded through torchvision."""

    title: ClassVar[str]
    torchvision: ClassVar[str]
    supply: ClassVar[str]

    def __init__(self, root: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.root = root

    @abstractmethod
    def _find(self, folder: Path) -> dict[str, Pictures] | None:
        """The data if they lie in this folder, else None."""

    def load(self) -> dict[str, Pictures]:
        for folder in readers.candidates(self.root):
            found = self._find(folder)
            if found is not None:
                return found
        return self._download()

    def _download(self) -> dict[str, Pictures]:
        from torchvision import datasets

        target = Path(self.root).expanduser() if self.root else readers.cache()
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(20)
        try:
            target.mkdir(parents=True, exist_ok=True)
            for train in (True, False):
                getattr(datasets, self.torchvision)(str(target), train=train, download=True)
        except Exception as error:  # torchvision, urllib and the file system each raise their own
            looked, why = ", ".join(map(str, readers.candidates(self.root))), " ".join(str(error).split())
            raise UserError(
                f"{self.title} was not found in {looked} and could not be downloaded ({why}); put {self.supply} "
                "into one of these folders, or set data.root or DIFFUSIONKIT_DATA to where it lies"
            ) from error
        finally:
            socket.setdefaulttimeout(timeout)
        return self._find(target)


class MNIST(_Downloadable):
    """Handwritten digits, 28x28 grey (LeCun et al. 1998).

    Args:
        pad: black pixels added on each side: 2 gives 32x32.
        root: folder that holds `MNIST/raw`; by default that of DIFFUSIONKIT_DATA, or a cache.
        shared: what all data sets have; see `ImageData`.
    """

    title = torchvision = "MNIST"
    supply = "MNIST/raw/train-images-idx3-ubyte.gz and its three companions"
    class_names = [str(i) for i in range(10)]

    def __init__(self, pad: int = 0, **shared: Any) -> None:
        super().__init__(**shared)
        if pad < 0:
            raise ValueError(f"pad must not be negative, not {pad}")
        self.pad = pad
        self.shape = (1, 28 + 2 * pad, 28 + 2 * pad)

    def _find(self, folder: Path) -> dict[str, Pictures] | None:
        raw = folder / self.torchvision / "raw"
        names = {"train": "train", "test": "t10k"}
        files = {part: [_plain_or_gz(raw / f"{name}-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
                 for part, name in names.items()}  # fmt: skip
        if not all(file for pair in files.values() for file in pair):
            return None
        return {part: self._read(*pair) for part, pair in files.items()}

    def _read(self, images_file: Path, labels_file: Path) -> Pictures:
        images, labels = readers.read_idx(images_file), readers.read_idx(labels_file).long()
        if images.shape[1:] != (28, 28) or labels.shape != images.shape[:1] or labels.max() > 9:
            raise UserError(f"{images_file}: holds no 28x28 pictures with labels 0 to 9 in {labels_file.name}")
        return Pictures(F.pad(images[:, None], [self.pad] * 4), labels)


class FashionMNIST(MNIST):
    """Pieces of clothing, 28x28 grey (Xiao et al. 2017).

    Args:
        flip: mirror at random.
        shared: `pad` and `root` as of `MNIST`, with `root` holding `FashionMNIST/raw`; what all data sets have, as of `ImageData`.
    """

    title = "Fashion-MNIST"
    torchvision = "FashionMNIST"
    supply = "FashionMNIST/raw/train-images-idx3-ubyte.gz and its three companions"
    class_names = [
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ]  # fmt: skip

    def __init__(self, flip: bool = True, **shared: Any) -> None:
        super().__init__(flip=flip, **shared)


class CIFAR10(_Downloadable):
    """Photographs of ten kinds of things, 32x32 colour (Krizhevsky 2009).

    Args:
        flip: mirror at random.
        root: folder that holds an archive `cifar10_jpeg.tar.xz` of class folders, these folders extracted as
            `cifar10/{train,test}/CLASS`, or torchvision's `cifar-10-batches-py`; by default that of DIFFUSIONKIT_DATA,
            or a cache.
        shared: what all data sets have; see `ImageData`.
    """

    title = "CIFAR-10"
    torchvision = "CIFAR10"
    supply = "cifar10_jpeg.tar.xz, cifar10/{train,test}/CLASS/*.png or cifar-10-batches-py"
    shape = (3, 32, 32)
    class_names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def __init__(self, flip: bool = True, root: str | None = None, **shared: Any) -> None:
        super().__init__(flip=flip, root=root, **shared)

    def _find(self, folder: Path) -> dict[str, Pictures] | None:
        archive, extracted = folder / "cifar10_jpeg.tar.xz", folder / "cifar10"
        if (folder / "cifar-10-batches-py" / "test_batch").is_file():
            return {part: self._batches(folder, part == "train") for part in ("train", "test")}
        if archive.is_file():
            return {k: Pictures(*v) for k, v in readers.read_archive(archive, self.class_names, 32).items()}
        if all((extracted / part).is_dir() for part in ("train", "test")):
            return {part: _class_folders(extracted / part, self.class_names, (32, 32)) for part in ("train", "test")}
        return None

    @staticmethod
    def _batches(folder: Path, train: bool) -> Pictures:
        from torchvision.datasets import CIFAR10 as Original  # checks the files' sums before it unpickles them

        try:
            data = Original(str(folder), train=train, download=False)
        except Exception as error:
            path = folder / "cifar-10-batches-py"
            raise UserError(f"{path}: is damaged ({error}); fetch it again or remove it") from error
        return Pictures(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))


class Folder(ImageData):
    """Any folder of pictures: each subfolder is a class; without classes if the pictures lie in the folder itself.

    Args:
        path: the folder.
        size: height and width of the pictures, one number for square ones.
        resize: "crop" keeps the proportions and cuts the middle out, "stretch" does not.
        flip: mirror at random.
        holdout: share of each class that is held out.
        channels: 3 for colour, 1 for grey.
        seed: of the split.
        shared: what all data sets have; see `ImageData`.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] = 64,
        resize: Literal["crop", "stretch"] = "crop",
        flip: bool = True,
        holdout: float = 0.1,
        channels: int = 3,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(flip=flip, **shared)
        self.path, self.resize = Path(path).expanduser(), resize
        self.holdout, self.seed = share(holdout), seed
        self.shape = fitted_shape(channels, size, resize)

    @property
    def class_names(self) -> list[str] | None:
        if not self.path.is_dir():
            raise UserError(f"{self.path}: there is no such folder; data.path must name a folder of pictures")
        if readers.has_pictures(self.path):
            return None
        folders = sorted(p for p in self.path.iterdir() if p.is_dir() and not p.name.startswith("."))
        return [p.name for p in folders if readers.picture_files(p)] or None

    def load(self) -> dict[str, Pictures]:
        names = self.class_names
        pictures = _class_folders(self.path, names or ["."], self.shape[1:], self.resize, self.shape[0])
        return split(pictures if names else Pictures(pictures.images), self.holdout, self.seed)


def _class_folders(
    path: Path, names: list[str], size: tuple[int, int], resize: str = "crop", channels: int = 3
) -> Pictures:
    """The pictures of the subfolders with these names, labelled by their order."""
    found = [(file, label) for label, name in enumerate(names) for file in readers.picture_files(path / name)]
    if len(found) < 2:
        endings = ", ".join(sorted(readers.ENDINGS))
        raise UserError(f"{path}: holds {len(found) or 'no'} pictures ({endings}), too few to train on")
    images, good = readers.read_files([file for file, _ in found], size, resize, channels)
    if len(images) < 2:
        raise UserError(f"{path}: of {len(found)} pictures only {len(images)} could be read, too few to train on")
    return Pictures(images, torch.tensor([label for _, label in found])[good])


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


def _plain_or_gz(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)


__all__ = ["CIFAR10", "MNIST", "Digits", "FashionMNIST", "Folder", "ImageData", "PictureSet", "Pictures", "split"]
