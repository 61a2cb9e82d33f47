"""A forecast: joint sample paths with their names and times, and what is read off them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.timeseries.measures import quantile
from diffusionkit.timeseries.panel import listed
from diffusionkit.timeseries.tables import ID, TIME, VALUE, common, is_long, long_paths, look_up, observed, utc, zoned

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, repr=False, eq=False)
class Forecast:
    """Paths drawn jointly over the steps and, with `joint`, over the series: path s is one possible future of all of them.

    Attributes:
        samples: (S, H, D) float64: S paths of H steps of D series, all finite.
        names: of the series, D.
        times: of the steps: an index of H time stamps, or (H, D) datetime64 (UTC where there is a `tz`) where the series end
            at different times; equal columns become an index.
        freq: pandas offset alias.
        history: rows before the forecast, for the plot and nothing else: a frame of time x series, or a long one with
            unique_id, ds and y.
        joint: False where the paths of different series have nothing to do with each other; sums over series make no sense then.
        tz: time zone of `times`; taken from the index where there is one.

    Raises:
        UserError: for shapes that do not fit, duplicate names, no path, and values that are not finite.
    """

    samples: np.ndarray
    names: tuple[Hashable, ...]
    times: pd.DatetimeIndex | np.ndarray
    freq: str
    history: pd.DataFrame | None = None
    joint: bool = True
    tz: Any = None

    def __post_init__(self) -> None:
        samples, names = np.asarray(self.samples, dtype=np.float64), tuple(self.names)
        times, tz = common(self.times, self.tz)
        wanted = (len(times), len(names))
        if (
            samples.ndim != 3
            or not samples.size
            or samples.shape[1:] != wanted
            or times.shape not in ((wanted[0],), wanted)
        ):
            said = f"samples {samples.shape}, times {times.shape}, {len(names)} names"
            raise UserError(f"forecast: {said} do not fit; samples are (paths, steps, series), at least one of each")
        if len(set(names)) < len(names):
            raise UserError(f"forecast: series {next(n for n in names if names.count(n) > 1)!r} is there twice")
        if not np.isfinite(samples).all():
            s, h, d = np.argwhere(~np.isfinite(samples))[0]
            raise UserError(f"forecast: path {s} of series {names[d]!r} is not finite at step {h + 1}")
        past = None if self.history is None else observed(self.history, names, tz, "history")
        kept = {"samples": samples, "names": names, "times": times, "history": past, "tz": tz}
        for key, value in kept.items():
            object.__setattr__(self, key, value)

    @property
    def num_samples(self) -> int:
        """Paths, S."""
        return self.samples.shape[0]

    @property
    def prediction_length(self) -> int:
        """Steps, H."""
        return self.samples.shape[1]

    @property
    def common(self) -> bool:
        """Whether all series have the same times."""
        return isinstance(self.times, pd.DatetimeIndex)

    def index(self, name: Hashable) -> pd.DatetimeIndex:
        """The H times of one series."""
        if isinstance(self.times, pd.DatetimeIndex):
            return self.times
        return zoned(self.times[:, self._place(name)], self.tz)

    def past(self, name: Hashable) -> pd.Series:
        """The history of one series, indexed by time; empty where there is none."""
        if self.history is None:
            return pd.Series([], index=self.index(name)[:0], dtype=np.float64)
        if is_long(self.history):
            found = self.history[self.history[ID] == name]
            return pd.Series(found[VALUE].to_numpy(), index=pd.DatetimeIndex(found[TIME]))
        return self.history[name]

    @property
    def mean(self) -> pd.DataFrame:
        """(H, D) means over the paths; rows are times or, where these differ between series, steps 1 to H."""
        return self._frame(self.samples.mean(0))

    @property
    def median(self) -> pd.DataFrame:
        """(H, D) medians, `quantile(.5)`."""
        return self.quantile(0.5)

    def quantile(self, q: float) -> pd.DataFrame:
        """(H, D) quantiles over the paths: the path at place round((S - 1) q) of those sorted at each step, as in GluonTS.

        Raises:
            UserError: if q is not from 0 to 1.
        """
        return self._frame(quantile(self.samples, q))

    def interval(self, level: float) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(H, D) lower and upper ends of the central interval that holds `level` per cent of the paths.

        Raises:
            UserError: if the level is not over 1 and under 100.
        """
        low, high = quantile(self.samples, ends([level]))
        return self._frame(low), self._frame(high)

    def select(self, series: Hashable | Iterable[Hashable]) -> Forecast:
        """The forecast of some series: a name, or names in the order wanted.

        Raises:
            UserError: for a series that is not there.
        """
        one = isinstance(series, str) or (isinstance(series, Hashable) and series in self.names)
        names = [series] if one or not isinstance(series, Iterable) else list(series)
        places = [self._place(name) for name in names]
        times = self.times if isinstance(self.times, pd.DatetimeIndex) else self.times[:, places]
        return replace(self, samples=self.samples[:, :, places], names=tuple(names), times=times)

    def total(self, name: Hashable = "sum") -> Forecast:
        """The forecast of the sum over the series, path by path.

        Raises:
            UserError: where the paths are not joint or the times differ.
        """
        if not self.joint or not self.common:
            raise UserError("forecast: a sum over series needs a joint forecast of series with the same times")
        past = self.history
        if past is not None:
            past = past.pivot(index=TIME, columns=ID, values=VALUE) if is_long(past) else past
            past = past[list(self.names)].sum(axis=1, skipna=False).to_frame(name)
        return replace(self, samples=self.samples.sum(2, keepdims=True), names=(name,), history=past)

    def to_frame(
        self, levels: Sequence[float] = (80, 95), long: bool = False, name: str = "diffusionkit"
    ) -> pd.DataFrame:
        """The forecast as a table, columns as Nixtla names them.

        Args:
            levels: of central intervals, per cent.
            long: rows of unique_id, ds, {name} (the mean), {name}-median, {name}-lo-80, {name}-hi-80, ..., series after series;
                otherwise rows are times (steps, where times differ) and columns {series} (the mean), {series}-lo-80, ...
            name: of the columns of a long table.

        Raises:
            UserError: for a level that is none, and for a wide table in which two columns would have one name.
        """
        found = [self.samples.mean(0), *quantile(self.samples, [0.5, *ends(levels)])]
        words = [f"{side}-{level:g}" for level in levels for side in ("lo", "hi")]
        if long:
            labels = [name, f"{name}-median", *(f"{name}-{word}" for word in words)]
            columns = {ID: self.ids(), TIME: self.stamps()}
            columns |= {label: values.T.ravel() for label, values in zip(labels, found, strict=True)}
            return pd.DataFrame(columns)
        del found[1]
        names = [f"{series}-{word}" if word else series for series in self.names for word in ("", *words)]
        if len(set(names)) < len(names):
            twice = next(label for label in names if names.count(label) > 1)
            raise UserError(f"forecast: two columns would be called {twice!r}; take to_frame(long=True)")
        values = np.stack(found, 2).reshape(self.prediction_length, -1)
        return pd.DataFrame(values, index=self._rows(), columns=pd.Index(names, tupleize_cols=False))

    def paths(self) -> pd.DataFrame:
        """All paths as a long table of unique_id, ds, sample_id and y: path after path, in each series after series."""
        return long_paths(self.samples, self.ids(), self.stamps())

    def to_gluonts(self, joint: bool | None = None) -> Any:
        """GluonTS's `SampleForecast` with samples (S, H, D), or (S, H) of a single series.

        Args:
            joint: False for a list with one for each series; by default so where the forecast is not joint.

        Raises:
            UserError: if GluonTS is not installed, or the times differ and joint is True.
        """
        try:
            from gluonts.model.forecast import SampleForecast
        except ImportError as error:
            raise UserError("to_gluonts() needs GluonTS; install it with: pip install gluonts") from error
        joint = self.joint and self.common if joint is None else joint
        if not joint:
            return [self.select([name]).to_gluonts(joint=True) for name in self.names]
        if not self.common:
            raise UserError("to_gluonts(joint=True): the series end at different times; take joint=False")
        one = len(self.names) == 1
        start = pd.DatetimeIndex(self.times.tz_localize(None)[:1], freq=self.freq).to_period()[0]
        return SampleForecast(
            self.samples[:, :, 0] if one else self.samples, start, str(self.names[0]) if one else None
        )

    def align(self, actual: Any) -> np.ndarray:
        """What came, at the places of the forecast: (H, D), NaN where it is not known.

        Args:
            actual: a frame of time x series, which may hold more rows and columns, a long frame with unique_id, ds and y, a
                Series (for one series), or an array (H, D).

        Raises:
            UserError: if a series is missing, time zones do not fit, or nothing is known at the times of the forecast.
        """
        shape = (self.prediction_length, len(self.names))
        if isinstance(actual, pd.Series) and shape[1] == 1:
            actual = actual.to_frame().set_axis(list(self.names), axis=1)
        if isinstance(actual, pd.DataFrame):
            return look_up(observed(actual, self.names, self.tz, "actual"), self.names, self._grid(), "actual")
        values = np.asarray(actual, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 and shape[1] == 1 else values
        if values.shape != shape:
            raise UserError(f"actual: shape {values.shape}; the forecast has (steps, series) = {shape}")
        return values

    def plot(
        self,
        series: Hashable | Iterable[Hashable] | None = None,
        levels: Sequence[float] = (50, 80, 95),
        actual: Any = None,
        path: str | Path | None = None,
        history: int = 0,
    ) -> Figure:
        """A fan chart for each series: history, median, central intervals.

        Args:
            series: a name or names; up to nine pictures by default, of a joint forecast with the sum of all series among them.
            levels: of the intervals, per cent.
            actual: what came; see `align`.
            path: of a PNG to write.
            history: rows before the forecast that are drawn; 0 for three times the steps of the forecast.
        """
        from diffusionkit.timeseries import plots

        some = self if series is None else self.select(series)
        total = None if series is None else False
        return plots.forecasts(some, path, levels=levels, actual=actual, history=history, total=total)

    def save(self, path: str | Path) -> Path:
        """Saves everything in one .npz of plain arrays; `load` gives it back, names and time zones as they were.

        Raises:
            UserError: for another ending, names that are not text, numbers, time stamps or tuples of them, and a place that
                cannot be written.
        """
        from diffusionkit.timeseries import saved

        return saved.write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Forecast:
        """A forecast that `save` left.

        Raises:
            UserError: if there is none, or one of a later version.
        """
        from diffusionkit.timeseries import saved

        return saved.read(path)

    def __len__(self) -> int:
        """Steps, H."""
        return self.prediction_length

    def words(self) -> str:
        """How many paths of how many steps: "100 joint paths of 30 steps (B)"."""
        kind = "joint path" if self.joint and len(self.names) > 1 else "path"
        return f"{counted(self.num_samples, kind)} of {counted(len(self), 'step')} ({self.freq})"

    def __repr__(self) -> str:
        of = f"of {self.names[0]!r}" if len(self.names) == 1 else f"of {len(self.names):,} series"
        span = f"{self.times[0]} to {self.times[-1]}" if self.common else "each series from its own end"
        return f"<Forecast {of}: {self.words()}, {span}>"

    def _repr_html_(self) -> str:
        import html

        few = self.select(list(self.names[:4]))
        table = few.to_frame(levels=[80])
        rows = f"<p>{html.escape(repr(self)[1:-1])}; mean and 80 % interval:</p>"
        return rows + table.to_html(max_rows=8, float_format=lambda value: f"{value:.4g}", border=0)

    def _place(self, name: Hashable) -> int:
        try:
            return self.names.index(name)
        except ValueError:
            raise UserError(f"forecast: there is no series {name!r}; there are {listed(self.names)}") from None

    def _rows(self) -> pd.Index:
        if isinstance(self.times, pd.DatetimeIndex):
            return self.times.rename(TIME)
        return pd.RangeIndex(1, self.prediction_length + 1, name="step")

    def _frame(self, values: np.ndarray) -> pd.DataFrame:
        return pd.DataFrame(values, index=self._rows(), columns=list(self.names))

    def _grid(self) -> np.ndarray:
        """(H, D) time stamps; UTC where there is a time zone."""
        if isinstance(self.times, pd.DatetimeIndex):
            return np.repeat(utc(self.times)[:, None], len(self.names), 1)
        return self.times

    def ids(self) -> pd.Index:
        """(D H,) the series of each row of a long table."""
        return pd.Index(self.names, tupleize_cols=False).repeat(self.prediction_length)

    def stamps(self) -> pd.DatetimeIndex:
        """(D H,) the time of each row of a long table."""
        return zoned(self._grid().T.ravel(), self.tz)


def ends(levels: Iterable[float]) -> list[float]:
    """Where the central intervals of these levels (per cent) begin and end, as quantiles: low, high, low, high, ...

    Raises:
        UserError: for a level that is not over 1 and under 100.
    """
    for level in levels:
        if not 1 < level < 100:
            raise UserError(f"level {level!r}: levels are per cent, over 1 and under 100, such as 80")
    return [(100 + side * level) / 200 for level in levels for side in (-1, 1)]


def counted(count: int, what: str) -> str:
    """A number and what it counts, in the plural where there are more: 1 step, 1,000 steps."""
    return f"{count:,} {what}{'s' * (count != 1)}"
