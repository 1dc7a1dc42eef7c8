"""What a profile needs and this machine lacks, said before any work."""

from collections.abc import Iterable
from pathlib import Path

from ..backbones.registry import missing_weights
from ..core.downloads import Missing, is_reachable
from ..core.files import REPOSITORY
from ..data.registry import missing_dataset


def missing_inputs(parameters: Iterable[dict[str, object]]) -> list[Missing]:
    """Finds the datasets and weights that parameters name and that can be had neither here nor by
    downloading.

    Args:
        parameters: Of each notebook; every text that is the name of a dataset or backbone counts,
            alone or in a list.

    Returns:
        What is missing, each name once. A server is asked only where something would be downloaded
        from it.
    """
    names = dict.fromkeys(
        name for one in parameters for value in one.values() for name in _texts(value)
    )
    missing = [
        one
        for name in names
        if (one := missing_dataset(name) or missing_weights(name) or _missing_path(name))
    ]
    servers = {_server(one.url): one.url for one in missing if one.url}
    reached = {server for server, url in servers.items() if is_reachable(url)}
    return [one for one in missing if not one.url or _server(one.url) not in reached]


def describe_missing(missing: Iterable[Missing]) -> str:
    """One line for each missing thing, with how to provide it."""
    return "\n".join(f"  {one.name}: {one.hint}" for one in missing)


def without_missing(
    parameters: dict[str, object], missing: Iterable[Missing]
) -> dict[str, object] | None:
    """Takes missing names out of the lists in a notebook's parameters.

    Args:
        parameters: Of one notebook.
        missing: What `missing_inputs` gives.

    Returns:
        The parameters; `None` where a list would be empty or a name stands alone, so that the
        notebook cannot run.
    """
    names = {one.name for one in missing}
    kept = {}
    for key, value in parameters.items():
        if names.isdisjoint(_texts(value)):
            kept[key] = value
        elif not isinstance(value, list) or names.issuperset(value):
            return None
        else:
            kept[key] = [one for one in value if one not in names]
    return kept


def _missing_path(name: str) -> Missing | None:
    kind, _, place = name.partition(":")
    if kind not in ("npz", "folder", "masks", "file"):
        return None
    path = REPOSITORY / "notebooks" / Path(place).expanduser()  # where the notebooks run
    return None if path.exists() else Missing(name, "", f"{path} does not exist; correct the path")


def _texts(value: object) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)]


def _server(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]
