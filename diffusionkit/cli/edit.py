"""Commands that change pictures and the like with a run: `inpaint`, `edit`, `restore` and `upscale`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

from cyclopts import Parameter

from diffusionkit.cli import options
from diffusionkit.cli.draw import Folder, load, resettled
from diffusionkit.cli.start import Words
from diffusionkit.errors import UserError


@Parameter(name="*")
@dataclass(frozen=True)
class Drawing:
    """The options that all of these commands have.

    Args:
        n: How many results.
        out: Where to; the ending decides the form, as for `sample`: `.png` a grid (one result alone in its own size), `/` a
            folder of single pictures. In the run folder if not given.
        sampler: How to step from noise to data: ddpm, ddim, heun, dpmpp, unipc. If not given, that of the recipe with as much noise
            as it allows (`--eta 1`), or ddim where it allows none.
        guidance: Scale of classifier-free guidance, where a condition is given.
        clip: Bound on the estimate of the clean data, or `dynamic`.
        seed: Seed of the random numbers.
        batch_size: Results drawn at a time.
        device: Such as cpu or cuda:1; the best there is if not given.
        recipe: Recipe file of the run, needed if it names classes of your own.
    """

    n: Annotated[int, Parameter(name=("-n", "--number"))] = 4
    out: str | None = None
    sampler: str | None = None
    guidance: str | None = None
    clip: str | None = None
    seed: int = 0
    batch_size: str | None = None
    device: str | None = None
    recipe: str | None = None


def inpaint(run: Folder, picture: Folder, mask: Folder, /, *words: Words, drawing: Drawing | None = None) -> None:
    """Fill in the white part of a mask; all else stays as it is, bit by bit.

    Further options are arguments of the sampler, such as `--steps 100`, conditions of the domain, such as `--class 3`
    (without one the model draws without), and

    `--method repaint` (default), which goes back and forth; `replace`, which does not; `posterior`, which follows a gradient;
    `--resample 10` and `--jump 5`: how often and how far `repaint` goes back; `--iterations 3` of the solver of `posterior`;
    `--fit` cuts and resizes picture and mask to what the model draws.

    Example: `diffusionkit inpaint runs/digits digit.png hole.png --class 3 --resample 10 --out filled.png`

    Args:
        run: The folder of a run.
        picture: The picture.
        mask: A picture of the same size, white where to fill in and black where to keep.
    """
    _edit("inpaint", ("run", "picture", "mask"), [run, picture, mask, *words], drawing)


def edit(run: Folder, picture: Folder, /, *words: Words, drawing: Drawing | None = None) -> None:
    """Draw a picture anew: from a noised version of it, or with its coarse part held.

    Further options are arguments of the sampler, such as `--steps 100`, conditions of the domain, such as `--class 3`
    (without one the model draws without), and

    `--strength 0.5`: how far the picture is noised, from 0 (as it is) to 1 (free);
    `--coarse 4`: hold the means of squares of so many pixels, those of the picture or of `--reference FILE`, and let them go at
    time `--until 0.1`, shortly before the end; `--fit` cuts and resizes the pictures to what the model draws.

    Example: `diffusionkit edit runs/digits drawing.png --strength 0.6 --class 7 --out sevens.png`

    Args:
        run: The folder of a run.
        picture: The picture; a rough drawing is enough.
    """
    _edit("edit", ("run", "picture"), [run, picture, *words], drawing)


def restore(run: Folder, picture: Folder, /, *words: Words, drawing: Drawing | None = None) -> None:
    """Draw what a blurred, small, grey, noisy or partly hidden picture may have been.

    Further options are arguments of the sampler, such as `--steps 100`, conditions of the domain, such as `--class 3`
    (without one the model draws without), and

    `--operator`, what happened to the picture: `blur:2`, `downsample:4`, `grey`, `mask:FILE` (white is hidden), `identity`, or
    several with commas between them; `--noise 10`, its noise in levels of 255;
    `--method pigdm` (default), `moments` or `dps`, with `--scale 1` and `--iterations 3`;
    `--degrade` does the operator and the noise to a whole picture first, to try things out;
    `--fit` cuts and resizes the picture to the size that is needed.

    Example: `diffusionkit restore runs/digits small.png --operator downsample:2 --out large.png`

    Args:
        run: The folder of a run.
        picture: What is seen.
    """
    _edit("restore", ("run", "picture"), [run, picture, *words], drawing)


@Parameter(name="*")
@dataclass(frozen=True)
class Enlarging(Drawing):
    n: Annotated[int, Parameter(name=("-n", "--number"))] = 1


def upscale(run: Folder, picture: Folder, /, *words: Words, drawing: Enlarging | None = None) -> None:
    """Make a picture of any size larger, with a run that was trained to (`data.smaller` in its recipe).

    The picture is drawn in overlapping tiles that are blended at every step, so that the memory needed hardly grows with it.
    Further options are arguments of the sampler, such as `--steps 20`, conditions of the domain, such as `--class 3`
    (without one the model draws without), and

    `--factor 4`: how much larger, that of the run if not given, or a power of it;
    `--noise 10`: put noise of so many levels of 255 on the picture, for one that is noisy or compressed;
    `--consistent`: the result, made smaller again, is the picture;
    `--tile 64`: side of the tiles in pixels, and `--tiles 16`: how many at a time.

    Example: `diffusionkit upscale runs/cifar_sr photo.jpg --factor 4 --consistent --out large.png`

    Args:
        run: The folder of a run.
        picture: The picture.
    """
    _edit("upscale", ("run", "picture"), [run, picture, *words], drawing or Enlarging(), ancestral=False)


def _edit(name: str, wanted: Sequence[str], words: list[str], drawing: Drawing | None, ancestral: bool = True) -> None:
    """Runs an edit; `ancestral` takes steps with as much noise as can be, where no sampler is named."""
    drawing = drawing or Drawing()
    plain, extra = options.split(words)
    if len(plain) != len(wanted):
        raise UserError(f"{name} takes {', '.join(wanted)}, and not {', '.join(plain)}")
    folder, *files = plain

    from diffusionkit.recipe import Recipe
    from diffusionkit.training.edit import codec_of, function
    from diffusionkit.training.edit import edit as draw

    domain = (Recipe.load(drawing.recipe) if drawing.recipe else Recipe.from_run(folder)).domain
    make = function(domain, name)
    task = make(
        codec_of(domain, folder), *files, **_arguments(make, extra)
    )  # refuses a file before the network is read
    run = load(folder, drawing.device, drawing.recipe)
    given = {key: getattr(drawing, key) for key in ("sampler", "guidance", "clip", "batch_size")}
    if ancestral and drawing.sampler is None:  # noise corrects what a gradient or a seam has put off course
        noisy = "eta" in run.recipe.sampling_keys()
        if not noisy and not run.sampler().eta:  # one that knows no noise, such as Heun's
            noisy, given["sampler"] = True, "ddim"
        extra = {"eta": "1"} | extra if noisy else extra
    own = options.keywords(make)
    others = {*options.keywords(run.domain.condition), *own, *(f.name for f in fields(drawing))} - {"n"}
    recipe, rest = resettled(run, {k: v for k, v in given.items() if v is not None}, extra, others)
    common = recipe.sampling()
    written = draw(
        run,
        task,
        drawing.n,
        drawing.out or run.folder / f"{name}{run.domain.ending}",
        sampler=recipe.build("sampling"),
        guidance=common.guidance,
        clip=common.clip,
        batch_size=common.batch_size,
        seed=drawing.seed,
        condition=options.arguments(run.domain.condition, {k: v for k, v in rest.items() if k not in own}),
    )
    print(f"{drawing.n} results in {written}")


def _arguments(function: Callable[..., Any], given: Mapping[str, str]) -> dict[str, Any]:
    found = options.arguments(function, given)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty and name not in found:
            raise UserError(f"{options.flag(name)} is missing")
    return found
