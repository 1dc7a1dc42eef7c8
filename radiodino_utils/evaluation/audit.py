"""The audit of a dataset: duplicates, leaks between splits, label conflicts, faulty images and drift."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..core.environment import git_revision
from ..core.extras import extra
from ..data.duplicates import DISTANCE, near_pairs, perceptual_hashes, pixel_hashes
from ..data.registry import ImageDataset, as_dataset
from ..features.features import Features
from .neighbours import nearest
from .results import write_table
from .twins import find_twins

SATURATED = 0.1  # share of pixels at 255 from which a image counts as saturated
NEIGHBOURS = 5
CALIBRATION = (
    10  # perceptual pairs that are needed to say how similar the embeddings of duplicates are
)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        dataset: Name of the dataset.
        pairs: A row for each pair of images that are the same ("exact"), nearly so ("near", by
            perceptual hash) or alike ("embedding"): kind, split, row, id and class of both, bits,
            similarity, across_splits, across_labels.
        faulty: A row for each image that is constant or saturated: split, row, id, class, fault.
        drift: A row for each two splits and each of height, width, mean and contrast (grey levels):
            medians, and statistic and p value of the Kolmogorov-Smirnov test.
        summary: One paragraph.
        digest: Of the dataset.
        weights: Fingerprint of the backbone whose embeddings were compared; empty for none.
    """

    dataset: str
    pairs: pd.DataFrame
    faulty: pd.DataFrame
    drift: pd.DataFrame
    summary: str
    digest: str
    weights: str

    def write(self, folder: Path) -> list[Path]:
        """Writes `NAME_pairs.csv`, `_faulty.csv`, `_drift.csv` and `_summary.csv` and gives their paths."""
        tables = {"pairs": self.pairs, "faulty": self.faulty, "drift": self.drift}
        facts = {
            "dataset": self.dataset,
            "digest": self.digest,
            "weights": self.weights,
            "git": git_revision(),
        }
        tables["summary"] = pd.DataFrame([facts | {"summary": self.summary}])
        return [
            write_table(table, Path(folder) / f"{Path(self.dataset).stem}_{name}.csv")
            for name, table in tables.items()
        ]


def audit(
    dataset: ImageDataset | str, *, features: Features | None = None, distance: int = DISTANCE
) -> Audit:
    """Audits a labelled set; each image is read once, and only some numbers of each are held in
    memory.

    Exact duplicates have the same pixels. Near ones differ by few bits of their perceptual hash.
    Alike are those of the five nearest neighbours by cosine similarity that are as similar as half
    of the near duplicates are; for a set with fewer than ten near duplicates nobody can say how
    similar that is, and none are given.

    Args:
        dataset: Registered name, or dataset returned by `load_dataset`.
        features: Of the same set; without them embeddings are not compared.
        distance: Greatest number of differing bits (of 64) of near duplicates.

    Returns:
        Tables and a summary.
    """
    dataset = as_dataset(dataset)
    images = _measure(dataset)
    pairs, bits = near_pairs(np.stack(images.pop("hash")), distance=distance)
    pixels = images["pixels"].to_numpy()
    kinds = np.where(pixels[pairs[:, 0]] == pixels[pairs[:, 1]], "exact", "near")
    table = pd.DataFrame({"kind": kinds, "bits": bits, "similarity": np.nan})
    if features is not None:
        similarities, alike, similarity = _alike(features, list(dataset.splits), pairs)
        table["similarity"] = similarities
        pairs = np.vstack([pairs, alike])
        table = pd.concat(
            [table, pd.DataFrame({"kind": "embedding", "similarity": similarity})],
            ignore_index=True,
        )
    named = _named_pairs(table, pairs, images)
    faulty = _faulty(images)
    drift = _drift(images, list(dataset.splits))
    weights = features.sidecar["backbone"]["fingerprint"] if features else ""
    return Audit(
        dataset.name,
        named,
        faulty,
        drift,
        _summary(dataset, named, faulty, drift, features),
        dataset.digest,
        weights,
    )


def leaked_rows(
    dataset: ImageDataset,
    split: str = "test",
    *,
    known: Sequence[str] = ("train", "val"),
    distance: int = DISTANCE,
) -> np.ndarray:
    """Finds the rows of a split whose image, or nearly the same one, lies in the splits that are
    learnt or chosen from.

    For results with and without them see `twins.three_ways`.

    Args:
        dataset: What `load_dataset` gives.
        split: The split to be cleaned.
        known: The splits whose images must not occur in it; those that the set lacks are passed
            over.
        distance: See `audit`.

    Returns:
        int64, sorted.
    """
    return find_twins(dataset, split, known=known, distance=distance).get(
        split, np.empty(0, np.int64)
    )


