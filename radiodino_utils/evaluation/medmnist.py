"""Files of several predictions for MedMNIST's own evaluator."""

from collections.abc import Iterable
from pathlib import Path

from ..data.medmnist import NAMES
from .predictions import Prediction, write_medmnist
from .twins import is_official


def write_for_medmnist(predictions: Iterable[Prediction], folder: Path) -> list[Path]:
    """Write the predictions on the official splits of MedMNIST's datasets; see `write_medmnist`.

    Args:
        predictions: Predictions on any datasets; those on other datasets, and those without twins
            (see `three_ways`), are left out.
        folder: Folder of the files.

    Returns:
        The path of each file, which ends with the protocol, the backbone and the seed.
    """
    return [
        write_medmnist(entry, folder, run=f"{entry.protocol}-{entry.backbone}-{entry.seed or 0}")
        for entry in predictions
        if entry.dataset in NAMES and is_official(entry)
    ]
