"""The measures of a run: its rows beside real rows held out and beside independent columns."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from diffusionkit.core import guided
from diffusionkit.errors import UserError
from diffusionkit.tabular.report import QualityReport, quality_report
from diffusionkit.tabular.text import number, stages


def evaluate(
    run: Any, n: int | None = None, seed: int = 0, target: str | None = None, pictures: bool = True
) -> dict[str, Any]:
    """See `TabularDomain.evaluate`."""
    source = run.recipe.build("data")
    parts = source.load()
    train, test = parts["train"], parts.get("test", parts.get("val"))
    target = target or source.target or None
    if target is not None and target not in train.columns:
        raise UserError(f"target: there is no column {target!r} (columns: {', '.join(map(str, train.columns))})")
    fake = rows(run, len(train) if n is None else n, seed)
    kinds = run.codec.outer.kinds
    shown = [name for name, kind in kinds.items() if kind not in ("identifier", "constant")]
    train, fake, test = (None if frame is None else frame[shown] for frame in (train, fake, test))
    report = quality_report(
        train, fake, test, target, seed, {name: kinds[name] for name in shown}, n_jobs=torch.get_num_threads()
    )
    if pictures:
        report.plot(run.folder / "pictures")
    return {"seed": seed, **report.to_dict(), "table": _table(report)}


def rows(run: Any, n: int, seed: int) -> pd.DataFrame:
    """n rows of a run, drawn as its recipe says."""
    sampling, sampler = run.recipe.sampling(), run.sampler()
    diffusion = guided(run.diffusion, sampling.guidance, sampling.clip)
    torch.manual_seed(seed)
    frames = []
    with stages(-(-n // sampling.batch_size), False) as stage:
        for first in range(0, n, sampling.batch_size):
            stage(f"drawing {n:,} rows")
            indices = torch.arange(first, min(first + sampling.batch_size, n))
            frames.append(run.codec.decode(run.domain.draw(diffusion, run.codec, sampler, indices), first))
    return pd.concat(frames, ignore_index=True)


def _table(report: QualityReport) -> list[dict[str, str]]:
    """The rows that the command prints."""
    return [
        {
            "measure": row.measure,
            "model": number(row.fake),
            "real rows": number(row.floor),
            "independent": number(row.independent),
            "better": row.better,
            "comment": row.comment,
        }
        for row in report.table.itertuples()
    ]
