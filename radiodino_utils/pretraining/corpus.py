"""Unlabelled images from folders, lists, archives and MedMNIST files, mixed by weights."""

import gzip
import io
import re
import tarfile
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..core.errors import InputError
from ..core.files import require_inside, value_hash
from ..data.duplicates import pixel_digest
from ..data.images import SUFFIXES, Images, as_grey, read_image
from ..data.registry import ImageDataset, dataset_names, load_dataset

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
LISTS = (".txt", ".csv")
EDGE = 256  # a image in memory is reduced to this short side; nothing is enlarged
MEMBER = 1 << 30  # bytes of an archive's member, at most, in the archive and unpacked
MEMORY = 4e9  # bytes of decoded images that are kept in memory; a larger corpus is decoded when asked for


@dataclass(frozen=True)
class Source:
    """Where images come from and how often they are drawn.

    Attributes:
        path: A folder, a list (`.txt`), RadImageNet's split (`.csv`), a zip or tar, an npz file in
            MedMNIST's layout, or the registered name of a labelled set.
        weight: Share of the draws, relative to the other sources; `None` for the number of its
            images.
    """

    path: Path
    weight: float | None = None

    @classmethod
    def parse(cls, text: str) -> "Source":
        """Reads `PATH` or `PATH=WEIGHT`.

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


@dataclass
class Corpus:
    """Images of several sources; draws depend on nothing but the seed and the step.

    Attributes:
        names: One name a image, `SOURCE/MEMBER`.
        source_of: Index of the source of each image, int64, [n].
        weights: Share of the draws of each source; sums to one.
        sources: Name of each source.
        unreadable: Name and reason of every image left out.
        digests: SHA-256 of each image's pixels as decoded; empty where images are read when asked
            for.
        limit: Share of unreadable images that is borne.
    """

    names: list[str]
    source_of: np.ndarray
    weights: np.ndarray
    sources: list[str]
    digests: list[str]
    limit: float
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    _images: list[np.ndarray] | None = None
    _read: list[Callable[[], np.ndarray]] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """A image, uint8, [height, width]; the next readable one of its source where it cannot be read."""
        if self._images is not None:
            return self._images[index]
        rows = np.flatnonzero(self.source_of == self.source_of[index])
        for row in np.roll(rows, -int(np.searchsorted(rows, index))):
            try:
                return self._read[row]()
            except InputError as error:
                self._leave_out(self.names[row], error)
        raise InputError(
            f"{self.sources[self.source_of[index]]}: no image of the source can be read."
        )

    def draw(self, step: int, count: int, *, seed: int, batch_of: str = "mixed") -> np.ndarray:
        """The images of a step: a source by its weight, then a image of it evenly; with
        replacement.

        Args:
            step: Which.
            count: Images.
            seed: Of the run.
            batch_of: "group": all from the group of a image drawn so, each once as long as the
                group lasts.

        Returns:
            Indices, int64, [count]; always the same for the same arguments.
        """
        generator = np.random.default_rng([seed, step])
        if batch_of == "group":
            members = np.flatnonzero(self.groups == self.groups[self.draw(step, 1, seed=seed)[0]])
            return np.resize(generator.permutation(members), count)
        starts = np.searchsorted(self.source_of, np.arange(len(self.sources) + 1))
        chosen = generator.choice(len(self.sources), count, p=self.weights)
        return starts[chosen] + (
            generator.random(count) * (starts[chosen + 1] - starts[chosen])
        ).astype(np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """Index of the folder of each image, int64, [n]; a source without folders is one group."""
        return np.unique([name.rpartition("/")[0] for name in self.names], return_inverse=True)[1]

    @property
    def digest(self) -> str:
        """A hash of the names, the images as far as they were decoded, and the weights."""
        return value_hash(
            [self.names, self.digests, [round(float(weight), 9) for weight in self.weights]]
        )

    def table(self) -> pd.DataFrame:
        """Images and share of the draws of each source."""
        counts = np.bincount(self.source_of, minlength=len(self.sources))
        return pd.DataFrame(
            {"source": self.sources, "images": counts, "share of draws": self.weights}
        )

    def _leave_out(self, name: str, error: Exception) -> None:
        if name in (known for known, _ in self.unreadable):
            return
        self.unreadable.append((name, str(error)))
        _check_limit(self.unreadable, len(self.names), self.limit)


def load_corpus(
    sources: Sequence[Source],
    *,
    hold_out: Sequence[ImageDataset] = (),
    limit: float = 0.01,
    memory: float = MEMORY,
    edge: int = EDGE,
) -> Corpus:
    """Finds all images of all sources and, where they fit, decodes them into memory once.

    Colour becomes grey (luma), as radiology is. Of a labelled set only the training rows are taken.
    Nothing is extracted from an archive, so no path in it can lead anywhere.

    Args:
        sources: Where from.
        hold_out: Labelled sets: a image with the very pixels of one of their val or test images is
            left out.
        limit: Share of unreadable images that is borne; they are counted, listed and left out.
        memory: Bytes of decoded images to keep; for a larger corpus images are read when asked for.
        edge: Greatest short side in memory, pixels.

    Returns:
        The corpus.

    Raises:
        InputError: If a source is missing, empty or damaged, more images than the limit are
            unreadable, or all images are the same.
    """
    if not sources:
        raise InputError("the corpus is empty: name at least one source of images.")
    entries = [_entries(source.path) for source in sources]
    names = [Path(source.path.name).stem for source in sources]
    if in_memory := sum(map(len, entries)) * edge * edge * 1.3 <= memory:
        corpus = _decoded(sources, names, entries, hold_out, limit, edge)
    else:
        if hold_out:
            raise InputError(
                "hold_out: the corpus is too large for the memory to be compared; raise memory or leave it out."
            )
        corpus = Corpus(
            [f"{name}/{member}" for name, part in zip(names, entries, strict=True) for member, _ in part],
            np.repeat(np.arange(len(entries)), [len(part) for part in entries]),
            _weights(sources, [len(part) for part in entries]),
            names, [], limit, _read=[read for part in entries for _, read in part],
        )  # fmt: skip
    seen = (
        corpus.digests
        if in_memory
        else [pixel_digest(corpus[row]) for row in np.linspace(0, len(corpus) - 1, 64).astype(int)]
    )
    if len(set(seen)) == 1 and len(corpus) > 1:
        raise InputError(
            f"the {len(corpus)} images of the corpus are all the same; there is nothing to learn from them."
        )
    return corpus


def _decoded(
    sources: Sequence[Source],
    names: Sequence[str],
    entries: Sequence[list],
    hold_out: Sequence[ImageDataset],
    limit: float,
    edge: int,
) -> Corpus:
    apart = {
        pixel_digest(as_grey(image))
        for one in hold_out
        for split in ("val", "test")
        if split in one.splits
        for image in one.splits[split].images
    }
    kept, counts, unreadable, total = [], [], [], sum(map(len, entries))
    with tqdm(total=total, desc="reading the corpus", unit="image") as bar:
        for name, part in zip(names, entries, strict=True):
            before = len(kept)
            for member, read in part:
                bar.update()
                try:
                    image = read()
                except InputError as error:
                    unreadable.append((f"{name}/{member}", str(error)))
                    continue
                if (digest := pixel_digest(image)) not in apart:
                    kept.append((f"{name}/{member}", digest, _reduced(image, edge)))
            counts.append(len(kept) - before)
            if not counts[-1]:
                raise InputError(
                    f"{name}: no image of the source is left ({len(part)} found, none readable and allowed)."
                )
    _check_limit(unreadable, total, limit)
    titles, digests, images = (list(column) for column in zip(*kept, strict=True))
    source_of = np.repeat(np.arange(len(counts)), counts)
    return Corpus(
        titles,
        source_of,
        _weights(sources, counts),
        list(names),
        digests,
        limit,
        unreadable,
        _images=images,
    )


def _check_limit(unreadable: list[tuple[str, str]], total: int, limit: float) -> None:
    if len(unreadable) > limit * total:
        raise InputError(
            f"{len(unreadable)} of {total} images cannot be read, more than the limit of {limit:.1%}; the first: "
            f"{unreadable[0][1]}"
        )


def _weights(sources: Sequence[Source], counts: Sequence[int]) -> np.ndarray:
    if any(source.weight is None for source in sources) and not all(
        source.weight is None for source in sources
    ):
        raise InputError("give every source a weight (PATH=WEIGHT), or none.")
    weights = np.array(
        [
            count if source.weight is None else source.weight
            for source, count in zip(sources, counts, strict=True)
        ]
    )
    return weights / weights.sum()


def _entries(path: Path) -> list[tuple[str, Callable[[], np.ndarray]]]:
    """Name and reader of each image of a source, in order."""
    if not path.exists():
        if str(path) in dataset_names():
            return _training_rows(load_dataset(str(path)))
        raise InputError(
            f"{path}: there is no such source of images (a path, or a labelled set by its registered name)."
        )
    name = path.name.lower()
    if path.is_dir():
        found = [
            file
            for file in sorted(path.rglob("*"))
            if _is_image(file.relative_to(path).as_posix()) and file.is_file()
        ]
        entries = [(file.relative_to(path).as_posix(), _FileReader(file)) for file in found]
    elif name.endswith(ARCHIVES):
        entries = _archive_entries(path)
    elif name.endswith(".npz"):
        entries = _training_rows(load_dataset(f"npz:{path}"))
    elif name.endswith(LISTS):
        members = _listed(path)
        require_inside(members, path)
        entries = [(member, _FileReader(path.parent / member)) for member in members]
    elif name.endswith(SUFFIXES):
        entries = [(path.name, _FileReader(path))]
    else:
        raise InputError(
            f"{path}: not a source of images (known: a folder, {', '.join((*ARCHIVES, '.npz', *LISTS))})."
        )
    if not entries:
        raise InputError(f"{path}: the corpus is empty: the source holds no images.")
    return entries


class _Reader:
    """Reads one image; whatever its decoder raises is an InputError, so that one bad file cannot end a whole corpus."""

    def __call__(self) -> np.ndarray:
        try:
            return as_grey(self._read())
        except InputError:
            raise
        except (
            Exception
        ) as error:  # decoders of damaged or hostile files raise anything, MemoryError included
            raise InputError(
                f"{self}: cannot be read ({str(error).partition(chr(10))[0] or type(error).__name__})."
            ) from error


@dataclass(frozen=True)
class _FileReader(_Reader):
    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def _read(self) -> np.ndarray:
        return read_image(self.path)


@dataclass(frozen=True)
class _MemberReader(_Reader):
    """Reads one member of an archive without extracting it; each process opens the archive for itself."""

    path: Path
    member: str
    start: int | None = None  # of a member of an uncompressed tar
    size: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.member}"

    def _read(self) -> np.ndarray:
        if self.start is None:
            archive = _opened(self.path)
            _check_size(archive.getinfo(self.member).file_size, str(self))
            with archive.open(self.member) as file:
                return _decode(file.read(MEMBER + 1), str(self))
        _check_size(self.size, str(self))
        with open(self.path, "rb") as file:
            file.seek(self.start)
            return _decode(file.read(self.size), str(self))


_ARCHIVES_OPEN: dict[tuple[Path, int], zipfile.ZipFile] = {}


def _opened(path: Path) -> zipfile.ZipFile:
    import os

    key = (path, os.getpid())
    if key not in _ARCHIVES_OPEN:
        _ARCHIVES_OPEN[key] = zipfile.ZipFile(path)
    return _ARCHIVES_OPEN[key]


def _archive_entries(path: Path) -> list[tuple[str, Callable[[], np.ndarray]]]:
    try:
        if path.name.lower().endswith(".zip"):
            with zipfile.ZipFile(path) as archive:
                members = [info.filename for info in archive.infolist() if _is_image(info.filename)]
            return [(member, _MemberReader(path, member)) for member in sorted(members)]
        with tarfile.open(path) as archive:
            members = [member for member in archive if member.isfile() and _is_image(member.name)]
            archive.fileobj.seek(archive.offset)
            if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(
                tarfile.BLOCKSIZE
            ):  # tarfile takes a cut for the end
                raise tarfile.ReadError("no end mark")
            if path.name.lower().endswith(".tar"):
                return [
                    (one.name, _MemberReader(path, one.name, one.offset_data, one.size))
                    for one in members
                ]
            return [(one.name, _ready(archive, one, path)) for one in members]
    except (
        zipfile.BadZipFile,
        tarfile.TarError,
        OSError,
        EOFError,
        zlib.error,
        ValueError,
        NotImplementedError,
    ) as error:
        raise InputError(
            f"{path}: the archive is damaged or truncated ({error}); copy or download it again."
        ) from error


@dataclass(frozen=True)
class _Ready(_Reader):
    """A member of a compressed tar, which allows no jumping: its bytes as they lie in the archive, nothing where too many."""

    data: bytes
    size: int
    name: str

    def __str__(self) -> str:
        return self.name

    def _read(self) -> np.ndarray:
        _check_size(self.size, self.name)
        return _decode(self.data, self.name)


def _ready(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> _Ready:
    data = archive.extractfile(member).read() if member.size <= MEMBER else b""
    return _Ready(data, member.size, f"{path}:{member.name}")


def _check_size(size: int, name: str) -> None:
    if size > MEMBER:
        raise InputError(
            f"{name}: {size / 1e9:.1f} GB unpacked, more than the limit of {MEMBER / 1e9:.1f} GB for an image."
        )


def _is_image(member: str) -> bool:
    return (
        member.lower().endswith(SUFFIXES)
        and not Path(member).name.startswith(".")
        and "__MACOSX" not in member
    )


def _decode(data: bytes, name: str) -> np.ndarray:
    if not data:
        raise InputError(f"{name}: the file is empty (0 bytes).")
    suffix = next(
        one for one in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(one)
    )
    if suffix == ".nii.gz":  # unpacked here, where its size has a limit
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            data, suffix = file.read(MEMBER + 1), ".nii"
    _check_size(len(data), name)
    with tempfile.NamedTemporaryFile(suffix=suffix) as file, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*: scaled from")  # names a file that is gone
        file.write(data)
        file.flush()
        try:
            return read_image(file.name)
        except InputError as error:
            raise InputError(str(error).replace(file.name, name)) from error


def _training_rows(labelled: ImageDataset) -> list[tuple[str, Callable[[], np.ndarray]]]:
    if "train" not in labelled.splits:
        raise InputError(
            f"{labelled.name}: the set has no training split to learn from; its splits: {', '.join(labelled.splits)}."
        )
    split = labelled.splits["train"]
    return [(f"train/{row}", _RowReader(split.images, row)) for row in range(len(split))]


@dataclass(frozen=True)
class _RowReader(_Reader):
    images: Images
    row: int

    def __str__(self) -> str:
        return f"train/{self.row}"

    def _read(self) -> np.ndarray:
        return np.asarray(self.images[self.row])


def _listed(path: Path) -> list[str]:
    if path.suffix == ".txt":
        return [
            line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()
        ]
    table = pd.read_csv(path)
    if "filename" not in table:
        raise InputError(
            f"{path}: has no column 'filename'; RadImageNet's split CSV has filename and label."
        )
    return table["filename"].astype(str).tolist()


def _reduced(image: np.ndarray, edge: int) -> np.ndarray:
    height, width = image.shape
    if min(height, width) <= edge:
        return image
    share = edge / min(height, width)
    size = (round(width * share), round(height * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
