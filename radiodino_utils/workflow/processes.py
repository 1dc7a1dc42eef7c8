"""Processes that run this checkout with this Python and end with their parent.

`python -m radiodino_utils.workflow.processes with FOLDER MODULE ...` runs a Python module, such as
pytest, as notebooks are run; the folder is for Jupyter's own files.
"""

import ctypes
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.files import REPOSITORY

KERNEL = "radiodino"  # the one kernel that notebooks run in, whatever name they were saved with
_MODULE = f"{__package__}.processes"
_GRACE = 10.0  # seconds from a request to end to the end
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# other packages, kernels and start-up files, other figures, another repository, the ranks of a job
# that this one is no part of
_FOREIGN = re.compile(
    r"(I?PYTHON|JUPYTER|PAPERMILL|SLURM_|OMPI_|PMIX?_|LSB_|JSM_|TORCHELASTIC_|LT_|PL_)\w*"
    r"|(GROUP_|ROLE_|MASTER_)\w*"
    r"|GIT_(DIR|WORK_TREE|INDEX_FILE|OBJECT_DIRECTORY|COMMON_DIR)"
    r"|((LOCAL|NODE)_)?(RANK|WORLD_SIZE)|LOCAL_WORLD_SIZE|JPY_\w+|MPLBACKEND|MATPLOTLIBRC|CDPATH"
)
_HARMLESS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX")
_FOLDERS = (
    "BUSI",
    "BUSI_LISTS",
    "MEDMNIST",
    "MEDSEGBENCH",
    "RADIMAGENET",
    "RADIODINO_DATA",
    "RADIODINO_FEATURES",
    "RADIODINO_RESULTS",
    "HF_HOME",
)


def own_environment() -> dict[str, str]:
    """Return the environment variables without those that make a process run other code.

    Folders that variables name become absolute, since a notebook's folder is not the caller's.
    """
    kept = {
        name: text
        for name, text in os.environ.items()
        if name in _HARMLESS or not _FOREIGN.fullmatch(name)
    }
    kept |= {
        name: str(Path(kept[name]).expanduser().absolute()) for name in _FOLDERS if kept.get(name)
    }
    return kept | {
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONSAFEPATH": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
    }


def notebook_environment(folder: Path) -> dict[str, str]:
    """Return the environment variables of a process that executes notebooks.

    Args:
        folder: Folder for Jupyter's and IPython's files, so that none of the user's is read. It is
            created, with the kernel `KERNEL` in it.

    Returns:
        All variables.
    """
    spec = folder / "kernels" / KERNEL
    spec.mkdir(parents=True, exist_ok=True)
    # Jupyter puts its own interpreter, which is this one, in place of "python"
    start = ["python", "-m", _MODULE, "child", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(
        json.dumps({"argv": start, "display_name": KERNEL, "language": "python"})
    )
    jupyter = {
        f"JUPYTER_{name}": str(folder) for name in ("PATH", "DATA_DIR", "CONFIG_DIR", "RUNTIME_DIR")
    }
    settings = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_NO_CONFIG": "1"}
    if (matplotlib := importlib.util.find_spec("matplotlib")) and matplotlib.origin:
        settings["MATPLOTLIBRC"] = str(Path(matplotlib.origin).parent / "mpl-data" / "matplotlibrc")
    return own_environment() | jupyter | settings


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Replace the environment variables of this process within a block."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Processes:
    """Run processes that end with this one, and end them at Ctrl-C, SIGTERM or SIGHUP.

    The first signal asks them to end and kills those that have not after some seconds, a second one
    kills them at once, and a third one ends this process.

    Attributes:
        signal: The first signal that came, or 0.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._live: set[int] = set()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Processes":
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                    self._before[number] = signal.signal(number, self._interrupt)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        if self.signal:
            self._end(signal.SIGKILL)
            for handled in self._before:
                signal.signal(handled, signal.SIG_DFL)
            return
        self.signal = number
        self._end(signal.SIGTERM)
        killing = threading.Timer(_GRACE, self._end, [signal.SIGKILL])
        killing.daemon = True
        killing.start()

    def _end(self, number: int) -> None:
        for process in list(self._live):
            os.kill(process, number)

    def run(
        self, module: str, arguments: list[object], *, log: Path, environment: dict[str, str]
    ) -> tuple[int, float]:
        """Run a Python module with its output in a log.

        Args:
            module: Name of the module.
            arguments: Its arguments.
            log: Text file that is overwritten.
            environment: All environment variables of the process.

        Returns:
            The exit code, and the peak memory of its largest process in MB. The operating system
            counts this process itself before the module takes its place, so no peak is below this
            process's own.

        Raises:
            OSError: If the log cannot be written.
        """
        if self.signal:
            return 128 + self.signal, 0.0
        command = [sys.executable, "-m", _MODULE, "child", module, *map(str, arguments)]
        with open(log, "w", encoding="utf-8") as file:
            # a session of its own: Ctrl-C reaches it through `_interrupt` alone
            environment = environment | {"JPY_PARENT_PID": str(os.getpid())}
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=file,
                env=environment,
                cwd=REPOSITORY,
                start_new_session=True,
            )
            self._live.add(process.pid)
            if self.signal:
                os.kill(process.pid, signal.SIGTERM)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            self._live.discard(process.pid)  # while its number is still its own
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def main() -> None:
    """Become another Python module.

    It is either a `child` that ends with its parent, or runs `with` the environment of notebooks.
    """
    mode, *words = sys.argv[1:]
    if mode == "with":
        os.execve(
            sys.executable, [sys.executable, "-m", *words[1:]], notebook_environment(Path(words[0]))
        )
    if sys.platform == "linux":
        # stays with the process that takes this one's place
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(os.environ["JPY_PARENT_PID"]):
        sys.exit("the process that started this one has ended.")
    if str(REPOSITORY) != os.environ["PYTHONPATH"]:
        sys.exit(
            f"{REPOSITORY}: this checkout is imported instead of {os.environ['PYTHONPATH']}; "
            "remove what redirects Python."
        )
    os.execv(sys.executable, [sys.executable, "-m", *words])


if __name__ == "__main__":
    main()
