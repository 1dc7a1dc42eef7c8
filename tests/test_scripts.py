"""The shell scripts, from the outside."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def _clone(folder: Path) -> Path:
    """The scripts, the package and the notebooks without an environment."""
    shutil.copytree(
        ROOT / "radiodino_utils",
        folder / "radiodino_utils",
        ignore=shutil.ignore_patterns("weights", "__pycache__"),
    )
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    for name in ("run_all.sh", "run_tests.sh", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def _run(command: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV")
    }
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env=kept | environment
    )


def _programs(folder: Path, **programs: str) -> str:
    """A folder of shell programs, in front of those that the scripts need."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    for name in ("bash", "dirname", "basename", "rm", "mv", "env"):
        (folder / name).symlink_to(shutil.which(name))
    return str(folder)


def test_an_active_environment_is_used_and_an_unknown_profile_is_one_sentence() -> None:
    done = _run(["./run_all.sh", "--profile", "demoo"], ROOT, VIRTUAL_ENV=sys.prefix)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "unknown profile 'demoo'; did you mean demo?\n"


def test_help_makes_no_environment(tmp_path: Path) -> None:
    clone = _clone(tmp_path)
    done = _run(["./run_all.sh", "--help"], clone)
    assert done.returncode == 0 and "--check" in done.stdout
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh"])
def test_python_that_is_too_old(script: str, tmp_path: Path) -> None:
    clone = _clone(tmp_path / "clone")
    done = _run([f"./{script}"], clone, PATH=_programs(tmp_path / "bin", python3="exit 1"))
    assert (
        done.returncode == 1
        and done.stderr.startswith("Python 3.11 or newer is needed")
        and done.stderr.count("\n") == 1
    )


def test_python_without_venv_leaves_no_half_environment(tmp_path: Path) -> None:
    clone = _clone(tmp_path / "clone")
    python = 'case "$1 $2" in "-m venv") exit 1;; "-m "*) exit 3;; '
    python += '"--version "*) echo Python 3.11.0;; esac'
    done = _run(["./run_all.sh"], clone, PATH=_programs(tmp_path / "bin", python3=python))
    assert done.returncode == 1 and "apt install python3-venv" in done.stderr
    assert not (clone / ".venv").exists()


def test_conda_base_is_no_active_environment_but_another_one_is(tmp_path: Path) -> None:
    clone = _clone(tmp_path / "clone")
    path = _programs(tmp_path / "bin", python3="exit 1")
    base = _run(
        ["./run_all.sh"], clone, PATH=path, CONDA_PREFIX=str(tmp_path), CONDA_DEFAULT_ENV="base"
    )
    assert "Python 3.11 or newer is needed" in base.stderr
    other = _run(
        ["./run_all.sh"],
        clone,
        PATH=path,
        CONDA_PREFIX=str(tmp_path / "none"),
        CONDA_DEFAULT_ENV="mine",
    )
    assert "the active environment has no Python" in other.stderr


def test_no_network_is_one_sentence_behind_pips(tmp_path: Path) -> None:
    clone = _clone(tmp_path / "clone")
    offline = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_NO_CACHE_DIR": "1",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_FIND_LINKS": "",
        "PIP_EXTRA_INDEX_URL": "",
    }
    done = _run(["./run_all.sh"], clone, **offline)
    assert done.returncode == 1
    assert done.stdout.startswith("no environment is active: making .venv")
    assert done.stderr.splitlines()[-1].startswith(
        "the pinned requirements could not be installed; check the network"
    )
