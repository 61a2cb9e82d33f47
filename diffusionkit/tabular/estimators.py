"""Diffusion in scikit-learn's pipelines: fill in what is missing, draw more of rare classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils.validation import check_is_fitted

from diffusionkit.errors import UserError
from diffusionkit.tabular.api import TabularDiffusion


class DiffusionImputer(TransformerMixin, BaseEstimator):
    """Fills in missing values by drawing them given the others of their row: a transformer for scikit-learn's pipelines.

    Args:
        model: a `TabularDiffusion`, fitted to a clone of it; the default preset by default.
        steps: of the sampler; by default as the preset says.
        random_state: seed of what is drawn; that of the model by default.

    Attributes:
        model_: the fitted model.
    """

    def __init__(
        self, model: TabularDiffusion | None = None, *, steps: int | None = None, random_state: int | None = None
    ) -> None:
        self.model, self.steps, self.random_state = model, steps, random_state

    def fit(self, X: Any, y: Any = None) -> DiffusionImputer:
        """Learns the table X: a DataFrame or an array (n, k) of numbers; y is not looked at."""
        frame = _frame(X)
        self.model_ = _fresh(self.model).fit(frame)
        self.feature_names_in_, self.n_features_in_ = frame.columns.to_numpy(dtype=object), frame.shape[1]
        return self

    def transform(self, X: Any) -> Any:
        """X with its missing values drawn; a DataFrame for a DataFrame, an array for an array.

        Raises:
            UserError: if the columns are not those of the fitted table.
        """
        check_is_fitted(self, "model_")
        filled = self.model_.impute(_frame(X), steps=self.steps, random_state=self.random_state)
        return filled if isinstance(X, pd.DataFrame) else filled.to_numpy()

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The names of the columns, which stay as they are."""
        check_is_fitted(self, "model_")
        return self.feature_names_in_


class DiffusionOverSampler(BaseEstimator):
    """Draws more rows of rare classes until they are as many as wanted: a sampler for imbalanced-learn's pipelines.

    Args:
        model: a `TabularDiffusion`, fitted to a clone of it; the default preset by default.
        sampling_strategy: "auto" brings every class to the size of the largest; or the wanted number of rows by class.
        guidance: how strongly to follow the class.
        random_state: seed of what is drawn; that of the model by default.

    Attributes:
        model_: the fitted model.
        sampling_strategy_: how many rows were drawn of each class.
    """

    _sampling_type = "over-sampling"

    def __init__(
        self,
        model: TabularDiffusion | None = None,
        *,
        sampling_strategy: str | Mapping[Any, int] = "auto",
        guidance: float | None = None,
        random_state: int | None = None,
    ) -> None:
        self.model, self.sampling_strategy, self.guidance = model, sampling_strategy, guidance
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> DiffusionOverSampler:
        """Checks what is asked for, as imbalanced-learn's samplers do; nothing is learned before `fit_resample`."""
        if pd.isna(np.asarray(y)).any():
            raise UserError("y: a class is missing in places; leave these rows out")
        self.sampling_strategy_ = self._lacking(Counter(np.asarray(y).tolist()))
        return self

    def fit_resample(self, X: Any, y: Any) -> tuple[Any, Any]:
        """Learns the table of X and y, and gives both with the drawn rows appended.

        Args:
            X: a DataFrame or an array (n, k) of numbers.
            y: the classes (n,).

        Raises:
            UserError: if a class is asked for that there is not, or fewer rows than there are.
        """
        frame, name = _frame(X), getattr(y, "name", None)
        name = "target" if name is None else name
        self.fit(X, y)
        column = (
            y.reset_index(drop=True).rename(name) if isinstance(y, pd.Series) else pd.Series(np.asarray(y), name=name)
        )
        model = _fresh(self.model)
        kinds = {**dict(model.columns or {}), name: "categorical"}
        self.model_ = model.set_params(columns=kinds, target=name).fit(frame, column)
        drawn = [
            self.model_.sample(count, where={name: level}, guidance=self.guidance, random_state=self._seed(i))
            for i, (level, count) in enumerate(self.sampling_strategy_.items())
            if count
        ]
        rows = pd.concat([frame, *(part.drop(columns=name) for part in drawn)], ignore_index=True).astype(frame.dtypes)
        classes = pd.concat([column, *(part[name] for part in drawn)], ignore_index=True).astype(column.dtype)
        return (
            rows if isinstance(X, pd.DataFrame) else rows.to_numpy(dtype=np.asarray(X).dtype),
            classes if isinstance(y, pd.Series) else classes.to_numpy(dtype=np.asarray(y).dtype),
        )

    def _lacking(self, found: Mapping[Any, int]) -> dict[Any, int]:
        """How many rows to draw of each class."""
        if self.sampling_strategy == "auto":
            return {level: max(found.values()) - count for level, count in found.items()}
        if not isinstance(self.sampling_strategy, Mapping):
            raise UserError(f"sampling_strategy: 'auto' or numbers of rows by class, not {self.sampling_strategy!r}")
        for level, count in self.sampling_strategy.items():
            if level not in found:
                raise UserError(
                    f"sampling_strategy: there is no class {level!r}; there are {', '.join(map(str, found))}"
                )
            if count < found[level]:
                raise UserError(
                    f"sampling_strategy: class {level!r} has {found[level]} rows already, more than {count}"
                )
        return {level: count - found[level] for level, count in self.sampling_strategy.items()}

    def _seed(self, i: int) -> int | None:
        """Another seed for each class."""
        return None if self.random_state is None else self.random_state + i


def _fresh(model: TabularDiffusion | None) -> TabularDiffusion:
    return TabularDiffusion() if model is None else clone(model)


def _frame(X: Any) -> pd.DataFrame:
    if isinstance(X, pd.DataFrame):
        return X
    values = np.asarray(X)
    if values.ndim != 2:
        raise UserError(f"a table has rows and columns; this array has {values.ndim} dimensions")
    return pd.DataFrame(values, columns=[f"x{i}" for i in range(values.shape[1])])
