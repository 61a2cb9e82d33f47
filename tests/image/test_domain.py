from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
import torch
from PIL import Image

from diffusionkit.domain import get_domain
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec
from diffusionkit.image.data import Digits, Folder
from diffusionkit.image.domain import ImageDomain

CODEC = PixelCodec((1, 8, 8), ["T-shirt/top", "Trouser", "Bag"])


def test_every_name_leads_to_a_class() -> None:
    domain = get_domain("image")
    assert isinstance(domain, ImageDomain)
    for path in [*domain.data.values(), *domain.backbones.values(), domain.codec]:
        module, name = path.split(":")
        assert isinstance(getattr(import_module(module), name), type)


def test_digits_are_prepared_and_drawn(tmp_path: Path) -> None:
    domain, data = ImageDomain(), Digits()
    codec, parts = domain.prepare(data)
    assert codec.arguments() == domain.sketch(data) == {"shape": (1, 8, 8), "classes": 10}
    batch = parts["train"].batch(torch.arange(16))
    assert batch.x.shape == codec.like(16)
    assert (batch.x.min(), batch.x.max()) == (-1, 1)
    domain.picture(codec, batch.x, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").size == (4 * 66 + 2, 4 * 66 + 2)


def test_sketch_of_a_folder(tmp_path: Path) -> None:
    assert ImageDomain().sketch(Folder(str(tmp_path / "nowhere"), size=16)) == {"shape": (3, 16, 16)}
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    assert ImageDomain().sketch(Folder(str(tmp_path), size=16)) == {"shape": (3, 16, 16), "classes": 2}


def test_classes_take_turns_or_are_chosen() -> None:
    condition = ImageDomain().condition
    assert condition(CODEC, torch.arange(2, 7))["class"].tolist() == [2, 0, 1, 2, 0]
    assert condition(CODEC, range(3))["class"].dtype == torch.int64
    for wanted, index in {"bag": 2, "Trouser": 1, "1": 1, 0: 0, " T-shirt/top": 0}.items():
        assert condition(CODEC, torch.arange(2), class_=wanted)["class"].tolist() == [index] * 2
    assert condition(PixelCodec((1, 8, 8)), torch.arange(2)) is None


@pytest.mark.parametrize("wanted", ["trousers", "3", 3, -1, ""])
def test_unknown_classes(wanted: str | int) -> None:
    with pytest.raises(UserError, match="classes: T-shirt/top, Trouser, Bag"):
        ImageDomain().condition(CODEC, torch.arange(2), class_=wanted)
    with pytest.raises(UserError, match="without classes"):
        ImageDomain().condition(PixelCodec((1, 8, 8)), torch.arange(2), class_=wanted)
