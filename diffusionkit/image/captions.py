"""Pictures with captions: the emoji of Noto, and folders of one's own in three forms."""

from __future__ import annotations

import csv
import io
import tarfile
import warnings
import zipfile
import zlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
import torch

from diffusionkit.errors import UserError
from diffusionkit.image import readers
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.pictures import ImageData, Pictures, chosen_of, fitted_shape, share, split
from diffusionkit.image.text import TextReader

_EXAMPLES = 512  # held-out captions that are kept with a run
_TABLE = "captions.tsv"


class Captioned(ImageData):
    """What data sets with captions have in common.

    Args:
        labels: tell the model the captions.
        vocabulary: the most ids of the byte-pair vocabulary that is learned from the captions of the training part.
        length: the most ids in a text, start and end included.
        encoder: folder of a text encoder (CLIP or T5, as `transformers` saves them) that takes the place of a vocabulary and of
            an encoder that is trained; of two folders the tokens stand side by side, as in SDXL.
        shared: what all data sets have; see `ImageData`.
    """

    class_names = None

    def __init__(
        self,
        labels: bool = True,
        vocabulary: int = 1000,
        length: int = 32,
        encoder: str | tuple[str, ...] | None = None,
        **shared: Any,
    ) -> None:
        from diffusionkit.image.vocabulary import LEAST

        super().__init__(labels=labels, **shared)
        if vocabulary < LEAST:
            raise ValueError(f"vocabulary must be at least {LEAST}, the bytes and three more, not {vocabulary}")
        if length < 3:
            raise ValueError(f"length must be at least 3, not {length}")
        folders = (encoder,) if isinstance(encoder, str) else encoder
        if folders is not None and not 1 <= len(folders) <= 2:
            raise ValueError(f"encoder must be one folder or two, not {len(folders)}")
        self.vocabulary, self.length, self.encoder = vocabulary, length, folders

    @abstractmethod
    def _read(self) -> dict[str, Pictures]:
        """Everything, with captions."""

    @cached_property
    def _found(self) -> dict[str, Pictures]:
        return self._read()

    def load(self) -> dict[str, Pictures]:
        return self._found

    @property
    def codec(self) -> PixelCodec:
        made = super().codec
        made.text = self._text if self.labels else None
        return made

    @cached_property
    def _text(self) -> TextReader:
        captions = {name: part.captions or [] for name, part in self.load().items()}
        examples = [each[0] for each in captions["test"][:_EXAMPLES]]
        if self.encoder is not None:
            from diffusionkit.image.encoders import Encoders

            return Encoders.load(self.encoder, self.length, examples)
        from diffusionkit.image.vocabulary import Vocabulary

        said = (caption for each in captions["train"] for caption in each)
        return Vocabulary.learn(said, self.vocabulary, self.length, examples)

    def text_arguments(self) -> dict[str, Any]:
        """Arguments of the network as far as they are known before the data are read."""
        if not self.labels:
            return {}
        if self.encoder is None:
            return {"vocabulary": self.vocabulary, "text_length": self.length}
        from diffusionkit.image.encoders import widths

        return widths(self.encoder)


