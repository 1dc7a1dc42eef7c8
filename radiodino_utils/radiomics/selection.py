"""Columns of models, and the choice of features and penalty inside training folds."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..data.cross_validation import require_groups, stratified_parts
from ..evaluation.logistic import one_thread
from .table import RadiomicsTable

with extra("evaluation"):
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform
    from scipy.stats import rankdata
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_selection import SelectKBest
    from sklearn.impute import SimpleImputer
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import StandardScaler


class OneOfEachCluster(TransformerMixin, BaseEstimator):
    """Keep one of the features that say the same: the one nearest to the rest of its cluster.

    Features are clustered by average linkage of 1 - |Spearman's rho|.

    Args:
        correlation: Mean correlation above which clusters are joined.
    """

    def __init__(self, correlation: float = 0.9) -> None:
        self.correlation = correlation

    def fit(self, values: np.ndarray, labels: Any = None) -> Self:
        """Choose features by the rows given; labels are not looked at."""
        ranks = rankdata(values, axis=0)
        varied = np.flatnonzero(ranks.std(0) > 0)
        similar = np.abs(np.corrcoef(ranks[:, varied], rowvar=False)).reshape(2 * (len(varied),))
        distance = squareform(np.clip(1 - similar, 0, None), checks=False)
        if len(varied) > 1:
            cluster = fcluster(linkage(distance, "average"), 1 - self.correlation, "distance")
        else:
            cluster = np.ones(len(varied), int)
        kept = []
        for number in np.unique(cluster):
            members = np.flatnonzero(cluster == number)
            kept.append(members[similar[np.ix_(members, members)].sum(0).argmax()])
        self.kept_ = varied[np.sort(kept)] if kept else np.arange(values.shape[1])[:1]
        return self

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Return the chosen columns."""
        return values[:, self.kept_]


def require_columns(table: RadiomicsTable, *columns: str) -> None:
    """Check that a table has columns.

    Raises:
        InputError: If one is missing.
    """
    for column in columns:
        if column not in table.rows:
            facts = ", ".join(table.rows.columns[:20])
            raise InputError(f"the table has no column '{column}'; it has {facts}, ...")


def default_models(
    table: RadiomicsTable, *, without: Sequence[str] = ()
) -> dict[str, tuple[str, ...]]:
    """Return the families of features of the models that a table allows, by name.

    Args:
        table: Table returned by `extract_radiomics`.
        without: Columns that never count, such as the outcome.
    """
    kinds = {
        kind: (kind,)
        for kind in ("clinical", "handcrafted", "deep")
        if {*table.columns(kind)} - {*without}
    }
    return kinds | ({"fused": tuple(kinds)} if len(kinds) > 1 else {})


def model_values(
    table: RadiomicsTable,
    rows: pd.DataFrame,
    models: Mapping[str, Sequence[str]],
    *,
    only: Sequence[str] | None = None,
    without: Sequence[str] = (),
) -> dict[str, tuple[np.ndarray, list[str]]]:
    """Return the numeric features of each model; a warning names columns that hold texts.

    Args:
        table: Table returned by `extract_radiomics`.
        rows: The rows of the table that count, [n].
        models: Families of features by name of the model; see `RadiomicsTable.columns`.
        only: Handcrafted and deep features that count; all by default.
        without: Columns that never count, such as the outcome.

    Returns:
        Values, float64 [n, columns], and names of the columns, by name of the model.

    Raises:
        InputError: If a model has no feature, or one holds infinite values.
    """
    columns = {
        name: _columns(table, name, families, only, without) for name, families in models.items()
    }
    return {name: (rows[own].to_numpy(np.float64), own) for name, own in columns.items()}


def _columns(
    table: RadiomicsTable,
    name: str,
    families: Sequence[str],
    only: Sequence[str] | None,
    without: Sequence[str],
) -> list[str]:
    kept = None if only is None else {*only, *table.columns("clinical")}
    wanted = [
        column
        for column in table.columns(*families)
        if column not in without and (kept is None or column in kept)
    ]
    numeric = set(table.rows[wanted].select_dtypes(["number", "bool"]))
    if texts := [column for column in wanted if column not in numeric]:
        warnings.warn(
            f"model {name}: {', '.join(texts)} left out, as they hold texts; write numbers.",
            stacklevel=4,
        )
    columns = [name for name in wanted if name in numeric and table.rows[name].notna().any()]
    if not columns:
        raise InputError(f"model {name}: no feature of {', '.join(families)} is numeric.")
    for column in columns:
        if np.isinf(table.rows[column].to_numpy(np.float64)).any():
            raise InputError(f"{column}: holds infinite values; correct them or leave them empty.")
    return columns


