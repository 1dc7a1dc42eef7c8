"""The runner behind run_all.sh: a profile's notebooks in order, only those that are out of date, and the report."""

import argparse
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from ..core.errors import InputError
from ..core.files import REPOSITORY, atomic, file_hash, make_folder, results_folder, value_hash
from ..core.locks import locked
from ..core.states import drop_state, is_damaged, read_state, recorded, write_state
from . import profiles
from .processes import KERNEL, Processes, notebook_environment, own_environment
from .profiles import Notebook, cells_of, load_profile, outline, pick, profile_names, provided

_LEFTOVER = re.compile(
    r"\..+\.[a-z0-9_]{8}"
)  # what a killed process was writing, named by tempfile
_WRITTEN = ("tables", "figures", "predictions")
_GO_ON = 3  # exit code: this needs an installed environment


def run_profile(
    profile: str,
    *,
    only: list[str] | None = None,
    force: bool = False,
    jobs: int = 1,
    allow_missing: bool = False,
) -> bool:
    """Runs the notebooks of a profile that are out of date, one process each, and prints one line
    for each.

    What decides is the content of a notebook's code, its parameters, the package, the data behind
    the names in its parameters, the pinned versions, the results of the notebooks that it needs,
    and its own tables and figures. Of these, older ones are removed when it is done.

    Args:
        profile: See `load_profile`.
        only: Numbers or names of notebooks; what they need runs too if it is out of date. All by
            default.
        force: Run them although they are up to date.
        jobs: Notebooks at a time; they share the processors.
        allow_missing: See `provided`.

    Returns:
        Whether every notebook is up to date now.

    Raises:
        InputError: See `load_profile`, `pick` and `provided`; or if another runner is at work in
            the results folder, or it cannot be written to.
    """
    notebooks = load_profile(profile)
    chosen = pick(notebooks, only) if only else notebooks
    notebooks = provided(notebooks, chosen, allow_missing=allow_missing)
    by_name, wanted = {notebook.name: notebook for notebook in notebooks}, set()
    waiting = [notebook.name for notebook in chosen if notebook.name in by_name]
    while waiting:
        wanted.add(name := waiting.pop())
        waiting += by_name[name].needs
    folder = make_folder(results_folder(profile).absolute())
    make_folder(folder / "state")
    with locked(folder / "state" / ".lock", limit=0), Processes() as processes:
        _sweep(folder)
        run = _Run(folder, notebooks, force=force, jobs=jobs, processes=processes)
        run.mark()
        ended = _in_order([one for one in notebooks if one.name in wanted], run.visit, jobs)
        run.mark()
    if processes.signal:
        raise KeyboardInterrupt(processes.signal)
    return all(ended.values())


