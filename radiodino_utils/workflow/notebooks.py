"""The notebooks of a profile, their order and titles, read by the standard library alone."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import InputError, unknown_name
from ..core.files import REPOSITORY, require_checkout, results_folder
from ..core.states import read_state

FOLDER = REPOSITORY / "notebooks"
_SUFFIX = ".yaml"
OWN = "own"  # results of single images of one's own


@dataclass(frozen=True)
class Notebook:
    """A notebook of the sequence with the parameters of a profile.

    Attributes:
        name: Name of the file without suffix.
        path: The file.
        needs: Names of the notebooks whose results it reads.
        timeout: Longest time of a cell in seconds.
        parameters: Values of the profile by name.
    """

    name: str
    path: Path
    needs: tuple[str, ...]
    timeout: int
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The two digits with which its name, its tables and its figures begin."""
        return self.name[:2]

    @property
    def title(self) -> str:
        """The first heading."""
        prose = (cell for cell in cells_of(self.path) if cell["cell_type"] == "markdown")
        return next(prose)["source"].splitlines()[0].lstrip("# ")


def cells_of(path: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook file, the source of each as one text.

    Raises:
        InputError: If the file is missing or is not a notebook.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such notebook; put it there or take it out of the profile."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a notebook that can be read ({error}); write it again."
        ) from error


def code_of(path: Path) -> list[str]:
    """Return the source of each code cell of a notebook file."""
    return [cell["source"] for cell in cells_of(path) if cell["cell_type"] == "code"]


def profile_names() -> list[str]:
    """Return the names of the profiles in `notebooks/profiles`.

    Raises:
        InputError: If the package is installed without its checkout.
    """
    require_checkout(FOLDER)
    return sorted(path.stem for path in (FOLDER / "profiles").glob(f"*{_SUFFIX}"))


def profile_name(profile: str) -> str:
    """Return the name of a profile, which is given by its name or as the path of its file."""
    return Path(profile).stem if profile.endswith(_SUFFIX) else profile


def profile_path(profile: str) -> Path:
    """Return the YAML file of a profile.

    Args:
        profile: Name of a file in `notebooks/profiles`, or the path of a file elsewhere, whose name
            decides the results folder.

    Raises:
        InputError: If the profile is unknown, or a file elsewhere has the name of one of them.
    """
    known, path = profile_names(), Path(profile).expanduser().absolute()
    if profile in known:
        return FOLDER / "profiles" / f"{profile}{_SUFFIX}"
    if not profile.endswith(_SUFFIX):
        raise unknown_name("profile", profile, [*known, f"PATH{_SUFFIX}"])
    if not path.is_file():
        raise InputError(f"{path}: there is no such profile.")
    if path.stem in [*known, OWN] and not path.parent.samefile(FOLDER / "profiles"):
        raise InputError(f"{path}: results/{path.stem} belongs to the project; rename the file.")
    return path


def outline(profile: str) -> list[Notebook]:
    """Return the notebooks of a profile without timeouts and parameters, before any installation.

    Raises:
        InputError: If the profile is unknown.
    """
    included = _blocks(profile_path(profile))
    notebooks = []
    for name, block in _blocks(FOLDER / "sequence.yaml").items():
        if name in included:
            needs = tuple(need for need in re.findall(r"\b\d\d_\w+", block) if need in included)
            notebooks.append(Notebook(name, FOLDER / f"{name}.ipynb", needs, 0))
    return notebooks


def _blocks(path: Path) -> dict[str, str]:
    """Return the text below each key at the left margin of a YAML file."""
    text = path.read_text(encoding="utf-8")
    return dict(re.findall(r"^(\w+):(.*?)(?=^\w|\Z)", text, re.DOTALL | re.MULTILINE))


def pick(notebooks: Sequence[Notebook], names: Sequence[str]) -> list[Notebook]:
    """Return the notebooks of some numbers or names.

    Raises:
        InputError: If one is not in the profile.
    """
    by_name = {key: notebook for notebook in notebooks for key in (notebook.number, notebook.name)}
    for name in names:
        if name not in by_name:
            raise unknown_name("notebook", name, [notebook.name for notebook in notebooks])
    return [by_name[name] for name in names]


def with_needed(notebooks: Sequence[Notebook], chosen: Sequence[Notebook]) -> set[str]:
    """Return the names of the chosen notebooks and of all that they need."""
    by_name = {notebook.name: notebook for notebook in notebooks}
    names: set[str] = set()
    waiting = [notebook.name for notebook in chosen]
    while waiting:
        names.add(name := waiting.pop())
        waiting += by_name[name].needs
    return names


def list_notebooks(profile: str) -> str:
    """Return one line per notebook of a profile: title, needs, and how its last run ended.

    Raises:
        InputError: If the profile is unknown.
    """
    name = profile_name(profile)
    lines = [f"profile {name} (known: {', '.join(profile_names())})"]
    for notebook in outline(profile):
        state = read_state(results_folder(name), notebook.name).get("state", "not run yet")
        numbers = ", ".join(name[:2] for name in notebook.needs)
        needs = f", needs {numbers}" if numbers else ""
        lines.append(f"{notebook.name:28} {state:12} {notebook.title}{needs}")
    return "\n".join(lines)
