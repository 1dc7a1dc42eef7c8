import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.cross_validation import cross_validation

from .. import synthetic  # noqa: F401 (hypothesis settings)


def patients(seed, *, count=24, classes=2):
    """Return labels and patients of 1 to 9 images each, of one class each."""
    generator = np.random.default_rng(seed)
    sizes = generator.integers(1, 10, count)
    labels = (np.arange(count) % classes).repeat(sizes)
    groups = [f"p{i}" for i in np.arange(count).repeat(sizes)]
    order = generator.permutation(len(labels))
    return labels[order], [groups[row] for row in order]


@given(seed=st.integers(0, 10**6), folds=st.integers(3, 6), grouped=st.booleans())
def test_each_image_is_tested_once_in_each_repeat_and_groups_stay_together(seed, folds, grouped):
    labels, groups = patients(seed)
    own = groups if grouped else None
    splits = cross_validation(labels, own, ("a", "b"), folds=folds, repeats=2, seed=seed)
    for repeat in (splits[:folds], splits[folds:]):
        tested = [row for parts in repeat for row in parts["test"]]
        assert sorted(tested) == list(range(len(labels)))
    for parts in splits:
        assert sorted(np.concatenate(list(parts.values()))) == list(range(len(labels)))
        assert set(labels[parts["train"]]) == {0, 1}
        if grouped:
            names = [{groups[row] for row in rows} for rows in parts.values()]
            assert sum(map(len, names)) == len(set.union(*names))


def test_folds_are_of_similar_class_mix_and_repeats_differ():
    labels = np.repeat([0, 1], [60, 30])
    splits = cross_validation(labels, None, ("a", "b"), folds=5, repeats=2)
    assert [np.bincount(labels[parts["test"]]).tolist() for parts in splits] == [[12, 6]] * 10
    assert [len(parts["val"]) for parts in splits] == [18] * 10
    assert splits[0]["test"].tolist() != splits[5]["test"].tolist()
    again = cross_validation(labels, None, ("a", "b"), folds=5, repeats=2)
    assert all(np.array_equal(a["val"], b["val"]) for a, b in zip(splits, again, strict=True))


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        (["p"] * 40, {}, "own: 5 parts need 5 patients of each class, and the class 'a' has 1"),
        ([f"p{i // 10}" for i in range(40)], {"folds": 3}, "'a' has 2; ask for fewer parts"),
        (None, {"folds": 21}, "21 parts need 21 images of each class, and the class 'a' has 20"),
        (None, {"folds": 2}, "2 folds, 3 repeats: .* needs at least 3 folds and 1 repeat"),
        (None, {"repeats": 0}, "5 folds, 0 repeats"),
    ],
)
def test_what_cannot_be_divided_is_refused_in_a_sentence(groups, options, message):
    labels = np.repeat([0, 1], 20)
    with pytest.raises(InputError, match=message):
        cross_validation(labels, groups, ("a", "b"), name="own", unit="patient", **options)


def test_a_class_without_images_is_refused():
    with pytest.raises(InputError, match="a fold has no image of the class 'c'"):
        cross_validation(np.repeat([0, 1], 20), None, ("a", "b", "c"), name="own")
