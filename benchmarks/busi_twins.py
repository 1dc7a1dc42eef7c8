"""Dice that near duplicates buy in public splits of BUSI; writes a table and a figure beside this.

    python benchmarks/busi_twins.py

BUSI is needed, and the folder BUSI_LISTS or the file of MedSegBench for their splits; a split that
is not on this machine is named and left out. A linear probe on frozen patch tokens is fitted on
each split as it is, and again without the images of train and val that have a near duplicate in
test.
"""

from pathlib import Path

import pandas as pd

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.environment import git_revision, set_threads
from radiodino_utils.data.registry import missing_dataset
from radiodino_utils.data.segmentation import load_segmentation_dataset
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.evaluation.segmentation.metrics import score_images
from radiodino_utils.evaluation.segmentation.probes import segment
from radiodino_utils.evaluation.segmentation.training import Training
from radiodino_utils.evaluation.segmentation.twins import (
    twin_points,
    twin_scores,
    without_segmentation_twins,
)
from radiodino_utils.features.patch_maps import extract_patch_maps
from radiodino_utils.plots.twins import twin_points as twin_figure

SPLITS = ["busi-breastmnist", "busi-medsegbench", "busi-list1", "busi-list2", "busi-list3"]
BACKBONES = ["radiodino-mini", "random-t16", "pixels"]
TRAINING = Training(epochs=12, patience=4, batch_size=8)
SEED, SIZE = 0, 320
TABLE = Path(__file__).with_suffix(".csv")


def points_of(name: str, backbone: str) -> pd.DataFrame:
    """Return the points of Dice of one split and backbone."""
    (dataset,) = load_segmentation_dataset(name, seed=SEED)
    model = load_backbone(backbone, seed=SEED)
    patch_maps = extract_patch_maps(model, dataset, size=SIZE, blocks=(11,))
    options = {"probe": "linear", "training": TRAINING, "seed": SEED}
    official = segment(patch_maps, **options)
    refitted = segment(patch_maps, dataset=without_segmentation_twins(dataset), **options)
    scores = twin_scores(score_images(official, outlines=False), [dataset], [refitted])
    facts = {"weights": official.weights, "precision": official.precision}
    return twin_points(scores, seed=SEED).assign(unit=dataset.unit, **facts)


def main() -> None:
    """Compute all rows and write the table."""
    set_threads()
    tables = []
    for name in SPLITS:
        if missing := missing_dataset(name):
            print(f"{name} is left out: {missing.hint}", flush=True)
            continue
        for backbone in BACKBONES:
            tables.append(points_of(name, backbone))
            print(tables[-1].to_string(index=False), flush=True)
    table = pd.concat(tables).assign(git=git_revision()).round(4)
    write_table(table, TABLE)
    twin_figure(table).savefig(TABLE.with_suffix(".png"), dpi=120)


if __name__ == "__main__":
    main()
