"""A corpus kept apart from held-out images and free of repeats, and the list that proves it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import atomic
from ..data.duplicates import DISTANCE, near_pairs, perceptual_hashes
from ..data.images import resized
from .corpus import Corpus

SIMILARITY = 0.95  # cosine of embeddings


def kept(corpus: Corpus, rows: np.ndarray) -> Corpus:
    """Return a corpus with some of its images; every source keeps its share of the draws.

    Args:
        corpus: Corpus.
        rows: bool, [n], which images to keep.

    Raises:
        InputError: If a source loses all its images.
    """
    counts = np.bincount(corpus.source_of[rows], minlength=len(corpus.sources))
    if not counts.all():
        raise InputError(
            f"{corpus.sources[int(np.argmin(counts))]}: no image of the source may be kept; "
            "leave it out."
        )
    indices = np.flatnonzero(rows)
    return replace(
        corpus,
        names=[corpus.names[index] for index in indices],
        digests=[corpus.digests[index] for index in indices if corpus.digests],
        source_of=corpus.source_of[indices],
        images=None if corpus.images is None else [corpus.images[index] for index in indices],
        readers=[corpus.readers[index] for index in indices if corpus.readers],
    )


def held_back(corpus: Corpus, count: int, *, seed: int = 0) -> tuple[Corpus, list[np.ndarray]]:
    """Take images out of a corpus at random; the first image of each source stays.

    Args:
        corpus: Corpus.
        count: Number of images to take.
        seed: Seed of the draw.

    Returns:
        The rest, and the images, uint8, [height, width] each.
    """
    first = np.unique(corpus.source_of, return_index=True)[1]
    others = np.setdiff1d(np.arange(len(corpus)), first)
    taken = np.random.default_rng(seed).permutation(others)[:count]
    rows = np.ones(len(corpus), bool)
    rows[taken] = False
    return kept(corpus, rows), [corpus[index] for index in taken]


def sparsely(corpus: Corpus, limits: dict[str, int], *, seed: int = 0) -> Corpus:
    """Return a corpus with a limited number of images of some sources, drawn at random.

    Args:
        corpus: Corpus decoded in memory.
        limits: Maximum number of images by the name of the source.
        seed: Seed of the draw.
    """
    rows = np.ones(len(corpus), bool)
    generator = np.random.default_rng(seed)
    for name, count in limits.items():
        members = np.flatnonzero(corpus.source_of == corpus.sources.index(name))
        rows[generator.permutation(members)[count:]] = False
    return kept(corpus, rows)


def near_rows(hashes: np.ndarray, held_out: np.ndarray, *, distance: int = DISTANCE) -> np.ndarray:
    """Return which rows differ from any held-out one in at most `distance` bits.

    Args:
        hashes: Returned by `duplicates.perceptual_hashes`, uint8, [n, 8].
        held_out: The same of the held-out images, [m, 8].
        distance: Maximum number of bits.

    Returns:
        bool, [n].
    """
    return least_distances(hashes, held_out) <= distance


def least_distances(hashes: np.ndarray, held_out: np.ndarray) -> np.ndarray:
    """Return the bits by which each row differs from the nearest held-out one.

    Args:
        hashes: uint8, [n, 8].
        held_out: uint8, [m, 8].

    Returns:
        int64, [n].
    """
    with extra("evaluation"):
        import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(held_out))
    return index.search(np.ascontiguousarray(hashes), 1)[0][:, 0].astype(np.int64)


def thumbnails(images: Sequence[np.ndarray], *, size: int = 32) -> np.ndarray:
    """Return small versions of images with zero mean.

    Their cosine is the correlation of the grey levels.

    Args:
        images: uint8, [height, width] each.
        size: Edge in pixels.

    Returns:
        float32, [n, size x size].
    """
    small = [
        resized(np.asarray(image), size, "bilinear").astype(np.float32).ravel() for image in images
    ]
    return np.stack([image - image.mean() + 1e-6 for image in small])


def similar_rows(
    embeddings: np.ndarray, held_out: np.ndarray, *, similarity: float = SIMILARITY
) -> np.ndarray:
    """Return which rows have a cosine above `similarity` with any held-out one, bool, [n].

    Args:
        embeddings: float, [n, width].
        held_out: float, [m, width].
        similarity: Minimum cosine.
    """
    own, others = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (embeddings, held_out)
    )
    parts = np.array_split(own, len(own) // 1024 + 1)
    return np.concatenate([(part @ others.T).max(1) > similarity for part in parts])


def repeated_rows(
    hashes: np.ndarray, *, distance: int = 0, within: np.ndarray | None = None
) -> np.ndarray:
    """Return which rows repeat an earlier one.

    Args:
        hashes: uint8, [n, 8].
        distance: Maximum number of bits by which repeats differ.
        within: Number of the corpus of each row, [n]: only repeats across corpora count; by
            default all repeats.

    Returns:
        bool, [n].
    """
    pairs, _ = near_pairs(hashes, distance=distance)
    if within is not None:
        pairs = pairs[within[pairs[:, 0]] != within[pairs[:, 1]]]
    rows = np.zeros(len(hashes), bool)
    rows[pairs[:, 1]] = True
    return rows


def write_list(corpus: Corpus, hashes: np.ndarray, path: Path) -> None:
    """Write name, SHA-256 of the pixels and perceptual hash (hexadecimal) of every image, as CSV.

    Args:
        corpus: Corpus decoded in memory.
        hashes: uint8, [n, 8].
        path: The file; compressed where it ends in `.gz`.
    """
    table = pd.DataFrame(
        {
            "name": corpus.names,
            "sha256": corpus.digests,
            "perceptual": [bits.tobytes().hex() for bits in hashes],
        }
    )
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n", compression="infer")


def read_hashes(path: Path) -> tuple[list[str], np.ndarray]:
    """Read a list that `write_list` wrote.

    Returns:
        SHA-256 of the images, and their perceptual hashes, uint8, [n, 8].
    """
    table = pd.read_csv(path, dtype=str)
    hashes = [np.frombuffer(bytes.fromhex(text), np.uint8) for text in table["perceptual"]]
    return table["sha256"].tolist(), np.stack(hashes)


def hashed(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return the perceptual hashes of images and of their mirror images, uint8, [2 n, 8]."""
    mirrored = [np.asarray(image)[:, ::-1] for image in images]
    return np.concatenate([perceptual_hashes(images), perceptual_hashes(mirrored)])


def only_listed(corpus: Corpus, path: Path) -> Corpus:
    """Return the images of a corpus that a list names, in the order of the corpus.

    Args:
        corpus: Corpus decoded in memory.
        path: A list that `write_list` wrote.

    Raises:
        InputError: If the list is damaged, or names an image that the corpus lacks.
    """
    if corpus.images is None:
        raise InputError(
            "the corpus is too large for the memory to be compared image by image; raise memory."
        )
    try:
        listed = set(pd.read_csv(path, dtype=str)["sha256"])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"{path}: not a list of a corpus ({error}); name one with a column sha256."
        ) from error
    if absent := listed - set(corpus.digests):
        raise InputError(
            f"{path}: names {len(absent)} of {len(listed)} images that the corpus lacks; "
            "name all its sources."
        )
    return kept(corpus, np.isin(corpus.digests, list(listed)))
