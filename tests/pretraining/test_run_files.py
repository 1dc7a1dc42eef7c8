"""A run's files: whole or refused, one run a folder, and ends that come when they are asked for."""

import csv
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from radiodino_utils.core.environment import launched
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining import config as pretrain_config
from radiodino_utils.pretraining import loader
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.run_files import (
    read_monitor,
    read_run,
    read_state,
    sole_user,
    verify_run,
)
from radiodino_utils.pretraining.trainer import pretrain

from ..synthetic_corpus import smallest, synthetic_corpus, synthetic_folder

QUICK = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1)
HALF = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1, stop_at=2)
REPOSITORY = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(7200)  # slow machines are slow, not broken


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setitem(pretrain_config.ARCHITECTURES, "t16", "test_vit")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def half(tmp_path):
    """A run that stopped after two of four steps."""
    plan, corpus = Plan("t16", smallest(method="dinov2", steps=4)), synthetic_corpus(tmp_path)
    pretrain(plan, corpus, tmp_path / "half", options=HALF)
    return plan, corpus, tmp_path / "half"


def results(folder):
    with open(folder / "monitor.csv", newline="") as file:
        rows = [(row["step"], row["loss"], row["gradient_norm"]) for row in csv.DictReader(file)]
    return (
        rows,
        torch.load(folder / "last.ckpt", weights_only=True)["teacher"],
        (folder / "backbone.safetensors").read_bytes(),
    )


def same(first, second):
    weights = zip(first[1].values(), second[1].values(), strict=True)
    return (
        first[0] == second[0]
        and first[2] == second[2]
        and all(torch.equal(a, b) for a, b in weights)
    )


@pytest.mark.parametrize(
    "name", ["last.ckpt", "run.json", "monitor.csv", "corpus.txt", "backbone.safetensors"]
)
def test_a_flipped_bit_is_noticed_or_changes_nothing(half, tmp_path, name):
    plan, corpus, folder = half
    shutil.copytree(folder, tmp_path / "whole")
    pretrain(plan, corpus, tmp_path / "whole", options=QUICK, resume=True)
    wanted, generator, noticed = results(tmp_path / "whole"), np.random.default_rng(0), 0
    for number in range(10):
        flipped = tmp_path / f"flipped{number}"
        shutil.copytree(folder, flipped)
        data = bytearray((flipped / name).read_bytes())
        place, bit = generator.integers(len(data)), generator.integers(8)
        data[place] ^= 1 << bit
        (flipped / name).write_bytes(data)
        try:
            pretrain(plan, corpus, flipped, options=QUICK, resume=True)
        except InputError as error:
            assert name in str(error) and "\n" not in str(error)
            noticed += 1
        else:
            assert same(results(flipped), wanted), (place, bit)
    assert noticed or name in ("corpus.txt", "backbone.safetensors")  # those are written again


