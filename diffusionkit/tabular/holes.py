"""Missing values put in: known cells stay as they are, and constraints hold between them and the drawn ones."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core.state import State
from diffusionkit.tabular.columns import Numbers
from diffusionkit.tabular.constraints import Constraints
from diffusionkit.tabular.exact import Array, Label, replaced
from diffusionkit.tabular.rules import Constraint
from diffusionkit.tabular.sums import FixedSum

if TYPE_CHECKING:
    from diffusionkit.tabular.codec import TableCodec

TRIES = 20
"""How often a row is drawn again that breaks a constraint."""


def completed(
    codec: TableCodec, df: pd.DataFrame, state: State, rows: Tensor, redraw: Callable[[Tensor], State]
) -> pd.DataFrame:
    """The table with its holes filled.

    A constraint counts a value from others, which the model draws. Where the counted one is known and some of the others are
    not, what is drawn may contradict it: such a row is drawn again, and keeps its holes with a warning if that never helps.

    Args:
        codec: of the table.
        df: the table.
        state: of all its rows; what is open in them may be anything.
        rows: (k,) numbers of the rows in which the model has something to draw.
        redraw: draws what is open in the rows of these numbers: their states.
    """
    inner = modelled(codec.rules, df)
    for name, value in redraw(rows).items() if len(rows) else ():
        state[name][rows] = value
    drawn = codec.decode(state, 0, lambda frame: filled(inner, frame))
    out = _balanced(codec, df, filled(df, drawn))
    for _ in range(TRIES if len(codec.rules) else 0):
        broken = rows[torch.from_numpy(~codec.rules.holds(out).to_numpy()[rows.numpy()])]
        if not len(broken):
            return out
        own = inner.iloc[broken.numpy()]
        made = codec.decode(redraw(broken), 0, lambda frame, own=own: filled(own, frame))
        for column in codec.outer.columns:
            if column.kind != "identifier":  # those of a few rows would be those of the first ones
                drawn[column.name] = _put(drawn[column.name], broken.numpy(), made[column.name])
        out = _balanced(codec, df, filled(df, drawn))
    return _reopened(codec, df, out, rows.numpy())


def filled(df: pd.DataFrame, drawn: pd.DataFrame) -> pd.DataFrame:
    """df with its missing values taken from `drawn`, row by row.

    A column that had holes gets the dtype of `drawn`: whole numbers with holes come as floats, and are whole again.
    """
    out = df.copy()
    for name in df.columns:
        known = df[name].notna().to_numpy(bool)
        if not known.all() and name in drawn:
            out[name] = _put(drawn[name], np.flatnonzero(known), df[name][known]).set_axis(df.index)
    return out


def modelled(rules: Constraints, df: pd.DataFrame) -> pd.DataFrame:
    """The table as it is modelled, with a hole also where a value was counted from missing ones and so says nothing."""
    inner = rules.forward(df)
    for rule in rules:
        hollow = {name: mask for name, mask in _hollow(rule, df).items() if name in inner and mask.any()}
        inner = replaced(inner, {name: inner[name].mask(mask) for name, mask in hollow.items()})
    return inner


def _hollow(rule: Constraint, df: pd.DataFrame) -> dict[Label, Array]:
    """For the columns that a rule changes, in which rows it counts them from missing values."""
    missing = {name: df[name].isna().to_numpy(bool) for name in rule.columns}
    if isinstance(rule, FixedSum) and not rule.column:
        names = [rule.parts[i] for i in rule.kept["sequence"]]  # each is a share of what those before it leave
        before = np.logical_or.accumulate([np.zeros(len(df), bool), *(missing[name] for name in names)])
        return dict(zip(names, before, strict=False))
    if len(rule.determined) > 1:
        return {}
    [name] = rule.determined
    return {name: np.logical_or.reduce([missing[other] for other in rule.columns if other != name])}


def _balanced(codec: TableCodec, df: pd.DataFrame, out: pd.DataFrame) -> pd.DataFrame:
    """The last missing part of each sum takes what the others leave of a known total, where there are such values of it."""
    for rule in codec.rules:
        if not isinstance(rule, FixedSum):
            continue
        missing = np.stack([df[name].isna().to_numpy(bool) for name in rule.parts], 1)
        total = _floats(df[rule.total]) if rule.column else np.full(len(df), float(rule.total))
        last = np.where(missing.any(1), missing.shape[1] - 1 - np.argmax(missing[:, ::-1], 1), -1)
        for i, name in enumerate(rule.parts):
            rest = total - sum(_floats(out[other]) for other in rule.parts if other != name)
            rest = rest if codec.outer[name].decimals is None else np.round(rest, codec.outer[name].decimals)
            least, most = _ends(codec, rule, name)
            rows = np.flatnonzero((last == i) & (rest >= least) & (rest <= most))
            out[name] = _put(out[name], rows, pd.Series(rest[rows]))
    return out


def _ends(codec: TableCodec, rule: FixedSum, name: Label) -> tuple[float, float]:
    if not rule.column:
        return 0.0, float(rule.total)
    coder = codec.coders[codec.schema.position(name)]
    free = name in codec.rules.determined or not isinstance(coder, Numbers)  # another rule sees to it
    return (-np.inf, np.inf) if free else tuple(map(float, coder.ranks.values[[0, -1]]))


def _reopened(codec: TableCodec, df: pd.DataFrame, out: pd.DataFrame, rows: Array) -> pd.DataFrame:
    """The table without what was drawn into the rows that still break a constraint."""
    for rule in codec.rules:
        broken = np.zeros(len(df), bool)
        broken[rows] = ~rule.holds(out).to_numpy()[rows]
        holes = {name: broken & df[name].isna().to_numpy(bool) for name in rule.columns}
        count = np.logical_or.reduce(list(holes.values())).sum()
        if count:
            dtypes = {name: (df if df[name].notna().any() else out)[name].dtype for name in rule.columns}
            out = replaced(out, {name: out[name].astype(dtypes[name]).mask(mask) for name, mask in holes.items()})
            warnings.warn(
                f"constraint {rule}: {count} rows keep missing values, since none that were drawn agree with the known ones",
                stacklevel=4,
            )
    return out


def _put(series: pd.Series, places: Array, values: pd.Series) -> pd.Series:
    """The column with these values at these places, in its own dtype."""
    made = series.array.copy()
    made[places] = values.astype(series.dtype).array
    return pd.Series(made, series.index, series.dtype, series.name)


def _floats(series: pd.Series) -> Array:
    return series.to_numpy(np.float64, na_value=np.nan)


__all__ = ["TRIES", "completed", "filled", "modelled"]
