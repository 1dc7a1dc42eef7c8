"""Settings of self-supervised pre-training with DINO and DINOv2."""

import math
from typing import Literal, Self

from pydantic import Field, StrictBool, model_validator

from ..core.config import Config
from ..core.errors import InputError, unknown_name

ARCHITECTURES = {
    "t16": "vit_tiny_patch16_224",
    "s16": "vit_small_patch16_224",
    "b16": "vit_base_patch16_224",
    "s8": "vit_small_patch8_224",
}
Range = tuple[float, float]


def architecture(arch: str) -> str:
    """Return the name by which timm knows an architecture.

    Args:
        arch: A key of `ARCHITECTURES`.

    Raises:
        InputError: If it is unknown.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    return ARCHITECTURES[arch]


class PretrainConfig(Config):
    """All settings of a pre-training run except data, architecture and seed.

    The values come from a YAML file, see `config_files.load_config`. Shares are of the steps of
    the run, sizes are in pixels, and probabilities are per image or view.

    Raises:
        InputError: If a setting is unknown or not valid, a size of the views is no multiple of the
            patch size, or `batch_size` is no multiple of `accumulate`.
    """

    method: Literal["dino", "dinov2"] = Field(
        description="dino (class token only) or dinov2 (with masked patches and KoLeo)."
    )
    epochs: float = Field(description="Length of the run in passes over the corpus.")
    steps: int = Field(description="Length of the run in optimizer steps, in place of epochs.")
    batch_size: int = Field(description="Images per optimizer step, of all processes together.")
    batch_of: Literal["mixed", "group"] = Field(
        description="mixed, or group: all images of a batch from one folder of one source, so "
        "that telling the folders apart does not lower the loss."
    )
    accumulate: int = Field(description="Parts in which a batch is computed, to save memory.")
    global_size: int = Field(description="Edge of the two global views.")
    global_scale: Range = Field(description="Area share of the global views.")
    local_count: int = Field(description="Local views per image.")
    local_size: int = Field(description="Edge of the local views.")
    local_scale: Range = Field(description="Area share of the local views.")
    field: Range = Field(
        description="Edge of the part of an image in which all its views lie, as a share."
    )
    field_pixels: int = Field(description="Minimum edge of that part.")
    aspect: Range = Field(description="Aspect ratio of the views.")
    rotation: float = Field(description="Maximum rotation to either side in degrees.")
    flip: float = Field(description="Probability of a horizontal flip.")
    jitter_probability: float = Field(
        description="Probability of a change of brightness, contrast and gamma."
    )
    brightness: float = Field(description="Maximum relative change of the brightness.")
    contrast: float = Field(description="Maximum relative change of the contrast.")
    gamma: Range = Field(description="Range of the exponent of the grey levels.")
    blur: tuple[float, float, float] = Field(
        description="Probability of a blur for the first global, the second global and the local "
        "views."
    )
    blur_sigma: Range = Field(description="Standard deviation of the blur.")
    noise_probability: float = Field(description="Probability of Gaussian noise.")
    noise: float = Field(description="Maximum standard deviation of the noise, of a range of 1.")
    initialization: Literal["dino", "dinov2", "mae"] = Field(
        description="dino and dinov2 as published (truncated normal, learned positions; the "
        "deviation of the class token differs), mae as lightly does it (Xavier, sine and cosine "
        "positions)."
    )
    layer_scale: float = Field(description="Initial layer scale; 0 for none.")
    hidden_dim: int = Field(description="Hidden width of the projection head.")
    bottleneck_dim: int = Field(description="Bottleneck width of the projection head.")
    output_dim: int = Field(description="Number of prototypes; auto: by the number of images.")
    norm_last_layer: StrictBool = Field(
        description="Fix the norm of every prototype at 1 instead of learning it."
    )
    patch_head: Literal["shared", "separate"] = Field(
        description="Head of masked patches: shared with the class token, or separate."
    )
    student_temp: float = Field(description="Temperature of the student.")
    teacher_temp_start: float = Field(description="Temperature of the teacher at the start.")
    teacher_temp: float = Field(
        description="Temperature of the teacher after its warm-up; auto: by the number of images."
    )
    teacher_temp_warmup: float = Field(description="Share in which that temperature rises.")
    centering: Literal["mean", "sinkhorn"] = Field(
        description="Centering of the teacher's outputs: mean (a moving average) or sinkhorn "
        "(Sinkhorn-Knopp over the batch)."
    )
    center_momentum: float = Field(description="Momentum of that moving average.")
    momentum: float = Field(
        description="Momentum of the teacher at the start; auto: by the number of images."
    )
    momentum_end: float = Field(description="Momentum of the teacher at the end.")
    schedules: Literal["published", "lightly"] = Field(
        description="published (a warm-up starts at its lowest value, the cosine stops just short "
        "of its end, as in DINO and DINOv2) or lightly (the first step is one step into the "
        "warm-up, the cosine reaches its end)."
    )
    lr: float = Field(description="Peak learning rate, before lr_scaling.")
    lr_scaling: Literal["none", "linear256", "sqrt1024"] = Field(
        description="linear256 (lr x batch / 256), sqrt1024 (lr x sqrt(batch / 1024)) or none."
    )
    lr_end: float = Field(description="Learning rate at the end, not scaled.")
    warmup: float = Field(
        description="Share in which the learning rate rises; auto: by the number of images."
    )
    layer_decay: float = Field(
        description="Factor of the learning rate from each block to the one below, applied to the "
        "last block too, as in DINOv2."
    )
    patch_embed_lr: float = Field(
        description="Further factor of the learning rate of the patch embedding."
    )
    weight_decay: float = Field(description="Weight decay at the start.")
    weight_decay_end: float = Field(description="Weight decay at the end.")
    token_weight_decay: StrictBool = Field(
        description="Decay class token, positions and mask token as well; biases, norms and layer "
        "scales never decay."
    )
    clip: float = Field(description="Maximum norm of the gradient; 0 for none.")
    clip_each: StrictBool = Field(
        description="Clip each parameter by itself, as DINO does, instead of the backbone and each "
        "head, as DINOv2 does."
    )
    drop_path: float = Field(description="Drop path rate of the student.")
    drop_path_uniform: StrictBool = Field(
        description="Use that rate in every block instead of a rise from 0 in the first block."
    )
    freeze_last_layer: float = Field(description="Share in which the prototypes stay fixed.")
    freeze_by: Literal["gradient", "rate"] = Field(
        description="gradient (they get none, as in DINO) or rate (theirs is 0, as in DINOv2)."
    )
    mask_probability: float = Field(description="Probability that a global view is masked.")
    mask_ratio: Range = Field(description="Share of masked patches in a masked view.")
    ibot_weight: float = Field(description="Weight of iBOT's loss of masked patches.")
    koleo_weight: float = Field(description="Weight of KoLeo's loss, which spreads class tokens.")
    koleo_views: Literal["sum", "mean"] = Field(
        description="sum of KoLeo's loss over the two global views, as in DINOv2, or their mean."
    )
    anchor: float = Field(
        0.0,
        description="Weight of the cosine distances of class token and patch tokens to the frozen "
        "start.",
    )
    freeze_backbone: float = Field(
        0.0, description="Share in which only the heads are trained, which have no start."
    )
    held_out: int = Field(
        0,
        description="Images on which the drift from the start is measured, at most a fifth of the "
        "corpus; 0 for none.",
    )
    checks: int = Field(10, description="Times that it is measured, at even distances.")
    min_overlap: float = Field(
        0.0,
        description="Share of their nearest neighbours at the start that held-out images keep; "
        "below it the run ends, and the backbone of the check before is exported.",
    )
    min_rank: float = Field(
        0.0, description="The same for their effective rank, as a fraction of that at the start."
    )
    patch_size: int = Field(16, description="Patch size of the backbone; filled in.")

    @property
    def peak_lr(self) -> float:
        """Learning rate after the warm-up."""
        factor = {
            "none": 1.0,
            "linear256": self.batch_size / 256,
            "sqrt1024": math.sqrt(self.batch_size / 1024),
        }
        return self.lr * factor[self.lr_scaling]

    @property
    def masks_patches(self) -> bool:
        """Whether the student also predicts masked patches."""
        return self.method == "dinov2" and self.ibot_weight > 0

    def describe(self) -> dict[str, object]:
        """Return all settings as JSON values."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for name in ("global_size", "local_size"):
            size = getattr(self, name)
            if size % self.patch_size or size <= 0:
                raise InputError(
                    f"{name} {size} is no multiple of the patch of {self.patch_size} pixels."
                )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise InputError(
                f"batch_size {self.batch_size} is no multiple of accumulate {self.accumulate}."
            )
        return self
