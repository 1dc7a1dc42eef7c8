"""No connection is opened unasked, as Python's audit hooks and the kernel see it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..synthetic_corpus import SMALLEST, synthetic_folder, synthetic_npz

ROOT = Path(__file__).resolve().parents[2]
# a caller may swallow the error, in a thread or a process of its own, so attempts are logged too
REFUSE = """
import os, sys
tried = open(os.environ["TRIED"], "a", buffering=1)
def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.connect"):
        print(event, *arguments, file=tried)
        raise OSError("this process may open no connection")
sys.addaudithook(refuse)
"""
# extraction with both engines and a pre-training of two steps with its probe
WORK = """
import sys
from radiodino_utils import cli
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.features.extraction import extract_features
dataset = load_dataset(sys.argv[1])
for engine in ("openvino", "torch"):
    extract_features(load_backbone("random-t16"), dataset, engine=engine, precision="fp32")
try:
    cli.main(["pretrain", *sys.argv[2:]])
except SystemExit as ended:
    assert not ended.code
for module in ("umap", "medmnist", "monai", "lightning", "papermill", "matplotlib.pyplot"):
    __import__(module)
"""


@pytest.fixture
def work(tmp_path: Path) -> list[str]:
    labelled = f"npz:{synthetic_npz(tmp_path / 'labelled.npz')}"
    settings = [
        part
        for key, value in SMALLEST.items()
        if key not in ("steps", "batch_size")
        for part in ("--set", f"{key}={value}")
    ]
    options = [
        "--data",
        str(synthetic_folder(tmp_path / "images")),
        "--out",
        str(tmp_path / "run"),
        "--probe",
        labelled,
    ]
    return [
        labelled,
        *options,
        "--hold-out",
        labelled,
        "--batch-size",
        "8",
        "--steps",
        "2",
        *settings,
    ]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own, and nothing by which telemetry would be switched off anyway."""
    home = tmp_path / "home"
    home.mkdir()
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("CI", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
    }
    return kept | {"HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def test_extraction_and_pretraining_open_no_connection(
    work: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    tried = tmp_path / "tried"
    command = [sys.executable, "-c", REFUSE + WORK, *work]
    done = subprocess.run(
        command, env=environment | {"TRIED": str(tried)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert tried.read_text() == ""
    assert not (
        Path(environment["HOME"]) / "intel"
    ).exists()  # where OpenVINO keeps its client's number


def test_the_kernel_sees_no_connection_either(
    work: list[str], environment: dict[str, str], tmp_path: Path
) -> None:
    calls = tmp_path / "calls"
    strace = [
        shutil.which("strace"),
        "-f",
        "-qq",
        "-e",
        "trace=connect,sendto,sendmsg,sendmmsg",
        "-o",
        str(calls),
    ]
    if not strace[0] or subprocess.run([*strace, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    done = subprocess.run(
        [*strace, sys.executable, "-c", WORK, *work],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    addresses = re.findall(
        r"sin6?_addr.*?\"(.*?)\"|inet_pton\(AF_INET6, \"(.*?)\"", calls.read_text()
    )
    assert addresses == []
