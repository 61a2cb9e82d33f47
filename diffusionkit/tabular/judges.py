"""Measures by classifiers: can one tell fake from real, and is one that was trained on fakes of use."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Mapping
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score, log_loss, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from diffusionkit.errors import UserError
from diffusionkit.tabular.coded import Coded, Table, coded, features

DEPTHS = (4, 8)  # of the trees, chosen by the validation part
VALIDATION = 9  # every ninth of the training rows
_ROUNDS, _PATIENCE = 500, 25

Kinds = Mapping[Hashable, str] | None
Predict = Callable[[Any], np.ndarray]


@cache
def booster() -> str:
    """Which gradient boosting is at hand: "XGBoost" with its version, or scikit-learn's."""
    if find_spec("xgboost"):
        import xgboost

        return f"XGBoost {xgboost.__version__}"
    return "scikit-learn's histogram boosting"


def c2st(
    real: Table,
    fake: Table,
    classifier: Literal["boosting", "logistic"] = "boosting",
    folds: int = 3,
    seed: int = 0,
    columns: Kinds = None,
    n_jobs: int | None = 1,
) -> float:
    """Classifier two-sample test: 1 if fakes cannot be told from real rows, 0 if always (LogisticDetection of sdmetrics).

    1 - mean over stratified folds of 2 max(.5, AUC) - 1, on equally many rows of either. Levels that are words are one-hot,
    levels that are numbers stay numbers, a missing number is the median and a mark. "logistic" is linear: it is blind to how
    columns belong together, and a model of independent columns scores 1. "boosting" is XGBoost as it comes (scikit-learn's
    histogram boosting where that is not installed, see `booster`).

    Args:
        real: the table to compare with.
        fake: a table of the same columns.
        classifier: "boosting" or "logistic".
        folds: number of parts, each judged by a classifier that has not seen it.
        seed: of the rows drawn from the larger table, and of the folds.
        columns: kinds of columns; inferred from `real` where not given.
        n_jobs: threads of XGBoost; None takes all, which is slower where others use the cores too.

    Raises:
        UserError: if the tables cannot be compared, or have fewer rows than folds.
    """
    if classifier not in ("boosting", "logistic"):
        raise UserError(f"classifier must be 'boosting' or 'logistic', not {classifier!r}")
    a, b = coded(real, fake, columns=columns)
    count, rng = min(len(a), len(b)), np.random.default_rng(seed)
    if count < folds:
        raise UserError(f"telling real from synthetic rows in {folds} folds needs as many rows of either, not {count}")
    blocks = features(a.sample(count, rng), b.sample(count, rng), ordinal=classifier == "boosting" and ordinal())
    x, y = _stacked(blocks), np.repeat([0, 1], count)
    scores = []
    for fit, judge in StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros((len(y), 0)), y):
        model = _logistic() if classifier == "logistic" else _plain_booster(seed, n_jobs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # 100 iterations, as sdmetrics has it
            model.fit(x[fit], y[fit])
        scores.append(2 * max(0.5, roc_auc_score(y[judge], model.predict_proba(x[judge])[:, 1])) - 1)
    return float(1 - np.mean(scores))


def ordinal() -> bool:
    """Whether the boosting at hand wants levels as codes: scikit-learn's takes no sparse features."""
    return not find_spec("xgboost")


def _stacked(blocks: list[Any]) -> Any:
    from scipy import sparse

    return sparse.vstack(blocks, format="csr") if sparse.issparse(blocks[0]) else np.concatenate(blocks)


def _logistic() -> LogisticRegression:
    return LogisticRegression()


def _plain_booster(seed: int, n_jobs: int | None) -> Any:
    if find_spec("xgboost"):
        from xgboost import XGBClassifier

        return XGBClassifier(random_state=seed, n_jobs=n_jobs)
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=seed)


def efficiency(
    train: Table,
    test: Table,
    target: Hashable,
    columns: Kinds = None,
    seed: int = 0,
    n_jobs: int | None = 1,
) -> dict[str, float]:
    """Machine-learning efficiency: gradient boosting fitted on `train`, be it real or fake, and judged on real rows.

    A ninth of `train` is held back by `seed`; XGBoost (learning rate .1, at most 500 rounds of trees of depth 4 and of depth 8)
    stops when its loss there has not fallen for 25 rounds, and the better depth is taken. Rows without the target are left out.

    Args:
        train: rows to learn from.
        test: real rows.
        target: label of the column to predict; a column of numbers is regressed, one of levels classified.
        columns: kinds of columns; inferred from `train` where not given.
        seed: of the part held back and of the trees.
        n_jobs: threads; None takes all.

    Returns:
        "auc" (of many classes the mean of each against the rest), "f1" (mean over classes) and "accuracy"; or, of a number, "r2"
        and "rmse" in the target's unit.

    Raises:
        UserError: if the tables cannot be compared, there is no such column or nothing to learn from.
    """
    a, b = coded(train, test, columns=columns, names=("the training table", "the test table"))
    if target not in a.order:
        raise UserError(f"target: {target!r} is not a column of numbers or levels: choose one of {list(a.order)}")
    if len(a.order) < 2:
        raise UserError(f"target: there is no column to predict {target!r} from")
    a, b = present(a, target), present(b, target)
    if len(a) < 2 or not len(b):
        raise UserError(f"target: column {target!r} is missing nearly everywhere: nothing can be learned from it")
    x, x_test = features(a.without(target), b.without(target), ordinal=ordinal())
    y, y_test = target_of(a, target), target_of(b, target)
    if target in a.names:
        guess = boosted(x, y, None, seed, n_jobs)(x_test)
        r2 = r2_score(y_test, guess) if len(y_test) > 1 else float("nan")
        return {"r2": float(r2), "rmse": float(np.sqrt(np.mean((y_test - guess) ** 2)))}
    classes = int(a.sizes[a.factors.index(target)]) - 1
    return scores(y_test, boosted(x, y, classes, seed, n_jobs)(x_test))


