import gzip
import io
import tarfile
import zipfile

import nibabel
import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source

from ..synthetic_corpus import (
    as_bytes,
    synthetic_folder,
    synthetic_images,
)


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
        "bomb.png": "more than 178956970 pixels",
        "zeros.png": "more than the limit",
        "volume.nii.gz": "more than the limit",
        "text.png": "not an image",
        "text.dcm": "cannot be decoded",
        "empty.jpg": "empty",
        "secret.png": "encrypted",
        "unknown.png": "compression",
    }


def spoil(path):
    """Mark one member as encrypted, and another as compressed in an unknown way."""
    data = bytearray(path.read_bytes())
    for name, place, value in ((b"secret.png", 8, 1), (b"unknown.png", 10, 97)):
        entry = data.rindex(b"PK\x01\x02", 0, data.rindex(name))
        data[entry + place] = value
    path.write_bytes(data)


@pytest.mark.parametrize("memory", [4e9, 0])
def test_bad_members_do_not_end_a_corpus(tmp_path, monkeypatch, memory):
    monkeypatch.setattr("radiodino_utils.data.archives.MAX_BYTES", 1 << 20)
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
    monkeypatch.setattr("radiodino_utils.data.archives.MAX_BYTES", 1 << 20)
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
    monkeypatch.setattr("radiodino_utils.data.archives.MAX_BYTES", 1 << 20)
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
