import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.duplicates import image_digests
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source

from ..synthetic_busi import synthetic_busi
from ..synthetic_corpus import as_bytes, synthetic_folder, synthetic_images


def dicom(path, image):
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID, file.file_meta.MediaStorageSOPClassUID = (
        ExplicitVRLittleEndian,
        CTImageStorage,
    )
    file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Rows, file.Columns = image.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated, file.BitsStored, file.HighBit, file.PixelRepresentation = 16, 16, 15, 0
    file.WindowCenter, file.WindowWidth = 128, 256
    file.PixelData = image.astype(np.uint16).tobytes()
    file.save_as(path, enforce_file_format=True)


def test_every_kind_of_source_gives_the_same_images(tmp_path):
    folder = synthetic_folder(tmp_path / "tree", 6)
    files = sorted(folder.rglob("*.png"))
    names = [file.relative_to(folder).as_posix() for file in files]
    (folder / "list.txt").write_text("\n".join(names) + "\n")
    (folder / "split.csv").write_text(
        "filename,label\n" + "".join(f"{name},ankle\n" for name in names)
    )
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("__MACOSX/._x.png", b"junk")
        for file, name in zip(files, names, strict=True):
            archive.write(file, name)
    for suffix, mode in ((".tar", "w"), (".tar.gz", "w:gz")):
        with tarfile.open(tmp_path / f"all{suffix}", mode) as archive:
            archive.add(
                folder,
                "x",
                filter=lambda one: one if one.isdir() or one.name.endswith(".png") else None,
            )
    arrays = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = np.zeros((6, 1), np.uint8)
    np.savez(
        tmp_path / "all.npz",
        train_images=arrays,
        train_labels=labels,
        test_images=arrays + 1,
        test_labels=labels,
    )
    sources = [
        folder,
        folder / "list.txt",
        folder / "split.csv",
        *(tmp_path / f"all{s}" for s in (".zip", ".tar", ".tar.gz", ".npz")),
    ]
    for source in sources:
        corpus = load_corpus([Source(source)])
        assert len(corpus) == 6, source
        assert all((corpus[row] == arrays[row]).all() for row in range(6)), source
        assert corpus.digests == image_digests(arrays)
        lazy = load_corpus([Source(source)], memory=0)
        assert all((lazy[row] == arrays[row]).all() for row in range(6)), source


def test_dicom_and_colour_become_grey(tmp_path):
    images, _ = synthetic_images(3)
    dicom(tmp_path / "a.dcm", images[0])
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "a.dcm", "deep/a.dcm")
        archive.writestr("b.png", as_bytes(np.repeat(images[1][..., None], 3, -1)))
    corpus = load_corpus([Source(tmp_path / "z.zip")])
    assert corpus.names == ["z/b.png", "z/deep/a.dcm"]
    assert (corpus[0] == images[1]).all()
    assert np.abs(corpus[1].astype(int) - images[0]).max() <= 1
    assert len(load_corpus([Source(tmp_path / "a.dcm")])) == 1


def test_sources_are_parsed():
    assert Source.parse("a/b.zip=0.25") == Source(Source.parse("a/b.zip").path, 0.25)
    assert Source.parse("x=y/b.zip").weight is None
    for text, hint in (("a=0", "above zero"), ("a=much", "no weight")):
        with pytest.raises(InputError, match=hint):
            Source.parse(text)


def test_bad_sources(tmp_path):
    synthetic_folder(tmp_path / "good", 4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "half.tar").write_bytes(b"x" * 700)
    (tmp_path / "bad.csv").write_text("patient,label\na,b\n")
    cases = [
        ([], "corpus is empty"),
        ([Source(tmp_path / "empty")], "corpus is empty"),
        ([Source(tmp_path / "none")], "no such source"),
        ([Source(tmp_path / "notes.md")], "not a source of images"),
        ([Source(tmp_path / "half.zip")], "damaged or truncated"),
        ([Source(tmp_path / "half.tar")], "damaged or truncated"),
        ([Source(tmp_path / "bad.csv")], "the columns filename are missing"),
        ([Source(tmp_path / "good", 1.0), Source(tmp_path / "good")], "every source a weight"),
    ]
    for sources, hint in cases:
        with pytest.raises(InputError, match=hint):
            load_corpus(sources)


def test_a_set_without_a_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("BUSI", str(synthetic_busi(tmp_path / "images", counts=(1, 1, 1))))
    with pytest.raises(
        InputError, match="busi: the set has no training split to learn from; its splits: all"
    ):
        load_corpus([Source(Path("busi"))])
