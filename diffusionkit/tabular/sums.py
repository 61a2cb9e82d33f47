"""Columns that add up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular.exact import (
    Array,
    Label,
    Values,
    added,
    complete,
    down,
    dressed,
    look,
    most_digits,
    plain,
    replaced,
    rounded,
)
from diffusionkit.tabular.rules import Constraint, family_of, quoted
from diffusionkit.tabular.transforms import decimals

_NARROW = {"float16": 1e-2, "float32": 1e-5, "float[pyarrow]": 1e-5, "halffloat[pyarrow]": 1e-2}
"""How far sums of narrow floats may be off, relative to the total."""


@dataclass
class FixedSum(Constraint):
    """`parts` add up to `total`.

    Of a column `total` the model sees nothing: it is added up again and rounded to its decimals. Of parts that add up to a
    number and are not negative it sees which share each takes of what those before it have left (stick-breaking), the coarsest
    rounded parts first; the last takes the rest.

    Where parts are missing while the others or the total are there, the model also sees what is left for the total or the last
    part.

    Args:
        parts: columns of numbers.
        total: a column of numbers, or a number above 0.
        column: whether `total` is a column; by default a text is one and a number is not.
    """

    parts: list[Label]
    total: Label | float
    column: bool | None = None

    def __post_init__(self) -> None:
        self.parts = list(self.parts)
        self.column = isinstance(self.total, str) if self.column is None else self.column
        super().__post_init__()
        if len(self.parts) < 2:
            raise UserError(f"constraint {self}: a sum needs at least two parts")
        if not self.column and not 0 < self.total < math.inf:
            raise UserError(f"constraint {self}: the total must be a column or a number above 0, not {self.total}")

    @property
    def columns(self) -> list[Label]:
        return [*self.parts, *([self.total] if self.column else [])]

    @property
    def determined(self) -> list[Label]:
        return [self.total] if self.column else self.parts

    def __str__(self) -> str:
        total = quoted(self.total) if self.column else f"{self.total:.15g}"
        return f"{' + '.join(map(quoted, self.parts))} = {total}"

    def _read(self, df: pd.DataFrame) -> list[Values]:
        for name in self.columns:
            if name in df.columns:
                family_of(df[name], self, ("number",))
        return [Values(df[name], "number") for name in self.parts]

    def _obeys(self, df: pd.DataFrame) -> Array:
        parts = self._read(df)
        total = Values(df[self.total], "number") if self.column else None
        goal = self.total if total is None else total.numbers
        slack = np.maximum(np.abs(goal), 1) * max(
            _NARROW.get(str(df[name].dtype).lower(), 1e-9) for name in self.columns
        )
        if total is not None:
            own = self.kept["digits"] if self.kept else total.digits
            finer = any(part.digits is None or part.digits > own for part in parts) if own is not None else False
            slack = slack + (0.5 * 10.0**-own if finer else 0)
        known = complete(parts if total is None else [*parts, total])
        return ~known | (np.abs(added(parts) - goal) <= slack)

    def _fit(self, df: pd.DataFrame) -> dict[str, Any]:
        parts = self._read(df)
        if self.column:
            total = Values(df[self.total], "number")
            open_ = bool((complete(parts) != total.present).any())
            dressing = look(df[self.total], self.total, "number", None)
            return {"digits": total.digits, "left": open_, "look": dressing}
        for name, part in zip(self.parts, parts, strict=True):
            if (part.numbers < 0).any():
                raise UserError(
                    f"constraint {self}: column {name!r} is negative in places, which no share of a total can be"
                )
        digits = [part.digits for part in parts]
        order = sorted(range(len(parts)), key=lambda i: math.inf if digits[i] is None else digits[i])
        others = complete([parts[i] for i in order[:-1]])
        return {
            "digits": digits,
            "sequence": order,
            "left": bool((others != parts[order[-1]].present).any()),
            "looks": [look(df[name], name, "number", None) for name in self.parts],
        }

    def forward(self, df: pd.DataFrame) -> pd.DataFrame:
        return self._without_total(df) if self.column else self._shares(df)

    def _backward(self, df: pd.DataFrame) -> pd.DataFrame:
        return self._with_total(df) if self.column else self._amounts(df)

    def _without_total(self, df: pd.DataFrame) -> pd.DataFrame:
        if not self.kept["left"]:
            return df.drop(columns=[self.total])
        parts, total = self._read(df), Values(df[self.total], "number")
        left = np.where(complete(parts), 0, total.numbers - added(parts))
        return replaced(df, {self.total: plain(rounded(left, most_digits([*parts, total])), total.present)})

    def _with_total(self, df: pd.DataFrame) -> pd.DataFrame:
        parts = self._read(df)
        total, present = added(parts), complete(parts)
        if self.kept["left"]:
            left = Values(df[self.total], "number")
            total, present = total + np.where(present, 0, left.numbers), left.present
        return replaced(df, {self.total: dressed(rounded(total, self.kept["digits"]), present, self.kept["look"])})

    def _shares(self, df: pd.DataFrame) -> pd.DataFrame:
        parts, left, made = self._read(df), np.full(len(df), float(self.total)), {}
        known, (*sequence, last) = complete(parts), self.kept["sequence"]
        for i in sequence:
            made[self.parts[i]] = plain(_share(parts[i].numbers, left), parts[i].present)
            left = self._less(left, parts[i].numbers)
        if not self.kept["left"]:
            return replaced(df, made).drop(columns=[self.parts[last]])
        share = np.where(known, 1.0, _share(parts[last].numbers, left))
        return replaced(df, {**made, self.parts[last]: plain(share, parts[last].present)})

    def _amounts(self, df: pd.DataFrame) -> pd.DataFrame:
        left, made, (*sequence, last) = np.full(len(df), float(self.total)), {}, self.kept["sequence"]
        known = np.ones(len(df), bool)
        for i in sequence:
            amount, present = self._amount(df, i, left)
            made[self.parts[i]] = dressed(amount, present, self.kept["looks"][i])
            left, known = self._less(left, amount), known & present
        amount, present = left, known
        if self.kept["left"]:
            part, present = self._amount(df, last, left)
            amount = np.where(known, left, part)
        return replaced(df, {**made, self.parts[last]: dressed(amount, present, self.kept["looks"][last])})

    def _amount(self, df: pd.DataFrame, i: int, left: Array) -> tuple[Array, Array]:
        """What a part's share of the rest is, 0 where it is missing, and where it is not."""
        share, digits = Values(df[self.parts[i]], "number"), self.kept["digits"][i]
        amount = share.numbers.astype(np.float64).clip(0, 1) * left
        return np.minimum(rounded(amount, digits), down(left, digits)), share.present

    def _less(self, left: Array, amount: Array) -> Array:
        digits = [*self.kept["digits"], decimals(np.array([float(self.total)]))]
        return np.maximum(rounded(left - amount, None if None in digits else max(digits)), 0)


def _share(amount: Array, left: Array) -> Array:
    return np.divide(amount, left, out=np.zeros(len(left)), where=left > 0).clip(0, 1)
