"""What is asked of the rows to be drawn: values, sets and ranges of columns, read into masks and states."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.errors import UserError
from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.columns import Identifiers, Levels, Numbers


@dataclass
class Wanted:
    """Conditions on columns.

    Args:
        fixed: the one value of each of these columns.
        codes: for each of these columns the codes that are allowed.
        ranges: for each of these number columns the closed range of its residual, for every allowed code.
        turns: a column whose levels take turns.
    """

    fixed: dict[Any, Any] = field(default_factory=dict)
    codes: dict[Any, Tensor] = field(default_factory=dict)
    ranges: dict[Any, tuple[Tensor, Tensor]] = field(default_factory=dict)
    turns: Any = None

    def __bool__(self) -> bool:
        return bool(self.fixed or self.codes or self.ranges or self.turns is not None)


def read(codec: TableCodec, where: Mapping[Any, Any] | str | None, balance: Any = None) -> Wanted:
    """Conditions as a codec understands them.

    Args:
        codec: of the table.
        where: for each column a value, a list of values, or for numbers and dates a range (low, high), None for an open end;
            or a text such as "income=>50K; age=30..40; education=Masters|Doctorate; hours>=40".
        balance: a column of levels, each of which is drawn equally often.

    Raises:
        UserError: for a column that there is not or that cannot be asked for, a level never seen, an impossible range.
    """
    wanted = Wanted()
    for column, value in (parse(codec, where) if isinstance(where, str) else dict(where or {})).items():
        coder = _coder(codec, column)
        if isinstance(value, slice) or (isinstance(value, pd.Interval) and isinstance(coder, Numbers)):
            value = (value.start, value.stop) if isinstance(value, slice) else (value.left, value.right)
        if isinstance(value, tuple):
            if not isinstance(coder, Numbers):
                raise UserError(f"where: column {column!r} is {coder.column.kind}; a range needs numbers or dates")
            if len(value) != 2:
                raise UserError(f"where: a range of column {column!r} is (low, high), not {len(value)} values")
            low, high = (None if _absent(end) else end for end in value)
            wanted.codes[column], wanted.ranges[column] = codec.within(column, low, high)
        elif not pd.api.types.is_scalar(value):
            wanted.codes[column] = _choice(codec, coder, column, value)
        else:
            _repeated(codec, column, value, 1)
            wanted.fixed[column] = value
    if balance is not None:
        coder = _coder(codec, balance, "balance")
        if coder.size < 2 or not isinstance(coder, Levels) or balance in wanted.fixed or balance in wanted.codes:
            raise UserError(f"balance: column {balance!r} must have levels and must not be asked for otherwise")
        wanted.turns = balance
    return wanted


def _choice(codec: TableCodec, coder: Any, column: Any, values: Any) -> Tensor:
    """The codes of several levels."""
    if isinstance(values, Mapping) or not isinstance(values, Collection):
        raise UserError(
            f"where: {values!r} is no value of column {column!r}, nor a list of values or a range (low, high)"
        )
    if isinstance(coder, Numbers):
        raise UserError(f"where: column {column!r} is {coder.column.kind}; ask for one value or a range (low, high)")
    if not len(values):
        raise UserError(f"where: column {column!r} is asked for with an empty list; name at least one level")
    return torch.tensor(sorted({codec.code_of(column, one) for one in values}))


def known(codec: TableCodec, wanted: Wanted, indices: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(given, known): masks and states of the rows with these running numbers, as far as values are fixed."""
    n = len(indices)
    state = {
        name: torch.zeros(shape, dtype=torch.long if name == "cat" else None) for name, shape in codec.like(n).items()
    }
    given = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in codec.like(n).items()}
    if wanted.fixed:
        frame = pd.concat(
            [_repeated(codec, column, value, n).rename(column) for column, value in wanted.fixed.items()], axis=1
        )
        state = codec.coded(frame).states(slice(None), None)
    for column in [*wanted.fixed, *([] if wanted.turns is None else [wanted.turns])]:
        for name, places in codec.entries(column).items():
            given[name][:, places] = True
    if wanted.turns is not None:
        (place,) = codec.entries(wanted.turns)["cat"]
        state["cat"][:, place] = indices % len(_coder(codec, wanted.turns).levels)
    return given, state


