"""Time series: joint forecasts, imputation and new series from pandas frames. Names are imported with their first use."""

from __future__ import annotations

from diffusionkit.lazy import exports

_HOMES = {
    "TimeSeriesDiffusion": "api",
    "TimeGrad": "api",
    "CSDI": "api",
    "Forecast": "forecast",
    "SeriesCodec": "codec",
}
__getattr__, __all__ = exports(__name__, _HOMES)
