"""Whether a run reproduces the committed tables of a profile."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import InputError
from ..core.files import results_folder
from .compare import compare_folders
from .processes import environment
from .runner import run_profile


def check_profile(
    profile: str, *, only: Sequence[str] = (), jobs: int = 1, allow_missing: bool = False
) -> list[str]:
    """Run a profile into a temporary folder, features included, and compare every table.

    Args:
        profile: See `load_profile`.
        only: See `run_profile`; tables of notebooks that did not run are not compared.
        jobs: See `run_profile`.
        allow_missing: See `run_profile`; likewise.

    Returns:
        A sentence for each difference beyond the tolerances of `notebooks/tolerances.yaml`.

    Raises:
        InputError: If there are no committed tables, or a notebook fails.
    """
    committed = results_folder(profile)
    if not list((committed / "tables").glob("*.csv")):
        raise InputError(
            f"{committed / 'tables'}: holds no tables to compare with; "
            "run the profile without --check first."
        )
    with tempfile.TemporaryDirectory(prefix="radiodino-check-") as temporary:
        moved = {
            "RADIODINO_RESULTS": f"{temporary}/results",
            "RADIODINO_FEATURES": f"{temporary}/features",
        }
        with environment(os.environ | moved):
            complete = run_profile(profile, only=only, jobs=jobs, allow_missing=allow_missing)
        if not complete:
            raise InputError(
                f"profile {profile}: a notebook failed, so its tables cannot be compared."
            )
        return compare_folders(
            Path(temporary) / "results" / "tables",
            committed / "tables",
            partly=bool(only) or allow_missing,
        )
