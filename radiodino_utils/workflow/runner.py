"""The runner: the notebooks of a profile in order, only those that are out of date."""

import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from tqdm import tqdm

from ..core.environment import cpu_count
from ..core.errors import InputError
from ..core.files import make_folder, results_folder
from ..core.locks import locked
from ..core.states import is_damaged
from .execution import execute
from .missing import without_missing_inputs
from .notebooks import Notebook, pick, profile_name, with_needed
from .processes import Processes, own_environment
from .profiles import load_profile
from .records import WRITTEN, Records

_USUAL = 30.0  # seconds of a notebook that has never run
# what a killed process was writing, named by `tempfile` or `atomic`
_LEFTOVER = re.compile(r"\..+\.[a-z0-9_]{8}")


def run_profile(
    profile: str,
    *,
    only: Sequence[str] = (),
    force: bool = False,
    jobs: int = 1,
    allow_missing: bool = False,
) -> bool:
    """Run the notebooks of a profile that are out of date, and print one line for each.

    A notebook is out of date if its code, its parameters, the package, the data behind the names in
    its parameters, the pinned versions, the results of the notebooks that it needs, or its own
    tables and figures changed. Each runs in a process of its own. Older tables and figures of a
    notebook are removed when it has run.

    Args:
        profile: See `load_profile`.
        only: Numbers or names of notebooks; what they need runs too if it is out of date. All by
            default.
        force: Run notebooks although they are up to date.
        jobs: Notebooks at a time, which share the processors.
        allow_missing: See `without_missing_inputs`.

    Returns:
        Whether every notebook is up to date now.

    Raises:
        InputError: See `load_profile`, `pick` and `without_missing_inputs`; or if another runner is
            at work in the results folder, or it cannot be written to.
        KeyboardInterrupt: If a signal ended the run; its argument is the number of the signal.
    """
    notebooks = load_profile(profile)
    chosen = pick(notebooks, only) if only else notebooks
    notebooks = without_missing_inputs(notebooks, chosen, allow_missing=allow_missing)
    present = {notebook.name for notebook in notebooks}
    names = with_needed(notebooks, [notebook for notebook in chosen if notebook.name in present])
    folder = make_folder(results_folder(profile_name(profile)).absolute())
    make_folder(folder / "state")
    with locked(folder / "state" / ".lock", limit=0), Processes() as processes:
        _remove_leftovers(folder)
        records = Records(folder, notebooks)
        run = _Run(records, processes, force=force, jobs=jobs)
        records.update()
        wanted = [notebook for notebook in notebooks if notebook.name in names]
        with run.progress(wanted):
            succeeded = _in_order(wanted, run.visit, jobs)
        records.update()
    if processes.signal:
        raise KeyboardInterrupt(processes.signal)
    return all(succeeded.values())


def _in_order(
    notebooks: Sequence[Notebook], visit: Callable[[Notebook, list[str]], bool], jobs: int
) -> dict[str, bool]:
    """Visit each notebook after those that it needs.

    Args:
        notebooks: Notebooks in order.
        visit: Function of a notebook and of the needed ones that failed; returns its success.
        jobs: Visits at a time.

    Returns:
        Success by name.
    """
    waiting = [*notebooks]
    running: dict[Future[bool], Notebook] = {}
    succeeded: dict[str, bool] = {}
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            ready = [notebook for notebook in waiting if succeeded.keys() >= {*notebook.needs}]
            for notebook in ready[: jobs - len(running)]:
                waiting.remove(notebook)
                failed = [name for name in notebook.needs if not succeeded[name]]
                running[pool.submit(visit, notebook, failed)] = notebook
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                succeeded[running.pop(future).name] = future.result()
    return succeeded


class _Run:
    """One run of the notebooks of a profile in its results folder."""

    def __init__(self, records: Records, processes: Processes, *, force: bool, jobs: int) -> None:
        self.records, self.processes, self.force = records, processes, force
        self.folder, self.jobs = records.folder, jobs
        threads = str(max(1, cpu_count() // jobs))
        self.variables = {"OMP_NUM_THREADS": threads} if jobs > 1 else {}

    @contextmanager
    def progress(self, notebooks: Sequence[Notebook]) -> Iterator[None]:
        """Say how long the notebooks will take by their last runs, and show a bar in a terminal."""
        known: dict[str, float] = {}
        for one in notebooks:  # what needs one that runs may have to run too
            waits = not known.keys().isdisjoint(one.needs)
            if self.force or waits or not self.records.is_current(one):
                known[one.name] = self.records.last_seconds(one)
        times = [seconds for seconds in known.values() if seconds]
        if times:
            total = sum(times) / self.jobs / 60
            new = len(known) - len(times)
            rest = f", and {new} that have not run yet" if new else ""
            _say(f"expected: {total:.1f} minutes by the last runs of {len(times)} notebooks{rest}")
        usual = sum(times) / len(times) if times else _USUAL
        self.expected = {name: seconds or usual for name, seconds in known.items()}
        shape = "{desc} {percentage:3.0f}% |{bar}| {elapsed}, about {remaining} left"
        total = sum(self.expected.values())
        with tqdm(total=total, bar_format=shape, disable=None if known else True) as self.bar:
            yield

    def visit(self, notebook: Notebook, failed: list[str]) -> bool:
        """Run a notebook if it must be run; return whether it is up to date now."""
        done = self._visit(notebook, failed)
        self.bar.update(self.expected.get(notebook.name, 0))
        return done

    def _visit(self, notebook: Notebook, failed: list[str]) -> bool:
        if self.processes.signal:
            return False
        if failed:
            _say(f"{notebook.name:28} not run: {failed[0]} failed")
            return False
        if not self.force and self.records.is_current(notebook):
            self.records.label(notebook, "done")
            _say(f"{notebook.name:28} up to date")
            return True
        if is_damaged(self.folder, notebook.name):
            _say(f"{notebook.name:28} its record is damaged, so it runs again")
        try:
            return self.execute(notebook)
        except InputError as error:
            reason = str(error)
        except OSError as error:
            reason = f"{error.filename or self.folder}: {error.strerror}; make room or mend it."
        _say(f"{notebook.name:28} FAILED\n{reason}")
        return False

    def execute(self, notebook: Notebook) -> bool:
        """Execute a notebook and record how it ended; return whether it ran to its end."""
        made_from = self.records.made_from(notebook)
        self.records.start(notebook)
        done = execute(notebook, self.folder, processes=self.processes, variables=self.variables)
        if done.interrupted:
            _say(f"{notebook.name:28} interrupted")
            return False
        word = "FAILED" if done.fault else "done"
        line = f"{notebook.name:28} {word:10} {done.seconds:6.1f} s {done.memory:7.0f} MB"
        if done.fault:
            self.records.fail(notebook, seconds=done.seconds, memory=done.memory)
            _say(f"{line}\n{done.fault}\nlog: {done.log}")
            return False
        threads = (own_environment() | self.variables).get("OMP_NUM_THREADS")
        self.records.succeed(
            notebook,
            made_from,
            seconds=done.seconds,
            memory=done.memory,
            threads=int(threads or cpu_count()),
            began=done.began,
        )
        _say(line)
        return True


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed run was writing."""
    for part in (".", "state", "logs", "notebooks", *WRITTEN):
        for path in (folder / part).glob(".*"):
            if _LEFTOVER.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _say(line: str) -> None:
    with suppress(OSError):  # a terminal that is gone must not end the run
        tqdm.write(line)
        sys.stdout.flush()
