"""The tabular domain: what the commands ask of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from diffusionkit.domain import Dataset, Domain


class TabularDomain(Domain):
    """Tables as states {"num": (B, D), "cat": (B, K)}: normal numbers and codes."""

    name = "tabular"
    data = {
        "randhie": "diffusionkit.tabular.data:Rand",
        "csv": "diffusionkit.tabular.data:Csv",
        "table": "diffusionkit.tabular.data:Named",
        "frame": "diffusionkit.tabular.data:Frame",
    }
    backbones = {
        "mlp": "diffusionkit.tabular.backbones.mlp:ResidualMLP",
        "tabddpm": "diffusionkit.tabular.backbones.tabddpm:TabDDPM",
        "transformer": "diffusionkit.tabular.backbones.transformer:ColumnTransformer",
        "mtabgen": "diffusionkit.tabular.backbones.mtabgen:MTabGen",
    }
    codec = "diffusionkit.tabular.codec:TableCodec"
    ending = ".csv"
    single = False
    instead = {
        "interpolate": "rows hold codes, and nothing lies between two codes",
        "inpaint": "use `sample --where`, or `impute` in Python",
        "edit": "use `sample --where`",
        "restore": "use `impute` in Python",
        "upscale": "a table has no resolution",
        "dock": "a table has no pockets",
    }

    def sketch(self, data: Any) -> dict[str, Any]:
        return dict.fromkeys(("numbers", "sizes", "owners", "positions", "shares", "target"), ...)

    def prepare(self, data: Any) -> tuple[Any, dict[str, Dataset]]:
        from diffusionkit.tabular.prepare import prepared

        return prepared(data, data.load())

    def length(self, rows: int, batch_size: int | None = None) -> dict[str, int]:
        """About 100 passes, in batches of at most a twentieth of the table; small tables would be learned by heart."""
        size = batch_size or min(max(2 ** int(math.log2(max(rows / 20, 1))), 32), 1024)
        return {"batch_size": size, "steps": min(max(round(100 * rows / size), 500), 6000)}

    def condition(self, codec: Any, indices: Any, *, where: str | None = None, balance: str | None = None) -> Any:
        """What the rows must be like, or None.

        Args:
            codec: knows the columns.
            indices: running numbers (B,).
            where: conditions such as "income=>50K; age=30..40; hours>=40; education=Masters|Doctorate".
            balance: a column whose levels are to be equally frequent.

        Raises:
            UserError: for a column, level or range that there is not.
        """
        from diffusionkit.tabular.conditions import read

        return read(codec, where, balance) or None

    def draw(
        self,
        diffusion: Any,
        codec: Any,
        sampler: Any,
        indices: Any,
        watch: Callable[..., None] | None = None,
        **wanted: Any,
    ) -> Any:
        from diffusionkit.tabular.generate import draw

        return draw(diffusion, codec, sampler, indices, self.condition(codec, indices, **wanted), watch)

    def picture(self, codec: Any, x: Any, path: Path, columns: int | None = None) -> None:
        from diffusionkit.tabular.plots import marginals

        kinds = {name: kind for name, kind in codec.outer.kinds.items() if kind not in ("identifier", "constant")}
        real, drawn = codec.independent(len(x["cat"])), codec.decode(x)
        marginals(real[list(kinds)], drawn[list(kinds)], path, kinds)

    def writer(self, codec: Any, path: str | Path, n: int, **wanted: Any) -> Any:
        from diffusionkit.tabular.conditions import overwrite
        from diffusionkit.tabular.export import open_writer

        asked = self.condition(codec, [], **wanted)
        return open_writer(codec, path, n, partial(overwrite, codec, asked) if asked else None)

    def evaluate(
        self,
        run: Any,
        *,
        n: int | None = None,
        seed: int = 0,
        target: str | None = None,
        pictures: bool = True,
        privacy: bool = False,
    ) -> dict[str, Any]:
        """Shape, trend, detection, coverage, usefulness and distances of a run's rows, beside their floors.

        Args:
            run: a loaded run.
            n: how many rows to draw; as many as the training part has by default.
            seed: of the rows and of the measures.
            target: the column that is predicted for the usefulness of the rows; the data's own by default.
            privacy: measure as well what the rows, and the weights, give away of the training part.
            pictures: draw marginals, correlations and an embedding into the run folder.

        Returns:
            A tree of numbers; `table` holds the rows that the command prints.

        Raises:
            UserError: if the data or an option does not allow it.
        """
        from diffusionkit.tabular.evaluate import evaluate

        return evaluate(run, n=n, seed=seed, target=target, pictures=pictures, privacy=privacy)
