"""Lightning Fabric for one process, several GPUs, or what `torchrun` started."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from .environment import STARTED, launched
from .errors import InputError
from .extras import extra

if TYPE_CHECKING:
    from lightning.fabric.strategies import FSDPStrategy

with extra("train"):
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

_PRECISIONS: dict[str, Literal["32-true", "bf16-mixed"]] = {"fp32": "32-true", "bf16": "bf16-mixed"}


def make_fabric(
    *,
    precision: str = "auto",
    accelerator: str = "auto",
    devices: int | None = None,
    strategy: str = "auto",
) -> Fabric:
    """Create and launch a Fabric.

    Args:
        precision: "auto" (see `resolved_precision`), "bf16" or "fp32".
        accelerator: "auto", "cpu" or "cuda".
        devices: Number of processes on this machine; by default those that `torchrun` started,
            or one.
        strategy: "auto" (DDP for several processes), "ddp" or "fsdp" (for GPUs).

    Raises:
        InputError: If the machine lacks what is asked for.
    """
    _, world, local = launched()
    devices = devices or local
    if strategy == "auto" and max(world, devices) > 1:
        strategy = "ddp"
    cuda = accelerator in ("auto", "cuda") and torch.cuda.is_available()
    if accelerator == "cuda" and not cuda:
        raise InputError(
            "accelerator cuda: this machine has no GPU that torch can use; choose cpu."
        )
    if strategy == "fsdp" and not cuda:
        raise InputError("strategy fsdp: needs GPUs; use ddp on CPUs.")
    is_elastic = TorchElasticEnvironment.detect()
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        num_nodes=world // local,
        strategy=_fsdp() if strategy == "fsdp" else strategy,
        precision=_PRECISIONS[resolved_precision(precision, cuda=cuda)],
        plugins=[TorchElasticEnvironment() if is_elastic else LightningEnvironment()],
    )
    if devices > local:
        os.environ[STARTED] = str(devices)
    try:
        fabric.launch()
    finally:
        if devices > local:
            del os.environ[STARTED]
    return fabric


def resolved_precision(precision: str, *, cuda: bool) -> str:
    """Return the precision of training on this machine.

    Args:
        precision: "auto" becomes "bf16" if the processor or GPU computes in it, else "fp32";
            another precision is returned as it is.
        cuda: Whether the GPU trains.
    """
    if precision != "auto":
        return precision
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def _fsdp() -> "FSDPStrategy":
    with extra("train"):
        from lightning.fabric.strategies import FSDPStrategy

    return FSDPStrategy(use_orig_params=True, state_dict_type="full")
