"""Tables for recipes. Making one reads nothing; `load` does.

A new one is a class with `columns`, `target` and `load`, and one line in `TabularDomain.data`.
"""

from __future__ import annotations

import gzip
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import parquet

from diffusionkit.errors import UserError
from diffusionkit.tabular.schema import Kind

PARTS = ("train", "val", "test")
CODEC = ("bins", "between", "whole", "residual")
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")


class TableData(ABC):
    """What the domain asks of a table.

    Attributes:
        columns: kinds that are not inferred.
        target: the column to be predicted, if there is one.
        constraints: what holds in every row, as `constraints.parse` reads it.
        codec: arguments of `TableCodec.fit`, such as {"bins": 128}.
    """

    columns: Mapping[str, Kind]
    target: str | None
    constraints: Sequence[str] = ()
    codec: Mapping[str, Any] = {}

    @abstractmethod
    def load(self) -> dict[str, pd.DataFrame]:
        """Reads everything: {"train": ..., "test": ...}, with "val" where a part is held out to choose by."""


class Rand(TableData):
    """The RAND health insurance survey bundled in statsmodels: 20,190 rows of 10 columns, visits to doctors and their causes.

    Args:
        test: share of the rows that is held out.
        seed: of the split.
        codec: how columns are coded; see `TableCodec.fit`.
    """

    target = "mdvis"

    def __init__(self, test: float = 0.1, seed: int = 0, codec: dict[str, Any] = {}) -> None:  # noqa: B006
        self.test, self.seed, self.columns, self.codec = _share(test), seed, {}, _options(codec)

    def load(self) -> dict[str, pd.DataFrame]:
        from statsmodels.datasets import randhie

        return split(randhie.load_pandas().data, self.test, self.seed)


class Csv(TableData):
    """A file of one's own: .csv, .tsv (either also .gz) or .parquet.

    Args:
        path: the file.
        columns: kinds of columns that would be taken for something else, such as {zip: categorical}.
        drop: columns to leave out.
        target: the column to be foretold from the others, if there is one.
        test: share of the rows that is held out at random; not used with `split`.
        seed: of this draw.
        split: a column that says of each row whether it belongs to train, val or test.
        missing: further texts that mean a missing value, such as "?".
        constraints: what holds in every row: "low <= high", "a + b = total", "one of a, b, c".
        codec: how columns are coded; see `TableCodec.fit`.
    """

    def __init__(
        self,
        path: str = "",
        columns: dict[str, Kind] = {},  # noqa: B006  # never changed; a recipe shows it as {}
        drop: list[str] = [],  # noqa: B006
        target: str = "",
        test: float = 0.1,
        seed: int = 0,
        split: str = "",
        missing: list[str] = [],  # noqa: B006
        constraints: list[str] = [],  # noqa: B006
        codec: dict[str, Any] = {},  # noqa: B006
    ) -> None:
        self.constraints, self.codec = list(constraints), _options(codec)
        self.path, self.columns, self.drop = Path(path).expanduser() if path else None, dict(columns), list(drop)
        self.target, self.test, self.seed = target or None, _share(test), seed
        self.split, self.missing = split or None, list(missing)

    def load(self) -> dict[str, pd.DataFrame]:
        self._check()
        df = _read(self.path, self.columns, self.missing).drop(columns=self.drop)
        if not len(df):
            raise UserError(f"{self.path}: holds no rows")
        if self.split is None:
            return split(df, self.test, self.seed)
        return parts(df, self.split, str(self.path))

    def _check(self) -> None:
        """Refuses what the head of the file shows to be impossible."""
        if self.path is None:
            raise UserError(f"data.path is missing; it must name a file that ends in {', '.join(ENDINGS)}")
        if not self.path.is_file():
            raise UserError(
                f"{self.path}: there is no such file; data.path must name one that ends in {', '.join(ENDINGS)}"
            )
        names = _names(self.path)
        named = {
            "data.columns": self.columns,
            "data.drop": self.drop,
            "data.target": [self.target],
            "data.split": [self.split],
        }
        for key, wanted in named.items():
            for name in wanted:
                if name is not None and name not in names:
                    raise UserError(f"{key}: {self.path} has no column {name!r}; it has {', '.join(map(repr, names))}")
        for key in ("data.columns", "data.target", "data.split"):
            for name in named[key]:
                if name in self.drop:
                    raise UserError(f"{key}: column {name!r} is also in data.drop")