def target_of(table: Coded, target: Hashable) -> np.ndarray:
    """(n,) the values, or codes, of one column."""
    if target in table.names:
        return table.numbers[:, table.names.index(target)]
    return table.codes[:, table.factors.index(target)]


def present(table: Coded, target: Hashable) -> Coded:
    """The rows where one column is not missing."""
    y = target_of(table, target)
    if target in table.names:
        return table.take(np.flatnonzero(~np.isnan(y)))
    return table.take(np.flatnonzero(y < table.sizes[table.factors.index(target)] - 1))


def scores(y: np.ndarray, chances: np.ndarray) -> dict[str, float]:
    """Measures of a classifier that gives chances (n, C) to rows of the classes y (n,)."""
    guess = chances.argmax(1)
    if chances.shape[1] == 2:
        chances = chances[:, 1:]
        judged = [1]
    else:
        judged = range(chances.shape[1])
    each = [roc_auc_score(y == c, chances[:, k]) for k, c in enumerate(judged) if 0 < (y == c).sum() < len(y)]
    return {
        "auc": float(np.mean(each)) if each else float("nan"),
        "f1": float(f1_score(y, guess, average="macro", zero_division=0)),
        "accuracy": float(accuracy_score(y, guess)),
    }


def boosted(x: Any, y: np.ndarray, classes: int | None, seed: int, n_jobs: int | None = 1) -> Predict:
    """Gradient boosting whose rounds and depth a held-back ninth decides: a function of features.

    Args:
        x: features (n, F).
        y: codes below `classes`, or values.
        classes: how many there are; None for numbers.
        seed: of the part held back.
        n_jobs: threads.

    Returns:
        What gives chances (m, classes) or values (m,).
    """
    order = np.random.default_rng(seed).permutation(len(y))
    held, fit = np.split(order, [max(1, len(y) // VALIDATION)])
    if classes is None:
        models = [_regressor(x, y, fit, held, depth, seed, n_jobs) for depth in DEPTHS]
        return max(models, key=lambda found: found[1])[0].predict
    known = np.unique(y[fit])
    held = held[np.isin(y[held], known)]
    place = np.searchsorted(known, y)  # XGBoost wants the classes that occur to be 0, 1, ...
    if len(known) == 1:
        return lambda rows: np.tile(np.arange(classes) == known[0], (rows.shape[0], 1)).astype(float)
    models = [_classifier(x, place, fit, held, depth, seed, n_jobs, len(known)) for depth in DEPTHS]
    model = max(models, key=lambda found: found[1])[0]

    def chances(rows: Any) -> np.ndarray:
        found = np.zeros((rows.shape[0], classes))
        found[:, known] = model.predict_proba(rows)
        return found

    return chances


def _classifier(
    x: Any, y: np.ndarray, fit: np.ndarray, held: np.ndarray, depth: int, seed: int, n_jobs: int | None, classes: int
) -> tuple[Any, float]:
    rounds = max(10, 2 * _ROUNDS // classes)  # each round grows a tree per class where there are more than two
    model = _booster("Classifier", depth, rounds, seed, n_jobs)
    _fit(model, x, y, fit, held)
    if not len(held):
        return model, 0.0
    return model, -log_loss(y[held], model.predict_proba(x[held]), labels=np.arange(classes))


def _regressor(
    x: Any, y: np.ndarray, fit: np.ndarray, held: np.ndarray, depth: int, seed: int, n_jobs: int | None
) -> tuple[Any, float]:
    model = _booster("Regressor", depth, _ROUNDS, seed, n_jobs)
    _fit(model, x, y, fit, held)
    return model, -float(np.mean((y[held] - model.predict(x[held])) ** 2))


def _booster(task: str, depth: int, rounds: int, seed: int, n_jobs: int | None) -> Any:
    if find_spec("xgboost"):
        import xgboost

        return getattr(xgboost, f"XGB{task}")(
            max_depth=depth, n_estimators=rounds, learning_rate=0.1, random_state=seed, n_jobs=n_jobs
        )
    from sklearn import ensemble

    return getattr(ensemble, f"HistGradientBoosting{task}")(
        max_depth=depth, max_iter=rounds, n_iter_no_change=_PATIENCE, validation_fraction=1 / VALIDATION,
        early_stopping=True, random_state=seed,
    )  # fmt: skip


def _fit(model: Any, x: Any, y: np.ndarray, fit: np.ndarray, held: np.ndarray) -> None:
    if hasattr(model, "early_stopping_rounds") and len(held):
        model.set_params(early_stopping_rounds=_PATIENCE)
        model.fit(x[fit], y[fit], eval_set=[(x[held], y[held])], verbose=False)
    else:
        model.fit(x[fit], y[fit])
