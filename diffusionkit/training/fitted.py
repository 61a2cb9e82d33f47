"""What models with a `fit` have in common: how they are made from recipes, draw, are saved and come back."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from rich.console import Console
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from diffusionkit.core import Sampler, guided
from diffusionkit.core.seeds import drawing
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training.console import say
from diffusionkit.training.files import write_json
from diffusionkit.training.options import Training
from diffusionkit.training.run import Run, assemble

_PARAMETERS = "estimator.json"


class Fitted(BaseEstimator):
    """A model of one domain behind scikit-learn's manners; a subclass keeps its arguments under their names.

    Attributes:
        domain: the name of its domain.
        what: what it is a model of, for messages.
    """

    domain: ClassVar[str]
    what: ClassVar[str]

    def _changed(self, name: str, data: Mapping[str, Any]) -> Recipe:
        """A recipe with data in memory, and the steps and settings that the model was given.

        Raises:
            UserError: if it is of another domain, or a setting does not fit.
        """
        loaded = Recipe.load(name)
        if loaded.domain.name != self.domain:
            raise UserError(f"preset: {name!r} is a recipe of the domain {loaded.domain.name}, not of {self.what}")
        recipe = replace(loaded, raw={**loaded.raw, "data": dict(data)})
        given = {} if self.steps is None else {"training.steps": self.steps}
        changes = {"training.pictures": 0, **given, **dict(self.settings or {})}
        return recipe.override({key: str(value) for key, value in changes.items()})

    def _seed(self) -> int:
        """`random_state`, or a fresh one."""
        return int(torch.randint(2**31, ()) if self.random_state is None else self.random_state)

    def _begun(self, recipe: Recipe, codec: Codec, seed: int) -> Run:
        """A run of a recipe that is yet to be trained; says what there is to know of the data."""
        with drawing(seed, torch.device("cpu")):
            diffusion = assemble(recipe, codec)
        for note in codec.notes():
            say(self._console(), note)
        return Run(Path(), recipe, recipe.domain, codec, diffusion, recipe.build("training").steps)

    def _train(self, run: Run, data: Any, seed: int, options: Training | None = None) -> list[dict[str, float]]:
        """Trains a run's diffusion in place, by default as its recipe says, on the device asked for; the rows of its metrics."""
        from diffusionkit.training.loop import train  # Lightning takes seconds to import, and a loaded model needs none

        trainer = {"accelerator": torch.device(self.device).type} if self.device else {}
        options = options or run.recipe.build("training")
        return train(run.diffusion, data, options, seed=seed, trainer=trainer, console=self._console())

    def _console(self) -> Console:
        return Console(quiet=not self.verbose)

    def _keep(self, run: Run) -> None:
        run.diffusion.to(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.run_ = run

    def _run(self) -> Run:
        check_is_fitted(self, "run_")
        return self.run_

    def _drawing(
        self, guidance: float | None, steps: int | None, sampler: Sampler | None, batch_size: int | None
    ) -> tuple[Any, Sampler, int]:
        """The diffusion, the sampler and how many samples at a time, as asked for or as the preset says."""
        run = self._run()
        usual = run.recipe.sampling()
        if steps is not None and steps < 1:
            raise UserError(f"steps: at least one, not {steps}")
        if batch_size is not None and batch_size < 1:
            raise UserError(f"batch_size: at least one, not {batch_size}")
        sampler = copy.copy(sampler or run.sampler())
        sampler.steps = steps or sampler.steps
        scale = usual.guidance if guidance is None else guidance
        return guided(run.diffusion, scale, usual.clip), sampler, batch_size or usual.batch_size

    @contextmanager
    def _seeded(self, random_state: int | None) -> Iterator[None]:
        """Torch's numbers start from the seed and go on afterwards as if nothing had been drawn; without one they just go on."""
        seed = self.random_state if random_state is None else random_state
        with nullcontext() if seed is None else drawing(int(seed), next(self.run_.diffusion.parameters()).device):
            yield

    def save(self, path: str | Path) -> Path:
        """Leaves the model in a folder: JSON, YAML and safetensors, which `load` and `diffusionkit sample` read.

        Raises:
            UserError: if it cannot be written.
        """
        folder = self._run().save(path)
        write_json(folder / _PARAMETERS, {name: _plain(value) for name, value in self.get_params(deep=False).items()})
        return folder

    @classmethod
    def load(cls, path: str | Path, device: str | None = None) -> Self:
        """A model that `save` or `diffusionkit train` has left; nothing in the folder is executed.

        Args:
            path: the folder.
            device: where the network goes; the best there is by default.

        Raises:
            UserError: if the folder holds no such model, or is damaged.
        """
        run = Run.load(path)
        if run.domain.name != cls.domain:
            raise UserError(f"{path}: is a model of the domain {run.domain.name}, not of {cls.what}")
        file = Path(path) / _PARAMETERS
        try:
            found = json.loads(file.read_text("utf-8")) if file.exists() else cls._implied(run)
            model = cls(**{name: _labelled(value) for name, value in found.items()}).set_params(device=device)
            model._sound()
        except (ValueError, TypeError, AttributeError, OSError) as error:
            raise UserError(f"{file}: damaged: {error}") from error
        model._keep(run)
        return model

    def _sound(self) -> None:
        """Raises what comes of arguments that cannot be meant."""

    @classmethod
    def _implied(cls, run: Run) -> dict[str, Any]:
        """Arguments of a model that `diffusionkit train` has left."""
        return {"preset": run.recipe.name}


def _plain(value: Any) -> Any:
    """A parameter as JSON keeps it; labels may be numbers, which the keys of an object may not."""
    if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
        return {"pairs": [[_plain(key), _plain(entry)] for key, entry in value.items()]}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else str(value) if isinstance(value, Path) else value


def _labelled(value: Any) -> Any:
    return dict(value["pairs"]) if isinstance(value, dict) and set(value) == {"pairs"} else value
