"""DINOv2's grid of linear probes on cached features, all heads in one pass, the best of validation."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..backbones.random_weights import draw
from ..core.checks import checked_embeddings
from ..core.environment import training_threads
from ..core.errors import InputError
from ..features.features import Features
from .predictions import Prediction, prediction

LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)


@training_threads()
def classify_linear(
    features: Features,
    *,
    learning_rates: Sequence[float] = LEARNING_RATES,
    blocks: Sequence[int] = (1, 4),
    iterations: int = 12_500,
    batch_size: int = 128,
    seed: int = 0,
) -> Prediction:
    """Trains a grid of linear heads on the train split and classifies the test split with the best
    of validation.

    The protocol of DINOv2 (Oquab et al., TMLR 2024; facebookresearch/dinov2, eval/linear.py): SGD
        with momentum 0.9, no
    weight decay, a cosine to zero; learning rates x the class tokens of the last 1 or 4 blocks x
    without or with the mean patch token. The best has the highest accuracy on validation, of equals
    the least cross entropy. Unlike there the features are cached, so that the images are not
    augmented.

    Args:
        features: What `extract_features` gives of a backbone `with_blocks`; without them the last
            block alone is tried, and of a backbone without a class token its only output.
        learning_rates: For a batch of 256; scaled by `batch_size` / 256.
        blocks: Numbers of last blocks.
        iterations: Steps of the optimiser.
        batch_size: Images a step, drawn by epochs.
        seed: Of the heads and of the order.

    Returns:
        Probabilities of the test split; `choice` names the head.

    Raises:
        InputError: If the set lacks a split, or no number of blocks is there.
    """
    if absent := [split for split in ("train", "val", "test") if split not in features.labels]:
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}; the linear probe chooses on val."
        )
    inputs = _inputs(features, blocks)
    labels = {
        split: torch.tensor(features.labelled(split)[1]) for split in ("train", "val", "test")
    }
    generator = torch.Generator().manual_seed(seed)
    rates = torch.tensor(learning_rates) * batch_size / 256
    classes = len(features.classes)
    heads = [
        _Heads(name, one["train"].shape[1], classes, len(rates), seed)
        for name, one in inputs.items()
    ]
    # a head's learning rate is the weight of its loss: under SGD with momentum both scale the step
    # alike
    optimizer = torch.optim.SGD(nn.ModuleList(heads).parameters(), lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for rows in _batches(len(labels["train"]), iterations, batch_size, generator):
        truth = labels["train"][rows, None].expand(-1, len(rates))
        scores = [
            head(one["train"][rows]) for head, one in zip(heads, inputs.values(), strict=True)
        ]
        losses = [
            cross_entropy(one.flatten(0, 1), truth.flatten(), reduction="none")
            .view_as(truth)
            .mean(0)
            for one in scores
        ]
        optimizer.zero_grad()
        (rates * sum(losses)).sum().backward()
        optimizer.step()
        schedule.step()
    best = (-1.0, 0.0)
    for (name, one), head in zip(inputs.items(), heads, strict=True):
        for scores, rate, index in zip(
            head.scores(one["val"]), learning_rates, range(len(rates)), strict=True
        ):
            accuracy = (scores.argmax(1) == labels["val"]).double().mean().item()
            rank = (accuracy, -cross_entropy(scores, labels["val"]).item())
            if np.isfinite(rank[1]) and rank > best:
                best, choice = rank, {"head": name, "lr": f"{rate:g}", "iterations": iterations}
                probabilities = head.scores(one["test"])[index].softmax(1).numpy()
    if best[0] < 0:
        raise InputError(
            f"{features.dataset}: no linear head has a finite loss on validation; use smaller learning rates."
        )
    return prediction(
        features,
        protocol="linear",
        split="test",
        probabilities=probabilities,
        choice=choice,
        seed=seed,
    )


def _inputs(features: Features, blocks: Sequence[int]) -> dict[str, dict[str, torch.Tensor]]:
    """By the head's name the tokens that it sees, for each split float32 [n, width]."""
    outputs = features.sidecar["backbone"]["outputs"]
    tokens = {outputs[0]: outputs[:1]}
    if "class_token" in outputs:
        classes = [
            "class_token",
            *sorted(name for name in outputs if name.startswith("class_token_")),
        ]
        tokens = {
            f"{count} block{'s' * (count > 1)}": classes[:count]
            for count in blocks
            if count <= len(classes)
        }
        if not tokens:
            raise InputError(
                f"blocks {list(blocks)}: the features hold the class tokens of {len(classes)}; see with_blocks."
            )
        if "mean_patch_token" in outputs:
            tokens |= {
                f"{name} + mean patch token": [*used, "mean_patch_token"]
                for name, used in tokens.items()
            }
    return {
        name: {
            split: torch.from_numpy(
                checked_embeddings(np.concatenate([arrays[one] for one in used], axis=1))
            )
            for split, arrays in features.arrays.items()
        }
        for name, used in tokens.items()
    }


class _Heads(nn.Module):
    """As many linear heads as there are learning rates, side by side in one matrix."""

    def __init__(self, name: str, width: int, classes: int, count: int, seed: int) -> None:
        super().__init__()
        self.shape = (count, classes)
        self.weight = nn.Parameter(draw((width, count * classes), std=0.01, seed=seed, name=name))
        self.bias = nn.Parameter(torch.zeros(count * classes))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores [n, heads, classes] of tokens [n, width]."""
        return torch.addmm(self.bias, tokens, self.weight).unflatten(1, self.shape)

    @torch.inference_mode()
    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """Scores [heads, n, classes], float64."""
        return self(tokens).double().transpose(0, 1)


def _batches(
    n: int, iterations: int, batch_size: int, generator: torch.Generator
) -> Sequence[torch.Tensor]:
    """Rows of each step: every image once before any comes again."""
    epochs = -(-iterations * batch_size // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])
    return order[: iterations * batch_size].split(batch_size)
