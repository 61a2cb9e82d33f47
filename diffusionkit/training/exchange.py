"""Runs from the folders of other libraries, and back."""

from __future__ import annotations

import os
import pkgutil
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from diffusionkit.domain import Domain, Foreign, domains
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.training.files import write_json, writing
from diffusionkit.training.folder import ORIGIN, origin
from diffusionkit.training.run import Run, assemble, free_folder

_OPEN = ("data", "sampling")  # the sections that may be set on the way in; the others belong to the weights


def import_run(
    folder: str | Path, out: str | Path | None = None, overrides: Mapping[str, str] | None = None
) -> tuple[Run, list[str]]:
    """Makes a run of a folder of another library.

    Args:
        folder: what the other library has saved.
        out: the run folder; by default the first free of runs/NAME, runs/NAME-2, ...
        overrides: dotted keys of the recipe's sections `data` and `sampling`, with their values as typed.

    Returns:
        The run, and what a person should know of it.

    Raises:
        UserError: if no domain knows such a folder, something in it does not fit, or `out` holds something already; nothing is
            left then.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    for key in overrides or {}:
        if key.partition(".")[0] not in _OPEN:
            raise UserError(
                f"--{key}: only keys of {' and '.join(_OPEN)} can be set here, the rest belongs to the weights"
            )
    out = free_folder(folder.resolve().name) if out is None else Path(out)
    _vacant(out)
    domain = _knowing(folder)
    foreign: Foreign = pkgutil.resolve_name(domain.exchange["read"])(folder)
    raw = {"domain": domain.name, **foreign.sections}
    recipe = Recipe(raw, folder.resolve().name, str(folder), foreign.origin["text"], trusted=False)
    recipe = recipe.override(overrides or {})
    recipe.check()
    diffusion = assemble(recipe, foreign.codec)
    diffusion.network.load_state_dict(foreign.state)
    run = Run(out, recipe, domain, foreign.codec, diffusion.eval(), 0)
    with _filling(out) as temporary:
        run.save(temporary)
        write_json(temporary / ORIGIN, foreign.origin)
    return run, foreign.notes


def export_run(run: Run, out: str | Path) -> Path:
    """Writes a run as the other library would have saved it.

    Raises:
        UserError: if its domain knows no such format, the format has no words for it, or `out` holds something already; nothing
            is left then.
    """
    out = Path(out)
    _vacant(out)
    if "write" not in run.domain.exchange:
        raise UserError(run.domain.without("export"))
    with torch.no_grad(), _filling(out) as temporary:
        pkgutil.resolve_name(run.domain.exchange["write"])(run, origin(run.folder), temporary)
    return out


def _knowing(folder: Path) -> Domain:
    able = [domain for domain in domains().values() if domain.exchange]
    for domain in able:
        if pkgutil.resolve_name(domain.exchange["knows"])(folder):
            return domain
    names = ", ".join(domain.name for domain in able)
    raise UserError(
        f"{folder}: is no model that can be imported: there is no model_index.json or config.json of one ({names})"
    )


def _vacant(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: is there already, and not empty; choose another --out")


@contextmanager
def _filling(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into, which takes its place once the block is through."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with writing(folder):
            temporary.mkdir(parents=True)
            yield temporary
            os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


__all__ = ["export_run", "import_run", "origin"]
