"""Several rules at once, and their text form; what each one does is in `rules` and `sums`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any, Self

import numpy as np
import pandas as pd

from diffusionkit.errors import UserError
from diffusionkit.tabular.exact import Label
from diffusionkit.tabular.rules import Constraint, LessEqual, OneOf
from diffusionkit.tabular.sums import FixedSum

_KINDS = {kind.__name__: kind for kind in (LessEqual, FixedSum, OneOf)}
_TOKEN = re.compile(r"\s*(?:`([^`]+)`|(<=|>=|[+=,<>])|([^`+=,<>]+))")
_FORMS = '"low <= high", "a + b + c = total", "a + b + c = 100" or "one of a, b, c"'


class Constraints:
    """Constraints that may share columns, such as a <= b and b <= c.

    Args:
        constraints: constraints, or texts for `parse`.
        columns: labels of the table, by which texts are read.

    Raises:
        UserError: if two of them determine the same column, or each of some waits for another.
    """

    def __init__(self, constraints: Iterable[Constraint | str] = (), columns: Iterable[Label] | None = None) -> None:
        columns = None if columns is None else list(columns)
        given = [parse(one, columns) if isinstance(one, str) else one for one in constraints]
        makers: dict[Label, int] = {}
        for i, one in enumerate(given):
            for name in one.determined:
                if name in makers:
                    raise UserError(
                        f"constraints {given[makers[name]]} and {one} both determine column {name!r}; leave one of them out"
                    )
                makers[name] = i
        needs = {
            i: {makers[name] for name in one.columns if name not in one.determined and name in makers}
            for i, one in enumerate(given)
        }
        try:
            order = list(TopologicalSorter(needs).static_order())
        except CycleError as error:
            circle = " and ".join(str(given[i]) for i in error.args[1][1:])
            raise UserError(f"constraints {circle} go round in a circle; leave one of them out") from error
        # The way back: a column is made before another one is made from it.
        self.constraints = [given[i] for i in order]

    def __iter__(self) -> Iterator[Constraint]:
        return iter(self.constraints)

    def __len__(self) -> int:
        return len(self.constraints)

    @property
    def determined(self) -> list[Label]:
        """The columns that the model sees in another form or not at all."""
        return [name for one in self for name in one.determined]

    def holds(self, df: pd.DataFrame) -> pd.Series:
        """Which rows obey all of them."""
        return pd.Series(
            np.logical_and.reduce([np.ones(len(df), bool), *(one.holds(df) for one in self)]), index=df.index
        )

    def check(self, df: pd.DataFrame) -> None:
        """Sees that every row obeys all of them.

        Raises:
            UserError: naming the first that does not hold, how many rows break it and the first of them.
        """
        for one in self:
            one.check(df)

    def fit(self, df: pd.DataFrame) -> Self:
        """Keeps what the ways need.

        Raises:
            UserError: if a row breaks a constraint, or the columns do not allow it.
        """
        self.check(df)
        for one in reversed(self.constraints):
            df = one.fit(df).forward(df)
        return self

    def forward(self, df: pd.DataFrame) -> pd.DataFrame:
        """The frame to be modelled."""
        for one in reversed(self.constraints):
            df = one.forward(df)
        return df

    def backward(self, df: pd.DataFrame) -> pd.DataFrame:
        """The frame of a modelled one; see `Constraint.backward`."""
        for one in self:
            df = one.backward(df)
        return df

    def to_json(self) -> list[dict[str, Any]]:
        """Plain values for JSON."""
        return [one.to_json() for one in self]

    @classmethod
    def from_json(cls, content: Sequence[Mapping[str, Any]]) -> Self:
        """The inverse of `to_json`."""
        return cls(from_json(one) for one in content)


def from_json(content: Mapping[str, Any]) -> Constraint:
    """The inverse of `Constraint.to_json`."""
    return _KINDS[content["constraint"]](**{key: value for key, value in content.items() if key != "constraint"})


def parse(text: str, columns: Iterable[Label] | None = None) -> Constraint:
    """A constraint from its text: "low <= high", "a + b + c = total", "a + b + c = 100", "one of a, b, c".

    Names that hold spaces within them need no quotes; those that hold one of , + = < > or are numbers are put in backticks.

    Args:
        text: the constraint.
        columns: the labels that there are; without them every name is taken for a text and none is looked up.

    Raises:
        UserError: if it is none, or names a column that there is not.
    """
    labels = None if columns is None else {str(label): label for label in columns}

    def label(name: str) -> Label:
        if labels is not None and name not in labels:
            raise UserError(f"constraint {text!r}: there is no column {name!r}; there are {', '.join(labels)}")
        return name if labels is None else labels[name]

    listed = re.match(r"\s*one\s+of\s+", text)
    names, signs, bare = _split(text[listed.end() :] if listed else text, text)
    if listed:
        if set(signs) - {","}:
            raise UserError(f"constraint {text!r}: names after 'one of' are separated by commas")
        return OneOf([label(name) for name in names])
    if signs in (["<="], [">="]):
        low, high = names if signs == ["<="] else names[::-1]
        return LessEqual(label(low), label(high))
    if signs.count("=") == 1 and set(signs) <= {"+", "="} and len(signs) > 1:
        place = signs.index("=") + 1
        left, right = names[:place], names[place:]
        (total, *more), parts = (left, right) if len(left) == 1 else (right, left)
        if not more:
            number = _number(total) if bare[0 if len(left) == 1 else -1] else None
            return FixedSum([label(name) for name in parts], label(total) if number is None else number, number is None)
    if len(signs) > 1 and set(signs) <= {"<=", ">="}:
        raise UserError(f"constraint {text!r}: write one constraint for each of the comparisons")
    raise UserError(f"constraint {text!r} is none; write {_FORMS}, with backticks about names that hold signs")


def _split(text: str, whole: str) -> tuple[list[str], list[str], list[bool]]:
    """Names, the signs between them, and which names stood without backticks."""
    names, signs, bare, position = [], [], [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise UserError(f"constraint {whole!r}: a backtick is not closed")
        quoted, sign, name = match.groups()
        expected = len(names) == len(signs)
        if expected == bool(sign):
            raise UserError(f"constraint {whole!r} is none; write {_FORMS}, with backticks about names that hold signs")
        if sign:
            signs.append(sign)
        else:
            names.append(quoted or name.strip())
            bare.append(quoted is None)
        position = match.end()
    if len(names) != len(signs) + 1:
        raise UserError(f"constraint {whole!r} is none; write {_FORMS}, with backticks about names that hold signs")
    return names, signs, bare


def _number(text: str) -> float | int | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return int(value) if value.is_integer() else value


__all__ = ["Constraint", "Constraints", "FixedSum", "LessEqual", "OneOf", "from_json", "parse"]
