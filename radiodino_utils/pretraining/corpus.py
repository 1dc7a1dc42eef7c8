"""Unlabelled images of several sources, mixed by weights."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from PIL import Image
from tqdm.auto import tqdm

from ..core.errors import InputError
from ..core.files import value_hash
from ..data.dataset import ImageDataset
from ..data.duplicates import pixel_digest
from ..data.images import as_grey
from ..data.readers import Reader
from .sources import Source, draw_shares, source_readers

MAX_EDGE = 256  # short side of an image in memory, in pixels; nothing is enlarged
MEMORY = 4e9  # bytes of decoded images; a larger corpus is decoded as it is drawn
_BYTES_PER_SQUARE = 1.3  # images are rarely square: bytes of an image over MAX_EDGE squared


@dataclass
class Corpus:
    """Images of several sources; draws depend on nothing but the seed and the step.

    Attributes:
        names: Name of each image, `SOURCE/MEMBER`.
        source_of: Index of the source of each image, int64, [n].
        weights: Share of the draws of each source; sums to 1.
        sources: Name of each source.
        digests: SHA-256 of the pixels of each image as decoded; empty if images are read as they
            are drawn.
        limit: Share of unreadable images that is tolerated.
        unreadable: Name and reason of every image left out.
        images: Decoded images, uint8, [height, width] each, or None.
        readers: Reader of each image, where `images` is None.
    """

    names: list[str]
    source_of: np.ndarray
    weights: np.ndarray
    sources: list[str]
    digests: list[str]
    limit: float
    unreadable: list[tuple[str, str]] = field(default_factory=list)
    images: list[np.ndarray] | None = None
    readers: list[Reader] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return an image, uint8, [height, width].

        An unreadable image is replaced by the next readable one of its source.

        Raises:
            InputError: If no image of the source can be read, or more than the limit cannot.
        """
        if self.images is not None:
            return self.images[index]
        rows = np.flatnonzero(self.source_of == self.source_of[index])
        for row in np.roll(rows, -int(np.searchsorted(rows, index))):
            try:
                return self.readers[row]()
            except InputError as error:
                self._leave_out(self.names[row], error)
        raise InputError(
            f"{self.sources[self.source_of[index]]}: no image of the source can be read."
        )

    def draw(self, step: int, count: int, *, seed: int, batch_of: str = "mixed") -> np.ndarray:
        """Draw the images of a step: a source by its weight, then an image of it, with replacement.

        Args:
            step: Number of the step.
            count: Number of images.
            seed: Seed of the run.
            batch_of: "group": draw one image so, then all from its group, each once as long as the
                group lasts.

        Returns:
            Indices, int64, [count]; always the same for the same arguments.
        """
        generator = np.random.default_rng([seed, step])
        if batch_of == "group":
            members = np.flatnonzero(self.groups == self.groups[self.draw(step, 1, seed=seed)[0]])
            return np.resize(generator.permutation(members), count)
        starts = np.searchsorted(self.source_of, np.arange(len(self.sources) + 1))
        sources = generator.choice(len(self.sources), count, p=self.weights)
        sizes = starts[sources + 1] - starts[sources]
        return starts[sources] + (generator.random(count) * sizes).astype(np.int64)

    @cached_property
    def groups(self) -> np.ndarray:
        """Index of the folder of each image, int64, [n]; a source without folders is one group."""
        return np.unique([name.rpartition("/")[0] for name in self.names], return_inverse=True)[1]

    @property
    def digest(self) -> str:
        """Hash of the names, the digests of decoded images, and the weights."""
        return value_hash(
            [self.names, self.digests, [round(float(weight), 9) for weight in self.weights]]
        )

    def table(self) -> pd.DataFrame:
        """Return number of images and share of the draws of each source."""
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
    edge: int = MAX_EDGE,
) -> Corpus:
    """Find all images of all sources and, if they fit into memory, decode them once.

    Colour becomes grey (luma). Only the training images of a labelled dataset are taken.

    Args:
        sources: Sources of images.
        hold_out: Labelled datasets: an image with the pixels of one of their val or test images is
            left out.
        limit: Share of unreadable images that is tolerated; they are counted, listed and left out.
        memory: Bytes of decoded images to keep; images of a larger corpus are read as they are
            drawn.
        edge: Maximum short side of an image in memory, in pixels.

    Raises:
        InputError: If a source is missing, empty or damaged, more images than the limit are
            unreadable, or all images are the same.
    """
    if not sources:
        raise InputError("the corpus is empty: name at least one source of images.")
    readers = [source_readers(source.path) for source in sources]
    if sum(map(len, readers)) * edge * edge * _BYTES_PER_SQUARE <= memory:
        corpus = _decoded(
            sources, readers, held_out=_val_and_test(hold_out), limit=limit, edge=edge
        )
        digests = corpus.digests
    else:
        if hold_out:
            raise InputError(
                "hold_out: the corpus is too large for the memory to be compared; "
                "raise memory or leave it out."
            )
        corpus = _undecoded(sources, readers, limit=limit)
        sample = np.linspace(0, len(corpus) - 1, 64).astype(int)
        digests = [pixel_digest(corpus[row]) for row in sample]
    if len(set(digests)) == 1 and len(corpus) > 1:
        raise InputError(
            f"the {len(corpus)} images of the corpus are all the same; "
            "there is nothing to learn from them."
        )
    return corpus


