"""Commands that draw from a run: `sample` and `interpolate`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.cli.start import Words
from diffusionkit.errors import UserError

if TYPE_CHECKING:
    from diffusionkit.recipe import Recipe
    from diffusionkit.training.run import Run

Folder = Annotated[str, Parameter(allow_leading_hyphen=True)]


def sample(
    run: Folder,
    /,
    *words: Words,
    n: Annotated[int, Parameter(name=("-n", "--number"))] = 64,
    out: str | None = None,
    sampler: str | None = None,
    guidance: str | None = None,
    clip: str | None = None,
    classifier: Path | None = None,
    clip_model: Path | None = None,
    clip_guidance: float | None = None,
    seed: int = 0,
    batch_size: str | None = None,
    device: str | None = None,
    recipe: str | None = None,
) -> None:
    """Draw samples from a run, or from several of which each goes on from the samples of the one before.

    Further options are arguments of the sampler, such as `--steps 50 --eta 0`, and conditions of the domain, such as
    `--class 3` or `--prompt "a red heart"` for images and `--where "age=30..40; sex=Male"` for tables. What is not given is
    as the recipe's section `sampling` says; of several runs, each as its own recipe says.

    A cascade is a model of small pictures and one or more that enlarge them: `diffusionkit sample runs/fashion_base
    runs/fashion_sr`. `--noise 10` puts noise of 10 levels of 255 on the small pictures, which hides what the first model got wrong.

    The same seed and batch size give the same file; the memory needed does not grow with the number of samples.

    Example: `diffusionkit sample runs/digits -n 100 --class 3 --guidance 2 --sampler ddim --steps 50 --out threes.png`

    Args:
        run: The folder of a run; further ones may follow.
        n: How many samples.
        out: Where to; the ending decides the form: for images `.png` a grid, `.npz` or `.pt` an array, `/` a folder of single
            pictures; for tables `.csv`, `.tsv` or `.parquet`. In the run folder if not given.
        sampler: How to step from noise to data: ddpm, ddim, heun, dpmpp, unipc.
        guidance: Scale of classifier-free guidance; 1 leaves the conditional model as it is.
        clip: Bound on the estimate of the clean data, or `dynamic`.
        classifier: Run of a noisy classifier whose gradient guides the samples.
        clip_model: Run of an image-text model (such as of image/emoji_clip) whose gradient guides them towards the prompt.
        clip_guidance: Scale of that gradient; 50 if not given.
        seed: Seed of the random numbers.
        batch_size: Samples drawn at a time.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own: loading a run alone never runs such code.
    """
    plain, extra = options.split([run, *words])
    if not plain:
        raise UserError("run is missing")
    if recipe and len(plain) > 1:
        raise UserError("--recipe: belongs to a single run, and several are given")
    if clip_guidance is not None and clip_model is None:
        raise UserError("--clip-guidance: needs --clip-model, the run of an image-text model")
    if clip_model is not None and classifier is not None:
        raise UserError("--clip-model and --classifier: choose one of the two")
    loaded = [load(folder, device, recipe) for folder in plain]
    shared = {"sampler": sampler, "guidance": guidance, "clip": clip, "batch_size": batch_size}
    shared = {k: v for k, v in shared.items() if v is not None}
    settings, *later = (_settings(one, shared, extra, sample) for one in loaded)

    from diffusionkit.training.sample import sample as draw

    then = {"then": _stages(loaded[1:], later)} if later else {}
    steer: dict[str, Any] = {"classifier": classifier}
    if clip_model is not None:
        steer = {"classifier": clip_model, "strength": 50.0 if clip_guidance is None else clip_guidance}
    written = draw(loaded[0], n, out, seed=seed, **then, **steer, **settings)
    print(f"{n} samples in {written}")


def interpolate(
    run: Folder,
    /,
    *words: Words,
    n: Annotated[int, Parameter(name=("-n", "--number"))] = 8,
    points: int = 10,
    out: Path | None = None,
    sampler: str = "ddim",
    guidance: str | None = None,
    seed: int = 0,
    real: Annotated[bool, Parameter(negative=())] = False,
    device: str | None = None,
    recipe: str | None = None,
) -> None:
    """Walk between samples: each row goes from one latent to another along the sphere.

    Further options are arguments of the sampler, such as `--steps 100`, and conditions of the domain, such as `--class 3`.

    Example: `diffusionkit interpolate runs/digits -n 4 --points 12 --out walk.png`

    Args:
        run: The folder of a run.
        n: How many walks, one a row.
        points: Samples on each walk, both ends included.
        out: Where to write the picture; in the run folder if not given.
        sampler: A sampler that steps without noise.
        guidance: Scale of classifier-free guidance.
        seed: Seed of the latents.
        real: Walk between held-out data, encoded into latents, instead of random ones.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """
    plain, extra = options.split([run, *words])
    loaded = load(options.one(plain, "run"), device, recipe)
    shared = {k: v for k, v in {"sampler": sampler, "guidance": guidance}.items() if v is not None}
    settings = _settings(loaded, shared, extra, interpolate)

    from diffusionkit.training.interpolate import interpolate as walk

    print(f"picture in {walk(loaded, n, points, out, seed=seed, real=real, **settings)}")


def load(folder: str, device: str | None, recipe: str | None = None, draws: bool = True) -> Run:
    """The run of a folder, on the device asked for or the best there is.

    Args:
        folder: of the run.
        device: None for the best.
        recipe: file of the run's recipe, where it names classes of the user's own.
        draws: whether it has to be one that can be sampled from.

    Raises:
        UserError: if the folder is no run, nothing can be drawn from it, or there is no such device.
    """
    import torch

    from diffusionkit.recipe import Recipe
    from diffusionkit.training.run import Run

    own = {"recipe": Recipe.load(recipe)} if recipe else {}
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device: cannot use {device!r}: {str(error).splitlines()[0]}") from error
    run = Run.load(folder, device=device, **own)
    if draws and not run.generates:
        raise UserError(f"{folder}: draws nothing by itself; {run.diffusion.objective.use.format(run=folder)}")
    return run


def _stages(runs: list[Run], settings: list[dict[str, Any]]) -> list[Any]:
    """Runs that go on from the samples of others, each with its own settings."""
    from diffusionkit.training.sample import Stage

    names = ("sampler", "guidance", "clip")
    return [Stage(run, **{name: own[name] for name in names}) for run, own in zip(runs, settings, strict=True)]


def _settings(run: Run, shared: Mapping[str, str], extra: Mapping[str, str], command: Any) -> dict[str, Any]:
    """The sampler, what all samplers share, and the condition, from the options given over those of the run's recipe."""
    conditions = options.keywords(run.domain.condition)
    recipe, rest = resettled(run, shared, extra, {*conditions, *options.keywords(command)} - {"n"})
    common = recipe.sampling()
    return {
        "sampler": recipe.build("sampling"),
        "guidance": common.guidance,
        "clip": common.clip,
        "batch_size": common.batch_size,
        "condition": options.arguments(run.domain.condition, rest),
    }


def resettled(
    run: Run, shared: Mapping[str, str], extra: Mapping[str, str], others: set[str]
) -> tuple[Recipe, dict[str, str]]:
    """The run's recipe with the sampling that the options ask for, and the options that are none of its business.

    Args:
        run: a loaded run.
        shared: the options that commands declare: sampler, guidance, clip, batch_size.
        extra: the options that no command declares.
        others: further names that `extra` may hold.

    Raises:
        UserError: for an option that nobody takes, or a sampler that does not fit the process.
    """
    recipe = run.recipe.resample(shared.get("sampler"))
    mine = recipe.sampling_keys()
    own = [key for key in extra if key.partition(".")[0] in mine]  # as temperature, or temperature.tor for one part
    options.refuse([key for key in extra if key not in (*own, *others)], {*mine, *others})
    changes = {k: v for k, v in {**shared, **extra}.items() if k in (*own, *mine) and k != "sampler"}
    recipe = recipe.override({f"sampling.{key}": value for key, value in changes.items()})
    try:
        recipe.build("sampling").check(run.diffusion.process)
    except ValueError as error:
        raise UserError(f"sampling.sampler: {error}") from error
    return recipe, {k: v for k, v in extra.items() if k not in own}
