"""Sources of unlabelled images: folders, lists, archives, npz files and labelled datasets."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from ..core.errors import InputError
from ..core.files import require_inside
from ..data.archives import ARCHIVES, archive_readers, is_image
from ..data.dataset import ImageDataset
from ..data.images import SUFFIXES
from ..data.readers import FileReader, Reader, RowReader
from ..data.registry import dataset_names, load_dataset
from ..data.tables import decoded_text, read_table

LISTS = (".txt", ".csv")


@dataclass(frozen=True)
class Source:
    """Where images come from, and how often they are drawn.

    Attributes:
        path: A folder, a list (`.txt`), RadImageNet's split (`.csv`), a zip or tar, an npz file in
            MedMNIST's layout, or the registered name of a labelled dataset.
        weight: Share of the draws relative to the other sources; None: the number of its images.
    """

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `PATH` or `PATH=WEIGHT`.

        Raises:
            InputError: If the weight is not above zero.
        """
        match = re.fullmatch(r"(.+)=([^=/\\]+)", text)
        if not match:
            return cls(Path(text).expanduser())
        try:
            weight = float(match[2])
        except ValueError as error:
            raise InputError(f"{text}: '{match[2]}' is no weight; write PATH=NUMBER.") from error
        if not 0 < weight < float("inf"):
            raise InputError(f"{text}: the weight must be above zero.")
        return cls(Path(match[1]).expanduser(), weight)

    @property
    def name(self) -> str:
        """File name without its last suffix."""
        return Path(self.path.name).stem


def source_readers(path: Path) -> list[tuple[str, Reader]]:
    """Return name and reader of each image of a source, in order.

    Args:
        path: See `Source`.

    Raises:
        InputError: If the source is missing, damaged, empty or of an unknown kind.
    """
    if not path.exists():
        if str(path) in dataset_names():
            return _training_images(load_dataset(str(path)))
        raise InputError(
            f"{path}: there is no such source of images "
            "(a path, or a labelled set by its registered name)."
        )
    readers = _readers(path, path.name.lower())
    if not readers:
        raise InputError(f"{path}: the corpus is empty: the source holds no images.")
    return readers


def _readers(path: Path, name: str) -> list[tuple[str, Reader]]:
    if path.is_dir():
        return _folder_readers(path)
    if name.endswith(ARCHIVES):
        return archive_readers(path)
    if name.endswith(".npz"):
        return _training_images(load_dataset(f"npz:{path}"))
    if name.endswith(LISTS):
        members = _listed(path)
        require_inside(members, path)
        return [(member, FileReader(path.parent / member)) for member in members]
    if name.endswith(SUFFIXES):
        return [(path.name, FileReader(path))]
    raise InputError(
        f"{path}: not a source of images (known: a folder, "
        f"{', '.join((*ARCHIVES, '.npz', *LISTS))})."
    )


def _folder_readers(folder: Path) -> list[tuple[str, Reader]]:
    names = [
        (file.relative_to(folder).as_posix(), file)
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    ]
    return [(name, FileReader(file)) for name, file in names if is_image(name)]


def _training_images(dataset: ImageDataset) -> list[tuple[str, Reader]]:
    if "train" not in dataset.splits:
        raise InputError(
            f"{dataset.name}: the set has no training split to learn from; "
            f"its splits: {', '.join(dataset.splits)}."
        )
    split = dataset.splits["train"]
    return [(f"train/{row}", RowReader(split.images, row)) for row in range(len(split))]


def _listed(path: Path) -> list[str]:
    """Return the file names of a list."""
    if path.suffix.lower() == ".txt":
        lines = decoded_text(path.read_bytes()).splitlines()
        return [line.strip() for line in lines if line.strip()]
    synonyms = {"filename": ("file", "image", "path")}
    return list(read_table(path, ["filename"], synonyms=synonyms)["filename"])


def draw_shares(sources: Sequence[Source], counts: Sequence[int]) -> np.ndarray:
    """Return the share of the draws of each source, float64, [sources]; they sum to 1.

    Args:
        sources: Sources of a corpus.
        counts: Number of images of each.

    Raises:
        InputError: If some sources have a weight and others have none.
    """
    given = [source.weight is not None for source in sources]
    if any(given) and not all(given):
        raise InputError("give every source a weight (PATH=WEIGHT), or none.")
    weights = np.array(
        [
            count if source.weight is None else source.weight
            for source, count in zip(sources, counts, strict=True)
        ]
    )
    return weights / weights.sum()
