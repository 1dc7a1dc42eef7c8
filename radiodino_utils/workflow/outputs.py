"""Outputs of executed notebooks: whether they are complete, and how they are committed."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..core.errors import InputError
from ..core.files import atomic, results_folder
from .notebooks import Notebook, cells_of, pick
from .profiles import load_profile

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def fault_of(path: Path) -> str:
    """Return why an executed notebook cannot be trusted, judged by its cells alone.

    Args:
        path: Notebook written by papermill, whose metadata may wrongly report success.

    Returns:
        A sentence, or "" for a notebook that ran from top to bottom without an error.
    """
    if not path.is_file():
        return "papermill wrote no notebook."
    for position, cell in enumerate(cells_of(path), 1):
        if cell["cell_type"] != "code" or not cell["source"].strip():
            continue
        place = f"cell {position} ({cell['source'].splitlines()[0]})"
        errors = [output for output in cell["outputs"] if output["output_type"] == "error"]
        if errors:
            return _describe_error(place, errors[0])
        if cell["execution_count"] is None:
            return (
                f"{place} did not run to its end: the kernel stopped, was killed, or took too long."
            )
    return ""


def _describe_error(place: str, error: dict[str, Any]) -> str:
    if error["ename"] == "KeyboardInterrupt":
        return f"{place} was stopped: it took longer than the time-out of notebooks/sequence.yaml."
    sentence = f"{place}: {error['ename']}: {error['evalue']}"
    if error["ename"] == InputError.__name__:
        return sentence
    return "\n".join([sentence, *(_COLOURS.sub("", line) for line in error["traceback"][-3:])])


def save_outputs(profile: str, *, only: Sequence[str] = ()) -> list[Path]:
    """Put the outputs of executed notebooks into the committed notebooks.

    Progress bars and the parameters that papermill injected are left out.

    Args:
        profile: Profile of the run; the parameters in the notebooks must be those of the profile.
        only: Numbers or names of notebooks; all by default.

    Returns:
        The notebooks that were written.

    Raises:
        InputError: If a notebook was not executed, or was executed from other code.
    """
    written = []
    notebooks = load_profile(profile)
    for notebook in pick(notebooks, only) if only else notebooks:
        cells = _executed_cells(notebook, profile)
        content = json.loads(notebook.path.read_text(encoding="utf-8"))
        count = 0
        for cell, executed in zip(content["cells"], cells, strict=True):
            if cell["cell_type"] == "code":
                count += 1
                cell["execution_count"] = count
                cell["outputs"] = [
                    _numbered(_without_map(output), count)
                    for output in executed["outputs"]
                    if _lasts(output)
                ]
        with atomic(notebook.path) as temporary:
            text = json.dumps(content, indent=1, ensure_ascii=False)
            temporary.write_text(text + "\n", encoding="utf-8")
        written.append(notebook.path)
    return written


def _executed_cells(notebook: Notebook, profile: str) -> list[dict[str, Any]]:
    """Return the executed cells of a notebook, without the injected parameters."""
    executed = results_folder(profile) / "notebooks" / notebook.path.name
    if not executed.is_file() or fault_of(executed):
        raise InputError(
            f"{executed}: not executed from top to bottom; run the profile {profile} first."
        )
    cells = [
        cell
        for cell in cells_of(executed)
        if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]
    sources = [cell["source"] for cell in cells_of(notebook.path)]
    if [cell["source"] for cell in cells] != sources:
        raise InputError(
            f"{executed}: was executed from other code than {notebook.path.name}; "
            "run the profile again."
        )
    return cells


def _lasts(output: dict[str, Any]) -> bool:
    is_progress_bar = "application/vnd.jupyter.widget-view+json" in output.get("data", {})
    return not is_progress_bar and output.get("name") != "stderr"


def _without_map(output: dict[str, Any]) -> dict[str, Any]:
    """Return an output without an interactive map of megabytes; its text names the file."""
    data = output.get("data", {})
    if "<iframe srcdoc" in "".join(data.get("text/html", "")):
        return output | {"data": {"text/plain": data["text/plain"]}}
    return output


def _numbered(output: dict[str, Any], count: int) -> dict[str, Any]:
    if output["output_type"] == "execute_result":
        return output | {"execution_count": count}
    return output
