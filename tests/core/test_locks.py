"""Locks for real: other processes, killed holders, file systems without locks."""

import errno
import fcntl
import os
import subprocess
import sys
import time

import pytest

from radiodino_utils.core import locks
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.locks import locked

from ..conftest import REPOSITORY


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks(number, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "PATIENCE", 0.0)
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
    assert capsys.readouterr().out.count("the file system has no locks") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.lock"]


HOLD = """
import sys, time
from pathlib import Path
from radiodino_utils.core.locks import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_waiting_is_announced_limited_and_ends_with_the_holder(tmp_path, monkeypatch, capsys):
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a.lock"], env=environment, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        monkeypatch.setattr(locks, "PATIENCE", 0.2)
        monkeypatch.setenv("RADIODINO_LOCK_WAIT", "0.5")
        sentence = rf"a\.lock: still held by process {holder.pid} of .* after 0\.5 s \(RADIODINO_"
        with pytest.raises(InputError, match=sentence), locked(tmp_path / "a.lock"):
            pytest.fail("two hold one lock")
        assert f"held by process {holder.pid} of" in capsys.readouterr().out
    finally:
        holder.kill()
        holder.wait()
    start = time.monotonic()
    with locked(tmp_path / "a.lock"):
        assert time.monotonic() - start < 5


def test_a_limit_that_is_no_number(tmp_path, monkeypatch):
    monkeypatch.setenv("RADIODINO_LOCK_WAIT", "long")
    with (
        pytest.raises(InputError, match="RADIODINO_LOCK_WAIT='long': not a number"),
        locked(tmp_path / "a.lock"),
    ):
        pass
