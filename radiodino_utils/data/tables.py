"""Datasets from tables of image files: reading, checks and construction."""

import codecs
import csv
import io
import re
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.files import explaining, files_digest, require_inside, value_hash
from .dataset import SPLITS, ImageDataset, Split
from .folder_layout import stem_of
from .images import ImageFiles
from .readability import caveat_without, few, unreadable_images, without_unreadable

LISTS = (".csv", ".tsv")


def read_table(
    path: Path, columns: Sequence[str], *, synonyms: Mapping[str, Sequence[str]] | None = None
) -> pd.DataFrame:
    """Read a CSV file of image files as text.

    Commas, semicolons or tabs separate the columns; the encoding is UTF-8, UTF-16, or else that of
    Windows (cp1252).

    Args:
        path: The CSV file.
        columns: Columns that must be there and filled; the first one holds the paths of images.
        synonyms: Other names of columns by the name that they get; case, blanks and `_` do not
            count.

    Returns:
        All columns of the file, as text.

    Raises:
        InputError: If the file cannot be read, a column is missing or there twice, a value is
            empty, or a path leaves the folder of the file.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such CSV file.")
    if zipfile.is_zipfile(path):
        raise InputError(f"{path}: a workbook or archive, not a CSV file; save the sheet as CSV.")
    try:
        text = decoded_text(path.read_bytes()).removeprefix("\ufeff")
        text = re.sub(r"\Asep=.\r?\n", "", text)  # a line that Excel writes
        _require_single_columns(text, path)
        table = pd.read_csv(
            io.StringIO(text), sep=separator_of(text), dtype=str, keep_default_na=False
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: not a CSV file that can be read ({str(error).strip()})."
        ) from error
    table = table.rename(columns=_names(table.columns, synonyms or {}, path))
    if missing := [column for column in columns if column not in table]:
        raise InputError(
            f"{path}: the columns {', '.join(missing)} are missing; "
            f"it has {', '.join(table.columns)}.{_known(missing, synonyms or {})}"
        )
    if table.empty:
        raise InputError(f"{path}: lists no images.")
    require_inside(table[columns[0]], path)
    for column in columns:
        if len(empty := np.flatnonzero(table[column].str.strip() == "")):
            raise InputError(
                f"{path}, line {empty[0] + 2}: the {column} is empty; every image needs one."
            )
    return table


def _require_single_columns(text: str, path: Path) -> None:
    """Check that no column of a table is there twice; pandas would rename the second one."""
    header = next(csv.reader(io.StringIO(text), delimiter=separator_of(text)), [])
    if repeated := [name for name, count in Counter(header).items() if count > 1]:
        raise InputError(f"{path}: the column '{repeated[0]}' is there twice; keep one.")


def separator_of(text: str) -> str:
    """Return what separates the columns of a table: comma, semicolon or tab."""
    return max(",;\t", key=text.partition("\n")[0].count)


def decoded_text(content: bytes) -> str:
    """Decode the text of a table; see `read_table`."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    if content[1:2] == b"\0" or content[:1] == b"\0":  # UTF-16 without its mark
        return content.decode("utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252")


def _names(
    columns: Sequence[str], synonyms: Mapping[str, Sequence[str]], path: Path
) -> dict[str, str]:
    """Return the new names of columns; a column of the exact name wins over synonyms."""
    renamed = {}
    for name, others in synonyms.items():
        known = {_plain(other) for other in others}
        candidates = [column for column in columns if _plain(column) in known]
        if name in columns or not candidates:
            continue
        if len(candidates) > 1:
            raise InputError(
                f"{path}: the columns {', '.join(candidates)} could all be the {name}; "
                f"name one of them '{name}'."
            )
        renamed[candidates[0]] = name
    return renamed


def _plain(column: str) -> str:
    return re.sub(r"[\W_]", "", column).lower()


