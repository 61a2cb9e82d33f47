"""The domain of time series: what the commands ask of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusionkit.domain import Dataset, Domain


class TimeSeriesDomain(Domain):
    """Windows of series as states (B, H, D); what is drawn are paths in the units of the data."""

    name = "timeseries"
    data = {
        "macro": "diffusionkit.timeseries.data:Macro",
        "csv": "diffusionkit.timeseries.data:Csv",
        "named": "diffusionkit.timeseries.data:Named",
        "nips": "diffusionkit.timeseries.data:Nips",
        "frame": "diffusionkit.timeseries.data:Frame",
    }
    backbones = {
        "mlp": "diffusionkit.timeseries.backbones.mlp:BlockMLP",
        "inverted": "diffusionkit.timeseries.backbones.inverted:InvertedTransformer",
        "timegrad": "diffusionkit.timeseries.backbones.timegrad:TimeGradNetwork",
        "csdi": "diffusionkit.timeseries.backbones.csdi:CSDINetwork",
    }
    codec = "diffusionkit.timeseries.codec:SeriesCodec"
    ending = ".csv"
    single = False
    instead = {
        "interpolate": "samples are paths from one past, seen together",
        "inpaint": "use `CSDI(...).impute` in Python",
        "edit": "use `sample --history`, which goes on from a series",
        "restore": "use `CSDI(...).impute` in Python",
        "upscale": "a series has no resolution",
        "dock": "a series has no pockets",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        return dict.fromkeys(("horizon", "series", "sample", "own", "shared", "lags", "time", "scale"), ...)

    def prepare(self, data: Any) -> tuple[Any, dict[str, Dataset]]:
        from diffusionkit.timeseries.prepare import prepared

        return prepared(data, data.load())

    def length(self, rows: int, batch_size: int | None = None) -> dict[str, int]:
        """Some six passes over the windows, which overlap: more of them learn the past by heart."""
        size = batch_size or 128
        return {"batch_size": size, "steps": min(max(round(6 * rows / size), 400), 2500)}

    def condition(
        self,
        codec: Any,
        indices: Any,
        *,
        horizon: int | None = None,
        history: str | None = None,
        future: str | None = None,
    ) -> Any:
        """From where paths start, and how far they go.

        Args:
            codec: of the run.
            indices: running numbers (B,) of the paths.
            horizon: steps; as many as the model was trained for by default. Further ones are drawn from what was drawn.
            history: a file of series to start from, read as the training data were; their end by default.
            future: a file of the covariates that must be known ahead.
        """
        from diffusionkit.timeseries.start import started

        return started(codec, horizon, history, future)

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> Any:
        from diffusionkit.timeseries.generate import continued

        panel, horizon = self.condition(codec, indices, **wanted)
        return continued(diffusion, codec, [panel], horizon, len(indices), sampler, watch=watch)[0]

    def picture(self, codec: Any, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.timeseries.forecast import Forecast
        from diffusionkit.timeseries.plots import forecasts

        times = codec.times(x.shape[1])
        forecasts(Forecast(x.numpy(), codec.names, times, codec.freq, codec.history(), codec.joint, codec.tz), path)

    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.timeseries.export import open_writer

        panel, _ = self.condition(codec, [], **wanted)
        return open_writer(codec.moved(panel), path, n)

    def evaluate(self, run: Any, *, n: int = 100, seed: int = 0, pictures: bool = True) -> dict[str, Any]:
        """The rolling backtest of a run beside simple baselines.

        Args:
            run: a loaded run.
            n: paths of each window.
            seed: of the paths.
            pictures: draw windows and the histogram of PIT values into the run folder.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.
        """
        from diffusionkit.timeseries.evaluate import evaluate

        return evaluate(run, n=n, seed=seed, pictures=pictures)
