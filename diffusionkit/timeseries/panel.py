"""Series on regular time grids with their covariates, as plain arrays: what every other part of the domain works on."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diffusionkit.errors import UserError
from diffusionkit.timeseries import calendar


@dataclass(frozen=True)
class Block:
    """Series that share one regular time grid.

    Attributes:
        names: of the D series.
        index: (T,) regular times with `freq` set, the time zone kept.
        values: (T, D) float64; NaN where nothing was observed.
        past: (T, D or 1, P) covariates that are known up to the last row, NaN allowed; 1 where all series share them.
        known: (T + F, D or 1, K) covariates that are known ahead, F >= 0 rows beyond the values.
    """

    names: tuple[Hashable, ...]
    index: pd.DatetimeIndex
    values: NDArray[np.float64]
    past: NDArray[np.float64]
    known: NDArray[np.float64]

    def __post_init__(self) -> None:
        rows, size = len(self.index), len(self.names)
        if self.values.shape != (rows, size):
            raise ValueError(f"values must be {(rows, size)}, not {self.values.shape}")
        if self.past.ndim != 3 or len(self.past) != rows or self.past.shape[1] not in (1, size):
            raise ValueError(f"past must be ({rows}, {size} or 1, P), not {self.past.shape}")
        if self.known.ndim != 3 or len(self.known) < rows or self.known.shape[1] not in (1, size):
            raise ValueError(f"known must be ({rows} or more, {size} or 1, K), not {self.known.shape}")

    def __len__(self) -> int:
        return len(self.index)

    def head(self, rows: int) -> Block:
        """The first rows; what is known ahead stays known."""
        return Block(self.names, self.index[:rows], self.values[:rows], self.past[:rows], self.known)

    def tail(self, rows: int) -> Block:
        """The last rows, or all where there are fewer."""
        first = max(len(self) - rows, 0)
        return Block(self.names, self.index[first:], self.values[first:], self.past[first:], self.known[first:])


@dataclass(frozen=True)
class Panel:
    """All series of a frame.

    Attributes:
        blocks: one block of all series where they are modelled jointly, else one block of one series each.
        freq: the alias of the step, as `calendar.normalise` writes it.
        joint: whether one path is drawn for all series together.
        past_names: of the covariates known up to the last row, one for each level of a categorical one.
        known_names: of those known ahead.
        static: (all series, S) what does not change with time; a categorical one takes a column for each level.
        schema: how frames are read, as JSON can keep it; see `frames.read`.
        integer: (all series,) whether all that was seen of a series are whole numbers.
    """

    blocks: tuple[Block, ...]
    freq: str
    joint: bool
    past_names: tuple[str, ...]
    known_names: tuple[str, ...]
    static: NDArray[np.float64]
    schema: dict[str, Any]
    integer: NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not self.blocks or (self.joint and len(self.blocks) > 1):
            raise ValueError(f"a panel needs blocks, and just one if joint, not {len(self.blocks)}")
        if not self.joint and any(len(block.names) > 1 for block in self.blocks):
            raise ValueError("series that are not modelled jointly need a block each")
        if len(self.static) != self.size or self.integer.shape != (self.size,):
            raise ValueError(f"static and integer must have a row for each of the {self.size} series")
        for block in self.blocks:
            if block.past.shape[2] != len(self.past_names) or block.known.shape[2] != len(self.known_names):
                raise ValueError("past and known must have a column for each of their names")

    @property
    def names(self) -> tuple[Hashable, ...]:
        """The names of all series."""
        return tuple(name for block in self.blocks for name in block.names)

    @property
    def size(self) -> int:
        """How many series there are."""
        return sum(len(block.names) for block in self.blocks)

    @property
    def common_end(self) -> bool:
        """Whether all series end at the same time."""
        return len({block.index[-1] for block in self.blocks}) == 1

    def split(self, rows: int | None = None, time: Any = None) -> tuple[Panel, Panel]:
        """Parts every series in two, either by rows from its end or at a time.

        What is known ahead of the first part is kept in it, as far as the whole panel knows it.

        Args:
            rows: length of the second part.
            time: its first time.

        Raises:
            UserError: if a part of a series would be empty.
        """
        if (rows is None) == (time is None):
            raise ValueError("split needs either rows or time")
        cuts = [self._cut(block, rows, time) for block in self.blocks]
        heads = tuple(block.head(cut) for block, cut in zip(self.blocks, cuts, strict=True))
        tails = tuple(block.tail(len(block) - cut) for block, cut in zip(self.blocks, cuts, strict=True))
        return replace(self, blocks=heads), replace(self, blocks=tails)

    def _cut(self, block: Block, rows: int | None, time: Any) -> int:
        if rows is not None:
            cut = len(block) - rows
            wanted = f"the last {rows} rows"
        else:
            cut = int(block.index.searchsorted(self._moment(time)))
            wanted = f"what comes from {time} on"
        if not 0 < cut < len(block):
            raise UserError(
                f"series {block.names[0]!r} has {len(block)} rows, from {block.index[0]} to {block.index[-1]}, "
                f"and cannot be split into what comes before and {wanted}: either part needs a row"
            )
        return cut

    def _moment(self, time: Any) -> pd.Timestamp:
        moment, zone = pd.Timestamp(time), self.blocks[0].index.tz
        if moment.tz is None or zone is None:
            return moment.tz_localize(zone) if moment.tz is None else moment.tz_localize(None)
        return moment.tz_convert(zone)

    def tail(self, rows: int) -> Panel:
        """The last rows of every series, or all where there are fewer."""
        return replace(self, blocks=tuple(block.tail(rows) for block in self.blocks))

    def coming(self, horizon: int) -> pd.DatetimeIndex | NDArray[np.datetime64]:
        """The times after the last row: (H,) where all series end together, else (H, D), in UTC if they have a zone."""
        ends: dict[pd.Timestamp, pd.DatetimeIndex] = {}
        for block in self.blocks:
            if block.index[-1] not in ends:
                ends[block.index[-1]] = calendar.extend(block.index, horizon, self.freq)
        if len(ends) == 1:
            return next(iter(ends.values()))
        moments = {end: (times.tz_convert(None) if times.tz else times).to_numpy() for end, times in ends.items()}
        return np.stack([moments[block.index[-1]] for block in self.blocks], axis=1)

    def series(self, name: Hashable) -> pd.Series:
        """One series by its name."""
        for block in self.blocks:
            if name in block.names:
                return pd.Series(block.values[:, block.names.index(name)], index=block.index, name=name)
        raise UserError(f"there is no series {name!r}; there are {listed(self.names)}")

    def frame(self, rows: int | None = None) -> pd.DataFrame:
        """The last rows (all by default): a wide frame of joint series, else a long one with unique_id, ds and y."""
        blocks = [block if rows is None else block.tail(rows) for block in self.blocks]
        if self.joint:
            columns = pd.Index(blocks[0].names, tupleize_cols=all(isinstance(name, tuple) for name in self.names))
            return pd.DataFrame(blocks[0].values, index=blocks[0].index, columns=columns)
        counts = [len(block) for block in blocks]
        times = blocks[0].index.append([block.index for block in blocks[1:]])
        ids = pd.Index([block.names[0] for block in blocks], tupleize_cols=False).repeat(counts)
        return pd.DataFrame({"unique_id": ids, "ds": times, "y": np.concatenate([b.values[:, 0] for b in blocks])})

    def check_future(self, horizon: int) -> None:
        """Refuses a horizon for which a covariate that must be known ahead is not.

        Raises:
            UserError: naming the covariate, a series and the first time that lacks it.
        """
        if not self.known_names:
            return
        for block in self.blocks:
            ahead = block.known[len(block) : len(block) + horizon]
            missing = np.ones((horizon, *ahead.shape[1:]), bool)
            missing[: len(ahead)] = ~np.isfinite(ahead)
            if missing.any():
                step, row, column = np.argwhere(missing)[0]
                time = calendar.extend(block.index, horizon, self.freq)[step]
                of = f" of series {block.names[row]!r}" if missing.shape[1] == len(block.names) else ""
                raise UserError(
                    f"covariate {self.known_names[column]!r}{of} is missing for {time}, step {step + 1} of the horizon of "
                    f"{horizon}; give it for every coming time in `future`"
                )


def whole_numbers(blocks: tuple[Block, ...]) -> NDArray[np.bool_]:
    """(all series,) whether every observed value is a whole number."""
    return np.concatenate([((b.values == np.round(b.values)) | np.isnan(b.values)).all(axis=0) for b in blocks])


def listed(names: tuple[Any, ...] | list[Any], most: int = 8) -> str:
    """The names for a message, at most so many of them."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, list(names)[:most])) + more


__all__ = ["Block", "Panel", "listed", "whole_numbers"]
