"""One notebook executed by papermill, in a process of its own."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..core.files import make_folder
from . import notebooks as sequence
from .notebooks import Notebook
from .outputs import fault_of
from .processes import KERNEL, Processes, notebook_environment


@dataclass(frozen=True)
class Execution:
    """How the execution of a notebook ended.

    Attributes:
        fault: Why it failed; empty for one that ran to its end.
        seconds: Duration.
        memory: Peak memory in MB.
        began: Time stamp of its beginning in nanoseconds, by the clock that stamps the tables.
        log: Log of papermill.
        interrupted: Whether a signal ended it.
    """

    fault: str
    seconds: float
    memory: float
    began: int
    log: Path
    interrupted: bool = False


def execute(
    notebook: Notebook, folder: Path, *, processes: Processes, variables: Mapping[str, str]
) -> Execution:
    """Execute a notebook by papermill.

    The executed notebook goes to `notebooks/NAME.ipynb` of the results folder, or to
    `notebooks/NAME.failed.ipynb`.

    Args:
        notebook: Notebook and its parameters.
        folder: Results folder.
        processes: Runs the process.
        variables: Environment variables besides those of `notebook_environment`.

    Returns:
        How it ended.

    Raises:
        OSError: If a file cannot be written.
    """
    log = make_folder(folder / "logs") / f"{notebook.name}.log"
    executed = make_folder(folder / "notebooks") / f"{notebook.name}.ipynb"
    failed = executed.with_suffix(".failed.ipynb")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(
        dir=folder / "state", prefix=f".{notebook.name}.", ignore_cleanup_errors=True
    ) as temporary:
        output = Path(temporary) / executed.name
        parameters = _write_parameters(notebook, Path(temporary))
        began = parameters.stat().st_mtime_ns
        code, memory = processes.run(
            "papermill",
            _arguments(notebook, output, parameters),
            log=log,
            environment=notebook_environment(Path(temporary) / "jupyter") | dict(variables),
        )
        fault = _fault(code, output, log, folder)
        if not processes.signal and output.is_file():
            os.replace(output, failed if fault else executed)
    seconds = time.monotonic() - start
    if not fault and not processes.signal:
        failed.unlink(missing_ok=True)
    return Execution(fault, seconds, memory, began, log, interrupted=bool(processes.signal))


def _write_parameters(notebook: Notebook, folder: Path) -> Path:
    import yaml

    path = folder / "parameters.yaml"
    path.write_text(yaml.safe_dump(notebook.parameters, allow_unicode=True), encoding="utf-8")
    return path


def _arguments(notebook: Notebook, output: Path, parameters: Path) -> list[object]:
    return [
        *(_as_template(notebook.path), _as_template(output)),
        *("-f", parameters, "--cwd", sequence.FOLDER, "-k", KERNEL, "-l", "python"),
        *("--execution-timeout", notebook.timeout, "--no-progress-bar", "--log-output"),
    ]


def _as_template(path: Path) -> str:
    """Escape braces, since papermill formats paths with the parameters."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _fault(code: int, output: Path, log: Path, folder: Path) -> str:
    """Return why a notebook failed, from papermill's exit code, the executed notebook and the log.

    Args:
        code: Exit code of papermill.
        output: The executed notebook.
        log: Log of papermill.
        folder: Results folder.
    """
    text = log.read_text(encoding="utf-8", errors="replace")
    is_full = shutil.disk_usage(folder).free < 1e6 or "No space left on device" in text
    if code and is_full:
        return (
            f"{folder}: no disk space is left; free some, "
            "or choose another folder with RADIODINO_RESULTS."
        )
    if not output.is_file():
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        return f"papermill wrote no notebook: {lines[-1] if lines else 'it was killed.'}"
    fault = fault_of(output)
    if code and not fault:
        return (
            f"papermill ended with exit code {code}: "
            "the kernel died; it was killed, or the memory was used up."
        )
    return fault