def _undecoded(
    sources: Sequence[Source], readers: Sequence[Sequence[tuple[str, Reader]]], *, limit: float
) -> Corpus:
    counts = [len(part) for part in readers]
    named = [
        (f"{source.name}/{member}", reader)
        for source, part in zip(sources, readers, strict=True)
        for member, reader in part
    ]
    return Corpus(
        names=[name for name, _ in named],
        source_of=np.repeat(np.arange(len(counts)), counts),
        weights=draw_shares(sources, counts),
        sources=[source.name for source in sources],
        digests=[],
        limit=limit,
        readers=[reader for _, reader in named],
    )


def _decoded(
    sources: Sequence[Source],
    readers: Sequence[Sequence[tuple[str, Reader]]],
    *,
    held_out: set[str],
    limit: float,
    edge: int,
) -> Corpus:
    total = sum(map(len, readers))
    corpus = Corpus([], np.empty(0), np.empty(0), [source.name for source in sources], [], limit)
    corpus.images = []
    counts: list[int] = []
    with tqdm(total=total, desc="reading the corpus", unit="image") as bar:
        for source, part in zip(sources, readers, strict=True):
            for member, reader in part:
                bar.update()
                _add(corpus, f"{source.name}/{member}", reader, held_out=held_out, edge=edge)
            counts.append(len(corpus.names) - sum(counts))
            if not counts[-1]:
                raise InputError(
                    f"{source.name}: no image of the source is left "
                    f"({len(part)} found, none readable and allowed)."
                )
    _check_limit(corpus.unreadable, total, limit)
    corpus.source_of = np.repeat(np.arange(len(counts)), counts)
    corpus.weights = draw_shares(sources, counts)
    return corpus


def _add(corpus: Corpus, name: str, reader: Reader, *, held_out: set[str], edge: int) -> None:
    """Decode an image into a corpus, or note why it cannot be read."""
    try:
        image = reader()
    except InputError as error:
        corpus.unreadable.append((name, str(error)))
        return
    if (digest := pixel_digest(image)) not in held_out:
        assert corpus.images is not None  # a corpus under construction
        corpus.names.append(name)
        corpus.digests.append(digest)
        corpus.images.append(_reduced(image, edge))


def _val_and_test(datasets: Sequence[ImageDataset]) -> set[str]:
    """Return the digests of the val and test images of datasets."""
    splits = [
        dataset.splits[name]
        for dataset in datasets
        for name in ("val", "test")
        if name in dataset.splits
    ]
    return {pixel_digest(as_grey(image)) for split in splits for image in split.images}


def _check_limit(unreadable: list[tuple[str, str]], total: int, limit: float) -> None:
    if len(unreadable) > limit * total:
        raise InputError(
            f"{len(unreadable)} of {total} images cannot be read, more than the limit of "
            f"{limit:.1%}; the first: {unreadable[0][1]}"
        )


def _reduced(image: np.ndarray, edge: int) -> np.ndarray:
    height, width = image.shape
    if min(height, width) <= edge:
        return image
    share = edge / min(height, width)
    size = (round(width * share), round(height * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
