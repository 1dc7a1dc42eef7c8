import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.metrics import (
    classification_metrics,
    mean_interval,
    paired_differences,
)
from radiodino_utils.evaluation.resampling import draw_counts, unit_numbers

from .. import synthetic  # noqa: F401 (hypothesis settings)

PATIENTS, IMAGES = 30, 50


def coverage(values_of, truth, *, clustered, trials=500):
    """Return how often the interval of the mean covers the truth."""
    patients = [f"p{i}" for i in np.repeat(np.arange(PATIENTS), IMAGES)]
    covered = 0
    for trial in range(trials):
        values = values_of(np.random.default_rng(trial))
        if clustered:
            interval = mean_interval(values, groups=patients, resamples=400, seed=trial)
            low, high = interval.low, interval.high
        else:  # the percentile bootstrap over images without its cost: 1500 images are many
            half = 1.96 * values.std() / np.sqrt(len(values))
            low, high = values.mean() - half, values.mean() + half
        covered += low <= truth <= high
    return covered / trials


def normal_values(generator):
    """Draw values of an intraclass correlation of .5 around 0."""
    of_patient = generator.normal(0, np.sqrt(0.5), PATIENTS).repeat(IMAGES)
    return of_patient + generator.normal(0, np.sqrt(0.5), PATIENTS * IMAGES)


def correct_or_not(generator):
    """Draw hits of an intraclass correlation of .5 around an accuracy of .75."""
    return (generator.random((IMAGES, PATIENTS)) < generator.beta(0.75, 0.25, PATIENTS)).T.ravel()


@pytest.mark.parametrize(("draw", "truth"), [(normal_values, 0.0), (correct_or_not, 0.75)])
def test_the_interval_over_patients_covers_the_truth_and_that_over_images_does_not(draw, truth):
    assert 0.92 <= coverage(draw, truth, clustered=True) <= 0.98
    assert coverage(draw, truth, clustered=False) < 0.70


def test_the_interval_over_images_of_the_simulation_is_the_bootstraps():
    values = normal_values(np.random.default_rng(0))
    interval = mean_interval(values)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert interval.high - interval.low == pytest.approx(2 * half, rel=0.08)


def problem(seed, n=90, classes=3):
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.arange(n) % classes)
    scores = generator.random((n, classes)) + 0.5 * np.eye(classes)[labels]
    return labels, scores / scores.sum(1, keepdims=True)


def test_accuracy_is_the_mean_of_hits_whatever_the_groups():
    labels, scores = problem(1)
    groups = [f"p{i % 11}" for i in range(90)]
    grouped = classification_metrics(labels, scores, groups=groups)
    alone = classification_metrics(labels, scores)
    assert {name: metric.value for name, metric in grouped.items()} == {
        name: metric.value for name, metric in alone.items()
    }
    hits = mean_interval((scores.argmax(1) == labels).astype(float), groups=groups)
    assert grouped["accuracy"].low == pytest.approx(hits.low)
    assert grouped["accuracy"].high == pytest.approx(hits.high)


def test_copies_of_images_do_not_narrow_the_interval_over_patients():
    labels, scores = problem(2)
    patients = [f"p{i}" for i in range(90)]
    once = classification_metrics(labels, scores, groups=patients)
    copied = classification_metrics(
        labels.repeat(20), scores.repeat(20, axis=0), groups=np.repeat(patients, 20).tolist()
    )
    for name in once:
        assert copied[name] == pytest.approx(once[name]) or np.allclose(
            [copied[name].low, copied[name].high], [once[name].low, once[name].high]
        )


def test_paired_differences_of_equal_classifiers_are_zero_over_patients_too():
    labels, scores = problem(3)
    groups = [f"p{i // 9}" for i in range(90)]
    differences = paired_differences(labels, scores, scores, groups=groups)
    assert all((d.value, d.low, d.high) == (0, 0, 0) for d in differences.values())
    others = paired_differences(labels, scores, problem(4)[1], groups=groups)
    alone = paired_differences(labels, scores, problem(4)[1])
    assert others["accuracy"].value == alone["accuracy"].value
    assert others["accuracy"] != alone["accuracy"]


def test_one_group_has_values_and_no_interval():
    labels, scores = problem(5)
    metrics = classification_metrics(labels, scores, groups=["p1"] * 90)
    assert metrics["accuracy"].value > 0
    assert all(np.isnan([metric.low, metric.high]).all() for metric in metrics.values())


@pytest.mark.parametrize("groups", [["p1"] * 89, ["p1"] * 89 + [""], ["p1"] * 89 + [None]])
def test_every_image_needs_a_group(groups):
    labels, scores = problem(6)
    with pytest.raises(InputError, match="groups: 89 for 90 images; give one for each image"):
        classification_metrics(labels, scores, groups=groups)


@given(
    groups=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=40), seed=st.integers(0, 9)
)
def test_images_of_a_group_are_drawn_together(groups, seed):
    units = unit_numbers(groups, len(groups))
    counts = draw_counts(units, len(groups), 20, np.random.default_rng(seed))
    assert counts.shape == (20, len(groups))
    for name in set(groups):
        members = counts[:, np.array(groups) == name]
        assert (members == members[:, :1]).all()
    first = [groups.index(name) for name in dict.fromkeys(groups)]
    assert (counts[:, first].sum(1) == len(first)).all()
