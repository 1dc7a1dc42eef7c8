"""Pictures that occur twice: the very same pixels, or nearly the same by their perceptual hashes."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

DISTANCE = 8  # bits of 64; in BUSI pairs up to here show one scene, and most pairs above do not


def pixel_hashes(pictures: Sequence[np.ndarray]) -> list[str]:
    """The SHA-256 of each picture's shape and pixels as decoded."""
    return [hashlib.sha256(repr(one.shape).encode() + np.ascontiguousarray(one).data).hexdigest() for one in pictures]


def as_grey(picture: np.ndarray) -> np.ndarray:
    """The picture with its colour made grey (luma), uint8, [height, width]."""
    return np.asarray(Image.fromarray(picture).convert("L")) if picture.ndim == 3 else picture


def pixel_digest(picture: np.ndarray) -> str:
    """SHA-256 of a picture's pixels."""
    return hashlib.sha256(np.ascontiguousarray(picture)).hexdigest()


def picture_digests(pictures: Iterable[np.ndarray]) -> list[str]:
    """SHA-256 of the pixels of each picture after it became grey, as a corpus keeps them."""
    return [pixel_digest(as_grey(np.asarray(picture))) for picture in pictures]


def perceptual_hashes(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The DCT hash of each picture (pHash; the package ImageHash), which bears scaling, compression and brightness.

    Args:
        pictures: uint8, [height, width] or [height, width, 3].

    Returns:
        uint8, [n, 8]: 64 bits each.
    """
    from imagehash import phash

    bits = [np.packbits(phash(Image.fromarray(np.asarray(one))).hash) for one in pictures]
    return np.array(bits, np.uint8).reshape(-1, 8)


def near_pairs(hashes: np.ndarray, *, distance: int = DISTANCE) -> tuple[np.ndarray, np.ndarray]:
    """Finds all pairs of hashes that differ in few bits, exhaustively.

    Args:
        hashes: uint8, [n, bytes].
        distance: Greatest number of bits that may differ.

    Returns:
        Rows of each pair, the lower first, int64, [pairs, 2], sorted; and their distances, int64, [pairs].
    """
    import faiss

    index = faiss.IndexBinaryFlat(8 * hashes.shape[1])
    index.add(np.ascontiguousarray(hashes))
    starts, found_distances, found = index.range_search(np.ascontiguousarray(hashes), distance + 1)  # faiss wants fewer than this
    pairs = np.column_stack([np.repeat(np.arange(len(hashes)), np.diff(starts.astype(np.int64))), found])
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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def duplicate_groups(pictures: Sequence[np.ndarray], *, distance: int = DISTANCE) -> np.ndarray:
    """Numbers pictures so that duplicates share a number, for splits that must not tear them apart.

    The same pixels have the same perceptual hash, so exact duplicates are among the near ones.

    Args:
        pictures: uint8, [height, width] or [height, width, 3].
        distance: Greatest number of bits by which the perceptual hashes of duplicates differ.

    Returns:
        int64, [n].
    """
    pairs, _ = near_pairs(perceptual_hashes(pictures), distance=distance)
    return connected_groups(pairs, len(pictures))
