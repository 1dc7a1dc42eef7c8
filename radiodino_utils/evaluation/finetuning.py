"""Fine-tuning of a whole backbone, or of LoRA adapters in it, on a labelled set: best epoch by validation."""

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone, for_training, is_convolutional
from ..backbones.loading import as_backbone, load_backbone
from ..backbones.preprocessing import Preprocessing
from ..backbones.random_weights import draw, redraw
from ..backbones.seen import seen_images, seen_in_pretraining
from ..core.cache import cached
from ..core.environment import git_revision, training_threads, versions
from ..core.errors import InputError
from ..core.extras import extra
from ..core.fabric import make_fabric
from ..core.files import atomic, features_folder, require_space, value_hash
from ..data.registry import ImageDataset, Split, as_dataset, load_dataset
from .finetune_config import FinetuneConfig, Protocol
from .metrics import classification_metrics
from .predictions import Prediction
from .twins import train_deduplicated, without_twins

with extra("train"):
    from lightning.fabric import Fabric, seed_everything

FORMAT = 3  # counts up when the training itself changes, so that older checkpoints are not used


@dataclass(frozen=True)
class FineTuned:
    """What a fine-tuning gives.

    Attributes:
        prediction: Of the test split, by the best epoch.
        curve: A row an epoch: epoch, lr, loss, accuracy, f1_macro, auc (of validation).
        checkpoint: The best epoch's weights with the head, safetensors by timm's names.
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
    on_epoch: Callable[[dict], None] | None = None,
) -> FineTuned:
    """Fine-tunes on the train split, keeps the epoch with the best macro-F1 on validation and
    predicts the test split.

    The checkpoint's name holds a hash of all that it depends on; one that is there is used instead
    of training again.

    Args:
        backbone: Registered name, or backbone returned by `load_backbone`; it stays as it is.
        dataset: Registered name, or dataset returned by `load_dataset`, with train, val and test.
        config: All options, or a protocol: "finetune" or "lora".
        seed: Of the head, the order and the augmentation.
        folder: Where checkpoints are kept; beside the feature files by default.
        accelerator: "auto", "cpu" or "cuda".
        workers: Loader processes.
        on_epoch: Called with each row of the curve.

    Returns:
        The prediction, the curve and the checkpoint; `choice` names the epoch.

    Raises:
        InputError: If the backbone is no vision transformer, a split is missing, a label stands for
            no class, settings contradict each other, the loss is not finite, or a step would change
            no tensor of the backbone.
    """
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    config = FinetuneConfig.of(config) if isinstance(config, str) else config
    _check(backbone, dataset, config)
    fabric = make_fabric(precision=config.precision, accelerator=accelerator)
    with fabric.autocast():
        precision = "bf16" if torch.is_autocast_enabled(fabric.device.type) else "fp32"
    declared = {
        "format": FORMAT,
        "precision": precision,
        "backbone": backbone.fingerprint,
        "structure": backbone.structure,
        "preprocessing": asdict(backbone.preprocessing),
        "data": dataset.digest,
        "splits": {name: len(split) for name, split in dataset.splits.items()},
        "held": {name: split.digest() for name, split in dataset.splits.items()},
        "recipe": config.model_dump(),
        "seed": seed,
        "versions": versions(("torch", "timm")),
    }
    name = f"{config.protocol}_{_plain(dataset.name)}_{_plain(backbone.name)}_{value_hash(declared)}.safetensors"
    checkpoint = Path(folder or features_folder()) / name

    def make() -> dict[str, object]:
        seed_everything(seed, verbose=False)
        model, preprocessing = _with_head(backbone, len(dataset.classes), config, seed=seed)
        require_space(checkpoint.parent, 4 * sum(one.numel() for one in model.parameters()))
        state, curve = _train(
            fabric, model, backbone.name, preprocessing, dataset, config, workers, on_epoch
        )
        with atomic(checkpoint) as temporary:
            save_file(
                state,
                temporary,
                None
                if is_convolutional(model)
                else {"num_heads": str(model.blocks[0].attn.num_heads)},
            )
        return {"curve": curve, "device": str(fabric.device), "git": git_revision()}

    facts = cached(checkpoint.with_suffix(".json"), checkpoint, declared=declared, make=make)
    model, preprocessing = _with_head(
        backbone, len(dataset.classes), config, seed=seed, adapters=False
    )
    model.load_state_dict(load_file(checkpoint))
    curve = pd.DataFrame(facts["curve"])
    best = curve.loc[curve["f1_macro"].idxmax()]
    test = dataset.splits["test"]
    prediction = Prediction(
        dataset=dataset.name,
        backbone=backbone.name,
        protocol=config.protocol,
        split="test",
        classes=dataset.classes,
        labels=test.labels,
        probabilities=_probabilities(
            fabric, fabric.setup_module(model), test, preprocessing, config.batch_size
        ),
        ids=list(test.ids),
        weights=backbone.fingerprint,
        caveat=dataset.caveat,
        choice={"epoch": f"{best['epoch']:.0f} of {config.epochs}"}
        | ({"size": config.size} if config.size else {}),
        seed=seed,
        positive=dataset.positive,
        engine="torch",
        precision=precision,
        seen_in_pretraining=seen_in_pretraining(
            {name: seen_images(backbone.name, part.images) for name, part in dataset.splits.items()}
        ),
    )
    return FineTuned(prediction, curve, checkpoint)


def finetune_seeds(
    backbone: Backbone | str,
    dataset: ImageDataset | str,
    seeds: Sequence[int],
    *,
    twins: Mapping[str, Mapping[str, np.ndarray]] | None = None,
    jobs: int = 1,
    **options: object,
) -> list[FineTuned]:
    """Fine-tunes with several seeds, in turn or in parallel.

    Args:
        backbone: See `finetune`. For processes of their own it must load again by its name.
        dataset: Likewise.
        seeds: One run each.
        twins: By dataset what `find_twins` gives; where this one has some, each seed runs again
            without them, as `PROTOCOL (train-deduplicated)`, see `twins.three_ways`.
        jobs: Processes at a time; on GPUs one each, in turn, and on a CPU each with
            `provenance.TRAINING_THREADS`.
        **options: Of `finetune`.

    Returns:
        In the order of `seeds`, those without twins behind the others.

    Raises:
        InputError: See `finetune`.
    """
    backbone, dataset = as_backbone(backbone), as_dataset(dataset)
    here = (twins or {}).get(dataset.name)
    if jobs > 1:  # they leave their checkpoints behind, which are then read here
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(
            jobs, mp_context=context, initializer=_share, initargs=(context.Value("i", 0),)
        ) as pool:
            ways = [{}, here] if here else [{}]
            runs = [
                pool.submit(_one, backbone.name, dataset.name, seed, way, options)
                for way in ways
                for seed in seeds
            ]
            for run in runs:
                run.result()
    runs = [finetune(backbone, dataset, seed=seed, **options) for seed in seeds]
    if here:
        cleaned = without_twins(dataset, here)
        again = [finetune(backbone, cleaned, seed=seed, **options) for seed in seeds]
        runs += [replace(run, prediction=train_deduplicated(run.prediction, here)) for run in again]
    return runs


def _share(count: object) -> None:
    """Give a process one of the GPUs, where there are any."""
    with count.get_lock():
        rank, count.value = count.value, count.value + 1
    if torch.cuda.device_count():
        os.environ["CUDA_VISIBLE_DEVICES"] = str(rank % torch.cuda.device_count())


def _one(
    backbone: str, dataset: str, seed: int, twins: Mapping[str, np.ndarray], options: dict
) -> None:
    finetune(
        load_backbone(backbone), without_twins(load_dataset(dataset), twins), seed=seed, **options
    )


def _check(backbone: Backbone, dataset: ImageDataset, config: FinetuneConfig) -> None:
    if not backbone.patch_size:
        raise InputError(
            f"{backbone.name}: has no weights to fine-tune; choose a vision transformer, such as random-t16."
        )
    if absent := [split for split in ("train", "val", "test") if split not in dataset.splits]:
        raise InputError(
            f"{dataset.name}: has no split {', '.join(absent)}; fine-tuning chooses its epoch on val."
        )
    for split in ("train", "val", "test"):
        dataset.checked_labels(split)
    if config.lora_rank and is_convolutional(backbone.model):
        raise InputError(
            f"{backbone.name}: has no attention for LoRA to adapt; use the protocol finetune."
        )


def _with_head(
    backbone: Backbone, classes: int, config: FinetuneConfig, *, seed: int, adapters: bool = True
) -> tuple[nn.Module, Preprocessing]:
    model, preprocessing = for_training(deepcopy(backbone.model)), backbone.preprocessing
    model.reset_classifier(classes)
    if is_convolutional(model):
        redraw(model, seed=seed, only=model.pretrained_cfg["classifier"])
        model.drop_rate = config.dropout
    else:
        redraw(model, seed=seed, only="head")
        model.head_drop = nn.Dropout(config.dropout)
    if config.size:
        if not is_convolutional(model):
            model.set_input_size(img_size=config.size)
        preprocessing = Preprocessing(config.size, *list(vars(preprocessing).values())[1:])
    if config.lora_rank and adapters:
        _add_adapters(model, config.lora_rank, seed, backbone.name)
    return model, preprocessing


class _LowRank(nn.Module):
    """LoRA as a parametrization of a weight: it reaches code that reads the weight without calling its layer."""

    def __init__(self, weight: torch.Tensor, rank: int, *, seed: int, name: str) -> None:
        super().__init__()
        rows, columns = weight.shape
        self.down = nn.Parameter(
            draw((rank, columns), std=1 / np.sqrt(3 * columns), seed=seed, name=name)
        )
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight + 2 * self.up @ self.down  # alpha = 2 x rank


def _add_adapters(model: nn.Module, rank: int, seed: int, name: str) -> None:
    """Freeze a model but for its classifier, and put adapters on the projections of every block's attention."""
    model.requires_grad_(False)
    classifier = model.get_classifier()
    for head in classifier if isinstance(classifier, tuple) else (classifier,):
        head.requires_grad_(True)
    for number, block in enumerate(model.blocks):
        layers = {
            key: one
            for key, one in block.attn.named_children()
            if key in _PROJECTIONS and isinstance(one, nn.Linear)
        }
        if not layers:
            raise InputError(
                f"{name}: block {number} has no {', '.join(_PROJECTIONS)} for LoRA; use the protocol finetune."
            )
        for key, layer in layers.items():
            adapter = _LowRank(layer.weight, rank, seed=seed, name=f"blocks.{number}.attn.{key}")
            parametrize.register_parametrization(layer, "weight", adapter)
            layer.parametrizations.weight.original.requires_grad_(False)


