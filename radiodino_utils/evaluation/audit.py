"""Audit of a dataset: duplicates, leaks, label conflicts, faulty images and drift."""

from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core.environment import git_revision
from ..core.extras import extra
from ..core.files import shortened
from ..data.duplicates import DISTANCE, near_pairs, perceptual_hashes, pixel_hashes
from ..data.readability import unreadable_table
from ..data.registry import ImageDataset, as_dataset, load_dataset
from ..features.features import Features, require_features
from .neighbours import nearest
from .results import write_table

SATURATED = 0.1  # share of pixels at 255 from which an image counts as saturated
NEIGHBOURS = 5  # nearest neighbours of each image that are compared with it
CALIBRATION = 10  # near duplicates needed to know how similar the embeddings of duplicates are


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        dataset: Name of the dataset.
        pairs: A row per pair of images that are the same ("exact"), nearly so ("near", by
            perceptual hash) or alike ("embedding"): kind, split, row, id and class of both, bits,
            similarity, across_splits, across_labels.
        faulty: A row per image that is constant or saturated: split, row, id, class, mean,
            contrast, white, fault.
        drift: A row per pair of splits and each of height, width, mean and contrast (grey levels):
            medians, and statistic and p value of the Kolmogorov-Smirnov test.
        summary: One paragraph.
        unreadable: Id and reason of each image that cannot be read; the other tables lack it.
        digest: Hash of the dataset.
        weights: Fingerprint of the backbone whose embeddings were compared; empty for none.
    """

    dataset: str
    pairs: pd.DataFrame
    faulty: pd.DataFrame
    drift: pd.DataFrame
    unreadable: pd.DataFrame
    summary: str
    digest: str
    weights: str

    def write(self, folder: Path) -> list[Path]:
        """Write `NAME_pairs.csv`, `_faulty`, `_drift`, `_unreadable` and `_summary.csv`.

        Args:
            folder: Folder of the files.

        Returns:
            The paths.
        """
        names = ("pairs", "faulty", "drift", "unreadable")
        tables = {name: getattr(self, name) for name in names}
        facts = {
            "dataset": self.dataset,
            "digest": self.digest,
            "weights": self.weights,
            "git": git_revision(),
        }
        tables["summary"] = pd.DataFrame([facts | {"summary": self.summary}])
        stem = shortened(Path(self.dataset).stem)
        return [
            write_table(table, Path(folder) / f"{stem}_{name}.csv")
            for name, table in tables.items()
        ]


def audit(
    dataset: ImageDataset | str, *, features: Features | None = None, distance: int = DISTANCE
) -> Audit:
    """Audit a labelled dataset.

    Each image is read once, and only some numbers of each are held in memory. Exact duplicates have
    the same pixels. Near ones differ by few bits of their perceptual hash. Alike are those of the
    five nearest neighbours by cosine similarity that are at least as similar as the median of the
    near duplicates; in a dataset with fewer than ten near duplicates that is unknown, and none are
    listed.

    Args:
        dataset: Registered name, whose unreadable images are listed however many there are, or
            dataset returned by `load_dataset`.
        features: Features of the same dataset; without them embeddings are not compared.
        distance: Maximum number of differing bits (of 64) of near duplicates.

    Returns:
        Tables and a summary.

    Raises:
        InputError: If the dataset or the features are of another type, or an image cannot be read.
    """
    if features is not None:
        require_features(features)
    if isinstance(dataset, str):
        dataset = load_dataset(dataset, on_error="list")
    dataset = as_dataset(dataset)
    images = _measure(dataset)
    pairs, bits = near_pairs(np.stack(images.pop("hash")), distance=distance)
    pixels = images["pixels"].to_numpy()
    kinds = np.where(pixels[pairs[:, 0]] == pixels[pairs[:, 1]], "exact", "near")
    table = pd.DataFrame({"kind": kinds, "bits": bits, "similarity": np.nan})
    if features is not None:
        table["similarity"], alike, similarity = _alike(features, list(dataset.splits), pairs)
        pairs = np.vstack([pairs, alike])
        further = pd.DataFrame({"kind": "embedding", "similarity": similarity})
        table = pd.concat([table, further], ignore_index=True)
    named = _named_pairs(table, pairs, images)
    faulty = _faulty(images)
    drift = _drift(images, list(dataset.splits))
    return Audit(
        dataset=dataset.name,
        pairs=named,
        faulty=faulty,
        drift=drift,
        unreadable=unreadable_table([dataset])[["id", "reason"]],
        summary=_summary(dataset, named, faulty, drift, features),
        digest=dataset.digest,
        weights=features.sidecar["backbone"]["fingerprint"] if features else "",
    )


def _measure(dataset: ImageDataset) -> pd.DataFrame:
    """Return a row per image, in the order of the splits."""
    rows = []
    total = sum(len(part) for part in dataset.splits.values())
    with tqdm(total=total, desc=f"auditing {dataset.name}", unit="image") as bar:
        for split, part in dataset.splits.items():
            labels = dataset.checked_labels(split)
            for row in range(len(part)):
                names = {"split": split, "row": row, "id": part.ids[row]}
                names["class"] = dataset.classes[labels[row]]
                rows.append(names | _image_measures(np.asarray(part.images[row])))
                bar.update()
    return pd.DataFrame(rows)


def _image_measures(image: np.ndarray) -> dict[str, Any]:
    return {
        "pixels": pixel_hashes([image])[0],
        "hash": perceptual_hashes([image])[0],
        "height": image.shape[0],
        "width": image.shape[1],
        "mean": image.mean(),
        "contrast": image.std(),
        "white": (image == 255).mean(),
    }


def _alike(
    features: Features, splits: list[str], near: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compare embeddings.

    Returns:
        The similarity of the near pairs, further pairs that are alike, and their similarity.
    """
    embeddings = np.concatenate([features.embedding(split) for split in splits]).astype(np.float32)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    near_similarity = np.einsum("ij,ij->i", unit[near[:, 0]], unit[near[:, 1]])
    if len(near) < CALIBRATION:
        return near_similarity, np.empty((0, 2), np.int64), np.empty(0, np.float32)
    similarity, rows = nearest(unit, unit, NEIGHBOURS, exclude=np.arange(len(unit)))
    queries, ranks = np.nonzero(similarity >= np.median(near_similarity))
    pairs = np.sort(np.column_stack([queries, rows[queries, ranks]]), axis=1)
    pairs, first = np.unique(pairs, axis=0, return_index=True)
    is_new = ~np.isin(pairs @ [len(unit), 1], near @ [len(unit), 1])
    return near_similarity, pairs[is_new], similarity[queries, ranks][first][is_new]


