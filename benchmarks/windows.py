"""How results on the demo's CT change with the window; writes `windows.csv` beside this file.

    python benchmarks/windows.py

The first images per class of the splits train and test of organct-axial are cut in HU, written
as TIFF of 32 bits, and read by `folder:LIST.csv` with one intensity rule after the other. Rows hold
the same rule for train and test, or the abdominal window for train and another rule for test.
"""

import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from radiodino_utils.core.environment import set_threads
from radiodino_utils.data.organct import load_organct, organ_values
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.protocols import classify
from radiodino_utils.evaluation.scoring import score
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.features.features import Features

BACKBONE, VIEW, PROTOCOL, PER_CLASS = "radiodino-mini", "axial", "knn-k20", 20
TABLE = Path(__file__).with_suffix(".csv")
COLUMNS = ["train", "test", "protocol", "metric", "value", "ci_low", "ci_high", "n", "unit"]
COLUMNS += ["seed", "backbone", "weights", "engine", "precision", "git"]


def rules() -> dict[str, str]:
    """Return the rules by name, as options of the name of a dataset."""
    named = {name: f"window={name}" for name in ("abdomen", "lung", "bone")}
    return named | {"least..greatest of each image": "percentile=0,100"}


def write_images(folder: Path) -> Path:
    """Write the images in HU and their list; return the list."""
    dataset, rows = load_organct(f"organct-{VIEW}"), []
    for split in ("train", "test"):
        part = dataset.splits[split]
        kept = part.first_of_each_class(PER_CLASS).tolist()
        for number, values in zip(kept, organ_values(VIEW, split, kept), strict=True):
            name = f"{split}{number:04d}.tif"
            Image.fromarray(values.astype(np.float32)).save(folder / name)
            rows.append((name, dataset.classes[part.labels[number]], split))
    path = folder / "list.csv"
    pd.DataFrame(rows, columns=["path", "label", "split"]).to_csv(path, index=False)
    return path


def rows_of(features: Features, train: str, test: str) -> pd.DataFrame:
    """Return the scores of features."""
    table = score(classify(features, PROTOCOL))
    table = table[table["metric"].isin(["accuracy", "auc"])]
    return table.assign(train=train, test=test).reindex(columns=COLUMNS)


def main() -> None:
    """Compute all rows and write the table."""
    warnings.simplefilter("ignore")
    set_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = write_images(Path(folder))
        found = {
            name: extract_features(
                BACKBONE,
                load_dataset(f"folder:{path}?{option}", on_error="raise"),
                folder=Path(folder),
            )
            for name, option in rules().items()
        }
    tables = [rows_of(features, name, name) for name, features in found.items()]
    first = found["abdomen"]
    for name, features in list(found.items())[1:]:
        arrays = dict(first.arrays) | {"test": features.arrays["test"]}
        tables.append(rows_of(replace(first, arrays=arrays), "abdomen", name))
    table = pd.concat(tables).round(4)
    table.to_csv(TABLE, index=False)
    print(table[COLUMNS[:8]].to_string(index=False))


if __name__ == "__main__":
    main()
