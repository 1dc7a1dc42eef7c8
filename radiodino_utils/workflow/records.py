"""Records of a run: what each notebook was made from, and whether its results are current."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.environment import git_revision, record_processor
from ..core.files import REPOSITORY, file_hash, value_hash
from ..core.states import drop_state, read_state, recorded, write_state
from . import notebooks as sequence
from .inputs import fingerprints, texts
from .notebooks import Notebook, code_of

WRITTEN = ("tables", "figures", "predictions", "features")  # folders that notebooks write to


class Records:
    """What decides the results of the notebooks of a profile, and what they wrote.

    Everything is read once: what changes while notebooks run is noticed by the next run.

    Args:
        folder: Results folder of the profile.
        notebooks: All notebooks of the profile, in order.
    """

    def __init__(self, folder: Path, notebooks: Sequence[Notebook]) -> None:
        self.folder, self.notebooks = folder, notebooks
        common = {
            "package": _package_hashes(),
            "versions": (REPOSITORY / "requirements.txt").read_text(encoding="utf-8"),
        }
        self._declared = {
            notebook.name: value_hash(
                common | {"code": code_of(notebook.path), "parameters": notebook.parameters}
            )
            for notebook in notebooks
        }
        parameters = {notebook.name: notebook.parameters for notebook in notebooks}
        hashes = fingerprints(parameters, folder=sequence.FOLDER)
        self._inputs = {
            name: {text: hashes[text] for text in set(texts(values)) if text in hashes}
            for name, values in parameters.items()
        }

    def is_current(self, notebook: Notebook) -> bool:
        """Return whether the results of a notebook are those that it would compute now."""
        state = read_state(self.folder, notebook.name)
        return (
            (self.folder / "notebooks" / notebook.path.name).is_file()
            and state.get("made_from") == self.made_from(notebook)
            and state.get("outputs") == self.outputs(notebook)
        )

    def made_from(self, notebook: Notebook) -> dict[str, Any]:
        """Return all that decides the results of a notebook, as JSON values."""
        needs = {
            name: value_hash(read_state(self.folder, name).get("outputs"))
            for name in notebook.needs
        }
        return {
            "declared": self._declared[notebook.name],
            "inputs": dict(self._inputs[notebook.name]),
            "needs": needs,
        }

    def outputs(self, notebook: Notebook) -> dict[str, str]:
        """Return the hash of each file that a notebook wrote, by path in the results folder."""
        return {
            path.relative_to(self.folder).as_posix(): file_hash(path)
            for path in self.written(notebook)
        }

    def written(self, notebook: Notebook) -> list[Path]:
        """Return the files that begin with the notebook's number."""
        return sorted(
            path
            for part in WRITTEN
            for path in (self.folder / part).glob(f"{notebook.number}_*")
            if path.is_file()
        )

    def label(self, notebook: Notebook, word: str) -> None:
        """Correct the state in the record of a notebook."""
        state = read_state(self.folder, notebook.name)
        if state.get("state") != word:
            write_state(self.folder, notebook.name, state | {"state": word})

    def update(self) -> None:
        """Label what is out of date, and remove the records of notebooks that left the profile."""
        names = {notebook.name for notebook in self.notebooks}
        for name in recorded(self.folder):
            if name not in names:
                drop_state(self.folder, name)
        current: dict[str, bool] = {}
        for notebook in self.notebooks:
            needs = all(current[name] for name in notebook.needs)
            current[notebook.name] = needs and self.is_current(notebook)
            if "outputs" in read_state(self.folder, notebook.name):
                self.label(notebook, "done" if current[notebook.name] else "out of date")

    def last_seconds(self, notebook: Notebook) -> float:
        """Return how long the last complete run of a notebook took; 0 if there is none."""
        return float(read_state(self.folder, notebook.name).get("last_seconds", 0))

    def start(self, notebook: Notebook) -> None:
        """Record that a notebook is under way."""
        facts = {"state": "not finished", "last_seconds": self.last_seconds(notebook)}
        write_state(self.folder, notebook.name, facts)

    def fail(self, notebook: Notebook, *, seconds: float, memory: float) -> None:
        """Record a notebook that failed after some seconds, with its peak memory in MB."""
        facts = _state("FAILED", seconds, memory) | {"last_seconds": self.last_seconds(notebook)}
        write_state(self.folder, notebook.name, facts)

    def succeed(
        self,
        notebook: Notebook,
        made_from: dict[str, Any],
        *,
        seconds: float,
        memory: float,
        threads: int,
        began: int,
    ) -> None:
        """Record a notebook that ran to its end, and remove what earlier parameters wrote.

        Args:
            notebook: The notebook.
            made_from: What it was made from, see `made_from`.
            seconds: Duration.
            memory: Peak memory in MB.
            threads: Number of threads, for the record of the processor.
            began: Time stamp of its beginning in nanoseconds; older files are removed.
        """
        for path in self.written(notebook):
            if path.stat().st_mtime_ns < began:
                path.unlink()
        self._add_fetched(made_from["inputs"])
        details = {
            "made_from": made_from,
            "outputs": self.outputs(notebook),
            "last_seconds": seconds,
        }
        record_processor(self.folder, notebook.name, threads=threads)
        write_state(self.folder, notebook.name, _state("done", seconds, memory) | details)

    def _add_fetched(self, inputs: dict[str, str]) -> None:
        """Add the fingerprints of data that were missing before and that a notebook has fetched."""
        absent = [text for text, digest in inputs.items() if not digest]
        for text, digest in fingerprints({"absent": absent}, folder=sequence.FOLDER).items():
            for known in [inputs, *self._inputs.values()]:
                if known.get(text) == "":
                    known[text] = digest


def _state(word: str, seconds: float, memory: float) -> dict[str, Any]:
    return {"state": word, "seconds": seconds, "peak_memory_mb": memory, "git": git_revision()}


def _package_hashes() -> dict[str, str]:
    root = REPOSITORY / "radiodino_utils"
    files = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    return {path.relative_to(root).as_posix(): file_hash(path) for path in sorted(files)}
