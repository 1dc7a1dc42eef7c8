"""Survival models of a radiomics table: penalised Cox regression in nested, grouped folds."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..evaluation.resampling import draw_counts, interval_bounds, unit_numbers
from .models import COUNTS
from .selection import (
    default_models,
    fitted_folds,
    model_values,
    nested_parts,
    nested_search,
    require_columns,
)
from .table import RadiomicsTable

with extra("survival"):
    from scipy.stats import chi2
    from sksurv.linear_model import CoxPHSurvivalAnalysis
    from sksurv.nonparametric import kaplan_meier_estimator
    from sksurv.util import Surv

PENALTIES = (1.0, 10.0, 100.0, 1000.0)  # alpha; 1 / C of the logistic models
HALVES = ("low risk", "high risk")


@dataclass(frozen=True, eq=False)
class SurvivalModels:
    """Out-of-fold risks of Cox models on the same patients.

    Attributes:
        time: Column of the time.
        event: Column of the event.
        times: Time of the event or of the end of observation, float64 [n].
        events: Whether the event was observed, bool [n].
        groups: Group of each row, which folds and intervals keep together.
        folds: Test fold of each row, int64 [n].
        risks: Logarithm of the relative hazard by name of the model, [n]; each row was predicted
            by a model that was trained without its fold.
        high: Whether the risk is above the median of the training fold, by name, bool [n].
        chosen: Model, fold, alpha, number of features asked for and kept, and their names.
        seed: Seed of the folds.
    """

    time: str
    event: str
    times: np.ndarray
    events: np.ndarray
    groups: list[str]
    folds: np.ndarray
    risks: dict[str, np.ndarray]
    high: dict[str, np.ndarray]
    chosen: pd.DataFrame
    seed: int

    def __repr__(self) -> str:
        names = ", ".join(self.risks)
        return f"SurvivalModels({names}; n {len(self.times)}, {self.events.sum()} events)"

    def metrics(self, *, resamples: int = 1000) -> pd.DataFrame:
        """Return the concordance of each model, with intervals by the bootstrap of groups.

        Pairs within a test fold count: risks of two folds come from two models.

        Args:
            resamples: Number of bootstrap resamples.
        """
        found = {name: self._concordance(risk, resamples) for name, risk in self.risks.items()}
        return pd.DataFrame([self._row(values, model=name) for name, values in found.items()])

    def differences(self, reference: str, *, resamples: int = 1000) -> pd.DataFrame:
        """Return by how much each model is better than one, with paired intervals.

        Args:
            reference: Name of a model.
            resamples: Number of bootstrap resamples.
        """
        other = self._concordance(self.risks[reference], resamples)
        return pd.DataFrame(
            [
                self._row(self._concordance(risk, resamples) - other, model=name, other=reference)
                for name, risk in self.risks.items()
                if name != reference
            ]
        )

    def survival_curves(self, model: str) -> pd.DataFrame:
        """Return the Kaplan-Meier estimates of the patients of low and of high risk.

        Args:
            model: Name of a model.

        Returns:
            Half, time, survival with its 95 % interval (log-log), and n at risk; a half without
            patients is left out.
        """
        parts = []
        for name, rows in zip(HALVES, (~self.high[model], self.high[model]), strict=True):
            if not rows.any():
                continue
            times, survival, bounds = kaplan_meier_estimator(
                self.events[rows], self.times[rows], conf_type="log-log"
            )
            part = {"time": times, "survival": survival, "ci_low": bounds[0], "ci_high": bounds[1]}
            start = {"time": 0.0, "survival": 1.0, "ci_low": 1.0, "ci_high": 1.0}
            curve = pd.concat([pd.DataFrame([start]), pd.DataFrame(part)], ignore_index=True)
            at_risk = [(self.times[rows] >= time).sum() for time in curve["time"]]
            parts.append(curve.assign(model=model, half=name, at_risk=at_risk))
        return pd.concat(parts, ignore_index=True)

    def _concordance(self, risk: np.ndarray, resamples: int) -> np.ndarray:
        """Return Harrell's concordance of all rows, and then of each resample."""
        units, n = unit_numbers(self.groups, len(risk)), len(risk)
        drawn = draw_counts(units, n, resamples, np.random.default_rng(self.seed))
        counts = np.vstack([np.ones(n), drawn])
        right, pairs = np.zeros(len(counts)), np.zeros(len(counts))
        for fold in np.unique(self.folds):
            rows = self.folds == fold
            times, events, own = self.times[rows], self.events[rows], counts[:, rows]
            same = times[:, None] == times
            first = events[:, None] & ((times[:, None] < times) | (same & ~events))
            wins = first * (np.sign(risk[rows][:, None] - risk[rows]) + 1) / 2
            right += ((own @ wins) * own).sum(1)
            pairs += ((own @ first) * own).sum(1)
        with np.errstate(invalid="ignore"):
            return right / pairs

    def _row(self, values: np.ndarray, **facts: Any) -> dict[str, Any]:
        low, high = interval_bounds(values[1:], unit_numbers(self.groups, len(self.times)))
        return facts | {
            "metric": "concordance",
            "value": float(values[0]),
            "ci_low": low,
            "ci_high": high,
            "n": len(self.times),
            "events": int(self.events.sum()),
            "groups": len(set(self.groups)),
            "seed": self.seed,
        }