def _measure(dataset: ImageDataset) -> pd.DataFrame:
    rows = []
    with tqdm(
        total=sum(map(len, dataset.splits.values())), desc=f"auditing {dataset.name}", unit="image"
    ) as bar:
        for split, part in dataset.splits.items():
            labels = dataset.checked_labels(split)
            for row in range(len(part)):
                image = np.asarray(part.images[row])
                rows.append(
                    {
                        "split": split,
                        "row": row,
                        "id": part.ids[row],
                        "class": dataset.classes[labels[row]],
                        "pixels": pixel_hashes([image])[0],
                        "hash": perceptual_hashes([image])[0],
                        "height": image.shape[0],
                        "width": image.shape[1],
                        "mean": image.mean(),
                        "contrast": image.std(),
                        "white": (image == 255).mean(),
                    }  # fmt: skip
                )
                bar.update()
    return pd.DataFrame(rows)


def _alike(
    features: Features, splits: list[str], near: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarity of the near pairs; the pairs that are alike besides, and theirs."""
    embeddings = np.concatenate([features.embedding(split) for split in splits]).astype(np.float32)
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    of_near = np.einsum("ij,ij->i", unit[near[:, 0]], unit[near[:, 1]])
    if len(near) < CALIBRATION:
        return of_near, np.empty((0, 2), np.int64), np.empty(0, np.float32)
    own = np.arange(len(unit))
    similarity, rows = nearest(unit, unit, NEIGHBOURS, exclude=own)
    queries, which = np.nonzero(similarity >= np.median(of_near))
    found = np.sort(np.column_stack([queries, rows[queries, which]]), axis=1)
    found, first = np.unique(found, axis=0, return_index=True)
    is_new = ~np.isin(found @ [len(unit), 1], near @ [len(unit), 1])
    return of_near, found[is_new], similarity[queries, which][first][is_new]


def _named_pairs(table: pd.DataFrame, pairs: np.ndarray, images: pd.DataFrame) -> pd.DataFrame:
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
    table = images[["split", "row", "id", "class", "mean", "contrast", "white"]].assign(
        fault=faults
    )
    return table[table["fault"] != ""].reset_index(drop=True)


def _drift(images: pd.DataFrame, splits: list[str]) -> pd.DataFrame:
    with extra("evaluation"):
        from scipy.stats import ks_2samp

    rows = []
    for one, other in combinations(splits, 2):
        for quantity in ("height", "width", "mean", "contrast"):
            first, second = (
                images.loc[images["split"] == split, quantity].to_numpy(float)
                for split in (one, other)
            )
            test = ks_2samp(first, second)
            medians = {"median_1": np.median(first), "median_2": np.median(second)}
            rows.append(
                {
                    "split_1": one,
                    "split_2": other,
                    "quantity": quantity,
                    **medians,
                    "ks": test.statistic,
                    "p": test.pvalue,
                }
            )
    return pd.DataFrame(
        rows, columns=["split_1", "split_2", "quantity", "median_1", "median_2", "ks", "p"]
    )


def _summary(
    dataset: ImageDataset,
    pairs: pd.DataFrame,
    faulty: pd.DataFrame,
    drift: pd.DataFrame,
    features: Features | None,
) -> str:
    def counted(kind: str) -> str:
        of_kind = pairs[pairs["kind"] == kind]
        return f"{len(of_kind)} ({of_kind['across_splits'].sum()} across splits, {of_kind['across_labels'].sum()} across labels)"

    sizes = ", ".join(f"{len(part)} {split}" for split, part in dataset.splits.items())
    text = f"{dataset.name}: {sizes}. Pairs with the same pixels: {counted('exact')}; near duplicates: {counted('near')}"
    text += (
        f"; alike by the embeddings of {features.sidecar['backbone']['name']}: {counted('embedding')}. "
        if features
        else ". "
    )
    copies = pairs[pairs["kind"] != "embedding"]
    for split in [one for one in ("val", "test") if one in dataset.splits]:
        leaked = {
            row
            for here, there in ((1, 2), (2, 1))
            for row in copies.loc[
                copies[f"split_{here}"].eq(split) & copies[f"split_{there}"].eq("train"),
                f"row_{here}",
            ]
        }
        text += f"{len(leaked)} of {len(dataset.splits[split])} {split} images have an exact or near duplicate in train. "
    text += f"{(faulty['fault'] == 'constant').sum()} images are constant, {(faulty['fault'] == 'saturated').sum()} saturated. "
    if len(drift):
        drifting = drift[drift["p"] < 0.05 / len(drift)]  # Bonferroni
        named = ", ".join(
            f"{one.quantity} ({one.split_1} / {one.split_2})" for one in drifting.itertuples()
        )
        text += f"Drift between splits (Kolmogorov-Smirnov, 5 %, corrected for {len(drift)} tests): {named or 'none'}."
    return text.strip()
