"""A run: the folder that a training leaves, and what is loaded from it."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from diffusionkit.core import Diffusion, Sampler
from diffusionkit.domain import Codec, Domain
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training.files import load_weights, make_folder, replacing, save_weights, writing
from diffusionkit.training.folder import read_metrics

RUNS = Path("runs")


@dataclass
class Run:
    """A trained diffusion with all that belongs to it."""

    folder: Path
    recipe: Recipe
    domain: Domain
    codec: Codec
    diffusion: Diffusion
    step: int

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | torch.device = "cpu",
        weights: Literal["ema", "raw"] = "ema",
        recipe: Recipe | None = None,
    ) -> Run:
        """Reads a run folder; nothing in it is executed.

        Args:
            folder: what `diffusionkit train` has left.
            device: where the network goes.
            weights: the averaged ones or those of the last step.
            recipe: read from a file of your own, for a run with classes of your own; that of the folder never runs code.

        Raises:
            UserError: if the folder is no run, or damaged.
        """
        folder = Path(folder)
        names = {"ema": "weights.safetensors", "raw": "weights_raw.safetensors"}
        if weights not in names:
            raise ValueError(f"weights must be 'ema' or 'raw', not {weights!r}")
        if not folder.is_dir():
            raise UserError(f"{folder}: there is no such run folder")
        for name in ("recipe.yaml", names[weights]):
            if not (folder / name).is_file():
                raise UserError(f"{folder}: is no run: {name} is missing; `diffusionkit train` makes runs")
        recipe = recipe or Recipe.from_run(folder)
        codec = pkgutil.resolve_name(recipe.domain.codec).load(folder)
        diffusion = assemble(recipe, codec)
        step = load_weights(diffusion, folder / names[weights])
        return cls(folder, recipe, recipe.domain, codec, diffusion.eval().to(device), step)

    @property
    def generates(self) -> bool:
        """Whether it can be sampled from; a classifier of noised data cannot, nor can an autoencoder."""
        return not self.diffusion.objective.use

    def save(self, folder: str | Path) -> Path:
        """Leaves the recipe, the codec and the weights in a folder, from which `Run.load` reads them.

        Raises:
            UserError: if it cannot be written.
        """
        folder = make_folder(Path(folder))
        with replacing(folder / "recipe.yaml") as path:
            self.recipe.save(path)
        with writing(folder):
            self.codec.save(folder)
        save_weights(self.diffusion, folder / "weights.safetensors", self.step)
        return folder

    def sampler(self) -> Sampler:
        """The sampler of the recipe's section `sampling`."""
        return self.recipe.build("sampling")

    def metrics(self) -> list[dict[str, float]]:
        """The rows of metrics.csv; a value that was not measured at a step is left out."""
        return read_metrics(self.folder / "metrics.csv")


def suited(recipe: Recipe, rows: int) -> Recipe:
    """The recipe with the steps and the batch size that its domain thinks right for so many rows, where it leaves them open."""
    given, options = dict(recipe.raw.get("training") or {}), recipe.build("training")
    length = recipe.domain.length(rows, options.batch_size if "batch_size" in given else None)
    if options.steps:
        length.pop("steps", None)
    return recipe.override({f"training.{name}": str(value) for name, value in length.items()}) if length else recipe


def assemble(recipe: Recipe, codec: Codec) -> Diffusion:
    """The diffusion that a recipe describes, for data that this codec was fitted on."""
    known = codec.arguments()
    process = recipe.build("process", **known)
    network = recipe.build("backbone", **known, outputs=process.outputs)
    return Diffusion(network, process, recipe.build("objective", **known))


def free_folder(stem: str) -> Path:
    """The first free of runs/NAME, runs/NAME-2, ..."""
    free, number = RUNS / stem, 1
    while free.exists() and (not free.is_dir() or any(free.iterdir())):
        number += 1
        free = RUNS / f"{stem}-{number}"
    return free
