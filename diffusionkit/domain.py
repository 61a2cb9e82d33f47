"""What the commands ask of a domain: subclass `Domain`, name it in the entry points `diffusionkit.domains`, done.

A domain brings data, a codec, networks and a way back to its users' world. Nothing here, and nothing in the training loop
or the commands, knows which domain it serves.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from diffusionkit.errors import UserError

if TYPE_CHECKING:
    import torch

    from diffusionkit.core.state import Batch, State


class Dataset(Protocol):
    """Encoded data in reach of the loop: a batch is a function of its indices and a generator, nothing else."""

    def __len__(self) -> int: ...

    def batch(self, indices: torch.Tensor, generator: torch.Generator | None = None) -> Batch:
        """The samples at `indices`, augmented by the draws of `generator`, or as they are without one."""
        ...


class Codec(ABC):
    """Between the users' world and the state; fitted on the training part, saved with the run as JSON (and safetensors)."""

    @abstractmethod
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the backbone that the data decide, such as its shape."""

    @abstractmethod
    def like(self, n: int) -> Any:
        """The shape(s) of n states: a tuple, or a dict of tuples."""

    @abstractmethod
    def decode(self, x: State) -> Any:
        """States back in the users' world."""

    def notes(self) -> list[str]:
        """What a person should know of how the data were read, a sentence each."""
        return []

    @abstractmethod
    def save(self, folder: Path) -> None: ...

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Codec: ...


class Edit(Protocol):
    """A way to change what there is with a model that was not trained for it, its files read and checked."""

    def draw(self, diffusion: Any, sampler: Any, n: int, clip: float | str | None = None, **more: Any) -> Any:
        """n results as the writer's `add` takes them; `clip` is a threshold yet to be put around the diffusion, `more` goes to the
        sampler."""
        ...

    def writer(self, path: str | Path, n: int) -> Any:
        """A context manager like `Domain.writer`."""
        ...


@dataclass
class Foreign:
    """A model of another library, as a domain has read it.

    Attributes:
        sections: of a recipe.
        codec: between its users' world and the state.
        state: its weights, by the names that the network has for them.
        origin: what the run folder is to keep of where it came from, for JSON; "text" is a sentence of it.
        notes: what a person should know, a sentence each.
    """

    sections: dict[str, Any]
    codec: Codec
    state: dict[str, torch.Tensor]
    origin: dict[str, Any]
    notes: list[str] = field(default_factory=list)


