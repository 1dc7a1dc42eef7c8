"""Engines that run a backbone on batches of 8-bit images: torch and OpenVINO."""

import ctypes
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache

import numpy as np
import torch
from torch import nn

from ..backbones.loading import Backbone, with_all_blocks
from ..core.environment import cpu_count
from ..core.errors import InputError, unknown_name

ENGINES = ("auto", "torch", "openvino")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


class FeatureModel(nn.Module):
    """A backbone with its standardisation in front and the pooling of its tokens behind.

    Args:
        backbone: What `load_backbone` gives.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model, self.outputs, self.prefix = (
            backbone.model,
            backbone.outputs,
            backbone.num_prefix_tokens,
        )
        self.blocks = sum(
            output.startswith("class_token_") for output in self.outputs
        )  # before the last one
        self.register_buffer(
            "mean", torch.tensor(backbone.preprocessing.mean).view(1, 3, 1, 1) * 255
        )
        self.register_buffer("std", torch.tensor(backbone.preprocessing.std).view(1, 3, 1, 1) * 255)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Gives the features of a batch.

        Args:
            images: uint8, [n, height, width, channels], one channel or three.

        Returns:
            One tensor [n, width] for each of the backbone's outputs; from `dense.dense_backbone`
            one of patch maps.
        """
        standardised = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if not hasattr(self.model, "patch_embed"):  # pixels, patch maps and convolutional networks
            return (self.model(standardised),)
        if self.blocks:
            tokens, earlier = self.model.forward_intermediates(
                standardised,
                indices=self.blocks + 1,
                return_prefix_tokens=True,
                norm=True,
                output_fmt="NLC",
            )
            class_tokens = [prefix[:, 0] for _, prefix in reversed(earlier[:-1])]
        else:
            tokens, class_tokens = self.model.forward_features(standardised), []
        mean_patch_token = tokens[:, self.prefix :].mean(1)
        embedding = self.model.forward_head(
            tokens, pre_logits=True
        )  # the model's own pooling, and the norm behind it
        if embedding.ndim == 3:  # of a model that pools nothing
            embedding = (
                embedding[:, 0]
                if "class_token" in self.outputs
                else embedding[:, self.prefix :].mean(1)
            )
        return (
            (embedding, mean_patch_token, *class_tokens)
            if "class_token" in self.outputs
            else (embedding,)
        )


def as_tensor(backbone: Backbone, image: np.ndarray) -> torch.Tensor:
    """The image as the backbone sees it, float32 grey levels, [1, 3, height, width]."""
    seen = backbone.seen(image)
    colour = seen if seen.ndim == 3 else np.repeat(seen[..., None], 3, -1)
    return torch.tensor(colour, dtype=torch.float32).permute(2, 0, 1)[None]


