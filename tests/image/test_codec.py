from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_round_trip_is_exact(levels: int) -> None:
    codec = PixelCodec((1, 1, levels), levels=levels)
    values = torch.arange(levels, dtype=torch.uint8)[None, None, None]
    x = codec.encode(values)
    assert x.dtype == torch.float32
    assert x.min() == -1
    assert x.max() == 1
    assert torch.equal(codec.quantise(x), values)
    assert torch.equal(codec.quantise(x + 0.49 * 2 / (levels - 1)), values)


def test_decoding_shows_the_whole_range_on_the_levels_of_the_data() -> None:
    codec = PixelCodec((1, 1, 5), levels=17)
    shown = codec.decode(torch.tensor([-3.0, -1.0, 0.01, 1.0, 9.0]).reshape(1, 1, 1, 5))
    assert shown.flatten().tolist() == [0, 0, 128, 255, 255]
    assert set(codec.decode(torch.linspace(-1, 1, 1000)).tolist()) == {round(i * 255 / 16) for i in range(17)}


def test_decode_leaves_states_alone() -> None:
    x = torch.randn(2, 1, 2, 2)
    before = x.clone()
    PixelCodec((1, 2, 2)).decode(x)
    assert torch.equal(x, before)


def test_save_and_load(tmp_path: Path) -> None:
    codec = PixelCodec((3, 4, 5), ["cat", "dög"], 17)
    codec.save(tmp_path)
    again = PixelCodec.load(tmp_path)
    assert vars(again) == vars(codec)
    assert again.arguments() == {"shape": (3, 4, 5), "classes": 2}
    assert again.like(7) == (7, 3, 4, 5)
    assert PixelCodec((3, 4, 5)).arguments()["classes"] is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1]",
        '{"codec": "other"}',
        '{"codec": "pixel", "shape": [1, 2, 3]}',
        '{"codec": "pixel", "shape": [1, 2], "classes": null, "levels": 256}',
        '{"codec": "pixel", "shape": [1, 2, "3"], "classes": null, "levels": 256}',
        '{"codec": "pixel", "shape": 5, "classes": null, "levels": 256}',
        '{"codec": "pixel", "shape": [1, 2, 3], "classes": [1], "levels": 256}',
        '{"codec": "pixel", "shape": [1, 2, 3], "classes": null, "levels": 1}',
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "codec.json").write_text(content)
    with pytest.raises(UserError, match=r"codec\.json: "):
        PixelCodec.load(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        PixelCodec.load(tmp_path)
