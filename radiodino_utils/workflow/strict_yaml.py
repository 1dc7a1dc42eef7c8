"""YAML files of plain values, in which a key stands only once."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")


def read_mapping(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Args:
        path: The file; `1e-4` is a number in it, and a key may stand only once.

    Returns:
        Values by name; empty for an empty file.

    Raises:
        InputError: If the file is not such YAML.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_loader())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"{path.name}{place}: cannot be read as YAML: {reason}.") from error
    return checked_mapping(values, path.name, "the file")


def checked_mapping(values: object, file: str, name: str) -> dict[str, Any]:
    """Return a copy of a mapping of plain values; an empty one for `None`.

    Args:
        values: Value read from YAML.
        file: Name of the file, for the message.
        name: Name of the value, for the message.

    Raises:
        InputError: If it is not a mapping, or holds anything but texts, numbers and lists.
    """
    if values is not None and not isinstance(values, dict):
        raise InputError(f"{file}: {name} holds {values!r}; 'name: value' pairs are needed.")
    try:
        json.dumps(values, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{file}: {name} holds a value that is neither text nor number nor list: {error}."
        ) from error
    return {str(name): value for name, value in (values or {}).items()}


@cache
def _loader() -> type[yaml.SafeLoader]:
    class Loader(yaml.SafeLoader):
        """YAML in which a key may stand only once and 1e-4 is a number."""

        def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            keys = set()
            for key, _ in node.value:
                if key.value in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"'{key.value}' is there twice", problem_mark=key.start_mark
                    )
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
            return node

    Loader.add_implicit_resolver("tag:yaml.org,2002:float", _NUMBER, list("-+0123456789"))
    return Loader
