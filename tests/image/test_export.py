from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffusionkit.errors import UserError
from diffusionkit.image import export
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.domain import ImageDomain
from diffusionkit.image.grid import grid

CODEC = PixelCodec((3, 5, 4))


def states(n: int = 7) -> torch.Tensor:
    return torch.rand(n, 3, 5, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1


def write(path: Path | str, x: torch.Tensor, chunk: int = 3, codec: PixelCodec = CODEC) -> None:
    with ImageDomain().writer(codec, path, len(x)) as writer:
        for part in x.split(chunk):
            writer.write(part)


def content(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("target", ["a.png", "a.npz", "a.pt", "a/", "new/folder/a.npz"])
def test_bytes_depend_on_the_pictures_only(tmp_path: Path, target: str) -> None:
    one, two = f"{tmp_path}/one/{target}", f"{tmp_path}/two/{target}"
    write(one, states(), 3)
    write(two, states(), 7)
    assert content(Path(one)) == content(Path(two))
    assert [p.name for p in Path(one).parent.iterdir()] == [Path(one).name], "nothing else is left"


def test_npz_and_pt(tmp_path: Path) -> None:
    write(tmp_path / "a.npz", states())
    write(tmp_path / "a.pt", states())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert list(file) == ["images"]
        assert file["images"].dtype == np.uint8
        assert np.array_equal(file["images"], CODEC.decode(states()).permute(0, 2, 3, 1))
    assert torch.equal(torch.load(tmp_path / "a.pt", weights_only=True), CODEC.decode(states()))


@pytest.mark.parametrize("channels", [1, 3])
def test_folder_and_grid(tmp_path: Path, channels: int) -> None:
    codec, x = PixelCodec((channels, 5, 4)), states()[:, :channels]
    write(f"{tmp_path}/a/", x, codec=codec)
    write(tmp_path / "a.png", x, codec=codec)
    names = sorted(p.name for p in (tmp_path / "a").iterdir())
    assert names == [f"{i:06d}.png" for i in range(7)]
    single = np.asarray(Image.open(tmp_path / "a/000003.png"))
    expected = codec.decode(x)[3].permute(1, 2, 0).squeeze(2) if channels == 1 else codec.decode(x)[3].permute(1, 2, 0)
    assert np.array_equal(single, expected)
    scale = 13  # 5 rows of pixels reach 64
    tile = np.asarray(Image.open(tmp_path / "a.png"))[2 : 2 + 5 * scale : scale, 2 : 2 + 4 * scale : scale]
    first = codec.decode(x)[0].permute(1, 2, 0).numpy()
    assert np.array_equal(tile.reshape(5, 4, channels), first)


@pytest.mark.parametrize("name", ["a.jpg", "a", "a.tar.gz"])
def test_unknown_endings_are_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"unknown ending.*\.png.*\.npz.*\.pt"):
        ImageDomain().writer(CODEC, tmp_path / name, 4)


def test_full_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    write(f"{tmp_path}/a/", states())
    with pytest.raises(UserError, match="not an empty folder"):
        ImageDomain().writer(CODEC, f"{tmp_path}/a/", 4)
    with pytest.raises(UserError, match="not an empty folder"):
        ImageDomain().writer(CODEC, tmp_path / "a", 4)


@pytest.mark.parametrize("target", ["a.png", "a.npz", "a.pt", "a/"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_half_written_stays(tmp_path: Path, target: str, error: type[BaseException]) -> None:
    with pytest.raises(error), ImageDomain().writer(CODEC, f"{tmp_path}/{target}", 7) as writer:
        writer.write(states(3))
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["a.png", "a.npz", "a.pt", "a/"])
def test_wrong_number_of_pictures(tmp_path: Path, target: str) -> None:
    with (
        pytest.raises(ValueError, match="3 samples instead of the 7"),
        ImageDomain().writer(CODEC, f"{tmp_path}/{target}", 7) as writer,
    ):
        writer.write(states(3))
    writer = ImageDomain().writer(CODEC, f"{tmp_path}/{target}", 2)
    with pytest.raises(ValueError, match="more samples"), writer:
        writer.write(states(3))
    assert list(tmp_path.iterdir()) == []


def test_an_older_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    path.write_text("old")
    with pytest.raises(RuntimeError), ImageDomain().writer(CODEC, path, 7) as writer:
        writer.write(states(3))
        raise RuntimeError
    assert path.read_text() == "old"
    write(path, states())
    assert np.load(path)["images"].shape == (7, 5, 4, 3)


@pytest.mark.parametrize("kind", [export.GridWriter, export.NpzWriter, export.TorchWriter, export.FolderWriter])
def test_full_disk(tmp_path: Path, kind: type[export.Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(kind, "_add", full)
    with pytest.raises(UserError, match="no space left"), kind(CODEC, tmp_path / "a", 7) as writer:
        writer.write(states())
    assert list(tmp_path.iterdir()) == []


def test_forbidden_place(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write(tmp_path / "file" / "a.png", states())


def test_grid_layout() -> None:
    pictures = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 1, 8, 8) * 10
    image = grid(pictures, columns=3, upscale=2, gap=1)
    assert image.size == (3 * 17 + 1, 2 * 17 + 1)
    pixels = np.asarray(image)
    assert [pixels[1 + 17 * (i // 3) + 8, 1 + 17 * (i % 3) + 8] for i in range(5)] == [0, 10, 20, 30, 40]
    assert (pixels[0] == 255).all()
    assert grid(pictures[:4]).size == (2 * 66 + 2, 2 * 66 + 2), "8 pixels become 64"
    with pytest.raises(ValueError, match="uint8"):
        grid(torch.rand(2, 1, 8, 8))
