"""Folders, hashes and writes, on full, read-only and closed disks too."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save_file

from radiodino_utils.core import files
from radiodino_utils.core.cache import entry_path
from radiodino_utils.core.errors import InputError, unknown_name
from radiodino_utils.core.files import (  # fmt: skip
    atomic,
    data_folder,
    features_folder,
    file_hash,
    make_folder,
    require_space,
    results_folder,
    shortened,
    value_hash,
    write_json,
    write_text,
)

JSON = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.lists(st.integers(), max_size=3)
)


def test_folders_follow_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("RADIODINO_DATA", str(tmp_path / "d"))
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path / "r"))
    assert (data_folder(), results_folder("demo")) == (tmp_path / "d", tmp_path / "r")
    monkeypatch.delenv("RADIODINO_DATA")
    monkeypatch.delenv("RADIODINO_RESULTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder().name == "radiodino"
    for name, folder in (
        ("DATA", data_folder),
        ("FEATURES", features_folder),
        ("RESULTS", lambda: results_folder("demo")),
    ):
        monkeypatch.setenv(f"RADIODINO_{name}", "~/x")
        assert folder() == Path.home() / "x"
        monkeypatch.delenv(f"RADIODINO_{name}")
    assert results_folder("demo").parts[-2:] == ("results", "demo")


def test_atomic_writes_all_or_nothing(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old ä")
    with pytest.raises(KeyboardInterrupt), atomic(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text(encoding="utf-8") == "old ä"
    with pytest.raises(ZeroDivisionError), atomic(path) as temporary:
        1 / 0  # noqa: B018
    assert list(path.parent.iterdir()) == [path]
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert path.read_text(encoding="utf-8") == "old ä"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_in_the_way_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="file"):
            make_folder(folder)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()


def test_a_read_only_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # root may write anywhere: what the system says is set here
    with pytest.raises(
        InputError, match=r"results: the folder is read-only; make it writable or choose another"
    ):
        write_json(tmp_path / "results" / "a.json", {})


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes to read-only folders"
)
def test_a_read_only_folder_for_real(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for path in (tmp_path / "a.json", tmp_path / "below" / "a.json"):
            with pytest.raises(InputError, match="read-only|not permitted"):
                write_json(path, {})
    finally:
        tmp_path.chmod(0o700)


@pytest.fixture
def mounted(tmp_path):
    """Mount a file system of 256 kB, if this is allowed."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system is not permitted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


WRITERS = {
    "safetensors": lambda path, array: save_file({"a": array}, path),
    "numpy": lambda path, array: np.save(path, array),
    "npz": lambda path, array: np.savez(path, a=array),
    "bytes": lambda path, array: path.write_bytes(array.tobytes()),
}


def test_a_disk_that_is_full(mounted):
    array = np.random.default_rng(0).random((400, 400))
    for name, write in WRITERS.items():
        with (
            pytest.raises(
                InputError, match=rf"{name}\.npy: no disk space is left; .*RADIODINO_DATA"
            ),
            atomic(mounted / f"{name}.npy") as path,
        ):
            write(path, array)
    assert not list(mounted.iterdir())


def test_a_disk_that_is_read_only(mounted):
    subprocess.run(["mount", "-o", "remount,ro", mounted], check=True)
    for path in (mounted / "a.json", mounted / "below" / "a.json"):
        with pytest.raises(InputError, match=r"read-only; .*choose another"):
            write_json(path, {})


def test_space_is_checked_before_writing(tmp_path):
    require_space(tmp_path, 1)
    with pytest.raises(
        InputError,
        match=r"no disk space: 1000000000000 MB are needed and \d+ MB are free; .*RADIODINO_DATA",
    ):
        require_space(tmp_path, 10**18)


@given(st.binary(max_size=100))
def test_file_hash(content):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        assert file_hash(path) == hashlib.sha256(content).hexdigest()
        assert file_hash(path, "md5") == hashlib.md5(content).hexdigest()


@given(st.dictionaries(st.text(max_size=5), JSON, min_size=2, max_size=5), JSON)
def test_value_hash_ignores_order_only(value, other):
    turned = dict(reversed(value.items()))
    assert value_hash(value) == value_hash(turned)
    assert len(value_hash(value)) == 12
    if other != value:
        assert value_hash([value]) != value_hash([value, other])


@given(st.sampled_from(["organct-axial", "random-t16", "radiodino-s16"]), st.integers(0, 20))
def test_a_misspelt_name_is_guessed(name, position):
    known = ["organct-axial", "organct-coronal", "random-t16", "radiodino-s16", "pixels"]
    position %= len(name)
    message = str(unknown_name("thing", name[:position] + name[position + 1 :], known))
    assert "did you mean" in message
    assert name in message


def test_a_name_with_nothing_near_lists_all():
    assert (
        str(unknown_name("profile", "zzz", ["demo", "breast"]))
        == "unknown profile 'zzz'; known: breast, demo."
    )


def test_large_datasets_are_identified_without_reading_them(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1234")
    monkeypatch.setattr(files, "CONTENT_LIMIT", 3)
    monkeypatch.setattr(files, "file_hash", lambda *_: pytest.fail("read"))
    before = files.files_digest(tmp_path, ["a"])
    assert files.files_digest(tmp_path, ["a"]) == before
    facts = (tmp_path / "a").stat()
    (tmp_path / "b").write_bytes(b"4321")
    (tmp_path / "b").replace(tmp_path / "a")
    os.utime(tmp_path / "a", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert files.files_digest(tmp_path, ["a"]) != before


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=400))
def test_a_shortened_name_fits_a_file_system_and_stays_unique(name):
    short = shortened(name)
    assert len(short.encode()) <= 120
    assert short == name or (len(name.encode()) > 120 and shortened(name + "x") != short)


def test_a_long_name_can_be_written_and_a_too_long_one_is_one_sentence(tmp_path):
    long = tmp_path / ("\u533b" * 83 + ".json")  # 254 bytes
    write_json(long, 1)
    assert json.loads(long.read_text()) == 1
    with pytest.raises(InputError, match="the name is too long; choose a shorter one"):
        write_json(tmp_path / ("x" * 300), 1)


def test_a_long_title_makes_a_short_file_name(tmp_path):
    path = entry_path(tmp_path, "folder-" + "\u533b" * 300, declared={}, suffix=".safetensors")
    assert len(path.name.encode()) < 160
