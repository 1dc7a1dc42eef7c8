"""Names that a package imports at first use (PEP 562), by the standard library alone."""

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any


def attach(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Let a package offer the public names of its modules without importing them.

    Args:
        package: Its `__name__`.
        names: Public names by module, relative to the package; no name may be that of a module.

    Returns:
        `__getattr__`, `__dir__` and `__all__` of the package.
    """
    modules = {name: module for module, public in names.items() for name in public}

    def __getattr__(name: str) -> Any:
        if name not in modules:
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        value = getattr(import_module(f"{package}.{modules[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next access is an ordinary one
        return value

    return __getattr__, lambda: sorted(modules), sorted(modules)
