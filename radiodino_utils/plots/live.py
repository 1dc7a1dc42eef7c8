"""The monitor of a pre-training, drawn anew in a notebook while the run goes on."""

import time

import pandas as pd

from ..core.extras import extra
from ..pretraining.progress import Progress
from .classification import training_curves

with extra("notebooks"):
    import matplotlib.pyplot as plt


class LiveMonitor:
    """Give it to `pretrain` as `on_row`: it draws the curves of the run in one place of the
    notebook.

    Args:
        title: Above the figure.
        seconds: Between two drawings.
    """

    def __init__(self, *, title: str, seconds: float = 10.0) -> None:
        self.title, self.seconds, self._handle, self._drawn = title, seconds, None, -float("inf")

    def __call__(self, progress: Progress) -> None:
        """Draws if it is time, and always at the end of the run."""
        if time.monotonic() - self._drawn < self.seconds and progress.step < progress.steps:
            return
        with extra("notebooks"):
            from IPython.display import display

        figure = training_curves(
            pd.DataFrame(progress.rows),
            title=f"{self.title}: step {progress.step} of {progress.steps}",
        )
        if self._handle is None:
            self._handle = display(figure, display_id=True)
        else:
            self._handle.update(figure)
        plt.close(figure)
        self._drawn = time.monotonic()
