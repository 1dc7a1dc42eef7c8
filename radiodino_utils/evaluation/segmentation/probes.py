"""Segmentation with a frozen backbone: probes on patch maps, and a U-Net from scratch beside them."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate, one_hot

from ...backbones.random_weights import redraw
from ...core.checks import checked_ks, checked_labels
from ...core.environment import training_threads
from ...core.errors import InputError, unknown_name, wrong_type
from ...core.extras import extra
from ...data.images import resized
from ...data.segmentation import SegmentationDataset
from ...features.patch_maps import DenseFeatures
from ..knn import TEMPERATURE, nearest

PROBES = ("linear", "decoder", "knn")
TARGET = 4  # cells a patch edge in which masks are compared during training
KS = (5, 15, 45)
LEARNING_RATES = {"linear": (1e-2, 3e-2, 1e-1), "decoder": (3e-3, 1e-2), "unet": (3e-3, 1e-2)}


@dataclass(frozen=True)
class Training:
    """How a probe is trained: AdamW, the learning rate and the number of epochs chosen on
    validation.

    Attributes:
        learning_rates: Candidates, each a run of its own; those of `LEARNING_RATES` by default.
        epochs: Most passes over the training images.
        patience: Epochs without a better validation Dice before a run stops.
        batch_size: Images a step.
        weight_decay: Of AdamW.
    """

    learning_rates: tuple[float, ...] | None = None
    epochs: int = 40
    patience: int = 8
    batch_size: int = 4
    weight_decay: float = 1e-4


@dataclass(frozen=True, repr=False)
class Segmentation:
    """What a probe says of the images of the test split.

    Attributes:
        dataset: The set with its split.
        backbone: Name of the backbone; "none" for the U-Net.
        probe: "linear", "decoder", "knn" or "unet".
        rows: The test split's rows in the set, [n].
        scores: Logits or votes, float16, [n, classes, height, width], coarser than the images.
        weights: Fingerprint of the backbone's weights.
        seed: Of the training.
        choice: What was chosen on validation.
        labelled: Number of training images.
        engine: What ran the backbone, or the U-Net: torch or openvino.
        precision: Of the backbone, or of the U-Net: fp32, bf16 or fp16.
        seen_in_pretraining: See `Prediction`.
    """

    dataset: SegmentationDataset
    backbone: str
    probe: str
    rows: np.ndarray
    scores: np.ndarray
    weights: str
    seed: int
    choice: dict[str, object] = field(default_factory=dict)
    labelled: int = 0
    engine: str = ""
    precision: str = ""
    seen_in_pretraining: str = "not known"

    def __repr__(self) -> str:
        return (
            f"Segmentation({self.dataset.name!r} x {self.backbone!r}, {self.probe}, "
            f"{len(self.dataset.classes)} classes, test {len(self.rows)})"
        )

    def predicted(self, position: int, shape: tuple[int, int]) -> np.ndarray:
        """The mask of one test image at the image's size: uint8, [height, width]; scores are up-sampled bilinearly."""
        scores = torch.from_numpy(self.scores[position].astype(np.float32))[None]
        return (
            interpolate(scores, shape, mode="bilinear", align_corners=False)[0]
            .max(0)
            .indices.to(torch.uint8)
            .numpy()
        )


def linear_probe(channels: int, classes: int) -> nn.Module:
    """The linear head of DINOv2 (Oquab et al., TMLR 2024; facebookresearch/dinov2): batch norm and a 1 x 1 convolution."""
    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False, momentum=None), nn.Conv2d(channels, classes, 1)
    )


def conv_decoder(channels: int, classes: int, *, width: int = 48) -> nn.Module:
    """A light decoder: 1 x 1 convolution, 3 x 3 convolutions on the grid and on one twice as fine, 1 x 1 convolution."""

    def block() -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]

    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False, momentum=None),
        nn.Conv2d(channels, width, 1),
        nn.ReLU(),
        *block(),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *block(),
        nn.Conv2d(width, classes, 1),
    )


