import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from medmnist.evaluator import getACC, getAUC
from sklearn import metrics as sk

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation import metrics
from radiodino_utils.evaluation.metrics import (
    BINARY_METRICS,
    BINS,
    METRICS,
    classification_metrics,
    paired_differences,
    reliability,
)

from .. import synthetic  # noqa: F401 (hypothesis settings)


def problem(seed, *, n=60, classes=4, levels=None):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % classes)
    scores = generator.random((n, classes)) + 0.5 * np.eye(classes)[labels]
    scores = scores / scores.sum(1, keepdims=True)
    return labels, scores if levels is None else np.round(scores * levels) / levels


def by_scikit_learn(labels, scores):
    """The same metrics a call each; classes without images or without others have no AUC."""
    predicted, classes = scores.argmax(1), scores.shape[1]
    with np.errstate(invalid="ignore"):
        aucs = [
            sk.roc_auc_score(labels == c, scores[:, c])
            if 0 < (labels == c).sum() < len(labels)
            else np.nan
            for c in (range(classes) if classes != 2 else [1])
        ]
    hit = predicted == labels
    bins = np.minimum((scores.max(1) * BINS).astype(int), BINS - 1)
    gaps = [
        abs(scores.max(1)[bins == number].sum() - hit[bins == number].sum())
        for number in range(BINS)
    ]
    recalls = [
        np.mean(predicted[labels == c] == c) if (labels == c).any() else np.nan for c in (1, 0)
    ]
    return (dict(zip(BINARY_METRICS, recalls, strict=True)) if classes == 2 else {}) | {
        "ece": sum(gaps) / len(labels),
        "accuracy": sk.accuracy_score(labels, predicted),
        "balanced_accuracy": np.mean(
            [np.mean(predicted[labels == c] == c) for c in np.unique(labels)]
        ),
        "f1_macro": sk.f1_score(labels, predicted, average="macro"),
        "auc": np.nan if np.isnan(aucs).all() else np.nanmean(aucs),
    }


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(1, 60),
    classes=st.integers(2, 6),
    levels=st.sampled_from([None, 2, 5]),
)
def test_values_are_scikit_learns(seed, n, classes, levels):
    labels, scores = problem(seed, n=n, classes=classes, levels=levels)
    ours = {
        name: interval.value
        for name, interval in classification_metrics(labels, scores, resamples=1).items()
    }
    expected = by_scikit_learn(labels, scores)
    assert set(ours) == {*METRICS, *(BINARY_METRICS if classes == 2 else ())}
    for name in ours:
        np.testing.assert_allclose(ours[name], expected[name], atol=1e-12, err_msg=name)


def test_balanced_accuracy_is_scikit_learns():
    labels, scores = problem(0)
    labels[labels == 3] = 0
    scores[:, 3] = 0
    expected = sk.balanced_accuracy_score(labels, scores.argmax(1))
    assert classification_metrics(labels, scores, resamples=1)[
        "balanced_accuracy"
    ].value == pytest.approx(expected)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 8))
def test_auc_and_accuracy_are_medmnists(seed, classes):
    labels, scores = problem(seed, classes=classes)
    task = "binary-class" if classes == 2 else "multi-class"
    ours = classification_metrics(labels, scores, resamples=1)
    assert ours["auc"].value == pytest.approx(getAUC(labels[:, None], scores, task), abs=1e-12)
    assert ours["accuracy"].value == pytest.approx(getACC(labels[:, None], scores, task), abs=1e-12)


def test_a_binary_score_of_one_half_is_class_0_as_in_medmnist():
    labels, scores = np.array([0, 1, 1]), np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]])
    assert classification_metrics(labels, scores, resamples=1)["accuracy"].value == getACC(
        labels[:, None], scores, "binary-class"
    )


@pytest.mark.parametrize(("n", "classes"), [(40, 4), (12, 6), (30, 2)])
def test_intervals_are_those_of_a_literal_loop(n, classes):
    """scikit-learn on each of the same resamples; in small ones classes are often absent."""
    labels, scores = problem(1, n=n, classes=classes, levels=8)
    counts = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), 200)
    loop = [
        by_scikit_learn(np.repeat(labels, times), np.repeat(scores, times, axis=0))
        for times in counts
    ]
    absent = sum(len(np.unique(np.repeat(labels, times))) < classes for times in counts)
    assert absent > 50 or classes != 6
    for name, interval in classification_metrics(labels, scores, resamples=200, seed=5).items():
        low, high = np.nanpercentile([values[name] for values in loop], [2.5, 97.5])
        np.testing.assert_allclose(
            (interval.low, interval.high), (low, high), atol=1e-12, err_msg=name
        )


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), n=st.integers(40, 120))
def test_intervals_contain_the_value_and_repeat(seed, n):
    labels, scores = problem(seed, n=n)
    first, second = (classification_metrics(labels, scores, seed=seed % 7) for _ in range(2))
    assert first == second
    for interval in first.values():
        assert interval.low <= interval.value <= interval.high
        assert interval.low >= 0 and interval.high <= 1


