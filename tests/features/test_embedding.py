"""Embeddings of image files without labels."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from pydicom.data import get_testdata_file

from radiodino_utils.core.errors import InputError
from radiodino_utils.features.embedding import embed_images, image_readers, write_embeddings
from radiodino_utils.features.extraction import extract_features

from ..conftest import synthetic_arrays
from ..data.test_dicom import dicom

FP32 = {"engine": "torch", "precision": "fp32"}


@pytest.fixture
def images(tmp_path):
    """Return the files of five images, of which the second one has colour."""
    arrays = list(synthetic_arrays((5, 3, 4))["train_images"])
    arrays[1] = np.stack([arrays[1]] * 3, axis=-1)
    (tmp_path / "images").mkdir()
    paths = [tmp_path / "images" / f"{row}.png" for row in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path)
    return paths


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_embeddings_are_those_of_a_dataset_with_the_same_images(
    batch_size, images, tiny_backbone, synthetic_dataset
):
    expected = extract_features(tiny_backbone, synthetic_dataset((5, 3, 4)), **FP32)
    embeddings = embed_images(images, tiny_backbone, batch_size=batch_size, **FP32)
    assert embeddings.paths == [str(path) for path in images] and embeddings.unreadable == {}
    np.testing.assert_allclose(embeddings.values, expected.embedding("train"), atol=1e-5)
    assert embeddings.weights == tiny_backbone.fingerprint
    assert (embeddings.engine, embeddings.precision) == ("torch", "fp32")


@pytest.mark.parametrize("batch_size", [0, "16"])
def test_a_batch_holds_a_whole_number_of_images(batch_size, images):
    with pytest.raises(InputError, match="^batch_size is "):
        embed_images(images, "pixels", batch_size=batch_size, **FP32)


def test_an_image_that_cannot_be_used_is_named_and_left_out(images, tmp_path):
    small = tmp_path / "small.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(small)
    with pytest.warns(UserWarning, match="1 of 3 images cannot be read and are left out"):
        embeddings = embed_images([images[0], small, images[2]], "random-t16", **FP32)
    assert embeddings.paths == [str(images[0]), str(images[2])]
    assert embeddings.unreadable[str(small)].startswith("an image of 4 x 4 pixels")


def test_without_any_usable_image_there_is_one_sentence(tmp_path):
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"1 of 1 images cannot be read, .*empty\.png: the file"):
        embed_images([tmp_path / "empty.png"], "pixels", **FP32)


def test_features_that_are_not_finite_are_left_out(images, tiny_backbone):
    with torch.no_grad():
        next(tiny_backbone.model.parameters()).fill_(torch.nan)
    embeddings = embed_images(images[:2], tiny_backbone, **FP32)
    assert embeddings.paths == [] and len(embeddings.unreadable) == 2
    assert all("NaN or infinite" in sentence for sentence in embeddings.unreadable.values())


def test_files_are_found_once_sorted_and_without_hidden_ones(images, tmp_path):
    (tmp_path / "images" / ".hidden").mkdir()
    (tmp_path / "images" / ".hidden" / "x.png").write_bytes(images[0].read_bytes())
    others = [path for path in images if path != images[3]]
    found = image_readers([images[3], tmp_path / "images"])
    assert [str(reader) for reader in found.readers] == [str(images[3]), *map(str, others)]


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_images_of_every_kind_are_found(images, tmp_path, synthetic_dataset):
    folder = tmp_path / "mixed"
    folder.mkdir()
    dicom(folder / "IM0", np.arange(12, dtype=np.uint8).reshape(3, 4), PatientID="a")
    shutil.copy(get_testdata_file("test-SR.dcm"), folder / "report")
    shutil.copy(images[0], folder / "x.png")
    shutil.copy(images[0], folder / "x_mask.png")
    (folder / "bad.png").write_bytes(b"bad")
    (folder / "notes.txt").write_text("x")
    found = image_readers([folder])
    names = [Path(str(reader)).name for reader in found.readers]
    assert names == ["IM0", "bad.png", "x.png"]
    left_out = {"structured report": 1, "no image (.txt)": 1, "mask beside its image": 1}
    assert found.left_out == left_out
    embeddings = embed_images(found.readers, "pixels", **FP32)
    assert len(embeddings.paths) == 2 and list(embeddings.unreadable) == [str(folder / "bad.png")]
    shutil.make_archive(str(tmp_path / "packed"), "zip", tmp_path, "images")
    (tmp_path / "list.csv").write_text("path,label\nimages/0.png,a\nimages/1.png,b\n")
    synthetic_dataset((2, 1, 1))
    paths = [tmp_path / name for name in ("packed.zip", "list.csv", "made.npz")]
    readers = image_readers(paths).readers
    assert len(readers) == 5 + 2 + 4
    assert str(readers[0]) == f"{tmp_path / 'packed.zip'}:images/0.png"
    embeddings = embed_images(readers, "pixels", **FP32)
    assert len(embeddings.paths) == 11 and embeddings.unreadable == {}
    np.testing.assert_array_equal(embeddings.values[1], embeddings.values[6])  # in colour


@pytest.mark.parametrize(("of_images", "of_masks"), [("images", "masks"), ("Img", "msk")])
def test_masks_in_a_folder_of_their_own_are_no_images(images, tmp_path, of_images, of_masks):
    for folder in (of_images, of_masks):
        (tmp_path / "study" / folder).mkdir(parents=True)
        shutil.copy(images[0], tmp_path / "study" / folder / "x.png")
    (reader,) = image_readers([tmp_path / "study"]).readers
    assert str(reader) == str(tmp_path / "study" / of_images / "x.png")


def test_paths_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    for path, message in ((tmp_path, "holds no image"), (tmp_path / "no", "no such file")):
        with pytest.raises(InputError, match=message):
            image_readers([path])
    (tmp_path / "cut.tar").write_bytes(b"x")
    with pytest.raises(InputError, match="the archive is damaged"):
        image_readers([tmp_path / "cut.tar"])


def test_a_path_is_never_a_formula_of_a_spreadsheet(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = ["=1+1.png", "\tx.png", "\uff1d1.png"]
    for image, name in zip(images, names, strict=False):
        image.rename(name)
    write_embeddings(embed_images(names, "pixels", **FP32), tmp_path / "out.csv")
    assert pd.read_csv("out.csv")["path"].tolist() == [f"./{name}" for name in names]


def test_a_failed_write_leaves_the_old_file(images, tmp_path, monkeypatch):
    out = tmp_path / "out.csv"
    embeddings = embed_images(images[:1], "pixels", **FP32)
    write_embeddings(embeddings, out)
    before = out.read_bytes()
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_embeddings(embeddings, out)
    assert out.read_bytes() == before and list(tmp_path.glob(".out*")) == []
