"""Labels of tables: missing ones, and those that are almost the same."""

from collections.abc import Iterable
from pathlib import Path

from ..core.errors import InputError

_MISSING = ("nan", "<na>", "nat")


def require_distinct_labels(labels: Iterable[str], source: Path) -> None:
    """Check that no label stands for a missing value and no two differ by spelling only.

    Args:
        labels: Labels as they are written.
        source: File or folder of the labels, for the message.

    Raises:
        InputError: If a label is "NaN" or the like, or two differ by case, blanks, or in how a
            number is written.
    """
    spelling: dict[str, str] = {}
    for label in sorted(set(labels)):
        plain = _plain(label)
        if plain in _MISSING:
            raise InputError(
                f"{source}: the label '{label}' stands for a missing value; label the image or "
                "leave it out."
            )
        if plain in spelling:
            raise InputError(
                f"{source}: the labels '{spelling[plain]}' and '{label}' are almost the same; "
                "write both alike, or rename one."
            )
        spelling[plain] = label


def _plain(label: str) -> str:
    """Return a label without differences of case, of blanks and of how a number is written."""
    text = " ".join(label.split()).casefold()
    try:
        return text if text in _MISSING or "_" in text else repr(float(text))
    except ValueError:
        return text