def nested_parts(
    labels: np.ndarray,
    units: Sequence[str],
    classes: Sequence[str],
    counts: tuple[int, int],
    *,
    name: str,
    unit: str,
    seed: int,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Assign rows to outer folds, and the training rows of each outer fold to inner ones.

    Args:
        labels: Integers, [n].
        units: Group of each row.
        classes: Name of each label.
        counts: Numbers of outer and of inner folds.
        name: Name of the outcome, for messages.
        unit: What a group is, for messages.
        seed: Seed of the assignments.

    Returns:
        Outer fold of each row, int64 [n], and inner folds by outer fold, int64 [training rows].

    Raises:
        InputError: If there are fewer than two folds, no row of a class, or fewer groups of it than
            folds.
    """
    if min(counts) < 2:
        raise InputError(f"{counts[0]} folds with {counts[1]} inner folds: ask for two or more.")
    if absent := [text for label, text in enumerate(classes) if label not in labels]:
        raise InputError(f"{name}: no row is of the class '{absent[0]}'; both are needed.")
    require_groups(labels, units, classes, counts[0], name=name, unit=unit)
    outer, inner = stratified_parts(labels, units, counts[0], seed=seed), []
    for fold in range(counts[0]):
        train = np.flatnonzero(outer != fold)
        own = [units[row] for row in train.tolist()]
        where = f"{name}, inner folds"
        require_groups(labels[train], own, classes, counts[1], name=where, unit=unit)
        inner.append(stratified_parts(labels[train], own, counts[1], seed=seed))
    return outer, inner


def nested_search(
    model: Any,
    ranking: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]],
    inner: np.ndarray,
    grid: Mapping[str, list[Any]],
    *,
    scoring: str | None = None,
) -> "GridSearchCV":
    """Return the search for the number of features and the penalty of a model in inner folds.

    Missing values become medians, correlated features become one, and the features that rank best
    remain.

    Args:
        model: Estimator at the end of the pipeline, as step "model".
        ranking: Returns a statistic and p-value of each feature; step "best" keeps the first k.
        inner: Inner fold of each row of the training fold, [n].
        grid: Candidates of the parameters of the steps.
        scoring: Scorer of scikit-learn; that of the model by default.
    """
    steps = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("clusters", OneOfEachCluster()),
            ("scale", StandardScaler()),
            ("best", SelectKBest(ranking)),
            ("model", model),
        ]
    )
    splits = [
        (np.flatnonzero(inner != part), np.flatnonzero(inner == part)) for part in np.unique(inner)
    ]
    return GridSearchCV(steps, dict(grid), scoring=scoring, cv=splits)


@dataclass(frozen=True, eq=False)
class FoldFit:
    """A model fitted on the training rows of an outer fold.

    Attributes:
        model: Name of the model.
        train: Whether a row is a training row, bool [n].
        search: The fitted search.
        values: Features of all rows, float64 [n, columns].
        chosen: Model, fold, penalty, number of features asked for and kept, and their names.
    """

    model: str
    train: np.ndarray
    search: "GridSearchCV"
    values: np.ndarray
    chosen: dict[str, Any]


def fitted_folds(
    models: Mapping[str, tuple[np.ndarray, list[str]]],
    outcome: np.ndarray,
    parts: tuple[np.ndarray, list[np.ndarray]],
    search: Callable[[np.ndarray], "GridSearchCV"],
) -> Iterator[FoldFit]:
    """Fit each model on the training rows of each outer fold.

    Args:
        models: Features, [n, columns], and their names, by name of the model.
        outcome: What the models predict, [n].
        parts: Folds returned by `nested_parts`.
        search: Returns the search of inner folds; see `nested_search`.

    Yields:
        The fits, model by model.
    """
    for name, (values, columns) in models.items():
        for fold, inner in enumerate(parts[1]):
            train, found = parts[0] != fold, search(inner)
            facts = _fit(found, values[train], outcome[train], columns)
            yield FoldFit(name, train, found, values, {"model": name, "fold": fold} | facts)


@one_thread
def _fit(
    search: "GridSearchCV", values: np.ndarray, outcome: np.ndarray, columns: list[str]
) -> dict[str, Any]:
    """Fit a search in place; return the penalty, the number and the names of the features."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)  # of fewer features than asked for
        search.fit(values, outcome)
    steps, best = search.best_estimator_.named_steps, dict(search.best_params_)
    kept = np.array(columns)[steps["clusters"].kept_][steps["best"].get_support()]
    asked = best.pop("best__k")
    return {name.removeprefix("model__"): value for name, value in best.items()} | {
        "features_asked": asked,
        "features": len(kept),
        "names": ", ".join(kept),
    }
