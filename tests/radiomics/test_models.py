"""Models choose nothing outside of the training folds."""

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.scoring import score
from radiodino_utils.radiomics.models import EVEN_ODDS, PROTOCOL, cross_validated_models
from radiodino_utils.radiomics.selection import OneOfEachCluster, model_values
from radiodino_utils.radiomics.table import RadiomicsTable

QUICK = {"penalties": (0.01, 1.0), "counts": (4,)}


def synthetic_table(signal=1.0, patients=60, seed=0):
    """Return two lesions per patient; one clinical, some handcrafted and deep columns tell them."""
    generator = np.random.default_rng(seed)
    sick = np.repeat(generator.random(patients) < 0.5, 2)
    n = len(sick)
    names = [f"patient {row // 2}" for row in range(n)]
    columns = {"case": range(n), "patient": names, "label": 1, "component": 0}
    columns |= {"diagnosis": np.where(sick, "malignant", "benign"), "voxels": 10}
    shared = np.repeat(generator.normal(size=(patients, 3)), 2, 0)
    weights = {"clinical_age": 0.3, "firstorder_mean": 0.7, "glcm_contrast": 0.0}
    weights |= {f"deep_mean_{number:04d}": 1.0 * (number == 3) for number in range(12)}
    for place, (name, weight) in enumerate(weights.items()):
        noise = shared[:, place % 3] + generator.normal(size=n)
        columns[name] = noise + 2 * signal * weight * sick
    facts = {"images": "made", "caveat": "made", "backbone": "b", "weights": "ab"}
    facts |= {"engine": "torch", "precision": "fp32"}
    return RadiomicsTable(pd.DataFrame(columns), pd.DataFrame(), facts)


def test_models_find_the_signal_and_fused_has_all():
    models = cross_validated_models(synthetic_table(), "diagnosis", positive="malignant", **QUICK)
    assert list(models.probabilities) == ["clinical", "handcrafted", "deep", "fused"]
    table = models.metrics(resamples=200)
    auc = table[table["metric"] == "auc"].set_index("model")
    assert auc["value"]["fused"] > auc["value"]["clinical"] and auc["value"]["deep"] > 0.75
    assert (auc["ci_low"] < auc["value"]).all() and (auc["groups"] == 60).all()
    differences = models.differences("clinical", resamples=200)
    assert differences["model"].tolist() == ["handcrafted", "deep", "fused"]
    assert len(models.calibration("deep")) > 3
    assert set(models.chosen["fold"]) == set(range(5))


def test_groups_stay_in_one_fold_and_every_row_is_predicted_once():
    models = cross_validated_models(synthetic_table(), "diagnosis", positive="malignant", **QUICK)
    folds = pd.DataFrame({"group": models.groups, "fold": models.folds})
    assert (folds.groupby("group")["fold"].nunique() == 1).all()
    assert all(np.isfinite(scores).all() for scores in models.probabilities.values())


def test_shuffled_labels_give_chance_and_a_leak_would_show():
    """Many features and few rows: any choice outside of the folds would show."""
    rows = synthetic_table(signal=0.0, patients=60, seed=1).rows
    noise = np.random.default_rng(0).normal(size=(120, 60))
    extra = pd.DataFrame(noise, columns=[f"deep_max_{number:04d}" for number in range(60)])
    rows = pd.concat([rows, extra], axis=1)
    fair, leaky = [], []
    for seed in range(3):
        shuffled = np.repeat(np.random.default_rng(seed).permutation(rows["diagnosis"][::2]), 2)
        mixed = RadiomicsTable(rows.assign(diagnosis=shuffled), pd.DataFrame(), {})
        peeked = extra.corrwith(pd.Series(shuffled == "malignant")).abs().nlargest(8).index
        for only, values in ((None, fair), (peeked, leaky)):
            models = cross_validated_models(
                mixed,
                "diagnosis",
                positive="malignant",
                models={"deep": ("deep",)},
                only=only,
                seed=seed,
                **QUICK,
            )
            auc = models.metrics(resamples=200).set_index("metric").loc["auc"]
            values.append(auc[["ci_low", "value", "ci_high"]].tolist())
    low, value, high = np.array(fair, float).T
    assert ((low < 0.5) & (high > 0.5)).sum() >= 2 and 0.4 < value.mean() < 0.6
    assert np.array(leaky, float)[:, 1].mean() > value.mean() + 0.08


