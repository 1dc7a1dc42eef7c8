"""Profiles: which notebooks run with which parameters, and what they need."""

import ast
import json
import re
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from ..core.errors import InputError, unknown_name
from ..core.files import REPOSITORY

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
        return (
            next(c for c in cells_of(self.path) if c["cell_type"] == "markdown")["source"]
            .splitlines()[0]
            .lstrip("# ")
        )


def profile_names() -> list[str]:
    """The profiles that `notebooks/profiles` holds."""
    return sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml"))


def load_profile(profile: str) -> list[Notebook]:
    """Reads the sequence of notebooks with a profile's parameters.

    Args:
        profile: The name of a YAML file in `notebooks/profiles`: parameters of `all` notebooks and
            of each by its name. A notebook that it does not name is left out. The name is the
            parameter `profile`, which decides the results folder.

    Returns:
        The notebooks, each behind those that it needs.

    Raises:
        InputError: If the profile is unknown or no YAML of that form, or names a notebook or a
            parameter that does not exist, or gives one a value of another type than the notebook
            does.
    """
    path = _profile_path(profile)
    sequence, values = _read_yaml(NOTEBOOKS / "sequence.yaml"), _read_yaml(path)
    common = _mapping(values.pop("all", None), path, "all")
    for name in values:
        if name not in sequence:
            raise InputError(f"{path.name}: {unknown_name('notebook', str(name), sequence)}")
    if not values:
        raise InputError(
            f"{path.name}: names no notebook; name those that it runs, such as '{next(iter(sequence))}: {{}}'."
        )
    notebooks = []
    for name, entry in sequence.items():
        if name not in values:
            continue
        file = NOTEBOOKS / f"{name}.ipynb"
        parameters = common | _mapping(values[name], path, name)
        defaults = _defaults(file)
        for parameter, value in parameters.items():
            if parameter not in defaults:
                raise InputError(
                    f"{path.name}, {name}: {unknown_name('parameter', str(parameter), defaults)}"
                )
            if not _fits(value, *defaults[parameter]):
                raise InputError(
                    f"{path.name}, {name}: {parameter} is {value!r}; write it like {defaults[parameter][0]!r}."
                )
        if parameters.get("profile", profile) != profile:
            raise InputError(
                f"{path.name}, {name}: profile is {parameters['profile']!r}; the file's name decides, so leave it out."
            )
        if "profile" in defaults:
            parameters["profile"] = profile
        _require_parts(
            parameters,
            {key: default for key, (default, _) in defaults.items()},
            f"{path.name}, {name}",
        )
        needs = tuple(one for one in entry["needs"] if one in values)
        notebooks.append(Notebook(name, file, needs, entry["timeout"], parameters))
    return notebooks


def outline(profile: str) -> list[Notebook]:
    """Reads a profile without its parameters by Python's own library alone, before anything is
    installed.

    Raises:
        InputError: If the profile is unknown.
    """

    def blocks(path: Path) -> dict[str, str]:
        return dict(
            re.findall(
                r"^(\w+):(.*?)(?=^\w|\Z)",
                path.read_text(encoding="utf-8"),
                re.DOTALL | re.MULTILINE,
            )
        )

    named = blocks(_profile_path(profile))
    needs = {
        name: tuple(re.findall(r"\b\d\d_\w+", block))
        for name, block in blocks(NOTEBOOKS / "sequence.yaml").items()
    }
    return [
        Notebook(name, NOTEBOOKS / f"{name}.ipynb", tuple(one for one in needed if one in named), 0)
        for name, needed in needs.items()
        if name in named
    ]


def parameter_names(notebook: Path) -> list[str]:
    """The names that are assigned in a notebook's cell tagged `parameters`."""
    return list(_defaults(notebook))


def _profile_path(profile: str) -> Path:
    if profile not in (known := profile_names()):
        raise unknown_name("profile", profile, known)
    return NOTEBOOKS / "profiles" / f"{profile}.yaml"


def _read_yaml(path: Path) -> dict:
    import yaml

    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())  # noqa: S506 - a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path.name}{place}: cannot be read as YAML: {reason}.") from error
    return _mapping(values, path, "the file")


