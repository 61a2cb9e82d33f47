"""Rules that hold in every row: columns are replaced, before they are coded, by others whose every value obeys them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.tabular import frames

Label = str | int
Array = NDArray[np.generic]


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
