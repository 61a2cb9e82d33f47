"""What the benchmarks of the quality of pictures share: a judge, models, and pictures drawn by them."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.cells import Cell
from benchmarks.models import trained
from diffusionkit.core import Sampler, guided
from diffusionkit.image import features, metrics
from diffusionkit.image.data import FashionMNIST
from diffusionkit.training.run import Run


class Judge:
    """Held-out pictures of Fashion-MNIST, and a classifier in whose features the distance to them is measured."""

    def __init__(self, models: Path) -> None:
        data = FashionMNIST()
        parts = data.parts(data.codec)
        self.train, self.test = parts["train"], parts["test"]
        folder = models / "fashion_judge"
        folder.mkdir(parents=True, exist_ok=True)
        self.network = features.judge(self.train, self.test, folder, torch.device("cpu"), lambda *_: None)
        self.held = self.network.look(data.codec.display(self.test.pictures.images))[0]

    def figures(self, pictures: Tensor, classes: Tensor, seed: int = 0) -> dict[str, float]:
        """Fréchet distance, precision and recall against the held-out part, and the share of right classes."""
        seen, answers = self.network.look(pictures)
        count = min(len(seen), len(self.held))
        equal = self.held[torch.randperm(len(self.held), generator=torch.Generator().manual_seed(seed))[:count]]
        precision, recall = metrics.precision_recall(equal, seen[:count], 3)
        return {
            "frechet": metrics.frechet(self.held, seen),
            "precision": precision,
            "recall": recall,
            "accuracy": float((answers == classes).double().mean()),
        }

    def real(self, n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """n pictures of the training part and their classes: what the best of models would draw."""
        chosen = self.train.some(n, seed)
        assert self.train.pictures.labels is not None
        return self.train.codec.display(self.train.pictures.images[chosen]), self.train.pictures.labels[chosen]

    def held_out(self, n: int) -> tuple[Tensor, Tensor]:
        """n pictures of the held-out part, always the same, and their classes."""
        chosen = torch.randperm(len(self.test), generator=torch.Generator().manual_seed(0))[:n]
        assert self.test.pictures.labels is not None
        return self.test.pictures.images[chosen], self.test.pictures.labels[chosen]


def model(name: str, options: argparse.Namespace, settings: Mapping[str, str] | None = None) -> Run:
    """The run of a recipe, trained by the command unless its folder is there."""
    return trained(f"image/{name}", Path(options.models) / name, settings)


def drawn(run: Run, n: int, sampler: Sampler, scale: float, seed: int, batch: int = 100) -> tuple[Tensor, Tensor]:
    """n pictures, classes in turn, and these classes."""
    classes = torch.arange(n) % 10
    diffusion = guided(run.diffusion, scale, run.recipe.sampling().clip)
    torch.manual_seed(seed)
    states = [sampler(diffusion, run.codec.like(len(part)), {"class": part}) for part in classes.split(batch)]
    return torch.cat([run.codec.decode(x) for x in states]), classes


def line(cell: Cell, name: str) -> dict[str, str]:
    """The figures of a cell as a row of a table."""
    shares = {key: f"{100 * cell[key]:.1f} %" for key in ("precision", "recall", "accuracy")}
    more = {key: f"{cell[key]:.1f}" for key in ("rmse", "seam", "psnr", "consistency") if key in cell}
    return {"": name, "Fréchet distance": f"{cell['frechet']:.2f}", **shares, **more}
