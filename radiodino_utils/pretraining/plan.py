"""What a pre-training run is, and how it is carried out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ..core.config import Config
from ..core.errors import InputError
from .config import PretrainConfig

if TYPE_CHECKING:
    from ..backbones.backbone import Backbone
    from .corpus import Corpus


@dataclass(frozen=True)
class Plan:
    """What a run is: two runs with the same plan and corpus give the same backbone.

    Attributes:
        arch: A key of `config.ARCHITECTURES`: t16, s16, b16 or s8; None with a start.
        config: All other settings.
        seed: Seed of weights, draws and views.
        init: State file of another run whose weights it starts from, or None.
        start: Trained vision transformer that it continues from, or None.
    """

    arch: str | None
    config: PretrainConfig
    seed: int = 0
    init: Path | None = None
    start: "Backbone | None" = None

    def __post_init__(self) -> None:
        """Check that the settings of a start have one.

        Raises:
            InputError: If they have none, or the architecture of a start is given besides.
        """
        if self.start and (self.arch or self.init):
            raise InputError("start: brings architecture and weights; leave out arch and init.")
        needing = ("anchor", "freeze_backbone", "held_out")
        wrong = [name for name in needing if getattr(self.config, name)]
        if wrong and not self.start:
            raise InputError(f"{wrong[0]}: needs a start, a trained backbone.")

    def identity(self, corpus: "Corpus") -> dict[str, object]:
        """Return all that the backbone of a run depends on, as JSON values."""
        return {
            "arch": self.arch,
            "seed": self.seed,
            "init": self.init.name if self.init else None,
            "start": self.start.fingerprint if self.start else None,
            "corpus": corpus.digest,
            "config": self.config.describe(),
        }


class RunOptions(Config):
    """How a run is carried out; none of it changes the backbone that comes out."""

    precision: Literal["auto", "bf16", "fp32"] = Field(
        default="auto", description="auto: bf16 where the processor or GPU computes in it."
    )
    accelerator: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="auto: GPUs where there are any."
    )
    devices: int | None = Field(
        default=None, description="GPUs of this machine; by default one, or what torchrun started."
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="Of several processes: ddp keeps a whole model in each, fsdp shares a large "
        "one among GPUs; auto: ddp.",
    )
    workers: int = Field(
        default=0,
        description="Processes that prepare views beside the steps; 0 prepares them between the "
        "steps, best on two cores.",
    )
    loader_seconds: float = Field(
        default=600.0, description="Longest wait for a batch of the workers before the run ends."
    )
    monitor_every: int = Field(default=10, description="Steps between two rows of monitor.csv.")
    save_minutes: float = Field(default=5.0, description="Minutes between two checkpoints.")
    probe_minutes: float = Field(default=15.0, description="Minutes between two probes.")
    stop_after: float | None = Field(
        default=None, description="Save and stop after so many minutes; resume continues."
    )
    stop_at: int | None = Field(
        default=None,
        description="Save and stop after so many steps of the whole run; resume continues.",
    )
