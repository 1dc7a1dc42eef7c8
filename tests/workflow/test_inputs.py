"""Data that changed is noticed, however it was named."""

import os
from pathlib import Path

import pytest

from radiodino_utils.workflow import inputs
from radiodino_utils.workflow.inputs import fingerprints

from ..synthetic_busi import synthetic_busi


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of notebooks beside which data lie, and a home."""
    folder = tmp_path / "notebooks"
    (folder / "pics" / "a").mkdir(parents=True)
    (folder / "pics" / "a" / "1.png").write_bytes(b"11")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "2.png").write_bytes(b"22")
    (folder / "linked").mkdir()
    (folder / "linked" / "b").symlink_to(tmp_path / "elsewhere")
    (folder / "linked" / "back").symlink_to(folder)
    (folder / "list.csv").write_text("path,label\n../elsewhere/2.png,x\n")
    (folder / "list.tsv").write_text("label\tPath\nx\t../elsewhere/2.png\n")
    (folder / "semicolons.csv").write_text("image;label\n../elsewhere/2.png;x\n")
    (folder / "utf16.csv").write_text("path,label\n../elsewhere/2.png,x\n", encoding="utf-16")
    (folder / "windows.csv").write_text("path,label\n../elsewhere/2.png,ä\n", encoding="cp1252")
    (folder / "list.txt").write_text("../elsewhere/2.png\n")
    (folder / "one.npz").write_bytes(b"npz")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("BUSI", "MEDMNIST", "RADIMAGENET"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("folder:pics", "notebooks/pics/a/1.png"),
        ("folder:~/notebooks/pics", "notebooks/pics/a/1.png"),
        ("masks:pics", "notebooks/pics/a/1.png"),
        ("npz:one.npz", "notebooks/one.npz"),
        ("file:~/notebooks/one.npz", "notebooks/one.npz"),
        ("dicom:pics", "notebooks/pics/a/1.png"),
        ("dicom:pics?window=lung&slices=3", "notebooks/pics/a/1.png"),
        ("volumes:pics", "notebooks/pics/a/1.png"),
        ("file:one.npz?heads=6", "notebooks/one.npz"),
        ("folder:list.csv", "elsewhere/2.png"),
        ("folder:list.tsv", "elsewhere/2.png"),
        ("folder:semicolons.csv", "elsewhere/2.png"),
        ("folder:utf16.csv", "elsewhere/2.png"),
        ("folder:windows.csv", "elsewhere/2.png"),
        ("folder:linked", "elsewhere/2.png"),
        ("list.txt", "elsewhere/2.png"),
        ("pics=2.5", "notebooks/pics/a/1.png"),
        ("~/notebooks/pics/a/1.png", "notebooks/pics/a/1.png"),
    ],
)
def test_a_change_is_noticed_by_content_whatever_the_times_say(
    name: str, changed: str, place: Path, tmp_path: Path
) -> None:
    parameters = {"datasets": [name], "changes": {"nested": name}, "seed": 0, "word": "knn"}
    before = fingerprints(parameters, folder=place)
    assert list(before) == [name] and before[name]
    file = tmp_path / changed
    times = (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    file.write_bytes(b"xyz"[: file.stat().st_size])
    os.utime(file, ns=times)
    assert fingerprints(parameters, folder=place) != before


def test_large_data_are_known_by_size_and_times(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_CONTENT_LIMIT", 1)
    before = fingerprints({"data": "folder:pics"}, folder=place)
    assert fingerprints({"data": "folder:pics"}, folder=place) == before
    (place / "pics" / "a" / "1.png").write_bytes(b"12")
    assert fingerprints({"data": "folder:pics"}, folder=place) != before


def test_a_copy_elsewhere_is_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BUSI", str(synthetic_busi(tmp_path / "busi", counts=(1, 1, 1))))
    before = fingerprints(
        {"datasets": ["busi", "busi-fold0"], "others": "busi-lesions"}, folder=place
    )
    assert (
        set(before) == {"busi", "busi-fold0", "busi-lesions"}
        and len(set(before.values())) == 1
        and before["busi"]
    )
    (tmp_path / "busi").rename(tmp_path / "moved")
    monkeypatch.setenv("BUSI", str(tmp_path / "moved"))
    assert fingerprints({"datasets": ["busi"]}, folder=place)["busi"] == before["busi"]
    next(path for path in (tmp_path / "moved").rglob("*_mask.png")).write_bytes(b"another")
    assert fingerprints({"datasets": ["busi"]}, folder=place)["busi"] != before["busi"]


def test_folders_of_the_data_folder_count_too(place: Path, data_folder: Path) -> None:
    names = {
        "datasets": ["busi", "breastmnist-28", "radimagenet"],
        "backbones": ["pixels", "random-t16"],
    }
    absent = fingerprints(names, folder=place)
    assert absent == {"busi": "", "breastmnist-28": "", "radimagenet": ""}
    (data_folder / "medmnist").mkdir(parents=True)
    (data_folder / "medmnist" / "breastmnist.npz").write_bytes(b"1")
    (data_folder / "radimagenet").mkdir()
    (data_folder / "radimagenet" / "RadiologyAI_train.csv").write_text("filename,label\n")
    there = fingerprints(names, folder=place)
    assert there["breastmnist-28"] and there["radimagenet"] and not there["busi"]
