"""From a recipe to a run: `fit` trains what it describes and leaves a run folder."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from diffusionkit.core import Diffusion, guided
from diffusionkit.core.seeds import drawing
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training.console import say, tell
from diffusionkit.training.files import make_folder, replacing, writing
from diffusionkit.training.loop import is_first, train
from diffusionkit.training.options import Training
from diffusionkit.training.run import RUNS, Run, assemble, free_folder, suited

_VARIABLE = "DIFFUSIONKIT_RUN"  # tells the processes that Lightning starts which folder the first one has chosen
_KEPT = ("domain", "data", "process", "backbone", "objective", "seed")  # what a resumed run may not change
_KEPT_TRAINING = ("accumulate", "weight_decay", "betas")
_DATED = ("last.ckpt", "recipe.yaml")


def fit(recipe: Recipe, out: Path | None = None, resume: bool = False, console: Console | None = None) -> Run:
    """Trains what a recipe describes and leaves a run folder.

    Args:
        recipe: what to train.
        out: the run folder; by default the first free of runs/NAME, runs/NAME-2, ...
        resume: go on with the run in `out`, or with the newest of runs/NAME*.
        console: where to print.

    Raises:
        UserError: if something in the recipe, the folder or the data has to be put right first.
        TrainingStopped: if the loss is no longer finite.
        KeyboardInterrupt: after Ctrl-C, once the run has been saved.
    """
    recipe.check()
    console = (console or Console()) if is_first() else Console(quiet=True)
    folder = _choose(recipe, out, resume)
    if resume and is_first():
        _hold(recipe, folder)
    domain, seed, asked = recipe.domain, recipe.build("seed"), recipe
    codec, parts = domain.prepare(recipe.build("data"))
    recipe = suited(recipe, len(parts["train"]))
    options = recipe.build("training")
    with drawing(seed, torch.device("cpu")):
        diffusion = assemble(recipe, codec)
    make_folder(folder, clean=is_first())
    if is_first():
        with replacing(folder / "recipe.yaml") as path:
            recipe.save(path)
        with writing(folder):
            codec.save(folder)
    _announce(console, recipe, codec, parts, diffusion, folder)
    with _shared(folder), _advised(console, asked, folder):
        train(
            diffusion,
            parts["train"],
            options,
            out=folder,
            resume=resume,
            held_out=parts.get("test"),
            seed=seed,
            trainer=recipe.build("trainer"),
            draw=_drawer(recipe, codec, options) if options.pictures and not diffusion.objective.use else None,
            console=console,
        )
    run = Run(folder, recipe, domain, codec, diffusion, options.steps)
    say(console, f"All of it is in {folder}{_pictured(folder)}.")
    quoted = shlex.quote(str(folder))
    if run.generates:
        say(console, f"Next: diffusionkit sample {quoted}")
        say(console, f"      diffusionkit evaluate {quoted}")
    else:
        say(console, f"Next: {diffusion.objective.use.format(run=quoted)}")
    return run


def _drawer(recipe: Recipe, codec: Codec, options: Training) -> Callable[[Any, Path], None]:
    sampler, sampling, n = recipe.build("sampling"), recipe.sampling(), options.pictures

    def draw(diffusion: Any, path: Path) -> None:
        model = guided(diffusion, sampling.guidance, sampling.clip)
        recipe.domain.picture(codec, recipe.domain.draw(model, codec, sampler, torch.arange(n)), path)

    return draw


# ---- what is printed ----


def _announce(
    console: Console, recipe: Recipe, codec: Codec, parts: dict[str, Any], diffusion: Diffusion, folder: Path
) -> None:
    held = f", {len(parts['test']):,} held out" if "test" in parts else ""
    shapes = codec.like(1)
    shape = ", ".join(f"{k} {_by(v)}" for k, v in shapes.items()) if isinstance(shapes, dict) else _by(shapes)
    sections = recipe.sections
    parameters = sum(p.numel() for p in diffusion.network.parameters())
    tell(console, "data", f"{sections['data']['name']}, {len(parts['train']):,} to train{held}, {shape}")
    for note in codec.notes():
        tell(console, "", note)
    tell(console, "network", f"{sections['backbone']['name']}, {parameters:,} parameters")
    tell(console, "process", _words(sections["process"]))
    tell(console, "run", str(folder))


def _by(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape[1:])) or "1"


def _words(section: dict[str, Any]) -> str:
    named = {
        key: value["name"] if isinstance(value, dict) and "name" in value else value for key, value in section.items()
    }
    said = [f"{key} {value}" for key, value in named.items() if key != "name" and isinstance(value, str)]
    return ", ".join([str(named.get("name", "")), *said])


def _pictured(folder: Path) -> str:
    picture = folder / "pictures" / "final.png"
    return f"; look at {picture}" if picture.exists() else ""


@contextmanager
def _advised(console: Console, recipe: Recipe, folder: Path) -> Iterator[None]:
    """Says how to go on after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "last.ckpt").exists():
            words = ["diffusionkit", "train", recipe.source.removeprefix("recipe "), *_typed(recipe)]
            command = shlex.join([*words, "--out", str(folder), "--resume"])
            say(console, f"This continues it: {command}")
        raise