class Named(TableData):
    """A published table with its published split, as `tabular/TABLE.parquet` with a column `split`, and `tabular/columns.json`.

    Args:
        table: its name, such as adult, shoppers, default, churn2, diabetes, california, insurance or abalone.
        root: folder that holds `tabular`; by default that of DIFFUSIONKIT_DATA.
        missing: texts that mean a missing value; "?" in adult is a level of its own unless it is named here.
        codec: how columns are coded; see `TableCodec.fit`.
    """

    def __init__(
        self,
        table: str = "adult",
        root: str | None = None,
        missing: list[str] = [],  # noqa: B006
        codec: dict[str, Any] = {},  # noqa: B006
    ) -> None:
        self.table, self.root, self.missing, self.codec = table, root, list(missing), _options(codec)

    @property
    def columns(self) -> dict[str, Kind]:
        """Codes written as numbers are levels, and so is the target of a classification."""
        levels = [*self._entry["categorical"], *([] if self._entry["task"] == "regression" else [self.target])]
        return dict.fromkeys(levels, "categorical")

    @property
    def target(self) -> str:
        """The column to be foretold."""
        return self._entry["target"]

    @property
    def task(self) -> str:
        """What to foretell of it: binclass, multiclass or regression."""
        return self._entry["task"]

    def load(self) -> dict[str, pd.DataFrame]:
        path = self._folder / f"{self.table}.parquet"
        if not self._entry or not path.is_file():
            raise UserError(f"{path}: there is no such file; it belongs beside columns.json")
        return parts(_read(path, {}, self.missing), "split", str(path))

    @property
    def _folder(self) -> Path:
        root = self.root or os.environ.get("DIFFUSIONKIT_DATA")
        if not root:
            raise UserError(
                f"data.root is missing: set it, or DIFFUSIONKIT_DATA, to the folder of tabular/{self.table}.parquet"
            )
        return Path(root).expanduser() / "tabular"

    @cached_property
    def _entry(self) -> dict[str, Any]:
        path = self._folder / "columns.json"
        try:
            tables = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: cannot be read ({error}); it says what the columns of the tables are") from error
        if self.table not in tables:
            raise UserError(f"data.table: there is no {self.table!r} in {path}; there are {', '.join(sorted(tables))}")
        return tables[self.table]


class Frame(TableData):
    """A DataFrame in memory, which no recipe can name: what `TabularDiffusion.fit` trains on.

    Args:
        codec: how columns are coded; see `TableCodec.fit`.
    """

    target = None

    def __init__(self, codec: dict[str, Any] = {}) -> None:  # noqa: B006
        self.columns, self.codec = {}, _options(codec)

    def load(self) -> dict[str, pd.DataFrame]:
        raise UserError(
            "data: this model was fitted on a DataFrame in memory; compare its rows in Python with quality_report(df, fake)"
        )


def _options(codec: Mapping[str, Any]) -> dict[str, Any]:
    for name in codec:
        if name not in CODEC:
            raise ValueError(f"codec has no option {name!r}; its options are {', '.join(CODEC)}")
    return dict(codec)


