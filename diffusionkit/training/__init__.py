"""Training: one loop for every domain, its run folder, and what is drawn from a run.

Importing this package is cheap; torch and Lightning are loaded with the first name that is used.
"""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "Training": "options",
    "Run": "run",
    "fit": "fitting",
    "train": "loop",
}
__getattr__, __all__ = exports(__name__, _HOMES)
