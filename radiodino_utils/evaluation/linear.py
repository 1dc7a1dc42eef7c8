"""DINOv2's grid of linear probes on cached features, all heads trained in one pass."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from ..backbones.random_weights import draw
from ..core.checks import checked_embeddings
from ..core.environment import training_threads
from ..core.errors import InputError
from ..data.dataset import SPLITS
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
    """Train a grid of linear heads and classify the test split with the best by validation.

    The protocol of DINOv2 (Oquab et al., TMLR 2024; facebookresearch/dinov2, eval/linear.py): SGD
    with momentum 0.9, no weight decay, a cosine to zero; learning rates x the class tokens of the
    last 1 or 4 blocks x without or with the mean patch token. The best has the highest accuracy on
    validation, of equals the least cross entropy. Unlike in DINOv2 the features are cached, so the
    images are not augmented.

    Args:
        features: Features returned by `extract_features` of a backbone `with_blocks`; without them
            the last block alone is tried, and of a backbone without a class token its only output.
        learning_rates: Learning rates for a batch of 256; scaled by `batch_size` / 256.
        blocks: Numbers of last blocks.
        iterations: Steps of the optimizer.
        batch_size: Images per step, drawn by epochs.
        seed: Seed of the heads and of the order.

    Returns:
        Probabilities of the test split; `choice` names the head.

    Raises:
        InputError: If the dataset lacks a split, or the features lack every number of blocks.
    """
    if absent := [split for split in SPLITS if split not in features.labels]:
        raise InputError(
            f"{features.dataset}: has no split {', '.join(absent)}; "
            "the linear probe chooses on val."
        )
    inputs = _inputs(features, blocks)
    labels = {split: torch.tensor(features.labelled(split)[1]) for split in SPLITS}
    heads = _trained(
        {name: tokens["train"] for name, tokens in inputs.items()},
        labels["train"],
        rates=torch.tensor(learning_rates) * batch_size / 256,
        classes=len(features.classes),
        iterations=iterations,
        batch_size=batch_size,
        seed=seed,
    )
    best = _best(heads, {name: tokens["val"] for name, tokens in inputs.items()}, labels["val"])
    if best is None:
        raise InputError(
            f"{features.dataset}: no linear head has a finite loss on validation; "
            "use smaller learning rates."
        )
    name, index = best
    probabilities = {
        split: heads[name].scores(inputs[name][split])[index].softmax(1).numpy()
        for split in ("val", "test")
    }
    return prediction(
        features,
        protocol="linear",
        split="test",
        probabilities=probabilities["test"],
        choice={"head": name, "lr": f"{learning_rates[index]:g}", "iterations": iterations},
        seed=seed,
        val_probabilities=probabilities["val"],
    )


def _inputs(features: Features, blocks: Sequence[int]) -> dict[str, dict[str, torch.Tensor]]:
    """Return what each head sees: by name and split the concatenated tokens, [n, width]."""
    outputs = features.sidecar["backbone"]["outputs"]
    tokens = {outputs[0]: outputs[:1]}
    if "class_token" in outputs:
        earlier = sorted(name for name in outputs if name.startswith("class_token_"))
        class_tokens = ["class_token", *earlier]
        tokens = {
            f"{count} block{'s' * (count > 1)}": class_tokens[:count]
            for count in blocks
            if count <= len(class_tokens)
        }
        if not tokens:
            raise InputError(
                f"blocks {list(blocks)}: the features hold the class tokens of "
                f"{len(class_tokens)}; see with_blocks."
            )
        if "mean_patch_token" in outputs:
            tokens |= {
                f"{name} + mean patch token": [*names, "mean_patch_token"]
                for name, names in tokens.items()
            }
    return {name: _concatenated(features, names) for name, names in tokens.items()}


def _concatenated(features: Features, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """Return for each split the named outputs side by side, float32 [n, width]."""
    return {
        split: torch.from_numpy(
            checked_embeddings(np.concatenate([arrays[name] for name in names], axis=1))
        )
        for split, arrays in features.arrays.items()
    }


def _trained(
    tokens: Mapping[str, torch.Tensor],
    labels: torch.Tensor,
    *,
    rates: torch.Tensor,
    classes: int,
    iterations: int,
    batch_size: int,
    seed: int,
) -> dict[str, "_Heads"]:
    """Train heads on the tokens of each name, one for each learning rate, all in one pass."""
    generator = torch.Generator().manual_seed(seed)
    heads = {
        name: _Heads(name, values.shape[1], classes, len(rates), seed)
        for name, values in tokens.items()
    }
    # the learning rate of a head is the weight of its loss: both scale a step of SGD equally
    parameters = nn.ModuleList(heads.values()).parameters()
    optimizer = torch.optim.SGD(parameters, lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, iterations)
    for rows in _batches(len(labels), iterations, batch_size, generator):
        truth = labels[rows, None].expand(-1, len(rates))
        scores = [head(tokens[name][rows]) for name, head in heads.items()]
        losses = [
            cross_entropy(values.flatten(0, 1), truth.flatten(), reduction="none")
            .view_as(truth)
            .mean(0)
            for values in scores
        ]
        optimizer.zero_grad()
        (rates * sum(losses)).sum().backward()
        optimizer.step()
        schedule.step()
    return heads


def _best(
    heads: Mapping[str, "_Heads"], tokens: Mapping[str, torch.Tensor], labels: torch.Tensor
) -> tuple[str, int] | None:
    """Return name and number of the head with the best accuracy, of equals the least loss.

    Returns:
        `None` if no head has a finite loss.
    """
    best, best_rank = None, (-1.0, 0.0)
    for name, head in heads.items():
        for index, scores in enumerate(head.scores(tokens[name])):
            accuracy = (scores.argmax(1) == labels).double().mean().item()
            rank = (accuracy, -cross_entropy(scores, labels).item())
            if np.isfinite(rank[1]) and rank > best_rank:
                best, best_rank = (name, index), rank
    return best


class _Heads(nn.Module):
    """As many linear heads as there are learning rates, side by side in one matrix."""

    def __init__(self, name: str, width: int, classes: int, count: int, seed: int) -> None:
        super().__init__()
        self.shape = (count, classes)
        self.weight = nn.Parameter(draw((width, count * classes), std=0.01, seed=seed, name=name))
        self.bias = nn.Parameter(torch.zeros(count * classes))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores [n, heads, classes] of tokens [n, width]."""
        return torch.addmm(self.bias, tokens, self.weight).unflatten(1, self.shape)

    @torch.inference_mode()
    def scores(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return scores [heads, n, classes], float64."""
        return self(tokens).double().transpose(0, 1)


def _batches(
    n: int, iterations: int, batch_size: int, generator: torch.Generator
) -> Sequence[torch.Tensor]:
    """Return the rows of each step: every image comes once before any comes again."""
    epochs = -(-iterations * batch_size // n)
    order = torch.cat([torch.randperm(n, generator=generator) for _ in range(epochs)])
    return order[: iterations * batch_size].split(batch_size)
