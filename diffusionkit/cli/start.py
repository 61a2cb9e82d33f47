"""Commands before there is a run: `train` and `recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.recipe import SECTIONS, Recipe, listing

Words = Annotated[str, Parameter(show=False, allow_leading_hyphen=True)]


def train(
    recipe: Annotated[str, Parameter(allow_leading_hyphen=True)],
    /,
    *words: Words,
    out: Path | None = None,
    resume: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Train a model as a recipe says.

    Any key of the recipe can be set here: `--training.steps 2000`, `--backbone.multipliers 1,2`, `--process.schedule linear`.
    Where only one section has a key of this name, that will do: `--lr 1e-3`, `--autoencoder runs/fashion_vae`. Keys of
    Lightning's trainer go under `trainer`: `--trainer.devices 8 --trainer.strategy ddp`.

    A run that was stopped, by Ctrl-C or otherwise, goes on with `--resume` to the same result.

    Example: `diffusionkit train image/digits --training.steps 2000 --out runs/digits`

    Args:
        recipe: A recipe file, or the name of a shipped one (see `diffusionkit recipes`).
        out: Folder of the run; without it a new one below `runs`.
        resume: Go on with the run in `--out`, or with the newest of this recipe, where it stopped.
    """
    plain, overrides = options.split([recipe, *words])
    source = options.one(plain, "recipe")
    short = [key for key in overrides if key.partition(".")[0] not in SECTIONS]
    if short:
        draft = Recipe.draft(source).override({key: overrides[key] for key in overrides if key not in short})
        options.refuse([key for key in short if not draft.named(key)], [*SECTIONS, "out", "resume", "help"])
    loaded = Recipe.load(source, overrides)

    from diffusionkit.training.fitting import fit

    fit(loaded, out, resume)


def recipes() -> None:
    """List the recipes that come with diffusionkit.

    Example: `diffusionkit recipes`, then `diffusionkit train image/digits`
    """
    found = listing()
    width = max((len(name) for name, _ in found), default=0)
    for name, line in found:
        print(f"{name:<{width}}  {line}".rstrip())
