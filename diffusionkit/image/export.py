"""Writers of sampled pictures: all or nothing and, but for the PNG grid, in memory that does not grow with them."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.grid import as_rows, save_grid
from diffusionkit.writer import Writer


class PictureWriter(Writer):
    """Takes chunks of states of a `PixelCodec`."""

    def __init__(self, codec: PixelCodec, path: Path, n: int) -> None:
        super().__init__(codec, path, n)
        self.shape = codec.shape

    def write(self, x: Tensor) -> None:
        self.add(self.codec.decode(x).cpu())


class GridWriter(PictureWriter):
    """One PNG with all pictures; they are kept in memory."""

    def _open(self) -> None:
        super()._open()
        self.pictures: list[Tensor] = []
        self.part.touch()  # finds out now whether the place can be written to

    def _add(self, pictures: Tensor) -> None:
        self.pictures.append(pictures)

    def _finish(self) -> None:
        save_grid(torch.cat(self.pictures), self.part, columns=self.codec.columns(self.n))
        super()._finish()


class PlainWriter(GridWriter):
    """One PNG of one picture, in its native size."""

    def _finish(self) -> None:
        save_grid(torch.cat(self.pictures), self.part, upscale=1, gap=0)
        Writer._finish(self)


class NpzWriter(PictureWriter):
    """NumPy's .npz with the key `images`: uint8 (n, H, W, C), without a time stamp."""

    def _open(self) -> None:
        super()._open()
        self.archive = zipfile.ZipFile(self.part, "w")
        self.entry = self.archive.open(zipfile.ZipInfo("images.npy"), "w", force_zip64=True)
        c, h, w = self.shape
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.n, h, w, c)}
        np.lib.format.write_array_header_1_0(self.entry, header)

    def _add(self, pictures: Tensor) -> None:
        self.entry.write(pictures.permute(0, 2, 3, 1).contiguous().numpy().data)

    def _finish(self) -> None:
        self._close()
        super()._finish()

    def _close(self) -> None:
        self.entry.close()
        self.archive.close()

    def _discard(self) -> None:
        try:
            self._close()
        except (AttributeError, OSError, ValueError):
            pass  # not opened, or the disk is full: the file goes away all the same
        super()._discard()


class TorchWriter(PictureWriter):
    """A tensor, uint8 (n, C, H, W), for `torch.load`. Its bytes are first gathered in a neighbouring file."""

    def _open(self) -> None:
        super()._open()
        self.raw = self.part.with_suffix(".raw")
        self.file: IO[bytes] = open(self.raw, "wb")

    def _add(self, pictures: Tensor) -> None:
        self.file.write(pictures.contiguous().numpy().data)

    def _finish(self) -> None:
        self.file.close()
        # Mapped, not read; written by `write` above, since a full disk under a writable map kills the process.
        values = np.memmap(self.raw, np.uint8, "c", shape=(self.n, *self.shape))
        with open(self.part, "wb") as file:  # a file object: with a path, its name would become part of the content
            torch.save(torch.from_numpy(values), file)
        super()._finish()

    def _discard(self) -> None:
        if hasattr(self, "file"):
            try:
                self.file.close()
            except OSError:
                pass
            self.raw.unlink(missing_ok=True)
        super()._discard()


class FolderWriter(PictureWriter):
    """A folder of single PNG files in their native size: 000000.png, 000001.png, ..."""

    def _open(self) -> None:
        super()._open()
        shutil.rmtree(self.part, ignore_errors=True)
        self.part.mkdir()

    def _add(self, pictures: Tensor) -> None:
        from PIL import Image

        for i, row in enumerate(as_rows(pictures), self.count):
            picture = Image.fromarray(row[..., 0] if row.shape[2] == 1 else row)
            picture.save(self.part / f"{i:06d}.png")

    def _finish(self) -> None:
        if self.path.is_dir():
            self.path.rmdir()  # empty: `open_writer` saw to that
        super()._finish()

    def _discard(self) -> None:
        shutil.rmtree(self.part, ignore_errors=True)


class Labelled:
    """A writer that also leaves what was asked for: beside a file NAME.png a text NAME.txt with a line for each picture, in a
    folder of single pictures a table `captions.tsv`, as the data set `captioned` reads it.

    Args:
        writer: of the pictures.
        words: of each picture.
    """

    def __init__(self, writer: Writer, words: list[str]) -> None:
        self.writer, self.words = writer, [" ".join(text.split()) for text in words]

    def __enter__(self) -> Self:
        self.writer.__enter__()
        return self

    def write(self, x: Any) -> None:
        self.writer.write(x)

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        self.writer.__exit__(kind, error, traceback)
        if kind is None:
            self.writer._guard(self._label)

    def _label(self) -> None:
        path = self.writer.path
        if not path.is_dir():
            path.with_suffix(".txt").write_text("".join(f"{text}\n" for text in self.words), "utf-8")
            return
        import csv

        with (path / "captions.tsv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, delimiter="\t", lineterminator="\n")
            table.writerows([("file", "caption"), *((f"{i:06d}.png", text) for i, text in enumerate(self.words))])


WRITERS: dict[str, type[Writer]] = {".png": GridWriter, ".npz": NpzWriter, ".pt": TorchWriter}


def open_writer(codec: PixelCodec, path: str | Path, n: int, plain: bool = False) -> Writer:
    """The writer that the ending of `path` asks for; a path that ends in '/' is a folder of single pictures.

    With `plain`, a PNG holds one picture in its native size rather than a grid.

    Raises:
        UserError: if nothing is written under this ending, or the place is taken.
    """
    text, target = str(path), Path(path)
    if text.endswith(("/", os.sep)) or target.is_dir():
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise UserError(f"{text}: exists and is not an empty folder; name another one or remove it")
        return FolderWriter(codec, target, n)
    if target.suffix.lower() not in WRITERS:
        known = f"{', '.join(WRITERS)} and '/' (a folder of single pictures)"
        raise UserError(f"{text}: unknown ending {target.suffix!r}; known are {known}")
    writer = WRITERS[target.suffix.lower()]
    return (PlainWriter if plain and writer is GridWriter else writer)(codec, target, n)