def _in_order(notebooks: list[Notebook], visit: object, jobs: int) -> dict[str, bool]:
    """Visits each notebook behind those that it needs, some at a time; gives what each visit returned, by name."""
    waiting, running, ended = [*notebooks], {}, {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            for one in [one for one in waiting if ended.keys() >= set(one.needs)][
                : jobs - len(running)
            ]:
                waiting.remove(one)
                running[
                    pool.submit(visit, one, [name for name in one.needs if not ended[name]])
                ] = one
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                ended[running.pop(future).name] = future.result()
    return ended


class _Run:
    """One run of a profile's notebooks in its results folder."""

    def __init__(
        self,
        folder: Path,
        notebooks: list[Notebook],
        *,
        force: bool,
        jobs: int,
        processes: Processes,
    ) -> None:
        from .inputs import fingerprints

        self.folder, self.notebooks, self.force, self.processes = (
            folder,
            notebooks,
            force,
            processes,
        )
        self.threads = _shared_threads(jobs)
        common = {
            "package": _package_hash(),
            "versions": (REPOSITORY / "requirements.txt").read_text(),
        }
        self.declared = {
            one.name: value_hash(common | {"code": _code(one.path), "parameters": one.parameters})
            for one in notebooks
        }
        # read once: what changes while notebooks run is noticed by the next run
        everything = fingerprints(
            {one.name: one.parameters for one in notebooks}, folder=profiles.NOTEBOOKS
        )
        self.inputs = {
            one.name: {text: everything[text] for text in _texts(one) if text in everything}
            for one in notebooks
        }

    def visit(self, notebook: Notebook, failed: list[str]) -> bool:
        """Runs a notebook if it must be; gives whether it is up to date now."""
        if self.processes.signal:
            return False
        if failed:
            _say(f"{notebook.name:28} not run: {failed[0]} failed")
            return False
        if not self.force and self.is_current(notebook):
            self.label(notebook, "done")
            _say(f"{notebook.name:28} up to date")
            return True
        if is_damaged(self.folder, notebook.name):
            _say(f"{notebook.name:28} its record is damaged, so it runs again")
        try:
            return self.execute(notebook)
        except (OSError, InputError) as error:
            place = getattr(error, "filename", None) or self.folder
            reason = (
                f"{place}: {error.strerror}; make room or mend it."
                if isinstance(error, OSError)
                else str(error)
            )
            _say(f"{notebook.name:28} FAILED\n{reason}")
            return False

    def is_current(self, notebook: Notebook) -> bool:
        """Whether a notebook's results are those that it would give now, if those that it needs are."""
        state = read_state(self.folder, notebook.name)
        return (
            (self.folder / "notebooks" / notebook.path.name).is_file()
            and state.get("made_from") == self.made_from(notebook)
            and state.get("outputs") == self.outputs(notebook)
        )

    def made_from(self, notebook: Notebook) -> dict[str, object]:
        """All that decides a notebook's results."""
        needs = {
            name: value_hash(read_state(self.folder, name).get("outputs"))
            for name in notebook.needs
        }
        return {
            "declared": self.declared[notebook.name],
            "inputs": self.inputs[notebook.name],
            "needs": needs,
        }

    def outputs(self, notebook: Notebook) -> dict[str, str]:
        """The hash of each file that bears the notebook's number, by path."""
        return {
            path.relative_to(self.folder).as_posix(): file_hash(path)
            for path in self.numbered(notebook)
        }

    def numbered(self, notebook: Notebook) -> list[Path]:
        """The tables, figures and predictions that bear the notebook's number."""
        return sorted(
            path
            for part in _WRITTEN
            for path in (self.folder / part).glob(f"{notebook.number}_*")
            if path.is_file()
        )

    def label(self, notebook: Notebook, word: str) -> None:
        """Corrects how a notebook's record calls its state."""
        state = read_state(self.folder, notebook.name)
        if state.get("state") != word:
            write_state(self.folder, notebook.name, state | {"state": word})

    def mark(self) -> None:
        """Calls out of date what is, and forgets notebooks that the profile no longer has."""
        current, names = {}, {one.name for one in self.notebooks}
        for name in recorded(self.folder):
            if name not in names:
                drop_state(self.folder, name)
        for one in self.notebooks:
            current[one.name] = all(current[name] for name in one.needs) and self.is_current(one)
            if "outputs" in read_state(self.folder, one.name):
                self.label(one, "done" if current[one.name] else "out of date")

    def execute(self, notebook: Notebook) -> bool:
        """Executes a notebook by papermill; gives whether it ran whole."""
        import yaml

        from ..core.environment import cpu_count, record_processor

        name, folder = notebook.name, self.folder
        log = make_folder(folder / "logs") / f"{name}.log"
        executed = make_folder(folder / "notebooks") / f"{name}.ipynb"
        failed = executed.with_suffix(".failed.ipynb")
        start, made_from = time.monotonic(), self.made_from(notebook)
        write_state(folder, name, {"state": "not finished"})
        with tempfile.TemporaryDirectory(
            dir=folder / "state", prefix=f".{name}.", ignore_cleanup_errors=True
        ) as temporary:
            output, parameters = (
                Path(temporary) / executed.name,
                Path(temporary) / "parameters.yaml",
            )
            parameters.write_text(
                yaml.safe_dump(notebook.parameters, allow_unicode=True), encoding="utf-8"
            )
            began = parameters.stat().st_mtime_ns  # by the clock that stamps the tables
            arguments = [
                _as_template(notebook.path),
                _as_template(output),
                "-f",
                parameters,
                "--cwd",
                profiles.NOTEBOOKS,
            ]
            arguments += ["-k", KERNEL, "-l", "python", "--execution-timeout", notebook.timeout]
            environment = notebook_environment(Path(temporary) / "jupyter") | self.threads
            code, peak = self.processes.run(
                "papermill",
                [*arguments, "--no-progress-bar", "--log-output"],
                log=log,
                environment=environment,
            )
            if code and (
                shutil.disk_usage(folder).free < 1e6 or "No space left on device" in _text(log)
            ):
                fault = f"{folder}: no disk space is left; free some, or choose another folder with RADIODINO_RESULTS."
            else:
                fault = (
                    executed_whole(output)
                    if output.is_file()
                    else f"papermill wrote no notebook: {_last_line(log)}"
                )
            if code and not fault:
                fault = f"papermill ended with exit code {code}: the kernel died; it was killed, or the memory was used up."
            if self.processes.signal:
                _say(f"{name:28} interrupted")
                return False
            if output.is_file():
                os.replace(output, failed if fault else executed)
        state = {
            "state": "FAILED" if fault else "done",
            "seconds": time.monotonic() - start,
            "peak_memory_mb": peak,
        }
        state["git"] = _revision()
        line = f"{name:28} {state['state']:10} {state['seconds']:6.1f} s {peak:7.0f} MB"
        if not fault:
            failed.unlink(missing_ok=True)
            for path in self.numbered(notebook):
                if path.stat().st_mtime_ns < began:  # of earlier parameters
                    path.unlink()
            self.came(notebook, made_from["inputs"])
            state |= {"made_from": made_from, "outputs": self.outputs(notebook)}
            record_processor(
                folder, name, threads=int(environment.get("OMP_NUM_THREADS") or cpu_count())
            )
        write_state(folder, name, state)
        _say(f"{line}\n{fault}\nlog: {log}" if fault else line)
        return not fault

    def came(self, notebook: Notebook, inputs: dict[str, str]) -> None:
        """Notes the data that were not here before and that a notebook has fetched."""
        from .inputs import fingerprints

        absent = [text for text, mark in inputs.items() if not mark]
        for text, mark in fingerprints({"absent": absent}, folder=profiles.NOTEBOOKS).items():
            for known in self.inputs.values():
                if known.get(text) == "":
                    known[text] = mark


def _sweep(folder: Path) -> None:
    """Removes what a killed run was writing."""
    for part in (".", "state", "logs", "notebooks", *_WRITTEN):
        for path in (folder / part).glob(".*"):
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _as_template(path: Path) -> str:
    return (
        str(path).replace("{", "{{").replace("}", "}}")
    )  # papermill formats paths with the parameters


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")


def _last_line(log: Path) -> str:
    lines = _text(log).splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it was killed.")


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that is gone must not end the run
        print(f"{line}\n", end="", flush=True)


def _texts(notebook: Notebook) -> set[str]:
    from .inputs import texts

    return set(texts(notebook.parameters))


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
                trace = "\n".join(
                    re.sub(r"\x1b\[[0-9;]*m", "", line) for line in output["traceback"][-3:]
                )
                sentence = f"cell {position} ({first}): {output['ename']}: {output['evalue']}"
                return (
                    sentence if output["ename"] == InputError.__name__ else f"{sentence}\n{trace}"
                )
        if cell["execution_count"] is None:
            return f"cell {position} ({first}) did not run to its end: the kernel stopped, was killed, or took too long."
    return ""


def _code(notebook: Path) -> list[str]:
    return [cell["source"] for cell in cells_of(notebook) if cell["cell_type"] == "code"]


def _package_hash() -> dict[str, str]:
    root = REPOSITORY / "radiodino_utils"
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(root).as_posix(): file_hash(path) for path in sorted(files)}


