import numpy as np
import pandas as pd
import pytest

from radiodino_utils.explain.attention import Attention, mass_masks
from radiodino_utils.plots.explanations import (
    Panel,
    attention_heads,
    map_sheet,
    score_intervals,
    similarity_sheet,
)

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 90), np.uint8)
MAP = np.arange(6.0).reshape(2, 3) + 1


def test_an_image_that_is_not_square_is_not_stretched():
    figure = map_sheet({"row": [Panel("image", IMAGE), Panel("map", IMAGE, MAP)]}, title="maps")
    figure.canvas.draw()
    for axis in figure.axes[:2]:
        box = axis.get_window_extent()
        assert box.width / box.height == pytest.approx(90 / 60, rel=0.01)


def test_the_map_and_its_grid_lie_on_the_image():
    axis = map_sheet({"": [Panel("map", IMAGE, MAP)]}, title="maps").axes[0]
    image, map_ = axis.images
    assert list(map_.get_extent()) == list(image.get_extent()) == [-0.5, 89.5, 59.5, -0.5]
    np.testing.assert_allclose(map_.get_array(), MAP / MAP.mean())
    places = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines]
    assert places == [(0, 29.5), (29.5, 0), (59.5, 0)]  # one horizontal line, two vertical ones
    assert image.get_array().max() <= 127  # dimmed under the map


def test_all_maps_share_one_scale():
    panels = [Panel("even", IMAGE, np.ones((2, 3))), Panel("peaked", IMAGE, np.eye(3)[:2])]
    figure = map_sheet({"": panels}, title="maps", top=2.0)
    assert {axis.images[1].get_clim() for axis in figure.axes[:2]} == {(0.0, 2.0)}


def test_outlines_follow_masks_up_to_the_edge():
    mask = np.zeros(IMAGE.shape, bool)
    mask[:20, 30:60] = True  # touches the upper edge
    axis = map_sheet({"": [Panel("map", IMAGE, MAP, outlines=[mask])]}, title="maps").axes[0]
    (path,) = axis.collections[0].get_paths()
    box = path.get_extents()
    assert (box.x0, box.x1) == pytest.approx((29.5, 59.5), abs=0.6)
    assert (box.y0, box.y1) == pytest.approx((-0.5, 19.5), abs=0.6)


def test_the_outlined_patches_hold_the_share():
    maps = np.random.default_rng(0).random((1, 2, 4, 4), dtype=np.float32)
    attention = Attention(np.zeros((1, 2, 17)), maps, IMAGE[:48, :48], np.zeros(8))
    figure = attention_heads(attention, title="tiny", share=0.5)
    titles = [axis.get_title() for axis in figure.axes[:4]]
    assert titles == ["image", "head 1", "head 2", "mean of heads"]
    assert "50\u00a0%" in figure.get_suptitle()
    area = mass_masks(maps, 0.5)[0, 0].sum() * 12 * 12
    drawn = figure.axes[1].collections[0].get_paths()[0].to_polygons()
    shoelace = sum((p[:-1, 0] * p[1:, 1] - p[1:, 0] * p[:-1, 1]).sum() / 2 for p in drawn)
    assert abs(shoelace) == pytest.approx(area, rel=0.1)


def test_the_chosen_and_the_best_patch_are_framed():
    figure = similarity_sheet(
        IMAGE, (1, 2), {"tiny": (MAP[None] / 6, [IMAGE])}, ["another"], title="likeness"
    )
    for axis in figure.axes[:2]:
        (frame,) = axis.patches
        edges = (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height())
        assert edges == (59.5, 29.5, 30, 30)


def test_the_numbers_of_images_are_in_the_title():
    scores = pd.DataFrame(
        {"protocol": ["attention", "even"], "backbone": "tiny", "metric": "road", "n": [4, 5]}
    ).assign(value=0.2, ci_low=0.1, ci_high=0.3)
    for some, n in ((scores, "4 to 5"), (scores.tail(1), "5")):
        title = score_intervals(some).get_suptitle().replace("\n", " ")
        assert f"n = {n} images" in title
