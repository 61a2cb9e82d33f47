"""Writers of sampled paths: all or nothing and, but for pictures and .npz, in memory that does not grow with the paths."""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.timeseries import saved
from diffusionkit.timeseries.forecast import Forecast
from diffusionkit.timeseries.tables import long_paths
from diffusionkit.writer import Writer

CELLS = 500_000  # values that are made a table of at once


class Source(Protocol):
    """What a writer asks of a codec; the meaning is that of the attributes of `Forecast`."""

    names: tuple[Any, ...]
    freq: str
    joint: bool
    tz: Any

    def times(self, horizon: int) -> pd.DatetimeIndex | np.ndarray: ...

    def history(self) -> pd.DataFrame | None: ...


class PathWriter(Writer):
    """Takes chunks of paths."""

    codec: Source

    def write(self, x: Tensor | np.ndarray) -> None:
        """Adds paths (n, H, D), in the units of the data; all chunks have the same H."""
        self.add(np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x, dtype=np.float64))

    def _forecast(self, samples: np.ndarray, history: pd.DataFrame | None = None) -> Forecast:
        source = self.codec
        times = source.times(samples.shape[1])
        return Forecast(samples, source.names, times, source.freq, history, source.joint, source.tz)


class LongWriter(PathWriter):
    """Tables of unique_id, ds, sample_id and y; the numbers of the paths go on from chunk to chunk."""

    def _open(self) -> None:
        super()._open()
        self.rows: tuple[pd.Index, pd.DatetimeIndex] | None = None  # of one path
        one = self._forecast(np.zeros((1, 1, len(self.codec.names))))
        self._start(long_paths(one.samples, one.ids(), one.stamps()))

    def _add(self, chunk: np.ndarray) -> None:
        if not len(chunk):
            return
        if self.rows is None:
            one = self._forecast(chunk[:1])
            self.rows = one.ids(), one.stamps()
        step = max(CELLS // len(self.rows[0]), 1)
        for first in range(0, len(chunk), step):
            self._append(long_paths(chunk[first : first + step], *self.rows, first=self.count + first))

    def _start(self, example: pd.DataFrame) -> None:
        """Begins the file; the example has a row for each series."""
        raise NotImplementedError

    def _append(self, frame: pd.DataFrame) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        self._close()
        super()._finish()

    def _discard(self) -> None:
        with suppress(
            AttributeError, OSError, ValueError
        ):  # not opened, or the disk is full: the file goes all the same
            self._close()
        super()._discard()


class TextWriter(LongWriter):
    """Comma-separated text, compressed (without a time stamp) if the name ends in .gz."""

    def _start(self, example: pd.DataFrame) -> None:
        self.raw = open(self.part, "wb")
        packed = self.path.name.lower().endswith(".gz")
        file = gzip.GzipFile("", "wb", 6, self.raw, mtime=0) if packed else self.raw
        self.file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        example[:0].to_csv(self.file, index=False, lineterminator="\n")

    def _append(self, frame: pd.DataFrame) -> None:
        frame.to_csv(self.file, index=False, header=False, lineterminator="\n")

    def _close(self) -> None:
        self.file.close()
        self.raw.close()


class ParquetWriter(LongWriter):
    """Parquet, a row group for each table."""

    def _start(self, example: pd.DataFrame) -> None:
        try:
            self.schema = pa.Schema.from_pandas(example, preserve_index=False)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise UserError(f"{self.path}: parquet cannot hold names of series of several types; write .csv") from error
        self.file = parquet.ParquetWriter(self.part, self.schema, compression="zstd")

    def _append(self, frame: pd.DataFrame) -> None:
        self.file.write_table(pa.Table.from_pandas(frame, schema=self.schema, preserve_index=False))

    def _close(self) -> None:
        self.file.close()


class WholeWriter(PathWriter):
    """Gathers all paths: a picture (.png), or a forecast that `Forecast.load` reads (.npz)."""

    def _open(self) -> None:
        super()._open()
        self.chunks: list[np.ndarray] = []
        self.part.touch()  # finds out now whether the place can be written to

    def _add(self, chunk: np.ndarray) -> None:
        self.chunks.append(chunk)

    def _finish(self) -> None:
        forecast = self._forecast(np.concatenate(self.chunks), self.codec.history())
        if self.path.suffix.lower() == ".png":
            forecast.plot(path=self.part)
        else:
            saved.pack(forecast, self.part)
        super()._finish()


WRITERS: dict[str, type[PathWriter]] = {
    ".csv": TextWriter, ".csv.gz": TextWriter, ".parquet": ParquetWriter, ".png": WholeWriter, ".npz": WholeWriter,
}  # fmt: skip


def open_writer(codec: Source, path: str | Path, n: int) -> PathWriter:
    """The writer that the ending of `path` asks for: .csv, .csv.gz and .parquet hold a row for each value, .png is a fan chart
    and .npz a forecast.

    Raises:
        UserError: if nothing is written under this ending, the place is taken by a folder, or a fan chart is asked of no paths.
    """
    target = Path(path)
    ending = next((ending for ending in WRITERS if target.name.lower().endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path}: unknown ending {target.suffix!r}; known are {', '.join(WRITERS)}")
    if target.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    if n < 1 and WRITERS[ending] is WholeWriter:
        raise UserError(f"{path}: needs at least one path")
    return WRITERS[ending](codec, target, n)