def _known(missing: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> str:
    """Return which names of missing columns are read."""
    names = [f"{name} may be called {', '.join(synonyms.get(name, ()))}" for name in missing]
    return f" ({'; '.join(names)})" if synonyms else ""


def completed_names(names: Iterable[str], paths: Iterable[str], source: Path) -> list[str]:
    """Return the path of each file of a list, which may name it by its name or without a suffix.

    Args:
        names: What the list says.
        paths: Paths of all files, with slashes.
        source: The list, for the message.

    Returns:
        Paths; a name that fits no file as it is.

    Raises:
        InputError: If a name fits several files.
    """
    known, of_name = set(paths), defaultdict(set)
    for path in known:
        name = PurePosixPath(path).name
        for short in (name, stem_of(path), stem_of(name)):
            of_name[short].add(path)
    completed = []
    for name in names:
        candidates = [name] if name in known else sorted(of_name.get(name, [name]))
        if len(candidates) > 1:
            raise InputError(
                f"{source}: '{name}' is the name of {len(candidates)} files, such as "
                f"{candidates[0]} and {candidates[1]}; write their paths."
            )
        completed += candidates
    return completed


def require_trained_labels(table: pd.DataFrame, source: Path) -> None:
    """Check that every label occurs in the train split, if there is one.

    Args:
        table: Columns label and split.
        source: File or folder of the table, for the message.

    Raises:
        InputError: If a label does not.
    """
    trained = set(table.loc[table["split"] == "train", "label"])
    if trained and len(unseen := table[~table["label"].isin(trained)]):
        label, split = unseen[["label", "split"]].iloc[0]
        raise InputError(
            f"{source}: unknown label '{label}' in {split}: train has no image of it; "
            "add some, or leave it out."
        )


def require_disjoint(table: pd.DataFrame, column: str, source: Path) -> None:
    """Check that splits share no value of a column, and that no path occurs twice.

    Args:
        table: Columns split and `column`.
        column: "path" or "group".
        source: File or folder of the table, for the message.

    Raises:
        InputError: If they do.
    """
    splits = table.groupby(column, sort=False)["split"].nunique()
    if len(shared := splits[splits > 1]):
        value = shared.index[0]
        sharing = sorted(set(table.loc[table[column] == value, "split"]), key=SPLITS.index)
        raise InputError(
            f"{source}: the splits overlap: {column} '{value}' is in {' and '.join(sharing)} "
            f"({len(shared)} such); put each into one split."
        )
    if column == "path" and len(repeated := table["path"][table["path"].duplicated()]):
        raise InputError(
            f"{source}: '{repeated.iloc[0]}' is listed twice ({len(repeated)} such); "
            "list each image once."
        )


def dataset_from_table(
    table: pd.DataFrame,
    root: Path,
    name: str,
    *,
    source: Path,
    caveat: str = "",
    positive: str = "",
    tolerated: float | None = None,
) -> ImageDataset:
    """Make a dataset of a table of image files, in the order of its rows.

    Args:
        table: Columns path, label and split, and optionally group; text.
        root: Folder that contains the files.
        name: Registered name of the dataset.
        source: File or folder of the table, for messages.
        caveat: See `ImageDataset`.
        positive: See `ImageDataset`.
        tolerated: Share of images that are left out if they cannot be read; `None` reads nothing
            ahead.

    Returns:
        The dataset; classes are sorted, images are read when needed.

    Raises:
        InputError: If a class of several splits has one image, or too many files are missing or
            cannot be read.
    """
    classes = sorted(set(table["label"]))
    counts = table["label"].value_counts()
    if table["split"].nunique() > 1 and counts.min() == 1:
        raise InputError(
            f"{source}: the class '{counts.idxmin()}' has one image; "
            "it cannot be both learnt and tested: leave it out."
        )
    missing = [path for path in table["path"] if not (root / path).is_file()]
    if missing and (tolerated is None or len(missing) > few(len(table), tolerated)):
        raise InputError(
            f"{source}: {len(missing)} of {len(table)} listed files are missing, "
            f"first '{missing[0]}'; add them."
        )
    unreadable: Mapping[str, str] = {}
    if tolerated is not None:
        images = ImageFiles(root, table["path"].tolist())
        files = [root / path for path in images.names]
        unreadable = unreadable_images(images.read, images.names, files=files, facts="image")
        caveat = caveat_without(unreadable, len(table), other=caveat)
        table = table.assign(id=table["path"])
        table = without_unreadable(table, unreadable, source=source, share=tolerated)
    with explaining(root):
        content = files_digest(root, table["path"].tolist())
    digest = value_hash([content, *table[["label", "split"]].to_numpy().tolist()])
    splits = {}
    for split in [name for name in (*SPLITS, "all") if name in set(table["split"])]:
        part = table[table["split"] == split]
        paths = part["path"].tolist()
        labels = pd.Categorical(part["label"], categories=classes).codes.astype(np.int64)
        has_groups = "group" in part and (part["group"] != "").all()
        groups = part["group"].tolist() if has_groups else None
        splits[split] = Split(ImageFiles(root, paths), labels, paths, groups)
    return ImageDataset(
        name, tuple(classes), splits, digest, caveat, positive, unreadable=unreadable
    )
