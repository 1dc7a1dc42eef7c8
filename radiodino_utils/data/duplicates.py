"""Duplicate images: identical pixels, or nearly identical by their perceptual hashes."""

import hashlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from ..core.extras import extra
from .images import Images, as_grey

DISTANCE = 8  # bits of 64; in BUSI pairs up to here show one scene, and most pairs above do not


def pixel_hashes(images: Images) -> list[str]:
    """Return the SHA-256 of the shape and the decoded pixels of each image."""
    return [
        hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).data).hexdigest()
        for image in images
    ]


def pixel_digest(image: np.ndarray) -> str:
    """Return the SHA-256 of the pixels of an image."""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()


def image_digests(images: Iterable[np.ndarray]) -> list[str]:
    """Return the SHA-256 of the grey pixels of each image, as a corpus lists them."""
    return [pixel_digest(as_grey(np.asarray(image))) for image in images]


def perceptual_hashes(images: Images) -> np.ndarray:
    """Return the perceptual hash of each image, which tolerates scaling, compression, brightness.

    Source: DCT hash (pHash) of the package ImageHash.

    Args:
        images: uint8, [height, width] or [height, width, 3].

    Returns:
        uint8, [n, 8]: 64 bits per image.
    """
    with extra("evaluation"):
        from imagehash import phash

    hashes = [phash(Image.fromarray(np.asarray(image))).hash for image in images]
    return np.array([np.packbits(bits) for bits in hashes], np.uint8).reshape(-1, 8)


def near_pairs(hashes: np.ndarray, *, distance: int = DISTANCE) -> tuple[np.ndarray, np.ndarray]:
    """Find all pairs of hashes that differ in few bits, by exhaustive search.

    Args:
        hashes: uint8, [n, bytes].
        distance: Largest number of bits that may differ.

    Returns:
        Rows of each pair, the lower one first, int64 [pairs, 2], sorted; and the number of bits in
        which they differ, int64 [pairs].
    """
    with extra("evaluation"):
        import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(hashes))
    # faiss finds distances below the radius
    starts, distances, neighbours = index.range_search(np.ascontiguousarray(hashes), distance + 1)
    counts = np.diff(starts.astype(np.int64)).astype(np.int64)
    pairs = np.column_stack([np.repeat(np.arange(len(hashes)), counts), neighbours])
    order = np.lexsort((pairs[:, 1], pairs[:, 0]))
    order = order[pairs[order, 0] < pairs[order, 1]]
    return pairs[order], distances[order].astype(np.int64)


def connected_groups(pairs: np.ndarray, count: int) -> np.ndarray:
    """Number rows so that rows that pairs connect, directly or in a chain, share a number.

    Args:
        pairs: int64, [pairs, 2].
        count: Number of rows.

    Returns:
        Group of each row, int64, [count].
    """
    with extra("evaluation"):
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def duplicate_groups(images: Images, *, distance: int = DISTANCE) -> np.ndarray:
    """Number images so that duplicates share a number, for splits that must not separate them.

    Equal pixels have equal perceptual hashes, so exact duplicates are among the near ones.

    Args:
        images: uint8, [height, width] or [height, width, 3].
        distance: Largest number of bits in which the perceptual hashes of duplicates differ.

    Returns:
        Group of each image, int64, [n].
    """
    pairs, _ = near_pairs(perceptual_hashes(images), distance=distance)
    return connected_groups(pairs, len(images))
