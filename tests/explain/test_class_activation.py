import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_grad_cam import GradCAM
from torch.nn import functional

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.sizes import at_size
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.knn import knn_probabilities
from radiodino_utils.evaluation.logistic import classify_logistic
from radiodino_utils.explain.class_activation import (
    KnnVote,
    LinearProbe,
    Scores,
    Similarity,
    best_target,
    grad_cam,
)
from radiodino_utils.explain.faithfulness import road
from radiodino_utils.features.feature_model import as_tensor

from ..conftest import tiny_transformer
from ..synthetic import synthetic_features

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70), np.uint8)


@pytest.fixture(scope="module")
def features():
    return synthetic_features(width=128, classes=4)


@pytest.fixture(scope="module")
def probes(features):
    return {
        "linear probe": LinearProbe(features),
        "kNN vote": KnnVote(features, k=11),
        "similarity": Similarity(features.embedding("test")[:3]),
    }


def by_hand(backbone, probe, image, target):
    """Grad-CAM written out: activations of the last norm1 weighted by their mean gradient."""
    outputs = []
    hook = backbone.model.blocks[-1].norm1.register_forward_hook(
        lambda module, args, output: outputs.append(output)
    )
    score = Scores(backbone, probe)(as_tensor(backbone, image).requires_grad_(True))[0, target]
    hook.remove()
    prefix = backbone.num_prefix_tokens
    gradient = torch.autograd.grad(score, outputs[0])[0][0, prefix:]
    heat = (outputs[0][0, prefix:] * gradient.mean(0)).sum(-1).relu().detach().numpy()
    heat = heat.reshape(backbone.model.patch_embed.grid_size)
    return (heat - heat.min()) / (np.ptp(heat) + 1e-7)


@pytest.mark.parametrize("name", ["linear probe", "kNN vote", "similarity"])
@pytest.mark.parametrize(
    "prefix",
    [{"class_token": False, "global_pool": "avg", "fc_norm": False}, {}, {"reg_tokens": 4}],
)
def test_grad_cam_equals_the_definition_on_a_size_that_is_not_square(probes, name, prefix):
    backbone = at_size(from_model("tiny", tiny_transformer(**prefix), "made"), (48, 80))
    with torch.no_grad():
        target = int(Scores(backbone, probes[name])(as_tensor(backbone, IMAGE))[0].argmax())
    heat = grad_cam(backbone, probes[name], IMAGE)
    assert heat.shape == (3, 5) and heat.dtype == np.float32
    assert 0 <= heat.min() <= heat.max() <= 1 and heat.std() > 0
    np.testing.assert_allclose(heat, by_hand(backbone, probes[name], IMAGE, target), atol=1e-4)


def test_the_zero_gradient_trap(tiny_backbone, probes):
    """At norm2 of the last block, where many examples put Grad-CAM, no patch has a gradient."""
    model = Scores(tiny_backbone, probes["linear probe"])

    def gradients(layer):
        with GradCAM(
            model, [layer], lambda tokens: tokens[:, 1:].unflatten(1, (2, 2)).permute(0, 3, 1, 2)
        ) as cam:
            cam(as_tensor(tiny_backbone, IMAGE).requires_grad_(True), [lambda output: output[0]])
            return cam.activations_and_grads.gradients[0]

    last = tiny_backbone.model.blocks[-1]
    assert gradients(last.norm2).abs().max() == 0 < gradients(last.norm1).abs().max()
    assert grad_cam(tiny_backbone, probes["linear probe"], IMAGE, 0).max() > 0


def test_the_frozen_backbone_trap(tiny_backbone, probes):
    """With frozen weights the image must require the gradient."""
    thawed = grad_cam(tiny_backbone, probes["linear probe"], IMAGE, 1)
    assert all(
        parameter.requires_grad and parameter.grad is None
        for parameter in tiny_backbone.model.parameters()
    )
    tiny_backbone.model.requires_grad_(False)
    with pytest.raises(RuntimeError, match="does not require grad"):
        scores = Scores(tiny_backbone, probes["linear probe"])(as_tensor(tiny_backbone, IMAGE))
        scores[0, 1].backward()
    np.testing.assert_array_equal(grad_cam(tiny_backbone, probes["linear probe"], IMAGE, 1), thawed)
    assert not any(parameter.requires_grad for parameter in tiny_backbone.model.parameters())