def test_another_seed_gives_another_interval_and_the_same_value():
    labels, scores = problem(0)
    first, second = (classification_metrics(labels, scores, seed=seed)["auc"] for seed in (0, 1))
    assert first.value == second.value and (first.low, first.high) != (second.low, second.high)


def test_resamples_in_blocks_equal_those_at_once(monkeypatch):
    labels, scores = problem(0)
    at_once = classification_metrics(labels, scores, resamples=50)
    monkeypatch.setattr(metrics, "BLOCK", 7 * len(labels))
    for name, interval in classification_metrics(labels, scores, resamples=50).items():
        expected = (at_once[name].low, at_once[name].high)
        np.testing.assert_allclose((interval.low, interval.high), expected, atol=1e-12)


def test_the_interval_has_the_width_that_theory_says():
    labels = np.zeros(1000, int)
    scores = np.tile([0.6, 0.4], (1000, 1))
    scores[:300] = [0.4, 0.6]  # accuracy 0.7: standard error 0.0145
    one = classification_metrics(labels, scores)["accuracy"]
    assert one.value == 0.7
    assert one.high - one.low == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 1000), rel=0.15)


def test_one_image_has_no_auc_and_all_else():
    one = classification_metrics(np.array([1]), np.array([[0.2, 0.5, 0.3]]))
    assert (one["accuracy"].value, one["accuracy"].low, one["accuracy"].high) == (1, 1, 1)
    assert one["f1_macro"].value == 1
    assert all(np.isnan(number) for number in (one["auc"].value, one["auc"].low, one["auc"].high))


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([], np.zeros((0, 2)), "do not fit"),
        ([0, 1], np.zeros((3, 2)), "do not fit"),
        ([0, 1], np.zeros(2), "do not fit"),
        ([0, 1], [[0.1, np.nan], [0.5, 0.5]], "NaN or infinite"),
        ([0, 2], [[0.1, 0.9], [0.5, 0.5]], "whole numbers from 0 to 1"),
        ([0, -1], [[0.1, 0.9], [0.5, 0.5]], "whole numbers from 0 to 1"),
        ([0.0, 0.5], [[0.1, 0.9], [0.5, 0.5]], "whole numbers from 0 to 1"),
    ],
)
def test_bad_input_is_one_sentence(labels, scores, message):
    with pytest.raises(InputError, match=message):
        classification_metrics(np.array(labels), np.array(scores))


def test_calibration_error_is_torchmetrics():
    import torch
    from torchmetrics.functional.classification import multiclass_calibration_error

    labels, scores = problem(3, n=300)
    expected = multiclass_calibration_error(
        torch.tensor(scores), torch.tensor(labels), 4, n_bins=BINS
    )
    assert classification_metrics(labels, scores, resamples=0)["ece"].value == pytest.approx(
        float(expected), abs=1e-6
    )


def test_the_reliability_table_holds_the_calibration_error():
    labels, scores = problem(4, n=200)
    table = reliability(labels, scores)
    error = ((table["confidence"] - table["accuracy"]).abs() * table["n"]).sum() / table["n"].sum()
    assert table["n"].sum() == 200 and classification_metrics(labels, scores, resamples=0)[
        "ece"
    ].value == pytest.approx(error)


def test_sensitivity_is_that_of_the_positive_class():
    labels, scores = problem(5, classes=2)
    one, other = (
        classification_metrics(labels, scores, positive=positive, resamples=20)
        for positive in (0, 1)
    )
    assert one["sensitivity"] == other["specificity"] and one["specificity"] == other["sensitivity"]
    assert other["sensitivity"].value == pytest.approx(sk.recall_score(labels, scores.argmax(1)))


def test_paired_differences_are_narrower_than_unpaired_ones():
    labels, scores = problem(6, n=300)
    worse = scores.copy()
    worse[:15] = 1 - worse[:15]  # the same but for a few images
    gap = paired_differences(labels, scores, worse, resamples=300)["accuracy"]
    first = classification_metrics(labels, scores, resamples=300)["accuracy"]
    second = classification_metrics(labels, worse, resamples=300)["accuracy"]
    assert gap.value == pytest.approx(first.value - second.value)
    assert gap.low <= gap.value <= gap.high and gap.high - gap.low < 0.5 * (first.high - first.low)


def test_a_classifier_does_not_differ_from_itself():
    labels, scores = problem(7)
    for difference in paired_differences(labels, scores, scores, resamples=50).values():
        assert (difference.value, difference.low, difference.high) == (0, 0, 0)


def test_the_mean_of_few():
    one, none = metrics.mean_interval(np.array([0.5])), metrics.mean_interval(np.array([]))
    assert one.value == 0.5 and np.isnan([one.low, one.high, none.value, none.low, none.high]).all()
    two = metrics.mean_interval(np.array([0.0, 1.0]))
    assert (two.low, two.value, two.high) == (0, 0.5, 1)
