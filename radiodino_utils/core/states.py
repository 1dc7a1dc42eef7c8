"""What the runner recorded of each notebook of a results folder: how it ended and which files it wrote."""

import json
from pathlib import Path

from .files import write_json


def read_state(folder: Path, name: str) -> dict[str, object]:
    """Read the record of a notebook.

    Args:
        folder: The results folder.
        name: The notebook's name.

    Returns:
        `state` ("done", "FAILED", "not finished" or "out of date"), `seconds`, `peak_memory_mb`,
        `git` and, of a notebook that ran whole, what it was made from and its `outputs` (SHA-256 by
        path in the results folder). Empty where there is no record, or a damaged one, as an
        interrupted copy leaves behind.
    """
    try:
        state = json.loads(_path(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, name: str, state: dict[str, object]) -> None:
    """Write the record of a notebook, whole or not at all."""
    write_json(_path(folder, name), state)


def drop_state(folder: Path, name: str) -> None:
    """Remove the record of a notebook."""
    _path(folder, name).unlink(missing_ok=True)


def recorded(folder: Path) -> list[str]:
    """Names of the notebooks that have a record, in order."""
    return sorted(path.stem for path in (folder / "state").glob("*.json"))


def is_damaged(folder: Path, name: str) -> bool:
    """Whether there is a record of a notebook that cannot be read."""
    return _path(folder, name).exists() and not read_state(folder, name)


def current_files(folder: Path) -> set[str] | None:
    """Paths in a results folder of all that its last runs wrote.

    Returns:
        The outputs of the notebooks that are done and up to date; `None` where no notebook has a
        record, as in a clone with committed results or where notebooks are executed by hand.
    """
    names = recorded(folder)
    states = [state for name in names if (state := read_state(folder, name)).get("state") == "done"]
    return {path for state in states for path in state.get("outputs", {})} if names else None


def _path(folder: Path, name: str) -> Path:
    return folder / "state" / f"{name}.json"
