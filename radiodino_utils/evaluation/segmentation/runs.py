"""Several probes on the patch maps of several backbones and datasets."""

from collections.abc import Iterable, Sequence
from itertools import product

import pandas as pd
from tqdm.auto import tqdm

from ...features.patch_maps import DenseFeatures
from .prediction import Segmentation
from .probes import PROBES, segment
from .training import Training


def segment_all(
    features: Iterable[DenseFeatures],
    *,
    probes: Sequence[str] = PROBES,
    training: Training | None = None,
    seeds: Sequence[int] = (0,),
) -> list[Segmentation]:
    """Segment the test split with every probe on all patch maps.

    Args:
        features: Patch maps returned by `extract_patch_maps`.
        probes: Names of the probes; see `segment`.
        training: Training of the probes that learn.
        seeds: Seeds of the training.

    Returns:
        The segmentations, by features, then probe, then seed.

    Raises:
        InputError: See `segment`.
    """
    runs = list(product(features, probes, seeds))
    return [
        segment(entry, probe=probe, training=training, seed=seed)
        for entry, probe, seed in tqdm(runs, desc="probing patch maps", unit="probe")
    ]


def choice_table(segmentations: Iterable[Segmentation]) -> pd.DataFrame:
    """Return what each segmentation chose on validation.

    Returns:
        One row per segmentation: dataset, backbone, probe, and a column for each kind of choice,
        such as `lr`, `epoch` or `k`; NaN where a probe has no such choice.
    """
    rows = []
    for segmentation in segmentations:
        names = {"backbone": segmentation.backbone, "probe": segmentation.probe}
        rows.append({"dataset": segmentation.dataset.name, **names, **segmentation.choice})
    return pd.DataFrame(rows)
