"""Duplicates by pixels and by perceptual hashes."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from radiodino_utils.data.duplicates import (
    connected_groups,
    duplicate_groups,
    near_pairs,
    perceptual_hashes,
    pixel_hashes,
)


def blocks(seed, size=64):
    """An image of coarse random blocks."""
    grid = np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)
    return np.asarray(Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC))


def test_copies_share_a_group_however_they_were_changed():
    image, other = blocks(0), blocks(1)
    darker = (image * 0.8).astype(np.uint8)
    smaller = np.asarray(Image.fromarray(image).resize((50, 40)))
    colour = np.repeat(image[..., None], 3, 2)
    groups = duplicate_groups([image, other, darker, smaller, colour, image, other])
    assert groups.tolist() == [0, 1, 0, 0, 0, 0, 1]
    assert groups.dtype == np.int64


def test_pixel_hashes_tell_shapes_apart():
    flat = np.zeros((2, 8), np.uint8)
    assert len({*pixel_hashes([flat, flat.T, flat.reshape(4, 4), flat])}) == 3


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(2, 30), st.just(8)),
        elements=st.sampled_from([0, 1, 3, 7, 255]),
    ),
    st.integers(0, 64),
)
def test_pairs_are_those_of_the_definition(hashes, distance):
    pairs, distances = near_pairs(hashes, distance=distance)
    bits = np.unpackbits(hashes, axis=1)
    expected = (bits[:, None] != bits[None]).sum(-1)
    assert pairs.tolist() == [list(pair) for pair in np.argwhere(np.triu(expected <= distance, 1))]
    assert distances.tolist() == expected[tuple(pairs.T)].tolist()


def test_chains_are_one_group():
    assert connected_groups(np.array([[0, 2], [2, 4], [1, 3]]), 6).tolist() == [0, 1, 0, 1, 0, 2]
    assert connected_groups(np.empty((0, 2), np.int64), 3).tolist() == [0, 1, 2]


def test_no_images_give_no_hashes():
    assert perceptual_hashes([]).shape == (0, 8)
    assert duplicate_groups([]).shape == (0,)