class Emoji(Captioned):
    """Noto's emoji, 64x64 colour, with their names and keywords as captions; `reduce: 2` makes them 32x32.

    A picture's captions are its name, and its keywords in a row. One is drawn each time; held-out pictures have their names.

    Args:
        skin_tones: also those that differ from others in the colour of skin alone, which are half of all.
        root: folder that holds `emoji/noto_emoji_64.zip` and `emoji/captions.tsv`; by default that of DIFFUSIONKIT_DATA.
        shared: `vocabulary`, `length` and `encoder` as of `Captioned`; what all data sets have, as of `ImageData`.
    """

    shape = (3, 64, 64)

    def __init__(self, skin_tones: bool = False, root: str | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self.skin_tones, self.root = skin_tones, root

    def _read(self) -> dict[str, Pictures]:
        folders = [folder / "emoji" for folder in readers.candidates(self.root)]
        for folder in folders:
            archive, table = folder / "noto_emoji_64.zip", folder / _TABLE
            if archive.is_file() and table.is_file():
                return self._from(archive, table)
        looked = ", ".join(map(str, folders))
        raise UserError(
            f"the emoji were not found in {looked}; put noto_emoji_64.zip and {_TABLE} into one of these folders, "
            "or set data.root or DIFFUSIONKIT_DATA to the folder above it"
        )

    def _from(self, archive: Path, table: Path) -> dict[str, Pictures]:
        rows = _rows(table, ("file", "caption", "skin_tone", "keywords", "split"))
        if not self.skin_tones:
            rows = [row for row in rows if not row["skin_tone"]]
        samples: list[Sample] = []
        try:
            with zipfile.ZipFile(archive) as opened:
                names = {Path(name).name: name for name in opened.namelist()}
                for row in rows:
                    captions = list(dict.fromkeys([row["caption"], ", ".join(row["keywords"].split("; "))]))
                    content = opened.read(names[row["file"]])
                    samples.append(Sample(row["file"], content, [text for text in captions if text]))
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{archive}: is damaged ({error}); fetch it again") from error
        pictures, good = _decoded(samples, self.shape, "crop", archive)
        parts = np.array([rows[i]["split"] for i in good])
        return {
            name: chosen_of(pictures, torch.from_numpy(np.flatnonzero(parts == name))) for name in ("train", "test")
        }


class CaptionedFolder(Captioned):
    """A folder of pictures and what they show, in one of three forms.

    - `captions.tsv` in the folder: a table, parted by tabs, with the columns `file` (below the folder) and `caption`; a picture
      may have several rows. A column `split` with `train` and `test` takes the place of `holdout`.
    - a `.txt` file beside each picture, of the same name; each line is a caption.
    - WebDataset: one or more `.tar` files in which a picture and its `.txt` have the same name. Nothing but these is read.

    Pictures without captions, captions without pictures, and what cannot be read are named in one warning, counted, and left out.

    Args:
        path: the folder, or one `.tar` file.
        size: height and width of the pictures, one number for square ones.
        resize: "crop" keeps the proportions and cuts the middle out, "stretch" does not.
        flip: mirror at random; captions that speak of left and right are then wrong.
        holdout: share of the pictures that is held out.
        channels: 3 for colour, 1 for grey.
        seed: of the split.
        shared: `vocabulary`, `length` and `encoder` as of `Captioned`; what all data sets have, as of `ImageData`.
    """

    def __init__(
        self,
        path: str,
        size: int | tuple[int, int] = 64,
        resize: Literal["crop", "stretch"] = "crop",
        flip: bool = False,
        holdout: float = 0.1,
        channels: int = 3,
        seed: int = 0,
        **shared: Any,
    ) -> None:
        super().__init__(flip=flip, **shared)
        self.path, self.resize = Path(path).expanduser(), resize
        self.holdout, self.seed = share(holdout), seed
        self.shape = fitted_shape(channels, size, resize)

    def _read(self) -> dict[str, Pictures]:
        if not self.path.exists():
            raise UserError(
                f"{self.path}: there is no such folder; data.path must name a folder of pictures, or a .tar file"
            )
        problems: list[str] = []
        samples, parts = self._samples(problems)
        if not samples:
            raise UserError(
                f"{self.path}: holds no pictures with captions; see `captioned` for the forms that are read"
            )
        pictures, good = _decoded(samples, self.shape, self.resize, self.path, problems)
        _warn(self.path, problems)
        if parts is None:
            return split(pictures, self.holdout, self.seed)
        named = np.array([parts[samples[i].name] for i in good])
        chosen = {name: torch.from_numpy(np.flatnonzero(named == name)) for name in ("train", "test")}
        for name, indices in chosen.items():
            if not len(indices):
                raise UserError(f"{self.path / _TABLE}: no picture has the split {name!r}")
        return {name: chosen_of(pictures, indices) for name, indices in chosen.items()}

    def _samples(self, problems: list[str]) -> tuple[list[Sample], dict[str, str] | None]:
        """All samples, and their split where the folder has one."""
        tars = [self.path] if self.path.is_file() else sorted(self.path.glob("*.tar"))
        if tars:
            return [sample for tar in tars for sample in _of_tar(tar, problems)], None
        if (self.path / _TABLE).is_file():
            return _of_table(self.path, problems)
        return list(_of_neighbours(self.path, problems)), None


class Sample(NamedTuple):
    """A picture's name, its file or bytes, and its captions."""

    name: str
    content: Path | bytes
    captions: list[str]


def _of_table(folder: Path, problems: list[str]) -> tuple[list[Sample], dict[str, str] | None]:
    rows = _rows(folder / _TABLE, ("file", "caption"))
    captions: dict[str, list[str]] = {}
    for row in rows:
        text = row["caption"].strip()
        if text:
            captions.setdefault(row["file"], []).append(text)
        else:
            problems.append(f"{row['file']} (its caption is empty)")
    root, samples = folder.resolve(), []
    for name, texts in captions.items():
        path = (root / name).resolve()
        if path.is_relative_to(root) and path.is_file():
            samples.append(Sample(name, path, texts))
        else:
            problems.append(f"{name} (there is no such file)")
    known = {str((root / name).resolve()) for name in captions}
    problems += [f"{p.name} (no caption)" for p in readers.picture_files(root) if str(p.resolve()) not in known]
    return samples, {row["file"]: row["split"] for row in rows} if rows and "split" in rows[0] else None


def _of_neighbours(folder: Path, problems: list[str]) -> Iterator[Sample]:
    pictures = readers.picture_files(folder)
    for path in pictures:
        beside = path.with_suffix(".txt")
        try:
            texts = _lines(beside.read_bytes())
        except OSError:
            problems.append(f"{path.name} (no {beside.name} beside it)")
            continue
        except UnicodeDecodeError:
            problems.append(f"{beside.name} (no text in UTF-8)")
            continue
        if texts:
            yield Sample(str(path.relative_to(folder)), path, texts)
        else:
            problems.append(f"{beside.name} (is empty)")
    stems = {path.with_suffix("") for path in pictures}
    lone = sorted(path for path in folder.rglob("*.txt") if path.with_suffix("") not in stems)
    problems += [f"{path.name} (no picture beside it)" for path in lone]


def _of_tar(path: Path, problems: list[str]) -> list[Sample]:
    """The samples of a WebDataset: members that share all but what follows the first dot of their names."""
    pictures: dict[str, bytes] = {}
    texts: dict[str, list[str]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, ending = name.partition(".")
                key, ending = f"{folder}/{stem}".strip("/"), f".{ending.lower()}"
                if not member.isfile() or not stem:
                    continue
                if ending == ".txt":
                    try:
                        texts[key] = _lines(_content(archive, member))
                    except UnicodeDecodeError:
                        problems.append(f"{member.name} (no text in UTF-8)")
                elif ending in readers.ENDINGS:
                    pictures[key] = _content(archive, member)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{path}: is damaged ({error})") from error
    for key in sorted({*pictures, *texts}):
        if key not in pictures:
            problems.append(f"{key}.txt (no picture of this name in {path.name})")
        elif not texts.get(key):
            problems.append(f"{key} ({'its caption is empty' if key in texts else 'no caption'})")
    return [Sample(key, content, texts[key]) for key, content in sorted(pictures.items()) if texts.get(key)]


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    opened: IO[bytes] | None = archive.extractfile(member)
    return b"" if opened is None else opened.read()


def _lines(content: bytes) -> list[str]:
    return [line.strip() for line in content.decode("utf-8-sig").splitlines() if line.strip()]


def _rows(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """A table parted by tabs.

    Raises:
        UserError: if it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter="\t")
            missing = [name for name in columns if name not in (reader.fieldnames or [])]
            if missing:
                raise UserError(
                    f"{path}: lacks the column {missing[0]!r}; its columns, parted by tabs, must be {', '.join(columns)}"
                )
            return [{key: value or "" for key, value in row.items() if key is not None} for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read as a table parted by tabs ({error})") from error


def _decoded(
    samples: list[Sample],
    shape: tuple[int, int, int],
    resize: str,
    where: Path,
    problems: list[str] | None = None,
) -> tuple[Pictures, list[int]]:
    """The pictures of samples, and the positions of those that could be read."""
    images, good, bad = [], [], [] if problems is None else problems
    for i, sample in enumerate(samples):
        file = io.BytesIO(sample.content) if isinstance(sample.content, bytes) else sample.content
        try:
            images.append(torch.from_numpy(readers.decode(file, shape[1:], resize, shape[0])))
            good.append(i)
        except Exception as error:  # whatever a decoder says about a damaged file
            bad.append(f"{Path(sample.name).name} ({error})")
    if problems is None:
        _warn(where, bad)
    if len(images) < 2:
        raise UserError(
            f"{where}: of {len(samples)} pictures with captions only {len(images)} could be read, too few to train on"
        )
    return Pictures(torch.stack(images), None, [samples[i].captions for i in good]), good


def _warn(where: Path, problems: Iterable[str]) -> None:
    found = list(problems)
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        warnings.warn(f"{where}: skipped {len(found)}: {'; '.join(found[:5])}{more}", stacklevel=2)


__all__ = ["Captioned", "CaptionedFolder", "Emoji"]