def segment(
    features: DenseFeatures,
    *,
    probe: str = "linear",
    dataset: SegmentationDataset | None = None,
    training: Training | None = None,
    ks: Sequence[int] = KS,
    memory: int = 20_000,
    seed: int = 0,
) -> Segmentation:
    """Segments the test split with a probe on frozen patch maps.

    "linear" takes the last of the extracted blocks, "decoder" all of them; both learn by
    class-weighted cross entropy plus Dice, with the learning rate and the epoch of the best mean
    foreground Dice on validation. "knn" learns nothing: a memory of training patches with the share
    of each class in them votes, weighted by exp(similarity / 0.07), as in Balazevic et al. (NeurIPS
    2023, "Towards in-context scene understanding"), with k chosen on validation; it takes the last
    block.

    Args:
        features: What `extract_patch_maps` gives.
        probe: One of `PROBES`.
        dataset: Another split of the same images (a fold, fewer labelled images); the features' own
            by default.
        training: Of "linear" and "decoder".
        ks: Candidates of "knn".
        memory: Training patches that "knn" keeps, drawn at random.
        seed: Of the first weights, the order of images, and the memory.

    Raises:
        InputError: If the probe is unknown, train or val holds no foreground, or a mask does not
            fit its image.
    """
    if not isinstance(features, DenseFeatures):
        raise wrong_type("features", features, "the result of extract_patch_maps")
    if probe not in PROBES:
        raise unknown_name("probe", probe, PROBES)
    dataset, training = dataset or features.dataset, training or Training()
    _require_foreground(dataset, features.maps.shape[-1] * TARGET)
    if probe == "knn":
        scores, choice = _knn(features, dataset, ks, memory, seed)
    else:
        maps = features.only(1) if probe == "linear" else features.maps
        make = linear_probe if probe == "linear" else conv_decoder
        network, choice = _fit(
            lambda: make(maps.shape[1], len(dataset.classes)),
            lambda rows: torch.from_numpy(np.asarray(maps[rows], np.float32)),
            dataset,
            maps.shape[-1] * TARGET,
            _with_rates(training, probe),
            seed,
        )
        scores = _scores(
            network,
            lambda rows: torch.from_numpy(np.asarray(maps[rows], np.float32)),
            dataset.splits["test"],
        )
    rows = dataset.splits["test"]
    how = {
        name: getattr(features, name)
        for name in ("backbone", "weights", "engine", "precision", "seen_in_pretraining")
    }
    labelled = len(dataset.splits["train"])
    return Segmentation(
        dataset,
        probe=probe,
        rows=rows,
        scores=scores,
        seed=seed,
        choice=choice,
        labelled=labelled,
        **how,
    )


