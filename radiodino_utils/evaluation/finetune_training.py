"""The training loop of fine-tuning: epochs with warm-up and cosine, the best by validation."""

from collections.abc import Callable

import numpy as np
import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2
from tqdm.auto import tqdm

from ..backbones.preprocessing import Preprocessing
from ..core.errors import InputError
from ..core.extras import extra
from ..data.dataset import ImageDataset, Split
from .finetune_config import FinetuneConfig
from .finetune_model import require_change, trained_parameters
from .lora import merged_state
from .metrics import classification_metrics

with extra("train"):
    from lightning.fabric import Fabric

Row = dict[str, float]


class StandardisedImages(Dataset):
    """Images as a model sees them, with their labels.

    An item is a float32 tensor [3, height, width] and an integer.

    Args:
        split: Images and labels.
        preprocessing: Preprocessing of the backbone.
        augmentation: Random transform of the uint8 image, for training.
    """

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
def class_probabilities(
    fabric: Fabric, model: nn.Module, split: Split, preprocessing: Preprocessing, batch_size: int
) -> np.ndarray:
    """Return the class probabilities of every image of a split, float64 [n, classes]."""
    model.eval()
    images = StandardisedImages(split, preprocessing)
    loader = fabric.setup_dataloaders(DataLoader(images, batch_size))
    return np.concatenate([model(batch).double().softmax(1).cpu().numpy() for batch, _ in loader])


def train(
    fabric: Fabric,
    model: nn.Module,
    preprocessing: Preprocessing,
    dataset: ImageDataset,
    config: FinetuneConfig,
    *,
    name: str,
    title: str,
    workers: int = 0,
    on_epoch: Callable[[Row], None] | None = None,
) -> tuple[dict[str, torch.Tensor], list[Row]]:
    """Train a model in place and keep the epoch with the best macro-F1 on validation.

    Args:
        fabric: Device and precision.
        model: Model with a head; frozen parameters stay as they are.
        preprocessing: Preprocessing of the images.
        dataset: Dataset with the splits train and val.
        config: Options.
        name: Name of the backbone, for messages.
        title: Title of the progress bar.
        workers: Loader processes.
        on_epoch: Called with each row of the curve.

    Returns:
        The weights of the best epoch by timm's names, with adapters merged in, and a row per
        epoch: epoch, lr, loss, and accuracy, f1_macro and auc of validation.

    Raises:
        InputError: If the loss is not finite, or the first step changes nothing of the backbone.
    """
    trainer = _Trainer(fabric, model, preprocessing, dataset, config, name=name, workers=workers)
    state: dict[str, torch.Tensor] = {}
    best, curve = -1.0, []
    for epoch in tqdm(range(1, config.epochs + 1), desc=title, unit="epoch"):
        loss = trainer.train_epoch(epoch)
        row: Row = {"epoch": epoch, "lr": trainer.lr, "loss": loss} | trainer.validate()
        curve.append(row)
        if row["f1_macro"] > best:
            best, state = row["f1_macro"], merged_state(model)
        if on_epoch:
            on_epoch(row)
    return state, curve


class _Trainer:
    """Optimizer, schedule, loader and loss of one training."""

    def __init__(
        self,
        fabric: Fabric,
        model: nn.Module,
        preprocessing: Preprocessing,
        dataset: ImageDataset,
        config: FinetuneConfig,
        *,
        name: str,
        workers: int,
    ) -> None:
        self.fabric, self.bare, self.config, self.name = fabric, model, config, name
        self.preprocessing, self.val = preprocessing, dataset.splits["val"]
        train_split = dataset.splits["train"]
        loader = DataLoader(
            StandardisedImages(train_split, preprocessing, _augmentation(config, preprocessing)),
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
        self.step, self.warmup = 0, len(loader) * config.warmup_epochs
        self.schedule = _schedule(optimizer, len(loader) * config.epochs, self.warmup, config.lr)
        self.model, self.optimizer = fabric.setup(model, optimizer)
        self.loader = fabric.setup_dataloaders(loader)
        counts = np.bincount(train_split.labels, minlength=len(dataset.classes))
        weights = torch.tensor(_class_weights(counts, config.class_weights), dtype=torch.float32)
        self.criterion = fabric.to_device(nn.CrossEntropyLoss(weights))
        self.before = {
            key: tensor.detach().cpu().clone() for key, tensor in trained_parameters(model).items()
        }

    @property
    def lr(self) -> float:
        """Learning rate of the last step, that of the head."""
        return self.optimizer.param_groups[-1]["lr"]

    def train_epoch(self, epoch: int) -> float:
        """Train one epoch and return the mean loss of its steps."""
        self.model.train()
        losses = [self._train_step(images, labels) for images, labels in self.loader]
        if not np.isfinite(losses).all():
            raise InputError(
                f"epoch {epoch}: the loss is NaN or infinite; use a smaller lr, or precision fp32."
            )
        return float(np.mean(losses))

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        self.schedule.step_update(self.step)
        loss = self.criterion(self.model(images).float(), labels)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        in_warmup = self.step < self.warmup
        max_norm = self.config.warmup_clip if in_warmup else self.config.clip
        self.fabric.clip_gradients(
            self.model, self.optimizer, max_norm=max_norm, error_if_nonfinite=False
        )
        self.optimizer.step()
        value = float(loss.item())
        if not self.step and np.isfinite(value):
            require_change(self.bare, self.before, name=self.name, lr=self.lr)
            self.before.clear()
        self.step += 1
        return value

    def validate(self) -> Row:
        """Return accuracy, macro-F1 and AUC of the validation split."""
        probabilities = class_probabilities(
            self.fabric, self.model, self.val, self.preprocessing, self.config.batch_size
        )
        metrics = classification_metrics(self.val.labels, probabilities, resamples=0)
        return {metric: metrics[metric].value for metric in ("accuracy", "f1_macro", "auc")}


def _schedule(
    optimizer: torch.optim.Optimizer, steps: int, warmup: int, lr: float
) -> CosineLRScheduler:
    return CosineLRScheduler(
        optimizer,
        steps - warmup,
        warmup_t=warmup,
        warmup_lr_init=lr / 100,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def _class_weights(counts: np.ndarray, rule: str) -> np.ndarray:
    """Return the weight of each class in the loss; `rule` is `FinetuneConfig.class_weights`."""
    if rule == "none":
        return np.ones_like(counts)
    balanced = counts.sum() / np.maximum(counts, 1)
    return np.sqrt(balanced) if rule == "sqrt" else balanced


def _augmentation(config: FinetuneConfig, preprocessing: Preprocessing) -> v2.Transform:
    return v2.Compose(
        [
            v2.RandomHorizontalFlip(config.flip),
            v2.RandomRotation(config.rotation, v2.InterpolationMode.BILINEAR),
            v2.RandomResizedCrop(preprocessing.shape, scale=config.crop, antialias=True),
        ]
    )
