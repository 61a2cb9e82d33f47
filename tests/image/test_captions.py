"""Captioned pictures: the emoji, and folders in three forms."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffusionkit.errors import UserError
from diffusionkit.image.captions import CaptionedFolder, Emoji


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(file, "PNG")
    return file.getvalue()


def as_table(folder: Path, captions: dict[str, list[str]]) -> None:
    rows = [f"{name}.png\t{text}\n" for name, texts in captions.items() for text in texts]
    (folder / "captions.tsv").write_text("".join(["file\tcaption\n", *rows]), "utf-8")
    _pictures(folder, captions)


def as_neighbours(folder: Path, captions: dict[str, list[str]]) -> None:
    for name, texts in captions.items():
        (folder / f"{name}.txt").write_text("\n".join([*texts, ""]), "utf-8")
    _pictures(folder, captions)


def as_tar(folder: Path, captions: dict[str, list[str]]) -> None:
    with tarfile.open(folder / "000.tar", "w") as archive:
        for i, (name, texts) in enumerate(captions.items()):
            for ending, content in (
                ("png", png(10 * i)),
                ("txt", "\n".join(texts).encode()),
                ("pkl", b"\x80bad"),
                ("cls", b"3"),
            ):
                member = tarfile.TarInfo(f"{name}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


def _pictures(folder: Path, captions: dict[str, list[str]]) -> None:
    for i, name in enumerate(captions):
        (folder / f"{name}.png").write_bytes(png(10 * i))


FORMS = {"table": as_table, "neighbours": as_neighbours, "tar": as_tar}
CAPTIONS = {f"p{i}": [f"picture {i}", f"grey of {10 * i}"] for i in range(10)}


@pytest.mark.parametrize("form", FORMS)
def test_pictures_keep_their_captions(form: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path, CAPTIONS)
    data = CaptionedFolder(str(tmp_path), size=4, holdout=0.2, length=40)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codec = data.codec
    parts = data.parts(codec)
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "test": 2}
    pairs = [
        (int(image[0, 0, 0]), texts)
        for part in data.load().values()
        for image, texts in zip(part.images, part.captions, strict=True)
    ]
    assert sorted(pairs) == [(10 * i, [f"picture {i}", f"grey of {10 * i}"]) for i in range(10)]
    assert codec.text.examples == [texts[0] for texts in data.load()["test"].captions]


def test_one_caption_of_several_is_drawn_and_the_first_without_a_generator(tmp_path: Path) -> None:
    as_table(tmp_path, CAPTIONS)
    data = CaptionedFolder(str(tmp_path), size=4, length=40)
    part = data.parts(data.codec)["train"]
    captions, vocabulary = part.pictures.captions, part.codec.text
    indices = torch.zeros(400, dtype=torch.long)
    drawn = part.batch(indices, torch.Generator().manual_seed(0)).cond["text"]
    first, second = (vocabulary.condition([text])["text"][0] for text in captions[0])
    assert float((drawn == first).all(1).float().mean()) == pytest.approx(0.5, abs=0.1)
    assert ((drawn == first).all(1) | (drawn == second).all(1)).all()
    assert torch.equal(drawn, part.batch(indices, torch.Generator().manual_seed(0)).cond["text"])
    assert (part.batch(indices).cond["text"] == first).all()


def test_without_labels_nothing_is_said(tmp_path: Path) -> None:
    as_table(tmp_path, CAPTIONS)
    data = CaptionedFolder(str(tmp_path), size=4, labels=False)
    assert data.codec.text is None and data.text_arguments() == {}
    assert data.parts(data.codec)["train"].batch(torch.arange(3)).cond is None


def test_the_vocabulary_is_of_the_training_part_alone(tmp_path: Path) -> None:
    rows = [
        f"p{i}.png\t{'zebra zebra' if i > 7 else 'heart heart'}\t{'test' if i > 7 else 'train'}\n" for i in range(10)
    ]
    _pictures(tmp_path, CAPTIONS)
    (tmp_path / "captions.tsv").write_text("".join(["file\tcaption\tsplit\n", *rows]))
    text = CaptionedFolder(str(tmp_path), size=4).codec.text
    assert len(text.ids("heart")) == 1 and len(text.ids("zebra")) == 6
    assert text.examples == ["zebra zebra"] * 2


@pytest.mark.parametrize(
    ("form", "spoil", "message"),
    [
        ("table", lambda d: (d / "more.png").write_bytes(png(1)), r"skipped 1: more\.png \(no caption\)"),
        ("table", lambda d: (d / "p3.png").unlink(), r"skipped 1: p3\.png \(there is no such file\)"),
        ("table", lambda d: (d / "p3.png").write_bytes(b"\x89PNG"), r"skipped 1: p3\.png \(cannot identify"),
        ("neighbours", lambda d: (d / "p3.txt").unlink(), r"skipped 1: p3\.png \(no p3\.txt beside it\)"),
        ("neighbours", lambda d: (d / "p3.png").unlink(), r"skipped 1: p3\.txt \(no picture beside it\)"),
        ("neighbours", lambda d: (d / "p3.txt").write_text(" \n"), r"skipped 1: p3\.txt \(is empty\)"),
        (
            "neighbours",
            lambda d: (d / "p3.txt").write_bytes(b"\xff\xfe\xff"),
            r"skipped 1: p3\.txt \(no text in UTF-8\)",
        ),
    ],
)
def test_what_does_not_belong_together_is_named_and_counted(form, spoil, message, tmp_path: Path) -> None:
    FORMS[form](tmp_path, CAPTIONS)
    spoil(tmp_path)
    with pytest.warns(UserWarning, match=message):
        found = CaptionedFolder(str(tmp_path), size=4).load()
    assert sum(len(part.images) for part in found.values()) == (10 if "more" in message else 9)


def test_a_tar_names_its_lone_members(tmp_path: Path) -> None:
    as_tar(tmp_path, {**CAPTIONS, "lone": []})
    with tarfile.open(tmp_path / "000.tar", "a") as archive:
        member = tarfile.TarInfo("text.txt")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"hi"))
    with pytest.warns(
        UserWarning, match=r"skipped 2: lone \(its caption is empty\); text\.txt \(no picture of this name"
    ):
        assert len(CaptionedFolder(str(tmp_path / "000.tar"), size=4).load()["train"].images) == 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: None, "holds no pictures with captions"),
        (lambda d: (d / "captions.tsv").write_text("name\ttext\n"), "lacks the column 'file'"),
        (lambda d: (d / "captions.tsv").write_text(""), "lacks the column 'file'"),
        (lambda d: (d / "a.tar").write_bytes(b"no tar at all"), "is damaged"),
        (
            lambda d: (d / "captions.tsv").write_text("file\tcaption\n../secret.png\tx\n"),
            "holds no pictures with captions",
        ),
    ],
)
def test_folders_that_cannot_be_read_are_one_sentence(make, message: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(png(1))
    make(folder)
    with pytest.raises(UserError, match=message):
        CaptionedFolder(str(folder), size=4).load()


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        CaptionedFolder("/nowhere/at/all").load()
    with pytest.raises(ValueError, match="vocabulary must be at least 259"):
        CaptionedFolder("x", vocabulary=100)
    with pytest.raises(ValueError, match="one folder or two"):
        CaptionedFolder("x", encoder=("a", "b", "c"))
    with pytest.raises(ValueError, match="length must be at least 3"):
        Emoji(length=2)


def test_missing_emoji_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the emoji were not found"):
        Emoji(root=str(tmp_path)).load()


@pytest.mark.skipif(not os.environ.get("DIFFUSIONKIT_DATA"), reason="the emoji are in the folder DIFFUSIONKIT_DATA")
def test_emoji_have_their_names_and_keywords() -> None:
    data = Emoji(reduce=2)
    codec = data.codec
    parts = data.parts(codec)
    assert {name: len(part) for name, part in parts.items()} == {"train": 1484, "test": 164}
    captions = parts["train"].pictures.captions
    assert ["mahjong red dragon", "game, mahjong, mahjong red dragon, red"] in captions
    assert codec.shape == (3, 32, 32) and len(codec.text) == 1000 and len(codec.text.examples) == 164
