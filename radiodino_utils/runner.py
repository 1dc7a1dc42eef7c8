"""The runner behind run_all.sh: a profile's notebooks in order, only those that are out of date, and the report."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from . import profiles
from .errors import InputError
from .files import REPOSITORY, atomic, file_hash, make_folder, results_folder, value_hash, write_json
from .profiles import Notebook, cells_of, load_profile, pick, profile_names, provided

_OPEN_NAMES = re.compile(r"^(npz|folder|file):")


def run_profile(
    profile: str, *, only: list[str] | None = None, force: bool = False, jobs: int = 1, allow_missing: bool = False
) -> bool:
    """Runs the notebooks of a profile that are out of date, one process each, and prints one line for each.

    What decides is the content of a notebook's code, its parameters, the package, the files that parameters name, the
    versions of the packages, the results of the notebooks that it needs, and its own tables and figures.

    Args:
        profile: See `load_profile`.
        only: Numbers or names of notebooks; what they need runs too if it is out of date. All by default.
        force: Run them although they are up to date.
        jobs: Notebooks at a time; they share the processors.
        allow_missing: See `provided`.

    Returns:
        Whether every notebook is up to date now.

    Raises:
        InputError: See `load_profile`, `pick` and `provided`; or if the results folder cannot be written to.
    """
    from doit.cmd_base import ModuleTaskLoader
    from doit.doit_cmd import DoitMain
    from doit.tools import config_changed, result_dep

    notebooks = load_profile(profile)
    chosen = pick(notebooks, only) if only else notebooks
    notebooks = provided(notebooks, chosen, allow_missing=allow_missing)
    chosen = [notebook for notebook in notebooks if notebook.name in {one.name for one in chosen}]
    folder = make_folder(results_folder(profile))
    make_folder(folder / "state")
    common = {"package": _package_hash(), "versions": (REPOSITORY / "requirements.txt").read_text()}
    processes = _Processes(dict(os.environ) | _shared_threads(jobs))

    def task_notebook():  # noqa: ANN202 - doit finds its tasks by such a function
        for notebook in notebooks:
            declared = common | {"code": _code(notebook.path), "parameters": notebook.parameters, "inputs": _inputs(notebook)}
            yield {
                "basename": notebook.name,
                "actions": [(_execute, [notebook, folder, processes])],
                "uptodate": [config_changed(value_hash(declared)), _outputs_intact(notebook, folder)]
                + [result_dep(name) for name in notebook.needs],
            }

    config = {
        "dep_file": str(folder / "state" / "doit.db"),
        "backend": "json",
        "continue": True,
        "always": force,
        "verbosity": 2,
        "reporter": _Lines,
        "num_process": jobs if jobs > 1 else 0,
        "par_type": "thread",
    }
    loader = ModuleTaskLoader({"task_notebook": task_notebook, "DOIT_CONFIG": config})
    with processes:
        code = DoitMain(loader, config_filenames=()).run(["run", *(notebook.name for notebook in chosen)])
    if processes.interrupted:
        raise KeyboardInterrupt
    return code == 0


def executed_whole(notebook: Path) -> str:
    """Tells why an executed notebook cannot be trusted, from its cells alone.

    Args:
        notebook: What papermill wrote; what its metadata says of success may be wrong.

    Returns:
        A sentence, or "" for a notebook that ran from top to bottom without an error.
    """
    if not notebook.is_file():
        return "papermill wrote no notebook."
    for position, cell in enumerate(cells_of(notebook), 1):
        if cell["cell_type"] != "code" or not cell["source"].strip():
            continue
        first = cell["source"].splitlines()[0]
        for output in cell["outputs"]:
            if output["output_type"] == "error":
                if output["ename"] == "KeyboardInterrupt":
                    return f"cell {position} ({first}) was stopped: it took longer than the time-out of notebooks/sequence.yaml."
                trace = "\n".join(re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output["traceback"][-3:])
                sentence = f"cell {position} ({first}): {output['ename']}: {output['evalue']}"
                return sentence if output["ename"] == InputError.__name__ else f"{sentence}\n{trace}"
        if cell["execution_count"] is None:
            return f"cell {position} ({first}) did not run to its end: the kernel stopped, was killed, or took too long."
    return ""


def _execute(notebook: Notebook, folder: Path, processes: "_Processes") -> dict[str, dict[str, str]]:
    from doit.exceptions import TaskFailed

    from .provenance import cpu_count, record_processor

    log = make_folder(folder / "logs") / f"{notebook.name}.log"
    executed = make_folder(folder / "notebooks") / f"{notebook.name}.ipynb"
    failed = executed.with_suffix(".failed.ipynb")
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder / "state", prefix=f".{notebook.name}.") as temporary:
        output, parameters = Path(temporary) / executed.name, Path(temporary) / "parameters.json"
        parameters.write_text(json.dumps(notebook.parameters))  # JSON is YAML
        command = [sys.executable, "-m", "papermill", notebook.path, output, "-f", parameters, "--cwd", profiles.NOTEBOOKS]
        command += ["--execution-timeout", notebook.timeout, "--no-progress-bar", "--log-output"]
        code, peak = processes.run([str(part) for part in command], log)
        fault = executed_whole(output)
        if code and not fault:
            fault = f"papermill ended with exit code {code}: the kernel died; it was killed, or the memory was used up."
        if processes.interrupted:
            return TaskFailed(f"{notebook.name:28} interrupted")
        if output.is_file():
            os.replace(output, failed if fault else executed)
    stamp = {"state": "FAILED" if fault else "done", "seconds": time.monotonic() - start, "peak_memory_mb": peak}
    write_json(folder / "state" / f"{notebook.name}.json", stamp | {"git": _revision()})
    record_processor(folder, notebook.name, threads=int(processes.environment.get("OMP_NUM_THREADS") or cpu_count()))
    line = f"{notebook.name:28} {stamp['state']:10} {stamp['seconds']:6.1f} s {peak:7.0f} MB"
    if fault:
        return TaskFailed(f"{line}\n{fault}\nlog: {log}")
    failed.unlink(missing_ok=True)
    print(line, flush=True)
    return {"outputs": _outputs(notebook, folder)}


def _outputs_intact(notebook: Notebook, folder: Path) -> Callable[..., bool]:
    executed = folder / "notebooks" / notebook.path.name
    return lambda task, values: executed.is_file() and values.get("outputs") == _outputs(notebook, folder)


def _outputs(notebook: Notebook, folder: Path) -> dict[str, str]:
    """The hash of each table and figure that bears the notebook's number."""
    paths = [*folder.glob(f"tables/{notebook.number}_*.csv"), *folder.glob(f"figures/{notebook.number}_*.png")]
    return {path.name: file_hash(path) for path in sorted(paths)}


