import numpy as np

from radiodino_utils.pretraining.crops import CropSettings, random_crop


def test_crops_show_the_image_mirrored_brighter_or_not():
    image = np.arange(64 * 96, dtype=np.float32).reshape(64, 96)
    image = (image % 96 * 2).astype(np.uint8)
    plain = CropSettings(
        scale=(1, 1), aspect=(1.5, 1.5), flip=0, brightness=0, contrast=0, gamma=(1, 1)
    )
    crop = random_crop(image, np.random.default_rng(0), plain)
    assert (
        crop[100, 5] < crop[100, 120] < crop[100, 220]
        and abs(int(crop.mean()) - int(image.mean())) <= 1
    )
    flipped = random_crop(
        image, np.random.default_rng(0), CropSettings(**vars(plain) | {"flip": 1})
    )
    assert np.array_equal(flipped, crop[:, ::-1])
