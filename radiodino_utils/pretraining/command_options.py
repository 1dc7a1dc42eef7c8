"""Options of `radiodino pretrain` besides those of the run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, create_model

from ..core.config import Config
from .config import PretrainConfig
from .config_files import config_names

_FREQUENT = ("method", "epochs", "steps", "batch_size", "accumulate", "lr", "anchor")


class CommandOptions(Config):
    """What to train, and how to start."""

    teacher: tuple[str, ...] = Field(
        (), description="Backbone to distil, in place of DINO; may be given again."
    )
    start: str | None = Field(
        None,
        description="Trained vision transformer to continue from, such as radiodino-mini or "
        "file:PATH, in place of --arch.",
    )
    config: str | None = Field(
        None,
        description=f"Configuration: {', '.join(config_names())}, or a YAML file that may start "
        "from one with 'base: NAME'. [small; adapt with --start]",
    )
    set: tuple[str, ...] = Field(
        (), description="KEY=VALUE: any other setting, named below; may be given again."
    )
    arch: str = Field(
        "t16",
        description="Vision transformer: tiny, small or base with patches of 16 pixels (t16, s16, "
        "b16), or small with 8 (s8).",
    )
    seed: int = Field(0, description="Seed of weights, draws and views.")
    init: Path | None = Field(None, description="State (last.ckpt) of another run to start from.")
    resume: bool = Field(
        False,
        description="Continue the run in the folder, exactly; the other options must be those it "
        "was started with.",
    )
    probe: tuple[str, ...] = Field(
        (),
        description="Labelled dataset for a kNN probe: val images among train images; with "
        "teachers it may be given again.",
    )
    threads: int | None = Field(
        None,
        ge=0,
        description="Processors of each process; by default all, shared evenly, or 1 with "
        "teachers.",
    )


class CorpusOptions(Config):
    """Images to train on."""

    data: tuple[str, ...] = Field(
        (),
        description="Source of images, SOURCE or SOURCE=WEIGHT; may be given again. A folder with "
        "anything below it, a list of files (.txt), RadImageNet's split (.csv), a .zip or .tar of "
        "images, an .npz in MedMNIST's layout, or a labelled dataset by its name (training rows); "
        "PNG, JPEG, TIFF, DICOM and more. WEIGHT is the share of the draws; by default the number "
        "of images.",
    )
    hold_out: tuple[str, ...] = Field(
        (),
        description="Labelled dataset (breastmnist-224, npz:PATH, folder:PATH) whose val and test "
        "images are left out of the corpus by their pixels; may be given again.",
    )
    unreadable: float = Field(
        0.01, description="Tolerated share of unreadable images; run.json lists them."
    )
    memory: float = Field(
        4.0,
        description="Gigabytes for decoded images; a larger corpus is decoded as it is drawn.",
    )
    only: Path | None = Field(
        None, description="Take only the images whose SHA-256 stands in this list (CSV)."
    )


class DistillationOptions(Config):
    """Options of a distillation alone."""

    targets: Path | None = Field(
        None,
        description="Folder of the crops and targets, some 100 kB per crop; by default targets in "
        "the folder of the run.",
    )
    capacity: int = Field(
        50_000, description="Number of crops to keep; a longer run sees them again."
    )


def _fields(config: type[Config], names: Sequence[str]) -> dict[str, Any]:
    """Return some fields of a model, for `create_model`."""
    chosen = {name: config.model_fields[name] for name in names}
    return {name: (field.annotation, field) for name, field in chosen.items()}


# the settings of PretrainConfig that have an option of their own beside --set
FrequentSettings = create_model(
    "FrequentSettings", __base__=Config, **_fields(PretrainConfig, _FREQUENT)
)
# options of `radiodino adapt`, which names start and images by arguments of its own
AdaptOptions = create_model(
    "AdaptOptions",
    __base__=Config,
    **_fields(CommandOptions, ("config", "set", "seed", "resume", "probe", "threads")),
    **_fields(CorpusOptions, ("hold_out", "unreadable", "memory", "only")),
)