class _Processes:
    """Runs processes and, at Ctrl-C or SIGTERM, ends those that are under way and starts no more."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment, self.interrupted, self._live = environment, False, set()
        self._before = {}

    def __enter__(self) -> "_Processes":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True
        for process in list(self._live):
            process.terminate()

    def run(self, command: list[str], log: Path) -> tuple[int, float]:
        """Runs a command with its output in a log; gives the exit code and the peak memory of its largest process in MB.

        The kernel counts this process itself before the command takes its place, so no peak is below the runner's own.
        """
        if self.interrupted:
            return 130, 0.0
        with open(log, "w") as file:
            # a session of its own: Ctrl-C reaches it through `_interrupt` alone
            process = subprocess.Popen(command, stdout=file, stderr=file, env=self.environment, start_new_session=True)
            self._live.add(process)
            if self.interrupted:
                process.terminate()
            _, status, usage = os.wait4(process.pid, 0)
            self._live.discard(process)
            process.returncode = os.waitstatus_to_exitcode(status)
        return process.returncode, usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


class _Lines:
    """One line a notebook on the terminal; what a reporter of doit must have."""

    desc = "one line a notebook"

    def __init__(self, stream: object, options: dict) -> None:
        self._stream = stream

    def skip_uptodate(self, task: object) -> None:
        print(f"{task.name:28} up to date", flush=True)

    def add_failure(self, task: object, fail: object) -> None:
        from doit.exceptions import UnmetDependency

        message = fail.message if not isinstance(fail, UnmetDependency) else f"not run: {fail.message} failed"
        print(message if message.startswith(task.name) else f"{task.name:28} {message}", flush=True)

    def cleanup_error(self, exception: object) -> None:
        print(exception.get_msg(), file=sys.stderr)

    def runtime_error(self, message: str) -> None:
        print(message, file=sys.stderr)

    def _nothing(self, *_: object) -> None:
        pass

    initialize = get_status = execute_task = add_success = skip_ignore = teardown_task = complete_run = _nothing


def _code(notebook: Path) -> list[str]:
    return [cell["source"] for cell in cells_of(notebook) if cell["cell_type"] == "code"]


def _package_hash() -> dict[str, str]:
    files = [path for path in Path(__file__).parent.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.name: file_hash(path) for path in sorted(files)}


def _inputs(notebook: Notebook) -> list[tuple[str, int, int]]:
    """Size and time of the files that a notebook's parameters name."""
    values = [value for given in notebook.parameters.values() for value in (given if isinstance(given, list) else [given])]
    named = [_OPEN_NAMES.sub("", value) for value in values if isinstance(value, str)]
    paths = [profiles.NOTEBOOKS / name for name in named if "/" in name or "." in name]  # a kernel's folder is its notebook's
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    return sorted((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)


def _shared_threads(jobs: int) -> dict[str, str]:
    from .provenance import cpu_count

    return {"OMP_NUM_THREADS": str(max(1, cpu_count() // jobs))} if jobs > 1 else {}


def _revision() -> str:
    from .provenance import git_revision

    return git_revision()


def list_notebooks(profile: str) -> str:
    """The notebooks of a profile, a line each with title, what it needs and how its last run ended."""
    lines = [f"profile {profile} (known: {', '.join(profile_names())})"]
    for notebook in load_profile(profile):
        stamp = results_folder(profile) / "state" / f"{notebook.name}.json"
        state = json.loads(stamp.read_text())["state"] if stamp.is_file() else "not run yet"
        needs = f", needs {', '.join(name[:2] for name in notebook.needs)}" if notebook.needs else ""
        lines.append(f"{notebook.name:28} {state:12} {notebook.title}{needs}")
    return "\n".join(lines)


def check_profile(profile: str, *, only: list[str] | None = None, jobs: int = 1, allow_missing: bool = False) -> list[str]:
    """Runs a profile into a temporary folder, features included, and compares every table with the committed one.

    Args:
        profile: See `load_profile`.
        only: See `run_profile`; tables of notebooks that did not run are not compared.
        jobs: See `run_profile`.
        allow_missing: See `provided`; likewise.

    Returns:
        A sentence for each difference beyond the tolerances of `notebooks/tolerances.yaml`.

    Raises:
        InputError: If there are no committed tables, or a notebook fails.
    """
    from .comparison import compare_folders

    committed = results_folder(profile)
    if not list((committed / "tables").glob("*.csv")):
        raise InputError(f"{committed / 'tables'}: holds no tables to compare with; run the profile without --check first.")
    with tempfile.TemporaryDirectory(prefix="radiodino-check-") as temporary:
        moved = {"RADIODINO_RESULTS": f"{temporary}/results", "RADIODINO_FEATURES": f"{temporary}/features"}
        before = dict(os.environ)
        os.environ.update(moved)
        try:
            whole = run_profile(profile, only=only, jobs=jobs, allow_missing=allow_missing)
        finally:
            os.environ.clear()
            os.environ.update(before)
        if not whole:
            raise InputError(f"profile {profile}: a notebook failed, so its tables cannot be compared.")
        return compare_folders(Path(temporary) / "results" / "tables", committed / "tables", partly=bool(only) or allow_missing)


def save_outputs(profile: str) -> list[Path]:
    """Puts the executed notebooks' outputs into the committed ones, for their maintainers.

    Progress bars and the parameters that papermill injected are left out.

    Args:
        profile: Whose outputs; the parameters in the notebooks must be those of the profile.

    Returns:
        The notebooks that were written.

    Raises:
        InputError: If a notebook was not executed, or was executed from other code.
    """
    written = []
    for notebook in load_profile(profile):
        executed = results_folder(profile) / "notebooks" / notebook.path.name
        if not executed.is_file() or executed_whole(executed):
            raise InputError(f"{executed}: not executed from top to bottom; run the profile {profile} first.")
        own = json.loads(notebook.path.read_text(encoding="utf-8"))
        ran = [c for c in cells_of(executed) if "injected-parameters" not in c["metadata"].get("tags", [])]
        if [c["source"] for c in ran] != [c["source"] for c in cells_of(notebook.path)]:
            raise InputError(f"{executed}: was executed from other code than {notebook.path.name}; run the profile again.")
        count = 0
        for cell, source in zip(own["cells"], ran, strict=True):
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = [_plain(output, count) for output in source["outputs"] if _lasting(output)]
        with atomic(notebook.path) as temporary:
            temporary.write_text(json.dumps(own, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(notebook.path)
    return written


def _lasting(output: dict) -> bool:
    is_bar = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return not is_bar and output.get("name") != "stderr"


def _plain(output: dict, count: int) -> dict:
    return output | {"execution_count": count} if output["output_type"] == "execute_result" else output


def main(arguments: list[str] | None = None) -> None:
    """Runs the notebooks of a profile that are out of date and makes results/PROFILE/report.html."""
    parser = argparse.ArgumentParser(prog="./run_all.sh", description=main.__doc__)
    parser.add_argument("--profile", default="demo", help="a file of notebooks/profiles, without suffix (default: demo)")
    parser.add_argument("--only", action="append", metavar="03", help="this notebook and what it needs; may be given again")
    parser.add_argument("--force", action="store_true", help="run notebooks although they are up to date")
    parser.add_argument("--jobs", type=int, metavar="N", help="notebooks at a time, which share the processors (default: 2)")
    parser.add_argument("--allow-missing", action="store_true", help="run what the data sets and weights that are there allow")
    parser.add_argument("--list", action="store_true", help="list the profile's notebooks and stop")
    parser.add_argument("--check", action="store_true", help="run into a temporary folder and compare with the committed tables")
    parser.add_argument("--save-outputs", action="store_true", help="put the outputs of the last run into notebooks/ and stop")
    options = parser.parse_args(arguments)
    if options.jobs is None:
        from .provenance import cpu_count  # not for --help

        options.jobs = min(2, cpu_count())
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least one notebook at a time is needed")
    try:
        sys.exit(_run(options))
    except InputError as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; nothing is half-written, the next run continues here\n")


def _run(options: argparse.Namespace) -> int:
    profile = options.profile
    if options.list:
        print(list_notebooks(profile))
        return 0
    if options.save_outputs:
        print("\n".join(str(path) for path in save_outputs(profile)))
        return 0
    if options.check:
        differences = check_profile(profile, only=options.only, jobs=options.jobs, allow_missing=options.allow_missing)
        print("\n".join(differences) or f"every table of the profile {profile} is within its tolerance")
        return 1 if differences else 0
    whole = run_profile(profile, only=options.only, force=options.force, jobs=options.jobs, allow_missing=options.allow_missing)
    from .report import build_report

    print(build_report(profile))
    return 0 if whole else 1


if __name__ == "__main__":
    main()
