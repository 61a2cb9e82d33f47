"""What is measured of synthetic rows, and how figures are shown beside goals, floors and what others have published."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
import torch

from benchmarks.tabular_tables import DCR, GOALS, PUBLISHED, Table
from diffusionkit.tabular import metrics
from diffusionkit.tabular.coded import coded

Figures = dict[str, float | None]


class Measure(NamedTuple):
    """How a figure is shown, and which is better: "lower", "higher", or "floor" for nearer to what real rows get."""

    label: str
    better: str
    percent: bool = False


MEASURES = {
    "c2st": Measure("C2ST, boosting, against train", "higher"),
    "c2st_test": Measure("C2ST, boosting, against test", "higher"),
    "c2st_logistic": Measure("C2ST, logistic", "higher"),
    "shape": Measure("shape error %", "lower", True),
    "trend": Measure("trend error %, shared edges", "lower", True),
    "auc": Measure("MLE AUC", "higher"),
    "auc_below": Measure("MLE AUC, below real by", "lower"),
    "alpha": Measure("alpha-precision %", "higher", True),
    "beta": Measure("beta-recall %", "floor", True),
    "dcr_share": Measure("DCR share", "floor"),
    "copies": Measure("exact copies %", "floor", True),
    "fit_seconds": Measure("seconds to fit", "lower"),
    "sampling_seconds": Measure("seconds to sample", "lower"),
}


def measure(table: Table, fake: pd.DataFrame, seed: int = 0) -> Figures:
    """Every figure of some rows, each measured with all rows that its definition allows (100,000 for none here)."""
    threads = torch.get_num_threads()
    train, rows, test = coded(table.train, fake, table.test, columns=table.kinds)
    alpha, beta = metrics.alpha_beta(train, rows, seed)
    found = {
        "c2st": metrics.c2st(train, rows, seed=seed, n_jobs=threads),
        "c2st_test": metrics.c2st(test, rows, seed=seed, n_jobs=threads),
        "c2st_logistic": metrics.c2st(train, rows, "logistic", seed=seed),
        "shape": metrics.average(metrics.shape(train, rows)),
        "trend": metrics.average(metrics.trend(train, rows, edges="shared")),
        "auc": _usefulness(rows, test, table, seed),
        "alpha": alpha,
        "beta": beta,
        "dcr_share": metrics.dcr_share(train, test, rows, seed),
        "copies": metrics.exact_copies(train, rows),
    }
    return plain(found)


def floor(table: Table, seed: int = 0) -> Figures:
    """What real rows get: the test part against the train part, the errors brought to samples of the train part's size.

    Noise goes with the root of 1/n + 1/m. The AUC is that of real rows, fitted on the train part; the DCR share is .5.
    """
    train, test = coded(table.train, table.test, columns=table.kinds)
    scale = math.sqrt((2 / len(train)) / (1 / len(train) + 1 / len(test)))
    alpha, beta = metrics.alpha_beta(train, test, seed)
    same = metrics.c2st(train, test, seed=seed, n_jobs=torch.get_num_threads())
    found = {
        "c2st": same,
        "c2st_test": same,
        "c2st_logistic": metrics.c2st(train, test, "logistic", seed=seed),
        "shape": scale * metrics.average(metrics.shape(train, test)),
        "trend": scale * metrics.average(metrics.trend(train, test, edges="shared")),
        "auc": _usefulness(train, test, table, seed),
        "alpha": alpha,
        "beta": beta,
        "dcr_share": 0.5,
        "copies": metrics.exact_copies(train, test),
    }
    return plain(found)


def _usefulness(rows: Any, test: Any, table: Table, seed: int) -> float:
    return metrics.efficiency(rows, test, table.target, seed=seed, n_jobs=torch.get_num_threads())["auc"]


def plain(figures: Mapping[str, float]) -> Figures:
    """As JSON keeps them: what is no number is None."""
    return {key: float(value) if math.isfinite(value) else None for key, value in figures.items()}


def against(figures: Figures, real: Figures) -> Figures:
    """The figures with the distance of the AUC to that of real rows."""
    if figures.get("auc") is None or real.get("auc") is None:
        return figures
    return {**figures, "auc_below": real["auc"] - figures["auc"]}


def distance(key: str, value: float, real: float | None) -> float:
    """How far from good a figure is; lower is better."""
    better = MEASURES[key].better
    if key == "dcr_share":  # anywhere within is noise
        return max(DCR[0] - value, value - DCR[1], 0.0)
    if better == "floor":
        return abs(value - (real or 0.0))
    return value if better == "lower" else -value


def summary(key: str, values: Sequence[float | None]) -> str:
    """Mean and half the range over seeds."""
    found = [value for value in values if value is not None]
    if not found:
        return ""
    mean, spread = sum(found) / len(found), (max(found) - min(found)) / 2
    if key.endswith("seconds"):
        return f"{mean:.1f}"
    factor, digits = (100, 2) if MEASURES[key].percent else (1, 3)
    return f"{factor * mean:.{digits}f}" + (f" ± {factor * spread:.{digits}f}" if len(found) > 1 else "")


def mean(runs: Sequence[Figures], key: str) -> float | None:
    """Over the runs that have the figure."""
    found = [run[key] for run in runs if run.get(key) is not None]
    return sum(found) / len(found) if found else None


def met(table: str, key: str, value: float | None) -> str:
    """ "ambition", "gate" or "MISSED"; "" where nothing is asked for."""
    if value is None:
        return ""
    if key == "dcr_share":
        return "gate" if DCR[0] <= value <= DCR[1] else "MISSED"
    if table not in GOALS.get(key, {}):
        return ""
    sign = 1 if MEASURES[key].better == "lower" else -1
    reached = [sign * value <= sign * goal for goal in GOALS[key][table]]
    return "ambition" if reached[1] else "gate" if reached[0] else "MISSED"


def goals(table: str, key: str) -> str:
    """The gate and the ambition as they are read."""
    if key == "dcr_share":
        return f"{DCR[0]} to {DCR[1]}"
    pair = GOALS.get(key, {}).get(table)
    return "" if pair is None else " / ".join(summary(key, [value]) for value in pair)


def comparison(table: str, models: Mapping[str, Sequence[Figures]], real: Figures) -> list[dict[str, str]]:
    """A row for each figure; the first model is the one that the goals are for.

    Args:
        table: its name.
        models: for each of them its runs.
        real: the floor.
    """
    ours = next(iter(models))
    runs = {name: [against(run, real) for run in found] for name, found in models.items()}
    rows = []
    for key, kind in MEASURES.items():
        row = {"measure": kind.label}
        row |= {name: summary(key, [run.get(key) for run in found]) for name, found in runs.items()}
        row |= {"goal": goals(table, key), "reached": met(table, key, mean(runs[ours], key))}
        row["real rows"] = "" if real.get(key) is None else summary(key, [real[key]])
        for name, tables in PUBLISHED.items():
            figure = tables.get(table, {}).get(key)
            row[name] = "" if figure is None else summary(key, [figure])
        rows.append(row)
    return rows


def beaten(models: Mapping[str, Sequence[Figures]], real: Figures) -> list[str]:
    """For each other model, in which columns but time to fit the first one is behind it."""
    ours, *others = models
    lines = []
    for other in others:
        behind = [
            kind.label
            for key, kind in MEASURES.items()
            if key not in ("fit_seconds", "auc_below")
            and None not in (pair := (mean(models[ours], key), mean(models[other], key)))
            and distance(key, pair[0], real.get(key)) > distance(key, pair[1], real.get(key))  # type: ignore[arg-type]
        ]
        lines.append(f"{ours} is not behind {other} in any column" + (f" but {', '.join(behind)}" if behind else ""))
    return lines
