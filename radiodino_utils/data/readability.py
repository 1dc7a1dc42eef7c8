"""Images that cannot be read: found before a long run, listed, and left out."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

import pandas as pd
from tqdm.auto import tqdm

from ..core.cache import cached, entry_path
from ..core.errors import InputError, unknown_name
from ..core.files import data_folder, value_hash
from ..core.prefetch import prefetched

SHARE = 0.01  # of images that may be left out because they cannot be read
SMALL = 20  # number of images from which on one may be left out, whatever the share
VARIABLE = "RADIODINO_UNREADABLE"  # environment variable that replaces `SHARE`
OnError = Literal["skip", "raise", "list"]


def tolerated_share(on_error: str) -> float | None:
    """Return the share of images that may be left out because they cannot be read.

    Args:
        on_error: `skip` tolerates `$RADIODINO_UNREADABLE`, else `SHARE`. `raise` reads no image
            ahead, and the first one that cannot be read ends the work. `list` tolerates all.

    Returns:
        The share; `None` for `raise`.

    Raises:
        InputError: If `on_error` is none of them, or the variable is no number between 0 and 1.
    """
    if on_error not in get_args(OnError):
        raise unknown_name("on_error", on_error, get_args(OnError))
    text = os.environ.get(VARIABLE) or str(SHARE)
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share <= 1:
        raise InputError(f"{VARIABLE} is '{text}'; give a share between 0 and 1, such as 0.05.")
    return {"skip": share, "raise": None, "list": 1.0}[on_error]


def unreadable_images(
    read: Callable[[int], object], ids: Sequence[str], *, files: Sequence[Path], facts: object
) -> dict[str, str]:
    """Read each image, and return by id the reason why it cannot be read.

    What was read once is not read again until a file changes; the cache is in the data folder.

    Args:
        read: Function that reads the image of a row; threads may call it at the same time.
        ids: Name of each row.
        files: File of each row, then any others that `read` needs.
        facts: All that reading depends on besides the files; JSON value.
    """
    declared = {"facts": value_hash(facts), "files": value_hash([_state(file) for file in files])}
    title = files[0].parent.name if files else "none"
    sidecar = entry_path(data_folder() / "readable", title, declared=declared, suffix=".json")

    def reasons(rows: Iterable[int]) -> dict[int, str]:
        def reason(row: int) -> str:
            try:
                read(row)
            except (InputError, OSError) as error:
                return str(error).removeprefix(f"{files[row]}: ")
            return ""

        rows = list(rows)
        results = prefetched(reason, rows)
        with (
            tqdm(results, "checking", len(rows), unit="image", delay=2) as bar,
            warnings.catch_warnings(action="ignore"),  # they come when an image is used
        ):
            return {row: text for row, text in zip(rows, bar, strict=True) if text}

    known = cached(
        sidecar, declared=declared, make=lambda: {"rows": list(reasons(range(len(ids))))}
    )
    return {ids[row]: reason for row, reason in reasons(known["rows"]).items()}


def _state(file: Path) -> list[object]:
    """Return what changes with the content of a file."""
    try:
        stat = file.stat()
    except OSError:
        return [str(file)]
    return [str(file), stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_dev, stat.st_ino]


def few(total: int, share: float, *, small: int = SMALL) -> int:
    """Return how many of all images may be left out because they cannot be read.

    Args:
        total: Number of all images.
        share: Greatest share of them.
        small: Number of images from which on one may be left out, unless the share is 0.
    """
    return max(int(share * total + 1e-6), int(share > 0 and total >= small))


def require_few(
    unreadable: Mapping[str, str], total: int, *, source: object, share: float, small: int = SMALL
) -> None:
    """Warn of images that are left out, unless there are too many.

    Args:
        unreadable: By id the reason of each.
        total: Number of all images.
        source: File, folder or dataset, for the message.
        share: Greatest share of the images that may be left out.
        small: See `few`.

    Raises:
        InputError: If there are more, or no image is left.
    """
    if not unreadable:
        return
    count, names = f"{len(unreadable)} of {total} images", list(unreadable)
    first = f"the first: {names[0]}: {unreadable[names[0]]}"
    if len(unreadable) > few(total, share, small=small):
        others = f" ({', '.join(names[:3])}{', ...' if names[3:] else ''})" if names[1:] else ""
        raise InputError(
            f"{source}: {count} cannot be read{others}, more than the limit of {share:.1%}, which "
            f"{VARIABLE} changes; {first}"
        )
    if len(unreadable) == total:
        raise InputError(f"{source}: none of {total} images can be read; {first}")
    warnings.warn(f"{source}: {count} cannot be read and are left out; {first}", stacklevel=3)


def without_unreadable(
    table: pd.DataFrame, unreadable: Mapping[str, str], *, source: Path, share: float
) -> pd.DataFrame:
    """Leave out the rows of images that cannot be read; see `require_few`.

    Args:
        table: Columns id, label and split.
        unreadable: By id the reason of each image.
        source: File or folder of the table, for messages.
        share: Greatest share that may be left out; 1 also of all images of a class.

    Raises:
        InputError: See `require_few`; or if no image of a class of a split is left.
    """
    require_few(unreadable, len(table), source=source, share=share)
    left = table[~table["id"].isin(list(unreadable))]
    groups = [set(part[["split", "label"]].itertuples(index=False)) for part in (table, left)]
    if share < 1 and (gone := sorted(groups[0] - groups[1])):
        split, label = gone[0]
        raise InputError(f"{source}: no image of '{label}' in {split} can be read.")
    return left


def caveat_without(
    unreadable: Mapping[str, str], total: int, *, what: str = "images", other: str = ""
) -> str:
    """Return the caveat of results without some images, joined to another one.

    Args:
        unreadable: By id the reason of each image that was left out.
        total: Number of all images.
        what: What they are.
        other: Another caveat; may be empty.
    """
    text = f"{len(unreadable)} of {total} {what} cannot be read and are left out"
    return "; ".join([*[other] * bool(other), *[text] * bool(unreadable)])


class Named(Protocol):
    """What has a name and lacks images: a dataset."""

    @property
    def name(self) -> str:
        """Name of the dataset."""

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Reason of each image that was left out, by its id."""


def unreadable_table(datasets: Iterable[Named]) -> pd.DataFrame:
    """Return one row per image that was left out because it cannot be read.

    Returns:
        Columns dataset, id and reason.
    """
    rows = [(one.name, *pair) for one in datasets for pair in one.unreadable.items()]
    return pd.DataFrame(rows, columns=["dataset", "id", "reason"])
