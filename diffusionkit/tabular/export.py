"""Writers of sampled tables: all or nothing, and in memory that does not grow with the rows."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from pyarrow import parquet

from diffusionkit.core.state import State
from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.columns import Numbers
from diffusionkit.writer import Writer

Change = Callable[[pd.DataFrame], pd.DataFrame]


class TableWriter(Writer):
    """Takes chunks of states of a `TableCodec`; a `change` is done to each when it is decoded."""

    def __init__(self, codec: TableCodec, path: Path, n: int, change: Change | None = None) -> None:
        super().__init__(codec, path, n)
        self.change = change

    def write(self, x: State) -> None:
        """Adds a chunk of states; the running numbers of the rows go on from chunk to chunk."""
        self.add(self.codec.decode(x, self.count, self.change))

    def _finish(self) -> None:
        self._close()
        super()._finish()

    def _discard(self) -> None:
        with suppress(
            AttributeError, OSError, ValueError
        ):  # not opened, or the disk is full: the file goes all the same
            self._close()
        super()._discard()

    def _close(self) -> None:
        raise NotImplementedError


class TextWriter(TableWriter):
    """Comma- or tab-separated text, compressed (without a time stamp) if the name ends in .gz."""

    def _open(self) -> None:
        super()._open()
        name = self.path.name.lower()
        self.separator = "\t" if name.removesuffix(".gz").endswith(".tsv") else ","
        self.raw = open(self.part, "wb")
        packed = gzip.GzipFile("", "wb", 6, self.raw, mtime=0) if name.endswith(".gz") else self.raw
        self.file = io.TextIOWrapper(packed, encoding="utf-8", newline="")
        self.units = _units(self.codec)

    def _add(self, frame: pd.DataFrame) -> None:
        for name, unit in self.units.items():
            frame[name] = _moments(frame[name], unit)
        frame.to_csv(self.file, sep=self.separator, index=False, header=self.count == 0, lineterminator="\n")

    def _close(self) -> None:
        self.file.close()
        self.raw.close()


class ParquetWriter(TableWriter):
    """Parquet, one row group for each chunk; pandas reads the dtypes back."""

    def _open(self) -> None:
        super()._open()
        example = _example(self.codec)
        for name in example:
            try:
                example[[name]].to_parquet(io.BytesIO(), engine="pyarrow", index=False)
            except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as error:
                said = f"parquet cannot hold column {name!r} of dtype {example[name].dtype}; write .csv"
                raise UserError(f"{self.path}: {said}") from error
        self.schema = pa.Schema.from_pandas(example, preserve_index=False)
        self.file = parquet.ParquetWriter(self.part, self.schema, compression="zstd")

    def _add(self, frame: pd.DataFrame) -> None:
        named = frame.set_axis([str(name) for name in frame.columns], axis=1)  # parquet knows no other names
        table = pa.Table.from_pandas(named, schema=self.schema, preserve_index=False)
        self.file.write_table(table, row_group_size=max(len(frame), 1))

    def _close(self) -> None:
        self.file.close()


WRITERS: dict[str, type[TableWriter]] = {
    ".csv": TextWriter, ".csv.gz": TextWriter, ".tsv": TextWriter, ".tsv.gz": TextWriter, ".parquet": ParquetWriter,
}  # fmt: skip


def open_writer(codec: TableCodec, path: str | Path, n: int, change: Change | None = None) -> TableWriter:
    """The writer that the ending of `path` asks for; `change` is done to each chunk when it is decoded.

    Raises:
        UserError: if nothing is written under this ending, or the place is taken by a folder.
    """
    target = Path(path)
    ending = next((ending for ending in WRITERS if target.name.lower().endswith(ending)), None)
    if ending is None:
        raise UserError(f"{path}: unknown ending {target.suffix!r}; known are {', '.join(WRITERS)}")
    if target.is_dir():
        raise UserError(f"{path}: is a folder; name a file")
    return WRITERS[ending](codec, target, n, change)


def _example(codec: TableCodec) -> pd.DataFrame:
    """Rows without missing values but in columns where all are missing, so that each column shows its type."""
    state = {
        name: torch.zeros(shape, dtype=torch.long if name == "cat" else None) for name, shape in codec.like(100).items()
    }
    return codec.decode(state)


def _units(codec: TableCodec) -> dict[str | int, str]:
    """The resolution in which dates and times without a time zone are written: the same for all chunks."""
    found = {}
    for coder in codec.coders:
        column = coder.column
        if isinstance(coder, Numbers) and isinstance(column.pandas_dtype(), np.dtype) and column.family == "datetime":
            moments = coder.ranks.values.view(f"M8[{column.unit}]")
            exact = (unit for unit in ("D", "s", "ms", "us") if (moments.astype(f"M8[{unit}]") == moments).all())
            found[column.name] = next(exact, "ns")
    return found


def _moments(series: pd.Series, unit: str) -> pd.Series:
    text = pd.Series(np.datetime_as_string(series.to_numpy().astype(f"M8[{unit}]")).astype(object), dtype=object)
    return text.str.replace("T", " ").mask(series.isna())