class TorchEngine:
    """Runs a backbone with torch, in fp32 or under autocast.

    Args:
        backbone: What `load_backbone` gives.
        precision: "fp32", "bf16" or "fp16".
        device: "cpu", "cuda", "cuda:1", ...
    """

    name = "torch"

    def __init__(self, backbone: Backbone, *, precision: str = "fp32", device: str = "cpu") -> None:
        self.precision, self.device = precision, torch.device(device)
        model = FeatureModel(backbone).eval()
        self._model = (
            model if self.device.type == "cpu" else deepcopy(model).to(self.device)
        )  # the backbone stays on the CPU
        self._type = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]

    @torch.inference_mode()
    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Features (float32, [n, width]) of a batch (uint8, [n, height, width, channels])."""
        batch = torch.from_numpy(np.ascontiguousarray(images)).to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, dtype=self._type, enabled=self._type is not None):
            outputs = self._model(batch)
        return tuple(output.float().cpu().numpy() for output in outputs)

    def map(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        """Features of each batch, in order."""
        return map(self, batches)


class OpenVinoEngine:
    """Runs a backbone with OpenVINO on the CPU.

    Args:
        backbone: What `load_backbone` gives.
        precision: "fp32" or "bf16".
        threads: Processors to use; all by default.
    """

    name = "openvino"

    def __init__(
        self, backbone: Backbone, *, precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.precision, self._count = precision, len(backbone.outputs)
        backbone = with_all_blocks(
            backbone
        )  # in bf16 the first outputs change with the number of outputs: always compute all
        height, width = backbone.preprocessing.shape
        example = torch.zeros((1, height, width, 3), dtype=torch.uint8)
        model, shape = FeatureModel(backbone), [-1, height, width, -1]
        self._compiled = compiled_by_openvino(
            model, example, shape=shape, precision=precision, threads=threads
        )
        self._count = min(
            self._count, len(self._compiled.outputs)
        )  # patch maps of several blocks are one tensor

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Features (float32, [n, width]) of a batch (uint8, [n, height, width, channels])."""
        return next(iter(self.map([images])))

    def map(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        """Features of each batch, in order, with as many batches under way as the processor has streams."""
        free = [self._compiled.create_infer_request() for _ in range(self.streams)]
        under_way = deque()
        for batch in batches:
            if not free:
                yield self._finished(under_way, free)
            request = free.pop()
            request.start_async([np.ascontiguousarray(batch)])
            under_way.append(request)
        while under_way:
            yield self._finished(under_way, free)

    @property
    def streams(self) -> int:
        """The number of batches that run at once."""
        return self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def _finished(self, under_way: deque, free: list) -> tuple[np.ndarray, ...]:
        request = under_way.popleft()
        request.wait()
        free.append(request)
        return tuple(request.get_output_tensor(i).data.copy() for i in range(self._count))


def compiled_by_openvino(
    model: nn.Module,
    example: torch.Tensor,
    *,
    shape: Sequence[int],
    precision: str = "fp32",
    threads: int | None = None,
    hint: str = "THROUGHPUT",
) -> "openvino.CompiledModel":  # noqa: F821
    """Compile a module of one input for the CPU.

    Args:
        model: Traced in evaluation mode.
        example: An input.
        shape: Of the input, -1 where it may vary.
        precision: "fp32" or "bf16".
        threads: Processors to use; all by default.
        hint: "THROUGHPUT" (several batches at once) or "LATENCY".

    Returns:
        What OpenVINO's `compile_model` gives.
    """
    import openvino

    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # torch warns that tracing is deprecated; OpenVINO takes nothing faster
        traced = torch.jit.trace(model.eval(), example, check_trace=False)
        graph = openvino.convert_model(traced, example_input=example)
    graph.reshape({0: list(shape)})
    options = {
        "PERFORMANCE_HINT": hint,
        "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16"}[precision],
        "INFERENCE_NUM_THREADS": threads or cpu_count(),
    }
    with _signal_stack_kept():
        return openvino.Core().compile_model(graph, "CPU", options)


@contextmanager
def _signal_stack_kept() -> Iterator[None]:
    """Puts the thread's alternate signal stack back: OpenVINO replaces it, and a signal after it is freed ends the process."""
    if sys.platform == "win32":
        yield
        return
    library, stack = (
        ctypes.CDLL(None),
        ctypes.create_string_buffer(24),
    )  # stack_t: a pointer, an int, a size
    library.sigaltstack(None, stack)
    try:
        yield
    finally:
        library.sigaltstack(stack, None)


def choose_engine(
    backbone: Backbone, *, engine: str = "auto", precision: str = "auto", device: str | None = None
) -> tuple[str, str, str]:
    """Chooses the fastest engine of this machine, without building it.

    Args:
        backbone: What `load_backbone` gives.
        engine: "auto" takes torch on a GPU, else OpenVINO, else torch; "torch"; "openvino".
        precision: "auto" takes bf16 where the processor computes in it, else fp32; "fp32", "bf16",
            "fp16" (GPU only).
        device: For torch; a GPU where there is one, by default.

    Returns:
        The engine's name, its precision and its device.

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
    automatic = (
        "bf16" if on_gpu and torch.cuda.is_bf16_supported() and backbone.patch_size else "fp32"
    )
    return "torch", automatic if precision == "auto" else precision, device


def make_engine(
    backbone: Backbone,
    *,
    engine: str = "auto",
    precision: str = "auto",
    device: str | None = None,
    threads: int | None = None,
) -> TorchEngine | OpenVinoEngine:
    """Builds the engine that `choose_engine` chooses, or gives the one that was built before for
    the same backbone.

    Args:
        backbone: What `load_backbone` gives.
        engine: See `choose_engine`.
        precision: See `choose_engine`.
        device: See `choose_engine`.
        threads: Processors that OpenVINO may use; all by default. torch: see
            `provenance.set_threads`.

    Returns:
        The engine; its `name` and `precision` say what was chosen.

    Raises:
        InputError: If a choice is unknown or impossible.
    """
    chosen = choose_engine(backbone, engine=engine, precision=precision, device=device)
    return _built(backbone, backbone.fingerprint, backbone.structure, *chosen, threads)


@lru_cache(maxsize=4)
def _built(
    backbone: Backbone,
    weights: str,
    structure: str,
    name: str,
    precision: str,
    device: str,
    threads: int | None,
) -> TorchEngine | OpenVinoEngine:
    if name == "openvino":
        return OpenVinoEngine(backbone, precision=precision, threads=threads)
    return TorchEngine(backbone, precision=precision, device=device)
