"""What the domain asks of data, and the files they lie in."""

from __future__ import annotations

import gzip
import os
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries.panel import Panel

ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class SeriesData(ABC):
    """Series, and the rolling test in which a model of them has to show itself. Making one reads nothing; `load` does.

    The test windows lie at the end: the first begins `test` rows before it, each further one `stride` rows later, and each
    may use all rows before it.

    Args:
        prediction_length: steps to be foretold.
        context_length: steps shown before them; 0 chooses from the horizon and the season.
        windows: how many windows the rolling test has.
        stride: steps from one of them to the next; 0 means the prediction length.
        joint: whether one path is drawn for all series together; by default where they all end together.
        codec: how values become what the network sees; see `SeriesCodec`.
    """

    def __init__(
        self,
        prediction_length: int = 24,
        context_length: int = 0,
        windows: int = 5,
        stride: int = 0,
        joint: bool | None = None,
        codec: dict[str, Any] = {},  # noqa: B006  # never changed; a recipe shows it as {}
    ) -> None:
        for name, value, least in (
            ("prediction_length", prediction_length, 1), ("windows", windows, 1),
            ("context_length", context_length, 0), ("stride", stride, 0),
        ):  # fmt: skip
            if value < least:
                raise ValueError(f"{name} must be {least} or more, not {value}")
        self.prediction_length, self.context_length, self.windows = prediction_length, context_length, windows
        self.stride, self.joint, self.codec = stride or prediction_length, joint, dict(codec)

    @property
    def test(self) -> int:
        """Rows at the end that the test windows cover."""
        return (self.windows - 1) * self.stride + max(self.stride, self.prediction_length)

    def origins(self, rows: int) -> NDArray[np.int64]:
        """How many of so many rows each test window may look back on, (windows,)."""
        return rows - self.test + self.stride * np.arange(self.windows)

    @abstractmethod
    def panel(self) -> Panel:
        """Reads everything up to the end of the last test window."""

    def load(self) -> dict[str, Panel]:
        """Reads the series: {"train": without the rows of the test windows, "test": all of them}.

        Raises:
            UserError: if they cannot be read, or a series is too short for the test.
        """
        whole = self.panel()
        short = [block for block in whole.blocks if len(block) <= self.test]
        if short:
            raise UserError(
                f"series {short[0].names[0]!r} has {len(short[0])} rows, and {self.windows} test windows of "
                f"{self.prediction_length} steps take the last {self.test}; lower data.windows or data.prediction_length"
            )
        return {"train": whole.split(rows=self.test)[0], "test": whole}


def ending(path: Path) -> str:
    """The known ending of a file's name.

    Raises:
        UserError: if it has none.
    """
    found = next((known for known in ENDINGS if path.name.lower().endswith(known)), None)
    if found is None:
        raise UserError(f"{path}: unknown ending {path.suffix!r}; known are {', '.join(ENDINGS)}")
    return found


def read_table(path: Path, key: str = "data.path") -> pd.DataFrame:
    """A .csv, .tsv (either also .gz) or .parquet file as a frame.

    Raises:
        UserError: if there is none, or it cannot be read.
    """
    kind = ending(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; {key} must name one that ends in {', '.join(ENDINGS)}")
    with reading(path):
        if kind == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, sep="\t" if kind.startswith(".tsv") else ",", low_memory=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what readers complain of into a sentence that names the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (OSError, EOFError, ValueError, pa.ArrowException, gzip.BadGzipFile, tarfile.TarError) as error:
        raise UserError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error


def data_folder(root: str | None, of: str) -> Path:
    """The folder `timeseries` in a given one or in that of DIFFUSIONKIT_DATA.

    Raises:
        UserError: if neither is set.
    """
    root = root or os.environ.get("DIFFUSIONKIT_DATA")
    if not root:
        raise UserError(f"data.root is missing: set it, or DIFFUSIONKIT_DATA, to the folder of timeseries/{of}")
    return Path(root).expanduser() / "timeseries"


__all__ = ["ENDINGS", "SeriesData", "data_folder", "ending", "read_table", "reading"]
