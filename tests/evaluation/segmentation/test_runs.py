"""Every probe runs on all patch maps, and a table says what each chose."""

from itertools import product
from pathlib import Path

import numpy as np

from radiodino_utils.evaluation.segmentation.probes import segment
from radiodino_utils.evaluation.segmentation.runs import choice_table, segment_all
from radiodino_utils.evaluation.segmentation.training import Training
from radiodino_utils.features.patch_maps import DenseFeatures

from ...synthetic_segmentation import synthetic_segmentation


def patch_maps(backbone: str, seed: int) -> DenseFeatures:
    dataset = synthetic_segmentation(shape=(32, 32))
    maps = np.random.default_rng(seed).normal(size=(len(dataset), 4, 4, 4)).astype(np.float16)
    return DenseFeatures(dataset, backbone, "weights", (-1,), 32, maps, Path("maps.npy"))


def test_segmentations_come_by_features_then_probe_then_seed() -> None:
    features = [patch_maps("first", 0), patch_maps("second", 1)]
    training = Training(learning_rates=(1e-2,), epochs=1)
    runs = segment_all(features, probes=["linear", "knn"], training=training, seeds=[0, 3])
    order = product(("first", "second"), ("linear", "knn"), (0, 3))
    assert [(run.backbone, run.probe, run.seed) for run in runs] == list(order)
    alone = segment(features[1], probe="linear", training=training, seed=3)
    assert np.array_equal(runs[5].scores, alone.scores)


def test_the_choices_are_a_row_per_segmentation() -> None:
    training = Training(learning_rates=(1e-2,), epochs=1)
    table = choice_table(
        segment_all([patch_maps("first", 0)], probes=["linear", "knn"], training=training)
    )
    assert table.columns.tolist() == ["dataset", "backbone", "probe", "lr", "epoch", "k"]
    assert table["lr"].tolist()[0] == 1e-2 and np.isnan(table["lr"][1])
