"""Invalid labels and numbers give one sentence in every function, and never reach native code."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.checks import (
    checked_count,
    checked_embeddings,
    checked_ks,
    checked_labels,
    checked_temperature,
)
from radiodino_utils.core.errors import InputError

# runs in a process of its own: without the checks some cases end it by a signal
EVERYWHERE = """
from dataclasses import replace
import numpy as np
from radiodino_utils.evaluation import audit, few_shot, finetuning, knn, linear, logistic, metrics
from radiodino_utils.evaluation.segmentation import probes, training
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

def spoiled(labels, bad):
    if bad is None:
        return labels[:-1]
    labels = labels.astype(str if isinstance(bad, str) else np.result_type(np.int64, type(bad)))
    labels[3] = bad
    return labels

def of_features(function, split="train"):
    def run(bad):
        features = synthetic_features()
        features.labels[split] = spoiled(features.labels[split], bad)
        function(features)
    return run

def of_dataset(function, split):
    def run(bad):
        part = Split(np.zeros((12, 32, 32), np.uint8), np.arange(12) % 3, list("abcdefghijkl"))
        splits = dict.fromkeys(("train", "val", "test"), part)
        splits[split] = replace(part, labels=spoiled(part.labels, bad))
        function(ImageDataset("made", ("a", "b", "c"), splits, "made"))
    return run

def of_masks(function):
    def run(bad):
        dataset = synthetic_segmentation(classes=3)
        masks = dataset.masks[:, :-1] if bad is None else spoiled(dataset.masks, bad)
        function(replace(dataset, masks=masks))
    return run

bank = synthetic_features()
rows, labels, scores = bank.embedding("train"), bank.labels["train"], np.full((60, 3), 1 / 3)
ones, random = np.ones((60, 1), np.float32), load_backbone("random-t16")

def few(features):
    few_shot.classify_few_shot(features, shots=(2,), draws=1)

def linear_probe(features):
    linear.classify_linear(features, iterations=2)

def votes(bad):
    knn.votes(ones, spoiled(labels, bad)[:, None], ks=(1,), classes=3, temperature=0.07)

def probabilities(bad):
    knn.knn_probabilities(rows, spoiled(labels, bad), rows, ks=(5,), classes=3)

def metric_table(bad):
    metrics.classification_metrics(spoiled(labels, bad), scores, resamples=2)

def differences(bad):
    metrics.paired_differences(spoiled(labels, bad), scores, scores, resamples=2)

def dice(bad):
    training.mean_dice(np.zeros((60, 3, 1, 1)), spoiled(labels, bad)[:, None, None], 3)

def weights(bad):
    training.class_weights(labels[:0] if bad is None else spoiled(labels, bad), 3)

CASES = {
    "votes": votes,
    "knn_probabilities": probabilities,
    "knn_curve": of_features(knn.knn_curve),
    "classify_knn": of_features(knn.classify_knn),
    "classify_knn val": of_features(knn.classify_knn, "val"),
    "classify_knn test": of_features(knn.classify_knn, "test"),
    "knn11": of_features(lambda features: knn.classify_knn(features, protocol="knn11")),
    "KnnVote": of_features(class_activation.KnnVote),
    "LinearProbe": of_features(class_activation.LinearProbe),
    "logistic": of_features(logistic.classify_logistic),
    "logistic val": of_features(logistic.classify_logistic, "val"),
    "linear": of_features(linear_probe),
    "linear val": of_features(linear_probe, "val"),
    "few-shot": of_features(few),
    "few-shot test": of_features(few, "test"),
    "metrics": metric_table,
    "paired": differences,
    "reliability": lambda bad: metrics.reliability(spoiled(labels, bad), scores),
    "mean_dice": dice,
    "class_weights": weights,
    "segment_unet": of_masks(lambda dataset: probes.segment_unet(dataset, size=32)),
    "finetune train": of_dataset(lambda dataset: finetuning.finetune(random, dataset), "train"),
    "finetune val": of_dataset(lambda dataset: finetuning.finetune(random, dataset), "val"),
    "probe": of_dataset(online_probe.KnnProbe, "train"),
    "extract_features": of_dataset(lambda dataset: extract_features(random, dataset), "test"),
    "audit": of_dataset(audit.audit, "test"),
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
    checked = checked_labels(np.array(labels, kind), 5, shape=(len(labels),))
    assert checked.dtype == np.int64 and checked.tolist() == labels


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    bad=st.sampled_from([-1, 5, 0.5, np.nan, np.inf, -np.inf, 2.0**63]),
)
def test_the_message_names_the_invalid_label(labels, bad):
    with pytest.raises(
        InputError,
        match=f"^labels must be whole numbers from 0 to 4, .*that of row {len(labels)} is ",
    ):
        checked_labels([*labels, bad], 5)


def test_huge_labels_do_not_wrap():
    with pytest.raises(InputError, match="row 0 is 18446744073709551615"):
        checked_labels(np.array([2**64 - 1], np.uint64))


@pytest.mark.parametrize("temperature", [0, -1, np.nan, np.inf, "x", None])
def test_invalid_temperatures(temperature):
    with pytest.raises(
        InputError, match=f"^temperature {temperature}: choose a finite number above 0"
    ):
        checked_temperature(temperature)


@pytest.mark.parametrize("ks", [(), (0,), (-1, 5), (2.5,), (np.nan,), (np.inf,), 5, "5"])
def test_invalid_ks(ks):
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
def test_invalid_embeddings(values):
    with pytest.raises(InputError, match="^the embeddings"):
        checked_embeddings(values)


@pytest.mark.parametrize("number", [0, -1, 2.5, True, "3", None, np.nan])
def test_invalid_counts(number):
    with pytest.raises(
        InputError, match="^batch_size is .*; it needs a whole number of at least 1"
    ):
        checked_count(number, what="batch_size")


def test_whole_numbers_are_counts():
    assert [checked_count(number, what="images") for number in (1, np.int64(4))] == [1, 4]
