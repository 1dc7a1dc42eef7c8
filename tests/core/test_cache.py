"""The cache for real: bit flips, killed and foreign processes, closed and odd file systems."""

import json
import os
import stat
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from radiodino_utils.core.cache import cached, entry_path, read_sidecar, write_sidecar
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import atomic, write_json
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune
from radiodino_utils.features import extraction as features
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.features.patch_maps import extract_patch_maps

from ..conftest import REPOSITORY, flip, put
from ..synthetic_segmentation import synthetic_segmentation

FP32 = {"engine": "torch", "precision": "fp32"}
QUICK = FinetuneConfig(
    lr=1e-3, batch_size=16, epochs=1, warmup_epochs=0, precision="fp32", dropout=0.0
)
FLIPS = 50
root_only = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)


def _features(backbone, synthetic_dataset):
    run = extract_features(backbone, synthetic_dataset(), **FP32)
    return run.path, [run.path, run.path.with_suffix(".parquet")], run.arrays


def _maps(backbone, _):
    run = extract_patch_maps(backbone, synthetic_segmentation(), size=32, **FP32)
    return run.path, [run.path], {"maps": {"maps": np.array(run.maps)}}


def _checkpoint(backbone, synthetic_dataset):
    run = finetune(backbone, synthetic_dataset((8, 6, 6)), config=QUICK)
    return (
        run.checkpoint,
        [run.checkpoint],
        {"test": {"probabilities": run.prediction.probabilities}},
    )


@pytest.mark.parametrize("make", [_features, _maps, _checkpoint])
def test_every_flipped_bit_is_found_or_harmless(make, tiny_backbone, synthetic_dataset, capsys):
    path, files, before = make(tiny_backbone, synthetic_dataset)
    sidecar, generator = path.with_suffix(".json"), np.random.default_rng(0)
    facts = read_sidecar(sidecar, *files, declared={})
    for file in (*files, sidecar):
        for _ in range(FLIPS):
            content = flip(file, generator)
            assert read_sidecar(sidecar, *files, declared={}, quiet=True) in (None, facts)
            put(file, content)
        capsys.readouterr()
        content = flip(file, generator)
        while (
            read_sidecar(sidecar, *files, declared={}, quiet=True) == facts
        ):  # white space of the sidecar
            put(file, content)
            flip(file, generator)
        _, _, after = make(tiny_backbone, synthetic_dataset)
        assert (
            capsys.readouterr().out.count(
                f"{path}: damaged, unfinished or of an earlier version; recomputed."
            )
            == 1
        )
        for name, arrays in before.items():
            for output, array in arrays.items():
                np.testing.assert_allclose(after[name][output], array, atol=1e-6)
        facts = read_sidecar(sidecar, *files, declared={})


def test_the_order_of_the_outputs_is_sealed(tiny_backbone, synthetic_dataset):
    dataset = synthetic_dataset()
    first = extract_features(tiny_backbone, dataset, **FP32)
    sidecar = json.loads(first.path.with_suffix(".json").read_text())
    sidecar["backbone"]["outputs"].reverse()
    write_json(first.path.with_suffix(".json"), sidecar)
    again = extract_features(tiny_backbone, dataset, **FP32)
    assert np.array_equal(again.embedding("test"), first.embedding("test"))


def test_flipped_chunks_are_recomputed(tiny_backbone, synthetic_dataset, monkeypatch, capsys):
    dataset, join, generator = synthetic_dataset(), features.join_chunks, np.random.default_rng(1)
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
    facts = read_sidecar(sidecar, chunks[0], declared={})
    for chunk in (chunks[0], sidecar):
        for _ in range(FLIPS):
            content = flip(chunk, generator)
            assert read_sidecar(sidecar, chunks[0], declared={}, quiet=True) in (None, facts)
            put(chunk, content)
    flip(chunks[0], generator)
    run = extract_features(tiny_backbone, dataset, **FP32)
    assert f"{chunks[0]}: damaged" in capsys.readouterr().out
    for split in dataset.splits:
        assert np.array_equal(run.embedding(split), expected.embedding(split))


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_files_follow_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        with atomic(tmp_path / "cache" / "a.safetensors") as path:
            save_file({"a": np.zeros(3)}, path)
        cached(
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
from radiodino_utils.core.cache import cached
from radiodino_utils.core.locks import locked
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
    cached(path.with_suffix(".json"), path, declared={"name": name}, make=make)
    print(path.read_text())
except InputError as error:
    print(error)
"""


@pytest.fixture
def as_user(tmp_path):
    """Cache a text in a shared folder as another user."""
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
        cached(folder / "a.json", path, declared={}, make=lambda: path.write_text("whole") and {})
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        cached(folder / "a.json", path, declared={}, make=lambda: pytest.fail("recomputed"))
        with pytest.raises(InputError, match=r"read-only; .* missing or damaged: .*RADIODINO_DATA"):
            cached(folder / "b.json", folder / "b.txt", declared={}, make=dict)
    finally:
        subprocess.run(["umount", folder], check=True)


MAKE = """
import os, sys, time
from pathlib import Path
from radiodino_utils.core.cache import cached
from radiodino_utils.core.files import write_text
path = Path(sys.argv[1]) / "a.txt"
def make():
    with open(path.parent / "made", "a") as log:
        log.write("x")
    time.sleep(0.3)
    write_text(path, str(os.getpid()))
    return {}
cached(path.with_suffix(".json"), path, declared={}, make=make)
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
    write_sidecar(tmp_path / "a.json", tmp_path / "a.txt", facts={"weights": (1, 2)})
    assert read_sidecar(tmp_path / "a.json", tmp_path / "a.txt", declared={"weights": (1, 2)})[
        "weights"
    ] == [1, 2]
    assert (
        read_sidecar(tmp_path / "a.json", tmp_path / "a.txt", declared={"weights": (2, 1)}) is None
    )
    assert (
        read_sidecar(tmp_path / "a.json", tmp_path / "a.txt", tmp_path / "b.txt", declared={})
        is None
    )


def test_entries_are_named_by_title_and_declaration(tmp_path):
    path = entry_path(tmp_path, "npz:a b_x", declared={"a": 1, "b": 2}, suffix=".npy")
    assert path.parent == tmp_path and path.name.startswith("npz-a-b_x_") and path.suffix == ".npy"
    turned = entry_path(tmp_path, "npz:a b_x", declared={"b": 2, "a": 1}, suffix=".npy")
    assert path == turned
    assert path != entry_path(tmp_path, "npz:a b_x", declared={"a": 1, "b": 3}, suffix=".npy")


def test_what_is_declared_wins_over_what_is_made(tmp_path):
    made = []

    def make():
        made.append((tmp_path / "a.txt").write_text("a"))
        return {"key": "other", "device": "cpu"}

    for _ in range(2):
        facts = cached(tmp_path / "a.json", tmp_path / "a.txt", declared={"key": "1"}, make=make)
    assert (facts["key"], facts["device"], len(made)) == ("1", "cpu", 1)
