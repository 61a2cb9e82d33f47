"""Molecules: new ones in three dimensions, and conformers of given ones. Names are imported with their first use."""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "MoleculeDiffusion": "api",
    "ConformerDiffusion": "conformers",
    "MoleculeCodec": "codec",
    "MoleculeSet": "sets",
}
__getattr__, __all__ = exports(__name__, _HOMES)
