"""The sets of Salinas et al. 2019 ("High-dimensional multivariate forecasting with low-rank Gaussian copula processes",
NeurIPS) as GluonTS hands them out: JSON lines of univariate entries, the test windows one after the other.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from diffusionkit.errors import UserError
from diffusionkit.timeseries import frames
from diffusionkit.timeseries.panel import Panel
from diffusionkit.timeseries.sources import SeriesData, data_folder, reading


@dataclass(frozen=True)
class _Shape:
    """What a set must look like: its folder, series, frequency, training steps, horizon and test windows."""

    folder: str
    size: int
    freq: str
    steps: int
    horizon: int
    windows: int


SHAPES = {
    "exchange_rate": _Shape("exchange_rate_nips", 8, "B", 6071, 30, 5),
    "solar": _Shape("solar_nips", 137, "h", 7009, 24, 7),
    "electricity": _Shape("electricity_nips", 370, "h", 5833, 24, 7),
    "traffic": _Shape("traffic_nips", 963, "h", 4001, 24, 7),
    "taxi": _Shape("taxi_30min", 1214, "30min", 1488, 24, 56),
    "wikipedia": _Shape("wiki2000_nips", 2000, "D", 792, 30, 5),
}


class Nips(SeriesData):
    """A multivariate set of GluonTS, from the folder or the .tar.gz that one has or that GluonTS has downloaded.

    The shape is checked against the published one. The horizon and the windows are those of the published tables.

    Args:
        set: exchange_rate, solar, electricity, traffic, taxi or wikipedia.
        path: the folder with `train` and `test`, or the archive; if not given, the folder of GluonTS's name in
            `timeseries` of DIFFUSIONKIT_DATA or in ~/.gluonts/datasets.
        context_length: steps shown before the horizon; 0 chooses from the horizon and the season.
        codec: how values become what the network sees; see `SeriesCodec`.
    """

    def __init__(
        self,
        set: str = "exchange_rate",
        path: str = "",
        context_length: int = 0,
        codec: dict[str, Any] = {},  # noqa: B006
    ) -> None:
        if set not in SHAPES:
            raise ValueError(f"set must be one of {', '.join(SHAPES)}, not {set!r}")
        self.set, self.path, self.shape = set, Path(path).expanduser() if path else None, SHAPES[set]
        super().__init__(self.shape.horizon, context_length, self.shape.windows, joint=True, codec=codec)

    def panel(self) -> Panel:
        return self.load()["test"]

    def load(self) -> dict[str, Panel]:
        """Reads the published training part and the series of the last test window.

        The test of taxi is another year than its training part, so neither need begin with the other.

        Raises:
            UserError: if the files are not there, or do not have the published shape.
        """
        path = self._found()
        with reading(path):
            return {"train": self._part(path, "train"), "test": self._part(path, "test")}

    def _found(self) -> Path:
        if self.path is not None:
            if not self.path.exists():
                raise UserError(
                    f"{self.path}: there is no such folder or archive; data.path must name that of {self.shape.folder}"
                )
            return self.path
        places = [Path("~/.gluonts/datasets").expanduser()]
        try:
            places.insert(0, data_folder(None, self.shape.folder))
        except UserError:
            pass
        for place in places:
            for name in (self.shape.folder, f"{self.shape.folder}.tar.gz"):
                if (place / name).exists():
                    return place / name
        raise UserError(
            f"data.path is missing: it must name the folder or the .tar.gz of GluonTS's {self.shape.folder}, which is not in "
            f"{' or '.join(map(str, places))}"
        )

    def _part(self, path: Path, part: str) -> Panel:
        size, windows = self.shape.size, 1 if part == "train" else self.windows
        count, firsts, last = _lines(path, part, size)
        if count != windows * size:
            said = f"{size} series" + ("" if windows == 1 else f" in each of {windows} windows")
            raise UserError(f"{part} holds {count} entries, and {self.shape.folder} has {windows * size}: {said}")
        entries = [_entry(line, part) for line in last]
        rows, starts = {len(entry["target"]) for entry in entries}, {entry["start"] for entry in entries}
        if len(rows) > 1 or len(starts) > 1:
            raise UserError(f"{part}: the series must begin together and be of one length")
        found = [len(_entry(line, part)["target"]) for line in firsts]
        expected = [self.shape.steps] if part == "train" else [found[-1] - self.test + step for step in self._further]
        if found != expected:
            raise UserError(f"{part}: the series have {found} steps, and those of {self.shape.folder} have {expected}")
        whole = {"start": starts.pop(), "target": [entry["target"] for entry in entries]}
        return frames.read([whole], freq=self.shape.freq, joint=True)

    @property
    def _further(self) -> range:
        """How much longer than the history of the first test window the series of each are."""
        return range(self.shape.horizon, self.test + 1, self.shape.horizon)


def _lines(path: Path, part: str, size: int) -> tuple[int, list[bytes], list[bytes]]:
    """How many JSON lines a part has, the first of each so many, and the last so many; the others would fill the memory."""
    count, firsts, last = 0, [], deque(maxlen=size)
    for file in _files(path, part):
        for line in filter(bytes.strip, file):
            if count % size == 0:
                firsts.append(line)
            last.append(line)
            count += 1
    if not count:
        raise UserError(f"there are no JSON lines in {part}/*.json or {part}/*.json.gz")
    return count, firsts, list(last)


def _entry(line: bytes, part: str) -> dict[str, Any]:
    entry = json.loads(line)
    if not isinstance(entry, dict) or not isinstance(entry.get("target"), list) or "start" not in entry:
        raise UserError(f"{part}: every line must hold a GluonTS entry with start and target, unlike {line[:60]!r}")
    return entry


def _files(path: Path, part: str) -> Iterator[BinaryIO]:
    if path.is_dir():
        for file in sorted((path / part).glob("*.json*")):
            with file.open("rb") as stream:
                yield _unpacked(stream, file.name)
        return
    with tarfile.open(path) as archive:
        wanted = [
            m
            for m in archive.getmembers()
            if m.isfile() and re.search(rf"(^|/){part}/[^/.][^/]*\.json(\.gz)?$", m.name)
        ]
        for member in sorted(wanted, key=lambda member: member.name):
            yield _unpacked(io.BytesIO(archive.extractfile(member).read()), member.name)


def _unpacked(stream: BinaryIO, name: str) -> BinaryIO:
    return gzip.open(stream) if name.endswith(".gz") else stream


__all__ = ["SHAPES", "Nips"]
