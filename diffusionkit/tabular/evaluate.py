"""The measures of a run: its rows beside real rows held out and beside independent columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch

from diffusionkit.core import guided
from diffusionkit.errors import UserError
from diffusionkit.tabular.losses import row_losses
from diffusionkit.tabular.prepare import known
from diffusionkit.tabular.privacy import PrivacyReport, privacy_report
from diffusionkit.tabular.report import QualityReport, quality_report
from diffusionkit.tabular.text import number, stages

_PICTURES = {
    "pictures/marginals.png": "Each column's distribution in real and in synthetic rows.",
    "pictures/correlations.png": "How strongly each pair of columns is tied, in real and in synthetic rows, and the difference.",
    "pictures/embedding.png": "Real and synthetic rows on one map.",
}


def evaluate(
    run: Any,
    n: int | None = None,
    seed: int = 0,
    target: str | None = None,
    pictures: bool = True,
    privacy: bool = False,
) -> dict[str, Any]:
    """See `TabularDomain.evaluate`."""
    source = run.recipe.build("data")
    parts = source.load()
    train, test = parts["train"], parts.get("test", parts.get("val"))
    if privacy and test is None:
        raise UserError("privacy: a part that was held out of the training is needed; set data.test or data.split")
    target = target or source.target or None
    if target is not None and target not in train.columns:
        raise UserError(f"target: there is no column {target!r} (columns: {', '.join(map(str, train.columns))})")
    fake = rows(run, len(train) if n is None else n, seed)
    kinds = run.codec.outer.kinds
    shown = [name for name, kind in kinds.items() if kind not in ("identifier", "constant")]
    losses = _losses(run, train, test, seed) if privacy else None
    train, fake, test = (None if frame is None else frame[shown] for frame in (train, fake, test))
    report = quality_report(
        train, fake, test, target, seed, {name: kinds[name] for name in shown}, n_jobs=torch.get_num_threads()
    )
    found = {"seed": seed, **report.to_dict(), "table": _table(report)}
    if pictures:
        report.plot(run.folder / "pictures")
        found["pictures"] = _PICTURES
    if privacy:
        threads, columns = torch.get_num_threads(), {name: kinds[name] for name in shown}
        private = privacy_report(train, test, fake, losses=losses, seed=seed, columns=columns, n_jobs=threads)
        found |= {"privacy": private.to_dict(), "table": [*found["table"], *_private(private)]}
    return found


def _losses(run: Any, train: pd.DataFrame, test: pd.DataFrame, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The losses of both parts' rows, of those that the codec knows."""
    torch.manual_seed(seed)
    return tuple(row_losses(run.diffusion, run.codec, known(run.codec, part), 8) for part in (train, test))


def _private(report: PrivacyReport) -> list[dict[str, str]]:
    return [
        {
            "measure": row.measure,
            "model": number(row.value),
            "real rows": number(row.ideal),
            "independent": "–",
            "better": "the same",
            "comment": row.comment,
        }
        for row in report.table.itertuples()
    ]


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
