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
from diffusionkit.image.text import asked, said


class ImageDomain(Domain):
    """Pictures as tensors (B, C, H, W) in [-1, 1], with classes or without."""

    name = "image"
    data = {
        "digits": "diffusionkit.image.data:Digits",
        "mnist": "diffusionkit.image.data:MNIST",
        "fashion": "diffusionkit.image.data:FashionMNIST",
        "cifar10": "diffusionkit.image.data:CIFAR10",
        "folder": "diffusionkit.image.data:Folder",
        "emoji": "diffusionkit.image.captions:Emoji",
        "captioned": "diffusionkit.image.captions:CaptionedFolder",
    }
    backbones = {
        "unet": "diffusionkit.image.backbones.unet:UNet",
        "dit": "diffusionkit.image.backbones.dit:DiT",
        "classifier": "diffusionkit.image.backbones.classifier:Classifier",
        "autoencoder": "diffusionkit.image.backbones.autoencoder:Autoencoder",
        "clip": "diffusionkit.image.backbones.clip:ImageText",
    }
    objectives = {
        "reconstruction": "diffusionkit.image.reconstruction:Reconstruction",
        "contrastive": "diffusionkit.image.contrastive:Contrastive",
    }
    codec = "diffusionkit.image.codec:PixelCodec"
    exchange = {name: f"diffusionkit.image.weights.exchange:{name}" for name in ("knows", "read", "write")}
    instead = {"dock": "a picture has no pockets"}
    edits = {
        "inpaint": "diffusionkit.image.editing:inpaint",
        "edit": "diffusionkit.image.editing:edit",
        "restore": "diffusionkit.image.editing:restore",
        "upscale": "diffusionkit.image.upscale:upscale",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        known = {"shape": data.trained_shape} | ({"augment": True} if data.augment else {}) | data.text_arguments()
        if data.autoencoder is not None:
            from diffusionkit.image.latent import shape_of

            known["shape"] = shape_of(data) or ...
        if data.smaller:
            from diffusionkit.image.stages import low_channels

            known["low"] = low_channels(data, known["shape"]) or ...
        try:
            return known | {"classes": data.classes}
        except UserError:  # a folder that is not there yet: `prepare` will say so
            return known

    def check(self, sections: Mapping[str, Any]) -> list[tuple[str, str]]:
        from diffusionkit.image.compatible import misfits

        return misfits(**{name: sections.get(name) for name in ("data", "backbone", "objective", "sampling")})

    def prepare(self, data: Any) -> tuple[PixelCodec, dict[str, Dataset]]:
        from diffusionkit.image.latent import prepared
        from diffusionkit.image.stages import with_examples

        codec = None if data.autoencoder is not None else data.codec
        return with_examples(*(prepared(data) if codec is None else (codec, data.parts(codec))))

    def condition(
        self,
        codec: PixelCodec,
        indices: Any,
        *,
        class_: str | int | None = None,
        noise: float | None = None,
        prompt: str | None = None,
        negative: str | None = None,
        prompts: Path | None = None,
    ) -> dict[str, Any] | None:
        """The classes of the pictures with these running numbers, what they show in words, and smaller pictures, held out in
        training, for a model that enlarges them.

        Args:
            codec: knows the classes.
            indices: running numbers (B,).
            class_: name or number of the one class wanted; by default the classes take turns.
            noise: standard deviation of the noise on the smaller pictures, in levels of 255; 0 if not given.
            prompt: what to draw, for a model that was trained with captions; without one, held-out captions take turns. In
                `a (red:1.5) heart` red weighs 1.5; `(red)` weighs 1.1, and a backslash before a bracket makes it one of the text.
            negative: what not to draw; in classifier-free guidance it takes the place of no text.
            prompts: file with a prompt on each line, which take turns.

        Raises:
            UserError: for a class that there is not, noise that the model does not know, or a prompt that cannot be read.
        """
        from diffusionkit.image.stages import shown_examples

        indices = torch.as_tensor(indices)
        cond: dict[str, Any] = {}
        if codec.classes is None:
            if class_ is not None:
                raise UserError(f"class {class_!r} was asked for, but this model was trained without classes")
        elif class_ is None:
            cond["class"] = indices % len(codec.classes)
        else:
            cond["class"] = torch.full_like(indices, _class_index(codec.classes, class_))
        cond |= asked(codec.text, indices, prompt, negative, prompts)
        return cond | shown_examples(codec, indices, cond.get("class"), class_ is not None, noise) or None

    def stages(self, runs: Any, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        from diffusionkit.image.stages import fitting

        return fitting(runs, wanted)

    def onward(self, before: PixelCodec, x: Any, codec: PixelCodec, indices: Any, **wanted: Any) -> Any:
        from diffusionkit.image.stages import as_levels, noise_of

        small = as_levels(before.decode(x).cpu(), codec)
        shown = codec.shown(small, noise_of(codec, wanted.get("noise"), len(small)))
        return (self.condition(codec, indices, **wanted) or {}) | shown

    def picture(self, codec: PixelCodec, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.image.grid import save_grid

        save_grid(codec.decode(x), path, columns=columns or codec.columns(len(x)))

    def writer(self, codec: PixelCodec, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.image.export import Labelled, open_writer

        words = said(codec.text, n, wanted.get("prompt"), wanted.get("prompts"))
        writer = open_writer(codec, path, n)
        return writer if words is None else Labelled(writer, words)

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
        judge: Path | None = None,
    ) -> dict[str, Any]:
        """Loss, bits per dimension, Fréchet distances, precision, recall, memorisation and class accuracy of a run.

        Each figure has that of real pictures beside it. Leaves `evaluation.png` and the classifier in the run folder. Of an
        autoencoder it is the pictures that come back which are measured: PSNR, SSIM, Fréchet distances and class accuracy; of a run
        that enlarges, held-out pictures that it has made of smaller ones, by these and by how well they agree with those.

        Args:
            run: a loaded run.
            n: how many samples to draw, and at most how many pictures of each part to measure losses on; 1000 by default.
            seed: of the noise, the samples and the choice of pictures.
            levels: noise levels at which the loss is measured.
            draws: terms of the variational bound drawn for each picture.
            chain: number of steps of the bound's chain; by default the process's own, or fewer where the data have few levels.
            inception: weights for the FID: "auto" takes those in the cache of torch.hub and does without where there are
                none, "download" fetches them, "off" leaves the FID out, anything else is their path.
            judge: run of an image-text model (such as of image/emoji_clip with `--objective.latest 0.1`), which then tells how
                often the caption that a sample was drawn from is found among 100.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.

        Raises:
            UserError: if the run, its data or an option does not allow it.
        """
        from diffusionkit.image.evaluate import evaluate

        options = {"levels": levels, "draws": draws, "chain": chain, "inception": inception, "judge": judge}
        return evaluate(run, n=n, seed=seed, **options)


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
