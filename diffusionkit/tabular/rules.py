"""Rules that hold in every row: columns are replaced, before they are coded, by others whose every value obeys them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular import frames
from diffusionkit.tabular.exact import Array, Label, Values, dressed, look, plain, replaced, rounded, up, zoned

_NANOSECONDS = {"D": 86_400_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass
class Constraint(ABC):
    """A rule for some columns, and the two ways between frames that obey it and frames that are modelled.

    `kept` is what `fit` found, in plain values.
    """

    kept: dict[str, Any] = field(default_factory=dict, kw_only=True, repr=False, compare=False)

    def __post_init__(self) -> None:
        for first, second in pairwise(sorted(self.columns, key=str)):
            if first == second:
                raise UserError(f"constraint {self}: column {first!r} is named twice")

    @property
    @abstractmethod
    def columns(self) -> list[Label]:
        """The columns that it speaks of."""

    @property
    @abstractmethod
    def determined(self) -> list[Label]:
        """Those that the model sees in another form or not at all; the others it sees as they are."""

    @abstractmethod
    def __str__(self) -> str:
        """The text that `parse` reads."""

    @abstractmethod
    def _obeys(self, df: pd.DataFrame) -> Array: ...

    @abstractmethod
    def _fit(self, df: pd.DataFrame) -> dict[str, Any]: ...

    @abstractmethod
    def forward(self, df: pd.DataFrame) -> pd.DataFrame:
        """The frame to be modelled, of one with the columns of the fitted one; the index stays."""

    @abstractmethod
    def _backward(self, df: pd.DataFrame) -> pd.DataFrame: ...

    def holds(self, df: pd.DataFrame) -> pd.Series:
        """Which rows obey, with the frame's index; a row does where a missing value leaves it open.

        Raises:
            UserError: if a column is not there or of the wrong sort.
        """
        for name in self.columns:
            if name not in df.columns:
                raise UserError(f"constraint {self}: there is no column {name!r}")
        return pd.Series(self._obeys(df), index=df.index, dtype=bool)

    def check(self, df: pd.DataFrame) -> None:
        """Sees that every row obeys.

        Raises:
            UserError: naming the constraint, how many rows break it and the first of them.
        """
        broken = ~self.holds(df).to_numpy()
        if broken.any():
            first = df.index[broken][0]
            raise UserError(
                f"constraint {self} does not hold in {broken.sum()} of {len(df)} rows, the first of which is {first!r}"
            )

    def fit(self, df: pd.DataFrame) -> Self:
        """Keeps what the ways need.

        Raises:
            UserError: if a row breaks the constraint, or the columns do not allow it.
        """
        self.check(df)
        self.kept = {"order": df.columns.tolist(), **self._fit(df)}
        return self

    def backward(self, df: pd.DataFrame) -> pd.DataFrame:
        """The frame of a modelled one: columns, order and dtypes of the one fitted, and no row that breaks the constraint."""
        made = self._backward(df)
        return made[[name for name in self.kept["order"] if name in made.columns]]

    def to_json(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"constraint": type(self).__name__, **asdict(self)}


@dataclass
class LessEqual(Constraint):
    """`low` is never above `high`: in the place of `high` the model sees how far it lies above `low`.

    Where `low` is missing it is how far it lies above the lowest `high`. What comes back stays within the range of `high` that
    was seen, unless `low` lies above it.

    Args:
        low: a column of numbers, dates or time spans.
        high: another one of the same sort.
    """

    low: Label
    high: Label

    @property
    def columns(self) -> list[Label]:
        return [self.low, self.high]

    @property
    def determined(self) -> list[Label]:
        return [self.high]

    def __str__(self) -> str:
        return f"{quoted(self.low)} <= {quoted(self.high)}"

    def _sort(self, df: pd.DataFrame) -> tuple[str, str | None]:
        """The family of both columns, and for dates and spans the finer of their resolutions."""
        families = {name: family_of(df[name], self, frames.NUMBERS) for name in self.columns}
        known = {name: of for name, of in families.items() if of != "none"}
        if len(set(known.values())) > 1:
            raise UserError(f"constraint {self}: one column holds {' and the other '.join(known.values())} values")
        of = next(iter(known.values()), "number")
        if of == "number":
            return of, None
        if len({zoned(df[name].dtype) for name in known}) > 1:
            raise UserError(f"constraint {self}: one column has a time zone and the other has none")
        return of, min((frames.unit(df[name]) for name in known), key=_NANOSECONDS.__getitem__)

    def _both(self, df: pd.DataFrame, of: str, unit: str | None) -> tuple[Values, Values]:
        return Values(df[self.low], of, unit), Values(df[self.high], of, unit)

    def _obeys(self, df: pd.DataFrame) -> Array:
        low, high = self._both(df, *self._sort(df))
        return ~(low.present & high.present) | (low.numbers <= high.numbers)

    def _fit(self, df: pd.DataFrame) -> dict[str, Any]:
        of, unit = self._sort(df)
        low, high = self._both(df, of, unit)
        if not high.present.any():
            return {"range": None}
        own = None if unit is None else frames.unit(df[self.high])
        digits, found = (low.digits, high.digits), high.numbers[high.present]
        return {
            "family": of,
            "unit": unit,
            "grain": 1 if unit is None else _NANOSECONDS[own] // _NANOSECONDS[unit],
            "range": [found.min().item(), found.max().item()],
            "decimals": [high.digits, None if None in digits else max(digits)],
            "look": look(df[self.high], self.high, of, own),
        }

    def forward(self, df: pd.DataFrame) -> pd.DataFrame:
        kept = self.kept
        if kept["range"] is None:
            return df
        low, high = self._both(df, kept["family"], kept["unit"])
        distance = high.numbers - np.where(low.present, low.numbers, kept["range"][0])
        if kept["unit"] is None:
            return replaced(df, {self.high: plain(rounded(distance, kept["decimals"][1]), high.present)})
        seconds, unit = self._span
        spans = pd.Series((distance * seconds).astype(np.int64).view(f"m8[{unit}]"))
        return replaced(df, {self.high: spans.where(high.present)})

    def _backward(self, df: pd.DataFrame) -> pd.DataFrame:
        kept = self.kept
        if kept["range"] is None:
            return df
        low = Values(df[self.low], kept["family"], kept["unit"])
        least, most = kept["range"]
        base = np.where(low.present, low.numbers, least)
        if kept["unit"] is None:
            distance, digits = Values(df[self.high], "number"), kept["decimals"][0]
            high = rounded(base + np.maximum(distance.numbers, 0), digits).clip(least, most)
            high = np.maximum(high, up(base, digits, kept["look"]["dtype"]))
        else:
            seconds, unit = self._span
            distance, grain = Values(df[self.high], "timedelta", unit), kept["grain"]
            high = (base + np.maximum(distance.numbers // seconds, 0)).clip(least, most) // grain
            high = np.maximum(high, -(-base // grain))
        return replaced(df, {self.high: dressed(high, distance.present, kept["look"])})

    @property
    def _span(self) -> tuple[int, str]:
        """How a time unit is written as a span: pandas has none of days."""
        return (86400, "s") if self.kept["unit"] == "D" else (1, self.kept["unit"])


@dataclass
class OneOf(Constraint):
    """Exactly one of several columns of 0 and 1, or of False and True, is set: the model sees which.

    Args:
        among: the columns; in a row either all of them are missing or none is.
    """

    among: list[Label]

    def __post_init__(self) -> None:
        self.among = list(self.among)
        super().__post_init__()
        if len(self.among) < 2:
            raise UserError(f"constraint {self}: at least two columns are needed")

    @property
    def columns(self) -> list[Label]:
        return self.among

    @property
    def determined(self) -> list[Label]:
        return self.among

    def __str__(self) -> str:
        return f"one of {', '.join(map(quoted, self.among))}"

    def _table(self, df: pd.DataFrame) -> Array:
        """(n, columns) the values, NaN where missing."""
        made = []
        for name in self.among:
            family_of(df[name], self, ("number", "boolean"))
            present = df[name].notna().to_numpy(bool)
            made.append(np.full(len(df), np.nan))
            made[-1][present] = df[name][present].astype(float).to_numpy()
        return np.stack(made, 1)

    def _obeys(self, df: pd.DataFrame) -> Array:
        table = self._table(df)
        one = np.isin(table, (0, 1)).all(1) & (table.sum(1) == 1)
        return one | np.isnan(table).all(1)

    def _fit(self, df: pd.DataFrame) -> dict[str, Any]:
        name = str(self)
        while name in df.columns:
            name += "_"
        levels = [str(label) for label in self.among]
        return {
            "name": name,
            "levels": levels if len(set(levels)) == len(levels) else [f"{i}: {text}" for i, text in enumerate(levels)],
            "looks": [look(df[one], one, frames.family(df[one], one), None) for one in self.among],
        }

    def forward(self, df: pd.DataFrame) -> pd.DataFrame:
        table = self._table(df)
        codes = np.where(np.isnan(table).any(1), -1, np.argmax(np.nan_to_num(table), 1))
        chosen = pd.Series(pd.Categorical.from_codes(codes, categories=self.kept["levels"]))
        made, name = replaced(df, {self.kept["name"]: chosen}), self.kept["name"]
        order = [name if label == self.among[0] else label for label in df.columns if label not in self.among[1:]]
        return made[order]

    def _backward(self, df: pd.DataFrame) -> pd.DataFrame:
        codes = pd.Categorical(df[self.kept["name"]], categories=self.kept["levels"]).codes
        made = {
            name: dressed(codes == i, codes >= 0, of)
            for i, (name, of) in enumerate(zip(self.among, self.kept["looks"], strict=True))
        }
        return replaced(df, made)


def quoted(label: Label) -> str:
    """A label as `parse` reads it."""
    text = str(label)
    plain = text == text.strip() and text and not any(c in text for c in " ,+=<>`")
    return text if plain and not _is_number(text) else f"`{text}`"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def family_of(series: pd.Series, constraint: Constraint, allowed: tuple[str, ...]) -> str:
    of = frames.family(series, series.name)
    if isinstance(series.dtype, pd.CategoricalDtype) or of not in (*allowed, "none"):
        wanted = {"number": "numbers", "boolean": "booleans", "datetime": "dates", "timedelta": "time spans"}
        said = ", ".join(wanted[one] for one in allowed if one in wanted)
        raise UserError(f"constraint {constraint}: column {series.name!r} is {series.dtype}; it must hold {said}")
    return of
