"""Registry of the figures that are added from outside the package."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ..core.errors import InputError

if TYPE_CHECKING:  # the facade costs no matplotlib
    from matplotlib.figure import Figure

_figures: dict[str, Callable[..., "Figure"]] = {}


def register_figure(name: str, function: Callable[..., "Figure"]) -> None:
    """Add a figure, which `plots` then offers as `plots.NAME`.

    Args:
        name: Name of the figure, a Python identifier.
        function: Draws and returns a matplotlib figure; decorate it with `styled` for the look of
            the other figures.

    Raises:
        InputError: If the name is no identifier or belongs to another figure or module of `plots`,
            or `function` is not callable.
    """
    if not callable(function):
        raise InputError(f"figure {name}: {function!r} is no function; pass one that draws it.")
    if not isinstance(name, str) or not name.isidentifier():
        raise InputError(f"figure {name!r}: choose a name of letters, digits and underscores.")
    if _figures.get(name) is function:
        return
    if hasattr(sys.modules[__package__], name) or find_spec(f"{__package__}.{name}"):
        raise InputError(f"figure {name}: the name is taken; choose another one.")
    _figures[name] = function


def registered_figures() -> dict[str, Callable[..., "Figure"]]:
    """Return the registered functions by name, in the order of their registration."""
    return dict(_figures)