def segment_unet(
    dataset: SegmentationDataset, *, size: int = 128, channels: Sequence[int] = (16, 32, 64, 128), training: Training | None = None,
    seed: int = 0,
) -> Segmentation:  # fmt: skip
    """Segments the test split with a small U-Net (MONAI's residual one), trained from scratch on
    the same split.

    Args:
        dataset: What `load_segmentation_dataset` gives.
        size: Edge of the square that images are resized to, a multiple of 2 to the number of levels
            less one.
        channels: Of each level.
        training: The budget, the same as the probes'.
        seed: Of the first weights and the order of images.

    Raises:
        InputError: If the size does not fit, or see `segment`.
    """
    with extra("evaluation"):
        from monai.networks.nets import UNet

    if size % 2 ** (len(channels) - 1):
        raise InputError(
            f"size {size}: is not a multiple of {2 ** (len(channels) - 1)}, which the U-Net needs."
        )
    _require_foreground(dataset, size)
    wanted = np.concatenate([dataset.splits[split] for split in ("train", "val", "test")])
    fitted = (resized(np.asarray(dataset.images[row]), size, "bilinear") for row in wanted)
    kept = np.stack([one if one.ndim == 2 else one.mean(-1) for one in fitted]).astype(np.uint8)
    place = {row: position for position, row in enumerate(wanted)}

    def fetch(rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(kept[[place[row] for row in rows]])[:, None].float() / 127.5 - 1

    def make() -> nn.Module:
        steps = (2,) * (len(channels) - 1)
        return UNet(
            2, 1, len(dataset.classes), tuple(channels), steps, num_res_units=1, norm="batch"
        )

    network, choice = _fit(
        make, fetch, dataset, size, _with_rates(training or Training(), "unet"), seed
    )
    rows = dataset.splits["test"]
    scores = _scores(network, fetch, rows)
    labelled = len(dataset.splits["train"])
    how = {"engine": "torch", "precision": "fp32", "seen_in_pretraining": "none"}
    return Segmentation(dataset, "none", "unet", rows, scores, "", seed, choice, labelled, **how)


def _with_rates(training: Training, probe: str) -> Training:
    return replace(training, learning_rates=training.learning_rates or LEARNING_RATES[probe])


def _require_foreground(dataset: SegmentationDataset, edge: int) -> None:
    for split in ("train", "val"):
        if not dataset.small_masks(dataset.splits[split], edge).any():
            raise InputError(
                f"{dataset.name}: the masks of the {split} split are all background, so nothing can be learnt or chosen; "
                "check the masks or take another split."
            )


def class_weights(masks: np.ndarray, classes: int) -> torch.Tensor:
    """Weights of the classes by the inverse square root of their share of pixels, mean 1; 0 for one
    that is absent.

    Raises:
        InputError: If the masks are empty or hold a value without a class.
    """
    masks = checked_labels(masks, classes, what="masks")
    if not masks.size:
        raise InputError("class weights: there are no masks; give at least one.")
    share = np.bincount(masks.ravel(), minlength=classes) / masks.size
    weights = np.divide(1, np.sqrt(share), out=np.zeros(classes), where=share > 0)
    return torch.tensor(weights / weights[share > 0].mean(), dtype=torch.float32)


@training_threads()
def _fit(
    make: Callable[[], nn.Module],
    fetch: Callable[[np.ndarray], torch.Tensor],
    dataset: SegmentationDataset,
    edge: int,
    training: Training,
    seed: int,
) -> tuple[nn.Module, dict[str, object]]:
    """Trains a network for each learning rate and keeps the best epoch of all by mean foreground Dice on validation."""
    with extra("evaluation"):
        from monai.losses import DiceCELoss

    classes = len(dataset.classes)
    rows = {split: dataset.splits[split] for split in ("train", "val")}
    masks = {split: dataset.small_masks(rows[split], edge) for split in rows}
    weight = class_weights(masks["train"], classes)
    loss_of = DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, weight=weight
    )
    best, kept, choice = -1.0, None, {}
    for rate in training.learning_rates:
        with torch.random.fork_rng(devices=[]):
            network = redraw(make(), seed=seed)
        generator = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(
            network.parameters(), rate, weight_decay=training.weight_decay
        )
        best_here, best_epoch = -1.0, 0
        for epoch in range(1, training.epochs + 1):
            network.train()
            order = generator.permutation(len(rows["train"]))
            for part in np.array_split(order, -(-len(order) // training.batch_size)):
                optimizer.zero_grad()
                logits = _to_edge(network(fetch(rows["train"][part])), edge)
                loss_of(logits, torch.from_numpy(masks["train"][part])[:, None].long()).backward()
                optimizer.step()
            scores = _scores(network, fetch, rows["val"])
            dice = (
                -1.0 if np.isnan(scores).any() else mean_dice(scores, masks["val"], classes)
            )  # a rate that is too high
            if dice > best_here:
                best_here, best_epoch = dice, epoch
            if dice > best:
                best, kept, choice = (
                    dice,
                    deepcopy(network.state_dict()),
                    {"lr": rate, "epoch": epoch},
                )
            if epoch - best_epoch >= training.patience:
                break
    if kept is None:
        raise InputError(
            f"{dataset.name}: every learning rate of {training.learning_rates} gives NaN; use smaller ones."
        )
    network.load_state_dict(kept)
    return network, choice


def _to_edge(logits: torch.Tensor, edge: int) -> torch.Tensor:
    return (
        logits
        if logits.shape[-1] == edge
        else interpolate(logits, (edge, edge), mode="bilinear", align_corners=False)
    )


@training_threads()
@torch.inference_mode()
def _scores(
    network: nn.Module, fetch: Callable[[np.ndarray], torch.Tensor], rows: np.ndarray
) -> np.ndarray:
    network.eval()
    return np.concatenate(
        [network(fetch(rows[start : start + 8])).half().numpy() for start in range(0, len(rows), 8)]
    )


def mean_dice(scores: np.ndarray, masks: np.ndarray, classes: int) -> float:
    """Dice over the pixels of all images together, the mean over the foreground classes that the
    masks hold.

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
            f"scores {np.shape(scores)} and masks {masks.shape} do not fit: [n, {classes}, ...], [n, edge, edge]."
        )
    if np.isnan(scores).any():
        raise InputError("the scores of the segmentation hold NaN; use a smaller learning rate.")
    predicted = (
        _to_edge(torch.from_numpy(scores).float(), masks.shape[-1]).max(1).indices.numpy()
    )  # much faster than argmax
    counts = np.bincount((masks * classes + predicted).ravel(), minlength=classes**2)
    confusion = counts.reshape(classes, classes)
    true, predicted = confusion.sum(1), confusion.sum(0)
    exists = np.flatnonzero(true[1:]) + 1
    return float((2 * np.diagonal(confusion)[exists] / (true + predicted)[exists]).mean())


def _knn(
    features: DenseFeatures, dataset: SegmentationDataset, ks: Sequence[int], memory: int, seed: int
) -> tuple[np.ndarray, dict[str, object]]:
    maps, classes = features.only(1), len(dataset.classes)
    grid, edge = maps.shape[-1], maps.shape[-1] * TARGET
    train = dataset.splits["train"]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(train) * grid**2)[:memory])
    bank, shares, small = [], [], dataset.small_masks(train, edge)
    for position, row in enumerate(train):
        cells = chosen[chosen // grid**2 == position] % grid**2
        bank.append(_tokens(maps[[row]])[cells])
        truth = (
            one_hot(torch.from_numpy(small[[position]]).long(), classes).permute(0, 3, 1, 2).float()
        )
        shares.append(_tokens(avg_pool2d(truth, TARGET).numpy())[cells])
    bank, shares = np.concatenate(bank), np.concatenate(shares)

    def votes(split: str, ks: Sequence[int]) -> dict[int, np.ndarray]:
        rows, found = dataset.splits[split], {k: [] for k in ks}
        for start in range(0, len(rows), 16):
            part = maps[rows[start : start + 16]]
            similarities, neighbours = nearest(bank, _tokens(part), max(ks))
            weights = np.exp((similarities - similarities[:, :1]) / TEMPERATURE)
            for k in ks:
                vote = np.einsum("nk,nkc->nc", weights[:, :k], shares[neighbours[:, :k]]) / weights[
                    :, :k
                ].sum(1, keepdims=True)
                found[k].append(
                    vote.reshape(len(part), grid, grid, classes)
                    .transpose(0, 3, 1, 2)
                    .astype(np.float16)
                )
        return {k: np.concatenate(parts) for k, parts in found.items()}

    ks, masks = checked_ks(ks), dataset.small_masks(dataset.splits["val"], edge)
    dice = {k: mean_dice(scores, masks, classes) for k, scores in votes("val", ks).items()}
    k = min(
        k for k, one in dice.items() if one > max(dice.values()) - 1e-5
    )  # of equals but for rounding the smallest
    return votes("test", (k,))[k], {"k": k}


def _tokens(maps: np.ndarray) -> np.ndarray:
    """Turns maps [n, channels, height, width] into float32 tokens [n x height x width, channels]."""
    return np.moveaxis(np.asarray(maps, np.float32), 1, -1).reshape(-1, maps.shape[1])
