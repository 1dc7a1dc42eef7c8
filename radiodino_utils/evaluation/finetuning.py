"""Fine-tuning of a whole backbone, or of LoRA adapters in it, on a labelled dataset."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from ..backbones.backbone import Backbone, is_convolutional
from ..backbones.loading import as_backbone, load_backbone
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import Facts, cached, entry_path
from ..core.environment import git_revision, training_threads, versions
from ..core.errors import InputError
from ..core.extras import extra
from ..core.fabric import make_fabric
from ..core.files import atomic, features_folder, require_space
from ..data.dataset import ImageDataset
from ..data.registry import as_dataset, load_dataset
from .finetune_config import FinetuneConfig, Protocol
from .finetune_model import with_head
from .finetune_training import class_probabilities, train
from .predictions import Prediction
from .twins import train_deduplicated, without_twins

with extra("train"):
    from lightning.fabric import Fabric, seed_everything

FORMAT = 3  # counts up when the training itself changes, so that older checkpoints are not used


@dataclass(frozen=True)
class FineTuned:
    """Result of a fine-tuning run.

    Attributes:
        prediction: Prediction of the test split by the best epoch.
        curve: A row per epoch: epoch, lr, loss, accuracy, f1_macro, auc (of validation).
        checkpoint: Weights of the best epoch with the head, safetensors by timm's names.
    """

    prediction: Prediction
    curve: pd.DataFrame
    checkpoint: Path


@training_threads()
def finetune(
    backbone: Backbone | str,
    dataset: ImageDataset | str,
    *,
    config: FinetuneConfig | Protocol = "finetune",
    seed: int = 0,
    folder: Path | None = None,
    accelerator: str = "auto",
    workers: int = 0,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
) -> FineTuned:
    """Fine-tune on the train split and predict the test split.

    The epoch with the best macro-F1 on validation is kept. The name of the checkpoint holds a hash
    of all that it depends on; an existing one is used instead of training again.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`; it is not changed.
        dataset: Registered name, or dataset returned by `load_dataset`, with train, val and test.
        config: All options, or a protocol: "finetune" or "lora".
        seed: Seed of the head, the order and the augmentation.
        folder: Folder of the checkpoints; by default that of the feature files.
        accelerator: "auto", "cpu" or "cuda".
        workers: Loader processes.
        on_epoch: Called with each row of the curve.

    Returns:
        The prediction, the curve and the checkpoint; `choice` names the epoch.

    Raises:
        InputError: If the backbone is no vision transformer, a split is missing, a label stands for
            no class, options contradict each other, the loss is not finite, or a step would change
            no tensor of the backbone.
    """
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    config = FinetuneConfig.of(config) if isinstance(config, str) else config
    _check(backbone, dataset, config)
    fabric = make_fabric(precision=config.precision, accelerator=accelerator)
    precision = _precision(fabric)
    declared = _declared(backbone, dataset, config, precision=precision, seed=seed)
    title = f"{config.protocol}_{Path(dataset.name).stem}_{Path(backbone.name).stem}"
    checkpoint = entry_path(
        Path(folder or features_folder()), title, declared=declared, suffix=".safetensors"
    )

    def make() -> Facts:
        seed_everything(seed, verbose=False)
        model, preprocessing = with_head(backbone, len(dataset.classes), config, seed=seed)
        require_space(checkpoint.parent, 4 * sum(tensor.numel() for tensor in model.parameters()))
        state, curve = train(
            fabric,
            model,
            preprocessing,
            dataset,
            config,
            name=backbone.name,
            title=f"{config.protocol}, {Path(dataset.name).stem}",
            workers=workers,
            on_epoch=on_epoch,
        )
        _save(state, model, checkpoint)
        return {"curve": curve, "device": str(fabric.device), "git": git_revision()}

    facts = cached(checkpoint.with_suffix(".json"), checkpoint, declared=declared, make=make)
    curve = pd.DataFrame(facts["curve"])
    best = curve.loc[curve["f1_macro"].idxmax()]
    prediction = _prediction(
        backbone,
        dataset,
        config,
        probabilities=_test_probabilities(fabric, backbone, dataset, config, checkpoint, seed),
        epoch=int(best["epoch"]),
        val_accuracy=float(best["accuracy"]),
        seed=seed,
        precision=precision,
    )
    return FineTuned(prediction, curve, checkpoint)


def _check(backbone: Backbone, dataset: ImageDataset, config: FinetuneConfig) -> None:
    if not backbone.patch_size:
        raise InputError(
            f"{backbone.name}: has no weights to fine-tune; "
            "choose a vision transformer, such as random-t16."
        )
    if absent := [split for split in ("train", "val", "test") if split not in dataset.splits]:
        raise InputError(
            f"{dataset.name}: has no split {', '.join(absent)}; "
            "fine-tuning chooses its epoch on val."
        )
    for split in ("train", "val", "test"):
        dataset.checked_labels(split)
    if config.lora_rank and is_convolutional(backbone.model):
        raise InputError(
            f"{backbone.name}: has no attention for LoRA to adapt; use the protocol finetune."
        )


def _precision(fabric: Fabric) -> str:
    with fabric.autocast():
        return "bf16" if torch.is_autocast_enabled(fabric.device.type) else "fp32"


def _declared(
    backbone: Backbone, dataset: ImageDataset, config: FinetuneConfig, *, precision: str, seed: int
) -> Facts:
    """Return all that a checkpoint depends on."""
    return {
        "format": FORMAT,
        "precision": precision,
        "backbone": backbone.fingerprint,
        "structure": backbone.structure,
        "preprocessing": asdict(backbone.preprocessing),
        "data": dataset.digest,
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "held": {name: split.digest() for name, split in dataset.splits.items()},
        "recipe": config.model_dump(),  # the key is older than the name `config`
        "seed": seed,
        "versions": versions(("torch", "timm")),
    }


def _save(state: dict[str, torch.Tensor], model: nn.Module, checkpoint: Path) -> None:
    metadata = None
    if not is_convolutional(model):
        metadata = {"num_heads": str(model.blocks[0].attn.num_heads)}
    with atomic(checkpoint) as temporary:
        save_file(state, temporary, metadata)


def _test_probabilities(
    fabric: Fabric,
    backbone: Backbone,
    dataset: ImageDataset,
    config: FinetuneConfig,
    checkpoint: Path,
    seed: int,
) -> np.ndarray:
    """Predict the test split with the weights of a checkpoint, float64 [n, classes]."""
    model, preprocessing = with_head(
        backbone, len(dataset.classes), config, seed=seed, adapters=False
    )
    model.load_state_dict(load_file(checkpoint))
    model = fabric.setup_module(model)
    return class_probabilities(
        fabric, model, dataset.splits["test"], preprocessing, config.batch_size
    )


def _prediction(
    backbone: Backbone,
    dataset: ImageDataset,
    config: FinetuneConfig,
    *,
    probabilities: np.ndarray,
    epoch: int,
    val_accuracy: float,
    seed: int,
    precision: str,
) -> Prediction:
    test = dataset.splits["test"]
    choice: dict[str, object] = {"epoch": f"{epoch} of {config.epochs}"}
    if config.size:
        choice["size"] = config.size
    seen = {name: seen_images(backbone.name, part.images) for name, part in dataset.splits.items()}
    return Prediction(
        dataset=dataset.name,
        backbone=backbone.name,
        protocol=config.protocol,
        split="test",
        classes=dataset.classes,
        labels=test.labels,
        probabilities=probabilities,
        ids=list(test.ids),
        weights=backbone.fingerprint,
        caveat=dataset.caveat,
        choice=choice,
        seed=seed,
        positive=dataset.positive,
        engine="torch",
        precision=precision,
        seen_in_pretraining=seen_in_pretraining(seen),
        val_accuracy=val_accuracy,
    )


def finetune_seeds(
    backbone: Backbone | str,
    dataset: ImageDataset | str,
    seeds: Sequence[int],
    *,
    twins: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    jobs: int = 1,
    **options: Any,
) -> list[FineTuned]:
    """Fine-tune with several seeds, one after the other or in parallel.

    Args:
        backbone: See `finetune`; for several processes it must be loadable by its name.
        dataset: See `finetune`; for several processes it must be loadable by its name.
        seeds: One run each.
        twins: Twins returned by `find_twins`, by dataset. If this dataset has some, each seed runs
            again without them, as `PROTOCOL (train-deduplicated)`; see `twins.three_ways`.
        jobs: Processes at a time: on GPUs one each, in turn; on a CPU each with
            `environment.TRAINING_THREADS`.
        **options: Options of `finetune`.

    Returns:
        Runs in the order of `seeds`, those without twins after the others.

    Raises:
        InputError: See `finetune`.
    """
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    own_twins = (twins or {}).get(dataset.name, {})
    if jobs > 1:
        left_out = [{}, own_twins] if own_twins else [{}]
        _write_checkpoints(backbone.name, dataset.name, seeds, left_out, jobs, options)
    runs = [finetune(backbone, dataset, seed=seed, **options) for seed in seeds]
    if own_twins:
        cleaned = without_twins(dataset, own_twins)
        for seed in seeds:
            run = finetune(backbone, cleaned, seed=seed, **options)
            runs.append(replace(run, prediction=train_deduplicated(run.prediction, own_twins)))
    return runs


def _write_checkpoints(
    backbone: str,
    dataset: str,
    seeds: Sequence[int],
    left_out: Sequence[Mapping[str, np.ndarray]],
    jobs: int,
    options: dict[str, Any],
) -> None:
    """Fine-tune in parallel processes, which leave only their checkpoints behind."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs, mp_context=context, initializer=_take_gpu, initargs=(context.Value("i", 0),)
    ) as pool:
        runs = [
            pool.submit(_finetune_by_name, backbone, dataset, seed, twins, options)
            for twins in left_out
            for seed in seeds
        ]
        for run in runs:
            run.result()


def _take_gpu(count: "Synchronized[int]") -> None:
    """Give this process one of the GPUs if there are any."""
    with count.get_lock():
        rank, count.value = count.value, count.value + 1
    if torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank % torch.cuda.device_count())


def _finetune_by_name(
    backbone: str, dataset: str, seed: int, twins: Mapping[str, np.ndarray], options: dict[str, Any]
) -> None:
    cleaned = without_twins(load_dataset(dataset), twins)
    finetune(load_backbone(backbone), cleaned, seed=seed, **options)
