"""Files of pictures -> uint8 tensors (N, C, H, W). Nothing is extracted to disk and nothing is unpickled here."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from diffusionkit.errors import UserError

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
"""Pillow's modes of pictures without colours."""
MOST_BYTES = 8e9


def read_idx(path: Path) -> Tensor:
    """An idx file of unsigned bytes (LeCun's MNIST format), gzipped if it ends in .gz.

    Raises:
        UserError: if the file is not whole.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
        if content[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as an idx file of bytes does")
        shape = np.frombuffer(content, ">u4", content[3], 4).astype(np.int64)
        values = np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape))
        if len(values) != shape.prod():
            raise ValueError(f"it holds {len(values)} values where its head announces {shape.prod()}")
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise UserError(f"{path}: is damaged ({error}); fetch it again or remove it") from error
    return torch.from_numpy(values.reshape(*shape).copy())


def read_archive(path: Path, classes: list[str], size: int) -> dict[str, tuple[Tensor, Tensor]]:
    """An archive with pictures at .../{train,test}/CLASS/FILE, read in memory: pictures and labels of both parts.

    Raises:
        UserError: if the archive is damaged, or holds something else.
    """
    found: dict[str, list[tuple[str, int, np.ndarray]]] = {"train": [], "test": []}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                parts = member.name.split("/")[-3:]
                if not member.isfile() or len(parts) < 3 or parts[0] not in found or parts[1] not in classes:
                    continue
                content = io.BytesIO(archive.extractfile(member).read())
                found[parts[0]].append((member.name, classes.index(parts[1]), decode(content, (size, size))))
    except (OSError, EOFError, ValueError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: is damaged ({error}); fetch it again or remove it") from error
    if not all(found.values()):
        where = "train/CLASS/FILE and test/CLASS/FILE with the classes"
        raise UserError(f"{path}: holds no pictures at {where} {', '.join(classes)}")
    return {part: _stack(sorted(rows, key=lambda row: row[:2])) for part, rows in found.items()}


def _stack(rows: list[tuple[str, int, np.ndarray]]) -> tuple[Tensor, Tensor]:
    pictures = torch.from_numpy(np.stack([picture for _, _, picture in rows]))
    return pictures, torch.tensor([label for _, label, _ in rows])


def picture_files(folder: Path) -> list[Path]:
    """The picture files below a folder, hidden ones left out, in order."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in ENDINGS
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def has_pictures(folder: Path) -> bool:
    """Whether picture files lie in the folder itself."""
    return any(path.suffix.lower() in ENDINGS and not path.name.startswith(".") for path in folder.iterdir())


def read_files(
    files: list[Path], size: tuple[int, int], resize: str = "crop", channels: int = 3
) -> tuple[Tensor, list[int]]:
    """Decodes files into one tensor, with threads.

    Returns:
        The pictures, and the positions in `files` of those that could be read. Damaged and animated files are left out
        and named in one warning.

    Raises:
        UserError: if the pictures would not fit into memory.
    """
    count = len(files) * channels * size[0] * size[1]
    if count > MOST_BYTES:
        raise UserError(
            f"{len(files)} pictures of {channels}x{size[0]}x{size[1]} need {count / 1e9:.1f} GB of memory, more than "
            f"the {MOST_BYTES / 1e9:.0f} GB allowed; choose a smaller size or fewer pictures"
        )
    pictures = torch.empty(len(files), channels, *size, dtype=torch.uint8)

    def work(i: int) -> str | None:
        try:
            pictures[i] = torch.from_numpy(decode(files[i], size, resize, channels))
        except Exception as error:  # whatever a decoder says about a damaged file
            return f"{files[i].name} ({error})"
        return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        problems = list(pool.map(work, range(len(files))))
    good = [i for i, problem in enumerate(problems) if problem is None]
    bad = [problem for problem in problems if problem is not None]
    if bad:
        more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
        named = "; ".join(bad[:5])
        warnings.warn(f"skipped {len(bad)} of {len(files)} pictures: {named}{more}", stacklevel=2)
        pictures = pictures[good]
    return pictures, good