_PROJECTIONS = ("qkv", "q", "k", "v", "kv", "q_proj", "k_proj", "v_proj")


def _require_change(
    model: nn.Module, before: dict[str, torch.Tensor], name: str, lr: float
) -> None:
    """Check after a step that it trained what the protocol trains.

    Raises:
        InputError: If no tensor of the backbone has changed, or an adapter got no gradient.
    """
    trained = {key: one for key, one in model.named_parameters() if one.requires_grad}
    adapters = [key for key in trained if "parametrizations" in key]
    blind = [
        key
        for key in adapters
        if trained[key].grad is None or (key.endswith("up") and not trained[key].grad.any())
    ]
    if blind:
        raise InputError(
            f"{name}: {len(blind)} of {len(adapters)} LoRA tensors get no gradient, first {blind[0]}: the architecture does not "
            "use that layer; use the protocol finetune."
        )
    heads = model.get_classifier()
    of_heads = {
        id(one)
        for head in (heads if isinstance(heads, tuple) else (heads,))
        for one in head.parameters()
    }
    own = {key: one for key, one in trained.items() if id(one) not in of_heads}
    if not own:
        raise InputError(
            f"{name}: every tensor of the backbone is frozen (requires_grad is False), so only the head would train."
        )
    is_reached = any(
        one.grad is not None and one.grad.any() for one in own.values()
    )  # weight decay alone is no training
    if not is_reached or not any(
        (one.detach().cpu() != before[key]).any() for key, one in own.items()
    ):
        why = f"lr {lr:g} is too small" if is_reached else "no gradient reaches them"
        raise InputError(
            f"{name}: a step trains none of the {len(own)} tensors of the backbone, since {why}."
        )


