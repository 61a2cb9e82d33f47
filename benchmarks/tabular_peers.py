"""Other ways to make rows, on one table: SMOTE, CTGAN, TVAE, TabDDPM at equal time, independent columns."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.preprocessing import MinMaxScaler

from benchmarks.cells import Cell, Cells, say, show
from benchmarks.tabular_figures import Figures, beaten, comparison
from benchmarks.tabular_quality import alone, finished, fit, floor, folder, trained
from benchmarks.tabular_tables import Table, load
from benchmarks.timing import timed

Made = tuple[pd.DataFrame, float, float]  # rows, seconds to fit, seconds to sample


def peers(cells: Cells, options: Namespace, ours: Cells) -> None:
    """Every column of the quality table for the default preset and others.

    Args:
        cells: the others' figures.
        options: of the command.
        ours: the cells of `quality`, which hold those of the default preset, of the floor and of independent columns.
    """
    for name in options.tables or ("adult",):
        table = load(name, options.data, options.rows)
        real = floor(ours, table)
        models = {options.preset: [trained(ours, table, options.preset, seed, options) for seed in options.seeds]}
        seconds = [run["fit_seconds"] or 0.0 for run in models[options.preset]]
        for peer, make in PEERS.items():
            try:
                models[peer] = [_peer(cells, table, peer, make, seed, options) for seed in options.seeds]
            except ImportError as error:
                say(f"{peer} was skipped: {error.name or error} is not installed")
        if options.preset != "tabddpm":
            models["tabddpm"] = [
                _tabddpm(cells, table, seed, spent, options) for seed, spent in zip(options.seeds, seconds, strict=True)
            ]
        models["independent"] = [alone(ours, table)]
        show(comparison(name, models, real))
        say("\n" + "\n".join(beaten(models, real)))


def _peer(
    cells: Cells, table: Table, name: str, make: Callable[[Table, int, Namespace], Made], seed: int, options: Namespace
) -> Figures:
    def cell() -> Cell:
        return finished(table, *make(table, seed, options))

    return cells.get(f"{name}/{table.label}/{seed}", cell)["figures"]


def _tabddpm(cells: Cells, table: Table, seed: int, seconds: float, options: Namespace) -> Figures:
    """The TabDDPM preset, trained for as long as the other one."""
    name = f"tabddpm/{table.label}/{seed}/equal"

    def make() -> Cell:
        model, fitted = fit(table, table.train, "tabddpm", seed, seconds / 60, None, options.device)
        model.save(folder(options.models, name))
        fake, drawn = timed(lambda: model.sample(len(table.train), random_state=seed))
        return finished(table, fake, fitted, drawn) | {"steps": model.history_[-1]["step"]}

    return cells.get(name, make)["figures"]


# ---- others ----


def smote(table: Table, seed: int, options: Namespace) -> Made:
    """imbalanced-learn's SMOTENC (SMOTE where there are no levels) of 5 neighbours, as many new rows of each class as it has.

    Numbers are brought to [0, 1] first, and whole numbers rounded afterwards, as yandex-research/tab-ddpm does it.
    """
    from imblearn.over_sampling import SMOTE, SMOTENC

    features, target = table.train.drop(columns=table.target), table.train[table.target]
    levels = [name for name in features if table.kinds[name] not in ("continuous", "integer")]
    numbers = [name for name in features if name not in levels]
    scaler = MinMaxScaler()

    def make() -> pd.DataFrame:
        scaled = features[levels].astype(str)
        if numbers:
            scaled = pd.concat([pd.DataFrame(scaler.fit_transform(features[numbers]), columns=numbers), scaled], axis=1)
        counts = {level: 2 * count for level, count in target.value_counts().items()}
        how = {"sampling_strategy": counts, "k_neighbors": 5, "random_state": seed}
        sampler = SMOTENC(categorical_features=levels, **how) if levels else SMOTE(**how)
        rows, classes = sampler.fit_resample(scaled, target)
        rows, classes = (found.iloc[len(target) :].reset_index(drop=True) for found in (rows, classes))
        if numbers:
            rows[numbers] = scaler.inverse_transform(rows[numbers])
        return _like(table.train, rows.assign(**{table.target: classes}))

    fake, seconds = timed(make)
    return fake, 0.0, seconds


def _like(frame: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Rows with the columns and dtypes of a frame, levels back from their texts, whole numbers rounded."""
    columns = {}
    for name in frame:
        values = rows[name]
        if not pd.api.types.is_numeric_dtype(values.dtype):
            known = {str(level): level for level in frame[name].dropna().unique()}
            values = values.astype(str).map(known)
        elif frame[name].dtype.kind in "iu":
            values = values.round()
        columns[name] = values.astype(frame[name].dtype)
    return pd.DataFrame(columns)


def ctgan(table: Table, seed: int, options: Namespace) -> Made:
    """CTGAN of the package of that name, with its own settings."""
    from ctgan import CTGAN

    return _adversary(CTGAN(epochs=options.epochs), table, seed)


def tvae(table: Table, seed: int, options: Namespace) -> Made:
    """TVAE of the package ctgan, with its own settings."""
    from ctgan import TVAE

    return _adversary(TVAE(epochs=options.epochs), table, seed)


def _adversary(model: object, table: Table, seed: int) -> Made:
    levels = [name for name in table.train if table.kinds[name] not in ("continuous", "integer")]
    words = table.train.astype(dict.fromkeys(levels, object))
    model.set_random_state(seed)  # type: ignore[attr-defined]
    np.random.seed(seed)
    _, fitted = timed(lambda: model.fit(words, levels))  # type: ignore[attr-defined]
    fake, drawn = timed(lambda: model.sample(len(table.train)))  # type: ignore[attr-defined]
    return _like(table.train, fake), fitted, drawn


PEERS: dict[str, Callable[[Table, int, Namespace], Made]] = {"smote": smote, "ctgan": ctgan, "tvae": tvae}