@pytest.mark.parametrize("name", ["last.ckpt", "run.json", "monitor.csv"])
def test_empty_halved_and_foreign_files_end_with_one_sentence(half, name):
    plan, corpus, folder = half
    whole = (folder / name).read_bytes()
    for data in (
        b"",
        whole[: len(whole) // 2],
        b"\xff\xfe\x00",
        b"[]",
        b"null",
        b'{"config": 3}',
        b"PK\x05\x06" + bytes(18),
    ):
        (folder / name).write_bytes(data)
        with pytest.raises(InputError, match=name) as caught:
            pretrain(plan, corpus, folder, options=QUICK, resume=True)
        assert "\n" not in str(caught.value)
        with pytest.raises(InputError, match=name):
            verify_run(folder)
    (folder / name).write_bytes(whole)
    verify_run(folder)
    assert pretrain(plan, corpus, folder, options=QUICK, resume=True).step == 4


def test_a_monitor_that_was_removed_begins_anew(half):
    plan, corpus, folder = half
    (folder / "monitor.csv").unlink()
    pretrain(plan, corpus, folder, options=QUICK, resume=True)
    assert read_monitor(folder)["step"].tolist() == [3, 4]


@pytest.mark.parametrize("old", [True, False])
def test_a_run_killed_before_its_export_exports_when_it_is_resumed(half, old):
    plan, corpus, folder = half
    first = (folder / "backbone.safetensors").read_bytes()
    pretrain(plan, corpus, folder, options=QUICK, resume=True)
    last = (folder / "backbone.safetensors").read_bytes()
    assert first != last
    (folder / "backbone.safetensors").write_bytes(first) if old else (
        folder / "backbone.safetensors"
    ).unlink()
    with pytest.raises(InputError, match="backbone.safetensors"):
        verify_run(folder)
    assert pretrain(plan, corpus, folder, options=QUICK, resume=True).step == 4
    assert (folder / "backbone.safetensors").read_bytes() == last
    verify_run(folder)


def test_one_run_a_folder_and_no_leftovers(half):
    plan, corpus, folder = half
    (folder / ".last.ckpt.k1ll3d").mkdir()
    (folder / ".last.ckpt.k1ll3d" / "last.ckpt").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    descriptor = os.open(folder, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(InputError, match="another run is writing"):
        pretrain(plan, corpus, folder, options=QUICK, resume=True)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == kept
    os.close(descriptor)
    pretrain(plan, corpus, folder, options=QUICK, resume=True)
    assert not list(folder.glob(".*"))
    with sole_user(folder):
        pass


def test_what_is_read_is_what_was_written(half):
    _, corpus, folder = half
    assert read_run(folder)["corpus"] == corpus.digest
    state = read_state(folder / "last.ckpt")
    assert state["step"] == 2 and state["num_heads"] == 2
    assert read_monitor(folder)["step"].tolist() == [1, 2]


STRAY = [
    {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1"},
    {"WORLD_SIZE": "2"},
    {"RANK": "first", "LOCAL_WORLD_SIZE": "no"},
    {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1",
    },
    {"TORCHELASTIC_RUN_ID": "none", "LOCAL_RANK": ""},
    {"SLURM_NTASKS": "4", "SLURM_PROCID": "2", "SLURM_JOB_NAME": "job"},
]


@pytest.mark.parametrize("stray", STRAY)
def test_stray_variables_of_launchers_do_nothing(tmp_path, run_python, stray):
    synthetic_folder(tmp_path / "images")
    code = """
import sys
from radiodino_utils.cli import main
main(["pretrain", *sys.argv[1:]])
"""

    sizes = [
        "global_size=32",
        "local_size=16",
        "local_count=2",
        "hidden_dim=32",
        "bottleneck_dim=16",
        "output_dim=64",
    ]
    options = [part for one in sizes for part in ("--set", one)]
    options += [
        "--data",
        tmp_path / "images",
        "--out",
        tmp_path / "run",
        "--steps",
        "1",
        "--batch-size",
        "8",
        "--threads",
        "1",
    ]
    done = run_python(code, *options, timeout=3600, **stray)
    assert done.returncode == 0 and "after 1 of 1 steps" in done.stdout, done.stderr[-2000:]
    assert read_run(tmp_path / "run")["processes"] == 1


def test_the_whole_set_of_torchrun_counts(monkeypatch):
    for name in (
        "RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "LOCAL_RANK",
        "MASTER_PORT",
        "MASTER_ADDR",
        "TORCHELASTIC_RUN_ID",
    ):
        monkeypatch.delenv(name, raising=False)
    assert launched() == (0, 1, 1)
    whole = STRAY[3] | {"TORCHELASTIC_RUN_ID": "x"}
    for name, value in whole.items():
        monkeypatch.setenv(name, value)
    assert launched() == (1, 2, 2)


_CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from radiodino_utils.pretraining import config, loader
config.ARCHITECTURES["t16"] = "test_vit"
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.trainer import pretrain
from tests.synthetic_corpus import smallest

def hang(progress):
    print("hangs", flush=True)
    while sys.argv[3] == "hang":
        time.sleep(1)

if sys.argv[3] == "late":  # what fills the shared memory comes after the check
    loader.SHARED_MEMORY = Path("/nowhere")
size = 32 if sys.argv[3] == "hang" else 224
options = RunOptions(
    precision="fp32", accelerator="cpu", monitor_every=1, workers=int(sys.argv[4]),
    loader_seconds=20,
)
plan = Plan("t16", smallest(batch_size=12, global_size=size, local_size=size // 2))
try:
    corpus = load_corpus([Source(Path(sys.argv[1]))])
    pretrain(plan, corpus, Path(sys.argv[2]), options=options, on_row=hang)
except InputError as error:
    sys.exit(f"refused: {error}")
"""


def child(tmp_path, mode, workers):
    synthetic_folder(tmp_path / "images")
    return [
        sys.executable,
        "-c",
        _CHILD,
        str(tmp_path / "images"),
        str(tmp_path / "run"),
        mode,
        str(workers),
    ]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_run_that_hangs(tmp_path, number, workers):
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        child(tmp_path, "hang", workers),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout.readline() == "hangs\n"
        process.send_signal(number)
        time.sleep(3)
        assert process.poll() is None  # the first one waits for the step under way
        process.send_signal(number)
        assert process.wait(timeout=3600) in (-number, 130, 1)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    "mode, hint", [("early", "of shared memory, and /dev/shm has"), ("late", "gave no batch")]
)
def test_loader_processes_without_shared_memory_say_so(tmp_path, mode, hint):
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip(
            "no mount namespace of its own is permitted here, so /dev/shm cannot be made small"
        )
    inside = [
        "unshare",
        "-m",
        "sh",
        "-c",
        'mount -t tmpfs -o size=1m tmpfs /dev/shm || exit 77; exec "$@"',
        "sh",
    ]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*inside, *child(tmp_path, mode, 2)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=3600,
    )
    if done.returncode == 77:
        pytest.skip("mounting is not permitted here")
    assert done.returncode == 1 and "refused: " in done.stderr and hint in done.stderr, done.stderr[
        -2000:
    ]
    assert "shm-size" in done.stderr and not list((tmp_path / "run").glob("last.ckpt"))


def test_enough_shared_memory_is_no_trouble(tmp_path):
    plan, corpus = Plan("t16", smallest(steps=1)), synthetic_corpus(tmp_path)
    assert Path("/dev/shm") == loader.SHARED_MEMORY
    options = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1, workers=1)
    assert pretrain(plan, corpus, tmp_path / "run", options=options).step == 1
