"""Options of radiomics tables."""

from typing import Literal

from pydantic import Field, field_validator

from ..core.config import Config
from ..core.errors import InputError, unknown_name
from ..data.intensity import WINDOWS, Window

PLANES = ("axial", "coronal", "sagittal")  # by the axis across their slices


class RadiomicsOptions(Config):
    """How regions are found and which features they get."""

    labels: tuple[int, ...] = Field(default=(), description="Labels that count; all by default.")
    components: bool = Field(default=False, description="One row per connected component.")
    handcrafted: bool = Field(default=True, description="Compute handcrafted features.")
    resample_mm: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Edge of the cubic voxels for handcrafted features, in mm.",
    )
    bin_width: float = Field(
        default=25.0, gt=0, allow_inf_nan=False, description="Width of a grey level."
    )
    bin_count: int | None = Field(
        default=None, ge=2, le=512, description="Number of grey levels, in place of a width."
    )
    lowest: float | None = Field(
        default=None, allow_inf_nan=False, description="Lower values do not count."
    )
    highest: float | None = Field(
        default=None, allow_inf_nan=False, description="Higher values do not count."
    )
    planes: tuple[str, ...] = Field(
        default=("axial",), min_length=1, description=f"Planes of the slices: {','.join(PLANES)}."
    )
    slices: Literal["all", "largest"] = Field(
        default="all",
        description="Slices that count by their area, or the largest alone.",
    )
    size: int = Field(default=448, ge=1, description="Edge of the slices that the backbone sees.")
    window: str | Window | None = Field(
        default=None, description=f"Window for deep features: {', '.join(WINDOWS)} or LOW,HIGH."
    )
    crop: bool = Field(default=True, description="Embed a crop around each region as well.")
    margin_mm: float = Field(
        default=10.0, ge=0, allow_inf_nan=False, description="Margin of the crop, in mm."
    )

    @field_validator("planes")
    @classmethod
    def _known_planes(cls, planes: tuple[str, ...]) -> tuple[str, ...]:
        planes = tuple(plane for text in planes for plane in text.split(","))
        for plane in planes:
            if plane not in PLANES:
                raise unknown_name("plane", plane, PLANES)
        return planes

    @property
    def grey_window(self) -> Window | None:
        """Lower and upper value that become black and white.

        Raises:
            InputError: If the window is no name and no two numbers.
        """
        if not isinstance(self.window, str):
            return self.window
        if self.window in WINDOWS:
            return WINDOWS[self.window]
        try:
            low, high = map(float, self.window.split(","))
        except ValueError:
            raise InputError(
                f"window '{self.window}': give two numbers such as -160,240, or one of "
                f"{', '.join(WINDOWS)}."
            ) from None
        if not low < high:
            raise InputError(f"window '{self.window}': the lower value comes first.")
        return low, high
