import gzip
import io
import tarfile
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.duplicates import image_digests
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source

from ..synthetic_busi import synthetic_busi
from ..synthetic_corpus import synthetic_corpus, synthetic_folder, synthetic_images, synthetic_npz


def as_bytes(image, kind="png"):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind)
    return buffer.getvalue()


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


def test_large_images_are_reduced_and_none_enlarged(tmp_path):
    Image.fromarray(synthetic_images(1, size=80)[0][0]).resize((160, 80)).save(
        tmp_path / "wide.png"
    )
    Image.fromarray(synthetic_images(1, size=20)[0][0]).save(tmp_path / "small.png")
    corpus = load_corpus([Source(tmp_path)], edge=40)
    assert {image.shape for image in (corpus[0], corpus[1])} == {(40, 80), (20, 20)}


def test_an_archive_leads_nowhere(tmp_path):
    inside = tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(inside / "bad.zip", "w") as archive:
        archive.writestr("../../evil.png", as_bytes(synthetic_images(1)[0][0]))
        archive.writestr("/evil.png", as_bytes(synthetic_images(2)[0][1]))
    with tarfile.open(inside / "bad.tar", "w") as archive:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        data = as_bytes(synthetic_images(1)[0][0])
        member = tarfile.TarInfo("../evil.png")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    assert len(load_corpus([Source(inside / "bad.zip")])) == 2
    assert len(load_corpus([Source(inside / "bad.tar")])) == 1
    assert [path.name for path in tmp_path.rglob("*.png")] == []


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


def test_sources_are_parsed():
    assert Source.parse("a/b.zip=0.25") == Source(Source.parse("a/b.zip").path, 0.25)
    assert Source.parse("x=y/b.zip").weight is None
    for text, hint in (("a=0", "above zero"), ("a=much", "no weight")):
        with pytest.raises(InputError, match=hint):
            Source.parse(text)


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


def test_bad_sources(tmp_path):
    synthetic_folder(tmp_path / "good", 4)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "half.tar").write_bytes(b"x" * 700)
    (tmp_path / "bad.csv").write_text("file,label\na,b\n")
    cases = [
        ([], "corpus is empty"),
        ([Source(tmp_path / "empty")], "corpus is empty"),
        ([Source(tmp_path / "none")], "no such source"),
        ([Source(tmp_path / "notes.md")], "not a source of images"),
        ([Source(tmp_path / "half.zip")], "damaged or truncated"),
        ([Source(tmp_path / "half.tar")], "damaged or truncated"),
        ([Source(tmp_path / "bad.csv")], "no column 'filename'"),
        ([Source(tmp_path / "good", 1.0), Source(tmp_path / "good")], "every source a weight"),
    ]
    for sources, hint in cases:
        with pytest.raises(InputError, match=hint):
            load_corpus(sources)


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


def test_a_set_without_a_training_split(tmp_path, monkeypatch):
    monkeypatch.setenv("BUSI", str(synthetic_busi(tmp_path / "images", counts=(1, 1, 1))))
    with pytest.raises(
        InputError, match="busi: the set has no training split to learn from; its splits: all"
    ):
        load_corpus([Source(Path("busi"))])


def bad_members(archive, data):
    """Members that cannot be read, each for another reason: name and what the reason says."""
    bomb = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(bomb, "png")
    archive.writestr("bomb.png", bomb.getvalue())
    archive.writestr("zeros.png", bytes(3 << 20), zipfile.ZIP_DEFLATED)
    archive.writestr("volume.nii.gz", gzip.compress(bytes(3 << 20)))
    archive.writestr("text.png", b"no image")
    archive.writestr("text.dcm", b"no image")
    archive.writestr("empty.jpg", b"")
    archive.writestr("secret.png", data)
    archive.writestr("unknown.png", data)
    return {
        "bomb.png": "more than 178956970 pixels", "zeros.png": "more than the limit", "volume.nii.gz": "more than the limit",
        "text.png": "not an image", "text.dcm": "cannot be decoded", "empty.jpg": "empty", "secret.png": "encrypted",
        "unknown.png": "compression",
    }  # fmt: skip


def spoil(path):
    """Marks one member as encrypted and gives another an unknown compression, in the central directory."""
    data = bytearray(path.read_bytes())
    for name, place, value in ((b"secret.png", 8, 1), (b"unknown.png", 10, 97)):
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
        data[entry + place] = value
    path.write_bytes(data)


