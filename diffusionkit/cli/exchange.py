"""Commands between a run and the folders of other libraries: `import` and `export`."""

from __future__ import annotations

import shlex
from pathlib import Path

from diffusionkit.cli import options
from diffusionkit.cli.draw import Folder, load
from diffusionkit.cli.start import Words


def import_(folder: Folder, /, *words: Words, out: Path | None = None) -> None:
    """Make a run of a model that another library has saved.

    For images these are folders in the format of diffusers: `UNet2DModel`, `DiTTransformer2DModel` or `AutoencoderKL`, alone or in
    a pipeline with a scheduler, their weights as safetensors. All other commands take the run as they take one that was trained.

    Further options are keys of the recipe's sections `data` and `sampling`. What the model was trained on is not known: `sample`
    does without, `evaluate` measures on what is named here, such as `--data.name cifar10` or `--data.path PICTURES`.

    Example: `diffusionkit import ddpm-cifar10-32 --out runs/ddpm --data.name cifar10 --data.labels false`

    Args:
        folder: What the other library has saved.
        out: Folder of the run; without it a new one below `runs`.
    """
    plain, overrides = options.split([folder, *words])
    source = options.one(plain, "folder")

    from diffusionkit.training.exchange import import_run

    run, notes = import_run(source, out, overrides)
    quoted = shlex.quote(str(run.folder))
    for note in notes:
        print(f"Note: {note}")
    print(f"{run.recipe.description}: now in {run.folder}")
    print(
        f"Next: diffusionkit sample {quoted}"
        if run.generates
        else f"Next: {run.diffusion.objective.use.format(run=quoted)}"
    )


def export(run: Folder, /, *, out: Path, recipe: str | None = None) -> None:
    """Write a run as another library saves its models.

    For images this is a folder in the format of diffusers, which reads it with `from_pretrained`. It holds the averaged weights.

    Example: `diffusionkit export runs/cifar --out cifar-diffusers`

    Args:
        run: The folder of a run.
        out: The folder to write; it must not exist, or be empty.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """
    from diffusionkit.training.exchange import export_run

    print(f"{run} as a model of diffusers in {export_run(load(run, 'cpu', recipe, draws=False), out)}")