def decode(file: Path | IO[bytes], size: tuple[int, int] | None, resize: str = "crop", channels: int = 3) -> np.ndarray:
    """One picture as uint8 (C, H, W), upright, transparency laid on white, brought to `size` (height, width).

    Args:
        file: a path, or what has been opened.
        size: None leaves the picture as large as it is.
        resize: "crop" keeps the proportions and cuts the middle out, "stretch" does not.

    Raises:
        ValueError: for an animation.
        OSError: for a damaged file.
    """
    from PIL import Image, ImageOps

    with Image.open(file) as picture:
        if getattr(picture, "is_animated", False):
            raise ValueError("an animation")
        picture = ImageOps.exif_transpose(picture)
        if picture.mode.startswith("I;16"):  # of which Pillow would clip the upper levels
            picture = Image.fromarray((np.asarray(picture) // 257).astype(np.uint8))
        if picture.has_transparency_data:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("RGB" if channels == 3 else "L")
        target = picture.size if size is None else (size[1], size[0])
        if picture.size != target:
            lanczos: Any = Image.Resampling.LANCZOS
            fit: Callable[..., Any] = ImageOps.fit if resize == "crop" else Image.Image.resize
            picture = fit(picture, target, lanczos)
        values = np.array(picture)
    return values[None] if channels == 1 else values.transpose(2, 0, 1)


def read_picture(path: str | Path, shape: tuple[int, ...], fit: bool = False, any_channels: bool = False) -> Tensor:
    """One picture of a given shape as uint8 (C, H, W).

    Args:
        path: the file.
        shape: channels, height and width that it must have.
        fit: cut and resize it, and bring it to the number of channels, rather than refuse it.
        any_channels: take any number of channels, and bring it to that of the shape.

    Raises:
        UserError: if it cannot be read, or is of another shape.
    """
    channels, size = shape[0], shape[1:]
    with _opened(path) as picture:
        found, has = _upright(picture), 1 if picture.mode in GREY else 3
    if not fit and found != size:
        by, wanted = ("x".join(map(str, pair)) for pair in (found, size))
        raise UserError(f"{path}: is of {by} pixels, it must be of {wanted}; --fit cuts and resizes it")
    if not fit and not any_channels and has != channels:
        kinds = {1: "grey", 3: "in colour"}
        raise UserError(f"{path}: is {kinds[has]}, it must be {kinds.get(channels, channels)}; --fit converts it")
    with _opened(path):
        return torch.from_numpy(decode(Path(path), (size[0], size[1]), "crop", channels))


def read_whole(path: str | Path) -> Tensor:
    """One picture of any size and kind as uint8 (C, H, W): one channel if it is grey, three otherwise.

    Raises:
        UserError: if it cannot be read.
    """
    with _opened(path) as picture:
        channels = 1 if picture.mode in GREY else 3
        return torch.from_numpy(decode(Path(path), None, channels=channels).copy())


def picture_size(path: str | Path) -> tuple[int, int]:
    """Height and width of a picture.

    Raises:
        UserError: if it cannot be read.
    """
    with _opened(path) as picture:
        return _upright(picture)


def _upright(picture: Any) -> tuple[int, int]:
    from PIL import ImageOps

    width, height = ImageOps.exif_transpose(picture).size
    return height, width


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    """A picture file, and one sentence for whatever goes wrong with it meanwhile."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: is no picture that can be read ({error})") from error


def candidates(root: str | None) -> Iterator[Path]:
    """The folders in which data sets are looked for: that of the recipe, or DIFFUSIONKIT_DATA and the cache."""
    if root is not None:
        roots = [Path(root).expanduser()]
    else:
        roots = [Path(os.environ[key]) for key in ("DIFFUSIONKIT_DATA",) if os.environ.get(key)] + [cache()]
    for folder in roots:
        yield from (folder, folder / "image")


def cache() -> Path:
    """Where downloads go unless the recipe says otherwise."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diffusionkit"
