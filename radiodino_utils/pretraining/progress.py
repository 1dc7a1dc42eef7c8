"""What a run reports, its clock, and the signals that end it."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from ..backbones.backbone import Backbone
from ..backbones.loading import load_backbone
from .run_files import BACKBONE


@dataclass
class Progress:
    """State of a run, passed to a callback and returned at the end.

    Attributes:
        folder: Folder of the run.
        step: Steps done.
        steps: Steps of the whole run.
        rows: Rows of the monitor written by this call.
        end: Why the run ended before its last step, or nothing.
    """

    folder: Path
    step: int
    steps: int
    rows: list[dict] = field(default_factory=list)
    end: str = ""

    @property
    def backbone(self) -> Path:
        """File of the exported backbone: `load_backbone(f"file:{progress.backbone}")`."""
        return self.folder / BACKBONE

    def load(self, name: str = "this-run") -> Backbone:
        """Return the exported backbone under a name for tables."""
        return replace(load_backbone(f"file:{self.backbone}"), name=name)


class Clock:
    """Images per second and the share of time spent waiting for data, since the last reading.

    Attributes:
        images: Images done; the training step adds to it.
        waited: Seconds spent waiting.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Set time, images and waiting to zero."""
        self._start, self.waited, self.images = time.monotonic(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting."""
        since = time.monotonic()
        yield
        self.waited += time.monotonic() - since

    def read(self) -> tuple[float, float]:
        """Return images per second and the share of waiting, and restart."""
        passed = max(time.monotonic() - self._start, 1e-9)
        result = self.images / passed, self.waited / passed
        self.restart()
        return result


class Timer:
    """Tells whether some minutes have passed since it was started.

    Args:
        minutes: Duration; None never passes.
    """

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.restart()

    def restart(self) -> None:
        """Start again now."""
        self._start = time.monotonic()

    def is_over(self) -> bool:
        """Return whether the minutes have passed."""
        return self.minutes is not None and time.monotonic() - self._start > 60 * self.minutes


@contextmanager
def stop_signals() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT, so that the current step can end and be saved.

    A second signal acts as it did before.

    Yields:
        Numbers of the signals received so far.
    """
    received: list[int] = []
    handlers_before: dict[int, Any] = {}

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        for earlier, handler in handlers_before.items():
            signal.signal(earlier, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            handlers_before[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread
            break
    try:
        yield received
    finally:
        for earlier, handler in handlers_before.items():
            signal.signal(earlier, handler)
