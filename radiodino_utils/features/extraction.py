"""Features of a dataset, computed once and kept in a checked file."""

import argparse
import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from torch import distributed
from tqdm.auto import tqdm

from ..backbones.loading import Backbone, as_backbone, load_backbone
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import locked, seal, sealed
from ..core.checks import checked_embeddings, checked_labels
from ..core.environment import git_revision, launched, versions
from ..core.errors import InputError
from ..core.files import atomic, features_folder, make_folder, require_space, value_hash
from ..data.images import stacked
from ..data.registry import ImageDataset, Split, as_dataset, load_dataset
from .engines import OpenVinoEngine, TorchEngine, choose_engine, make_engine

FORMAT = 2
CHUNK = 1024  # images a chunk: what an interruption can lose, and what a process of several takes at a time


@dataclass(frozen=True)
class Features:
    """Features of every split of a dataset.

    Attributes:
        dataset: Name of the dataset.
        classes: The name of each label.
        caveat: What must be said wherever results on the set are shown.
        arrays: By split and output (`class_token`, `mean_patch_token`, `pixels`; see
            `backbones.with_blocks`): float32, [n, width].
        labels: By split: int64, [n].
        ids: By split: n names, in the order of the rows.
        sidecar: Backbone, preprocessing, data, engine, versions, revision, time.
        path: The safetensors file.
        positive: The positive class of two; see `ImageDataset`.
    """

    dataset: str
    classes: tuple[str, ...]
    caveat: str
    arrays: dict[str, dict[str, np.ndarray]]
    labels: dict[str, np.ndarray]
    ids: dict[str, list[str]]
    sidecar: dict
    path: Path
    positive: str = ""

    @property
    def seen_in_pretraining(self) -> str:
        """Which images of the dataset the backbone's pre-training saw; see `seen.seen_in_pretraining`."""
        return self.sidecar["seen_in_pretraining"]

    def embedding(self, split: str) -> np.ndarray:
        """The embedding (the first output: the class token where there is one) of a split, float32, [n, width]."""
        return self.arrays[split][self.sidecar["backbone"]["outputs"][0]]

    def labelled(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """The embedding and the labels of a split, checked: float32 [n, width] and int64 [n].

        Raises:
            InputError: If the split is missing, an embedding is not finite, or a label stands for
                no class.
        """
        if split not in self.labels:
            raise InputError(
                f"{self.dataset}: has no split {split}; there are {', '.join(self.labels)}."
            )
        embedding = checked_embeddings(
            self.embedding(split), what=f"embeddings of the {split} split of {self.dataset}"
        )
        what = f"{self.dataset}: labels of the {split} split"
        return embedding, checked_labels(
            self.labels[split], len(self.classes), shape=(len(embedding),), what=what
        )


def extract_features(
    backbone: Backbone | str,
    dataset: ImageDataset | str,
    *,
    folder: Path | None = None,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 16,
    threads: int | None = None,
) -> Features:
    """Computes the backbone's outputs for every image of every split, or reads them where they are
    kept.

    Written once as `NAME.safetensors`, with a sidecar `NAME.json` and an index `NAME.parquet`
    (split, row, id, label, class, sha256 of the image). The name holds a hash of all that the
    values depend on. A damaged file is made anew; an interrupted extraction goes on at its last
    chunk; under `torchrun` the processes share the chunks.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`.
        dataset: Registered name, or dataset returned by `load_dataset`.
        folder: Where feature files are kept; the data folder's `features` by default.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images a forward pass.
        threads: See `make_engine`.

    Returns:
        The features, in dataset order.

    Raises:
        InputError: If a label stands for no class, a image cannot be read, a feature is not finite,
            or the disk is full.
    """
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    for split in dataset.splits:
        dataset.checked_labels(split)
    rank, world, _ = launched()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    engine, precision, device = choose_engine(
        backbone, engine=engine, precision=precision, device=device
    )
    about = backbone.describe()
    declared = {
        "format": FORMAT,
        "backbone": {
            key: about[key] for key in ("fingerprint", "structure", "preprocessing", "outputs")
        },
        "data": dataset.digest,
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "held": {name: split.digest() for name, split in dataset.splits.items()},
        "engine": engine,
        "precision": precision,
        "versions": versions(("torch", "timm", "openvino", "pillow")),
    }
    plain = "".join(
        c if c.isalnum() or c in "-_" else "-"
        for c in f"{_short(dataset.name)}_{_short(backbone.name)}"
    )
    key = {"key": value_hash(declared)}
    path = Path(folder or features_folder()) / f"{plain}_{key['key']}.safetensors"
    kept = path.with_suffix(".json"), path, path.with_suffix(".parquet")
    chunks = _chunks(dataset)
    facts = _decided_by_first(sealed(*kept, declared=key, quiet=True) if rank == 0 else None, world)
    if facts is None:
        with locked(path.with_suffix(".lock")) if rank == 0 else nullcontext():
            facts = _decided_by_first(sealed(*kept, declared=key) if rank == 0 else None, world)
            if facts is None:
                size = (
                    4
                    * len(backbone.outputs)
                    * backbone.embedding_dim
                    * sum(map(len, dataset.splits.values()))
                )
                require_space(path.parent, 2 * size)  # the chunks and the file
                runner = make_engine(
                    backbone, engine=engine, precision=precision, device=device, threads=threads
                )
                partial = path.with_suffix(".partial")
                _extract(runner, backbone, dataset, chunks[rank::world], partial, batch_size)
                _decided_by_first(None, world)  # waits until every process has its chunks
                facts = (
                    _join(chunks, partial, path, dataset, backbone, declared | key)
                    if rank == 0
                    else None
                )
                facts = _decided_by_first(facts, world)
    return _read(path, dataset, facts)


def describe_features(features: Features) -> dict[str, object]:
    """One line about a feature file, for a table."""
    sidecar = features.sidecar
    return {
        "dataset": features.dataset,
        "backbone": sidecar["backbone"]["name"],
        "source": sidecar["backbone"]["source"],
        "weights": sidecar["backbone"]["fingerprint"],
        "width": sidecar["backbone"]["embedding_dim"],
        "features": ", ".join(sidecar["backbone"]["outputs"]),
        **sidecar["splits"],
        "data_md5": sidecar["data"],
        "engine": sidecar["engine"],
        "precision": sidecar["precision"],
        "seen_in_pretraining": features.seen_in_pretraining,
        "versions": ", ".join(f"{name} {version}" for name, version in sidecar["versions"].items()),
    }


@dataclass(frozen=True)
class _Chunk:
    split: str
    start: int
    stop: int

    def file(self, folder: Path) -> Path:
        return folder / f"{self.split}-{self.start:09d}-{self.stop:09d}.safetensors"


def _chunks(dataset: ImageDataset) -> list[_Chunk]:
    return [
        _Chunk(name, start, min(start + CHUNK, len(split)))
        for name, split in dataset.splits.items()
        for start in range(0, len(split), CHUNK)
    ]


def _extract(
    runner: TorchEngine | OpenVinoEngine,
    backbone: Backbone,
    dataset: ImageDataset,
    chunks: list[_Chunk],
    folder: Path,
    batch_size: int,
) -> None:  # noqa: ANN001
    make_folder(folder)
    total = sum(chunk.stop - chunk.start for chunk in chunks)
    with tqdm(
        total=total, desc=f"{_short(dataset.name)} × {_short(backbone.name)}", unit="image"
    ) as bar:
        for chunk in chunks:
            file = chunk.file(folder)
            if sealed(file.with_suffix(".json"), file, declared={}) is None:
                hashes, features = [], []
                batches = _batches(dataset.splits[chunk.split], chunk, backbone, batch_size, hashes)
                for outputs in runner.map(batches):
                    features.append(outputs)
                    bar.update(len(outputs[0]))
                arrays = {
                    name: np.concatenate(parts)
                    for name, parts in zip(
                        backbone.outputs, zip(*features, strict=True), strict=True
                    )
                }
                for name, array in arrays.items():
                    _refuse_nan(array, name, dataset, chunk, backbone)
                with atomic(file) as temporary:
                    save_file({**arrays, "sha256": np.array(hashes)}, temporary)
                seal(file.with_suffix(".json"), file, facts={})
            else:
                bar.update(chunk.stop - chunk.start)


def _batches(
    split: Split, chunk: _Chunk, backbone: Backbone, batch_size: int, hashes: list
) -> Iterator[np.ndarray]:
    """Batches of resized images, uint8 [n, size, size, channels]; the hash of each image goes to `hashes`."""
    for start in range(chunk.start, chunk.stop, batch_size):
        images = split.images[start : min(start + batch_size, chunk.stop)]
        hashes += [
            np.frombuffer(hashlib.sha256(np.ascontiguousarray(image)).digest(), np.uint8)
            for image in images
        ]
        yield stacked([backbone.preprocessing.fitted(np.asarray(image)) for image in images])


def _refuse_nan(
    array: np.ndarray, output: str, dataset: ImageDataset, chunk: _Chunk, backbone: Backbone
) -> None:
    bad = np.flatnonzero(~np.isfinite(array).all(1))
    if len(bad):
        first = dataset.splits[chunk.split].ids[chunk.start + bad[0]]
        raise InputError(
            f"{backbone.name} on {dataset.name}: {output} of {len(bad)} images is NaN or infinite, first of '{first}'; "
            "check the weights, or extract with precision fp32."
        )


def _join(
    chunks: list[_Chunk],
    folder: Path,
    path: Path,
    dataset: ImageDataset,
    backbone: Backbone,
    declared: dict,
) -> dict:
    arrays = {
        f"{name}/{output}": np.empty((len(split), backbone.embedding_dim), np.float32)
        for name, split in dataset.splits.items()
        for output in backbone.outputs
    }
    hashes = {name: [] for name in dataset.splits}
    for chunk in chunks:
        part = load_file(chunk.file(folder))
        hashes[chunk.split] += [bytes(digest).hex() for digest in part["sha256"]]
        for output in backbone.outputs:
            arrays[f"{chunk.split}/{output}"][chunk.start : chunk.stop] = part[output]
    index = pd.concat(
        pd.DataFrame(
            {
                "split": name,
                "row": np.arange(len(split)),
                "id": split.ids,
                "label": split.labels,
                "class": [dataset.classes[label] for label in split.labels],
                "sha256": hashes[name],
            }
        )
        for name, split in dataset.splits.items()
    )
    with atomic(path.with_suffix(".parquet")) as temporary:
        index.to_parquet(temporary, index=False)
    with atomic(path) as temporary:
        save_file(arrays, temporary)
    sidecar = declared | {
        "dataset": dataset.name,
        "backbone": backbone.describe(),
        "seen_in_pretraining": seen_in_pretraining(
            {name: seen_images(backbone.name, part.images) for name, part in dataset.splits.items()}
        ),
        "all_versions": versions(),
        "git": git_revision(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    facts = seal(path.with_suffix(".json"), path, path.with_suffix(".parquet"), facts=sidecar)
    shutil.rmtree(folder)
    return facts


def _read(path: Path, dataset: ImageDataset, sidecar: dict) -> Features:
    arrays = {name: {} for name in dataset.splits}
    for key, array in load_file(path).items():
        split, output = key.split("/")
        arrays[split][output] = array
    index = pd.read_parquet(path.with_suffix(".parquet"))
    rows = dict(tuple(index.groupby("split", sort=False)))
    labels = {name: rows[name]["label"].to_numpy() for name in dataset.splits}
    ids = {name: rows[name]["id"].tolist() for name in dataset.splits}
    return Features(
        dataset.name,
        dataset.classes,
        dataset.caveat,
        arrays,
        labels,
        ids,
        sidecar,
        path,
        dataset.positive,
    )


def _short(name: str) -> str:
    kind, _, rest = name.partition(":")
    return f"{kind}-{Path(rest).stem}" if rest else name


def _decided_by_first(value: object, world: int) -> object:
    """The value that the first of all processes has, once each of them has come here."""
    if world == 1:
        return value
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]


def main(arguments: list[str] | None = None) -> None:
    """Extracts features from the command line: `[torchrun --nproc-per-node 2] -m radiodino_utils.features.extraction ...`."""
    parser = argparse.ArgumentParser(
        prog="python -m radiodino_utils.features.extraction", description=main.__doc__
    )
    parser.add_argument("--dataset", required=True, help="registered name, npz:PATH or folder:PATH")
    parser.add_argument("--backbone", required=True, help="registered name or file:PATH")
    parser.add_argument(
        "--revision", help="branch, tag or commit of the weights on the Hub; main by default"
    )
    parser.add_argument("--folder", type=Path, help="where feature files are kept")
    parser.add_argument("--engine", default="auto", help="auto, torch or openvino")
    parser.add_argument(
        "--precision",
        default="fp32",
        help="fp32, bf16, fp16, or auto: bf16 where the processor has it",
    )
    parser.add_argument("--batch-size", type=int, default=16, help="images a forward pass")
    parser.add_argument("--threads", type=int, help="processors to use; all by default")
    options = vars(parser.parse_args(arguments))
    try:
        backbone = load_backbone(options.pop("backbone"), revision=options.pop("revision"))
        dataset = load_dataset(options.pop("dataset"))
        features = extract_features(backbone, dataset, **options)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    if launched()[0] == 0:
        print(features.path)


if __name__ == "__main__":
    main()
