"""What is trained is the same with any number of threads."""

import numpy as np
import pytest
import torch

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune
from radiodino_utils.evaluation.linear import classify_linear
from radiodino_utils.evaluation.segmentation.probes import segment, segment_unet
from radiodino_utils.evaluation.segmentation.training import Training
from radiodino_utils.features.patch_maps import DenseFeatures

from ..conftest import synthetic_arrays
from ..synthetic import synthetic_features
from ..synthetic_segmentation import synthetic_segmentation

BRIEF = Training(learning_rates=(1e-2,), epochs=3, patience=3, batch_size=4)


def _probe(probe, folder):
    dataset = synthetic_segmentation(shape=(128, 128), classes=3)
    maps = (
        np.random.default_rng(0).normal(size=(len(dataset.masks), 192, 16, 16)).astype(np.float16)
    )
    return segment(
        DenseFeatures(dataset, "made", "0", (0,), 128, maps, folder), probe=probe, training=BRIEF
    ).scores


def _tuned(protocol, folder):
    np.savez(folder / "made.npz", **synthetic_arrays((16, 8, 8), size=32))
    config = FinetuneConfig.of(
        protocol, epochs=2, warmup_epochs=1, batch_size=8, size=64, precision="fp32", lr=1e-3
    )
    run = finetune(
        load_backbone("random-t16"),
        load_dataset(f"npz:{folder / 'made.npz'}"),
        config=config,
        folder=folder,
    )
    return run.prediction.probabilities


TRAINED = {
    "U-Net": lambda folder: (
        segment_unet(
            synthetic_segmentation(shape=(128, 128), classes=3), size=128, training=BRIEF
        ).scores
    ),
    "decoder": lambda folder: _probe("decoder", folder),
    "linear segmentation": lambda folder: _probe("linear", folder),
    "linear": lambda folder: (
        classify_linear(synthetic_features(noise=2.0, width=512), iterations=60).probabilities
    ),
    "finetune": lambda folder: _tuned("finetune", folder),
    "lora": lambda folder: _tuned("lora", folder),
}


@pytest.mark.parametrize("name", TRAINED)
def test_any_number_of_threads_gives_the_same(name, tmp_path):
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            folder = tmp_path / str(threads)
            folder.mkdir()
            found.append(TRAINED[name](folder))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(found[0], other) for other in found[1:])
