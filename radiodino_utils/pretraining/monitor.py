"""Monitor of a pre-training run, and the signs of a collapse."""

import csv
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from ..core.errors import InputError
from ..core.files import atomic
from .losses import Loss

COLUMNS = (
    "step",
    "images",
    "loss",
    "dino",
    "ibot",
    "koleo",
    "teacher_entropy",
    "student_entropy",
    "kl",
    "feature_std",
    "effective_rank",
    "lr",
    "weight_decay",
    "momentum",
    "teacher_temp",
    "gradient_norm",
    "images_per_second",
    "data_share",
    "memory_mb",
    "probe",
    "probe_auc",
)
START_COLUMNS = ("anchor", "overlap", "rank_of_start")  # of a run that has a start
PATIENCE = 5  # consecutive rows with a sign of collapse before a run is stopped


@torch.no_grad()
def measures(loss: Loss, center: torch.Tensor, student_temp: float) -> dict[str, float]:
    """Measure the spread of the features and the sharpness of the outputs of a batch.

    Args:
        loss: Losses and outputs of a step.
        center: Center of the teacher's outputs, broadcastable to [n, output_dim].
        student_temp: Temperature of the student.

    Returns:
        `teacher_entropy`, `student_entropy` and `kl`: means over images, in nats; an entropy is at
            most the logarithm of the number of outputs.
        `feature_std`: mean over dimensions of the standard deviation of the L2-normalised class
            tokens, times the root of the width (1: an even spread, 0: a collapse).
        `effective_rank`: see `effective_rank`.
    """
    teacher = torch.log_softmax((loss.teacher_logits - center.view(1, -1)) / loss.teacher_temp, -1)
    student = torch.log_softmax(loss.student_logits / student_temp, -1)
    entropy = -(teacher.exp() * teacher).sum(-1).mean()
    crossed = teacher.exp().chunk(2)[::-1]  # each view against the teacher's other view
    cross_entropy = -torch.stack(
        [(t * s).sum(-1).mean() for t, s in zip(crossed, student.chunk(2), strict=True)]
    ).mean()
    features = normalize(loss.class_tokens.float(), dim=-1)
    return {
        "teacher_entropy": entropy.item(),
        "student_entropy": -(student.exp() * student).sum(-1).mean().item(),
        "kl": (cross_entropy - entropy).item(),
        "feature_std": features.std(0).mean().item() * math.sqrt(features.shape[1]),
        "effective_rank": effective_rank(loss.class_tokens),
    }


@torch.no_grad()
def effective_rank(features: torch.Tensor) -> float:
    """Return the exponential of the entropy of the singular values of normalised features.

    Args:
        features: float, [n, width]; L2-normalised and centered here.

    Source:
        Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    unit = normalize(features.float(), dim=-1)
    values = torch.linalg.svdvals(unit - unit.mean(0))
    share = values / values.sum().clamp_min(1e-12)
    return torch.exp(-(share * share.clamp_min(1e-12).log()).sum()).item()


def sign_of_collapse(row: dict[str, float], outputs: int) -> str | None:
    """Return the sign of a collapse in a row of the monitor, or None."""
    most = math.log(outputs)
    if row["feature_std"] < 0.02:
        return f"the features of all images are nearly equal (spread {row['feature_std']:.4f})"
    if row["effective_rank"] < 1.5:
        return f"the features lie on a line (effective rank {row['effective_rank']:.2f})"
    if row["teacher_entropy"] > 0.999 * most and abs(row["kl"]) < 1e-3:
        entropy = f"{row['teacher_entropy']:.3f} of {most:.3f}"
        return f"the teacher's outputs are uniform (entropy {entropy})"
    if row["teacher_entropy"] < 1e-3 and abs(row["kl"]) < 1e-3:
        return f"one prototype takes every image (teacher entropy {row['teacher_entropy']:.5f})"
    return None


class Monitor:
    """Rows of a run as a CSV file.

    Args:
        path: The file; its rows after `step` are dropped.
        outputs: Number of prototypes.
        columns: Names of the values of a row.
        step: Step at which the run starts.
        seal: Value of `seal` at that step.

    Raises:
        InputError: If the file is not as it was at that step.
    """

    def __init__(
        self,
        path: Path,
        *,
        outputs: int,
        columns: Sequence[str] = COLUMNS,
        step: int = 0,
        seal: dict[str, Any] | None = None,
    ) -> None:
        self.path, self.outputs, self.columns, self._signs = path, outputs, columns, 0
        kept = sealed_rows(path, seal) if step else None
        with atomic(path) as temporary:
            temporary.write_bytes(kept or (",".join(columns) + "\n").encode())

    @property
    def seal(self) -> dict[str, Any]:
        """Length and SHA-256 of the file as it is now."""
        data = self.path.read_bytes()
        return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def write(self, row: dict[str, float]) -> None:
        """Append a row.

        Raises:
            InputError: If it shows a collapse, and so did the rows before it.
        """
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            rounded = {
                key: f"{value:.6g}" if isinstance(value, float) else value
                for key, value in row.items()
            }
            csv.DictWriter(file, self.columns, restval="", lineterminator="\n").writerow(rounded)
        sign = sign_of_collapse(row, self.outputs)
        self._signs = self._signs + 1 if sign else 0
        if self._signs >= PATIENCE:
            raise InputError(
                f"step {row['step']}: the run has collapsed: {sign}; lower lr or teacher_temp, "
                "raise koleo_weight (method dinov2) or momentum, or check that the images differ."
            )


def sealed_rows(path: Path, seal: dict[str, Any] | None) -> bytes | None:
    """Return the monitor up to a checkpoint; later rows are left out.

    Args:
        path: The file.
        seal: `Monitor.seal` at the checkpoint.

    Returns:
        Its bytes, or None if there is no file.

    Raises:
        InputError: If they are not as they were at the checkpoint.
    """
    if not path.is_file():
        return None
    data = path.read_bytes()[: seal["bytes"]] if seal else b""
    if not seal or hashlib.sha256(data).hexdigest() != seal["sha256"]:
        raise InputError(
            f"{path}: damaged (not as it was at the checkpoint); "
            "put back a copy, or remove it and resume."
        )
    return data


def require_finite(loss: Loss, step: int, lr: float) -> None:
    """Check that the loss is neither NaN nor infinite.

    Raises:
        InputError: If it is.
    """
    if not torch.isfinite(loss.total):
        raise InputError(
            f"step {step}: the loss is {loss.total.item()} at a learning rate of {lr:.3g}: "
            "the run diverges; lower lr, lengthen warmup, or lower clip. "
            "The last checkpoint is intact."
        )
