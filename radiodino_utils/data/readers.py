"""Readers of single images: a file, or a row of a labelled dataset."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..core.errors import InputError
from .images import Images, as_grey, read_image


class Reader(ABC):
    """Reads one image when called; its text names the image in messages."""

    def __call__(self) -> np.ndarray:
        """Return the image in grey levels, uint8, [height, width].

        Raises:
            InputError: If it cannot be read, for any reason, so that one bad file cannot end the
                reading of a corpus.
        """
        return as_grey(self.read())

    def read(self) -> np.ndarray:
        """Return the image, uint8, [height, width] or [height, width, 3].

        Raises:
            InputError: See `__call__`.
        """
        try:
            return self._read()
        except InputError:
            raise
        except Exception as error:  # decoders of hostile files raise anything, even MemoryError
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(f"{self}: cannot be read ({reason}).") from error

    @abstractmethod
    def _read(self) -> np.ndarray: ...


@dataclass(frozen=True)
class FileReader(Reader):
    """Reads an image file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def _read(self) -> np.ndarray:
        return read_image(self.path)


@dataclass(frozen=True)
class RowReader(Reader):
    """Reads an image of a labelled dataset.

    Attributes:
        images: Images of a split.
        row: Row of the image.
        split: Name of the split, for messages.
    """

    images: Images
    row: int
    split: str = "train"

    def __str__(self) -> str:
        return f"{self.split}/{self.row}"

    def _read(self) -> np.ndarray:
        return np.asarray(self.images[self.row])
