"""How good synthetic rows are: every measure beside what real rows get and what independent columns get."""

from __future__ import annotations

import html
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from diffusionkit.tabular import metrics
from diffusionkit.tabular.coded import coded, kinds_of
from diffusionkit.tabular.measures import Work, measures, prepare
from diffusionkit.tabular.text import aligned, number, percent, records, stages

ROWS = 100_000  # of each table measured at most
NOTES = 8  # columns printed that differ in dtype and the like


@dataclass(frozen=True)
class QualityReport:
    """What `quality_report` found; print it, or take `table`.

    Attributes:
        table: rows of measure, fake, floor, independent, better ("lower" or "higher") and comment; shares, not per cent.
        shape: the error of each column.
        trend: the error of each pair of columns.
        fidelity: what user code would trip over in each column, "" if nothing.
        facts: numbers of rows, seed, edges, which boosting, what the floor is.
    """

    table: pd.DataFrame
    shape: dict[Hashable, float]
    trend: pd.DataFrame
    fidelity: dict[Hashable, str]
    facts: dict[str, Any]
    frames: tuple[pd.DataFrame, pd.DataFrame] = field(repr=False)
    kinds: dict[Hashable, str] = field(repr=False)

    def __str__(self) -> str:
        return "\n".join([self._head(), "", aligned(_shown(self.table)), "", *self._tail()])

    def _repr_html_(self) -> str:
        tail = "<br>".join(html.escape(line) for line in self._tail())
        return f"<p>{html.escape(self._head())}</p>{_shown(self.table).to_html(index=False)}<p>{tail}</p>"

    def _head(self) -> str:
        rows = self.facts["rows"]
        return f"{rows['fake']:,} synthetic rows against {rows['real']:,} real ones. Floor: {self.facts['floor']}."

    def _tail(self) -> list[str]:
        worst = sorted(self.shape.items(), key=lambda entry: -entry[1])[:3]
        lines = ["Largest shape errors: " + ", ".join(f"{name} {percent(error)}" for name, error in worst)]
        upper = np.triu(np.ones(self.trend.shape, dtype=bool), 1) & self.trend.notna().to_numpy()
        pairs = np.argwhere(upper)
        if len(pairs):
            errors = self.trend.to_numpy()[upper]
            names = list(self.trend.columns)
            order = np.argsort(-errors, kind="stable")[:3]
            found = ", ".join(f"{names[i]} with {names[j]} {percent(errors[k])}" for k in order for i, j in [pairs[k]])
            lines.append(f"Largest trend errors: {found}")
        differing = [f"Column {name!r}: {words}" for name, words in self.fidelity.items() if words]
        more = [f"and {len(differing) - NOTES} columns more"] if len(differing) > NOTES else []
        return lines + differing[:NOTES] + more

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can keep it; labels as strings, what was not measured as None."""
        return {
            **self.facts,
            "measures": records(self.table),
            "shape": {str(name): error for name, error in self.shape.items()},
            "fidelity": {str(name): words for name, words in self.fidelity.items() if words},
        }

    def plot(self, path: str | Path) -> list[Path]:
        """Draws marginals.png, correlations.png and embedding.png into a folder, which is made if need be.

        Returns:
            The three paths.

        Raises:
            UserError: if the folder cannot be written.
        """
        from diffusionkit.tabular import plots

        folder = Path(path)
        names = ("marginals", "correlations", "embedding")
        return [getattr(plots, name)(*self.frames, folder / f"{name}.png", columns=self.kinds) for name in names]


def quality_report(
    real: pd.DataFrame,
    fake: pd.DataFrame,
    test: pd.DataFrame | None = None,
    target: Hashable | None = None,
    seed: int = 0,
    columns: Mapping[Hashable, str] | None = None,
    rows: int = ROWS,
    edges: Literal["shared", "separate"] = "shared",
    n_jobs: int | None = 1,
    quiet: bool = False,
) -> QualityReport:
    """Measures synthetic rows against real ones, with each measure's floor and the figure of independent columns.

    The floor is what real rows get: the test part against the real rows or, without a test part, one half of the real rows
    against the other. Errors of shape and trend there are multiplied by sqrt((1/n + 1/m) / (1/a + 1/b)) to bring the noise of
    samples of a and b rows to that of n real and m fake ones. "independent" draws each column from the real rows on its own.

    Args:
        real: rows that the model was fitted on.
        fake: its rows; the same columns.
        test: real rows that the model has not seen; needed for the distance to closest record.
        target: label of the column that machine-learning efficiency predicts; left out without one.
        seed: of all draws.
        columns: kinds of columns by label; inferred from `real` where not given.
        rows: of each table that are measured at most; comparisons of all pairs of rows take at most 10,000 of them.
        edges: of the bins of `trend`.
        n_jobs: threads of the boosting; None takes all, which is slower where others use the cores too.
        quiet: show no progress.

    Raises:
        UserError: if the columns are not the same, or a table is empty.
    """
    kinds = kinds_of(real, columns)
    given = (real, fake) if test is None else (real, fake, test)
    tables = coded(*given, columns=kinds, names=("the real table", "the synthetic table", "the test table"))
    work = prepare(tables, target, rows, edges, seed, n_jobs)
    found = []
    wanted = measures(work)
    with stages(3 * len(wanted), quiet) as stage:
        for measure in wanted:
            stage(f"{measure.names[0]} of synthetic rows")
            ours = measure.of(work.real, work.fake)
            stage(f"{measure.names[0]} of real rows")
            floor = measure.floor() if measure.floor else measure.of(work.base, work.other)
            stage(f"{measure.names[0]} of independent columns")
            alone = measure.of(work.real, work.independent)
            floor = [value * (work.scale if measure.scaled else 1) for value in floor]
            found += zip(measure.names, ours, floor, alone, measure.better, measure.comments, strict=True)
    differences = metrics.fidelity(real, fake, kinds)
    found.append(_fidelity(differences, real, test, kinds))
    return QualityReport(
        table=pd.DataFrame(found, columns=["measure", "fake", "floor", "independent", "better", "comment"]),
        shape=metrics.shape(work.real, work.fake),
        trend=metrics.trend(work.real, work.fake, edges=edges, seed=seed),
        fidelity=differences,
        facts=_facts(work),
        frames=(real, fake),
        kinds=kinds,
    )


def _facts(work: Work) -> dict[str, Any]:
    base, other = len(work.base), len(work.other)
    what = (
        f"{other:,} test rows against {base:,} real ones"
        if work.test is not None
        else f"halves of the real rows, {base:,} and {other:,}"
    )
    return {
        "rows": {"real": len(work.real), "fake": len(work.fake), "floor": [base, other], "neighbours": work.near},
        "seed": work.seed,
        "edges": work.edges,
        "boosting": metrics.booster(),
        "floor": f"{what}, errors scaled to the sizes at hand",
    }


def _fidelity(
    differences: dict[Hashable, str], real: pd.DataFrame, test: pd.DataFrame | None, kinds: dict[Hashable, str]
) -> tuple[Any, ...]:
    def agreeing(found: dict[Hashable, str]) -> float:
        return sum(not words for words in found.values()) / len(found)

    comment = "columns whose dtype, bounds, levels and decimals agree"
    floor = agreeing(metrics.fidelity(real, test, kinds)) if test is not None else float("nan")
    return "dtype fidelity", agreeing(differences), floor, 1.0, "higher", comment


_PERCENT = ("shape error", "trend error", "missing values", "exact copies", "levels found", "dtype fidelity")


def _shown(table: pd.DataFrame) -> pd.DataFrame:
    """The table with figures as they are read."""
    shown = table.copy().astype(object)
    for name in ("fake", "floor", "independent"):
        shown[name] = [
            percent(value) if measure in _PERCENT else number(value)
            for measure, value in zip(table["measure"], table[name], strict=True)
        ]
    return shown
