"""Profiles: which notebooks run with which parameters, and what they need."""

import ast
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from .errors import InputError, unknown
from .files import REPOSITORY

NOTEBOOKS = REPOSITORY / "notebooks"


@dataclass(frozen=True)
class Notebook:
    """A notebook of the sequence with the parameters that a profile gives it.

    Attributes:
        name: The file's name without suffix.
        path: The file.
        needs: Names of the notebooks whose results it reads.
        timeout: Seconds a cell may take.
        parameters: Values of the profile by name.
    """

    name: str
    path: Path
    needs: tuple[str, ...]
    timeout: int
    parameters: dict[str, object] = field(default_factory=dict)

    @property
    def number(self) -> str:
        """The two digits that its name, its tables and its figures begin with."""
        return self.name[:2]

    @property
    def title(self) -> str:
        """The first heading."""
        return next(c for c in cells_of(self.path) if c["cell_type"] == "markdown")["source"].splitlines()[0].lstrip("# ")


def profile_names() -> list[str]:
    """The profiles that `notebooks/profiles` holds."""
    return sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))


def load_profile(profile: str) -> list[Notebook]:
    """Reads the sequence of notebooks with a profile's parameters.

    Args:
        profile: The name of a YAML file in `notebooks/profiles`: parameters of `all` notebooks and of each by its name.
            A notebook that it does not name is left out.

    Returns:
        The notebooks, each behind those that it needs.

    Raises:
        InputError: If the profile is unknown, or names a notebook or a parameter that does not exist.
    """
    import yaml

    if profile not in (known := profile_names()):
        raise unknown("profile", profile, known)
    path = NOTEBOOKS / "profiles" / f"{profile}.yaml"
    sequence = yaml.safe_load((NOTEBOOKS / "sequence.yaml").read_text())
    values = yaml.safe_load(path.read_text())
    common = values.pop("all", {})
    for name in values:
        if name not in sequence:
            raise InputError(f"{path.name}: {unknown('notebook', name, sequence)}")
    notebooks = []
    for name, entry in sequence.items():
        if name not in values:
            continue
        file = NOTEBOOKS / f"{name}.ipynb"
        parameters = common | (values[name] or {})
        known = parameter_names(file)
        for parameter in parameters:
            if parameter not in known:
                raise InputError(f"{path.name}, {name}: {unknown('parameter', parameter, known)}")
        needs = tuple(one for one in entry["needs"] if one in values)
        notebooks.append(Notebook(name, file, needs, entry["timeout"], parameters))
    return notebooks


def parameter_names(notebook: Path) -> list[str]:
    """The names that are assigned in a notebook's cell tagged `parameters`."""
    source = next((c["source"] for c in cells_of(notebook) if "parameters" in c["metadata"].get("tags", [])), "")
    return [target.id for line in ast.parse(source).body if isinstance(line, ast.Assign) for target in line.targets]


def pick(notebooks: list[Notebook], names: list[str]) -> list[Notebook]:
    """Picks notebooks by number or name.

    Raises:
        InputError: If one is not in the profile.
    """
    by_name = {key: notebook for notebook in notebooks for key in (notebook.number, notebook.name)}
    for name in names:
        if name not in by_name:
            raise unknown("notebook", name, [notebook.name for notebook in notebooks])
    return [by_name[name] for name in names]


def provided(notebooks: list[Notebook], chosen: list[Notebook], *, allow_missing: bool) -> list[Notebook]:
    """Checks, before any work, that every data set and all weights that notebooks need are here or can be downloaded.

    Args:
        notebooks: Of the profile.
        chosen: Those that shall run; what they need is checked too.
        allow_missing: Whether missing names are taken out of the parameters, and notebooks that cannot run without them left out.

    Returns:
        The notebooks that can run, with the parameters that can be met.

    Raises:
        InputError: If something is missing, with how to provide each; or if nothing is left to run.
    """
    from .provision import describe_missing, missing_inputs, without_missing

    by_name, needed = {notebook.name: notebook for notebook in notebooks}, {}
    waiting = [notebook.name for notebook in chosen]
    while waiting:
        name = waiting.pop()
        needed[name] = by_name[name]
        waiting += by_name[name].needs
    missing = missing_inputs(notebook.parameters for notebook in notebooks if notebook.name in needed)
    if not missing:
        return notebooks
    lacking = f"this machine lacks {len(missing)} data sets or weights:\n{describe_missing(missing)}"
    if not allow_missing:
        raise InputError(f"{lacking}\nProvide them, or run what is there with --allow-missing.")
    print(lacking, flush=True)
    kept = {}
    for notebook in notebooks:
        if (parameters := without_missing(notebook.parameters, missing)) is None:
            print(f"{notebook.name:28} left out: what it reads is missing", flush=True)
        else:
            kept[notebook.name] = replace(notebook, parameters=parameters)
    if not any(notebook.name in kept for notebook in chosen):
        raise InputError("nothing is left to run: every notebook reads something that is missing.")
    return [replace(one, needs=tuple(name for name in one.needs if name in kept)) for one in kept.values()]


def cells_of(notebook: Path) -> list[dict]:
    """The cells of a notebook file, each with its source as one text."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in cells]
