"""Measure the memory of a study of many small images, and write `memory.csv` beside this file.

    python benchmarks/memory.py                       20 000 images of 28 x 28 pixels
    python benchmarks/memory.py --backbone random-t16

Made images of four classes run through the one command for one's own images: features, kNN and the
map. A row is a notebook with the peak memory of its processes, and the seconds that it took.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from radiodino_utils.core.environment import git_revision, versions
from radiodino_utils.core.files import write_text
from radiodino_utils.workflow.runner import run_profile
from radiodino_utils.workflow.study import Study, write_study

IMAGES, EDGE, CLASSES, BOUND_MB = 20_000, 28, 4, 2000
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}
NOTEBOOKS = ("02", "03", "04")
TABLE = Path(__file__).with_suffix(".csv")


def write_images(path: Path, n: int) -> None:
    """Write blobs in noise, whose place is their class, in MedMNIST's layout."""
    generator, arrays = np.random.default_rng(0), {}
    rows, columns = np.mgrid[:EDGE, :EDGE]
    for split, share in SHARES.items():
        labels = np.arange(round(share * n)) % CLASSES
        centres = np.array([[8, 8], [8, 20], [20, 8], [20, 20]])[labels]
        centres = centres + generator.normal(0, 2, centres.shape)
        distance = (rows - centres[:, :1, None]) ** 2 + (columns - centres[:, 1:, None]) ** 2
        images = 160 * np.exp(-distance / 30) + generator.normal(60, 15, distance.shape)
        arrays |= {f"{split}_images": images.clip(0, 255).astype(np.uint8)}
        arrays |= {f"{split}_labels": labels[:, None]}
    np.savez(path, **arrays)


def main() -> None:
    """Run the notebooks of a study and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--backbone", action="append", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["RADIODINO_RESULTS"] = str(Path(folder) / "results")
        write_images(Path(folder) / "many.npz", options.images)
        profile = write_study(Study(Path(folder) / "many.npz", backbones=options.backbone))
        complete = run_profile(str(profile), only=NOTEBOOKS, jobs=1)
        assert complete, "a notebook failed"
        rows = []
        for record in sorted((profile.parent / "state").glob("*.json")):
            facts = json.loads(record.read_text(encoding="utf-8"))
            rows.append(
                {"notebook": record.stem}
                | {key: facts[key] for key in ("peak_memory_mb", "seconds")}
            )
    table = pd.DataFrame(rows).assign(images=options.images, bound_mb=BOUND_MB)
    table = table.rename(columns={"peak_memory_mb": "peak_mb"}).round({"peak_mb": 0, "seconds": 0})
    table = table.assign(**versions(("torch", "umap-learn", "numpy")), git=git_revision())
    write_text(TABLE, table.to_csv(index=False))
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
