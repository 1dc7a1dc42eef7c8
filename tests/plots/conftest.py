import matplotlib
import pytest
from matplotlib import pyplot as plt

from ..synthetic import synthetic_features

matplotlib.use("Agg")
CAVEAT = "one patient, automatic labels"
BACKBONES = ("random-t16", "pixels", "radiodino-s16")
DATASETS = ("synthetic-a", "synthetic-b")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="session")
def features():
    """Features of twelve classes of two datasets by three backbones."""
    options = {"noise": 2.0, "classes": 12, "caveat": CAVEAT}
    return [
        synthetic_features(seed=i, dataset=dataset, backbone=backbone, **options)
        for dataset in DATASETS
        for i, backbone in enumerate(BACKBONES)
    ]
