"""Training of segmentation networks: learning rate and epoch are chosen by validation Dice."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from ...backbones.random_weights import redraw
from ...core.checks import checked_labels
from ...core.environment import training_threads
from ...core.errors import InputError
from ...core.extras import extra
from ...data.segmentation import SegmentationDataset

LEARNING_RATES = {"linear": (1e-2, 3e-2, 1e-1), "decoder": (3e-3, 1e-2), "unet": (3e-3, 1e-2)}
Fetch = Callable[[np.ndarray], torch.Tensor]


@dataclass(frozen=True)
class Training:
    """Budget of a segmentation training with AdamW.

    The learning rate and the number of epochs are chosen on validation.

    Attributes:
        learning_rates: Candidates, each a run of its own; by default those of `LEARNING_RATES`.
        epochs: Maximum passes over the training images.
        patience: Epochs without a better validation Dice before a run stops.
        batch_size: Images per step.
        weight_decay: Weight decay of AdamW.
    """

    learning_rates: tuple[float, ...] | None = None
    epochs: int = 40
    patience: int = 8
    batch_size: int = 4
    weight_decay: float = 1e-4


@training_threads()
def fit(
    make: Callable[[], nn.Module],
    fetch: Fetch,
    dataset: SegmentationDataset,
    *,
    edge: int,
    learning_rates: Sequence[float],
    training: Training,
    seed: int,
) -> tuple[nn.Module, dict[str, object]]:
    """Train a network with each learning rate; keep the best epoch of all.

    The loss is class-weighted cross entropy plus Dice, the criterion the mean foreground Dice on
    validation.

    Args:
        make: Function that returns a new network.
        fetch: Function that returns the inputs of rows of the dataset, [n, channels, height,
            width].
        dataset: Dataset with the splits train and val.
        edge: Edge of the square masks in which truth and prediction are compared.
        learning_rates: Candidates.
        training: Budget.
        seed: Seed of the initial weights and of the order of the images.

    Returns:
        The network and what was chosen: "lr" and "epoch".

    Raises:
        InputError: If every learning rate gives NaN.
    """
    loop = _TrainingLoop(fetch, dataset, edge, training.batch_size)
    best_dice, best_state = -1.0, None
    choice: dict[str, object] = {}
    for lr in learning_rates:
        with torch.random.fork_rng(devices=[]):
            network = redraw(make(), seed=seed)
        generator = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(network.parameters(), lr, weight_decay=training.weight_decay)
        run_dice, run_epoch = -1.0, 0
        for epoch in range(1, training.epochs + 1):
            loop.train_epoch(network, optimizer, generator)
            dice = loop.validation_dice(network)
            if dice > run_dice:
                run_dice, run_epoch = dice, epoch
            if dice > best_dice:
                best_dice, best_state = dice, deepcopy(network.state_dict())
                choice = {"lr": lr, "epoch": epoch}
            if epoch - run_epoch >= training.patience:
                break
    if best_state is None:
        raise InputError(
            f"{dataset.name}: every learning rate of {learning_rates} gives NaN; use smaller ones."
        )
    network.load_state_dict(best_state)
    return network, choice


class _TrainingLoop:
    """Rows, masks and loss that all learning rates share."""

    def __init__(
        self, fetch: Fetch, dataset: SegmentationDataset, edge: int, batch_size: int
    ) -> None:
        with extra("evaluation"):
            from monai.losses import DiceCELoss

        self.fetch, self.edge, self.batch_size = fetch, edge, batch_size
        self.classes = len(dataset.classes)
        self.rows = {split: dataset.splits[split] for split in ("train", "val")}
        self.masks = {split: dataset.small_masks(rows, edge) for split, rows in self.rows.items()}
        self.loss = DiceCELoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            weight=class_weights(self.masks["train"], self.classes),
        )

    def train_epoch(
        self, network: nn.Module, optimizer: torch.optim.Optimizer, generator: np.random.Generator
    ) -> None:
        network.train()
        rows, masks = self.rows["train"], self.masks["train"]
        order = generator.permutation(len(rows))
        for batch in np.array_split(order, -(-len(order) // self.batch_size)):
            optimizer.zero_grad()
            logits = _resized_scores(network(self.fetch(rows[batch])), self.edge)
            self.loss(logits, torch.from_numpy(masks[batch])[:, None].long()).backward()
            optimizer.step()

    def validation_dice(self, network: nn.Module) -> float:
        """Return the mean foreground Dice; -1 if a learning rate that is too high gave NaN."""
        scores = predicted_scores(network, self.fetch, self.rows["val"])
        if np.isnan(scores).any():
            return -1.0
        return mean_dice(scores, self.masks["val"], self.classes)


@training_threads()
@torch.inference_mode()
def predicted_scores(network: nn.Module, fetch: Fetch, rows: np.ndarray) -> np.ndarray:
    """Return the logits of rows of a dataset, float16, [n, classes, height, width]."""
    network.eval()
    batches = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    return np.concatenate([network(fetch(batch)).half().numpy() for batch in batches])


def _resized_scores(scores: torch.Tensor, edge: int) -> torch.Tensor:
    if scores.shape[-1] == edge:
        return scores
    return interpolate(scores, (edge, edge), mode="bilinear", align_corners=False)


def class_weights(masks: np.ndarray, classes: int) -> torch.Tensor:
    """Return class weights by the inverse square root of the share of pixels.

    Args:
        masks: Integers, any shape.
        classes: Number of classes with the background.

    Returns:
        float32, [classes]; the mean over the classes of the masks is 1, an absent class has 0.

    Raises:
        InputError: If the masks are empty or hold a value without a class.
    """
    masks = checked_labels(masks, classes, what="masks")
    if not masks.size:
        raise InputError("class weights: there are no masks; give at least one.")
    share = np.bincount(masks.ravel(), minlength=classes) / masks.size
    weights = np.divide(1, np.sqrt(share), out=np.zeros(classes), where=share > 0)
    return torch.tensor(weights / weights[share > 0].mean(), dtype=torch.float32)


def mean_dice(scores: np.ndarray, masks: np.ndarray, classes: int) -> float:
    """Return the Dice over the pixels of all images together.

    It is the mean over the foreground classes that the masks hold.

    Args:
        scores: Logits or votes, [n, classes, height, width]; up-sampled bilinearly to the masks.
        masks: Integers, [n, edge, edge].
        classes: Number of classes with the background.

    Raises:
        InputError: If a mask holds a value without a class, or scores and masks do not fit.
    """
    masks = checked_labels(masks, classes, shape=(len(scores), *masks.shape[1:]), what="masks")
    if np.ndim(scores) != 4 or scores.shape[1] != classes or masks.ndim != 3:
        raise InputError(
            f"scores {np.shape(scores)} and masks {masks.shape} do not fit: "
            f"[n, {classes}, ...], [n, edge, edge]."
        )
    if np.isnan(scores).any():
        raise InputError("the scores of the segmentation hold NaN; use a smaller learning rate.")
    resized = _resized_scores(torch.from_numpy(scores).float(), masks.shape[-1])
    predicted = resized.max(1).indices.numpy()  # much faster than argmax
    counts = np.bincount((masks * classes + predicted).ravel(), minlength=classes**2)
    confusion = counts.reshape(classes, classes)
    true_pixels, predicted_pixels = confusion.sum(1), confusion.sum(0)
    present = np.flatnonzero(true_pixels[1:]) + 1
    dice = 2 * np.diagonal(confusion)[present] / (true_pixels + predicted_pixels)[present]
    return float(dice.mean())