def cross_validated_survival(
    table: RadiomicsTable,
    *,
    time: str,
    event: str,
    groups: str = "patient",
    models: Mapping[str, Sequence[str]] | None = None,
    only: Sequence[str] | None = None,
    folds: int = 5,
    inner_folds: int = 3,
    penalties: Sequence[float] = PENALTIES,
    counts: Sequence[int] = COUNTS,
    seed: int = 0,
) -> SurvivalModels:
    """Train Cox regressions with a ridge penalty in nested, grouped cross-validation.

    Of several regions of a patient the largest counts. In each training fold missing values become
    medians, correlated features become one, the features with the greatest score statistic remain,
    and an inner cross-validation chooses their number and the penalty by concordance.

    Args:
        table: Table returned by `extract_radiomics`.
        time: Column of the time of the event or of the end of observation; rows without a value
            are left out.
        event: Column that is 1 where the event was observed and 0 where it was not.
        groups: Column of the groups that stay together.
        models: See `cross_validated_models`.
        only: See `cross_validated_models`.
        folds: Number of outer folds.
        inner_folds: Number of folds inside the training folds.
        penalties: Candidates for alpha; see sksurv's `CoxPHSurvivalAnalysis`.
        counts: Candidates for the number of features.
        seed: Seed of the folds.

    Returns:
        The risk of each row by the models that did not see it.

    Raises:
        InputError: If a column is missing, times are not positive or events not 0 and 1, there are
            fewer groups with an event, or without one, than folds, or a model has no feature.
    """
    rows = _observed(table, time, event, groups)
    times, events = rows[time].to_numpy(np.float64), rows[event].to_numpy(np.float64) == 1
    outcome, classes = Surv.from_arrays(events, times), events.astype(np.int64)
    units = rows[groups].astype(str).tolist()
    counted = (folds, inner_folds)
    parts = nested_parts(
        classes, units, ("no event", "event"), counted, name=event, unit=groups, seed=seed
    )
    families = models or default_models(table, without=(time, event))
    features = model_values(table, rows, families, only=only, without=(time, event))
    grid: dict[str, list[Any]] = {"best__k": list(counts), "model__alpha": list(penalties)}
    search = partial(nested_search, CoxPHSurvivalAnalysis(), _score_test, grid=grid)
    risks = {name: np.empty(len(rows)) for name in features}
    high = {name: np.empty(len(rows), bool) for name in features}
    chosen = []
    for fit in fitted_folds(features, outcome, parts, search):
        risk = fit.search.predict(fit.values)
        test, middle = ~fit.train, np.median(risk[fit.train])
        risks[fit.model][test], high[fit.model][test] = risk[test], risk[test] > middle
        chosen.append(fit.chosen)
    frame = pd.DataFrame(chosen)
    return SurvivalModels(time, event, times, events, units, parts[0], risks, high, frame, seed)


def _observed(table: RadiomicsTable, time: str, event: str, groups: str) -> pd.DataFrame:
    """Return the row of the largest region of each patient whose time and event are known."""
    require_columns(table, time, event, groups)
    known = table.rows[table.rows[[time, event]].notna().all(axis=1)]
    if left_out := len(table.rows) - len(known):
        message = f"{time}, {event}: {left_out} rows without a value are left out."
        warnings.warn(message, stacklevel=3)
    if not pd.api.types.is_numeric_dtype(known[time]) or not (known[time] > 0).all():
        raise InputError(f"{time}: times are numbers above 0; leave out or correct the others.")
    if not set(known[event].unique().tolist()) <= {0, 1}:
        shown = ", ".join(map(repr, known[event].unique().tolist()[:5]))
        raise InputError(f"{event}: 1 says that the event was observed, else 0; it has {shown}.")
    largest = known.sort_values("voxels", kind="stable").drop_duplicates("patient", keep="last")
    return largest.sort_index().reset_index(drop=True)


def _score_test(values: np.ndarray, outcome: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return statistic and p-value of Cox's score test of each feature alone, Breslow's for ties.

    Source: Cox, J. R. Stat. Soc. B 34 (1972) 187.
    """
    events, times = (outcome[name] for name in outcome.dtype.names or ())
    order = np.argsort(-times, kind="stable")
    values, events, times = values[order], events[order], times[order]
    at_risk = np.searchsorted(-times, -times, side="right")[:, None]
    mean, square = ((values**k).cumsum(0)[at_risk[:, 0] - 1] / at_risk for k in (1, 2))
    score = (values - mean)[events].sum(0)
    information = (square - mean**2)[events].sum(0)
    statistic = score**2 / np.where(information > 0, information, np.inf)
    return statistic, chi2.sf(statistic, 1)
