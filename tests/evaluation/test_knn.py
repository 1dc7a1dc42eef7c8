import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.knn import (
    chosen_k,
    classify_knn,
    knn_curve,
    knn_probabilities,
    votes,
)
from radiodino_utils.evaluation.neighbours import nearest
from radiodino_utils.evaluation.results import COLUMNS, curve_rows

from ..synthetic import synthetic_features
from .test_neighbours import problem


def literal_dino(bank, labels, queries, *, k, classes, temperature):
    """DINO's definition, an image and a neighbour at a time, in float64."""
    answer = []
    for query in queries.astype(np.float64):
        similarities = []
        for row in bank.astype(np.float64):
            similarities.append(float(query @ row) / (np.sqrt(query @ query) * np.sqrt(row @ row)))
        order = sorted(range(len(bank)), key=lambda i: -similarities[i])
        total = [0.0] * classes
        for i in order[:k]:
            total[labels[i]] += np.exp(similarities[i] / temperature)
        answer.append([weight / sum(total) for weight in total])
    return np.array(answer)


@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 60),
    bank=st.integers(1, 50),
    queries=st.integers(1, 25),
)
def test_weighted_vote_is_dinos_definition(seed, k, bank, queries):
    features, labels, asked = problem(seed, bank=bank, queries=queries)
    ours = knn_probabilities(features, labels, asked, ks=(k,), classes=4)[k]
    expected = literal_dino(features, labels, asked, k=k, classes=4, temperature=0.07)
    np.testing.assert_allclose(ours, expected, atol=2e-4)


@given(seed=st.integers(0, 10**6), k=st.integers(1, 40))
def test_weighted_vote_is_scikit_learns_with_equivalent_weights(seed, k):
    bank, labels, queries = problem(seed)
    weights = lambda distances: np.exp((1 - distances) / 0.07)  # noqa: E731
    theirs = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=weights).fit(
        bank, labels
    )
    ours = knn_probabilities(bank, labels, queries, ks=(k,), classes=int(labels.max()) + 1)[k]
    np.testing.assert_allclose(ours[:, theirs.classes_], theirs.predict_proba(queries), atol=2e-4)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 11, 20]))
def test_plain_vote_is_scikit_learns(metric, seed, k):
    bank, labels, queries = problem(seed)
    theirs = KNeighborsClassifier(k, metric=metric, algorithm="brute").fit(bank, labels)
    ours = knn_probabilities(bank, labels, queries, ks=(k,), metric=metric, temperature=None)[k]
    np.testing.assert_allclose(ours[:, theirs.classes_], theirs.predict_proba(queries), atol=1e-12)


@given(
    seed=st.integers(0, 10**6), ks=st.lists(st.integers(1, 50), min_size=1, max_size=6, unique=True)
)
def test_one_search_for_all_k_equals_separate_searches(seed, ks):
    bank, labels, queries = problem(seed)
    together = knn_probabilities(bank, labels, queries, ks=ks, classes=3)
    assert set(together) == set(ks)
    for k in ks:
        np.testing.assert_allclose(
            together[k], knn_probabilities(bank, labels, queries, ks=(k,), classes=3)[k], atol=1e-6
        )


def test_k_above_the_bank_takes_all_of_it():
    bank, labels, queries = problem(0, bank=5)
    assert nearest(bank, queries, 200)[1].shape == (12, 5)
    probabilities = knn_probabilities(bank, labels, queries, ks=(5, 200), classes=3)
    np.testing.assert_array_equal(probabilities[5], probabilities[200])


def test_one_query_and_none():
    bank, labels, queries = problem(0)
    single = knn_probabilities(bank, labels, queries[:1], ks=(1, 20), classes=3)
    several = knn_probabilities(bank, labels, queries, ks=(20,), classes=3)
    np.testing.assert_allclose(single[20], several[20][:1], atol=1e-6)
    assert knn_probabilities(bank, labels, queries[:0], ks=(3,), classes=3)[3].shape == (0, 3)


