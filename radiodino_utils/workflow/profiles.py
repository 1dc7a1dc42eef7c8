"""Profiles: which notebooks run with which parameters."""

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationInfo, field_validator

from ..core.config import Config
from ..core.errors import InputError, unknown_name
from . import notebooks as sequence
from .notebooks import Notebook, cells_of, profile_name, profile_path
from .strict_yaml import checked_mapping, read_mapping

Defaults = Mapping[str, tuple[Any, str]]
# parameters whose values must be among those of another parameter
_PARTS = {"tuned": "backbones", "tuned_datasets": "datasets"}


class Entry(Config):
    """Entry of a notebook in `sequence.yaml`."""

    needs: tuple[str, ...] = Field((), description="Notebooks whose results it reads.")
    timeout: int = Field(gt=0, description="Longest time of a cell in seconds.")


class Profile(Config):
    """A YAML file of `notebooks/profiles`.

    Raises:
        InputError: If the parameters of a notebook are not `name: value` pairs, or there are none.
    """

    file: str = Field(description="Name of the file.")
    shared: dict[str, Any] = Field(description="Parameters of all notebooks (`all` in the file).")
    notebooks: dict[str, dict[str, Any]] = Field(
        description="Parameters of each notebook; one that is not named is left out."
    )

    @field_validator("shared", mode="before")
    @classmethod
    def _check_shared(cls, values: object, info: ValidationInfo) -> dict[str, Any]:
        return checked_mapping(values, info.data["file"], "all")

    @field_validator("notebooks", mode="before")
    @classmethod
    def _check_notebooks(
        cls, values: Mapping[str, object], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        file = info.data["file"]
        return {str(name): checked_mapping(value, file, name) for name, value in values.items()}

    @classmethod
    def read(cls, path: Path) -> "Profile":
        """Read a profile; see `read_mapping` for what is refused."""
        values = read_mapping(path)
        return cls(file=path.name, shared=values.pop("all", None), notebooks=values)


def load_profile(profile: str) -> list[Notebook]:
    """Read the sequence of notebooks with the parameters of a profile.

    Args:
        profile: Name of a YAML file in `notebooks/profiles`, or path of a file elsewhere. The
            file's name becomes the parameter `profile`, which decides the results folder.

    Returns:
        The notebooks, each after those that it needs.

    Raises:
        InputError: If the profile is unknown or is no YAML of that form, names a notebook or a
            parameter that does not exist, or gives a parameter a value of another type than the
            notebook does.
    """
    content, profile = Profile.read(profile_path(profile)), profile_name(profile)
    entries = {
        name: Entry(**entry)
        for name, entry in read_mapping(sequence.FOLDER / "sequence.yaml").items()
    }
    for name in content.notebooks:
        if name not in entries:
            raise InputError(f"{content.file}: {unknown_name('notebook', name, entries)}")
    if not content.notebooks:
        raise InputError(
            f"{content.file}: names no notebook; "
            f"name those that it runs, such as '{next(iter(entries))}: {{}}'."
        )
    notebooks = []
    for name, entry in entries.items():
        if name in content.notebooks:
            path = sequence.FOLDER / f"{name}.ipynb"
            needs = tuple(need for need in entry.needs if need in content.notebooks)
            parameters = _parameters(content, name, profile, default_parameters(path))
            notebooks.append(Notebook(name, path, needs, entry.timeout, parameters))
    return notebooks


def default_parameters(path: Path) -> dict[str, tuple[Any, str]]:
    """Return value and comment of each parameter of a notebook.

    Args:
        path: Notebook whose cell tagged `parameters` assigns them.

    Returns:
        Value and comment by name; the value of an expression is `None`.
    """
    tagged = [
        cell["source"]
        for cell in cells_of(path)
        if "parameters" in cell["metadata"].get("tags", [])
    ]
    source = tagged[0] if tagged else ""
    lines, parameters = source.splitlines(), {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign):
            comment = lines[(node.end_lineno or 0) - 1][node.end_col_offset :]
            try:
                value = ast.literal_eval(node.value)
            except ValueError:  # an expression: of any type
                value = None
            for target in node.targets:
                parameters[ast.unparse(target)] = (value, comment)
    return parameters


def _parameters(content: Profile, name: str, profile: str, defaults: Defaults) -> dict[str, Any]:
    """Return the checked parameters of a notebook."""
    place = f"{content.file}, {name}"
    parameters = content.shared | content.notebooks[name]
    for parameter, value in parameters.items():
        if parameter not in defaults:
            raise InputError(f"{place}: {unknown_name('parameter', str(parameter), defaults)}")
        default, comment = defaults[parameter]
        if not _has_type(value, default, comment):
            raise InputError(f"{place}: {parameter} is {value!r}; write it like {default!r}.")
    if parameters.get("profile", profile) != profile:
        raise InputError(
            f"{place}: profile is {parameters['profile']!r}; "
            "the file's name decides, so leave it out."
        )
    if "profile" in defaults:
        parameters["profile"] = profile
    values = {key: default for key, (default, _) in defaults.items()} | parameters
    require_parts(values, place)
    return parameters


def _has_type(value: object, default: object, comment: str = "") -> bool:
    """Return whether a value has the type of the notebook's own value."""
    if default is None or (value is None and "None" in comment):
        return True
    if isinstance(default, float):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if type(value) is not type(default):
        return False
    if isinstance(value, dict) and isinstance(default, dict):
        return all(_has_type(value[key], default[key]) for key in value.keys() & default)
    if isinstance(value, list) and isinstance(default, list) and default:
        return all(item in default or _has_type(item, default[0]) for item in value)
    return True


def require_parts(values: Mapping[str, Any], place: str) -> None:
    """Check that what is fine-tuned is among what is loaded.

    Args:
        values: Parameters of a notebook by name.
        place: Profile and notebook, for the message.

    Raises:
        InputError: If a name is missing.
    """
    for part, all_names in _PARTS.items():
        for name in values.get(part, []):
            if name not in values[all_names]:
                raise InputError(
                    f"{place}: {part} names '{name}', which {all_names} lacks "
                    f"({', '.join(values[all_names])}); add it there."
                )
