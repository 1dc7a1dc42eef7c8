"""The cache for real: bit flips, killed and foreign processes, closed and odd file systems."""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import save_file

from radiodino_utils.core import cache
from radiodino_utils.core.cache import kept, locked, seal, sealed
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import atomic, write_json
from radiodino_utils.data import npz
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune
from radiodino_utils.features import extraction as features
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.features.patch_maps import extract_patch_maps

from ..conftest import REPOSITORY, synthetic_arrays
from ..synthetic_segmentation import synthetic_segmentation

FP32 = {"engine": "torch", "precision": "fp32"}
QUICK = FinetuneConfig(
    lr=1e-3, batch_size=16, epochs=1, warmup_epochs=0, precision="fp32", dropout=0.0
)
FLIPS = 50
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def flip(path, generator):
    """Flips one bit in a new file of the name (one that is mapped stays as it is) and returns the old bytes."""
    content = path.read_bytes()
    place = int(generator.integers(len(content)))
    flipped = (
        content[:place]
        + bytes([content[place] ^ 1 << int(generator.integers(8))])
        + content[place + 1 :]
    )
    put(path, flipped)
    return content


def put(path, content):
    new = path.with_name(f"{path.name}.new")
    new.write_bytes(content)
    new.replace(path)


def _features(backbone, synthetic_set):
    run = extract_features(backbone, synthetic_set(), **FP32)
    return run.path, [run.path, run.path.with_suffix(".parquet")], run.arrays


def _maps(backbone, _):
    run = extract_patch_maps(backbone, synthetic_segmentation(), size=32, **FP32)
    return run.path, [run.path], {"maps": {"maps": np.array(run.maps)}}


def _checkpoint(backbone, synthetic_set):
    run = finetune(backbone, synthetic_set((8, 6, 6)), config=QUICK)
    return (
        run.checkpoint,
        [run.checkpoint],
        {"test": {"probabilities": run.prediction.probabilities}},
    )


@pytest.mark.parametrize("make", [_features, _maps, _checkpoint])
def test_every_flipped_bit_is_found_or_harmless(make, tiny_backbone, synthetic_set, capsys):
    path, files, before = make(tiny_backbone, synthetic_set)
    sidecar, generator = path.with_suffix(".json"), np.random.default_rng(0)
    facts = sealed(sidecar, *files, declared={})
    for file in (*files, sidecar):
        for _ in range(FLIPS):
            content = flip(file, generator)
            assert sealed(sidecar, *files, declared={}, quiet=True) in (None, facts)
            put(file, content)
        capsys.readouterr()
        content = flip(file, generator)
        while (
            sealed(sidecar, *files, declared={}, quiet=True) == facts
        ):  # white space of the sidecar
            put(file, content)
            flip(file, generator)
        _, _, after = make(tiny_backbone, synthetic_set)
        assert (
            capsys.readouterr().out.count(
                f"{path}: damaged, unfinished or of an earlier version; made again."
            )
            == 1
        )
        for name, arrays in before.items():
            for output, array in arrays.items():
                np.testing.assert_allclose(after[name][output], array, atol=1e-6)
        facts = sealed(sidecar, *files, declared={})


def test_the_order_of_the_outputs_is_sealed(tiny_backbone, synthetic_set):
    dataset = synthetic_set()
    first = extract_features(tiny_backbone, dataset, **FP32)
    sidecar = json.loads(first.path.with_suffix(".json").read_text())
    sidecar["backbone"]["outputs"].reverse()
    write_json(first.path.with_suffix(".json"), sidecar)
    again = extract_features(tiny_backbone, dataset, **FP32)
    assert np.array_equal(again.embedding("test"), first.embedding("test"))