def _named_pairs(table: pd.DataFrame, pairs: np.ndarray, images: pd.DataFrame) -> pd.DataFrame:
    """Add split, row, id and class of both images to the table of pairs."""
    columns = ["split", "row", "id", "class"]
    ends = [
        images[columns].iloc[pairs[:, side]].add_suffix(f"_{side + 1}").reset_index(drop=True)
        for side in (0, 1)
    ]
    named = pd.concat(
        [table["kind"], *ends, table[["bits", "similarity"]].astype({"bits": "Int64"})], axis=1
    )
    named["across_splits"] = named["split_1"] != named["split_2"]
    return named.assign(across_labels=named["class_1"] != named["class_2"])


def _faulty(images: pd.DataFrame) -> pd.DataFrame:
    faults = np.select(
        [images["contrast"] == 0, images["white"] >= SATURATED], ["constant", "saturated"], ""
    )
    columns = ["split", "row", "id", "class", "mean", "contrast", "white"]
    table = images[columns].assign(fault=faults)
    return table[table["fault"] != ""].reset_index(drop=True)


def _drift(images: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    with extra("evaluation"):
        from scipy.stats import ks_2samp

    rows = []
    for first, second in combinations(splits, 2):
        for quantity in ("height", "width", "mean", "contrast"):
            values_1 = images.loc[images["split"] == first, quantity].to_numpy(float)
            values_2 = images.loc[images["split"] == second, quantity].to_numpy(float)
            test = ks_2samp(values_1, values_2)
            medians = (np.median(values_1), np.median(values_2))
            rows.append((first, second, quantity, *medians, test.statistic, test.pvalue))
    columns = ["split_1", "split_2", "quantity", "median_1", "median_2", "ks", "p"]
    return pd.DataFrame(rows, columns=columns)


def _summary(
    dataset: ImageDataset,
    pairs: pd.DataFrame,
    faulty: pd.DataFrame,
    drift: pd.DataFrame,
    features: Features | None,
) -> str:
    sizes = ", ".join(f"{len(part)} {split}" for split, part in dataset.splits.items())
    kinds = f"Pairs with the same pixels: {_counts(pairs, 'exact')}"
    kinds += f"; near duplicates: {_counts(pairs, 'near')}"
    if features:
        name = features.sidecar["backbone"]["name"]
        kinds += f"; alike by the embeddings of {name}: {_counts(pairs, 'embedding')}"
    sentences = [f"{dataset.name}: {sizes}.", f"{kinds}."]
    if dataset.unreadable:
        sentences.insert(1, f"{len(dataset.unreadable)} further images cannot be read.")
    for split in ("val", "test"):
        if split in dataset.splits:
            sentences.append(
                f"{_leaked_count(pairs, split)} of {len(dataset.splits[split])} {split} images "
                "have an exact or near duplicate in train."
            )
    faults = faulty["fault"].value_counts()
    sentences.append(
        f"{faults.get('constant', 0)} images are constant, {faults.get('saturated', 0)} saturated."
    )
    if len(drift):
        drifting = drift[drift["p"] < 0.05 / len(drift)]  # Bonferroni
        names = [f"{row.quantity} ({row.split_1} / {row.split_2})" for row in drifting.itertuples()]
        sentences.append(
            f"Drift between splits (Kolmogorov-Smirnov, 5 %, corrected for {len(drift)} tests): "
            f"{', '.join(names) or 'none'}."
        )
    return " ".join(sentences)


def _counts(pairs: pd.DataFrame, kind: str) -> str:
    of_kind = pairs[pairs["kind"] == kind]
    return (
        f"{len(of_kind)} ({of_kind['across_splits'].sum()} across splits, "
        f"{of_kind['across_labels'].sum()} across labels)"
    )


def _leaked_count(pairs: pd.DataFrame, split: str) -> int:
    """Count the images of a split that have an exact or near duplicate in train."""
    copies = pairs[pairs["kind"] != "embedding"]
    leaked: set[int] = set()
    for own, other in ((1, 2), (2, 1)):
        is_leak = copies[f"split_{own}"].eq(split) & copies[f"split_{other}"].eq("train")
        leaked.update(copies.loc[is_leak, f"row_{own}"])
    return len(leaked)
