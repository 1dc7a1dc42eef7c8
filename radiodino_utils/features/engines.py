"""Engines that run a backbone on batches of 8-bit images: torch and OpenVINO."""

from collections.abc import Iterable, Iterator
from copy import deepcopy
from functools import lru_cache

import numpy as np
import torch

from ..backbones.backbone import Backbone
from ..core.errors import InputError, unknown_name
from .feature_model import FeatureModel
from .openvino_engine import OpenVinoEngine

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class TorchEngine:
    """Run a backbone with torch, in fp32 or under autocast.

    Args:
        backbone: Backbone returned by `load_backbone`; it stays on the CPU.
        precision: "fp32", "bf16" or "fp16".
        device: "cpu", "cuda", "cuda:1", ...
    """

    name = "torch"

    def __init__(self, backbone: Backbone, *, precision: str = "fp32", device: str = "cpu") -> None:
        self.precision, self.device = precision, torch.device(device)
        model = FeatureModel(backbone).eval()
        self._model = model if self.device.type == "cpu" else deepcopy(model).to(self.device)
        self._type = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the features of a batch.

        Args:
            images: uint8, [n, height, width, channels].

        Returns:
            float32, [n, width], per output of the backbone.
        """
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=self._type, enabled=self._type is not None):
            outputs = self._model(batch)
        return tuple(output.float().cpu().numpy() for output in outputs)

    def map(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the features of each batch, in order."""
        return map(self, batches)


def choose_engine(
    backbone: Backbone, *, engine: str = "auto", precision: str = "auto", device: str | None = None
) -> tuple[str, str, str]:
    """Choose the fastest engine of this machine, without building it.

    Args:
        backbone: Backbone returned by `load_backbone`.
        engine: "auto" takes torch on a GPU, else OpenVINO, else torch; "torch"; "openvino".
        precision: "auto" takes bf16 if the processor computes in it, else fp32; "fp32", "bf16",
            "fp16" (GPU only).
        device: For torch; by default a GPU, if there is one.

    Returns:
        Name of the engine, its precision and its device.

    Raises:
        InputError: If a choice is unknown or impossible.
    """
    if engine not in ENGINES:
        raise unknown_name("engine", engine, ENGINES)
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    if engine == "openvino" and precision == "fp16":
        raise InputError("precision fp16: OpenVINO has it on no CPU; use bf16 or fp32.")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_gpu = device.startswith("cuda")
    if engine == "openvino" or (engine == "auto" and not on_gpu and precision != "fp16"):
        try:
            import openvino
        except ImportError as error:
            if engine == "openvino":
                raise InputError(
                    "engine openvino: the package is not installed; pip install openvino."
                ) from error
        else:
            has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
            automatic = "bf16" if has_bf16 and backbone.patch_size else "fp32"
            return "openvino", automatic if precision == "auto" else precision, "cpu"
    if precision == "fp16" and not on_gpu:
        raise InputError("precision fp16: needs a GPU; use bf16 or fp32 on a CPU.")
    has_bf16 = on_gpu and torch.cuda.is_bf16_supported()
    automatic = "bf16" if has_bf16 and backbone.patch_size else "fp32"
    return "torch", automatic if precision == "auto" else precision, device


def make_engine(
    backbone: Backbone,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    threads: int | None = None,
) -> TorchEngine | OpenVinoEngine:
    """Build the engine that `choose_engine` chooses, or return one built before for the backbone.

    Args:
        backbone: Backbone returned by `load_backbone`.
        engine: See `choose_engine`.
        precision: See `choose_engine`.
        device: See `choose_engine`.
        threads: Number of processors that OpenVINO may use; all by default. torch: see
            `environment.set_threads`.

    Returns:
        The engine; its `name` and `precision` say what was chosen.

    Raises:
        InputError: If a choice is unknown or impossible.
    """
    name, precision, device = choose_engine(
        backbone, engine=engine, precision=precision, device=device
    )
    return _built(
        backbone, backbone.fingerprint, backbone.structure, name, precision, device, threads
    )


@lru_cache(maxsize=4)
def _built(
    backbone: Backbone,
    fingerprint: str,
    structure: str,
    name: str,
    precision: str,
    device: str,
    threads: int | None,
) -> TorchEngine | OpenVinoEngine:
    """Build an engine; weights changed in place have another fingerprint and build anew."""
    if name == "openvino":
        return OpenVinoEngine(backbone, precision=precision, threads=threads)
    return TorchEngine(backbone, precision=precision, device=device)