def test_decision_curves_of_everyone_and_no_one():
    models = cross_validated_models(synthetic_table(), "diagnosis", positive="malignant", **QUICK)
    curves = models.decision_curves().set_index(["model", "threshold"])["net_benefit"]
    prevalence = models.labels.mean()
    assert (curves["treat none"] == 0).all()
    first = curves["treat all"].index[0]
    expected = prevalence - (1 - prevalence) * first / (1 - first)
    assert curves["treat all"][first] == pytest.approx(expected)
    assert curves["fused"].iloc[10:30].mean() > curves["treat all"].iloc[10:30].mean()


def test_predictions_give_the_same_metrics_as_result_rows():
    models = cross_validated_models(synthetic_table(), "diagnosis", positive="malignant", **QUICK)
    predictions = models.predictions()
    rows = score(predictions, resamples=50)
    assert set(rows["unit"]) == {"patient"} and set(rows["units"]) == {60}
    assert set(rows["positive"]) == {"malignant"} and (rows["n"] == 120).all()
    weights = rows.groupby("backbone")["weights"].unique().to_dict()
    assert weights["fused"] == ["ab"] and weights["handcrafted"] == [""]
    values = rows.set_index(["protocol", "backbone", "metric"])["value"]
    table = models.metrics(resamples=50).set_index(["model", "metric"])["value"]
    for name in models.probabilities:
        fair, own = values[PROTOCOL + EVEN_ODDS, name], values[PROTOCOL, name]
        for metric in ("auc", "sensitivity", "specificity"):
            assert fair[metric] == pytest.approx(table[name, metric], abs=1e-6)
        assert own["ece"] == pytest.approx(table[name, "ece"], abs=1e-6)


def test_only_stable_features_count():
    models = cross_validated_models(
        synthetic_table(),
        "diagnosis",
        positive="malignant",
        models={"deep": ("deep",)},
        only=["deep_mean_0001"],
        **QUICK,
    )
    assert set(models.chosen["names"]) == {"deep_mean_0001"}


def test_one_of_each_cluster_of_correlated_features_stays():
    generator = np.random.default_rng(0)
    base = generator.normal(size=(100, 2))
    copies = base[:, :1] ** 3 + 0.01 * generator.normal(size=(100, 3))
    values = np.column_stack([base, copies, np.ones(100)])
    assert len(OneOfEachCluster().fit(values).kept_) == 2
    assert OneOfEachCluster(correlation=0.9999).fit(values).transform(values).shape[1] > 2


def test_rows_without_an_outcome_are_named():
    table = synthetic_table()
    rows = table.rows.assign(diagnosis=table.rows["diagnosis"].where(table.rows.index > 1))
    with pytest.warns(UserWarning, match="2 rows without a value"):
        models = cross_validated_models(
            RadiomicsTable(rows, table.excluded, table.facts),
            "diagnosis",
            positive="malignant",
            models={"clinical": ("clinical",)},
            **QUICK,
        )
    assert len(models.labels) == len(rows) - 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"outcome": "stage"}, "no column 'stage'"),
        ({"positive": "cyst"}, "needs two values"),
        ({"groups": "hospital"}, "no column 'hospital'"),
        ({"folds": 50}, "50 parts need 50"),
        ({"models": {"none": ("shape",)}}, "no feature of shape"),
    ],
)
def test_what_cannot_be_modelled_is_one_sentence(options, sentence):
    given = {"outcome": "diagnosis", "positive": "malignant"} | options
    with pytest.raises(InputError, match=sentence):
        cross_validated_models(synthetic_table(), **given)


def test_texts_are_named_and_infinite_values_refused():
    table = synthetic_table()
    table.rows["clinical_sex"] = "F"
    with pytest.warns(UserWarning, match="model clinical: clinical_sex left out"):
        found = model_values(table, table.rows, {"clinical": ["clinical"]})
    assert found["clinical"][1] == ["clinical_age"]
    table.rows.loc[3, "clinical_age"] = np.inf
    with pytest.raises(InputError, match="clinical_age: holds infinite values"):
        model_values(table, table.rows, {"fused": ["clinical", "deep"]})


@pytest.mark.parametrize(
    ("counts", "sentence"),
    [
        ({"folds": 1}, "1 folds with 3 inner folds"),
        ({"folds": 2}, "inner folds: 3 parts need 3 patients .* 'malignant' has 2"),
    ],
)
def test_too_few_groups_for_inner_folds_are_one_sentence(counts, sentence):
    table = synthetic_table(patients=20)
    sick = table.rows["patient"].isin([f"patient {number}" for number in range(4)])
    table.rows["diagnosis"] = np.where(sick, "malignant", "benign")
    with pytest.raises(InputError, match=sentence):
        cross_validated_models(table, "diagnosis", positive="malignant", **counts)
