from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusionkit.errors import UserError
from diffusionkit.image import readers
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import CIFAR10, MNIST, Digits, FashionMNIST, Folder
from diffusionkit.image.pictures import Pictures, PictureSet, split

real = pytest.mark.skipif(not os.environ.get("DIFFUSIONKIT_DATA"), reason="DIFFUSIONKIT_DATA is not set")


def idx(path: Path, values: np.ndarray) -> None:
    head = b"\0\0\x08" + bytes([values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    content = head + values.astype(np.uint8).tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def make_mnist(raw: Path, ending: str = ".gz") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28))
    for part in ("train", "t10k"):
        idx(raw / f"{part}-images-idx3-ubyte{ending}", images)
        idx(raw / f"{part}-labels-idx1-ubyte{ending}", np.arange(6))
    return images


def picture(path: Path, size: tuple[int, int] = (10, 8), colour: tuple[int, ...] = (200, 30, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


def test_constructors_read_nothing(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    assert (MNIST(root=nowhere, pad=2).shape, MNIST(root=nowhere).classes) == ((1, 32, 32), 10)
    assert (CIFAR10(root=nowhere).shape, CIFAR10(root=nowhere).classes) == ((3, 32, 32), 10)
    assert Folder(nowhere, size=(20, 30), channels=1).shape == (1, 20, 30)


def test_some_pictures_have_every_class_in_turn() -> None:
    """Of classes of other sizes as many as there are, at random but the same each time; without classes any of them."""
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 3)[torch.randperm(73, generator=torch.Generator().manual_seed(1))]
    pictures = Pictures(torch.zeros(73, 1, 8, 8, dtype=torch.uint8), labels)
    data = PictureSet(pictures, PixelCodec(shape=(1, 8, 8)))
    chosen = data.some(30)
    assert torch.bincount(labels[chosen]).tolist() == [14, 13, 3] or torch.bincount(labels[chosen]).tolist() == [
        13,
        14,
        3,
    ]
    assert len(set(chosen.tolist())) == 30 and torch.equal(data.some(30), chosen)
    assert not torch.equal(data.some(30, seed=1).sort().values, chosen.sort().values)
    assert torch.equal(data.some(73), torch.arange(73)) and torch.equal(data.some(100), torch.arange(73))
    bare = PictureSet(Pictures(pictures.images, None), PixelCodec(shape=(1, 8, 8)))
    assert len(set(bare.some(30).tolist())) == 30


def test_digits() -> None:
    parts = Digits(holdout=0.25).load()
    train, test = parts["train"], parts["test"]
    assert len(train.images) + len(test.images) == 1797
    assert train.images.dtype == torch.uint8
    assert (int(train.images.min()), int(train.images.max())) == (0, 16)
    counts = torch.bincount(test.labels) / torch.bincount(torch.cat([train.labels, test.labels]))
    assert torch.allclose(counts, torch.tensor(0.25), atol=0.005)
    other = Digits(holdout=0.25, seed=1).load()["test"]
    assert torch.equal(Digits(holdout=0.25).load()["test"].images, test.images)
    assert not torch.equal(other.images, test.images)


@pytest.mark.parametrize("labels", [None, [0, 0, 0, 1, 1, 2]])
def test_split_is_a_partition(labels: list[int] | None) -> None:
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    parts = split(Pictures(images, None if labels is None else torch.tensor(labels)), 0.1)
    assert sorted(torch.cat([p.images for p in parts.values()]).flatten().tolist()) == list(range(6))
    assert min(len(p.images) for p in parts.values()) > 0


@pytest.mark.parametrize("ending", [".gz", ""])
def test_mnist_files_are_read_as_they_lie(tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_mnist(tmp_path / "image/MNIST/raw", ending)
    monkeypatch.setenv("DIFFUSIONKIT_DATA", str(tmp_path))
    train = MNIST(pad=2).load()["train"]
    assert train.images.shape == (6, 1, 32, 32)
    assert np.array_equal(train.images[:, 0, 2:-2, 2:-2], images)
    assert int(train.images.sum()) == images.sum()
    assert train.labels.tolist() == list(range(6))


def test_damaged_idx_files(tmp_path: Path) -> None:
    raw = tmp_path / "MNIST/raw"
    make_mnist(raw)
    file = raw / "train-images-idx3-ubyte.gz"
    content = file.read_bytes()
    for damaged in (content[:-20], content[:5], b"", gzip.compress(b"\0\0\x08\x03" + bytes(12) + b"more"), b"<html>"):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz: .*(damaged|holds no)"):
            MNIST(root=str(tmp_path)).load()
    file.write_bytes(content)
    idx(raw / "train-labels-idx1-ubyte.gz", np.arange(5))
    with pytest.raises(UserError, match="labels 0 to 9"):
        MNIST(root=str(tmp_path)).load()


@pytest.mark.parametrize("data", [MNIST, FashionMNIST, CIFAR10])
def test_missing_data_without_network(data: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(datasets, data.torchvision, offline)
    with pytest.raises(UserError) as error:
        data(root=str(tmp_path)).load()
    for word in (str(tmp_path), "no route to host", data.supply, "DIFFUSIONKIT_DATA"):
        assert word in str(error.value)


def test_downloaded_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    def download(root: str, train: bool, download: bool) -> None:
        assert download
        make_mnist(Path(root) / "MNIST/raw", "")

    monkeypatch.setattr(datasets, "MNIST", download)
    assert len(MNIST(root=str(tmp_path)).load()["test"].images) == 6


def cifar_archive(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w:xz") as archive:
        for i, name in enumerate(names):
            buffer = io.BytesIO()
            Image.new("RGB", (32, 32), (i, 0, 0)).save(buffer, "PNG")
            info = tarfile.TarInfo(name)
            info.size = buffer.tell()
            buffer.seek(0)
            archive.addfile(info, buffer)


def test_cifar_archive_is_read_in_memory(tmp_path: Path) -> None:
    names = ["cifar10/train/truck/2.png", "cifar10/train/cat/1.png", "../../train/dog/3.png", "cifar10/test/cat/1.png",
             "cifar10/README.md", "cifar10/train/unknown/1.png"]  # fmt: skip
    cifar_archive(tmp_path / "cifar10_jpeg.tar.xz", names)
    before = sorted(tmp_path.parent.rglob("*"))
    parts = CIFAR10(root=str(tmp_path)).load()
    assert sorted(tmp_path.parent.rglob("*")) == before
    assert sorted(zip(parts["train"].images[:, 0, 0, 0].tolist(), parts["train"].labels.tolist(), strict=True)) == [
        (0, 9), (1, 3), (2, 5)
    ]  # fmt: skip
    assert parts["test"].labels.tolist() == [3]


def test_damaged_cifar_archive(tmp_path: Path) -> None:
    path = tmp_path / "cifar10_jpeg.tar.xz"
    cifar_archive(path, ["cifar10/train/cat/1.png"])
    with pytest.raises(UserError, match="holds no pictures at"):
        CIFAR10(root=str(tmp_path)).load()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        CIFAR10(root=str(tmp_path)).load()


def test_extracted_cifar(tmp_path: Path) -> None:
    for part in ("train", "test"):
        picture(tmp_path / "cifar10" / part / "dog/1.png", (32, 32))
        picture(tmp_path / "cifar10" / part / "ship/1.png", (32, 32))
    assert CIFAR10(root=str(tmp_path)).load()["test"].labels.tolist() == [5, 8]


def test_folder_with_classes(tmp_path: Path) -> None:
    for i in range(4):
        picture(tmp_path / f"red/{i}.png", colour=(255, 0, 0))
        picture(tmp_path / f"blue/sub/{i}.jpg", colour=(0, 0, 255))
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    data = Folder(str(tmp_path), size=8, holdout=0.25)
    assert data.class_names == ["blue", "red"]
    parts = data.load()
    assert [len(parts[k].images) for k in ("train", "test")] == [6, 2]
    for part in parts.values():
        blue = part.images.float().mean((2, 3))[:, 2] > 128
        assert torch.equal(blue, part.labels == 0)


def test_folder_without_classes_names_what_it_skips(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    frames = [Image.new("RGB", (8, 8), (i, 0, 0)) for i in (0, 200)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "broken.png").write_bytes((tmp_path / "0.png").read_bytes()[:40])
    data = Folder(str(tmp_path), size=8)
    assert data.classes is None
    with pytest.warns(UserWarning, match=r"skipped 2 of 5 pictures: .*broken\.png.*moving\.gif"):
        parts = data.load()
    assert sum(len(p.images) for p in parts.values()) == 3
    assert parts["train"].labels is None


def test_folder_crops_or_stretches(tmp_path: Path) -> None:
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    for i in range(2):
        Image.fromarray(wide).save(tmp_path / f"{i}.png")
    crop = Folder(str(tmp_path), size=8).load()["train"].images
    stretch = Folder(str(tmp_path), size=8, resize="stretch").load()["train"].images
    assert crop.float().mean() > 240
    assert 50 < stretch.float().mean() < 120
    grey = Folder(str(tmp_path), size=(4, 12), channels=1).load()["train"].images
    assert grey.shape == (1, 1, 4, 12)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (readers.decode(tmp_path / "clear.png", (8, 8)) == 255).all()


def test_folder_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Folder(str(tmp_path / "nowhere")).load()
    with pytest.raises(UserError, match="holds no pictures"):
        Folder(str(tmp_path)).load()
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(b"nonsense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError, match="only 0 could be read"):
            Folder(str(tmp_path)).load()
    monkeypatch.setattr(readers, "MOST_BYTES", 1e4)
    with pytest.raises(UserError, match="need .* GB of memory"):
        Folder(str(tmp_path)).load()


@pytest.mark.parametrize("options", [{"size": 0}, {"resize": "pad"}, {"channels": 2}, {"holdout": 1.0}])
def test_impossible_values(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        Folder("anywhere", **options)
    with pytest.raises(ValueError, match="pad"):
        MNIST(pad=-1)


def test_batches_are_a_function_of_indices_and_generator() -> None:
    images = torch.randint(0, 256, (50, 3, 4, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    codec = PixelCodec((3, 4, 6), ["a", "b"])
    data = PictureSet(Pictures(images, torch.arange(50) % 2), codec, flip=True)
    indices = torch.arange(49, -1, -1)
    plain = data.batch(indices)
    assert torch.equal(plain.x, codec.encode(images.flip(0)))
    assert torch.equal(plain.cond["class"], indices % 2)
    one, same, other = (data.batch(indices, torch.Generator().manual_seed(seed)).x for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    flipped = (one == plain.x.flip(3)).all((1, 2, 3))
    assert torch.equal(flipped, ~(one == plain.x).all((1, 2, 3)))
    assert 10 < int(flipped.sum()) < 40
    assert torch.equal(images, before), "the data stay as they are"
    still = PictureSet(Pictures(images), codec, flip=False).batch(indices, torch.Generator().manual_seed(1))
    assert torch.equal(still.x, plain.x)
    assert still.cond is None


@real
@pytest.mark.parametrize(("data", "train", "mean"), [(MNIST(), 8000, 0.1325), (FashionMNIST(), 18000, 0.2859)])
def test_real_data(data: MNIST, train: int, mean: float) -> None:
    parts = data.load()
    assert len(parts["train"].images) == train
    assert abs(float(parts["train"].images.float().mean()) / 255 - mean) < 1e-3
    assert set(parts["test"].labels.tolist()) == set(range(10))


@real
@pytest.mark.slow
def test_real_cifar() -> None:
    parts = CIFAR10().load()
    assert [len(p.images) for p in parts.values()] == [20000, 4000]
    mean = parts["train"].images.float().mean((0, 2, 3)) / 255
    assert torch.allclose(mean, torch.tensor([0.4921, 0.4830, 0.4476]), atol=1e-3)
