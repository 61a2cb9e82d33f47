"""Pictures: networks, data sets and what the commands need. Names are imported with their first use."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "UNet": "backbones.unet",
    "Classifier": "backbones.classifier",
    "Digits": "data",
    "MNIST": "data",
    "FashionMNIST": "data",
    "CIFAR10": "data",
    "Folder": "data",
    "save_grid": "grid",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
