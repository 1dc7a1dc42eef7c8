"""Options of fine-tuning."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from ..core.config import Config
from ..core.errors import InputError, unknown_name

Protocol = Literal["finetune", "lora"]


class FinetuneConfig(Config):
    """Options of a fine-tuning run.

    The defaults are the likely protocol of RadioDINO, inferred from its authors' later public code,
    since the settings of the paper are not public.

    Raises:
        InputError: If an option is unknown or not valid, the warm-up is not shorter than the
            training, or `layer_decay` is combined with LoRA.
    """

    lr: float = Field(1e-5, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, description="Weight decay; biases and norms have none.")
    batch_size: int = Field(128, description="Images per step.")
    epochs: int = Field(40, description="Passes over the train split.")
    warmup_epochs: int = Field(
        10, description="Epochs of linear warm-up from lr / 100; a cosine to zero follows."
    )
    clip: float = Field(1.0, description="Maximum norm of the gradient after the warm-up.")
    warmup_clip: float = Field(0.5, description="Maximum norm of the gradient in the warm-up.")
    dropout: float = Field(0.4, description="Dropout rate in front of the head.")
    class_weights: Literal["sqrt", "balanced", "none"] = Field(
        "sqrt",
        description="Class weights of the cross entropy: 'sqrt' (root of N / n per class), "
        "'balanced' (N / n per class) or 'none'.",
    )
    flip: float = Field(0.5, description="Probability of a horizontal flip.")
    rotation: float = Field(7.0, description="Maximum rotation to either side in degrees.")
    crop: tuple[float, float] = Field(
        (0.85, 1.0), description="Minimum and maximum area share of the random resized crop."
    )
    layer_decay: float | None = Field(
        None, description="Factor of the learning rate from each block to the one below (BEiT)."
    )
    lora_rank: int = Field(
        0,
        description="Rank of LoRA adapters on queries, keys and values (Hu et al., ICLR 2022); "
        "0 trains the whole backbone.",
    )
    size: int | None = Field(
        None, description="Edge of the images in pixels; by default that of the backbone."
    )
    precision: Literal["fp32", "bf16", "auto"] = Field(
        "fp32", description="'fp32', 'bf16', or 'auto': bf16 where the processor supports it."
    )

    @classmethod
    def of(cls, protocol: Protocol, **changes: Any) -> Self:
        """Return the defaults of a protocol with some options changed.

        Args:
            protocol: "finetune" (the whole backbone) or "lora" (adapters of rank 8, lr 5e-4).
            **changes: Options in place of the defaults.

        Raises:
            InputError: If the protocol or an option is unknown.
        """
        if protocol not in get_args(Protocol):
            raise unknown_name("fine-tuning protocol", protocol, get_args(Protocol))
        defaults: dict[str, Any] = {"lr": 5e-4, "lora_rank": 8} if protocol == "lora" else {}
        return cls(**(defaults | changes))

    @property
    def protocol(self) -> Protocol:
        """Name in result rows: "lora" or "finetune"."""
        return "lora" if self.lora_rank else "finetune"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not 0 <= self.warmup_epochs < self.epochs:
            raise InputError(
                f"warmup_epochs {self.warmup_epochs}: must be fewer than the {self.epochs} epochs."
            )
        if self.layer_decay and self.lora_rank:
            raise InputError(
                "layer_decay and lora_rank: LoRA trains no layers of the backbone; "
                "leave one of them out."
            )
        return self