def test_no_hook_stays_behind(tiny_backbone, probes):
    for target in (0, 99):
        try:
            grad_cam(tiny_backbone, probes["linear probe"], IMAGE, target)
        except InputError:
            assert target == 99
        assert not tiny_backbone.model.blocks[-1].norm1._forward_hooks


def test_votes_as_a_layer_are_those_of_the_knn(features, probes):
    queries = features.embedding("test")
    expected = knn_probabilities(
        features.embedding("train"), features.labels["train"], queries, ks=(11,), classes=4
    )[11]
    np.testing.assert_allclose(
        probes["kNN vote"](torch.from_numpy(queries)).softmax(-1), expected, atol=1e-5
    )


def test_votes_have_a_gradient_where_all_neighbours_agree():
    features = synthetic_features(width=128, classes=2, noise=0.01)
    query = torch.from_numpy(features.embedding("test")[:1]).requires_grad_(True)
    scores = KnnVote(features, k=5)(query)
    assert scores.softmax(-1).max() == 1
    assert torch.autograd.grad(scores.max(), query)[0].abs().max() > 0


def test_a_class_without_votes_cannot_be_explained(tiny_backbone, features):
    vote = KnnVote(features, k=1)
    with torch.no_grad():
        chosen = int(Scores(tiny_backbone, vote)(as_tensor(tiny_backbone, IMAGE))[0].argmax())
    other = (chosen + 1) % 4
    with pytest.raises(
        InputError, match=f"^target {other}: its score does not depend on the image"
    ):
        grad_cam(tiny_backbone, vote, IMAGE, other)


def test_a_target_that_is_not_there(tiny_backbone, probes):
    with pytest.raises(InputError, match="^target 3: the probe has the targets 0 to 2"):
        grad_cam(tiny_backbone, probes["similarity"], IMAGE, 3)


def test_the_linear_probe_is_the_logistic_protocol(features):
    scores = LinearProbe(features)(torch.from_numpy(features.embedding("test")))
    expected = classify_logistic(features).probabilities
    np.testing.assert_allclose(scores.softmax(-1).numpy(), expected, atol=1e-5)


@given(
    seed=st.integers(0, 10**6), classes=st.integers(2, 5), absent=st.sampled_from([None, 0, 1, -1])
)
@settings(max_examples=15)
def test_the_linear_probe_is_the_logistic_protocol_for_any_classes(seed, classes, absent):
    features = synthetic_features(width=6, classes=classes, seed=seed, noise=2.0)
    if absent is not None and classes > 2:  # of three classes two are left
        labels = features.labels["train"]
        labels[labels == absent % classes] = (absent + 1) % classes
    scores = LinearProbe(features, strengths=(0.01, 1.0))(
        torch.from_numpy(features.embedding("test"))
    )
    expected = classify_logistic(features, strengths=(0.01, 1.0)).probabilities
    np.testing.assert_allclose(scores.softmax(-1).numpy(), expected, atol=1e-5)


def test_a_probe_of_two_classes_has_a_map_and_a_road_for_both(tiny_backbone):
    probe = LinearProbe(synthetic_features(width=128, classes=2))
    for target in (0, 1):
        heat = grad_cam(tiny_backbone, probe, IMAGE, target)
        assert heat.max() > 0 and road(tiny_backbone, probe, IMAGE, heat, target) != 0


@pytest.mark.parametrize(
    "options", [{"k": 0}, {"k": 1.5}, {"temperature": 0}, {"temperature": float("nan")}]
)
def test_votes_that_cannot_be(features, options):
    with pytest.raises(InputError, match="^(ks is|temperature)"):
        KnnVote(features, **options)


def test_similarity_is_the_cosine(probes, features):
    query, reference = (torch.from_numpy(features.embedding(s)[:1]) for s in ("val", "test"))
    expected = float(functional.cosine_similarity(query, reference))
    assert probes["similarity"](query)[0, 0] == pytest.approx(expected)


def test_pixels_have_no_grad_cam(probes):
    with pytest.raises(InputError, match="^pixels: has no attention to show"):
        grad_cam(load_backbone("pixels"), probes["linear probe"], IMAGE)


def test_the_best_target_is_the_one_that_is_explained(probes):
    backbone = from_model("tiny", tiny_transformer(), "made")
    target = best_target(backbone, probes["linear probe"], IMAGE)
    explained = grad_cam(backbone, probes["linear probe"], IMAGE)
    assert (explained == grad_cam(backbone, probes["linear probe"], IMAGE, target)).all()
    assert (explained != grad_cam(backbone, probes["linear probe"], IMAGE, (target + 1) % 4)).any()
