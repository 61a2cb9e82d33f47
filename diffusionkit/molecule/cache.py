"""What is worked out once of a data set, kept outside the project under the content that it comes from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from diffusionkit.molecule.sets import MoleculeSet

_FORM = "1"  # of the arrays; a new one makes all kept ones void


def folder() -> Path:
    """Where prepared data sets are kept."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "diffusionkit" / "molecule"


def digest(*parts: Any) -> str:
    """A name for what is made of these: texts, numbers, and paths, of which the content counts."""
    found = hashlib.blake2b(_FORM.encode(), digest_size=12)
    for part in parts:
        if isinstance(part, Path):
            with open(part, "rb") as file:
                while block := file.read(1 << 20):
                    found.update(block)
        else:
            found.update(repr(part).encode())
        found.update(b"\0")
    return found.hexdigest()


def kept(stem: str, key: Sequence[Any], make: Callable[[], MoleculeSet], names: tuple[str, ...] = ()) -> MoleculeSet:
    """The molecules kept under this content, else those that `make` gives, which are kept from then on.

    Args:
        stem: the first part of the file's name.
        key: all that the molecules depend on; see `digest`.
        make: reads or computes them.
        names: of the properties that they come with.
    """
    from rdkit import rdBase

    path = folder() / f"{stem}-{digest(rdBase.rdkitVersion, *key)}.npz"
    if path.is_file():
        try:
            return MoleculeSet.load(path, names)
        except (OSError, ValueError, KeyError, EOFError):  # cut off or damaged: made anew
            path.unlink(missing_ok=True)
    found = make()
    try:
        found.save(path)
    except OSError:  # no place to keep it: made again next time
        pass
    return found