def test_flipped_chunks_are_made_again(tiny_backbone, synthetic_set, monkeypatch, capsys):
    dataset, join, generator = synthetic_set(), features.join_chunks, np.random.default_rng(1)
    expected = extract_features(
        tiny_backbone, dataset, folder=features.features_folder() / "whole", **FP32
    )
    monkeypatch.setattr(
        features, "join_chunks", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        extract_features(tiny_backbone, dataset, **FP32)
    monkeypatch.setattr(features, "join_chunks", join)
    chunks = sorted(features.features_folder().glob("*.partial/*.safetensors"))
    assert len(chunks) == 3
    sidecar = chunks[0].with_suffix(".json")
    facts = sealed(sidecar, chunks[0], declared={})
    for chunk in (chunks[0], sidecar):
        for _ in range(FLIPS):
            content = flip(chunk, generator)
            assert sealed(sidecar, chunks[0], declared={}, quiet=True) in (None, facts)
            put(chunk, content)
    flip(chunks[0], generator)
    run = extract_features(tiny_backbone, dataset, **FP32)
    assert f"{chunks[0]}: damaged" in capsys.readouterr().out
    for split in dataset.splits:
        assert np.array_equal(run.embedding(split), expected.embedding(split))


def test_flipped_unpacked_arrays_are_unpacked_again(synthetic_set, data_folder, capsys):
    dataset, generator = synthetic_set(), np.random.default_rng(2)
    before = {
        name: (np.array(split.images), split.labels) for name, split in dataset.splits.items()
    }
    arrays = sorted(data_folder.glob("unpacked/*/*.npy"))
    assert len(arrays) == 6
    for _ in range(FLIPS):
        path = arrays[generator.integers(6)]
        flip(path, generator)
        for name, split in load_dataset(dataset.name).splits.items():
            assert np.array_equal(split.images, before[name][0]) and np.array_equal(
                split.labels, before[name][1]
            )
        assert f"{path}: damaged; unpacked again." in capsys.readouterr().out


def test_a_flipped_npz_of_unknown_md5_is_never_a_traceback(tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **synthetic_arrays())
    whole, generator = (tmp_path / "a.npz").read_bytes(), np.random.default_rng(3)
    for number in range(FLIPS):
        path = tmp_path / f"{number}.npz"
        path.write_bytes(whole)
        place = (
            len(whole) - 1 - int(generator.integers(900))
            if number % 2
            else int(generator.integers(len(whole)))
        )  # directory
        path.write_bytes(
            whole[:place]
            + bytes([whole[place] ^ 1 << int(generator.integers(8))])
            + whole[place + 1 :]
        )
        try:
            load_dataset(f"npz:{path}")
        except InputError as error:
            assert str(path) in str(error)


def test_members_that_unpack_to_no_images(tmp_path, monkeypatch):
    monkeypatch.setattr(npz, "_LARGE", 1 << 16)
    np.savez_compressed(
        tmp_path / "bomb.npz",
        **synthetic_arrays() | {"train_images": np.zeros((400, 32, 32), np.uint8)},
    )
    with pytest.raises(
        InputError,
        match=r"bomb\.npz: train_images\.npy would unpack from 0 to 0 MB, which no images do",
    ):
        load_dataset(f"npz:{tmp_path / 'bomb.npz'}")


def test_pickles_and_other_folders_in_an_npz(tmp_path, data_folder):
    np.savez(tmp_path / "pickle.npz", **synthetic_arrays() | {"train_ids": np.array([{}], object)})
    with pytest.raises(InputError, match=r"pickle\.npz: the npz file is damaged .*Python objects"):
        load_dataset(f"npz:{tmp_path / 'pickle.npz'}")
    np.savez(tmp_path / "out.npz", **synthetic_arrays() | {"../../../out": np.zeros(3)})
    load_dataset(f"npz:{tmp_path / 'out.npz'}")
    assert not list(tmp_path.rglob("out.npy"))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_follow_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "cache" / "a.safetensors") as path:
            save_file({"a": np.zeros(3)}, path)
        kept(
            tmp_path / "cache" / "a.json",
            tmp_path / "cache" / "a.safetensors",
            declared={},
            make=dict,
        )
    finally:
        os.umask(before)
    files = list((tmp_path / "cache").iterdir())
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in files} == {
        "a.safetensors": mode,
        "a.json": mode,
        "a.lock": mode,
    }


CHILD = """
import os, sys
from pathlib import Path
from radiodino_utils.core.cache import kept, locked
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import write_text
with locked(Path(sys.argv[1]).parent / "own" / "lock"):
    pass  # imports what another user may not read
folder, name, text, umask, user = sys.argv[1:]
os.umask(int(umask, 8))
os.setgroups([4000])
os.setgid(4000)
os.setuid(int(user))
path = Path(folder) / name
def make():
    write_text(path, text)
    return {}
try:
    kept(path.with_suffix(".json"), path, declared={"name": name}, make=make)
    print(path.read_text())
except InputError as error:
    print(error)
"""