def split(df: pd.DataFrame, test: float, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Holds out a share of the rows, drawn with a seed, the order kept; at least one row in either part.

    Raises:
        UserError: if there are fewer than two rows.
    """
    if len(df) < 2:
        raise UserError(f"the table has {len(df)} rows, and at least 2 are needed to hold some out")
    out = np.zeros(len(df), bool)
    chosen = np.random.default_rng(seed).permutation(len(df))
    out[chosen[: min(max(round(test * len(df)), 1), len(df) - 1)]] = True
    return {"train": df[~out].reset_index(drop=True), "test": df[out].reset_index(drop=True)}


def parts(df: pd.DataFrame, column: str, where: str) -> dict[str, pd.DataFrame]:
    """The rows by what a column says, train, val or test, without this column.

    Raises:
        UserError: if it says something else, or train of no row.
    """
    said = df[column]
    others = said[~said.isin(PARTS)]
    if len(others):
        raise UserError(f"{where}: column {column!r} must say train, val or test of each row, not {others.iloc[0]!r}")
    found = {part: df[said == part].drop(columns=column).reset_index(drop=True) for part in PARTS}
    if not len(found["train"]):
        raise UserError(f"{where}: column {column!r} says train of no row")
    return {part: rows for part, rows in found.items() if len(rows)}


def _share(test: float) -> float:
    if not 0 < test < 1:
        raise ValueError(f"test must lie between 0 and 1, not {test:g}")
    return test


def _ending(path: Path) -> str:
    found = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if found is None:
        raise UserError(f"{path}: unknown ending {path.suffix!r}; known are {', '.join(ENDINGS)}")
    return found


def _names(path: Path) -> list[str]:
    """The names of the columns, from the head of the file."""
    ending = _ending(path)
    if ending != ".parquet":
        with _reading(path):
            return pd.read_csv(path, sep="\t" if ending.startswith(".tsv") else ",", nrows=0).columns.tolist()
    with _reading(path):
        names, index = parquet.read_schema(path), ()
        described = json.loads((names.metadata or {}).get(b"pandas", b"{}"))
        index = [entry for entry in described.get("index_columns", []) if isinstance(entry, str)]
        return [name for name in names.names if name not in index]


def _read(path: Path, columns: dict[str, Kind], missing: Iterable[str]) -> pd.DataFrame:
    """The file as a frame; texts of levels that numbers would change, such as 01234, stay texts."""
    ending, missing = _ending(path), list(missing)
    with _reading(path):
        if ending == ".parquet":
            df = pd.read_parquet(path).reset_index(drop=True)
            text = [name for name in df if not pd.api.types.is_numeric_dtype(df[name].dtype)]
            df = df.assign(**{name: df[name].mask(df[name].isin(missing)) for name in text}) if missing else df
        else:
            levels = [name for name, kind in columns.items() if kind in ("categorical", "ordinal", "identifier")]
            separator = "\t" if ending.startswith(".tsv") else ","
            df = pd.read_csv(path, sep=separator, na_values=missing, dtype=dict.fromkeys(levels, str), low_memory=False)
            df = df.assign(**{name: _number_or_text(df[name]) for name in levels})
    return df.assign(**{name: _moments(df[name], path) for name, kind in columns.items() if kind == "datetime"})


def _number_or_text(texts: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(texts, errors="coerce")
    return numbers if numbers.astype(str).astype(object).equals(texts.astype(object)) else texts


def _moments(series: pd.Series, path: Path) -> pd.Series:
    if series.dtype.kind != "O":
        return series
    try:
        return pd.to_datetime(series, format="ISO8601")
    except (ValueError, TypeError):
        pass
    try:
        return pd.to_datetime(series, format="mixed")
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: column {series.name!r} is no datetime: {error}") from error


class _reading:
    """Turns what the readers complain of into a sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if isinstance(error, (OSError, EOFError, ValueError, pa.ArrowException, gzip.BadGzipFile)):
            raise UserError(f"{self.path}: cannot be read: {' '.join(str(error).split())}") from error


__all__ = ["Csv", "Frame", "Named", "Rand", "TableData", "parts", "split"]
