import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.sizes import at_size
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.patches import (
    patch_at,
    patch_pca,
    patch_similarity,
    patch_tokens,
)

from ..conftest import tiny_transformer


@pytest.fixture(scope="module")
def backbone():
    return from_model("tiny", tiny_transformer(img_size=96, reg_tokens=4), "made")


def images(n=3, seed=0):
    """Dark images with a textured bright square each."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, 20, (n, 96, 96), np.uint8)
    for i in range(n):
        drawn[i, 16 : 64 + 16 * (i % 2), 32:80] = generator.integers(
            120, 256, (48 + 16 * (i % 2), 48)
        )
    return list(drawn)


def test_tokens_are_timms_own_on_their_grid(backbone):
    wide = at_size(backbone, (48, 80))
    image = images()[0]
    batch = (
        np.repeat(wide.seen(image)[..., None], 3, -1) / 255 - wide.preprocessing.mean
    ) / wide.preprocessing.std
    with torch.inference_mode():
        expected = wide.model.forward_intermediates(
            torch.tensor(batch, dtype=torch.float32).permute(2, 0, 1)[None],
            indices=1,
            norm=True,
            intermediates_only=True,
        )[0][0]
    tokens = patch_tokens(wide, image)
    assert tokens.shape == (3, 5, 128)
    np.testing.assert_allclose(tokens.transpose(2, 0, 1), expected, atol=1e-4)


def test_colours_are_the_same_at_every_run_and_in_any_order(backbone):
    shown = images(4)
    first, again = patch_pca(backbone, shown), patch_pca(backbone, shown)
    reverse = patch_pca(backbone, shown[::-1])
    np.testing.assert_array_equal(first.colours, again.colours)
    np.testing.assert_allclose(reverse.colours[::-1], first.colours, atol=1e-4)
    np.testing.assert_array_equal(reverse.foreground[::-1], first.foreground)


def test_the_foreground_is_the_bright_side_and_the_background_black(backbone):
    shown = images()
    result = patch_pca(backbone, shown)
    colours, foreground = result.colours, result.foreground
    grey = np.stack([image.reshape(6, 16, 6, 16).mean((1, 3)) for image in shown])
    assert foreground[grey > 100].mean() > 0.95 and foreground[grey < 30].mean() < 0.05
    assert not colours[~foreground].any()
    assert colours.min() >= 0 and colours.max() == 1
    for channel in range(3):
        values = colours[foreground][:, channel]
        assert np.corrcoef(values, grey[foreground])[0, 1] > -1e-6
    assert list(result.shares) == sorted(result.shares, reverse=True)


def test_the_basis_is_common(backbone):
    """An image shown twice has the same colours twice."""
    first, second = images(2)
    colours = patch_pca(backbone, [first, second, first]).colours
    np.testing.assert_allclose(colours[0], colours[2], atol=1e-6)


def test_images_that_show_nothing(tiny_backbone):
    with pytest.raises(InputError, match="the patches of the images do not differ"):
        tiny_backbone.model.pos_embed.data.zero_()
        patch_pca(tiny_backbone, [np.zeros((32, 32), np.uint8)] * 2)


def test_a_patch_is_most_like_itself(backbone):
    shown = images()
    similarity = patch_similarity(backbone, shown[0], (50, 20), shown)
    assert similarity.shape == (3, 6, 6) and np.abs(similarity).max() <= 1 + 1e-5
    assert similarity[0, 20 // 16, 50 // 16] == pytest.approx(1, abs=1e-5)
    assert np.unravel_index(similarity[0].argmax(), (6, 6)) == (1, 3)


@given(size=st.tuples(st.integers(16, 300), st.integers(16, 300)), data=st.data())
def test_every_pixel_lies_in_one_patch(size, data):
    backbone = WIDE
    y, x = (data.draw(st.integers(0, edge - 1)) for edge in size)
    row, column = patch_at(backbone, np.zeros(size, np.uint8), (x, y))
    assert row <= y * 3 / size[0] < row + 1 and column <= x * 5 / size[1] < column + 1


WIDE = at_size(from_model("tiny", tiny_transformer(), "made"), (48, 80))


@pytest.mark.parametrize("point", [(96, 0), (0, 96), (-1, 5)])
def test_a_point_outside(backbone, point):
    with pytest.raises(
        InputError,
        match=rf"^point \({point[0]}, {point[1]}\): outside the image of 96 columns and 96 rows",
    ):
        patch_similarity(backbone, images()[0], point, images())


def test_pixels_have_no_patches():
    for call in (
        lambda one: patch_pca(one, images()),
        lambda one: patch_similarity(one, images()[0], (0, 0), images()),
    ):
        with pytest.raises(InputError, match="^pixels: has no attention to show"):
            call(load_backbone("pixels"))
