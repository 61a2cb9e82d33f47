"""From frames to what a model is trained on: schema, codec and encoded parts."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import pandas as pd

from diffusionkit.tabular.codec import TableCodec
from diffusionkit.tabular.columns import Levels
from diffusionkit.tabular.table import Table


def prepared(source: Any, parts: Mapping[str, pd.DataFrame]) -> tuple[TableCodec, dict[str, Table]]:
    """The codec, fitted on the training part, and the encoded parts.

    Args:
        source: says `columns` (kinds that are not inferred), `constraints`, `target` and `codec` (arguments of `TableCodec.fit`).
        parts: frames: "train", and "val" or "test" to measure the held-out loss on; "val" where there is one.

    Raises:
        UserError: if the frames have to be put right first.
    """
    train = parts["train"]
    codec = TableCodec.fit(
        train, columns=source.columns, constraints=source.constraints, target=source.target, **source.codec
    )
    sets = {"train": codec.table(train)}
    held = parts.get("val", parts.get("test"))
    if held is not None:
        sets["test"] = codec.table(known(codec, held))
    return codec, sets


def known(codec: TableCodec, frame: pd.DataFrame) -> pd.DataFrame:
    """The held-out rows whose levels the training part has; how many have others is said."""
    keep = codec.rules.holds(frame)
    for coder in codec.coders:
        name = coder.column.name
        if isinstance(coder, Levels) and name in frame:
            keep &= frame[name].isin(coder.levels) | (frame[name].isna() & coder.missing)
    if not keep.all():
        warnings.warn(
            f"{(~keep).sum()} held-out rows have levels that the training part has not, or break a constraint: left out",
            stacklevel=2,
        )
    return frame[keep]
