"""Order between two columns, and one of several columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular import frames
from diffusionkit.tabular.exact import Array, Label, Values, dressed, look, plain, replaced, rounded, up, zoned
from diffusionkit.tabular.rule import Constraint, family_of, quoted

_NANOSECONDS = {"D": 86_400_000_000_000, "s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


@dataclass
class LessEqual(Constraint):
    """`low` is never above `high`: in the place of `high` the model sees how far it lies above `low`.

    Where `low` is missing it is how far it lies above the lowest `high`. What comes back is never above the highest `high` seen,
    unless `low` itself is.

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
            high = np.minimum(rounded(base + np.maximum(distance.numbers, 0), digits), most)
            high = np.maximum(high, up(base, digits, kept["look"]["dtype"]))
        else:
            seconds, unit = self._span
            distance, grain = Values(df[self.high], "timedelta", unit), kept["grain"]
            high = np.minimum(base + np.maximum(distance.numbers // seconds, 0), most) // grain
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