def test_a_class_absent_from_the_bank_has_probability_zero():
    bank, _, queries = problem(0)
    probabilities = knn_probabilities(bank, np.full(len(bank), 1), queries, ks=(3,), classes=4)[3]
    np.testing.assert_array_equal(probabilities, np.tile([0.0, 1.0, 0.0, 0.0], (len(queries), 1)))


@given(seed=st.integers(0, 10**6), k=st.integers(1, 30), bank=st.integers(2, 30))
def test_leaving_self_out_equals_a_bank_without_it(seed, k, bank):
    features, labels, _ = problem(seed, bank=bank)
    ours = knn_probabilities(
        features, labels, features, ks=(k,), classes=3, exclude=np.arange(bank)
    )[k]
    for i in range(bank):
        rest = np.arange(bank) != i
        alone = knn_probabilities(
            features[rest], labels[rest], features[i : i + 1], ks=(k,), classes=3
        )[k]
        np.testing.assert_allclose(ours[i], alone[0], atol=1e-5)


def test_weights_do_not_overflow():
    similarities, labels = np.array([[1.0, 0.5]], np.float32), np.array([[0, 1]])
    probabilities = votes(similarities, labels, ks=(2,), classes=2, temperature=1e-5)[2]
    np.testing.assert_array_equal(probabilities, [[1.0, 0.0]])


def test_a_zero_vector_is_no_division_by_zero():
    bank, labels, queries = problem(0)
    queries[0] = 0
    assert np.isfinite(knn_probabilities(bank, labels, queries, ks=(5,), classes=3)[5]).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ks": ()}, "ks is"),
        ({"ks": (0, 5)}, "at least 1"),
        ({"bank_labels": np.zeros(3, int)}, "one label per row"),
        ({"metric": "euclidean"}, "need the cosine"),
        ({"temperature": 0}, "temperature 0: choose a finite number above 0"),
        ({"temperature": float("nan")}, "temperature nan: choose a finite number above 0"),
        ({"exclude": np.full(12, 99)}, "exclude: one row of the bank"),
        ({"metric": "cosin", "temperature": None}, "unknown metric 'cosin'; did you mean cosine"),
        ({"queries": np.zeros((2, 9))}, "different backbones"),
        ({"bank": np.zeros((0, 5)), "bank_labels": np.zeros(0, int)}, "bank of the kNN is empty"),
        (
            {
                "bank": np.ones((1, 5)),
                "bank_labels": np.zeros(1, int),
                "exclude": np.zeros(12, int),
            },
            "nothing but the query",
        ),
    ],
)
def test_bad_input_is_one_sentence(options, message):
    bank, labels, queries = problem(0)
    with pytest.raises(InputError, match=message):
        knn_probabilities(
            **{"bank": bank, "bank_labels": labels, "queries": queries, "ks": (3,)} | options
        )


def test_k_is_chosen_on_validation_only():
    features = synthetic_features(noise=2.0)
    ks = (1, 3, 10, 30)
    chosen = classify_knn(features, ks=ks)
    features.labels["test"][:] = (features.labels["test"] + 1) % 3
    features.arrays["test"]["class_token"][:] *= -1
    assert classify_knn(features, ks=ks).choice == chosen.choice
    curve = curve_rows(knn_curve(features, ks=ks, splits=("val",)))
    accuracy = curve[curve["metric"] == "accuracy"].set_index("k")["value"]
    assert chosen.choice["k"] == min(accuracy.index[accuracy == accuracy.max()])
    assert {
        classify_knn(synthetic_features(noise=2.0, seed=s), ks=ks).choice["k"] for s in range(6)
    } != {chosen.choice["k"]}


def test_of_equal_validation_accuracies_the_smallest_k_is_taken():
    assert classify_knn(synthetic_features(noise=0.01), ks=(20, 5, 1, 10)).choice == {"k": 1}


