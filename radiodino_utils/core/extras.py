"""Optional dependencies: name the extra that installs what an import lacks."""

from collections.abc import Iterator
from contextlib import contextmanager

from .errors import InputError


class MissingExtra(InputError, ImportError):
    """A package that only an extra installs is missing."""


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Name the extra if an import in the block fails.

    Args:
        name: One of the optional dependencies in `pyproject.toml`, such as "evaluation".

    Raises:
        MissingExtra: If a package is missing or cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise MissingExtra(
            f"{error}; this needs the extra [{name}]: pip install '.[{name}]' in the checkout."
        ) from error
