"""Runners killed at random times leave equal tables, no orphan and no leftovers."""

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from radiodino_utils.core.files import REPOSITORY

from ..synthetic_notebooks import (
    WRITE,
    runner_command,
    write_notebook,
    write_profile,
    write_sequence,
)

KILLS = int(os.environ.get("RADIODINO_KILLS", "10"))  # more for a campaign by hand
NUMBERS = {"01_first": [], "02_second": ["01_first"], "03_other": []}


def _alive(mark: str) -> list[str]:
    """Processes that carry a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (path / "environ").read_bytes():
                found.append((path / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it ended meanwhile
            pass
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG and /proc")
def test_random_kills_leave_nothing_behind_and_equal_tables(tmp_path: Path) -> None:
    folder, results = tmp_path / "notebooks", tmp_path / "results"
    (folder / "profiles").mkdir(parents=True)
    for name in NUMBERS:
        text = f"path = tables / '{name[:2]}_numbers.csv'\n"
        text += "for i in range(20): path.write_text(f'value\\n{value}\\n' + '0\\n' * i)"
        write_notebook(folder, name, WRITE + text, "import time; time.sleep(0.3)")
    write_sequence(folder, NUMBERS)
    mark = uuid.uuid4().hex
    environment = os.environ | {
        "RADIODINO_RESULTS": str(results),
        "PYTHONPATH": str(REPOSITORY),
        "RADIODINO_MARK": mark,
    }
    environment["OMP_NUM_THREADS"] = "1"

    def start(value: int) -> subprocess.Popen:
        write_profile(folder, {name: {"value": value} for name in NUMBERS})
        with open(tmp_path / "output", "a") as file:
            return subprocess.Popen(
                runner_command(folder, "--jobs", "2"), env=environment, stdout=file, stderr=file
            )

    begin = time.monotonic()
    assert start(0).wait() == 0
    whole, generator = time.monotonic() - begin, random.Random(11)
    for kill in range(KILLS):
        number = generator.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        process = start(kill // 3 + 1)  # some go on where the one before was killed
        time.sleep(generator.uniform(0, whole))
        process.send_signal(number)
        # 0: it was faster; before the handlers are there, a signal ends Python itself
        assert process.wait() in (0, 128 + number, -number), f"kill {kill} by {number!r}"
        end = time.monotonic() + 60
        while (left := _alive(mark)) and time.monotonic() < end:
            time.sleep(0.1)
        assert left == [], f"kill {kill} by {number!r}"

    assert start(99).wait() == 0, (tmp_path / "output").read_text()
    expected = "value\n99\n" + "0\n" * 19
    assert {path.name: path.read_text() for path in (results / "tables").iterdir()} == {
        f"{name[:2]}_numbers.csv": expected for name in NUMBERS
    }
    assert [path for path in results.rglob(".*") if path.name != ".lock"] == []
