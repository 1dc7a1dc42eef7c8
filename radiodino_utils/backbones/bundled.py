"""The bundled backbone: its file, the curves of its training and the rows of its evaluation."""

from importlib import resources
from pathlib import Path

import pandas as pd

NAME = "radiodino-mini"
WEIGHTS = Path(str(resources.files(__package__) / "weights"))


def training_curves() -> pd.DataFrame:
    """Read the monitor of the runs that made the bundled checkpoint, with a column `run`."""
    return pd.read_csv(WEIGHTS / f"{NAME}-curves.csv")


def evaluation_rows() -> pd.DataFrame:
    """Read the result rows of the bundled checkpoint and of the baselines on test splits."""
    return pd.read_csv(
        WEIGHTS / f"{NAME}-evaluation.csv",
        keep_default_na=False,
        dtype={"weights": str, "git": str},
    )
