"""Training: one loop for every domain, its run folder, and what is drawn from a run.

Importing this package is cheap; torch and Lightning are loaded with the first name that is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Training": "options",
    "Run": "run",
    "fit": "run",
    "train": "loop",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
