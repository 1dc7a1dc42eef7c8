"""Images that occur twice: the very same pixels, or nearly the same by their perceptual hashes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from ..core.extras import extra

DISTANCE = 8  # bits of 64; in BUSI pairs up to here show one scene, and most pairs above do not


def pixel_hashes(images: Sequence[np.ndarray]) -> list[str]:
    """The SHA-256 of each image's shape and pixels as decoded."""
    return [
        hashlib.sha256(repr(one.shape).encode() + np.ascontiguousarray(one).data).hexdigest()
        for one in images
    ]


def as_grey(image: np.ndarray) -> np.ndarray:
    """The image with its colour made grey (luma), uint8, [height, width]."""
    return np.asarray(Image.fromarray(image).convert("L")) if image.ndim == 3 else image


def pixel_digest(image: np.ndarray) -> str:
    """SHA-256 of a image's pixels."""
    return hashlib.sha256(np.ascontiguousarray(image)).hexdigest()


def image_digests(images: Iterable[np.ndarray]) -> list[str]:
    """SHA-256 of the pixels of each image after it became grey, as a corpus keeps them."""
    return [pixel_digest(as_grey(np.asarray(image))) for image in images]


def perceptual_hashes(images: Sequence[np.ndarray]) -> np.ndarray:
    """The DCT hash of each image (pHash; the package ImageHash), which bears scaling, compression
    and brightness.

    Args:
        images: uint8, [height, width] or [height, width, 3].

    Returns:
        uint8, [n, 8]: 64 bits each.
    """
    with extra("evaluation"):
        from imagehash import phash

    bits = [np.packbits(phash(Image.fromarray(np.asarray(one))).hash) for one in images]
    return np.array(bits, np.uint8).reshape(-1, 8)


def near_pairs(hashes: np.ndarray, *, distance: int = DISTANCE) -> tuple[np.ndarray, np.ndarray]:
    """Finds all pairs of hashes that differ in few bits, exhaustively.

    Args:
        hashes: uint8, [n, bytes].
        distance: Greatest number of bits that may differ.

    Returns:
        Rows of each pair, the lower first, int64, [pairs, 2], sorted; and their distances, int64,
        [pairs].
    """
    with extra("evaluation"):
        import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(hashes))
    starts, found_distances, found = index.range_search(
        np.ascontiguousarray(hashes), distance + 1
    )  # faiss wants fewer than this
    pairs = np.column_stack(
        [np.repeat(np.arange(len(hashes)), np.diff(starts.astype(np.int64))), found]
    )
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    order = order[pairs[order, 0] < pairs[order, 1]]
    return pairs[order], found_distances[order].astype(np.int64)


def connected_groups(pairs: np.ndarray, count: int) -> np.ndarray:
    """Numbers rows so that those which pairs connect, directly or in a chain, share a number.

    Args:
        pairs: int64, [pairs, 2].
        count: Number of rows.

    Returns:
        int64, [count].
    """
    with extra("evaluation"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def duplicate_groups(images: Sequence[np.ndarray], *, distance: int = DISTANCE) -> np.ndarray:
    """Numbers images so that duplicates share a number, for splits that must not tear them apart.

    The same pixels have the same perceptual hash, so exact duplicates are among the near ones.

    Args:
        images: uint8, [height, width] or [height, width, 3].
        distance: Greatest number of bits by which the perceptual hashes of duplicates differ.

    Returns:
        int64, [n].
    """
    pairs, _ = near_pairs(perceptual_hashes(images), distance=distance)
    return connected_groups(pairs, len(images))
