"""The segmentation of a test split."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.functional import interpolate

from ...data.segmentation import SegmentationDataset


@dataclass(frozen=True, repr=False)
class Segmentation:
    """Segmentation of the images of the test split.

    Attributes:
        dataset: The dataset with its split.
        backbone: Name of the backbone; "none" for the U-Net.
        probe: "linear", "decoder", "knn" or "unet".
        rows: Rows of the test split in the dataset, [n].
        scores: Logits or votes, float16, [n, classes, height, width], coarser than the images.
        weights: Fingerprint of the backbone's weights.
        seed: Seed of the training.
        choice: What was chosen on validation.
        labelled: Number of training images.
        engine: Engine that ran the backbone, or the U-Net: torch or openvino.
        precision: Precision of the backbone, or of the U-Net: fp32, bf16 or fp16.
        seen_in_pretraining: See `Prediction`.
    """

    dataset: SegmentationDataset
    backbone: str
    probe: str
    rows: np.ndarray
    scores: np.ndarray
    weights: str
    seed: int
    choice: dict[str, object] = field(default_factory=dict)
    labelled: int = 0
    engine: str = ""
    precision: str = ""
    seen_in_pretraining: str = "not known"

    def __repr__(self) -> str:
        return (
            f"Segmentation({self.dataset.name!r} x {self.backbone!r}, {self.probe}, "
            f"{len(self.dataset.classes)} classes, test {len(self.rows)})"
        )

    def predicted(self, position: int, shape: tuple[int, int]) -> np.ndarray:
        """Return the predicted mask of a test image.

        Args:
            position: Position of the image in the test split.
            shape: Height and width of the image, to which the scores are up-sampled bilinearly.

        Returns:
            uint8, [height, width].
        """
        scores = torch.from_numpy(self.scores[position].astype(np.float32))[None]
        scores = interpolate(scores, shape, mode="bilinear", align_corners=False)[0]
        return scores.max(0).indices.to(torch.uint8).numpy()
