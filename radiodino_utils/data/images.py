"""Image files of any usual format as 8-bit arrays."""

import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..core.errors import InputError

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".bmp",
    ".tif",
    ".tiff",
    ".gif",
    ".webp",
    ".dcm",
    ".nii",
    ".nii.gz",
)


def read_image(
    path: str | Path, *, window: tuple[float, float] | None = None, index: int | None = None
) -> np.ndarray:
    """Reads a PNG, JPEG, TIFF, DICOM or NIfTI file as an 8-bit image.

    Colour stays colour; transparency is laid over black. Values of more than 8 bits are scaled to
    0..255 from `window`, else from the DICOM file's own window, else from the least and greatest
    value of the image.

    Args:
        path: The file.
        window: Lower and upper value (CT: in HU) that become 0 and 255.
        index: Frame of a DICOM file or slice along the third axis of a NIfTI volume; the middle one
            by default.

    Returns:
        uint8, [height, width] or [height, width, 3].

    Raises:
        InputError: If the file is missing, empty, damaged, or not a image.
    """
    path = Path(path)
    if window is not None and not window[0] < window[1]:
        raise InputError(
            f"{path}: the window {window[0]:g}..{window[1]:g} is empty; give a lower and a greater upper value."
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such image file.")
    if path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty (0 bytes); copy or download it again.")
    name = path.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return _scaled(_nifti_slice(path, index), window, path)
    if name.endswith(".dcm") or _has_dicom_mark(path):
        return _dicom_frame(path, window, index)
    try:
        with Image.open(path) as image:
            image.load()
    except UnidentifiedImageError as error:
        raise InputError(
            f"{path}: not a image that can be read (known: {', '.join(SUFFIXES)})."
        ) from error
    except (
        OSError,
        EOFError,
        SyntaxError,
        ValueError,
        struct.error,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise InputError(
            f"{path}: the image is damaged or truncated ({error}); copy or download it again."
        ) from error
    if image.mode in ("L", "RGB"):
        return np.asarray(image)
    if image.mode.startswith(("I", "F")):
        return _scaled(np.asarray(image), window, path)
    if image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        return np.asarray(image.convert("L" if image.mode == "1" else "RGB"))
    layer = image.convert("RGBA")  # palette and transparent images
    return np.asarray(
        Image.alpha_composite(Image.new("RGBA", layer.size, "black"), layer).convert("RGB")
    )


@dataclass(frozen=True)
class ImageFiles(Sequence):
    """Image files as a sequence of uint8 arrays, each read when asked for.

    Attributes:
        root: The folder that the names count from.
        names: The files' paths in it.
        grey: Whether colour becomes grey (luma).
    """

    root: Path
    names: Sequence[str]
    grey: bool = False

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        image = read_image(self.root / self.names[index])
        return (
            np.asarray(Image.fromarray(image).convert("L"))
            if self.grey and image.ndim == 3
            else image
        )


def resized(image: np.ndarray, size: int | tuple[int, int], interpolation: str) -> np.ndarray:
    """Resizes as the published RadioDINO code does: without keeping the aspect ratio, by PIL.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        size: Edge of a square, or height and width, in pixels.
        interpolation: A key of `INTERPOLATIONS`.

    Returns:
        uint8, [height, width] or [height, width, 3]; the very array where nothing is to be done.
    """
    height, width = (size, size) if isinstance(size, int) else size
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), INTERPOLATIONS[interpolation]))


