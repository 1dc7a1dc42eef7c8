"""What a profile needs and this machine lacks, reported before any work."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backbones.presence import missing_weights
from ..core.downloads import Missing, is_reachable
from ..core.errors import InputError
from ..data.registry import missing_dataset
from . import notebooks as sequence
from .inputs import open_paths
from .notebooks import Notebook, with_needed


def without_missing_inputs(
    notebooks: Sequence[Notebook], chosen: Sequence[Notebook], *, allow_missing: bool
) -> list[Notebook]:
    """Check that all datasets and weights of notebooks are here or can be downloaded.

    Args:
        notebooks: All notebooks of the profile.
        chosen: Notebooks that shall run; what they need is checked too.
        allow_missing: Whether missing names are removed from the parameters, and notebooks that
            cannot run without them left out.

    Returns:
        The notebooks that can run, with the parameters that can be met.

    Raises:
        InputError: If something is missing, with how to provide each; or if nothing is left to run.
    """
    needed = with_needed(notebooks, chosen)
    missing = missing_inputs(
        notebook.parameters for notebook in notebooks if notebook.name in needed
    )
    if not missing:
        return [*notebooks]
    lacking = f"this machine lacks {len(missing)} datasets or weights:\n{describe_missing(missing)}"
    if not allow_missing:
        raise InputError(f"{lacking}\nProvide them, or run what is there with --allow-missing.")
    print(lacking, flush=True)
    kept: dict[str, Notebook] = {}
    for notebook in notebooks:
        parameters = without_missing(notebook.parameters, missing)
        if parameters is None:
            print(f"{notebook.name:28} left out: what it reads is missing", flush=True)
        else:
            kept[notebook.name] = replace(notebook, parameters=parameters)
    if not any(notebook.name in kept for notebook in chosen):
        raise InputError("nothing is left to run: every notebook reads something that is missing.")
    return [
        replace(notebook, needs=tuple(name for name in notebook.needs if name in kept))
        for notebook in kept.values()
    ]


def missing_inputs(parameters: Iterable[Mapping[str, Any]]) -> list[Missing]:
    """Find the datasets and weights that are neither here nor can be downloaded.

    Args:
        parameters: Parameters of each notebook; every text that is the name of a dataset or
            backbone counts, alone or in a list.

    Returns:
        What is missing, each name once. A server is asked only where something would be downloaded
        from it.
    """
    values = [value for notebook in parameters for value in notebook.values()]
    names = dict.fromkeys(name for value in values for name in _texts(value))
    missing = []
    for name in names:
        problem = missing_dataset(name) or missing_weights(name) or _missing_path(name)
        if problem:
            missing.append(problem)
    servers = {_server(problem.url): problem.url for problem in missing if problem.url}
    reached = {server for server, url in servers.items() if is_reachable(url)}
    return [problem for problem in missing if _server(problem.url) not in reached]


def describe_missing(missing: Iterable[Missing]) -> str:
    """Return one line per missing dataset or backbone, with how to provide it."""
    return "\n".join(f"  {problem.name}: {problem.hint}" for problem in missing)


def without_missing(
    parameters: Mapping[str, Any], missing: Iterable[Missing]
) -> dict[str, Any] | None:
    """Remove missing names from the lists in the parameters of a notebook.

    Args:
        parameters: Parameters of one notebook.
        missing: Result of `missing_inputs`.

    Returns:
        The parameters; `None` if a list would be empty or a name stands alone, so that the notebook
        cannot run.
    """
    names = {problem.name for problem in missing}
    kept: dict[str, Any] = {}
    for key, value in parameters.items():
        if names.isdisjoint(_texts(value)):
            kept[key] = value
        elif not isinstance(value, list) or names.issuperset(value):
            return None
        else:
            kept[key] = [name for name in value if name not in names]
    return kept


def _missing_path(name: str) -> Missing | None:
    for place in open_paths(name):
        path = sequence.FOLDER / Path(place).expanduser()  # where the notebooks run
        if not path.exists():
            return Missing(name, "", f"{path} does not exist; correct the path")
    return None


def _texts(value: object) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [text for text in values if isinstance(text, str)]


def _server(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