@pytest.fixture
def as_user(tmp_path):
    """Keeps a text in a shared folder as another user."""
    for folder in (tmp_path, *list(tmp_path.parents)[:-1]):
        if not folder.stat().st_mode & 0o001 and folder != tmp_path.parents[-1]:
            folder.chmod(folder.stat().st_mode | 0o011)
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 0, 4000)
    shared.chmod(0o2775)

    def run(user, name, text, *, umask="002"):
        command = [sys.executable, "-c", CHILD, shared, name, text, umask, str(user)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    run.folder = shared
    return run


@root_only
@pytest.mark.parametrize("umask", ["002", "022"])
@pytest.mark.parametrize("mode", [0o2775, 0o1777])
def test_two_users_share_a_cache(as_user, umask, mode):
    as_user.folder.chmod(mode)
    assert as_user(4001, "a.txt", "first", umask=umask) == "first"
    assert as_user(4002, "a.txt", "second", umask=umask) == "first"
    assert as_user(4002, "b.txt", "second", umask=umask) == "second"
    (as_user.folder / "b.txt").unlink()
    (as_user.folder / "b.json").unlink()
    assert as_user(4001, "b.txt", "first", umask=umask) == "first"  # the lock is another's


@root_only
def test_a_user_who_may_only_read(as_user):
    as_user(4001, "a.txt", "first")
    as_user.folder.chmod(0o2755)
    (as_user.folder / "a.lock").unlink()
    assert as_user(4002, "a.txt", "second") == "first"
    refused = as_user(4002, "b.txt", "second")
    assert "the folder is read-only" in refused and "RADIODINO_DATA" in refused
    (as_user.folder / "a.txt").chmod(0o600)
    assert "a.txt: reading is not permitted; ask its owner" in as_user(4002, "a.txt", "second")


def test_a_cache_on_a_read_only_disk(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder]
    if (
        not sys.platform.startswith("linux")
        or subprocess.run(mount, capture_output=True).returncode
    ):
        pytest.skip("mounting a small file system is not permitted here")
    try:
        path = folder / "a.txt"
        kept(folder / "a.json", path, declared={}, make=lambda: path.write_text("whole") and {})
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        kept(folder / "a.json", path, declared={}, make=lambda: pytest.fail("made again"))
        with pytest.raises(InputError, match=r"read-only; .* missing or damaged: .*RADIODINO_DATA"):
            kept(folder / "b.json", folder / "b.txt", declared={}, make=dict)
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(cache, "PATIENCE", 0.0)
    monkeypatch.setenv("RADIODINO_LOCK_WAIT", "0.3")
    sentence = r"a\.lock: still held by .* after 0\.3 s"
    with (
        locked(tmp_path / "a.lock"),
        pytest.raises(InputError, match=sentence),
        locked(tmp_path / "a.lock"),
    ):
        pytest.fail("two hold one lock")
    with locked(tmp_path / "a.lock"):
        pass
    assert capsys.readouterr().out.count("the file system knows no locks") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


HOLD = """
import sys, time
from pathlib import Path
from radiodino_utils.core.cache import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_waiting_is_said_and_limited_and_ends_with_the_holder(tmp_path, monkeypatch, capsys):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a.lock"], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(cache, "PATIENCE", 0.2)
        monkeypatch.setenv("RADIODINO_LOCK_WAIT", "0.5")
        sentence = rf"a\.lock: still held by process {holder.pid} of .* after 0\.5 s \(RADIODINO_LOCK_WAIT\)"
        with pytest.raises(InputError, match=sentence), locked(tmp_path / "a.lock"):
            pytest.fail("two hold one lock")
        assert f"held by process {holder.pid} of" in capsys.readouterr().out
    finally:
        holder.kill()
        holder.wait()
    start = time.monotonic()
    with locked(tmp_path / "a.lock"):
        assert time.monotonic() - start < 5


def test_a_wrong_limit(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIODINO_LOCK_WAIT", "long")
    with (
        pytest.raises(InputError, match="RADIODINO_LOCK_WAIT='long': not a number"),
        locked(tmp_path / "a.lock"),
    ):
        pass


MAKE = """
import os, sys, time
from pathlib import Path
from radiodino_utils.core.cache import kept
from radiodino_utils.core.files import write_text
path = Path(sys.argv[1]) / "a.txt"
def make():
    with open(path.parent / "made", "a") as log:
        log.write("x")
    time.sleep(0.3)
    write_text(path, str(os.getpid()))
    return {}
kept(path.with_suffix(".json"), path, declared={}, make=make)
print(path.read_text())
"""


def test_one_of_four_processes_makes_a_file(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", MAKE, tmp_path]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert len({process.communicate(timeout=600)[0] for process in processes}) == 1
    assert (tmp_path / "made").read_text() == "x"


def test_a_sidecar_of_something_else_vouches_for_nothing(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    seal(tmp_path / "a.json", tmp_path / "a.txt", facts={"weights": (1, 2)})
    assert sealed(tmp_path / "a.json", tmp_path / "a.txt", declared={"weights": (1, 2)})[
        "weights"
    ] == [1, 2]
    assert sealed(tmp_path / "a.json", tmp_path / "a.txt", declared={"weights": (2, 1)}) is None
    assert sealed(tmp_path / "a.json", tmp_path / "a.txt", tmp_path / "b.txt", declared={}) is None