def _mapping(values: object, path: Path, name: str) -> dict:
    """A copy of a mapping of plain values; an empty one for nothing at all."""
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{path.name}: {name} holds {values!r}; 'name: value' pairs are needed.")
    try:
        json.dumps(values, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{path.name}: {name} holds a value that is neither text nor number nor list: {error}."
        ) from error
    return dict(values or {})


@cache
def _loader() -> type:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML in which a key may stand only once and 1e-4 is a number."""

        def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            seen = set()
            for key, _ in node.value:
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key.value}' is there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            return node

    number = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+0123456789"))
    return Loader


def _defaults(notebook: Path) -> dict[str, tuple[object, str]]:
    """Value and comment of each name that is assigned in a notebook's cell tagged `parameters`."""
    source = next(
        (c["source"] for c in cells_of(notebook) if "parameters" in c["metadata"].get("tags", [])),
        "",
    )
    lines, found = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            comment = lines[node.end_lineno - 1][node.end_col_offset :]
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # an expression: of any type
                value = None
            found |= {target.id: (value, comment) for target in node.targets}
    return found


def _fits(value: object, default: object, comment: str = "") -> bool:
    """Whether a value has the type of a notebook's own one."""
    if default is None or (value is None and "None" in comment):
        return True
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(value) is not type(default):
        return False
    if isinstance(default, dict):
        return all(_fits(value[key], default[key]) for key in value.keys() & default)
    return (
        not isinstance(default, list) or not default or all(_fits(one, default[0]) for one in value)
    )


def _require_parts(parameters: dict, defaults: dict, place: str) -> None:
    """Checks that what is fine-tuned is among what is loaded."""
    values = defaults | parameters
    for part, whole in (("tuned", "backbones"), ("tuned_datasets", "datasets")):
        if odd := [one for one in values.get(part, []) if one not in values[whole]]:
            raise InputError(
                f"{place}: {part} names '{odd[0]}', which {whole} lacks ({', '.join(values[whole])}); add it there."
            )


def pick(notebooks: list[Notebook], names: list[str]) -> list[Notebook]:
    """Picks notebooks by number or name.

    Raises:
        InputError: If one is not in the profile.
    """
    by_name = {key: notebook for notebook in notebooks for key in (notebook.number, notebook.name)}
    for name in names:
        if name not in by_name:
            raise unknown_name("notebook", name, [notebook.name for notebook in notebooks])
    return [by_name[name] for name in names]


def provided(
    notebooks: list[Notebook], chosen: list[Notebook], *, allow_missing: bool
) -> list[Notebook]:
    """Checks, before any work, that every dataset and all weights that notebooks need are here or
    can be downloaded.

    Args:
        notebooks: Of the profile.
        chosen: Those that shall run; what they need is checked too.
        allow_missing: Whether missing names are taken out of the parameters, and notebooks that
            cannot run without them left out.

    Returns:
        The notebooks that can run, with the parameters that can be met.

    Raises:
        InputError: If something is missing, with how to provide each; or if nothing is left to run.
    """
    from .missing import describe_missing, missing_inputs, without_missing

    by_name, needed = {notebook.name: notebook for notebook in notebooks}, {}
    waiting = [notebook.name for notebook in chosen]
    while waiting:
        name = waiting.pop()
        needed[name] = by_name[name]
        waiting += by_name[name].needs
    missing = missing_inputs(
        notebook.parameters for notebook in notebooks if notebook.name in needed
    )
    if not missing:
        return notebooks
    lacking = f"this machine lacks {len(missing)} datasets or weights:\n{describe_missing(missing)}"
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
    return [
        replace(one, needs=tuple(name for name in one.needs if name in kept))
        for one in kept.values()
    ]


def cells_of(notebook: Path) -> list[dict]:
    """The cells of a notebook file, each with its source as one text.

    Raises:
        InputError: If it is missing or no notebook.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        return [cell | {"source": "".join(cell["source"])} for cell in cells]
    except FileNotFoundError as error:
        raise InputError(
            f"{notebook}: there is no such notebook; put it there or take it out of the profile."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{notebook}: not a notebook that can be read ({error}); write it again."
        ) from error
