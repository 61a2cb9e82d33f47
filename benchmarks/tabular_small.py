"""Machine-learning efficiency on TabDDPM's own tables, with the reference's CatBoost.

As in yandex-research/tab-ddpm b476257, `scripts/eval_catboost.py` and `scripts/eval_seeds.py`: numbers as floats and categories
as words, the settings of `tuned_models/catboost`, at most 2,000 rounds, stopped when the real validation part has not gained for
50; judged on the real test part by macro F1 at .5 or R2. The target of a regression is not standardised: the trees' splits and R2
do not depend on it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import f1_score, r2_score

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.tabular_quality import fit, folder, key
from benchmarks.tabular_tables import SMALL, Small, Table, load
from diffusionkit.tabular import metrics

_NAMES = ("learning_rate", "depth", "l2_leaf_reg", "bagging_temperature", "leaf_estimation_iterations")


def small(cells: Cells, options: Namespace) -> None:
    """CatBoost trained on fakes and judged on real rows, on the tables and with the settings of the TabDDPM paper."""
    lines = []
    for name in options.tables or SMALL:
        table, published = load(name, options.data, options.rows), SMALL[name]
        seeds = list(range(options.boosts))
        real = cells.get(f"real/{table.label}/{options.boosts}", lambda t=table, s=seeds: {"scores": _real(t, s)})
        runs = [_trained(cells, table, seed, options) for seed in options.seeds]
        lines.append(_line(published, table, real, runs, options.preset))
    show(lines)
    reached = [line["reached"] for line in lines]
    above = sum("above real" in word for word in reached)
    there = sum(word != "MISSED" for word in reached)
    say(f"\nat least TabDDPM on {there} of {len(lines)} (gate 4 of 5, ambition 5), above real on {above} (ambition 2)")


def _real(table: Table, seeds: Sequence[int]) -> list[float]:
    return [judge(table, table.train, seed) for seed in seeds]


def _trained(cells: Cells, table: Table, seed: int, options: Namespace) -> Cell:
    count = options.sample_rows or SMALL[table.name].rows
    name = key(options.preset, table.label, seed, options)

    def make() -> Cell:
        model, fitted = fit(table, table.train, options.preset, seed, options.minutes, options.steps, options.device)
        model.save(folder(options.models, name))
        scores, distances = [], []
        for number in range(options.samples):
            fake = model.sample(count, random_state=1000 * seed + number)
            distances.append(closest(table, fake))
            scores += [judge(table, fake, boost) for boost in range(options.boosts)]
        return {"scores": scores, "distances": distances, "fit_seconds": fitted, "rows": count}

    return cells.get(f"{name}/{options.samples}x{options.boosts}", make)


def judge(table: Table, rows: pd.DataFrame, seed: int) -> float:
    """Macro F1 or R2 on the real test part of CatBoost fitted on `rows`."""
    from catboost import CatBoostClassifier, CatBoostRegressor

    published = SMALL.get(table.name)
    parts = [rows, table.parts["val"], table.test]
    (x, levels), *others = (_features(table, part) for part in parts)
    wanted = np.unique(table.train[table.target].to_numpy())  # the classes in the order of their codes 0, 1, ...
    regression = table.task == "regression"
    y, *ys = (
        part[table.target].to_numpy(float) if regression else np.searchsorted(wanted, part[table.target].to_numpy())
        for part in parts
    )
    if len(np.unique(y)) < 2:  # nothing to learn from, which CatBoost refuses
        return 0.0 if regression else float(f1_score(ys[1], np.full(len(ys[1]), y[0]), average="macro"))
    settings = dict(zip(_NAMES, published.catboost, strict=True)) if published else {}
    made = (CatBoostRegressor if regression else CatBoostClassifier)(
        **settings, iterations=2000, early_stopping_rounds=50, od_pval=0.001, eval_metric="RMSE" if regression else "TotalF1",
        cat_features=levels, random_seed=seed, thread_count=torch.get_num_threads(), verbose=False,
        allow_writing_files=False,
    )  # fmt: skip
    made.fit(x, y, eval_set=(others[0][0], ys[0]))
    guess = made.predict(others[1][0])
    if regression:
        return float(r2_score(ys[1], guess))
    return float(f1_score(ys[1], np.asarray(guess).ravel().astype(int), average="macro"))


def _features(table: Table, rows: pd.DataFrame) -> tuple[pd.DataFrame, list[int]]:
    """Numbers first, as in the reference, and where the categories stand."""
    rows = _doubled(table, rows).drop(columns=table.target)
    levels = [name for name in rows if name in table.columns]
    numbers = [name for name in rows if name not in levels]
    found = pd.concat([rows[numbers].astype(float), rows[levels].astype(str)], axis=1)
    return found, list(range(len(numbers), len(found.columns)))


def _doubled(table: Table, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with what stands twice in the reference's table."""
    published = SMALL.get(table.name)
    return rows.assign(**{f"{name} again": rows[name] for name in published.twice} if published else {})


def closest(table: Table, fake: pd.DataFrame) -> float:
    """The median distance to the closest record as the reference has it."""
    kinds: dict[Any, str] = dict(table.kinds)
    train, rows = (_doubled(table, part) for part in (table.train, fake))
    kinds |= {name: "continuous" for name in train if name not in kinds}
    return metrics.median_distance(train, rows, columns=kinds)


def _line(published: Small, table: Table, real: Cell, runs: list[Cell], preset: str) -> dict[str, str]:
    scores = [score for run in runs for score in run["scores"]]
    mean, best = float(np.mean(scores)), max(float(np.mean(real["scores"])), published.real)
    reached = "MISSED" if mean < published.tabddpm else "above real" if mean > best else "TabDDPM"
    distances = [distance for run in runs for distance in run["distances"]]
    return {
        "table": f"{table.name}, {'R2' if table.task == 'regression' else 'macro F1'}",
        preset: f"{mean:.3f} ± {np.std(scores):.3f}",
        "reached": reached,
        "real, here": f"{np.mean(real['scores']):.3f} ± {np.std(real['scores']):.3f}",
        "real": f"{published.real:.3f}",
        "TabDDPM": f"{published.tabddpm:.3f}",
        "SMOTE": f"{published.smote:.3f}",
        "median DCR": f"{np.mean(distances):.3f}",
        "of TabDDPM, SMOTE": " ".join(f"{value:.3f}" for value in published.distances),
        "seconds to fit": f"{np.mean([run['fit_seconds'] for run in runs]):.0f}",
    }