class Domain(ABC):
    """One domain. `data` and `backbones` give, for each name in a recipe, the class as 'module:Class', imported when used."""

    name: ClassVar[str]
    data: ClassVar[Mapping[str, str]]
    backbones: ClassVar[Mapping[str, str]]
    codec: ClassVar[str]
    objectives: ClassVar[Mapping[str, str]] = {}
    """Objectives of its own, beside those of the core."""
    edits: ClassVar[Mapping[str, str]] = {}
    """For the commands `inpaint`, `edit`, `restore` and `upscale`, the function behind each as 'module:function'. It takes the
    codec and the files of the command and gives an `Edit`; its keyword-only arguments are options of the command. That of `dock`
    does all of it and gives the closing line: `command(run, sampler, out, n, seed, fresh, *, ...)`."""
    instead: ClassVar[Mapping[str, str]] = {}
    """For commands that it has not: what to use for them, or why there is nothing of the kind. Refusals and the docs say so."""
    exchange: ClassVar[Mapping[str, str]] = {}
    """For the commands `import` and `export`, functions as 'module:function': `knows(folder) -> bool`, whether a folder looks like
    one; `read(folder) -> Foreign`; `write(run, origin, folder)`, which fills an empty folder."""
    ending: ClassVar[str] = ".png"
    """The ending of the file that samples go to when none is named."""
    single: ClassVar[bool] = True
    """Whether a picture shows samples one by one, noised ones as well, so that `diffusionkit plot` can set them in rows."""

    def without(self, command: str) -> str:
        """What a command says that this domain has not."""
        usual = {"export": "no format is shared with other libraries"}
        why = self.instead.get(command, usual.get(command, "it has nothing of the kind"))
        return f"{command}: not for runs of the domain {self.name}: {why}"

    @abstractmethod
    def sketch(self, data: Any) -> dict[str, Any]:
        """Arguments of the backbone as far as they are known before the data are read, to refuse an impossible one early."""

    @abstractmethod
    def prepare(self, data: Any) -> tuple[Codec, dict[str, Dataset]]:
        """Reads the data and fits the codec: (codec, {"train": ..., "test": ...})."""

    @abstractmethod
    def condition(self, codec: Any, indices: Any) -> Any:
        """The condition of the samples with these running numbers. Further keyword-only arguments are options of
        `diffusionkit sample` (a trailing underscore is dropped: `class_` is `--class`)."""

    def check(self, sections: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is wrong between sections that are each right: pairs of a dotted key and a sentence that goes on after it.

        Called before data are read, of a recipe that is to be trained, never of a run that is loaded.

        Args:
            sections: the objects of "data", "process", "backbone" (without memory), "objective" and "sampling" (what all
                samplers share), as far as they could be made.
        """
        return []

    def length(self, rows: int, batch_size: int | None = None) -> dict[str, int]:
        """`steps` and `batch_size` for recipes that leave them open (steps: 0, no batch size); empty if the domain has no opinion.

        Args:
            rows: of the training part.
            batch_size: where the recipe has settled it.
        """
        return {}

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> State:
        """States of the samples with these running numbers, on the device of the diffusion.

        Args:
            diffusion: a `Diffusion`, or a guided one.
            codec: of the run.
            sampler: how to step from noise to data.
            indices: running numbers (B,).
            watch: called at every step of the sampler.
            wanted: keyword arguments of `condition`.
        """
        from diffusionkit.core.state import tree_map

        device = next(diffusion.parameters()).device
        cond = tree_map(lambda leaf: leaf.to(device), self.condition(codec, indices, **wanted))
        return sampler(diffusion, like=codec.like(len(indices)), cond=cond, watch=watch)

    def stages(self, runs: Any, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The keyword arguments of `condition` for each of several runs, of which each goes on from the samples of the one before.

        Args:
            runs: loaded ones of this domain, the first first.
            wanted: what was asked for.

        Raises:
            UserError: if they do not fit each other; here in any case, since a domain has to say how one goes on.
        """
        if len(runs) > 1:
            raise UserError(
                f"{runs[1].folder}: runs of the domain {self.name} do not go on from samples of one another"
            )
        return [dict(wanted)]

    def onward(self, before: Any, x: State, codec: Any, indices: Any, **wanted: Any) -> Any:
        """The condition of the samples with these running numbers, which go on from samples of another model.

        Args:
            before: codec of that model.
            x: its samples.
            codec: of the model that goes on.
            indices: running numbers (B,).
            wanted: what `stages` gives for it.
        """
        raise NotImplementedError

    @abstractmethod
    def picture(self, codec: Any, x: State, path: Path, columns: int | None = None) -> None:
        """Draws states x into a PNG, so many in a row."""

    @abstractmethod
    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        """A context manager whose `write(x)` takes n states in chunks and which leaves the finished file at `path`.

        `wanted` holds keyword arguments of `condition`, for a domain that puts in what was asked for as it was written.
        """

    @abstractmethod
    def evaluate(self, run: Any, **options: Any) -> dict[str, Any]:
        """The field's measures of a run, as a tree of numbers beside their floors; pictures go into the run folder.

        Keyword-only arguments are options of `diffusionkit evaluate`. Some entries say what the reports show; all may be missing:
        `table`, rows of texts: measure, model, what stands beside it under its own name, perhaps better, and comment (without a
        table the tree itself is shown); `better`, for measures of the table "lower" or "higher", so that runs can be compared;
        `verdict`, a sentence; `pictures`, paths in the run folder, and what is to be seen in each.
        """


def domains() -> dict[str, Domain]:
    """Every installed domain by name: ours and those of other packages, from the entry points `diffusionkit.domains`."""
    return {point.name: point.load()() for point in entry_points(group="diffusionkit.domains")}


def get_domain(name: str, where: str = "") -> Domain:
    """The domain of this name.

    Raises:
        UserError: if no such domain is installed.
    """
    points = {point.name: point for point in entry_points(group="diffusionkit.domains")}
    if name not in points:
        raise UserError(f"{where}domain: there is no {name!r}; installed are {', '.join(sorted(points))}")
    return points[name].load()()


def finite(measures: Any) -> Any:
    """A tree of measures as JSON knows them: numbers that are none become None."""
    if isinstance(measures, Mapping):
        return {name: finite(branch) for name, branch in measures.items()}
    if isinstance(measures, list | tuple):
        return [finite(branch) for branch in measures]
    return None if isinstance(measures, float) and not math.isfinite(measures) else measures
