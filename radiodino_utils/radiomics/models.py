"""Models of a radiomics table: the same folds for clinical, handcrafted, deep and fused features.

Whatever is chosen (features, penalty) is chosen inside the training folds.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..evaluation.metrics import Interval, classification_metrics, paired_differences, reliability
from ..evaluation.predictions import Prediction
from .selection import (
    default_models,
    fitted_folds,
    model_values,
    nested_parts,
    nested_search,
    require_columns,
)
from .table import RadiomicsTable

with extra("evaluation"):
    from sklearn.feature_selection import f_classif
    from sklearn.linear_model import LogisticRegression

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)  # C, the inverse of the penalty
COUNTS = (4, 16, 64)  # features
METRICS = ("auc", "balanced_accuracy", "sensitivity", "specificity", "ece")
PROTOCOL, EVEN_ODDS = "nested-logistic", " (even odds)"
THRESHOLDS = np.arange(0.02, 0.99, 0.02)  # of decision curves


@dataclass(frozen=True, eq=False)
class RadiomicsModels:
    """Out-of-fold predictions of models on the same rows.

    Attributes:
        outcome: Column that was predicted.
        classes: The values, the one that counts as positive last.
        labels: 1 for positive, int64 [n].
        groups: Group of each row, which folds and intervals keep together.
        unit: Column of the groups, such as "patient".
        folds: Test fold of each row, int64 [n].
        probabilities: Probability of positive by name of the model, [n]; each row was predicted
            by a model that was trained without its fold.
        evidence: The same at even odds: without the prevalence of the training fold. Joined folds
            would rank rows by it, and the more positives a fold has, the fewer were in training.
        ids: Case of each row.
        facts: `facts` of the table.
        deep: Models with deep features.
        chosen: Model, fold, C, number of features asked for and kept, and their names.
        seed: Seed of the folds.
    """

    outcome: str
    classes: tuple[str, str]
    labels: np.ndarray
    groups: list[str]
    unit: str
    folds: np.ndarray
    probabilities: dict[str, np.ndarray]
    evidence: dict[str, np.ndarray]
    ids: list[str]
    facts: Mapping[str, Any]
    deep: frozenset[str]
    chosen: pd.DataFrame
    seed: int

    def __repr__(self) -> str:
        names = ", ".join(self.probabilities)
        return f"RadiomicsModels({self.outcome!r}: {names}; n {len(self.labels)})"

    def metrics(self, *, resamples: int = 1000) -> pd.DataFrame:
        """Return `METRICS` of each model, with intervals by the bootstrap of groups.

        All but the calibration error are of the evidence: a row counts as positive if its
        probability is above the prevalence.
        """
        rows = []
        for name in self.probabilities:
            found = self._measured(self.evidence[name], resamples)
            found["ece"] = self._measured(self.probabilities[name], resamples)["ece"]
            rows += [self._row(found[metric], model=name, metric=metric) for metric in METRICS]
        return pd.DataFrame(rows)

    def _measured(self, positive: np.ndarray, resamples: int) -> dict[str, Interval]:
        return classification_metrics(
            self.labels,
            _both(positive),
            groups=self.groups,
            resamples=resamples,
            seed=self.seed,
        )

    def differences(self, reference: str, *, resamples: int = 1000) -> pd.DataFrame:
        """Return by how much each model is better than one, with paired intervals.

        Args:
            reference: Name of a model.
            resamples: Number of bootstrap resamples.
        """
        rows = []
        for name in [name for name in self.probabilities if name != reference]:
            found = paired_differences(
                self.labels,
                _both(self.evidence[name]),
                _both(self.evidence[reference]),
                groups=self.groups,
                resamples=resamples,
                seed=self.seed,
            )
            rows.append(self._row(found["auc"], model=name, other=reference, metric="auc"))
        return pd.DataFrame(rows)

    def predictions(self) -> list[Prediction]:
        """Return the predictions of each model for result rows: at even odds, and as predicted."""
        scores = {f"{PROTOCOL}{EVEN_ODDS}": self.evidence, PROTOCOL: self.probabilities}
        return [
            self._prediction(name, protocol, positive)
            for protocol, of_models in scores.items()
            for name, positive in of_models.items()
        ]

    def _prediction(self, name: str, protocol: str, positive: np.ndarray) -> Prediction:
        caveats = (self.facts["caveat"], f"pooled over {len(set(self.folds))} folds, AUC too")
        keys = ("weights", "engine", "precision")
        by_backbone: dict[str, Any] = {
            key: self.facts[key] if name in self.deep else "" for key in keys
        }
        return Prediction(
            dataset=self.facts["images"],
            backbone=name,
            protocol=protocol,
            split="test",
            classes=self.classes,
            labels=self.labels,
            probabilities=_both(positive),
            ids=self.ids,
            caveat="; ".join(filter(None, caveats)),
            seed=self.seed,
            positive=self.classes[1],
            groups=self.groups,
            unit=self.unit,
            groups_from=f"column {self.unit}",
            **by_backbone,
        )

    def calibration(self, model: str) -> pd.DataFrame:
        """Return the table of a reliability diagram of a model; see `metrics.reliability`."""
        return reliability(self.labels, _both(self.probabilities[model]))

    def decision_curves(self) -> pd.DataFrame:
        """Return the net benefit of each model, and of treating all or none, over the threshold.

        Source: Vickers and Elkin, Medical Decision Making 26 (2006) 565.
        """
        everyone = {
            "treat all": np.ones(len(self.labels)),
            "treat none": np.zeros(len(self.labels)),
        }
        rows = []
        for name, positive in (self.probabilities | everyone).items():
            for threshold in THRESHOLDS:
                treated = positive >= threshold
                hits = (treated & (self.labels == 1)).mean()
                harm = (treated & (self.labels == 0)).mean() * threshold / (1 - threshold)
                rows.append({"model": name, "threshold": threshold, "net_benefit": hits - harm})
        return pd.DataFrame(rows)

    def _row(self, interval: Interval, **facts: Any) -> dict[str, Any]:
        return facts | {
            "value": interval.value,
            "ci_low": interval.low,
            "ci_high": interval.high,
            "n": len(self.labels),
            "groups": len(set(self.groups)),
            "seed": self.seed,
        }


def _both(positive: np.ndarray) -> np.ndarray:
    return np.column_stack([1 - positive, positive])


def cross_validated_models(
    table: RadiomicsTable,
    outcome: str,
    *,
    positive: object,
    groups: str = "patient",
    models: Mapping[str, Sequence[str]] | None = None,
    only: Sequence[str] | None = None,
    folds: int = 5,
    inner_folds: int = 3,
    penalties: Sequence[float] = PENALTIES,
    counts: Sequence[int] = COUNTS,
    seed: int = 0,
) -> RadiomicsModels:
    """Train penalised logistic regressions in nested, grouped and stratified cross-validation.

    In each training fold missing values become medians, correlated features become one (see
    `selection`), the features that separate the classes best by the F test remain, and an inner
    cross-validation chooses their number and the penalty by cross entropy.

    Args:
        table: Table returned by `extract_radiomics`.
        outcome: Column with the classes; rows without a value are left out.
        positive: The value that counts as positive.
        groups: Column of the groups that stay together.
        models: Families of features of each model (see `RadiomicsTable.columns`); by default each
            of clinical, handcrafted and deep that the table has, and all of them as "fused".
        only: Names of handcrafted and deep features that count, such as the stable ones; all by
            default.
        folds: Number of outer folds.
        inner_folds: Number of folds inside the training folds.
        penalties: Candidates for C, the inverse of the penalty.
        counts: Candidates for the number of features.
        seed: Seed of the folds.

    Returns:
        The predictions of each row by the models that did not see it.

    Raises:
        InputError: If a column is missing, the outcome does not have two values with the positive
            one, a class has fewer groups than folds, or a model has no feature.
    """
    rows = _rows_with_outcome(table, outcome, positive, groups)
    labels = (rows[outcome] == positive).to_numpy().astype(np.int64)
    other = rows[outcome][labels == 0].iloc[0]
    units = rows[groups].astype(str).tolist()
    classes, counted = (str(other), str(positive)), (folds, inner_folds)
    parts = nested_parts(labels, units, classes, counted, name=outcome, unit=groups, seed=seed)
    families = models or default_models(table, without=(outcome,))
    features = model_values(table, rows, families, only=only, without=(outcome,))
    search = partial(
        nested_search,
        LogisticRegression(max_iter=1000),
        f_classif,
        grid={"best__k": list(counts), "model__C": list(penalties)},
        scoring="neg_log_loss",
    )
    probabilities, evidence = ({name: np.empty(len(rows)) for name in features} for _ in range(2))
    chosen = []
    for fit in fitted_folds(features, labels, parts, search):
        test, prior = ~fit.train, labels[fit.train].mean()
        scores = fit.search.predict_proba(fit.values[test])[:, 1]
        sick, well = scores * (1 - prior), (1 - scores) * prior
        probabilities[fit.model][test] = scores
        evidence[fit.model][test] = sick / (sick + well)
        chosen.append(fit.chosen)
    return RadiomicsModels(
        outcome=outcome,
        classes=classes,
        labels=labels,
        groups=units,
        unit=groups,
        folds=parts[0],
        probabilities=probabilities,
        evidence=evidence,
        ids=rows["case"].astype(str).tolist(),
        facts=table.facts,
        deep=frozenset(name for name, own in families.items() if "deep" in own),
        chosen=pd.DataFrame(chosen),
        seed=seed,
    )


def _rows_with_outcome(
    table: RadiomicsTable, outcome: str, positive: object, groups: str
) -> pd.DataFrame:
    require_columns(table, outcome, groups)
    rows = table.rows[table.rows[outcome].notna()].reset_index(drop=True)
    if left_out := len(table.rows) - len(rows):
        warnings.warn(f"{outcome}: {left_out} rows without a value are left out.", stacklevel=3)
    found = rows[outcome].unique().tolist()
    if len(found) != 2 or positive not in found:
        shown = ", ".join(map(repr, found[:5]))
        raise InputError(
            f"{outcome}: needs two values, {positive!r} and another one; it has {shown}."
        )
    return rows
