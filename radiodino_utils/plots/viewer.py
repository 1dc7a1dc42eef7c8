"""One image of one's own, with sliders and a click in a notebook."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.extras import extra
from ..data.dicom import is_dicom, read_header
from ..data.headers import read_headers
from ..data.images import read_image
from ..data.intensity import Window, checked_window
from ..data.reading import read_values


class ImageViewer:
    """An image file whose slice, window and point a person may choose.

    Without a person the arguments count. Cells that run after a slider was moved take its value.

    Args:
        path: The file.
        window: See `read_image`.
        index: See `read_image`.
        point: Column and row of a pixel; the middle by default.

    Attributes:
        window: Lower and upper value in use; `None` for the file's own.
        index: Slice, frame or page in use.
        point: Column and row in use.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        window: Window | str | None = None,
        index: int | None = None,
        point: tuple[int, int] | None = None,
    ) -> None:
        self.path = Path(path)
        self.window = checked_window(window, path)
        self.index = index
        self._untouched: Window | None = None  # where the slider of the window starts
        height, width = self.pixels.shape[:2]
        self.point: tuple[int, int] = point or (width // 2, height // 2)

    @property
    def pixels(self) -> np.ndarray:
        """The image by the values in use, uint8, [height, width] or [height, width, 3]."""
        return read_image(self.path, window=self.window, index=self.index)

    def show(self, *, with_point: bool = False) -> None:
        """Display the image in a notebook, below its sliders.

        Args:
            with_point: Whether a click chooses a point, which a cross marks.
        """
        with extra("notebooks"):
            from IPython.display import display
            from ipywidgets import VBox

            from .click_image import ClickImage
        sliders = self._sliders()
        canvas = ClickImage(png=self._png(with_point))

        def moved(_: object) -> None:
            self._take({name: slider.value for name, slider in sliders.items()})
            canvas.png = self._png(with_point)

        def clicked(change: Any) -> None:
            self.point = tuple(change["new"])
            canvas.png = self._png(with_point)

        for slider in sliders.values():
            slider.observe(moved, "value")
        if with_point:
            canvas.observe(clicked, "point")
        display(VBox([*sliders.values(), canvas]))

    def _sliders(self) -> dict[str, Any]:
        with extra("notebooks"):
            from ipywidgets import FloatRangeSlider, IntSlider

        sliders: dict[str, Any] = {}
        options = {"continuous_update": False}
        headers = read_headers(self.path.parent, [self.path], progress=False)
        count = int(headers.files["images"].iloc[0])
        if count > 1:
            middle = count // 2 if self.index is None else self.index
            sliders["index"] = IntSlider(middle, 0, count - 1, description="slice", **options)
        if limits := value_range(self.path, self.index):
            start = self.window if isinstance(self.window, tuple) else limits  # not percentiles
            low, high = min(limits[0], start[0]), max(limits[1], start[1])
            sliders["window"] = FloatRangeSlider(
                value=start, min=low, max=high, description="window", **options
            )
            self._untouched = start
        return sliders

    def _take(self, values: Mapping[str, Any]) -> None:
        self.index = values.get("index", self.index)
        low, high = values.get("window", (0, 0))
        if low < high and (low, high) != self._untouched:
            self.window, self._untouched = (low, high), None

    def _png(self, with_point: bool) -> bytes:
        """Return the image as PNG, perhaps with a cross through the point."""
        pixels = self.pixels.copy()
        if with_point:
            column, row = self.point
            pixels[row, :] = 255 - pixels[row, :]
            pixels[:, column] = 255 - pixels[:, column]
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, "PNG")
        return content.getvalue()


def value_range(path: Path, index: int | None = None) -> Window | None:
    """Return the least and the greatest value of an image, between which a window is chosen.

    Args:
        path: The file.
        index: See `read_image`.

    Returns:
        Two numbers, of CT in HU; `None` for an image in colour, of 8 bits or of one value.
    """
    values = read_values(path, index=index)
    if values.ndim == 3 or values.dtype == np.uint8:
        return None
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    if is_dicom(path):
        header = read_header(path)
        slope = float(header.get("RescaleSlope") or 1)
        intercept = float(header.get("RescaleIntercept") or 0)
        low, high = sorted((low * slope + intercept, high * slope + intercept))
    return (low, high) if low < high else None
