"""Survival models find risks, and choose nothing outside of the training folds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm
from sksurv.compare import compare_survival
from sksurv.metrics import concordance_index_censored
from sksurv.util import Surv

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.survival import (
    SurvivalModels,
    _score_test,
    cross_validated_survival,
)
from radiodino_utils.radiomics.table import RadiomicsTable

QUICK = {"penalties": (1.0, 100.0), "counts": (2, 8), "time": "clinical_time"}
QUICK |= {"event": "clinical_event"}


def synthetic_table(beta=1.5, patients=120, seed=0):
    """Return a lesion per patient; one handcrafted feature is the logarithm of the hazard."""
    generator = np.random.default_rng(seed)
    risk = generator.normal(size=patients)
    times = generator.exponential(np.exp(-beta * risk))
    ends = generator.exponential(2.0, patients)
    columns = {"patient": [f"p{row}" for row in range(patients)], "label": 1, "component": 0}
    columns |= {"case": columns["patient"], "voxels": 10, "firstorder_mean": risk}
    columns |= {"clinical_time": np.minimum(times, ends), "clinical_event": 1 * (times <= ends)}
    columns |= {f"deep_mean_{n:04d}": generator.normal(size=patients) for n in range(20)}
    return RadiomicsTable(pd.DataFrame(columns), pd.DataFrame(), {})


@pytest.fixture(scope="module")
def models():
    return cross_validated_survival(synthetic_table(patients=400), **QUICK)


def test_the_concordance_is_that_of_the_simulation(models):
    """Of two exponential times with log hazards b x, the greater risk ends first by expit(b dx)."""
    steps = np.linspace(-6, 6, 2001)
    shares = norm.pdf(steps, scale=np.sqrt(2)) / (1 + np.exp(-1.5 * np.abs(steps)))
    known = np.trapezoid(shares, steps)
    table = models.metrics(resamples=300).set_index("model")
    row = table.loc["handcrafted"]
    assert row["ci_low"] < known < row["ci_high"] and abs(row["value"] - known) < 0.03
    assert table["value"]["fused"] > 0.7 and 0.4 < table["value"]["deep"] < 0.6
    assert (table["n"] == 400).all() and (table["events"] == models.events.sum()).all()
    differences = models.differences("deep", resamples=300).set_index("model")
    assert differences["ci_low"]["handcrafted"] > 0
    chosen = models.chosen.set_index("model")["names"]
    assert (chosen["handcrafted"] == "firstorder_mean").all()
    assert chosen["fused"].str.contains("firstorder_mean").all()


def test_no_pair_counts_across_folds_and_the_index_is_that_of_the_library(models):
    right = total = 0
    for fold in range(5):
        rows = models.folds == fold
        _, *counts = concordance_index_censored(
            models.events[rows], models.times[rows], models.risks["fused"][rows]
        )
        right += counts[0] + counts[2] / 2
        total += sum(counts[:3])
    found = models.metrics(resamples=10).set_index("model").loc["fused", "value"]
    assert found == pytest.approx(right / total)


def test_shuffled_outcomes_give_chance_and_a_leak_would_show():
    rows = synthetic_table(beta=0.0, patients=150).rows
    noise = [name for name in rows if name.startswith("deep")]
    fair, leaky = [], []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(len(rows))
        outcome = rows[["clinical_time", "clinical_event"]].iloc[order].to_numpy()
        mixed = rows.assign(clinical_time=outcome[:, 0], clinical_event=outcome[:, 1])
        table = RadiomicsTable(mixed, pd.DataFrame(), {})
        peeked = mixed[noise].corrwith(mixed["clinical_time"], method="spearman")
        for only, values in ((None, fair), (peeked.abs().nlargest(4).index, leaky)):
            models = cross_validated_survival(
                table, models={"deep": ("deep",)}, only=only, seed=seed, **QUICK
            )
            row = models.metrics(resamples=200).iloc[0]
            values.append([row["ci_low"], row["value"], row["ci_high"]])
    low, value, high = np.array(fair).T
    assert ((low < 0.5) & (high > 0.5)).sum() >= 2 and 0.42 < value.mean() < 0.58
    assert np.array(leaky)[:, 1].mean() > value.mean() + 0.03


def test_the_halves_are_those_of_the_training_folds(models):
    curves = models.survival_curves("handcrafted")
    starts = curves[curves["time"] == 0].set_index("half")["at_risk"]
    assert starts.sum() == 400 and starts.min() > 150
    late = curves[curves["time"] < 1].groupby("half")["survival"].last()
    assert late["low risk"] > late["high risk"] + 0.2
    assert (curves["ci_low"] <= curves["survival"]).all()


def test_the_score_statistic_of_two_groups_is_the_log_rank_statistic():
    generator = np.random.default_rng(0)
    times, events = generator.exponential(size=60), generator.random(60) < 0.7
    values = (generator.random((60, 2)) < 0.5).astype(float)
    outcome = Surv.from_arrays(events, times)
    statistics, p = _score_test(values, outcome)
    for column in range(2):
        expected = compare_survival(outcome, values[:, column])
        assert (statistics[column], p[column]) == pytest.approx(expected)


def test_features_that_do_not_change_say_nothing():
    outcome = Surv.from_arrays([True, False, True], [1.0, 2.0, 3.0])
    assert _score_test(np.ones((3, 1)), outcome)[0] == [0]


def test_the_largest_region_of_a_patient_counts_and_unknown_outcomes_do_not():
    rows = synthetic_table().rows
    rows.loc[0, "clinical_time"] = np.nan
    smaller = rows.assign(voxels=5, firstorder_mean=0.0)
    table = RadiomicsTable(pd.concat([rows, smaller]), pd.DataFrame(), {})
    with pytest.warns(UserWarning, match="2 rows without a value are left out"):
        models = cross_validated_survival(table, models={"handcrafted": ("firstorder",)}, **QUICK)
    assert len(models.times) == 119
    assert models.metrics(resamples=10)["value"].item() > 0.7
    assert isinstance(models, SurvivalModels) and "119, " in repr(models)


def test_observations_without_any_event_are_one_sentence():
    table = RadiomicsTable(synthetic_table().rows.assign(clinical_event=0), pd.DataFrame(), {})
    with pytest.raises(InputError, match="no row is of the class 'event'"):
        cross_validated_survival(table, **QUICK)


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("clinical_time", 0.0, "numbers above 0"),
        ("clinical_event", 2, "1 says that the event was observed"),
        ("clinical_event", 0, "the class 'event'"),
        (None, None, "no column 'clinical_time'"),
    ],
)
def test_what_cannot_be_modelled_is_one_sentence(column, value, sentence):
    rows = synthetic_table().rows
    if column is None:
        rows = rows.drop(columns="clinical_time")
    elif value == 0 and column == "clinical_event":
        rows[column] = value
    else:
        rows.loc[3, column] = value
    if column == "clinical_event" and value == 0:
        rows.loc[3, column] = 1
    with pytest.raises(InputError, match=sentence):
        cross_validated_survival(RadiomicsTable(rows, pd.DataFrame(), {}), **QUICK)
