import numpy as np
import pytest

from radiodino_utils.backbones.random_weights import draw
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.linear import classify_linear

from ..synthetic import synthetic_features


def with_blocks(**options):
    """Features with four class tokens and a mean patch token; the last class token is noise."""
    features = synthetic_features(**options)
    generator = np.random.default_rng(9)
    for arrays in features.arrays.values():
        token = arrays["class_token"]
        arrays["class_token"] = generator.normal(size=token.shape).astype(np.float32)
        arrays |= {
            "mean_patch_token": 0 * token,
            "class_token_2": token,
            "class_token_3": 0 * token,
            "class_token_4": 0 * token,
        }
    outputs = ["class_token", "mean_patch_token", "class_token_2", "class_token_3", "class_token_4"]
    features.sidecar["backbone"]["outputs"] = outputs
    return features


def accuracy(one):
    return (one.probabilities.argmax(1) == one.labels).mean()


def test_separable_classes_are_told_apart():
    one = classify_linear(synthetic_features(noise=0.2), iterations=200)
    assert accuracy(one) > 0.95 and one.probabilities.sum(1) == pytest.approx(1)
    assert one.protocol == "linear" and set(one.choice) == {"head", "lr", "iterations"}


def test_validation_finds_the_block_that_knows():
    one = classify_linear(with_blocks(noise=0.3), iterations=300)
    assert one.choice["head"].startswith("4 blocks") and accuracy(one) > 0.9


def test_nothing_is_chosen_on_test():
    features = synthetic_features(noise=2.0)
    before = classify_linear(features, iterations=50)
    features.labels["test"][:] = features.labels["test"][::-1].copy()
    after = classify_linear(features, iterations=50)
    assert before.choice == after.choice and np.array_equal(
        before.probabilities, after.probabilities
    )


def test_a_learning_rate_is_that_of_sgd_with_momentum():
    """A head whose loss is weighted equals one that torch's own SGD trains at that rate."""
    import torch

    features = synthetic_features(noise=1.0, classes=2)
    one = classify_linear(features, learning_rates=(0.05,), iterations=20, batch_size=64, seed=3)
    generator = torch.Generator().manual_seed(3)
    weight = draw((8, 2), std=0.01, seed=3, name="1 block").requires_grad_()
    bias = torch.zeros(2, requires_grad=True)
    order = torch.cat([torch.randperm(60, generator=generator) for _ in range(22)])[
        : 20 * 64
    ].split(64)
    optimizer = torch.optim.SGD([weight, bias], lr=0.05 * 64 / 256, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    tokens, labels = (
        torch.tensor(features.embedding("train")),
        torch.tensor(features.labels["train"]),
    )
    for rows in order:
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(tokens[rows] @ weight + bias, labels[rows]).backward()
        optimizer.step()
        schedule.step()
    expected = (
        (torch.tensor(features.embedding("test")) @ weight + bias).softmax(1).detach().numpy()
    )
    np.testing.assert_allclose(one.probabilities, expected, atol=1e-5)


def test_a_seed_repeats_and_another_differs():
    first, again, other = (
        classify_linear(synthetic_features(), iterations=20, seed=seed).probabilities
        for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_bad_input():
    with pytest.raises(InputError, match="made: has no split val"):
        classify_linear(synthetic_features(sizes={"train": 30, "test": 30}))
    with pytest.raises(InputError, match=r"blocks \[7\]: the features hold the class tokens of 1"):
        classify_linear(synthetic_features(), blocks=(7,))
    with pytest.raises(InputError, match="no linear head has a finite loss"):
        classify_linear(synthetic_features(), learning_rates=(1e38,), iterations=30)