@pytest.mark.parametrize("memory", [4e9, 0])
def test_bad_members_do_not_end_a_corpus(tmp_path, monkeypatch, memory):
    monkeypatch.setattr("radiodino_utils.pretraining.archives.MAX_BYTES", 1 << 20)
    images, _ = synthetic_images(12)
    with zipfile.ZipFile(tmp_path / "mixed.zip", "w") as archive:
        for row, image in enumerate(images):
            archive.writestr(f"a/b/{row:02d}.png", as_bytes(image))
        reasons = bad_members(archive, as_bytes(images[0]))
    spoil(tmp_path / "mixed.zip")
    corpus = load_corpus([Source(tmp_path / "mixed.zip")], limit=0.5, memory=memory)
    assert all(corpus[row].shape == (48, 48) for row in range(len(corpus)))
    found = dict(corpus.unreadable)
    assert set(found) == {f"mixed/{name}" for name in reasons}
    for name, reason in reasons.items():
        assert reason in found[f"mixed/{name}"] and f"mixed.zip:{name}" in found[f"mixed/{name}"], (
            found[f"mixed/{name}"]
        )
    with pytest.raises(InputError, match="more than the limit of 1.0%"):
        corpus = load_corpus([Source(tmp_path / "mixed.zip")], memory=memory)
        [corpus[row] for row in range(len(corpus))]


def test_a_member_that_unpacks_to_more_than_it_declares(tmp_path, monkeypatch):
    monkeypatch.setattr("radiodino_utils.pretraining.archives.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "liar.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.png", as_bytes(synthetic_images(1)[0][0]))
        archive.writestr("liar.png", bytes(3 << 20))
    data = bytearray((tmp_path / "liar.zip").read_bytes())
    entry = data.rindex(b"PK\x01\x02", 0, data.rindex(b"liar.png"))
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    (tmp_path / "liar.zip").write_bytes(data)
    corpus = load_corpus([Source(tmp_path / "liar.zip")], limit=0.5)
    assert corpus.names == ["liar/good.png"] and corpus.unreadable[0][0] == "liar/liar.png"


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz")])
def test_a_large_member_of_a_tar(tmp_path, monkeypatch, suffix, mode):
    monkeypatch.setattr("radiodino_utils.pretraining.archives.MAX_BYTES", 1 << 20)
    with tarfile.open(tmp_path / f"all{suffix}", mode) as archive:
        for name, data in (
            ("good.png", as_bytes(synthetic_images(1)[0][0])),
            ("zeros.png", bytes(3 << 20)),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    corpus = load_corpus([Source(tmp_path / f"all{suffix}")], limit=0.5)
    assert len(corpus) == 1 and "more than the limit" in corpus.unreadable[0][1]


def test_volumes_in_an_archive(tmp_path):
    volume = np.zeros((20, 24, 3), np.int16)
    volume[5:9, 3:20, 1] = 100
    for name in ("one.nii", "two.nii.gz"):
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / name)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "one.nii", "deep/er/one.nii")
        archive.write(tmp_path / "two.nii.gz", "two.nii.gz")
        archive.writestr("flat.png", as_bytes(np.zeros((9, 9), np.uint8)))
    corpus = load_corpus([Source(tmp_path / "all.zip")])
    assert corpus.names == ["all/deep/er/one.nii", "all/flat.png", "all/two.nii.gz"]
    assert (corpus[0] == corpus[2]).all() and corpus[0].shape == (24, 20) and corpus[0].max() == 255


def test_sixteen_bits_are_read_alike_in_folders_and_archives(tmp_path):
    Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 4).save(
        tmp_path / "deep.png"
    )
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.write(tmp_path / "deep.png", "deep.png")
    inside, alone = (load_corpus([Source(tmp_path / name)])[0] for name in ("z.zip", "deep.png"))
    assert (inside == alone).all() and (alone.min(), alone.max()) == (0, 255)


@pytest.mark.parametrize("suffix, mode", [(".tar", "w"), (".tar.gz", "w:gz"), (".zip", "")])
def test_an_archive_cut_anywhere_is_refused(tmp_path, suffix, mode):
    path, folder = tmp_path / f"all{suffix}", synthetic_folder(tmp_path / "tree", 6)
    if mode:
        with tarfile.open(path, mode) as archive:
            archive.add(folder, "x")
        assert len(load_corpus([Source(path)])) == 6
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for file in sorted(folder.rglob("*.png")):
                archive.write(file, file.name)
    whole = path.read_bytes()
    with tarfile.open(path) if mode else zipfile.ZipFile(path) as archive:
        ends = [one.offset for one in archive if one.offset] if suffix == ".tar" else []
    for cut in (
        len(whole) // 4,
        len(whole) // 2,
        3 * len(whole) // 4,
        *ends,
    ):  # between two members as well
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="damaged or truncated"):
            load_corpus([Source(path)])
