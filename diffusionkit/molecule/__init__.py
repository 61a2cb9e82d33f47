"""Molecules: new ones in three dimensions, conformers of given ones, and docking poses. Names are imported with their first use."""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "MoleculeDiffusion": "api",
    "ConformerDiffusion": "conformers",
    "PoseDiffusion": "poses",
    "MoleculeCodec": "codec",
    "MoleculeSet": "sets",
}
__getattr__, __all__ = exports(__name__, _HOMES)
