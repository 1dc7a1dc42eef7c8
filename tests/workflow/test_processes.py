"""Processes that end with their parent and run nothing of somebody else's."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radiodino_utils.core.files import REPOSITORY
from radiodino_utils.workflow.processes import own_environment

FOREIGN = {
    "PYTHONPATH": "/other",
    "PYTHONHOME": "/nonexistent",
    "PYTHONSTARTUP": "/other/start.py",
    "JUPYTER_PATH": "/other",
    "IPYTHONDIR": "/other",
    "MPLBACKEND": "agg",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "RANK": "3",
    "NODE_RANK": "1",
    "MASTER_ADDR": "elsewhere",
    "SLURM_NTASKS": "4",
    "GIT_DIR": "/other/.git",
    "CDPATH": "/other",
}


def test_what_would_change_a_run_is_left_out_and_the_rest_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, text in FOREIGN.items():
        monkeypatch.setenv(name, text)
    monkeypatch.setenv("HF_TOKEN", "kept")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("BUSI", "data/busi")
    monkeypatch.chdir(tmp_path)
    kept = own_environment()
    assert {name for name in FOREIGN if kept.get(name) == FOREIGN[name]} == set()
    assert (kept["PYTHONPATH"], kept["HF_TOKEN"], kept["OMP_NUM_THREADS"]) == (
        str(REPOSITORY),
        "kept",
        "3",
    )
    assert kept["BUSI"] == str(tmp_path / "data" / "busi")


HANGING = """
import os, signal, sys, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
print(os.getpid(), file=open(sys.argv[1] + ".new", "w"), flush=True)
os.replace(sys.argv[1] + ".new", sys.argv[1])
time.sleep(1000)
"""
PARENT = """
import sys
from pathlib import Path
from radiodino_utils.workflow.processes import Processes, own_environment
with Processes() as processes:
    log, environment = Path(sys.argv[3]), own_environment()
    code, _ = processes.run("cProfile", sys.argv[1:3], log=log, environment=environment)
    print(code, processes.signal)
"""


@pytest.fixture
def hanging(tmp_path: Path):
    """A process that hangs and its parent."""
    (tmp_path / "hanging.py").write_text(HANGING)
    words = [tmp_path / "hanging.py", tmp_path / "pid", tmp_path / "log"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, *map(str, words)],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert _comes(lambda: (tmp_path / "pid").exists())
    yield parent, int((tmp_path / "pid").read_text())
    parent.kill()


def _comes(condition, seconds: float = 900) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


def _is_gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_child_ends_with_a_killed_parent(hanging) -> None:
    parent, child = hanging
    assert not _is_gone(child)
    parent.kill()
    parent.wait()
    assert _comes(lambda: _is_gone(child))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_second_signal_ends_a_child_that_hangs(number: int, hanging) -> None:
    parent, child = hanging
    parent.send_signal(number)
    parent.send_signal(number)  # may come with the first; if so, time ends the child
    assert parent.communicate(timeout=900)[0].split() == ["-9", str(int(number))]
    assert _is_gone(child)


def test_a_child_of_a_parent_that_is_gone_does_not_start() -> None:
    command = [sys.executable, "-m", "radiodino_utils.workflow.processes", "child", "this"]
    environment = own_environment() | {"JPY_PARENT_PID": "1"}
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "has ended" in done.stderr


def test_another_checkout_is_one_sentence() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r}); sys.argv[1:] = ['child', 'this']\n"
    )
    code += "from radiodino_utils.workflow.processes import main; main()"
    environment = own_environment() | {"JPY_PARENT_PID": str(os.getpid()), "PYTHONPATH": "/other"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert (
        done.returncode == 1
        and "is imported instead of /other" in done.stderr
        and done.stderr.count("\n") == 1
    )
