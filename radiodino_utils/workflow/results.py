"""The results folder of a profile: tables, figures, and what tables are computed from."""

import html
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..core import environment
from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import atomic, results_folder, shortened, write_text
from ..evaluation.predictions import Prediction, image_table
from ..evaluation.records import write_predictions, write_scores
from ..evaluation.results import write_table
from ..features.features import Features
from ..features.features import image_table as embeddings
from ..plots.style import save_figure, texts_of

with extra("notebooks"):
    import matplotlib.pyplot as plt
    from matplotlib.figure import Figure


_FRAME = 'style="width: 100%; height: 820px; border: 0"'


@dataclass(frozen=True)
class Results:
    """The results folder of a profile.

    A file is named after its notebook, such as `03_knn_rows`. A registered name or path may be part
    of the name: ":" and "/" become "-", and a long name is shortened.

    Attributes:
        profile: The profile's name; see `results_folder`.

    Raises:
        InputError: If the name is not a text, or leads out of `results`.
    """

    profile: str

    def __post_init__(self) -> None:
        if not isinstance(self.profile, str):
            raise InputError(f"profile {self.profile!r}: pass the name of a profile, such as demo.")
        results_folder(self.profile)

    @property
    def folder(self) -> Path:
        """The results folder."""
        return results_folder(self.profile)

    @property
    def table_folder(self) -> Path:
        """The folder of the tables (CSV)."""
        return self.folder / "tables"

    @property
    def figure_folder(self) -> Path:
        """The folder of the figures (PNG and PDF)."""
        return self.folder / "figures"

    @property
    def prediction_folder(self) -> Path:
        """The folder of predictions and scores (parquet) from which tables are recomputed."""
        return self.folder / "predictions"

    def print_configuration(self, *, seed: int, threads: int | None = None) -> None:
        """Print the profile and what a reader needs to know about a run; set the threads.

        Args:
            seed: Seed that the notebook passes on.
            threads: Number of threads of torch and faiss; `None` takes every processor.
        """
        environment.print_configuration(profile=self.profile, seed=seed, threads=threads)

    def table(self, frame: pd.DataFrame, name: str) -> pd.DataFrame:
        """Write a table to `tables/NAME.csv`; see `write_table`.

        Args:
            frame: The table.
            name: File name without suffix.

        Returns:
            The frame, unchanged, so that a notebook shows it.
        """
        write_table(frame, self.table_folder / f"{_file_name(name)}.csv")
        return frame

    def figure(self, figure: Figure, name: str, *, show: bool = True) -> None:
        """Write a figure to `figures/NAME.png` and `.pdf`, show it in a notebook, and close it.

        Args:
            figure: Figure returned by a function of `plots`.
            name: File name without suffix.
            show: Whether to show it; not where `LiveMonitor` already does.
        """
        save_figure(figure, self.figure_folder, _file_name(name))
        ipython = sys.modules.get("IPython")
        if show and ipython and ipython.get_ipython():
            alt = texts_of(figure).get("Alt", "")
            ipython.display.display(figure, metadata={"image/png": {"alt": alt}})
        plt.close(figure)

    def predictions(
        self, predictions: Sequence[Prediction], name: str, *, seed: int = 0, resamples: int = 1000
    ) -> None:
        """Write predictions to `predictions/NAME.parquet`; see `write_predictions`.

        What was predicted for each image goes to `predictions/NAME.csv` too, see `image_table`.

        Args:
            predictions: Predictions in the order of their result rows.
            name: Name of the table that is computed from them.
            seed: Seed of the bootstrap.
            resamples: Resamples of the bootstrap.
        """
        path = self.prediction_folder / f"{_file_name(name)}.parquet"
        write_predictions(predictions, path, seed=seed, resamples=resamples)
        write_table(image_table(predictions), path.with_suffix(".csv"))

    def features(self, features: Iterable[Features], name: str) -> None:
        """Write the embeddings of images to `features/NAME_DATASET_BACKBONE.parquet`.

        Args:
            features: Features returned by `extract_features`.
            name: First part of the names of the files.
        """
        for entry in features:
            file_name = _file_name(f"{name}_{entry.dataset}_{entry.backbone}")
            with atomic(self.folder / "features" / f"{file_name}.parquet") as temporary:
                embeddings(entry).to_parquet(temporary, index=False)

    def map(self, page: str, name: str, *, show: bool = True) -> None:
        """Write an interactive map to `figures/NAME.html`, and show it in a notebook.

        Args:
            page: HTML returned by `plots.interactive_map`.
            name: File name without suffix.
            show: Whether to show it.
        """
        path = self.figure_folder / f"{_file_name(name)}.html"
        write_text(path, page)
        ipython = sys.modules.get("IPython")
        if show and ipython and ipython.get_ipython():
            frame = (
                f'<iframe srcdoc="{html.escape(page)}" title="interactive map" {_FRAME}></iframe>'
            )
            shown = {"text/html": frame, "text/plain": f"interactive map: {path.name}"}
            ipython.display.display(shown, raw=True)

    def scores(self, scores: pd.DataFrame, name: str, **facts: object) -> None:
        """Write per-image scores to `predictions/NAME.parquet`; see `write_scores`.

        Args:
            scores: One row per image and whatever it was measured on.
            name: Name of the table that is computed from them.
            **facts: Options of that computation, JSON values.
        """
        write_scores(scores, self.prediction_folder / f"{_file_name(name)}.parquet", **facts)


def _file_name(name: str) -> str:
    return shortened(re.sub("[:/]", "-", name), most=200)
