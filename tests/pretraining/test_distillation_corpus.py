"""The list of the distillation corpus: no image of the datasets that judge it, nor a near one."""

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.backbones.registry import bundled_file
from radiodino_utils.data.duplicates import DISTANCE, image_digests, perceptual_hashes
from radiodino_utils.data.images import read_image
from radiodino_utils.data.organct import VIEWS, build_organct
from radiodino_utils.pretraining.separation import (
    hashed,
    least_distances,
    read_hashes,
    repeated_rows,
)
from tools.distillation_corpus import ct_slices

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
    """The list was made with every third crop; eight images have a chance hash of another."""
    _, hashes = listed
    crops = [
        list(file[f"{split}_images"])
        for file in (np.load(build_organct(view), allow_pickle=False) for view in VIEWS)
        for split in ("train", "val", "test")
    ]
    third = [image for part in crops for image in part[::3]]
    assert least_distances(hashes, hashed([*ct_slices(), *third])).min() > DISTANCE
    least = least_distances(hashes, hashed([image for part in crops for image in part]))
    assert least.min() == DISTANCE and (least == DISTANCE).sum() == 8


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
