"""The one exception that users see, and the sentence for a misspelt name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the user gave is wrong; the message names it and the way out."""


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """Makes the error for a name that is not registered.

    Args:
        kind: What the name stands for ("backbone", "dataset", ...).
        name: The name as given.
        known: All valid names.

    Returns:
        An error that lists the nearest names, or all of them where none is near.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
    return InputError(f"unknown {kind} '{name}'; {hint}")
