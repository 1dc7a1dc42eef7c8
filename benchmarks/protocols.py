"""Time the protocols at the size of the published datasets, and write `protocols.csv` beside it.

    python benchmarks/protocols.py                      all cases
    python benchmarks/protocols.py --only logistic      90 000 x 384, the grid of 45 C, 11 classes
    python benchmarks/protocols.py --only organamnist   kNN, bank of 34 561 x 384, 17 778 queries
    python benchmarks/protocols.py --only radimagenet   kNN, bank of 1.08 million x 192,
                                                        10 000 queries; extrapolated to 135 000

The features are synthetic. Each case runs in a process of its own; its peak memory is that of the
whole process. `--scale 0.1` shrinks everything.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

from radiodino_utils.core.environment import git_revision, set_threads, versions
from radiodino_utils.core.files import write_text
from radiodino_utils.evaluation.knn import KS, knn_probabilities
from radiodino_utils.evaluation.logistic import STRENGTHS, classify_logistic
from radiodino_utils.features.features import Features

TABLE = Path(__file__).with_suffix(".csv")
CASES = {
    "logistic": {
        "bank": 90_000,
        "queries": 10_000,
        "width": 384,
        "classes": 11,
        "bar_s": 180,
        "all_queries": 10_000,
    },
    "organamnist": {
        "bank": 34_561,
        "queries": 17_778,
        "width": 384,
        "classes": 11,
        "bar_s": 20,
        "all_queries": 17_778,
    },
    "radimagenet": {
        "bank": 1_080_000,
        "queries": 10_000,
        "width": 192,
        "classes": 165,
        "bar_mb": 4096,
        "all_queries": 135_000,
    },
}


def made(rows: int, case: dict, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of overlapping classes with correlated columns, float32, and their labels."""
    fixed, generator = np.random.default_rng(0), np.random.default_rng(seed)
    width, classes = case["width"], case["classes"]
    centres = 0.15 * fixed.standard_normal((classes, width), np.float32)
    scales = np.exp(-np.arange(width, dtype=np.float32) / 100)
    labels = generator.integers(classes, size=rows)
    values = generator.standard_normal((rows, width), np.float32)
    values += centres[labels]
    values *= scales
    return values, labels


def logistic(case: dict) -> str:
    """The probe with its choice on validation; gives what it chose."""
    parts = {
        "train": made(case["bank"], case, 1),
        "val": made(case["queries"], case, 2),
        "test": made(case["queries"], case, 3),
    }
    arrays, labels = (
        {k: {"class_token": v[0]} for k, v in parts.items()},
        {k: v[1] for k, v in parts.items()},
    )
    sidecar = {"backbone": {"name": "made", "fingerprint": "0", "outputs": ["class_token"]}}
    names, ids = (
        tuple(map(str, range(case["classes"]))),
        {k: range(len(v)) for k, v in labels.items()},
    )
    found = classify_logistic(Features("made", names, "", arrays, labels, ids, sidecar, Path()))
    accuracy = (found.probabilities.argmax(1) == found.labels).mean()
    return f"{len(STRENGTHS)} values, {found.chosen}, accuracy {accuracy:.3f}"


def knn(case: dict) -> str:
    """The whole k curve of DINO's weighted kNN; gives the best k."""
    (bank, labels), (queries, truth) = made(case["bank"], case, 1), made(case["queries"], case, 2)
    found = knn_probabilities(bank, labels, queries, ks=KS, classes=case["classes"])
    accuracy = {k: (one.argmax(1) == truth).mean() for k, one in found.items()}
    best = max(accuracy, key=accuracy.get)
    return f"{len(KS)} k to {max(KS)}, k = {best}, accuracy {accuracy[best]:.3f}"


def measure(name: str, scale: float) -> dict[str, object]:
    """Runs a case in this process."""
    case = CASES[name] | {key: round(scale * CASES[name][key]) for key in ("bank", "queries")}
    start = time.perf_counter()
    result = logistic(case) if name == "logistic" else knn(case)
    seconds = time.perf_counter() - start  # making the features included
    return {
        "case": name,
        **{key: case[key] for key in ("bank", "queries", "width", "classes")},
        "seconds": seconds,
        "bar_s": case.get("bar_s"),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "bar_mb": case.get("bar_mb"),
        "minutes_for_all_queries": seconds * case["all_queries"] / case["queries"] / 60,
        "all_queries": case["all_queries"],
        "result": result,
    }


def main() -> None:
    """Measures and writes the table; rows of cases that are left out are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=CASES, help="one case")
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="share of bank and queries; below 1 nothing is written",
    )
    parser.add_argument("--threads", type=int, help="all processors by default")
    parser.add_argument("--measure", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = set_threads(options.threads)
    if options.measure:
        print(json.dumps(measure(options.measure, options.scale)))
        return
    lines = []
    for name in [options.only] if options.only else CASES:
        command = [
            sys.executable,
            __file__,
            "--measure",
            name,
            "--scale",
            str(options.scale),
            "--threads",
            str(threads),
        ]
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        lines.append(json.loads(out.splitlines()[-1]))
        print(
            f"{name}: {lines[-1]['seconds']:.1f} s, {lines[-1]['peak_mb']:.0f} MB, "
            f"{lines[-1]['result']}",
            flush=True,
        )
    of_all = ", ".join(
        f"{name} {version}"
        for name, version in versions(("faiss-cpu", "scikit-learn", "numpy")).items()
    )
    table = pd.DataFrame(lines).assign(threads=threads, versions=of_all, git=git_revision())
    if TABLE.exists():
        kept = pd.read_csv(TABLE)
        table = pd.concat([table, kept[~kept["case"].isin(table["case"])]])
    if options.scale == 1:
        write_text(TABLE, table.to_csv(index=False, float_format="%.4g", lineterminator="\n"))


if __name__ == "__main__":
    main()
