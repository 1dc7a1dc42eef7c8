"""Measure time and memory of the kNN search, and write `knn.csv` beside this file.

    python benchmarks/knn.py                 both cases
    python benchmarks/knn.py --only speed    bank of 90 000 x 384, 7200 queries
    python benchmarks/knn.py --only memory   bank of 1.35 million x 384 as a float16 memory map,
                                             1000 queries, ours alone

The search of this package runs beside IndexFlatIP of faiss and brute force of scikit-learn. All
three take raw float32 features and return cosine similarities and rows. In a round they run one
after the other, in turning order; a ratio is the median over the rounds. Memory is the peak beyond
the arguments, in a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import faiss
import numpy as np
import pandas as pd
from sklearn.neighbors import NearestNeighbors

from radiodino_utils.core.environment import git_revision, set_threads, versions
from radiodino_utils.core.files import write_text
from radiodino_utils.evaluation.knn import knn_probabilities
from radiodino_utils.evaluation.neighbours import nearest

WIDTH, KS, CLASSES, BAR, BOUND_MB = 384, (20, 200), 165, 1.10, 300
SPEED = {"bank": 90_000, "queries": 7_200}
MEMORY = {"bank": 1_350_000, "queries": 1_000}
TABLE = Path(__file__).with_suffix(".csv")


def features(rows: int, seed: int) -> np.ndarray:
    """Random features, float32, [rows, WIDTH]."""
    return np.random.default_rng(seed).standard_normal((rows, WIDTH), dtype=np.float32)


def ours(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The package's search."""
    return nearest(bank, queries, k)


def faiss_flat(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Faiss IndexFlatIP on normalised copies."""
    bank, queries = bank.copy(), queries.copy()
    faiss.normalize_L2(bank)
    faiss.normalize_L2(queries)
    index = faiss.IndexFlatIP(WIDTH)
    index.add(bank)
    return index.search(queries, k)


def scikit_learn(bank: np.ndarray, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's brute force."""
    search = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(bank)
    distances, rows = search.kneighbors(queries)
    return 1 - distances, rows


METHODS = {"ours": ours, "faiss IndexFlatIP": faiss_flat, "scikit-learn brute": scikit_learn}


class PeakMemory:
    """Sample the private memory of this process, without memory maps, while a block runs."""

    def __enter__(self) -> "PeakMemory":
        self._over = threading.Event()
        self._start = self._peak = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()
        self.mb = (self._peak - self._start) / 1024

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self._peak = max(self._peak, self._now())

    @staticmethod
    def _now() -> int:
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])


def weigh(name: str, k: int, folder: str) -> dict[str, float]:
    """Runs one search in this process and measures its memory and time."""
    if name == "memory map":
        bank, queries = (
            np.load(Path(folder) / "bank.npy", mmap_mode="r"),
            features(MEMORY["queries"], 1),
        )
        labels = np.random.default_rng(2).integers(CLASSES, size=len(bank))
        work = lambda: knn_probabilities(  # noqa: E731
            bank, labels, queries, ks=(1, 10, 20, 100, k), classes=CLASSES
        )
    else:
        bank, queries = features(SPEED["bank"], 0), features(SPEED["queries"], 1)
        work = lambda: METHODS[name](bank, queries, k)  # noqa: E731
    with PeakMemory() as memory:
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
    return {"peak_mb": memory.mb, "seconds": seconds}


def in_own_process(name: str, k: int, threads: int, folder: str = "") -> dict[str, float]:
    """`weigh` in a process of its own."""
    command = [
        sys.executable,
        __file__,
        "--weigh",
        name,
        "--k",
        str(k),
        "--threads",
        str(threads),
        "--folder",
        folder,
    ]
    return json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )


def speed(rounds: int, threads: int) -> list[dict[str, object]]:
    """Times all methods interleaved and checks that they find the same neighbours."""
    bank, queries, lines = features(SPEED["bank"], 0), features(SPEED["queries"], 1), []
    for k in KS:
        seconds, found = {name: [] for name in METHODS}, {}
        for turn in range(rounds):
            names = [list(METHODS)[(i + turn) % len(METHODS)] for i in range(len(METHODS))]
            for name in names:
                start = time.perf_counter()
                found[name] = METHODS[name](bank, queries, k)
                seconds[name].append(time.perf_counter() - start)
        table = pd.DataFrame(seconds)
        best = table.drop(columns="ours").min(axis=1)
        for name, (values, rows) in found.items():
            same = (np.sort(rows, 1) == np.sort(found["ours"][1], 1)).mean()
            assert same > 0.9999 and np.allclose(values, found["ours"][0], atol=1e-4), (
                f"{name} finds other neighbours: {same}"
            )
            ratio = (table[name] / best).median()
            seconds = table[name].median()
            print(
                f"k = {k:3d}  {name:18}  {seconds:6.2f} s  {ratio:.2f} of the best other",
                flush=True,
            )
            lines.append(
                {
                    "case": "speed",
                    "method": name,
                    **SPEED,
                    "k": k,
                    "seconds": table[name].median(),
                    "ratio_to_best_other": ratio,
                }
                | {"bar": BAR if name == "ours" else None, "rounds": rounds}
                | {"peak_mb": in_own_process(name, k, threads)["peak_mb"], "bound_mb": None}
            )
    return lines


def memory(threads: int) -> list[dict[str, object]]:
    """Runs the large bank from a float16 memory map in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        shape = (MEMORY["bank"], WIDTH)
        bank = np.lib.format.open_memmap(Path(folder) / "bank.npy", "w+", np.float16, shape)
        for start in range(0, len(bank), 50_000):
            bank[start : start + 50_000] = features(min(50_000, len(bank) - start), start)
        bank.flush()
        measured = in_own_process("memory map", max(KS), threads, folder)
    print(
        f"1.35 million from a memory map: {measured['seconds']:.1f} s, "
        f"{measured['peak_mb']:.0f} MB",
        flush=True,
    )
    line = {
        "case": "memory",
        "method": "ours",
        **MEMORY,
        "k": max(KS),
        "rounds": 1,
        **measured,
        "bound_mb": BOUND_MB,
    }
    return [line]


def main() -> None:
    """Measures and writes the table; rows of a case that is left out are kept."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=("speed", "memory"), help="one case")
    parser.add_argument("--rounds", type=int, default=5, help="of the speed case")
    parser.add_argument("--threads", type=int, help="all processors by default")
    parser.add_argument("--weigh", help=argparse.SUPPRESS)
    parser.add_argument("--k", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = set_threads(options.threads)
    if options.weigh:
        print(json.dumps(weigh(options.weigh, options.k, options.folder)))
        return
    lines = speed(options.rounds, threads) if options.only != "memory" else []
    lines += memory(threads) if options.only != "speed" else []
    of_all = ", ".join(
        f"{name} {version}"
        for name, version in versions(("faiss-cpu", "scikit-learn", "numpy")).items()
    )
    table = pd.DataFrame(lines).assign(threads=threads, versions=of_all, git=git_revision())
    if TABLE.exists():
        kept = pd.read_csv(TABLE)
        table = pd.concat([table, kept[~kept["case"].isin(table["case"])]]).sort_values(
            "case", ascending=False, kind="stable"
        )
    write_text(TABLE, table.to_csv(index=False, float_format="%.4g", lineterminator="\n"))


if __name__ == "__main__":
    main()
