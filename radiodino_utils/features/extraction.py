"""Features of a dataset, computed once and kept in a checked file."""

import os
import shutil
import time
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import load_file, save_file
from torch import distributed

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import cached, entry_path
from ..core.checks import checked_count
from ..core.environment import git_revision, launched, versions
from ..core.files import atomic, features_folder, require_space, value_hash
from ..data.dataset import ImageDataset
from ..data.registry import as_dataset
from .chunks import chunks_of, extract_chunks, join_chunks, short_name
from .engines import choose_engine, make_engine
from .features import Features

FORMAT = 2


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
    """Compute the outputs of a backbone for every image of a dataset, or read them from the cache.

    They are written once as `NAME.safetensors`, with a sidecar `NAME.json` and an index
    `NAME.parquet` (split, row, id, label, class, sha256 of the image). The name holds a hash of all
    that the values depend on. A damaged file is recomputed; an interrupted extraction resumes at
    its last chunk; under `torchrun` the processes share the chunks.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`.
        dataset: Registered name, or dataset returned by `load_dataset`.
        folder: Where feature files are kept; the data folder's `features` by default.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images per forward pass.
        threads: See `make_engine`.

    Returns:
        The features, in dataset order.

    Raises:
        InputError: If `batch_size` is below 1, a label stands for no class, an image cannot be
            read, a feature is not finite, or the disk is full.
    """
    batch_size = checked_count(batch_size, what="batch_size")
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    for split in dataset.splits:
        dataset.checked_labels(split)
    rank, world, _ = launched()
    device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
    engine, precision, device = choose_engine(
        backbone, engine=engine, precision=precision, device=device
    )
    declared = _declared(backbone, dataset, engine, precision)
    title = f"{short_name(dataset.name)}_{short_name(backbone.name)}"
    folder = Path(folder or features_folder())
    path = entry_path(folder, title, declared=declared, suffix=".safetensors")
    options = {"engine": engine, "precision": precision, "device": device, "threads": threads}
    facts = cached(
        *(path.with_suffix(".json"), path, path.with_suffix(".parquet")),
        declared={"key": value_hash(declared)},
        make=partial(_extract, path, backbone, dataset, declared, batch_size, options),
        rank=rank,
        broadcast=partial(_decided_by_first, world=world),
    )
    return _read(path, dataset, facts)


def _extract(
    path: Path,
    backbone: Backbone,
    dataset: ImageDataset,
    declared: dict[str, Any],
    batch_size: int,
    options: dict[str, Any],
) -> dict[str, Any] | None:
    """Extract this process's chunks; the first process joins all and returns the sidecar."""
    rank, world, _ = launched()
    chunks, unfinished = chunks_of(dataset), path.with_suffix(".partial")
    images = sum(map(len, dataset.splits.values()))
    size = 4 * len(backbone.outputs) * backbone.embedding_dim * images
    require_space(path.parent, 2 * size)  # the chunks and the file
    runner = make_engine(backbone, **options)
    mine = chunks[rank::world]
    extract_chunks(runner, backbone, dataset, mine, unfinished, batch_size=batch_size)
    _decided_by_first(None, world)  # waits until every process has its chunks
    if rank:
        return None
    arrays, hashes = join_chunks(chunks, unfinished, dataset, backbone)
    facts = declared | _write(path, dataset, backbone, arrays, hashes)
    shutil.rmtree(unfinished)
    return facts


def _declared(
    backbone: Backbone, dataset: ImageDataset, engine: str, precision: str
) -> dict[str, Any]:
    """Return all that the values depend on."""
    facts = backbone.describe()
    kept = ("fingerprint", "structure", "preprocessing", "outputs")
    return {
        "format": FORMAT,
        "backbone": {name: facts[name] for name in kept},
        "data": dataset.digest,
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "held": {name: split.digest() for name, split in dataset.splits.items()},
        "engine": engine,
        "precision": precision,
        "versions": versions(("torch", "timm", "openvino", "pillow")),
    }


def _write(
    path: Path,
    dataset: ImageDataset,
    backbone: Backbone,
    arrays: dict[str, np.ndarray],
    hashes: dict[str, list[str]],
) -> dict[str, Any]:
    """Write features and index; return further facts for the sidecar."""
    tables = []
    for name, split in dataset.splits.items():
        columns = {
            "split": name,
            "row": np.arange(len(split)),
            "id": split.ids,
            "label": split.labels,
            "class": [dataset.classes[label] for label in split.labels],
            "sha256": hashes[name],
        }
        tables.append(pd.DataFrame(columns))
    with atomic(path.with_suffix(".parquet")) as temporary:
        pd.concat(tables).to_parquet(temporary, index=False)
    with atomic(path) as temporary:
        save_file(arrays, temporary)
    seen = {name: seen_images(backbone.name, part.images) for name, part in dataset.splits.items()}
    return {
        "dataset": dataset.name,
        "unreadable": dict(dataset.unreadable),
        "intensity": dataset.intensity,
        "backbone": backbone.describe(),
        "seen_in_pretraining": seen_in_pretraining(seen),
        "all_versions": versions(),
        "git": git_revision(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _read(path: Path, dataset: ImageDataset, sidecar: dict[str, Any]) -> Features:
    arrays: dict[str, dict[str, np.ndarray]] = {name: {} for name in dataset.splits}
    for key, array in load_file(path).items():
        split, output = key.split("/")
        arrays[split][output] = array
    index = pd.read_parquet(path.with_suffix(".parquet"))
    rows = dict(tuple(index.groupby("split", sort=False)))
    return Features(
        dataset=dataset.name,
        classes=dataset.classes,
        caveat=dataset.caveat,
        arrays=arrays,
        labels={name: rows[name]["label"].to_numpy() for name in dataset.splits},
        ids={name: rows[name]["id"].tolist() for name in dataset.splits},
        sidecar=sidecar,
        path=path,
        positive=dataset.positive,
        groups={
            name: list(split.groups)
            for name, split in dataset.splits.items()
            if split.groups is not None
        },
        unit=dataset.unit,
        groups_from=dataset.groups_from,
        fold_of=dataset.fold_of,
        unreadable=dataset.unreadable,
    )


def _decided_by_first(value: Any, world: int) -> Any:
    """Return the value of the first process, after every process has called this."""
    if world == 1:
        return value
    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=timedelta(days=7))
    distributed.barrier()
    values = [value]
    distributed.broadcast_object_list(values)
    return values[0]
