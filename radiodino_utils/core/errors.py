"""The one exception that users see, and the sentences for names and values that do not fit."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input of the user that cannot be used; the message names it and says what to do."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not registered.

    Args:
        kind: What the name stands for ("backbone", "dataset", ...).
        name: The name as given.
        known: All valid names.

    Returns:
        An error that lists the nearest names, or all of them if none is near.
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}."
    return InputError(f"unknown {kind} '{name}'; {hint}")


def wrong_type(kind: str, value: object, expected: str) -> InputError:
    """Return the error for a value of the wrong type.

    Args:
        kind: What the value stands for ("backbone", "dataset", ...).
        value: The value as given.
        expected: What is accepted, such as "a registered name or an ImageDataset".

    Returns:
        An error that names what is accepted and the type of the value.
    """
    return InputError(f"{kind}: expected {expected}, got {type(value).__name__}.")
