"""Verification of committed results: every number follows from the prediction files."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from ..backbones.bundled import evaluation_rows
from ..core.environment import cpu_count
from ..core.errors import InputError
from ..core.files import REPOSITORY, require_checkout, results_folder
from ..evaluation.results import read_table
from .differences import as_text, contradictions, differences
from .notebook_numbers import unknown_intervals
from .notebooks import profile_names
from .readme import readme_with_tables
from .recompute import recomputable_tables, recomputed_tables

NOT_COVERED = {
    "00_classes": "counts of the images",
    "00_drift": "an audit of the images",
    "00_left_out": "what a profile does not compute",
    "00_duplicates": "an audit of the images",
    "00_faulty": "an audit of the images",
    "00_unreadable": "an audit of the images",
    "01_embedding": "the embedding of one image",
    "02_features": "facts about feature files (engine, versions)",
    "02_unreadable": "files that cannot be read",
    "04_clusters": "clusters of the embeddings",
    "04_coordinates": "coordinates of PCA and UMAP",
    "04_variance": "shares of the variance",
    "06_own_embeddings": "the embeddings of one image",
    "06_lung_tumour": "maps of one slice",
    "08_monitor": "the curve of a training",
    "10_monitor": "the curves of three trainings",
    "11_excluded": "counts of regions without features",
    "11_regions": "sizes of the regions",
}


def verify_results(folder: Path, *, notebooks: Path | None = None) -> tuple[list[str], list[str]]:
    """Recompute the tables of a results folder and compare them with the written ones.

    Args:
        folder: Results folder with `tables/` and `predictions/`.
        notebooks: Folder of notebooks; in those that were executed for this profile every value
            with an interval must be in the tables.

    Returns:
        A sentence for each difference, and one for each table that cannot be recomputed from
        predictions.

    Raises:
        InputError: If the folder holds no tables.
    """
    paths = {path.stem: path for path in sorted((folder / "tables").glob("*.csv"))}
    if not paths:
        raise InputError(f"{folder / 'tables'}: holds no tables to verify; run the profile first.")
    tables = {name: read_table(path, dtype=str) for name, path in paths.items()}
    expected, faults = recomputed_tables(folder, tables)
    known = recomputable_tables() | set(NOT_COVERED)
    for name in sorted(set(tables) | set(expected)):
        file = f"tables/{name}.csv"
        if name not in known:
            faults.append(f"{file}: nothing says how to recompute it")
        elif name in expected and name not in tables:
            faults.append(f"{file}: is missing")
        elif name in expected:
            found = differences(as_text(expected[name]), tables[name])
            faults += [f"{file}: {difference}" for difference in found]
    card = as_text(evaluation_rows())
    faults += contradictions(tables | {"the model card": card})
    if notebooks:
        shown = [*expected.values(), *tables.values(), card]
        faults += unknown_intervals(notebooks, folder.name, shown)
    not_covered = sorted(set(tables) & set(NOT_COVERED))
    return faults, [f"tables/{name}.csv ({NOT_COVERED[name]})" for name in not_covered]


def verify_profiles(profiles: Sequence[str] = ()) -> list[str]:
    """Recompute the numbers of committed results, and print what is covered.

    Args:
        profiles: Names of profiles; by default all of `notebooks/profiles` that have results.

    Returns:
        A sentence for each difference.

    Raises:
        InputError: If a results folder holds no tables, or the package is installed without its
            checkout.
    """
    require_checkout(REPOSITORY / "results")
    if not profiles:
        profiles = [name for name in profile_names() if (REPOSITORY / "results" / name).is_dir()]
    faults: list[str] = []
    folders = [results_folder(profile) for profile in profiles]
    for folder, (found, not_covered) in zip(folders, _verified(folders), strict=True):
        covered = f"not covered: {', '.join(not_covered) or 'nothing'}; all figures"
        print(f"{folder}: {len(found)} differences; {covered}")
        faults += [f"{folder.name}: {difference}" for difference in found]
    readme = (REPOSITORY / "results" / "README.md").read_text(encoding="utf-8")
    if readme_with_tables(readme, REPOSITORY) != readme:
        faults.append(
            "results/README.md: its tables are not those of the results; "
            "run radiodino report --readme"
        )
    print(
        "not covered: benchmarks (times and memory), numbers in prose, "
        "numbers of notebooks without an interval"
    )
    return faults


def _verified(folders: Sequence[Path]) -> Iterator[tuple[list[str], list[str]]]:
    """Return what `verify_results` returns of each folder, in a process each."""
    verify = partial(verify_results, notebooks=REPOSITORY / "notebooks")
    workers = max(1, min(len(folders), cpu_count()))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(verify, folders)
