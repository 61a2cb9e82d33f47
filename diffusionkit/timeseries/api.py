"""Series from Python: fit frames, draw paths of what comes, fill gaps, make new series."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.core import Sampler
from diffusionkit.errors import TrainingStopped, UserError
from diffusionkit.timeseries import frames, generate
from diffusionkit.timeseries.backtest import Backtest, backtested, rolling
from diffusionkit.timeseries.codec import SeriesCodec
from diffusionkit.timeseries.forecast import Forecast
from diffusionkit.timeseries.gaps import imputed
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.prepare import prepared
from diffusionkit.timeseries.start import read, ready
from diffusionkit.training.fitted import Fitted
from diffusionkit.training.run import Run, suited

PRESETS = {
    "default": "timeseries/csv",
    "many": "timeseries/many",
    "timegrad": "timeseries/timegrad",
    "csdi": "timeseries/csdi",
}
_MANY = 32  # series beyond which the default is the network of tokens


class TimeSeriesDiffusion(Fitted):
    """A diffusion model of series.

        model = TimeSeriesDiffusion(prediction_length=24, freq="h").fit(df)
        forecast = model.predict(df, num_samples=100)

    Args:
        prediction_length: steps that are drawn at once, and the default of what is foretold.
        freq: alias of the step, such as h, D, B or MS; inferred from the frame if not given.
        preset: `default` (the whole horizon at once; `many` where there are more than 32 joint series), `many` (series as tokens),
            `timegrad` (Rasul et al. 2021), `csdi` (Tashiro et al. 2021; it also fills gaps and makes new series), or the name or
            path of a recipe.
        context_length: steps that are shown; chosen from horizon, season and length of the series if not given.
        target: how values become what is drawn, such as {"transform": "log", "lag": 1}; see `Target`. Chosen on the last fifth of
            the training part if not given.
        joint: whether one path is drawn for all series together; by default where they all end together.
        known: covariates that are known ahead: columns of the frame.
        past: covariates that are known up to the last row.
        steps: optimiser steps; as the preset says by default.
        settings: keys of the recipe to be changed, such as {"backbone.width": 512}.
        device: where to train and to draw; the best there is by default.
        verbose: whether to show what is done, and how far it is.
        random_state: seed of training and, unless a call gets its own, of drawing; None draws anew each time.

    Attributes:
        history_: rows of training metrics.
        codec_: what series are taken for.
    """

    domain, what = "timeseries", "series"

    def __init__(
        self,
        prediction_length: int = 24,
        freq: str | None = None,
        *,
        preset: str = "default",
        context_length: int | None = None,
        target: Mapping[str, Any] | None = None,
        joint: bool | None = None,
        known: Sequence[Hashable] = (),
        past: Sequence[Hashable] = (),
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        verbose: bool = True,
        random_state: int | None = None,
    ) -> None:
        self.prediction_length, self.freq, self.preset, self.context_length = (
            prediction_length,
            freq,
            preset,
            context_length,
        )
        self.target, self.joint, self.known, self.past = target, joint, known, past
        self.steps, self.settings, self.device = steps, settings, device
        self.verbose, self.random_state = verbose, random_state

    # ---- training

    def fit(self, df: Any, y: Any = None, *, static: pd.DataFrame | None = None) -> TimeSeriesDiffusion:
        """Learns what comes after what.

        Args:
            df: a wide frame (time x series), a long one (unique_id, ds, y), a Series, an array (time, series) or GluonTS entries.
            y: not used; scikit-learn's manners.
            static: what does not change with time: a frame with a row for each series.

        Raises:
            UserError: if the series or the settings have to be put right first; before anything long starts.
            TrainingStopped: if the loss is no longer finite; the model has the last good weights, if there are any.
        """
        panel = frames.read(
            df, freq=self.freq, joint=self.joint, known=tuple(self.known), past=tuple(self.past), static=static
        )
        preset = "many" if self.preset == "default" and panel.joint and panel.size > _MANY else self.preset
        recipe = self._recipe(PRESETS.get(preset, preset))
        codec, parts = prepared(recipe.build("data"), {"train": panel})
        recipe, seed = suited(recipe, len(parts["train"])), self._seed()
        run = self._begun(recipe, codec, seed)
        with self._kept(run):
            self.history_ = self._train(run, parts["train"], seed)
        return self

    @contextmanager
    def _kept(self, run: Run) -> Iterator[None]:
        """What has been trained stays, also where it was stopped: with the weights of the last moment at which all was well."""
        try:
            yield
        except TrainingStopped:
            if all(bool(part.isfinite().all()) for part in run.diffusion.eval().state_dict().values()):
                self._keep(run)
            raise
        self._keep(run)

    def _recipe(self, name: str) -> Any:
        from diffusionkit.recipe import Recipe

        codec = dict(Recipe.load(name).sections["data"].get("codec", {})) | dict(self.target or {})
        length = self.context_length or 0
        given = {"prediction_length": int(self.prediction_length), "context_length": length, "codec": codec}
        return self._changed(name, {"name": "frame", **given})

    def update(self, df: Any, steps: int | None = None, *, static: pd.DataFrame | None = None) -> TimeSeriesDiffusion:
        """Goes on training on series that have grown; scales and the choice of what is drawn stay.

        Args:
            df: series as in `fit`, from which forecasts start from now on.
            steps: a fifth of those of `fit` by default, at a third of the learning rate.
            static: as in `fit`.

        Raises:
            UserError: if they do not fit the model.
            TrainingStopped: if the loss is no longer finite; the model is then as it was.
        """
        run, codec = self._run(), self._codec()
        panel = ready(codec, read(codec, df, static=static), 0)
        options = run.recipe.build("training")
        options = replace(options, steps=steps or max(options.steps // 5, 1), lr=options.lr / 3, warmup=0)
        windows, kept = codec.windows(panel), copy.deepcopy(run.diffusion.state_dict())
        if not len(windows):
            raise UserError(f"df: too short to train on; a series needs {codec.shortest + codec.horizon} rows")
        try:
            rows = self._train(run, windows, self._seed(), options)
        except BaseException:
            run.diffusion.load_state_dict(kept)
            self._keep(run)
            raise
        self.history_ = [*getattr(self, "history_", []), *rows]
        self._keep(replace(run, codec=codec.moved(panel), step=run.step + options.steps))
        return self

    def _codec(self) -> SeriesCodec:
        codec: Any = self._run().codec
        return codec

    def _keep(self, run: Run) -> None:
        super()._keep(run)
        self.codec_ = run.codec

    @classmethod
    def _implied(cls, run: Run) -> dict[str, Any]:
        codec: Any = run.codec
        return {"prediction_length": codec.horizon, "freq": codec.freq, "preset": run.recipe.name}

    # ---- what comes

    def predict(
        self,
        df: Any = None,
        num_samples: int = 100,
        *,
        horizon: int | None = None,
        future: Any = None,
        static: pd.DataFrame | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
    ) -> Any:
        """Joint paths of what comes after the last rows.

        Args:
            df: series to start from, as in `fit`; those of `fit` if not given. A list of them gives a list of forecasts, drawn in
                the same calls.
            num_samples: paths.
            horizon: steps; beyond `prediction_length` paths go on from what has been drawn.
            future: covariates known ahead, for every coming time; a list with a list of series.
            static: as in `fit`.
            steps: of the sampler.
            sampler: instead of the preset's.
            batch_size: paths drawn at a time.
            random_state: seed; that of the model by default.

        Raises:
            UserError: for series that do not fit the model, too short a history, or covariates that are missing.
        """
        codec = self._codec()
        length = codec.horizon if horizon is None else int(horizon)
        if length < 1 or num_samples < 1:
            raise UserError(f"{'horizon' if length < 1 else 'num_samples'}: at least one")
        several = isinstance(df, (list, tuple)) and not (len(df) and isinstance(df[0], Mapping))
        if not several:
            panels = [self._start(df, length, future, static)]
        elif isinstance(future, (list, tuple)) and len(future) != len(df):
            raise UserError(f"future: {len(future)} frames for {len(df)} series frames")
        else:
            futures = future if isinstance(future, (list, tuple)) else [future] * len(df)
            panels = [self._start(one, length, ahead, static) for one, ahead in zip(df, futures, strict=True)]
        found = self._paths(panels, length, num_samples, (steps, sampler, batch_size), random_state)
        made = [
            Forecast(paths, p.names, p.coming(length), p.freq, p.frame(4 * length), p.joint, p.blocks[0].index.tz)
            for p, paths in zip(panels, found, strict=True)
        ]
        return made if several else made[0]

    def _start(self, df: Any, length: int, future: Any, static: Any) -> Panel:
        codec = self._codec()
        return ready(codec, codec.tail if df is None else read(codec, df, future, static), length)

    def _paths(
        self, panels: list[Panel], length: int, n: int, how: tuple, random_state: int | None
    ) -> list[np.ndarray]:
        if not panels:
            return []
        codec = self._codec()
        diffusion, sampler, size = self._drawing(None, *how)
        with self._seeded(random_state):
            drawn = generate.continued(diffusion, codec, panels, length, n, sampler, size)
        return [paths.numpy() for paths in drawn]

    def backtest(
        self,
        df: Any,
        windows: int = 5,
        *,
        stride: int | None = None,
        horizon: int | None = None,
        num_samples: int = 100,
        baselines: Sequence[str] | None = None,
        static: pd.DataFrame | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
    ) -> Backtest:
        """Forecasts from several origins at the end of `df`, against what came, beside simple baselines.

        The model is used as it was fitted: keep the rows of the windows out of `fit` for figures that mean something.

        Args:
            df: series with what came, as in `fit`.
            windows: how many, the last one ending with `df`.
            stride: rows from one to the next; the horizon by default.
            horizon: steps; `prediction_length` by default.
            num_samples: paths of each window.
            baselines: names of `BASELINES`; all by default.
            static, steps, sampler, batch_size, random_state: as in `predict`.

        Returns:
            `scores`, `forecasts`, `table`, `verdict()`, `plot(path)`.
        """
        codec = self._codec()
        length = codec.horizon if horizon is None else int(horizon)
        test = rolling(read(codec, df, static=static), length, windows, stride or 0)
        for block, cut in zip(test.panel.blocks, test.cuts[0], strict=True):
            if cut < codec.shortest:
                raise UserError(
                    f"series {block.names[0]!r} has {len(block)} rows until {block.index[-1]}, and {windows} windows of {length} "
                    f"steps need {len(block) - cut + codec.shortest}"
                )
        diffusion, sampler, size = self._drawing(None, steps, sampler, batch_size)
        seed = self.random_state if random_state is None else random_state
        with self._seeded(random_state):
            return backtested(diffusion, codec, test, num_samples, sampler, size, seed or 0, baselines=baselines)

    # ---- gaps and new series

    def impute(
        self,
        df: Any,
        draws: int = 5,
        *,
        static: pd.DataFrame | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
    ) -> Any:
        """The series with what is missing drawn given all that was observed, which is returned as it was.

        Args:
            df: series as in `fit`.
            draws: how many filled copies; how they differ shows how sure the values are.
            static, steps, sampler, batch_size, random_state: as in `predict`.

        Returns:
            What `df` is, filled; a list of them for several draws. Rows that are not there stay so: `df.asfreq(...)` makes them.

        Raises:
            UserError: if the preset does not draw whole windows (`csdi` does).
        """
        codec = self._codec()
        generate.refuse(codec, "fills gaps")
        if draws < 1:
            raise UserError(f"draws: at least one, not {draws}")
        diffusion, sampler, size = self._drawing(None, steps, sampler, batch_size)
        panel = read(codec, df, static=static)
        with self._seeded(random_state):
            tables = imputed(diffusion, codec, panel, df, draws, sampler, size)
        return tables[0] if draws == 1 else tables

    def generate(
        self, n: int = 1, *, steps: int | None = None, sampler: Sampler | None = None, random_state: int | None = None
    ) -> np.ndarray:
        """New stretches of the series, as if from any time: (n, context + horizon, series).

        Raises:
            UserError: if the preset does not draw whole windows (`csdi` does).
        """
        codec = self._codec()
        generate.refuse(codec, "makes new series")
        if n < 1:
            raise UserError(f"n: at least one, not {n}")
        diffusion, sampler, size = self._drawing(None, steps, sampler, None)
        with self._seeded(random_state):
            return generate.unconditional(diffusion, codec, n, sampler, size).numpy()


class TimeGrad(TimeSeriesDiffusion):
    """TimeGrad (Rasul et al. 2021): a recurrent network, and a diffusion of each next step; see `TimeSeriesDiffusion`."""

    def __init__(
        self, prediction_length: int = 24, freq: str | None = None, *, preset: str = "timegrad", **how: Any
    ) -> None:
        super().__init__(prediction_length, freq, preset=preset, **how)

    _get_param_names = TimeSeriesDiffusion._get_param_names


class CSDI(TimeSeriesDiffusion):
    """CSDI (Tashiro et al. 2021): whole windows, of which any part may be given; see `TimeSeriesDiffusion`."""

    def __init__(
        self, prediction_length: int = 24, freq: str | None = None, *, preset: str = "csdi", **how: Any
    ) -> None:
        super().__init__(prediction_length, freq, preset=preset, **how)

    _get_param_names = TimeSeriesDiffusion._get_param_names