def _shared_threads(jobs: int) -> dict[str, str]:
    from ..core.environment import cpu_count

    return {"OMP_NUM_THREADS": str(max(1, cpu_count() // jobs))} if jobs > 1 else {}


def _revision() -> str:
    from ..core.environment import git_revision

    return git_revision()


def list_notebooks(profile: str) -> str:
    """The notebooks of a profile, a line each with title, what it needs and how its last run ended."""
    lines = [f"profile {profile} (known: {', '.join(profile_names())})"]
    for notebook in load_profile(profile) if find_spec("yaml") else outline(profile):
        state = read_state(results_folder(profile), notebook.name).get("state", "not run yet")
        needs = (
            f", needs {', '.join(name[:2] for name in notebook.needs)}" if notebook.needs else ""
        )
        lines.append(f"{notebook.name:28} {state:12} {notebook.title}{needs}")
    return "\n".join(lines)


def check_profile(
    profile: str, *, only: list[str] | None = None, jobs: int = 1, allow_missing: bool = False
) -> list[str]:
    """Runs a profile into a temporary folder, features included, and compares every table with the
    committed one.

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
    from .compare import compare_folders

    committed = results_folder(profile)
    if not list((committed / "tables").glob("*.csv")):
        raise InputError(
            f"{committed / 'tables'}: holds no tables to compare with; run the profile without --check first."
        )
    with tempfile.TemporaryDirectory(prefix="radiodino-check-") as temporary:
        moved = {
            "RADIODINO_RESULTS": f"{temporary}/results",
            "RADIODINO_FEATURES": f"{temporary}/features",
        }
        before = dict(os.environ)
        os.environ.update(moved)
        try:
            whole = run_profile(profile, only=only, jobs=jobs, allow_missing=allow_missing)
        finally:
            os.environ.clear()
            os.environ.update(before)
        if not whole:
            raise InputError(
                f"profile {profile}: a notebook failed, so its tables cannot be compared."
            )
        return compare_folders(
            Path(temporary) / "results" / "tables",
            committed / "tables",
            partly=bool(only) or allow_missing,
        )


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
            raise InputError(
                f"{executed}: not executed from top to bottom; run the profile {profile} first."
            )
        own = json.loads(notebook.path.read_text(encoding="utf-8"))
        ran = [
            c
            for c in cells_of(executed)
            if "injected-parameters" not in c["metadata"].get("tags", [])
        ]
        if [c["source"] for c in ran] != [c["source"] for c in cells_of(notebook.path)]:
            raise InputError(
                f"{executed}: was executed from other code than {notebook.path.name}; run the profile again."
            )
        count = 0
        for cell, source in zip(own["cells"], ran, strict=True):
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = [
                    _plain(output, count) for output in source["outputs"] if _lasting(output)
                ]
        with atomic(notebook.path) as temporary:
            temporary.write_text(
                json.dumps(own, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
            )
        written.append(notebook.path)
    return written


def _lasting(output: dict) -> bool:
    is_bar = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return not is_bar and output.get("name") != "stderr"


def _plain(output: dict, count: int) -> dict:
    return (
        output | {"execution_count": count} if output["output_type"] == "execute_result" else output
    )


def main(arguments: list[str] | None = None) -> None:
    """Runs the notebooks of a profile that are out of date and makes results/PROFILE/report.html."""
    parser = argparse.ArgumentParser(prog="./run_all.sh", description=main.__doc__)
    parser.add_argument(
        "--profile",
        default="demo",
        help="a file of notebooks/profiles, without suffix (default: demo)",
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="03",
        help="this notebook and what it needs; may be given again",
    )
    parser.add_argument(
        "--force", action="store_true", help="run notebooks although they are up to date"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="notebooks at a time, which share the processors (default: 2)",
    )
    parser.add_argument(
        "--allow-missing",
        action="store_true",
        help="run what the datasets and weights that are there allow",
    )
    parser.add_argument("--list", action="store_true", help="list the profile's notebooks and stop")
    parser.add_argument(
        "--check",
        action="store_true",
        help="run into a temporary folder and compare with the committed tables",
    )
    parser.add_argument(
        "--save-outputs",
        action="store_true",
        help="put the outputs of the last run into notebooks/ and stop",
    )
    parser.add_argument(
        "--before-install", action="store_true", help=argparse.SUPPRESS
    )  # answer what needs no installation
    options = parser.parse_args(arguments)
    if options.jobs is None:
        from ..core.environment import cpu_count  # not for --help

        options.jobs = min(2, cpu_count())
    if options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: at least one notebook at a time is needed")
    try:
        sys.exit(_before_install(options) if options.before_install else _run(options))
    except InputError as error:
        parser.exit(2, f"{error}\n")
    except OSError as error:
        parser.exit(
            2,
            f"{error.filename or results_folder(options.profile)}: {error.strerror}; make room or mend it.\n",
        )
    except KeyboardInterrupt as stopped:
        number = (stopped.args or (signal.SIGINT,))[0]
        parser.exit(
            128 + number, "interrupted; nothing is half-written, the next run continues here\n"
        )


def _before_install(options: argparse.Namespace) -> int:
    if options.list:
        print(list_notebooks(options.profile))
        return 0
    pick(outline(options.profile), options.only or [])
    return _GO_ON


def _run(options: argparse.Namespace) -> int:
    profile = options.profile
    if options.list:
        print(list_notebooks(profile))
        return 0
    if options.save_outputs:
        print("\n".join(str(path) for path in save_outputs(profile)))
        return 0
    if options.check:
        differences = check_profile(
            profile, only=options.only, jobs=options.jobs, allow_missing=options.allow_missing
        )
        print(
            "\n".join(differences)
            or f"every table of the profile {profile} is within its tolerance"
        )
        return 1 if differences else 0
    whole = run_profile(
        profile,
        only=options.only,
        force=options.force,
        jobs=options.jobs,
        allow_missing=options.allow_missing,
    )
    from .report import build_report

    print(build_report(profile))
    return 0 if whole else 1


if __name__ == "__main__":
    kept = own_environment()
    os.environ.clear()
    os.environ.update(kept)
    main()
