"""The monitor of a pre-training, redrawn in a notebook while the run goes on."""

import time
from typing import Any

import pandas as pd

from ..core.extras import extra
from ..pretraining.progress import Progress
from .pretraining import training_curves

with extra("notebooks"):
    import matplotlib.pyplot as plt


class LiveMonitor:
    """Draw the curves of a run in one place of the notebook; the `on_row` of `pretrain`.

    Args:
        title: Title of the figure.
        seconds: Shortest time between two drawings.
    """

    def __init__(self, *, title: str, seconds: float = 10.0) -> None:
        self.title, self.seconds = title, seconds
        self._handle: Any = None  # IPython's handle of the displayed figure
        self._drawn = -float("inf")

    def __call__(self, progress: Progress) -> None:
        """Draw if it is time, and always at the end of the run."""
        if time.monotonic() - self._drawn < self.seconds and progress.step < progress.steps:
            return
        with extra("notebooks"):
            from IPython.display import display

        title = f"{self.title}: step {progress.step} of {progress.steps}"
        figure = training_curves(pd.DataFrame(progress.rows), title=title)
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        plt.close(figure)
        self._drawn = time.monotonic()
