"""A small synthetic BUSI in the layout of the release."""

from pathlib import Path

import numpy as np
from PIL import Image

from radiodino_utils.data.busi import CLASSES


def synthetic_busi(folder: Path, *, counts=(6, 8, 7), colour=True, seed=0, size=(40, 48)) -> Path:
    """Write different images of coarse noise, with masks named as in the release.

    Every lesion is a rectangle. The first benign image has a second mask, and the last malignant
    image is a copy of it.
    """
    generator = np.random.default_rng(seed)
    for name, count in zip(CLASSES, counts, strict=True):
        (folder / name).mkdir(parents=True)
        for number in range(1, count + 1):
            image = np.kron(
                generator.integers(0, 256, (size[0] // 4, size[1] // 4), np.uint8),
                np.ones((4, 4), np.uint8),
            )
            if name == "malignant" and number == count:
                image = np.asarray(Image.open(folder / "benign" / "benign (1).png").convert("L"))
            mask = np.zeros(size, np.uint8)
            if name != "normal":
                mask[5 : 10 + number, 10:20] = 255
            write_png(
                folder / name / f"{name} ({number}).png",
                np.repeat(image[..., None], 3, 2) if colour else image,
            )
            write_png(folder / name / f"{name} ({number})_mask.png", mask)
    second = np.zeros(size, np.uint8)
    second[30:35, 30:40] = 255
    write_png(
        folder / "benign" / "benign (1)_mask_1.png",
        np.repeat(second[..., None], 3, 2) if colour else second,
    )
    return folder


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit image."""
    Image.fromarray(image).save(path)
