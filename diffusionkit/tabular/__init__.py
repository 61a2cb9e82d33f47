"""Tables: synthetic rows from pandas DataFrames. Names are imported with their first use."""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "TabularDiffusion": "api",
    "DiffusionImputer": "estimators",
    "DiffusionOverSampler": "estimators",
    "Schema": "schema",
    "Column": "schema",
    "TableCodec": "codec",
    "quality_report": "report",
    "privacy_report": "privacy",
}
__getattr__, __all__ = exports(__name__, _HOMES)