def _train(
    fabric: Fabric,
    model: nn.Module,
    name: str,
    preprocessing: Preprocessing,
    dataset: ImageDataset,
    config: FinetuneConfig,
    workers: int,
    on_epoch: Callable[[dict], None] | None,
) -> tuple[dict[str, torch.Tensor], list[dict]]:
    """Trains in place; gives the state of the best epoch and the curve."""
    train, val = dataset.splits["train"], dataset.splits["val"]
    images = _Images(train, preprocessing, _augmentation(config, preprocessing.size))
    loader = DataLoader(
        images,
        config.batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=fabric.device.type == "cuda",
    )
    optimizer = create_optimizer_v2(
        model,
        "adamw",
        lr=config.lr,
        weight_decay=config.weight_decay,
        layer_decay=config.layer_decay,
    )
    steps, warmup = len(loader) * config.epochs, len(loader) * config.warmup_epochs
    schedule = CosineLRScheduler(
        optimizer,
        steps - warmup,
        warmup_t=warmup,
        warmup_lr_init=config.lr / 100,
        warmup_prefix=True,
        t_in_epochs=False,
    )
    bare = model
    model, optimizer = fabric.setup(model, optimizer)
    loader = fabric.setup_dataloaders(loader)
    weights = _WEIGHTS[config.class_weights](
        np.bincount(train.labels, minlength=len(dataset.classes))
    )
    criterion = fabric.to_device(nn.CrossEntropyLoss(torch.tensor(weights, dtype=torch.float32)))
    before = {
        key: one.detach().cpu().clone() for key, one in bare.named_parameters() if one.requires_grad
    }
    step, best, curve = 0, -1.0, []
    for epoch in tqdm(
        range(1, config.epochs + 1), desc=f"{config.protocol}, {_plain(dataset.name)}", unit="epoch"
    ):
        model.train()
        losses = []
        for batch, labels in loader:
            schedule.step_update(step)
            loss = criterion(model(batch).float(), labels)
            optimizer.zero_grad()
            fabric.backward(loss)
            clip = config.warmup_clip if step < warmup else config.clip
            fabric.clip_gradients(model, optimizer, max_norm=clip, error_if_nonfinite=False)
            optimizer.step()
            losses.append(loss.item())
            if not step and np.isfinite(losses[0]):
                _require_change(bare, before, name, optimizer.param_groups[-1]["lr"])
                before.clear()
            step += 1
        if not np.isfinite(losses).all():
            raise InputError(
                f"epoch {epoch}: the loss is NaN or infinite; use a smaller lr, or precision fp32."
            )
        metrics = classification_metrics(
            val.labels,
            _probabilities(fabric, model, val, preprocessing, config.batch_size),
            resamples=0,
        )
        row = {
            "epoch": epoch,
            "lr": optimizer.param_groups[-1]["lr"],
            "loss": float(np.mean(losses)),
        }
        row |= {name: metrics[name].value for name in ("accuracy", "f1_macro", "auc")}
        curve.append(row)
        if row["f1_macro"] > best:
            best, state = row["f1_macro"], _plain_state(bare)
        if on_epoch:
            on_epoch(row)
    return state, curve


