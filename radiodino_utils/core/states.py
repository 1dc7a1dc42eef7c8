"""Records of the notebooks that ran into a results folder: how each ended and what it wrote."""

import json
from pathlib import Path
from typing import Any

from .files import write_json


def read_state(folder: Path, name: str) -> dict[str, Any]:
    """Read the record of a notebook.

    Args:
        folder: Results folder.
        name: Name of the notebook.

    Returns:
        `state` ("done", "FAILED", "not finished" or "out of date"), `seconds`, `peak_memory_mb`,
        `git` and, if the notebook ran to its end, its inputs and its `outputs` (SHA-256 by path in
        the results folder). Empty if there is no record or a damaged one, as an interrupted copy
        leaves behind.
    """
    try:
        state = json.loads(_path(folder, name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, name: str, state: dict[str, Any]) -> None:
    """Write the record of a notebook, whole or not at all."""
    write_json(_path(folder, name), state)


def drop_state(folder: Path, name: str) -> None:
    """Remove the record of a notebook."""
    _path(folder, name).unlink(missing_ok=True)


def recorded(folder: Path) -> list[str]:
    """Return the sorted names of the notebooks that have a record."""
    return sorted(path.stem for path in (folder / "state").glob("*.json"))


def is_damaged(folder: Path, name: str) -> bool:
    """Return whether the record of a notebook exists but cannot be read."""
    return _path(folder, name).exists() and not read_state(folder, name)


def current_files(folder: Path) -> set[str] | None:
    """Return the paths of all files that the last runs wrote into a results folder.

    Returns:
        Outputs of the notebooks that are done and up to date, relative to the folder; `None` if no
        notebook has a record, as in a clone with committed results, or if notebooks are executed
        by hand.
    """
    names = recorded(folder)
    states = [state for name in names if (state := read_state(folder, name)).get("state") == "done"]
    return {path for state in states for path in state.get("outputs", {})} if names else None


def _path(folder: Path, name: str) -> Path:
    return folder / "state" / f"{name}.json"
