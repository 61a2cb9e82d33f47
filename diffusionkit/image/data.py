"""The data sets of pictures that ship. Making one reads nothing; `load` does."""

from __future__ import annotations

import socket
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch.nn import functional as F

from diffusionkit.errors import UserError
from diffusionkit.image import readers
from diffusionkit.image.pictures import ImageData, Pictures, fitted_shape, share, split


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


def _plain_or_gz(path: Path) -> Path | None:
    return next((p for p in (path, path.with_name(path.name + ".gz")) if p.is_file()), None)
