import numpy as np

from radiodino_utils.data.drawn_folds import segmentation_folds
from radiodino_utils.data.segmentation_dataset import SegmentationDataset


def drawn(n, **changes):
    images = np.random.default_rng(0).integers(0, 255, (n, 32, 32), np.uint8)
    fields = dict(
        name="masks-own",
        classes=("background", "lesion"),
        images=images,
        masks=(images > 200).astype(np.uint8),
        ids=[f"{i}.png" for i in range(n)],
        kinds=[""] * n,
        splits={"train": np.arange(n - 2), "val": np.array([n - 2]), "test": np.array([n - 1])},
        protocol="at random",
        spacing_mm=None,
        digest="1",
        drawn=True,
    )
    return SegmentationDataset(**fields | changes)


def test_each_image_is_tested_once_and_volumes_stay_together(capsys):
    volumes = [f"v{i // 4}" for i in range(28)]
    own = drawn(28, groups=volumes, unit="volume", groups_from="files")
    folds = segmentation_folds([own], folds=5)
    assert [fold.fold for fold in folds] == [0, 1, 2, 3, 4]
    tested = np.concatenate([fold.splits["test"] for fold in folds])
    assert sorted(tested) == list(range(28))
    for fold in folds:
        named = [{volumes[row] for row in rows} for rows in fold.splits.values()]
        assert sum(map(len, named)) == len(set.union(*named)) == 7
        assert fold.images is own.images and fold.digest == own.digest
    assert capsys.readouterr().out == "masks-own: 5 folds, volumes in one fold, seed 0\n"


def test_near_duplicates_stay_together_where_no_groups_are_known():
    own = drawn(20)
    own.images[7] = own.images[3]
    folds = segmentation_folds([own], folds=4)
    assert folds[0].unit == "cluster" and folds[0].groups[3] == folds[0].groups[7]
    for fold in folds:
        assert (3 in fold.splits["test"]) == (7 in fold.splits["test"])


def test_splits_that_are_given_and_too_few_groups_stay(capsys):
    official = drawn(20, drawn=False)
    few = drawn(20, groups=["v1"] * 10 + ["v2"] * 10, unit="volume")
    assert segmentation_folds([official, few]) == [official, few]
    assert "too few for a cross-validation" in capsys.readouterr().out
    three = drawn(9, groups=[f"v{i // 3}" for i in range(9)], unit="volume")
    assert len(segmentation_folds([three])) == 3
