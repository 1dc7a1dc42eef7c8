import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.duplicates import perceptual_hashes
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.separation import (
    hashed,
    kept,
    least_distances,
    near_rows,
    only_listed,
    read_hashes,
    repeated_rows,
    similar_rows,
    sparsely,
    thumbnails,
    write_list,
)
from radiodino_utils.pretraining.sources import Source

from ..synthetic_corpus import synthetic_folder, synthetic_images


@pytest.fixture
def corpus(tmp_path):
    sources = [
        Source(synthetic_folder(tmp_path / name, 12, seed=seed), 0.5)
        for seed, name in enumerate(("first", "second"))
    ]
    return load_corpus(sources)


def test_a_brighter_mirrored_copy_is_near_and_other_images_are_not():
    images = synthetic_images(9, size=96)[0]
    hashes = perceptual_hashes(list(images))
    copy = np.clip(images[4, :, ::-1].astype(int) + 15, 0, 255).astype(np.uint8)
    assert near_rows(hashes, hashed([copy]), distance=4).tolist() == [row == 4 for row in range(9)]
    assert least_distances(hashes, hashes).tolist() == [0] * 9


def test_a_copy_correlates_and_other_images_do_not():
    images = list(synthetic_images(9, size=96)[0])
    copy = (images[2] * 0.8 + 20).astype(np.uint8)
    assert similar_rows(thumbnails(images), thumbnails([copy]), similarity=0.98).tolist() == [
        row == 2 for row in range(9)
    ]


def test_only_later_repeats_across_corpora_count():
    hashes = np.array([[0] * 8, [1] + [0] * 7, [0] * 8, [255] * 8], np.uint8)
    assert repeated_rows(hashes).tolist() == [False, False, True, False]
    assert repeated_rows(hashes, distance=1).tolist() == [False, True, True, False]
    assert repeated_rows(hashes, distance=1, within=np.array([0, 0, 0, 1])).tolist() == [False] * 4


def test_sources_keep_their_share_of_the_draws(corpus):
    few = sparsely(corpus, {"first": 3})
    assert np.bincount(few.source_of).tolist() == [3, 12] and few.weights.tolist() == [0.5, 0.5]
    assert (
        few.digest
        == sparsely(corpus, {"first": 3}).digest
        != sparsely(corpus, {"first": 3}, seed=1).digest
    )
    assert all(
        np.array_equal(few[row], corpus[corpus.names.index(name)])
        for row, name in enumerate(few.names)
    )
    with pytest.raises(
        InputError, match="^second: no image of the source may be kept; leave it out"
    ):
        kept(corpus, corpus.source_of == 0)


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz"])
def test_a_list_names_the_same_corpus_again(corpus, tmp_path, name):
    few = sparsely(corpus, {"second": 5})
    hashes = perceptual_hashes([few[row] for row in range(len(few))])
    write_list(few, hashes, tmp_path / name)
    assert only_listed(corpus, tmp_path / name).digest == few.digest
    digests, found = read_hashes(tmp_path / name)
    assert digests == few.digests and np.array_equal(found, hashes)


def test_lists_that_do_not_fit(corpus, tmp_path):
    (tmp_path / "wrong.csv").write_text("name\na\n")
    with pytest.raises(InputError, match=r"wrong\.csv: not a list of a corpus"):
        only_listed(corpus, tmp_path / "wrong.csv")
    (tmp_path / "other.csv").write_text(f"sha256\n{corpus.digests[0]}\n{'0' * 64}\n")
    with pytest.raises(
        InputError,
        match=r"other\.csv: names 1 of 2 images that the corpus lacks; name all its sources",
    ):
        only_listed(corpus, tmp_path / "other.csv")
