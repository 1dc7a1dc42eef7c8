"""An image of one's own with sliders, without a person."""

import io

import numpy as np
import pytest
from PIL import Image

from radiodino_utils.plots.viewer import ImageViewer, value_range

from ..data.test_dicom import dicom


@pytest.fixture
def slices(tmp_path):
    """A CT file of three frames, of -100 to 200 HU."""
    frames = np.arange(300, dtype=np.int16).reshape(3, 10, 10)
    dicom(tmp_path / "ct.dcm", frames, RescaleSlope=1, RescaleIntercept=-100)
    return tmp_path / "ct.dcm"


def test_sliders_span_what_the_file_holds(slices):
    viewer = ImageViewer(slices, window=(0.0, 50.0), index=1)
    sliders = viewer._sliders()
    assert list(sliders) == ["index", "window"]
    assert (sliders["index"].value, sliders["index"].max) == (1, 2)
    assert sliders["window"].value == (0, 50) and sliders["window"].min == 0
    assert value_range(slices, 0) == (-100, -1)


def test_cells_below_take_what_a_person_chose(slices, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", shown.append)
    viewer = ImageViewer(slices, window=(-100.0, 200.0))
    viewer.show(with_point=True)
    index, window, canvas = shown[0].children
    index.value, window.value = 0, (-100.0, -1.0)
    canvas.point = [2, 3]
    assert (viewer.index, viewer.window, viewer.point) == (0, (-100, -1), (2, 3))
    assert viewer.pixels.min() == 0 and viewer.pixels.max() == 255
    drawn = np.asarray(Image.open(io.BytesIO(canvas.png)))
    assert (drawn[3, 4:] == 255 - viewer.pixels[3, 4:]).all()


@pytest.mark.filterwarnings("ignore")
def test_an_untouched_slider_changes_nothing(slices):
    viewer = ImageViewer(slices)
    sliders = viewer._sliders()
    viewer._take({name: slider.value for name, slider in sliders.items()})
    assert viewer.window is None


def test_an_image_of_8_bits_has_no_window(tmp_path):
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "a.png")
    viewer = ImageViewer(tmp_path / "a.png", point=(1, 2))
    assert viewer._sliders() == {} and viewer.point == (1, 2)
