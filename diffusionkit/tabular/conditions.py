"""What is asked of the rows to be drawn: values, sets and ranges of columns, read into masks and states."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
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
        if isinstance(value, pd.Interval | slice):
            value = (value.left, value.right) if isinstance(value, pd.Interval) else (value.start, value.stop)
        if isinstance(value, tuple):
            if not isinstance(coder, Numbers):
                raise UserError(f"where: column {column!r} is {coder.column.kind}; a range needs numbers or dates")
            if len(value) != 2:
                raise UserError(f"where: a range of column {column!r} is (low, high), not {len(value)} values")
            wanted.codes[column], wanted.ranges[column] = codec.within(column, *value)
        elif isinstance(value, list | set | frozenset | np.ndarray):
            if isinstance(coder, Numbers) or not len(value):
                raise UserError(
                    f"where: a choice of values needs a column of levels and at least one; {column!r} is none"
                )
            wanted.codes[column] = torch.tensor([codec.code_of(column, one) for one in value])
        else:
            _check_value(codec, coder, column, value)
            wanted.fixed[column] = value
    if balance is not None:
        if not isinstance(_coder(codec, balance), Levels) or balance in wanted.fixed or balance in wanted.codes:
            raise UserError(f"balance: column {balance!r} must have levels and must not be asked for otherwise")
        wanted.turns = balance
    return wanted


def known(codec: TableCodec, wanted: Wanted, indices: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(given, known): masks and states of the rows with these running numbers, as far as values are fixed."""
    n = len(indices)
    state = {
        name: torch.zeros(shape, dtype=torch.long if name == "cat" else None) for name, shape in codec.like(n).items()
    }
    given = {name: torch.zeros(shape, dtype=torch.bool) for name, shape in codec.like(n).items()}
    if wanted.fixed:
        frame = codec.decode(state)
        for column, value in wanted.fixed.items():
            frame[column] = _repeated(codec, column, value, n)
        state = codec.encode(frame)
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


_TERM = re.compile(r"\s*(.+?)\s*(>=|<=|=)\s*(.*?)\s*", re.DOTALL)


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
            levels = [_level(coder, one) for one in value.split("|")]
            found[column] = levels if len(levels) > 1 else levels[0]
        elif sign == "=" and ".." not in value:
            found[column] = _number(coder, value)
        else:
            low, high = value.split("..", 1) if sign == "=" else ((value, "") if sign == ">=" else ("", value))
            found[column] = tuple(_number(coder, end) if end.strip() else None for end in (low, high))
    return found


def _coder(codec: TableCodec, column: Any) -> Any:
    names = [c.name for c in codec.schema.columns]
    if column not in names:
        near = difflib.get_close_matches(str(column), map(str, names), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UserError(f"where: there is no column {column!r}{hint} (columns: {', '.join(map(str, names[:30]))})")
    if column in codec.rules.determined:
        raise UserError(f"where: column {column!r} follows from others by a constraint; ask for those")
    coder = codec.coders[names.index(column)]
    if isinstance(coder, Identifiers):
        raise UserError(f"where: column {column!r} is an identifier; its values are made up and cannot be asked for")
    return coder


def _check_value(codec: TableCodec, coder: Any, column: Any, value: Any) -> None:
    if isinstance(coder, Levels) or (pd.api.types.is_scalar(value) and pd.isna(value)):
        codec.code_of(column, value)
        return
    codec.within(column, value, value, nearest=True)


def _repeated(codec: TableCodec, column: Any, value: Any, n: int) -> pd.Series:
    about = _coder(codec, column).column
    try:
        return pd.Series([value] * n).astype(about.pandas_dtype())
    except (ValueError, TypeError) as error:
        raise UserError(f"where: {value!r} is no value of column {column!r}, which is {about.dtype}") from error


def _level(coder: Levels, text: str) -> Any:
    by_text = {str(level): level for level in coder.levels}
    if text in by_text:
        return by_text[text]
    if coder.missing and text.lower() in ("", "nan", "none", "null", "missing"):
        return None
    return text  # refused with the levels that there are


def _number(coder: Numbers, text: str) -> Any:
    text = text.strip()
    try:
        if coder.column.family == "number":
            return float(text) if not re.fullmatch(r"[-+]?\d+", text) else int(text)
        return pd.Timestamp(text) if coder.column.kind == "datetime" else pd.Timedelta(text)
    except ValueError as error:
        raise UserError(f"where: {text!r} is no value of column {coder.column.name!r} ({coder.column.kind})") from error
