"""Run backbones with OpenVINO on the CPU."""

import ctypes
import sys
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..backbones.backbone import Backbone, with_all_blocks
from ..core.environment import cpu_count
from .feature_model import FeatureModel

if TYPE_CHECKING:
    import openvino


class OpenVinoEngine:
    """Run a backbone with OpenVINO on the CPU.

    Args:
        backbone: Backbone returned by `load_backbone`.
        precision: "fp32" or "bf16".
        threads: Number of processors; all by default.
    """

    name = "openvino"

    def __init__(
        self, backbone: Backbone, *, precision: str = "fp32", threads: int | None = None
    ) -> None:
        self.precision = precision
        outputs = len(backbone.outputs)
        # in bf16 the first outputs change with the number of outputs: always compute all
        backbone = with_all_blocks(backbone)
        height, width = backbone.preprocessing.shape
        self._compiled = compiled_by_openvino(
            FeatureModel(backbone),
            torch.zeros((1, height, width, 3), dtype=torch.uint8),
            shape=[-1, height, width, -1],
            precision=precision,
            threads=threads,
        )
        # patch maps of several blocks are one tensor
        self._count = min(outputs, len(self._compiled.outputs))

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the features of a batch.

        Args:
            images: uint8, [n, height, width, channels].

        Returns:
            float32, [n, width], per output of the backbone.
        """
        return next(iter(self.map([images])))

    def map(self, batches: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, ...]]:
        """Yield the features of each batch, in order; `streams` batches run at once."""
        free = [self._compiled.create_infer_request() for _ in range(self.streams)]
        running: deque[Any] = deque()
        for batch in batches:
            if not free:
                yield self._finished(running, free)
            request = free.pop()
            request.start_async([np.ascontiguousarray(batch)])
            running.append(request)
        while running:
            yield self._finished(running, free)

    @property
    def streams(self) -> int:
        """Number of batches that run at once."""
        return self._compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")

    def _finished(self, running: deque, free: list) -> tuple[np.ndarray, ...]:
        request = running.popleft()
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
) -> "openvino.CompiledModel":
    """Compile a module of one input for the CPU.

    Args:
        model: Traced in evaluation mode.
        example: An input.
        shape: Shape of the input, -1 for axes that may vary.
        precision: "fp32" or "bf16".
        threads: Number of processors; all by default.
        hint: "THROUGHPUT" (several batches at once) or "LATENCY".

    Returns:
        The compiled model of OpenVINO's `compile_model`.
    """
    import openvino

    with torch.inference_mode(), warnings.catch_warnings():
        # torch warns that tracing is deprecated; OpenVINO takes nothing faster
        warnings.simplefilter("ignore")
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
    """Restore the alternate signal stack of the thread.

    OpenVINO replaces it, and a signal after it is freed ends the process.
    """
    if sys.platform == "win32":
        yield
        return
    library = ctypes.CDLL(None)
    stack = ctypes.create_string_buffer(24)  # stack_t: a pointer, an int, a size
    library.sigaltstack(None, stack)
    try:
        yield
    finally:
        library.sigaltstack(stack, None)
