"""Tables from Python: fit a frame, draw frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from diffusionkit.core import Sampler
from diffusionkit.core.seeds import drawing
from diffusionkit.core.state import State, tree_cat, tree_map
from diffusionkit.errors import UserError
from diffusionkit.recipe import Recipe
from diffusionkit.tabular import conditions, generate
from diffusionkit.tabular.conditions import Wanted
from diffusionkit.tabular.holes import completed, modelled
from diffusionkit.tabular.losses import row_losses
from diffusionkit.tabular.prepare import prepared
from diffusionkit.tabular.schema import Kind
from diffusionkit.tabular.text import stages
from diffusionkit.training.fitted import Fitted
from diffusionkit.training.run import Run, suited

PRESETS = {
    "default": "tabular/csv",
    "tabddpm": "tabular/tabddpm",
    "tabdiff": "tabular/tabdiff",
}


class TabularDiffusion(Fitted):
    """A diffusion model of a table.

        model = TabularDiffusion().fit(df)
        fake = model.sample(10_000)

    Args:
        preset: `default`, `tabddpm` (Kotelnikov et al. 2023) or `tabdiff` (Shi et al. 2025), or the name or path of a recipe.
        columns: kinds of columns where they are not what `Schema.infer` takes them for, such as {"zip": "categorical"}.
        constraints: what holds in every row: "low <= high", "a + b = total", "one of a, b, c".
        target: the column to be predicted; some presets treat it apart, and reports measure how useful the rows are for it.
        steps: optimiser steps; by default as the preset says for a table of this length.
        settings: keys of the recipe to be changed, such as {"backbone.width": 512, "training.batch_size": 512}.
        device: where to train and to draw; the best there is by default.
        verbose: whether to show what is done, and how far it is.
        random_state: seed of training and, unless `sample` gets its own, of drawing; None draws anew each time.

    Attributes:
        schema_: what the columns are taken for; print it to see.
        history_: rows of training metrics.
        n_features_in_, feature_names_in_: as scikit-learn has them.
    """

    domain, what = "tabular", "tables"

    def __init__(
        self,
        preset: str = "default",
        *,
        columns: Mapping[Any, Kind] | None = None,
        constraints: Sequence[str] = (),
        target: Any = None,
        steps: int | None = None,
        settings: Mapping[str, Any] | None = None,
        device: str | None = None,
        verbose: bool = True,
        random_state: int | None = None,
    ) -> None:
        self.preset, self.columns, self.constraints, self.target = preset, columns, constraints, target
        self.steps, self.settings, self.device = steps, settings, device
        self.verbose, self.random_state = verbose, random_state

    # ---- training

    def fit(self, X: pd.DataFrame, y: Any = None) -> TabularDiffusion:
        """Learns the joint distribution of the columns.

        Args:
            X: the table, at least a few dozen rows; missing values are modelled, too.
            y: a column more, for those who keep the target apart: a Series under its name, anything else as "target".

        Raises:
            UserError: if the table, the settings or a constraint has to be put right first; before anything long starts.
        """
        frame = _joined(X, y)
        recipe = self._recipe(len(frame))
        source = recipe.build("data")
        source.columns = dict(self.columns or {})
        source.constraints, source.target = list(self.constraints), self.target
        codec, parts = prepared(source, {"train": frame})
        seed = self._seed()
        run = self._begun(recipe, codec, seed)
        self.history_ = self._train(run, parts["train"], seed)
        self._keep(run)
        return self

    def _recipe(self, rows: int) -> Recipe:
        """The preset's recipe, its length suited to the table where neither `steps` nor `settings` says it."""
        name = PRESETS.get(self.preset, self.preset)
        codec = Recipe.load(name).sections["data"].get("codec", {})
        return suited(self._changed(name, {"name": "frame", "codec": codec}), rows)

    def _sound(self) -> None:
        dict(self.columns or {})

    def _keep(self, run: Run) -> None:
        super()._keep(run)
        self.schema_ = run.codec.outer
        self.feature_names_in_ = np.array(self.schema_.names, dtype=object)
        self.n_features_in_ = len(self.feature_names_in_)

    # ---- drawing

    def sample(
        self,
        n: int = 1,
        *,
        where: Mapping[Any, Any] | str | None = None,
        balance: Any = None,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
        out: str | Path | None = None,
    ) -> Any:
        """New rows, with the columns, order and dtypes of the fitted table.

        Args:
            n: how many.
            where: what they must be like: for each column a value, a list of levels, or a range (low, high) of numbers or
                dates, None for an open end; or a text such as "income=>50K; age=30..40".
            balance: a column whose levels are to be equally frequent.
            guidance: how strongly to follow `where`; 1 draws from the model's conditional distribution.
            steps: of the sampler; fewer are quicker and less exact.
            sampler: instead of the preset's.
            batch_size: rows drawn at a time.
            random_state: seed; that of the model by default.
            out: a .csv or .parquet file to write to, chunk by chunk, instead of returning a frame: memory stays flat.

        Returns:
            The frame, or the path of the file.

        Raises:
            UserError: for a column or level that there is not, or an impossible range.
        """
        run = self._run()
        if n < 1:
            raise UserError(f"n: at least one row, not {n}")
        wanted = conditions.read(run.codec, where, balance)
        chunks = self._chunks(n, wanted, self._drawing(guidance, steps, sampler, batch_size), random_state)
        if out is None:
            return pd.concat(chunks, ignore_index=True)
        from diffusionkit.tabular.export import open_writer

        with open_writer(run.codec, out, n) as writer:
            for chunk in chunks:
                writer.add(chunk)
        return Path(out)

    def _chunks(
        self, n: int, wanted: Wanted, how: tuple[Any, Sampler, int], random_state: int | None
    ) -> Iterator[pd.DataFrame]:
        run, (diffusion, sampler, size) = self._run(), how
        with self._seeded(random_state), stages(-(-n // size) * sampler.steps, not self.verbose) as stage:
            for first in range(0, n, size):
                indices = torch.arange(first, min(first + size, n))
                x = generate.draw(
                    diffusion, run.codec, sampler, indices, wanted, lambda *_: stage(f"drawing {n:,} rows")
                )
                yield run.codec.decode(x, first, partial(conditions.overwrite, run.codec, wanted))

    def impute(
        self,
        df: pd.DataFrame,
        draws: int = 1,
        *,
        guidance: float | None = None,
        steps: int | None = None,
        sampler: Sampler | None = None,
        batch_size: int | None = None,
        random_state: int | None = None,
    ) -> Any:
        """The table with its missing values drawn given the others of their row; all else is untouched.

        Args:
            df: with the columns of the fitted table; values may be missing in any.
            draws: how many completed tables: with several, how they differ shows how sure the values are (Rubin 1987).
            guidance: how strongly to follow what is known.
            steps: of the sampler.
            sampler: instead of the preset's.
            batch_size: rows drawn at a time.
            random_state: seed; that of the model by default.

        Returns:
            The completed table, or a list of `draws` of them. Where nothing that is drawn agrees with a constraint and the known
            values of the row, its holes stay, and a warning says so.

        Raises:
            UserError: for a missing column, another dtype than at fit, or a level never seen; by name.
        """
        run = self._run()
        if draws < 1:
            raise UserError(f"draws: at least one, not {draws}")
        given = {name: ~mask for name, mask in run.codec.missing(df).items()}
        table = run.codec.coded(modelled(run.codec.rules, df))
        rows = torch.nonzero(~torch.cat(list(given.values()), 1).all(1))[:, 0]
        diffusion, sampler, size = self._drawing(guidance, steps, sampler, batch_size)
        calls = draws * -(-len(rows) // size) * sampler.steps
        with self._seeded(random_state), stages(calls, not self.verbose) as stage:

            def redraw(rows: Tensor) -> State:
                parts = []
                for part in rows.split(size):
                    shown = ({k: v[part] for k, v in of.items()} for of in (given, state))
                    parts.append(
                        generate.fill(diffusion, run.codec, sampler, len(part), *shown, watch=watch, present=True)
                    )
                return tree_map(torch.Tensor.cpu, tree_cat(parts))

            def watch(*_: Any) -> None:
                stage(f"imputing {len(rows):,} rows")

            tables = []
            for _ in range(draws):
                state = table.states(slice(None), None)  # each with ties of its own
                tables.append(completed(run.codec, df, dict(state), rows, redraw))
        return tables[0] if draws == 1 else tables

    def complete(self, rows: pd.DataFrame, **how: Any) -> pd.DataFrame:
        """Whole rows from some of their columns: those that `rows` lacks, and values missing in it, are drawn given the others.

        Args:
            rows: some columns of the fitted table.
            how: arguments of `impute`.

        Raises:
            UserError: for a column that the fitted table has not.
        """
        names = [column.name for column in self._run().codec.outer.columns if not column.drop]
        for name in rows.columns:
            if name not in names:
                raise UserError(f"column {name!r} is not in the table that was fitted; drop it")
        absent = pd.DataFrame(
            {name: [None] * len(rows) for name in names if name not in rows}, rows.index, dtype=object
        )
        return self.impute(pd.concat([rows, absent], axis=1)[names], **how)

    def losses(self, df: pd.DataFrame, draws: int = 16, seed: int = 0) -> np.ndarray:
        """(n,) the training loss of each row, averaged over noise: what a loss-based membership attack sees."""
        run = self._run()
        with drawing(seed, next(run.diffusion.parameters()).device):
            return row_losses(run.diffusion, run.codec, df, draws)


def _joined(X: Any, y: Any) -> pd.DataFrame:
    if not isinstance(X, pd.DataFrame):
        raise UserError(f"fit takes a pandas DataFrame, not {type(X).__name__}; pd.DataFrame(X) makes one of an array")
    if y is None:
        return X
    name = getattr(y, "name", None)
    name = "target" if name is None else name
    if len(y) != len(X) or name in X.columns:
        reason = f"{len(y)} values for {len(X)} rows" if len(y) != len(X) else "the table has a column of this name"
        raise UserError(f"y: {name!r} does not fit the table: {reason}")
    made = X.copy(deep=False)
    made[name] = y.set_axis(X.index) if isinstance(y, pd.Series) else np.asarray(y)
    return made
