"""Synthetic features: small, seeded, of known structure."""

from pathlib import Path

import numpy as np

from radiodino_utils.features.features import Features

SIZES = {"train": 60, "val": 24, "test": 30}


def synthetic_features(
    *,
    sizes=SIZES,
    classes=3,
    width=8,
    seed=0,
    noise=1.0,
    dataset="made",
    backbone="random-t16",
    caveat="",
    **changes,
):
    """Return features of classes around centres, with every class in every split."""
    generator = np.random.default_rng(seed)
    centres = generator.normal(size=(classes, width))
    labels = {split: generator.permutation(np.arange(n) % classes) for split, n in sizes.items()}
    arrays = {}
    for split, classes_of_rows in labels.items():
        spread = noise * generator.normal(size=(len(classes_of_rows), width))
        arrays[split] = {"class_token": (centres[classes_of_rows] + spread).astype(np.float32)}
    about = {"name": backbone, "fingerprint": "0123456789ab", "outputs": ["class_token"]}
    fields = dict(
        dataset=dataset,
        classes=tuple(f"class {i}" for i in range(classes)),
        caveat=caveat,
        arrays=arrays,
        labels=labels,
        ids={split: [f"{split}/{i}" for i in range(n)] for split, n in sizes.items()},
        sidecar={
            "backbone": about,
            "engine": "torch",
            "precision": "fp32",
            "seen_in_pretraining": "none",
        },
        path=Path("made.safetensors"),
    )
    return Features(**fields | changes)
