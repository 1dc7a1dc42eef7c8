"""The list of the distillation corpus: no image of the datasets that judge it, nor a near one."""

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.backbones.registry import bundled_file
from radiodino_utils.data.demo_ct import fetch_wheel, read_volume
from radiodino_utils.data.duplicates import DISTANCE, image_digests, perceptual_hashes
from radiodino_utils.data.images import read_image
from radiodino_utils.data.intensity import windowed
from radiodino_utils.data.organct import VIEWS, build_organct
from radiodino_utils.pretraining.separation import (
    hashed,
    least_distances,
    read_hashes,
    repeated_rows,
)

ACROSS = 4  # bits: greatest distance of repeats between the two folders of sources


@pytest.fixture(scope="module")
def listed():
    return read_hashes(bundled_file("distillation-corpus.csv.gz"))


def test_no_image_of_busi_or_breastmnist(listed, shared_data):
    digests, hashes = listed
    busi = [
        read_image(path)
        for path in sorted((shared_data / "busi").rglob("*.png"))
        if "mask" not in path.name
    ]
    assert len(busi) == 780
    for size in ("", "_64", "_128", "_224"):
        with np.load(shared_data / "medmnist" / f"breastmnist{size}.npz") as file:
            images = [
                image for split in ("train", "val", "test") for image in file[f"{split}_images"]
            ]
        assert len(images) == 780 and set(digests).isdisjoint(image_digests(images))
    assert set(digests).isdisjoint(image_digests(busi))
    assert least_distances(hashes, hashed([*busi, *images])).min() > DISTANCE


@pytest.mark.slow
def test_nothing_of_the_ct_of_the_demo(listed):
    _, hashes = listed
    volume = read_volume(fetch_wheel())[0]
    slices = []
    for axis, step in ((2, 1), (1, 6), (0, 6)):
        for plane in np.moveaxis(volume, axis, 0)[::step]:
            upright = plane.T if axis == 2 else plane.T[::-1]
            slices += [
                windowed(upright, window) for window in ((-160, 240), (-1350, 150), (-1000, 1000))
            ]
    crops = []
    for view in VIEWS:
        with np.load(build_organct(view)) as file:
            crops += [
                image
                for split in ("train", "val", "test")
                for image in file[f"{split}_images"][::3]
            ]
    assert least_distances(hashes, hashed([*slices, *crops])).min() > DISTANCE


def test_the_two_folders_of_sources_share_no_image(listed):
    digests, hashes = listed
    arguments = bundled_file("radiodino-mini.args").read_text().splitlines()
    sources = [
        after for option, after in zip(arguments, arguments[1:], strict=False) if option == "--data"
    ]
    second = {path.split("/")[1].split(".")[0] for path in sources if path.startswith("corpus2/")}
    names = pd.read_csv(bundled_file("distillation-corpus.csv.gz"))["name"]
    within = np.array([name.split("/")[0] in second for name in names])
    assert len(set(digests)) == len(digests) and 0 < within.sum() < len(within)
    assert (
        not repeated_rows(hashes, distance=ACROSS, within=within).any()
        and not repeated_rows(hashes).any()
    )


def test_the_hashes_would_show_a_copy(listed, shared_data):
    with np.load(shared_data / "medmnist" / "breastmnist_224.npz") as file:
        image = file["train_images"][0]
    smaller = np.asarray(image)[::2, ::2]
    assert least_distances(perceptual_hashes([smaller]), hashed([image])).max() <= DISTANCE
