"""Labels of tables: missing ones, and those that are almost the same."""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..core.errors import InputError, unknown_name

_MISSING = ("nan", "<na>", "nat", "na", "n/a", "#n/a", "null")


def parse_renames(text: str) -> dict[str, str]:
    """Return the new names of labels, from text such as `Benign:benign,0.0:0`.

    Raises:
        InputError: If a part is not `OLD:NEW`.
    """
    parts = [part.split(":") for part in text.split(",")] if text else []
    if any(len(part) != 2 or not part[1] for part in parts):
        raise InputError(f"rename={text}: write OLD:NEW, with a comma between several.")
    return {old: new for old, new in parts}


def renamed_labels(labels: Sequence[str], renames: Mapping[str, str], source: Path) -> list[str]:
    """Return labels by their new names, after checking that none are almost the same.

    Args:
        labels: Labels as they are written.
        renames: New name of labels.
        source: File or folder of the labels, for the message.

    Raises:
        InputError: If a label to rename does not occur; see also `require_distinct_labels`.
    """
    for old in renames:
        if old not in set(labels):
            raise unknown_name(f"label to rename in {source}", old, set(labels))
    new = [renames.get(label, label) for label in labels]
    require_distinct_labels(new, source)
    return new


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
                f"write both alike, or give them one name by rename={label}:{spelling[plain]}."
            )
        spelling[plain] = label


def _plain(label: str) -> str:
    """Return a label without differences of case, of blanks and of how a number is written."""
    text = unicodedata.normalize("NFKC", " ".join(label.split())).casefold()
    if text in _MISSING:
        return text
    text = re.sub(r"(?<=\w)[ _-]+(?=\w)", " ", text.replace("_", " "))
    try:
        return repr(float(text))
    except ValueError:
        return text