@pytest.mark.parametrize(("protocol", "k"), [("knn1", 1), ("knn11", 11), ("knn20", 20)])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_plain_protocols_are_scikit_learns(protocol, k, metric):
    features = synthetic_features(noise=2.0)
    ours = classify_knn(features, protocol=protocol, metric=metric)
    theirs = KNeighborsClassifier(k, metric=metric).fit(
        features.embedding("train"), features.labels["train"]
    )
    np.testing.assert_array_equal(
        ours.probabilities.argmax(1), theirs.predict(features.embedding("test"))
    )
    np.testing.assert_allclose(
        ours.probabilities, theirs.predict_proba(features.embedding("test")), atol=1e-12
    )
    assert (ours.protocol, ours.split, ours.choice) == (protocol, "test", {"k": k})


def test_knn11_is_euclidean_by_default():
    features = synthetic_features(noise=2.0)
    features.arrays["train"]["class_token"] *= np.linspace(0.2, 5, 60, dtype=np.float32)[:, None]
    default, cosine = (
        classify_knn(features, protocol="knn11", **option) for option in ({}, {"metric": "cosine"})
    )
    theirs = KNeighborsClassifier(11).fit(features.embedding("train"), features.labels["train"])
    np.testing.assert_allclose(
        default.probabilities, theirs.predict_proba(features.embedding("test")), atol=1e-12
    )
    assert not np.allclose(default.probabilities, cosine.probabilities)


def test_a_dataset_without_validation_has_the_plain_votes_only():
    features = synthetic_features(sizes={"train": 60, "test": 30})
    assert classify_knn(features, protocol="knn11").probabilities.shape == (30, 3)
    with pytest.raises(InputError, match="has no split val.*knn1, knn11 and knn20 need no val"):
        classify_knn(features)
    with pytest.raises(InputError, match="made: has no split val"):
        knn_curve(features)
    with pytest.raises(InputError, match="has no split train, test"):
        classify_knn(synthetic_features(sizes={"all": 30}), protocol="knn1")


def test_unknown_protocols_are_named():
    with pytest.raises(InputError, match="unknown kNN protocol 'knn12'; did you mean"):
        classify_knn(synthetic_features(), protocol="knn12")


def test_the_curve_holds_result_rows_of_every_k_and_split():
    features = synthetic_features(noise=2.0)
    curve = curve_rows(knn_curve(features, ks=(1, 7, 500)), seed=3)
    assert set(COLUMNS) | {"k"} == set(curve.columns)
    assert (
        len(curve) == 3 * 2 * 5 and set(curve["seed"]) == {3} and set(curve["protocol"]) == {"knn"}
    )
    assert curve.groupby("split")["n"].first().to_dict() == {"test": 30, "val": 24}
    own = knn_probabilities(
        features.embedding("train"), features.labels["train"], features.embedding("test"), ks=(7,)
    )[7]
    at = curve[(curve["k"] == 7) & (curve["split"] == "test") & (curve["metric"] == "accuracy")]
    assert at["value"].item() == (own.argmax(1) == features.labels["test"]).mean()


def test_a_common_k_needs_no_validation_and_no_more_rows_than_there_are():
    features = synthetic_features(noise=2.0)
    common = classify_knn(features, protocol="knn-k20")
    assert (common.protocol, common.choice) == ("knn-k20", {"k": 20})
    by_hand = knn_probabilities(
        features.embedding("train"), features.labels["train"], features.embedding("test"), ks=(20,)
    )[20]
    np.testing.assert_allclose(common.probabilities, by_hand)
    few = synthetic_features(sizes={"train": 9, "test": 6})
    assert classify_knn(few, protocol="knn-k20").choice == {"k": 9}


def test_the_chosen_k_is_that_of_the_protocol_by_dataset_and_backbone():
    features = [synthetic_features(), synthetic_features(dataset="other", seed=1, noise=3.0)]
    chosen = chosen_k(features, ks=(1, 5, 20))
    assert list(chosen) == [("made", "random-t16"), ("other", "random-t16")]
    for entry in features:
        expected = classify_knn(entry, ks=(1, 5, 20)).choice["k"]
        assert chosen[entry.dataset, entry.backbone] == expected
