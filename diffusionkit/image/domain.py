"""The image domain: what the commands ask of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from diffusionkit.domain import Dataset, Domain
from diffusionkit.errors import UserError
from diffusionkit.image.codec import PixelCodec


class ImageDomain(Domain):
    """Pictures as tensors (B, C, H, W) in [-1, 1], with classes or without."""

    name = "image"
    data = {
        "digits": "diffusionkit.image.data:Digits",
        "mnist": "diffusionkit.image.data:MNIST",
        "fashion": "diffusionkit.image.data:FashionMNIST",
        "cifar10": "diffusionkit.image.data:CIFAR10",
        "folder": "diffusionkit.image.data:Folder",
    }
    backbones = {
        "unet": "diffusionkit.image.backbones.unet:UNet",
        "dit": "diffusionkit.image.backbones.dit:DiT",
        "classifier": "diffusionkit.image.backbones.classifier:Classifier",
        "autoencoder": "diffusionkit.image.backbones.autoencoder:Autoencoder",
    }
    objectives = {"reconstruction": "diffusionkit.image.reconstruction:Reconstruction"}
    codec = "diffusionkit.image.codec:PixelCodec"
    edits = {
        "inpaint": "diffusionkit.image.editing:inpaint",
        "edit": "diffusionkit.image.editing:edit",
        "restore": "diffusionkit.image.editing:restore",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        known = {"shape": data.shape} | ({"augment": True} if data.augment else {})
        if data.autoencoder is not None:
            from diffusionkit.image.latent import shape_of

            known["shape"] = shape_of(data) or ...
        try:
            return known | {"classes": data.classes}
        except UserError:  # a folder that is not there yet: `prepare` will say so
            return known

    def check(self, sections: Mapping[str, Any]) -> list[tuple[str, str]]:
        from diffusionkit.image.compatible import misfits

        return misfits(**{name: sections.get(name) for name in ("data", "backbone", "objective", "sampling")})

    def prepare(self, data: Any) -> tuple[PixelCodec, dict[str, Dataset]]:
        if data.autoencoder is not None:
            from diffusionkit.image.latent import prepared

            return prepared(data)
        codec = data.codec
        return codec, data.parts(codec)

    def condition(
        self, codec: PixelCodec, indices: Any, *, class_: str | int | None = None
    ) -> dict[str, torch.Tensor] | None:
        """The classes of the pictures with these running numbers.

        Args:
            codec: knows the classes.
            indices: running numbers (B,).
            class_: name or number of the one class wanted; by default the classes take turns.

        Raises:
            UserError: for a class that there is not.
        """
        indices = torch.as_tensor(indices)
        if codec.classes is None:
            if class_ is not None:
                raise UserError(f"class {class_!r} was asked for, but this model was trained without classes")
            return None
        if class_ is None:
            return {"class": indices % len(codec.classes)}
        return {"class": torch.full_like(indices, _class_index(codec.classes, class_))}

    def picture(self, codec: PixelCodec, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.image.grid import save_grid

        save_grid(codec.decode(x), path, columns=columns or codec.columns(len(x)))

    def writer(self, codec: PixelCodec, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.image.export import open_writer

        return open_writer(codec, path, n)

    def evaluate(
        self,
        run: Any,
        *,
        n: int | None = None,
        seed: int = 0,
        levels: int = 20,
        draws: int = 20,
        chain: int | None = None,
        inception: str = "auto",
    ) -> dict[str, Any]:
        """Loss, bits per dimension, Fréchet distances, precision, recall, memorisation and class accuracy of a run.

        Each figure has that of real pictures beside it. Leaves `evaluation.png` and the classifier in the run folder. Of an
        autoencoder it is the pictures that come back which are measured: PSNR, SSIM, Fréchet distances and class accuracy.

        Args:
            run: a loaded run.
            n: how many samples to draw, and at most how many pictures of each part to measure losses on; 1000 by default.
            seed: of the noise, the samples and the choice of pictures.
            levels: noise levels at which the loss is measured.
            draws: terms of the variational bound drawn for each picture.
            chain: number of steps of the bound's chain; by default the process's own, or fewer where the data have few levels.
            inception: weights for the FID: "auto" takes those in the cache of torch.hub and does without where there are
                none, "download" fetches them, "off" leaves the FID out, anything else is their path.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.

        Raises:
            UserError: if the run, its data or an option does not allow it.
        """
        from diffusionkit.image.evaluate import evaluate

        return evaluate(run, n=n, seed=seed, levels=levels, draws=draws, chain=chain, inception=inception)


def _class_index(names: list[str], wanted: str | int) -> int:
    lower = [name.lower() for name in names]
    text = str(wanted).strip().lower()
    if text in lower:
        return lower.index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    near = difflib.get_close_matches(text, lower, 1)
    hint = f"; did you mean {names[lower.index(near[0])]!r}?" if near else ""
    shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    raise UserError(f"class: there is no {wanted!r}{hint} (classes: {shown}; or a number from 0 to {len(names) - 1})")
