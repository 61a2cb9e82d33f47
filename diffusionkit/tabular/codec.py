"""Between a frame and the state of the model: codes and normal numbers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from diffusionkit.core.state import State
from diffusionkit.domain import Codec
from diffusionkit.errors import UserError
from diffusionkit.tabular import columns as coding
from diffusionkit.tabular.columns import Coder, Identifiers, Levels, Numbers
from diffusionkit.tabular.constraints import Constraints
from diffusionkit.tabular.frames import from_plain
from diffusionkit.tabular.holes import modelled
from diffusionkit.tabular.schema import Kind, Schema
from diffusionkit.tabular.table import Table
from diffusionkit.tabular.transforms import RankTable

FILE, TENSORS = "codec.json", "codec.safetensors"
_OPTIONS = ("bins", "between", "whole", "residual", "target")


class TableCodec(Codec):
    """Frames to states {"num": float32 (B, D), "cat": int64 (B, K)} and back; D or K may be 0.

    Each level column is one code; a missing value is one further code, the last. A number column is a code (its bin; a
    missing value is the last), a normal number (its rank within the bin), or both; see `RankTable`. Constant columns and
    identifiers have no part in the state.

    Args:
        coders: what codes each column, in the order of the schema.
        bins: into about how many bins number columns are cut; with 0 a number alone describes them.
        between: whether continuous numbers may lie between those seen.
        whole: columns of whole numbers with at most so many values have a code for each.
        residual: whether the rank within a bin is a number of the state; otherwise decoding draws it anew.
        target: the column to be predicted, for networks that treat it apart.
        rules: constraints that hold in every row; the coders see the columns in the form in which they are modelled.
        outer: the schema of the frames that come and go; without rules that of the coders.
    """

    def __init__(
        self,
        coders: list[Coder],
        bins: int,
        between: bool,
        whole: int,
        residual: bool = True,
        target: str | int | None = None,
        rules: Constraints | None = None,
        outer: Schema | None = None,
    ) -> None:
        self.coders, self.bins, self.between, self.whole = coders, bins, between, whole
        self.residual, self.target = residual, target
        self.schema = Schema(tuple(coder.column for coder in coders))
        self.rules, self.outer = rules or Constraints(), outer or self.schema
        self.num = [i for i, coder in enumerate(coders) if coder.residual]
        self.cat = [i for i, coder in enumerate(coders) if coder.size > 1]

    @classmethod
    def fit(
        cls,
        df: pd.DataFrame,
        schema: Schema | None = None,
        *,
        columns: Mapping[Any, Kind] | None = None,
        constraints: Sequence[str] = (),
        bins: int = 100,
        between: bool = True,
        whole: int = 0,
        residual: bool = True,
        target: str | int | None = None,
    ) -> TableCodec:
        """The codec of a training part; see the class for the arguments.

        `columns` gives the kinds of those that `Schema.infer` would take for something else.

        Raises:
            UserError: if the frame does not fit the schema, or none of its columns varies.
        """
        if bins < 0 or bins == 1 or whole < 0:
            raise UserError(f"bins must be 0 or at least 2 and whole not negative, not {bins} and {whole}")
        outer = schema or Schema.infer(df, columns)
        outer.check(df)
        rules = Constraints(constraints, df.columns).fit(df)
        df = rules.forward(df)
        kept = {name: kind for name, kind in outer.kinds.items() if name in df and name not in rules.determined}
        schema = Schema.infer(df, kept) if len(rules) else outer
        coders = [coding.fit(column, df[column.name], bins, between, whole, residual) for column in schema.columns]
        if target is not None:
            target = outer.names[outer.position(target)]  # refuses one that there is not
        codec = cls(coders, bins, between, whole, residual, target, rules, outer)
        if not (codec.num or codec.cat):
            raise UserError("the table holds nothing to learn: every column is constant or an identifier")
        return codec

    def arguments(self) -> dict[str, Any]:
        """What networks are built by.

        `numbers` D and `sizes` of the K codes; `owners`: the number of the column that each entry describes; for each of the
        sum(sizes) levels in turn, `shares`: how frequent it is, and `positions`: the middle of its ranks in the column, in
        (0, 1), or -1 where there is no order; `target`: the place among the codes of the column to be predicted, or None.
        """
        coders = [self.coders[i] for i in self.cat]
        shares = [np.array(coder.counts) / max(sum(coder.counts), 1) for coder in coders]
        positions = [_positions(coder, share) for coder, share in zip(coders, shares, strict=True)]
        owner = self.schema.names.index(self.target) if self.target in self.schema.names else None
        return {
            "numbers": len(self.num),
            "sizes": [coder.size for coder in coders],
            "owners": {"num": list(self.num), "cat": list(self.cat)},
            "shares": np.concatenate([*shares, []]).tolist(),
            "positions": np.concatenate([*positions, []]).tolist(),
            "target": self.cat.index(owner) if owner in self.cat else None,
        }

    def notes(self) -> list[str]:
        made = (
            "taken for identifiers: nothing is learned of them, and rows get new ones; drop them, or name another kind"
        )
        said = {
            made: [c for c in self.outer.columns if c.kind == "identifier" and not c.drop],
            "left out of every row": [c for c in self.outer.columns if c.drop],
            "hold one value or none, which every row gets": [c for c in self.outer.columns if c.kind == "constant"],
        }
        return [f"columns {', '.join(repr(c.name) for c in of)} {words}" for words, of in said.items() if of]

    def like(self, n: int) -> dict[str, tuple[int, int]]:
        return {"num": (n, len(self.num)), "cat": (n, len(self.cat))}

    def coder(self, column: str | int) -> Coder:
        """What codes a column.

        Raises:
            UserError: if there is none of this name.
        """
        return self.coders[self.schema.position(column)]

    def entries(self, column: str | int) -> dict[str, list[int]]:
        """The places in the state that describe a column."""
        position = self.schema.position(column)
        return {name: [k for k, owner in enumerate(owners) if owner == position]
                for name, owners in (("num", self.num), ("cat", self.cat))}  # fmt: skip

    def table(self, df: pd.DataFrame) -> Table:
        """The rows of a frame as a data set whose ties are drawn anew for each batch.

        Raises:
            UserError: if the frame does not fit, or holds a level never seen.
        """
        return self.coded(self._inward(df))

    def coded(self, df: pd.DataFrame) -> Table:
        """The same of a frame in the form in which constraints have it modelled; columns may lack, their entries are arbitrary."""
        index = np.zeros((len(df), len(self.num)), np.int32)
        codes = np.zeros((len(df), len(self.cat)), np.int32)
        for i, coder in enumerate(self.coders):
            if coder.column.name not in df:
                continue
            if not (coder.residual or coder.size > 1):
                if isinstance(coder, Levels):
                    coder.codes(df[coder.column.name])  # refuses what was never seen
                continue
            series = df[coder.column.name]
            found = coder.index(series) if isinstance(coder, Numbers) else None
            if coder.residual:
                index[:, self.num.index(i)] = np.where(found < 0, 0, found + self._offsets[i])
            if coder.size > 1:
                codes[:, self.cat.index(i)] = coder.codes(series if found is None else found)
        return Table(torch.from_numpy(index), torch.from_numpy(codes), *self._intervals)

    def encode(self, df: pd.DataFrame, generator: torch.Generator | None = None) -> State:
        """The rows of a frame as states, ties drawn by the generator.

        A number never seen counts as the nearest seen one. The entries of a missing value in a column where none was
        missing in the training part are arbitrary: `missing` tells where.

        Raises:
            UserError: if the frame does not fit, or holds a level never seen.
        """
        table = self.table(df)
        return table.states(slice(None), generator)

    def missing(self, df: pd.DataFrame) -> dict[str, Tensor]:
        """Masks of the shape of the state's entries: True where the value is missing, or counted from a missing one."""
        self.outer.check(df)
        df, out = modelled(self.rules, df), {}
        for name, owners in (("num", self.num), ("cat", self.cat)):
            masks = [df[self.schema.columns[i].name].isna().to_numpy(bool) for i in owners]
            out[name] = torch.from_numpy(np.stack([*masks, np.zeros(len(df), bool)], 1)[:, :-1])
        return out

    def decode(
        self, x: State, first: int = 0, change: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    ) -> pd.DataFrame:
        """The frame of these states, with the columns, order and dtypes of the one fitted.

        Args:
            x: the state.
            first: running number of the first row; rows of different running numbers have different identifiers.
            change: what is done to the frame before the constraints add what follows from it.

        Raises:
            ValueError: for numbers that are not.
        """
        x = {name: value.detach().cpu().numpy() for name, value in x.items()}
        n = len(x["cat"])
        if np.isnan(x["num"]).any():
            raise ValueError("the states hold values that are not numbers (NaN)")
        num, cat = iter(x["num"].T), iter(x["cat"].T)
        decoded = []
        for coder in self.coders:
            codes, residuals = next(cat) if coder.size > 1 else None, next(num) if coder.residual else None
            if not coder.column.drop:
                decoded.append(coder.decode(codes, residuals, n, first))
        frame = pd.concat(decoded, axis=1) if decoded else pd.DataFrame(index=range(n))
        frame.columns = pd.Index([c.name for c in self.schema.columns if not c.drop])
        return self.rules.backward(frame if change is None else change(frame))

    def _inward(self, df: pd.DataFrame) -> pd.DataFrame:
        """A frame of the user's as the coders see it."""
        self.outer.check(df)
        return self.rules.forward(df)

    def independent(self, n: int) -> pd.DataFrame:
        """n rows whose columns are each drawn as in the training part, knowing nothing of one another."""
        coders = [self.coders[i] for i in self.cat]
        codes = [torch.multinomial(torch.tensor(coder.counts, dtype=torch.float64), n, True) for coder in coders]
        codes = torch.stack([*codes, torch.zeros(n, dtype=torch.long)], 1)[:, :-1]
        return self.decode({"num": torch.randn(n, len(self.num)), "cat": codes})

    def code_of(self, column: str | int, value: Any) -> int:
        """The code of a level, or, of any column, of the missing value (None, NaN).

        Raises:
            UserError: if it was never seen, or the column has no levels.
        """
        coder = self.coder(column)
        if pd.api.types.is_scalar(value) and pd.isna(value):
            if not coder.missing:
                raise UserError(f"column {column!r}: no value was missing in the table that was fitted")
            return coder.size - 1
        if not isinstance(coder, Levels):
            raise UserError(f"column {column!r} is {coder.column.kind}: it has no levels")
        return coder.place(value)

    def within(
        self, column: str | int, low: Any = None, high: Any = None, nearest: bool = False
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """What of a number column decodes into a closed range.

        Args:
            column: its name.
            low: lowest value, None for an open end.
            high: highest value, None for an open end.
            nearest: of a range that holds nothing but lies among the values seen, take the nearest of them.

        Returns:
            The codes (k,), and for each of them the lowest and the highest residual, two float32 tensors (k,).

        Raises:
            UserError: if nothing in the range is ever made, or the column holds no numbers.
        """
        codes, least, most = map(torch.from_numpy, self._numbers(column).within(low, high, nearest))
        return codes, (least, most)

    def bounds(self, column: str | int) -> tuple[Any, Any]:
        """The lowest and the highest value seen of a number column."""
        return self._numbers(column).bounds

    def save(self, folder: Path) -> None:
        content: dict[str, Any] = {"codec": "table", **{name: getattr(self, name) for name in _OPTIONS}}
        content |= {"outer": self.outer.to_json(), "constraints": self.rules.to_json()}
        content["schema"], content["coders"], tensors = self.schema.to_json(), [], {}
        for i, coder in enumerate(self.coders):
            if isinstance(coder, Levels):
                content["coders"].append({"levels": coder.plain(), "counts": coder.counts})
            elif isinstance(coder, Identifiers):
                content["coders"].append({"pattern": coder.pattern})
            else:
                content["coders"].append({"absent": coder.absent})
                tensors |= {f"{i}.{key}": getattr(coder.ranks, key) for key in ("values", "counts", "starts")}
        (Path(folder) / FILE).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        save_file(tensors, Path(folder) / TENSORS)

    @classmethod
    def load(cls, folder: Path) -> TableCodec:
        """The codec of a run.

        Raises:
            UserError: if a file is missing or damaged.
        """
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or content.get("codec") != "table":
                raise ValueError('"codec" must be "table"')
            path = Path(folder) / TENSORS
            tensors = load_file(path)
            schema, options = Schema.from_json(content["schema"]), {name: content[name] for name in _OPTIONS}
            coders: list[Coder] = []
            for i, (column, entry) in enumerate(zip(schema.columns, content["coders"], strict=True)):
                if "levels" in entry:
                    coders.append(Levels(column, [*map(from_plain, entry["levels"])], entry["counts"]))
                elif "pattern" in entry:
                    coders.append(Identifiers(column, entry["pattern"]))
                else:
                    ranks = RankTable(*(tensors[f"{i}.{key}"] for key in ("values", "counts", "starts")))
                    coders.append(Numbers(column, ranks, entry["absent"], options["between"], options["residual"]))
            rules, outer = Constraints.from_json(content["constraints"]), Schema.from_json(content["outer"])
            return cls(coders, **options, rules=rules, outer=outer)
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror or error}); it belongs to every tabular run"
            ) from error
        except (KeyError, ValueError, TypeError, SafetensorError) as error:
            raise UserError(f"{path}: is damaged: {error}") from error

    @cached_property
    def _offsets(self) -> dict[int, int]:
        """Where each column's values begin in `_intervals`; the first one there stands for a missing value."""
        sizes = [len(self.coders[i].ranks.values) for i in self.num]
        return dict(zip(self.num, np.cumsum([1, *sizes]).tolist(), strict=False))

    @cached_property
    def _intervals(self) -> tuple[Tensor, Tensor]:
        """The rank intervals of all values, float64 (V, 2), and the bounds of their residuals, float32 (V, 2)."""
        edges, bounds = [np.array([[0.0, 1.0]])], [np.array([[-np.inf, np.inf]], np.float32)]
        for i in self.num:
            edges.append(np.stack(self.coders[i].ranks.intervals, 1))
            bounds.append(np.stack(self.coders[i].ranks.normals(), 1))
        return torch.from_numpy(np.concatenate(edges)), torch.from_numpy(np.concatenate(bounds))

    def _numbers(self, column: str | int) -> Numbers:
        coder = self.coder(column)
        if not isinstance(coder, Numbers):
            raise UserError(f"column {column!r} is {coder.column.kind}: it holds no numbers")
        return coder


def _positions(coder: Coder, shares: np.ndarray) -> np.ndarray:
    """The middle of each level's ranks where levels have an order; a missing value has no place in it."""
    levels = len(shares) - coder.missing
    middle = np.full(len(shares), -1.0)
    if coder.ordered:
        total = shares[:levels].sum()
        middle[:levels] = (np.cumsum(shares[:levels]) - shares[:levels] / 2) / (total or 1.0)
    return middle
