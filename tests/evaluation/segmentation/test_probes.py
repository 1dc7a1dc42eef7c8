from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.segmentation import with_labelled
from radiodino_utils.evaluation.segmentation.metrics import score_images
from radiodino_utils.evaluation.segmentation.probes import PROBES, segment, segment_unet
from radiodino_utils.evaluation.segmentation.results import segmentation_rows
from radiodino_utils.evaluation.segmentation.training import Training
from radiodino_utils.features.patch_maps import DenseFeatures, extract_patch_maps

from ...conftest import REPOSITORY
from ...synthetic_segmentation import synthetic_segmentation

FAST = Training(learning_rates=(1e-2, 3e-2), epochs=12, patience=4, batch_size=3)


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Maps with the class shares of each patch of 8 in images of 64 x 64, and channels of noise."""
    dataset = synthetic_segmentation(shape=(64, 64), classes=3)
    truth = (
        np.stack([dataset.masks == label for label in range(3)], 1)
        .reshape(13, 3, 8, 8, 8, 8)
        .mean((3, 5))
    )
    noise = np.random.default_rng(0).normal(size=(13, 5, 8, 8)) * 0.3
    maps = np.concatenate([noise, truth], 1).astype(np.float16)
    return DenseFeatures(
        dataset, "made", "0123456789ab", (0,), 64, maps, tmp_path_factory.mktemp("maps")
    )


def dice(segmentation):
    rows = segmentation_rows(score_images(segmentation, outlines=False), resamples=10)
    return rows.set_index("metric").loc["dice_pooled", "value"]


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_finds_what_lies_in_the_maps(features, probe):
    result = segment(features, probe=probe, training=FAST, ks=(1, 3))
    assert result.scores.shape[:2] == (4, 3)
    assert result.predicted(0, (64, 60)).shape == (64, 60)
    assert result.choice.keys() == ({"k"} if probe == "knn" else {"lr", "epoch"})
    assert dice(result) > 0.7
    shuffled = replace(features, maps=np.random.default_rng(1).permutation(features.maps))
    assert dice(segment(shuffled, probe=probe, training=FAST, ks=(1, 3))) < 0.5


@pytest.mark.parametrize("probe", PROBES)
def test_the_same_seed_gives_the_same(features, probe):
    state = torch.random.get_rng_state()
    one, again, other = (
        segment(features, probe=probe, training=replace(FAST, epochs=2), memory=100, seed=seed)
        for seed in (0, 0, 1)
    )
    assert np.array_equal(one.scores, again.scores)
    assert not np.array_equal(one.scores, other.scores)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_nothing_is_chosen_on_the_test_split(features):
    dataset = features.dataset
    hidden = dataset.masks.copy()
    hidden[dataset.splits["test"]] = 0
    blind = replace(dataset, masks=hidden, small={})
    for probe in PROBES:
        seen, unseen = (
            segment(features, probe=probe, dataset=split, training=FAST)
            for split in (dataset, blind)
        )
        assert np.array_equal(seen.scores, unseen.scores)
        assert seen.choice == unseen.choice


def test_the_unet_learns_from_scratch_on_the_same_split(features):
    result = segment_unet(features.dataset, size=64, channels=(8, 16, 32), training=FAST)
    assert (result.backbone, result.probe, result.labelled) == ("none", "unet", 6)
    assert dice(result) > 0.5


def test_fewer_labelled_images(features):
    result = segment(features, dataset=with_labelled(features.dataset, 2), training=FAST)
    assert result.labelled == 2


@pytest.mark.parametrize("split", ["train", "val"])
def test_masks_that_are_all_background(features, split):
    masks = features.dataset.masks.copy()
    masks[features.dataset.splits[split]] = 0
    empty = replace(features.dataset, masks=masks, small={})
    message = f"made-split: the masks of the {split} split are all background"
    with pytest.raises(InputError, match=message):
        segment(features, dataset=empty, training=FAST)
    with pytest.raises(InputError, match=message):
        segment_unet(empty, size=32, training=FAST)


def test_unknown_probe_and_size(features):
    with pytest.raises(InputError, match="unknown probe 'linnear'; did you mean linear"):
        segment(features, probe="linnear")
    with pytest.raises(InputError, match="size 60: is not a multiple of 8"):
        segment_unet(features.dataset, size=60)


def test_from_a_backbone_to_result_rows(tiny_backbone):
    dataset = synthetic_segmentation()
    maps = extract_patch_maps(
        tiny_backbone, dataset, size=64, blocks=(0, 1), engine="torch", precision="fp32"
    )
    rows = segmentation_rows(
        score_images(segment(maps, probe="decoder", training=replace(FAST, epochs=3)))
    )
    assert set(rows["protocol"]) == {"seg-decoder"}
    assert set(rows["weights"]) == {tiny_backbone.fingerprint}
    assert rows["value"].notna().all()


def test_the_demos_linear_probe_beats_random_weights():
    rows = pd.read_csv(REPOSITORY / "results" / "demo" / "tables" / "05_segmentation_rows.csv")
    dice = rows[(rows["metric"] == "dice") & (rows["protocol"] == "seg-linear")].set_index(
        "backbone"
    )
    assert dice.loc["radiodino-mini", "value"] >= dice.loc["random-t16", "value"] + 0.15
    assert dice.loc["radiodino-mini", "ci_low"] > dice.loc["random-t16", "ci_high"]
