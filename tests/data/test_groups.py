import numpy as np
import pytest

from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.data.groups import with_groups
from radiodino_utils.data.registry import load_dataset


def undivided(images, labels, **changes):
    ids = [f"{i}.png" for i in range(len(labels))]
    split = Split(np.stack(images), np.array(labels), ids, **changes)
    return ImageDataset("own", ("a", "b"), {"all": split}, digest="1")


@pytest.fixture
def noise():
    return list(np.random.default_rng(0).integers(0, 255, (20, 32, 32), np.uint8))


def test_copies_of_an_image_share_a_group(noise, capsys):
    dataset = with_groups(undivided([*noise, noise[3], noise[3] // 2], [0, 1] * 11))
    groups = dataset.splits["all"].groups
    assert groups[3] == groups[20] == groups[21] and len(set(groups)) == 20
    assert (dataset.unit, dataset.groups_from) == (
        "cluster",
        "near duplicates, up to 8 of 64 bits",
    )
    assert capsys.readouterr().out == (
        "own: no groups are known; near duplicates make 20 clusters of 22 images.\n"
    )


def test_images_that_are_not_alike_stay_without_groups(noise, capsys):
    dataset = undivided(noise, [0, 1] * 10)
    assert with_groups(dataset) is dataset
    assert "no near duplicates were found" in capsys.readouterr().out


def test_images_of_one_kind_do_not_become_one_cluster():
    generator = np.random.default_rng(0)
    scene = generator.normal(128, 40, (8, 8)).repeat(8, 0).repeat(8, 1)
    alike = [
        np.clip(scene + generator.normal(0, 30, (8, 8)).repeat(8, 0).repeat(8, 1), 0, 255)
        for _ in range(40)
    ]
    dataset = undivided([image.astype(np.uint8) for image in alike], [0, 1] * 20)
    grouped = with_groups(dataset)
    groups = grouped.splits["all"].groups
    assert groups is None or min(len(set(groups[0::2])), len(set(groups[1::2]))) >= 5


def test_known_groups_and_splits_stay(noise):
    known = undivided(noise, [0, 1] * 10, groups=["p1"] * 20)
    assert with_groups(known) is known
    official = load_dataset("organct-axial")
    assert with_groups(official) is official