def overwrite(codec: TableCodec, wanted: Wanted, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with what the codes cannot say: fixed numbers never seen, and ranges that cut through a bin."""
    for column, value in wanted.fixed.items():
        if isinstance(_coder(codec, column), Numbers):
            frame[column] = _repeated(codec, column, value, len(frame))
    for column, (low, high) in wanted.ranges.items():
        coder = _coder(codec, column)
        if not coder.residual:
            frame[column] = coder.redrawn(frame[column], wanted.codes[column].numpy(), low.numpy(), high.numpy())
    return frame


_TERM = re.compile(r"\s*(.+?)\s*(>=|<=|=)(.*)", re.DOTALL)


def parse(codec: TableCodec, text: str) -> dict[Any, Any]:
    """Conditions from the command line; see `read`.

    Raises:
        UserError: for a term that is none.
    """
    found: dict[Any, Any] = {}
    for term in filter(str.strip, text.split(";")):
        match = _TERM.fullmatch(term)
        if not match:
            raise UserError(
                f"where: {term.strip()!r} is no condition; write column=value, column=low..high, column>=low"
            )
        name, sign, value = match.groups()
        column = next((c.name for c in codec.schema.columns if str(c.name) == name), name)
        coder = _coder(codec, column)
        if not isinstance(coder, Numbers):
            if sign != "=":
                raise UserError(f"where: column {column!r} is {coder.column.kind}; {sign} needs numbers or dates")
            texts = value.split("|") if _level(coder, value) is _UNSEEN else [value]  # a level may hold a |
            said = {text: _level(coder, text) for text in texts}
            # Where a level was never seen, its text is refused with those that there are.
            levels = [text.strip() if level is _UNSEEN else level for text, level in said.items()]
            found[column] = levels if len(levels) > 1 else levels[0]
        elif sign == "=" and ".." not in value:
            found[column] = _number(coder, value)
        else:
            low, high = value.split("..", 1) if sign == "=" else ((value, "") if sign == ">=" else ("", value))
            found[column] = tuple(_number(coder, end) if end.strip() else None for end in (low, high))
    return found


def _coder(codec: TableCodec, column: Any, key: str = "where") -> Any:
    names = codec.outer.names
    if column not in names:
        near = difflib.get_close_matches(str(column), map(str, names), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{key}: there is no column {column!r}{hint} (columns: {', '.join(map(str, names[:30]))})")
    if column in codec.rules.determined:
        raise UserError(f"{key}: column {column!r} follows from others by a constraint; ask for those")
    coder = codec.coders[codec.schema.position(column)]
    if isinstance(coder, Identifiers):
        raise UserError(f"{key}: column {column!r} is an identifier; its values are made up and cannot be asked for")
    return coder


def _absent(value: Any) -> bool:
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _repeated(codec: TableCodec, column: Any, value: Any, n: int) -> pd.Series:
    """n times this value, as the column holds it.

    Raises:
        UserError: if the column cannot hold it, or nothing like it was seen.
    """
    coder = _coder(codec, column)
    if isinstance(coder, Levels) or _absent(value):
        return coder.decode(np.full(n, codec.code_of(column, value)), np.zeros(n), n, 0)
    codec.within(column, value, value, nearest=True)
    return coder.constant(value, n)


_ABSENT = ("", "nan", "none", "null", "missing")
_UNSEEN = object()


def _level(coder: Levels, text: str) -> Any:
    by_text = {str(level): level for level in coder.levels}
    for same in (text, text.strip()):
        if same in by_text:
            return by_text[same]
    return None if coder.missing and text.strip().lower() in _ABSENT else _UNSEEN


def _number(coder: Numbers, text: str) -> Any:
    text = text.strip()
    if coder.missing and text.lower() in _ABSENT:
        return None
    try:
        if coder.column.family == "number":
            return float(text) if not re.fullmatch(r"[-+]?\d+", text) else int(text)
        return pd.Timestamp(text) if coder.column.kind == "datetime" else pd.Timedelta(text)
    except ValueError as error:
        raise UserError(f"where: {text!r} is no value of column {coder.column.name!r} ({coder.column.kind})") from error
