"""Columns of frames as exact numbers and back, for rules between columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.tabular import frames
from diffusionkit.tabular.transforms import decimals

Label = str | int
Array = NDArray[np.generic]


class Values:
    """A column as numbers, 0 where missing, and where it is not missing."""

    def __init__(self, series: pd.Series, of: str, unit: str | None = None) -> None:
        self.present = series.notna().to_numpy(bool)
        found = frames.numbers(series[self.present], of, unit, series.name) if self.present.any() else np.zeros(0, int)
        self.numbers = np.zeros(len(series), found.dtype)
        self.numbers[self.present] = found
        self._dtype = _narrow(series.dtype) or "float64"

    @property
    def digits(self) -> int | None:
        """The decimals that write the values exactly, if there are such."""
        values = self.numbers[self.present]
        return 0 if values.dtype.kind in "iu" else decimals(np.unique(values), self._dtype)


def _narrow(dtype: Any) -> str | None:
    """The numpy name of a float dtype of less than 64 bits."""
    text = str(dtype).lower()
    return {"float[pyarrow]": "float32", "halffloat[pyarrow]": "float16"}.get(
        text, text if text in ("float16", "float32") else None
    )


def zoned(dtype: Any) -> bool:
    """Whether dates of this dtype have a time zone."""
    return (getattr(dtype, "tz", None) or getattr(getattr(dtype, "pyarrow_dtype", None), "tz", None)) is not None


def look(series: pd.Series, name: Label, of: str, unit: str | None) -> dict[str, Any]:
    """What a column needs to be made again from numbers, in plain values."""
    absent = series[series.isna().to_numpy(bool)]
    none = series.dtype == object and len(absent) > 0 and absent.iloc[0] is None
    return {"dtype": frames.dtype_name(series.dtype, name), "family": of, "unit": unit, "none": bool(none)}


def dressed(numbers: Array, present: Array, of: dict[str, Any]) -> pd.Series:
    """A column like the one looked at, missing where not present."""
    numbers = numbers.astype(np.int64) if numbers.dtype == bool and of["family"] == "number" else numbers
    made = frames.restore(numbers[present], frames.named_dtype(of["dtype"]), of["family"], of["unit"])
    if present.all():
        return made
    made.index = np.flatnonzero(present)
    made = made.reindex(range(len(present)))
    return made.where(present, None) if of["none"] else made


def plain(numbers: Array, present: Array) -> pd.Series:
    """Numbers as a column of int64, Int64 or float64."""
    made = pd.Series(numbers)
    if present.all():
        return made
    return made.astype("Int64").where(present, pd.NA) if numbers.dtype.kind in "iu" else made.where(present)


def replaced(df: pd.DataFrame, columns: dict[Label, pd.Series]) -> pd.DataFrame:
    """The frame with columns put in by position, whatever its index."""
    made = df.copy(deep=False)
    for name, column in columns.items():
        made[name] = column.array
    return made


def complete(parts: list[Values]) -> Array:
    """Where none is missing."""
    return np.logical_and.reduce([part.present for part in parts])


def added(parts: list[Values]) -> Array:
    """The sum, without what is missing."""
    return np.add.reduce([part.numbers for part in parts])


def most_digits(values: list[Values]) -> int | None:
    """The decimals that write all of them."""
    digits = [one.digits for one in values]
    return None if None in digits else max(digits)


def rounded(numbers: Array, digits: int | None) -> Array:
    """To so many decimals, where there is a number of them."""
    return numbers if digits is None or numbers.dtype.kind in "iu" else np.round(numbers, digits)


def down(numbers: Array, digits: int | None) -> Array:
    """The nearest number with so many decimals that is not above, but for rounding errors."""
    return numbers if digits is None else np.floor(numbers * 10.0**digits + 1e-6) / 10.0**digits


def up(numbers: Array, digits: int | None, dtype: str) -> Array:
    """The nearest number with so many decimals, that a dtype can hold, which is not below."""
    if numbers.dtype.kind in "iu":
        return numbers
    made = numbers if digits is None else np.ceil(np.round(numbers * 10.0**digits, 6)) / 10.0**digits
    made = np.where(made < numbers, made + (0 if digits is None else 10.0**-digits), made)
    if _narrow(dtype) is None:
        return made
    narrow = made.astype(_narrow(dtype))
    return np.where(narrow < numbers, np.nextafter(narrow, narrow.dtype.type(np.inf)), narrow).astype(np.float64)