def _plain_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the weights by timm's names, adapters merged in."""
    state = {
        name: one for name, one in model.state_dict().items() if ".parametrizations." not in name
    }
    state |= {
        f"{name}.weight": one.weight
        for name, one in model.named_modules()
        if parametrize.is_parametrized(one)
    }
    return {name: one.detach().cpu().clone().contiguous() for name, one in state.items()}


_WEIGHTS = {
    "sqrt": lambda counts: np.sqrt(counts.sum() / np.maximum(counts, 1)),
    "balanced": lambda counts: counts.sum() / np.maximum(counts, 1),
    "none": np.ones_like,
}


def _augmentation(config: FinetuneConfig, size: int) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomRotation(config.rotation, v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(size, scale=config.crop, antialias=True),
        ]
    )


class _Images(Dataset):
    """Standardised images, float32 [3, size, size], with their labels."""

    def __init__(
        self, split: Split, preprocessing: Preprocessing, augmentation: v2.Transform | None = None
    ) -> None:
        self.split, self.preprocessing, self.augmentation = split, preprocessing, augmentation
        self.standardise = v2.Compose(
            [
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(preprocessing.mean, preprocessing.std),
            ]
        )

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        image = torch.tensor(self.preprocessing.fitted(np.asarray(self.split.images[row])))
        image = image.permute(2, 0, 1) if image.ndim == 3 else image.expand(3, -1, -1)
        if self.augmentation:
            image = self.augmentation(image)
        return self.standardise(image), int(self.split.labels[row])


@torch.inference_mode()
def _probabilities(
    fabric: Fabric, model: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int
) -> np.ndarray:
    """Of every image of a split, float64 [n, classes]."""
    model.eval()
    loader = fabric.setup_dataloaders(DataLoader(_Images(split, preprocessing), batch_size))
    return np.concatenate([model(batch).double().softmax(1).cpu().numpy() for batch, _ in loader])


def _plain(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in Path(name).stem)
