"""Settings of a distillation."""

import math
from typing import Self

from pydantic import Field, field_validator, model_validator

from ..core.config import Config
from ..core.errors import InputError
from .config import architecture

SIZE = 224  # edge of the crops that the teachers see, in pixels


class DistillationConfig(Config):
    """Settings of a distillation of frozen teachers into a vision transformer.

    Raises:
        InputError: If a setting is unknown or not valid, a batch has fewer than two crops, the run
            has fewer crops than a batch, or the sizes do not cover the run.
    """

    arch: str = Field("t16", description="Vision transformer to train: t16, s16, b16 or s8.")
    start: str = Field(
        "timm",
        description="Initialization: timm's own, or the name of a larger vision transformer whose "
        "weights are selected.",
    )
    crops: int = Field(100_000, description="Length of the run in crops.")
    sizes: tuple[tuple[int, float], ...] = Field(
        ((112, 0.75), (160, 0.93), (224, 1.0)),
        description="Edge of the student's crops in pixels, and the share of the run at which it "
        "ends.",
    )
    batch_size: int = Field(64, description="Crops per step.")
    lr: float = Field(1e-3, description="Peak learning rate of AdamW.")
    warmup: float = Field(0.03, description="Share of the run in which the learning rate rises.")
    weight_decay: float = Field(
        0.05, description="Weight decay of all weights of two or more dimensions."
    )
    clip: float = Field(3.0, description="Maximum norm of the gradient.")
    class_token: float = Field(
        1.0, description="Weight of the cosine distance of the class token to the global target."
    )
    mean_patch_token: float = Field(
        1.0, description="Weight of the same distance of the mean patch token."
    )
    map: float = Field(
        1.0, description="Weight of the cosine distance of the patch tokens to the teacher's map."
    )
    similarity: float = Field(
        4.0, description="Weight of the squared difference of the similarity matrices of the batch."
    )
    seed: int = Field(0, description="Seed of weights and draws.")

    def size_at(self, progress: float) -> int:
        """Return the edge of the crops in pixels at a share of the run."""
        return next((size for size, end in self.sizes if progress < end), self.sizes[-1][0])

    def lr_at(self, progress: float) -> float:
        """Return the learning rate at a share of the run: a linear rise, then a cosine to zero."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        share = min(1.0, (progress - self.warmup) / (1 - self.warmup))
        return self.lr * (1 + math.cos(math.pi * share)) / 2

    @field_validator("arch")
    @classmethod
    def _check_arch(cls, arch: str) -> str:
        architecture(arch)
        return arch

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.crops < self.batch_size or self.batch_size < 2:
            raise InputError(
                f"crops {self.crops}, batch_size {self.batch_size}: "
                "a batch needs two crops, and a run one batch."
            )
        ends = [end for _, end in self.sizes]
        is_size = [size % 16 == 0 and 0 < size <= SIZE for size, _ in self.sizes]
        if not ends or ends != sorted(ends) or ends[-1] != 1.0 or not all(is_size):
            raise InputError(
                f"sizes {self.sizes}: multiples of 16 up to {SIZE}, each with the share of the run "
                "at which it ends."
            )
        return self