def windowed(values: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Turns values such as Hounsfield units into grey levels: from `window` to 0..255, cut off outside, uint8."""
    low, high = window
    return np.round(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def stacked(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stacks images of one size: uint8, [n, height, width, 1], or [n, height, width, 3] where one has colour."""
    if len({image.ndim for image in images}) > 1:
        images = [
            image if image.ndim == 3 else np.repeat(image[..., None], 3, -1) for image in images
        ]
    batch = np.stack(images)
    return batch if batch.ndim == 4 else batch[..., None]


def padded(image: np.ndarray, size: int, fill: tuple[float, ...]) -> np.ndarray:
    """Lays a small image in the middle of a square, as the MedMNIST+ benchmark does, instead of
    enlarging it.

    Args:
        image: uint8, [height, width] or [height, width, 3].
        size: Edge of the square in pixels.
        fill: Colour around it, fractions. The mean that is subtracted later makes it zero for the
            backbone.

    Returns:
        uint8, [size, size, 3].

    Raises:
        InputError: If the image is larger than the square.
    """
    height, width = image.shape[:2]
    if max(height, width) > size:
        raise InputError(
            f"a image of {height} x {width} pixels does not fit into {size} x {size}; resize it instead of padding."
        )
    square = np.full((size, size, 3), np.round(255 * np.array(fill)), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = image if image.ndim == 3 else image[..., None]
    return square


def _scaled(values: np.ndarray, window: tuple[float, float] | None, path: Path) -> np.ndarray:
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(
            f"{path}: the image holds NaN or infinite values; repair or leave out the file."
        )
    low, high = window or (float(values.min()), float(values.max()))
    if window is None:
        warnings.warn(
            f"{path}: scaled from {low:g}..{high:g} to 0..255; give a window to choose otherwise.",
            stacklevel=3,
        )
    return windowed(values, (low, high)) if high > low else np.zeros(values.shape, np.uint8)


def _nifti_slice(path: Path, index: int | None) -> np.ndarray:
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.as_closest_canonical(nibabel.load(path))
        volume = image.dataobj
        if len(volume.shape) > 2:
            index = volume.shape[2] // 2 if index is None else index
            if not -volume.shape[2] <= index < volume.shape[2]:
                raise InputError(
                    f"{path}: slice {index} is outside the volume of {volume.shape[2]} slices."
                )
        plane = np.asarray(volume[:, :, index] if len(volume.shape) > 2 else volume)
    except InputError:
        raise
    except (
        nibabel.filebasedimages.ImageFileError,
        HeaderDataError,
        OSError,
        EOFError,
        ValueError,
        zlib.error,
    ) as error:
        raise InputError(f"{path}: the NIfTI file is damaged or truncated ({error}).") from error
    if plane.ndim != 2:
        raise InputError(
            f"{path}: a volume of shape {tuple(volume.shape)}; only 2-D and 3-D files are read."
        )
    return plane.T[
        ::-1, ::-1
    ]  # canonical axes point right, anterior, superior: shown anterior up, patient's right at left


def _has_dicom_mark(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _dicom_frame(path: Path, window: tuple[float, float] | None, index: int | None) -> np.ndarray:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    try:
        file = pydicom.dcmread(path)
        pixels = file.pixel_array
    except (
        pydicom.errors.InvalidDicomError,
        AttributeError,
        OSError,
        EOFError,
        ValueError,
        RuntimeError,
    ) as error:
        raise InputError(f"{path}: the DICOM file cannot be decoded ({error}).") from error
    if int(file.get("NumberOfFrames") or 1) > 1:
        index = len(pixels) // 2 if index is None else index
        if not -len(pixels) <= index < len(pixels):
            raise InputError(f"{path}: frame {index} is outside the file's {len(pixels)} frames.")
        pixels = pixels[index]
    if file.PhotometricInterpretation == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, file)
    if pixels.ndim == 3:  # pydicom has turned YBR into RGB
        return (
            pixels
            if pixels.dtype == np.uint8
            else _scaled(pixels, (0, np.iinfo(pixels.dtype).max), path)
        )
    values = apply_modality_lut(pixels, file)
    if window is None and "VOILUTSequence" in file:
        values = apply_voi_lut(values, file)
    elif (
        window is None
        and file.get("WindowCenter") is not None
        and file.get("WindowWidth") is not None
    ):
        centre, width = (
            np.atleast_1d(file[key].value)[0] for key in ("WindowCenter", "WindowWidth")
        )
        window = (float(centre) - float(width) / 2, float(centre) + float(width) / 2)
    image = _scaled(values, window, path)
    return 255 - image if file.PhotometricInterpretation == "MONOCHROME1" else image
