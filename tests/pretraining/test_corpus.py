import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.duplicates import image_digests
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source

from ..synthetic_corpus import synthetic_corpus, synthetic_folder, synthetic_images, synthetic_npz


def test_large_images_are_reduced_and_none_enlarged(tmp_path):
    Image.fromarray(synthetic_images(1, size=80)[0][0]).resize((160, 80)).save(
        tmp_path / "wide.png"
    )
    Image.fromarray(synthetic_images(1, size=20)[0][0]).save(tmp_path / "small.png")
    corpus = load_corpus([Source(tmp_path)], edge=40)
    assert {image.shape for image in (corpus[0], corpus[1])} == {(40, 80), (20, 20)}


def test_weights_are_shares_of_the_draws(tmp_path):
    synthetic_folder(tmp_path / "a", 30)
    synthetic_folder(tmp_path / "b", 6, seed=1)
    corpus = load_corpus([Source(tmp_path / "a", 1.0), Source(tmp_path / "b", 3.0)])
    rows = np.concatenate([corpus.draw(step, 64, seed=0) for step in range(60)])
    assert abs((corpus.source_of[rows] == 1).mean() - 0.75) < 0.03
    assert set(rows) == set(range(36))
    assert (corpus.draw(7, 64, seed=0) == corpus.draw(7, 64, seed=0)).all()
    assert (corpus.draw(7, 64, seed=0) != corpus.draw(8, 64, seed=0)).any()
    assert corpus.table()["images"].tolist() == [30, 6]
    even = load_corpus([Source(tmp_path / "a"), Source(tmp_path / "b")])
    assert np.allclose(even.weights, [30 / 36, 6 / 36])
    assert even.digest != corpus.digest


def test_a_batch_of_one_group(tmp_path):
    for number, name in enumerate(("a/x", "a/y", "b")):
        synthetic_folder(tmp_path / name, 12 if name != "b" else 6, seed=number)
    corpus = load_corpus([Source(tmp_path / "a", 1.0), Source(tmp_path / "b", 3.0)])
    batches = [corpus.draw(step, 4, seed=0, batch_of="group") for step in range(200)]
    groups = [{corpus.names[row].rpartition("/")[0] for row in batch} for batch in batches]
    assert all(len(one) == 1 for one in groups)
    assert set().union(*groups) == {
        f"{name}/{kind}" for name in ("a/x", "a/y", "b") for kind in ("even", "odd")
    }
    assert abs(sum(min(one).startswith("b") for one in groups) / 200 - 0.75) < 0.1
    sizes = {
        group: sum(name.startswith(f"{group}/") for name in corpus.names)
        for group in set().union(*groups)
    }
    assert all(
        len(set(batch)) == min(4, sizes[min(one)])
        for batch, one in zip(batches, groups, strict=True)
    )
    assert (batches[3] == corpus.draw(3, 4, seed=0, batch_of="group")).all()


@pytest.mark.parametrize("memory", [4e9, 0])
def test_unreadable_images_are_counted_listed_and_left_out(tmp_path, memory):
    folder = synthetic_folder(tmp_path / "tree", 10)
    files = sorted(folder.rglob("*.png"))
    files[0].write_bytes(b"")
    files[3].write_bytes(files[3].read_bytes()[:60])
    corpus = load_corpus([Source(folder)], limit=0.2, memory=memory)
    assert all(corpus[row].shape == (48, 48) for row in range(len(corpus)))
    assert sorted(name for name, _ in corpus.unreadable) == [
        "tree/even/000.png",
        "tree/even/006.png",
    ]
    with pytest.raises(InputError, match="cannot be read, more than the limit"):
        corpus = load_corpus([Source(folder)], limit=0.1, memory=memory)
        [corpus[row] for row in range(len(corpus))]


def test_held_out_images_are_left_out(tmp_path):
    made = load_dataset(f"npz:{synthetic_npz(tmp_path / 'labelled.npz')}")
    folder = synthetic_folder(tmp_path / "tree", 6)
    Image.fromarray(np.asarray(made.splits["test"].images[2])).save(folder / "copy_of_test.png")
    Image.fromarray(np.asarray(made.splits["val"].images[1])).save(folder / "copy_of_val.png")
    corpus = load_corpus([Source(folder), Source(tmp_path / "labelled.npz")], hold_out=[made])
    assert len(corpus) == 6 + 30
    assert not {name for name in corpus.names if "copy" in name}
    apart = {
        digest for split in ("val", "test") for digest in image_digests(made.splits[split].images)
    }
    assert not apart & set(corpus.digests)
    with pytest.raises(InputError, match="too large for the memory"):
        load_corpus([Source(folder)], hold_out=[made], memory=0)


@pytest.mark.parametrize("memory", [4e9, 0])
def test_a_corpus_of_one_image_many_times_is_refused(tmp_path, memory):
    for row in range(5):
        Image.fromarray(synthetic_images(1)[0][0]).save(tmp_path / f"{row}.png")
    with pytest.raises(InputError, match="all the same"):
        load_corpus([Source(tmp_path)], memory=memory)


def test_the_digest_tells_corpora_apart(tmp_path):
    assert synthetic_corpus(tmp_path / "a").digest == synthetic_corpus(tmp_path / "b").digest
    assert (
        synthetic_corpus(tmp_path / "c", seed=3).digest != synthetic_corpus(tmp_path / "d").digest
    )