def _typed(recipe: Recipe) -> list[str]:
    """The keys and values of the recipe that were given on the command line, as they were typed."""
    words = []
    for key in sorted(recipe.overridden):
        value: Any = recipe.raw
        for name in key.split("."):
            value = value[name]
        words += [f"--{key}", str(value)]
    return words


# ---- the run folder ----


def _choose(recipe: Recipe, out: Path | None, resume: bool) -> Path:
    stem = recipe.name.rpartition("/")[2]
    if not is_first() and _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE])
    if out is not None:
        out = Path(out)
        if is_first() and resume and not (out / "recipe.yaml").exists():
            raise UserError(f"{out}: there is no run to resume, recipe.yaml is missing")
        if is_first() and not resume and _holds_run(out):
            raise UserError(f"{out}: holds a run already; continue it with --resume or choose another --out")
        return out
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and _VARIABLE not in os.environ:
        raise UserError("several processes started from outside need --out, to share one run folder")
    if resume:
        runs = [path for path in RUNS.glob(f"{stem}*") if re.fullmatch(rf"{re.escape(stem)}(-\d+)?", path.name)]
        runs = [path for path in runs if (path / "recipe.yaml").exists()]
        if not runs:
            raise UserError(f"{RUNS / stem}: there is no run to resume; train without --resume first")
        return max(runs, key=lambda path: max((path / n).stat().st_mtime for n in _DATED if (path / n).exists()))
    return free_folder(stem)


def _holds_run(folder: Path) -> bool:
    return any((folder / name).exists() for name in _DATED)


def _hold(recipe: Recipe, folder: Path) -> None:
    """Refuses to go on with a run that was started from something else."""
    before, now = Recipe.from_run(folder).sections, recipe.sections
    pairs = [(name, before[name], now[name]) for name in _KEPT]
    pairs += [(f"training.{name}", before["training"][name], now["training"][name]) for name in _KEPT_TRAINING]
    for name, old, new in pairs:
        found = _difference(name, old, new)
        if found:
            key, old, new = found
            raise UserError(
                f"{folder}: was started with {key}: {old}, the recipe now says {new}; a resumed run keeps it"
            )


def _difference(key: str, old: Any, new: Any) -> tuple[str, Any, Any] | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in [*old, *(n for n in new if n not in old)]:
            found = _difference(f"{key}.{name}", old.get(name), new.get(name))
            if found:
                return found
        return None
    same = list(old) == list(new) if isinstance(old, list | tuple) and isinstance(new, list | tuple) else old == new
    return None if same else (key, old, new)


@contextmanager
def _shared(folder: Path) -> Iterator[None]:
    """Lightning starts further processes with this command line and these variables."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = str(folder.resolve())
    try:
        yield
    finally:
        if before is None:
            del os.environ[_VARIABLE]
        else:
            os.environ[_VARIABLE] = before
