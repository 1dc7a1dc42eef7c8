"""Labels and numbers that do not fit are one sentence wherever they are given, and never reach native code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.checks import (
    checked_embeddings,
    checked_ks,
    checked_labels,
    checked_temperature,
)
from radiodino_utils.core.errors import InputError

# in a process of its own: without the checks some of these end it by a signal
EVERYWHERE = """
from dataclasses import replace
import numpy as np
from radiodino_utils.evaluation import audit, few_shot, finetuning, knn, linear, logistic, metrics
from radiodino_utils.evaluation.segmentation import probes
from radiodino_utils.explain import class_activation
from radiodino_utils.pretraining import online_probe
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.data.dataset import ImageDataset, Split
from tests.synthetic import synthetic_features
from tests.synthetic_segmentation import synthetic_segmentation

BAD = {"below": -1, "ignored by torch": -100, "above": 3, "far above": 10**5, "half": 0.5}
BAD |= {"nan": np.nan, "text": "a", "short": None}

def spoilt(labels, bad):
    if bad is None:
        return labels[:-1]
    labels = labels.astype(str if isinstance(bad, str) else np.result_type(np.int64, type(bad)))
    labels[3] = bad
    return labels

def of_features(function, split="train"):
    def run(bad):
        features = synthetic_features()
        features.labels[split] = spoilt(features.labels[split], bad)
        function(features)
    return run

def of_set(function, split):
    def run(bad):
        part = Split(np.zeros((12, 32, 32), np.uint8), np.arange(12) % 3, list("abcdefghijkl"))
        splits = dict.fromkeys(("train", "val", "test"), part)
        splits[split] = replace(part, labels=spoilt(part.labels, bad))
        function(ImageDataset("made", ("a", "b", "c"), splits, "made"))
    return run

def of_masks(function):
    def run(bad):
        dataset = synthetic_segmentation(classes=3)
        masks = dataset.masks[:, :-1] if bad is None else spoilt(dataset.masks, bad)
        function(replace(dataset, masks=masks))
    return run

bank = synthetic_features()
rows, labels, scores = bank.embedding("train"), bank.labels["train"], np.full((60, 3), 1 / 3)
ones, random = np.ones((60, 1), np.float32), load_backbone("random-t16")
CASES = {
    "votes": lambda bad: knn.votes(ones, spoilt(labels, bad)[:, None], ks=(1,), classes=3, temperature=0.07),
    "knn_probabilities": lambda bad: knn.knn_probabilities(rows, spoilt(labels, bad), rows, ks=(5,), classes=3),
    "knn_curve": of_features(knn.knn_curve),
    "classify_knn": of_features(knn.classify_knn),
    "classify_knn val": of_features(knn.classify_knn, "val"),
    "classify_knn test": of_features(knn.classify_knn, "test"),
    "knn11": of_features(lambda features: knn.classify_knn(features, protocol="knn11")),
    "KnnVote": of_features(class_activation.KnnVote),
    "LinearProbe": of_features(class_activation.LinearProbe),
    "logistic": of_features(logistic.classify_logistic),
    "logistic val": of_features(logistic.classify_logistic, "val"),
    "linear": of_features(lambda features: linear.classify_linear(features, iterations=2)),
    "linear val": of_features(lambda features: linear.classify_linear(features, iterations=2), "val"),
    "few-shot": of_features(lambda features: few_shot.classify_few_shot(features, shots=(2,), draws=1)),
    "few-shot test": of_features(lambda features: few_shot.classify_few_shot(features, shots=(2,), draws=1), "test"),
    "metrics": lambda bad: metrics.classification_metrics(spoilt(labels, bad), scores, resamples=2),
    "paired": lambda bad: metrics.paired_differences(spoilt(labels, bad), scores, scores, resamples=2),
    "confusion": lambda bad: metrics.confusion_matrix(spoilt(labels, bad), scores),
    "reliability": lambda bad: metrics.reliability(spoilt(labels, bad), scores),
    "mean_dice": lambda bad: probes.mean_dice(np.zeros((60, 3, 1, 1)), spoilt(labels, bad)[:, None, None], 3),
    "class_weights": lambda bad: probes.class_weights(labels[:0] if bad is None else spoilt(labels, bad), 3),
    "segment_unet": of_masks(lambda dataset: probes.segment_unet(dataset, size=32)),
    "finetune train": of_set(lambda dataset: finetuning.finetune(random, dataset), "train"),
    "finetune val": of_set(lambda dataset: finetuning.finetune(random, dataset), "val"),
    "probe": of_set(online_probe.KnnProbe, "train"),
    "extract_features": of_set(lambda dataset: extract_features(random, dataset), "test"),
    "audit": of_set(audit.audit, "test"),
}
for name, case in CASES.items():
    for kind, bad in BAD.items():
        try:
            case(bad)
            print(name, "|", kind, "| nothing was said", flush=True)
        except InputError as error:
            assert str(error) and chr(10) not in str(error)
        except Exception as error:
            print(name, "|", kind, "|", repr(error), flush=True)
print("done")
"""


def test_bad_labels_are_one_sentence_in_every_public_function(run_python, tmp_path):
    done = run_python(EVERYWHERE, RADIODINO_DATA=tmp_path)
    assert (done.returncode, done.stdout.splitlines(), done.stderr if done.returncode else "") == (
        0,
        ["done"],
        "",
    )


@given(
    labels=st.lists(st.integers(0, 4), max_size=20),
    kind=st.sampled_from([np.uint8, np.int16, np.int64, np.float32]),
)
def test_whole_labels_come_back_as_int64(labels, kind):
    found = checked_labels(np.array(labels, kind), 5, shape=(len(labels),))
    assert found.dtype == np.int64 and found.tolist() == labels


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    bad=st.sampled_from([-1, 5, 0.5, np.nan, np.inf, -np.inf, 2.0**63]),
)
def test_a_label_that_does_not_fit_is_named(labels, bad):
    with pytest.raises(
        InputError,
        match=f"^labels must be whole numbers from 0 to 4, .*that of row {len(labels)} is ",
    ):
        checked_labels([*labels, bad], 5)


def test_huge_labels_do_not_wrap():
    with pytest.raises(InputError, match="row 0 is 18446744073709551615"):
        checked_labels(np.array([2**64 - 1], np.uint64))


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf, "x", None])
def test_temperatures_that_are_none(temperature):
    with pytest.raises(
        InputError, match=f"^temperature {temperature}: choose a finite number above 0"
    ):
        checked_temperature(temperature)


@pytest.mark.parametrize("ks", [(), (0,), (-1, 5), (2.5,), (np.nan,), (np.inf,), 5, "5"])
def test_ks_that_are_none(ks):
    with pytest.raises(InputError, match="^ks is "):
        checked_ks(ks)


@pytest.mark.parametrize(
    "values",
    [
        np.ones(3),
        np.array([["a"]]),
        np.array([[np.nan]]),
        np.array([[1, np.inf]]),
        np.ones((1, 2, 3)),
    ],
)
def test_embeddings_that_are_none(values):
    with pytest.raises(InputError, match="^the embeddings"):
        checked_embeddings(values)
