"""Grad-CAM of frozen backbones for a linear probe, a kNN vote or an embedding similarity."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..backbones.backbone import Backbone, is_convolutional
from ..backbones.loading import as_backbone
from ..backbones.sizes import patch_grid
from ..core.checks import checked_embeddings, checked_ks, checked_temperature
from ..core.errors import InputError
from ..core.extras import extra
from ..evaluation.knn import TEMPERATURE
from ..evaluation.logistic import STRENGTHS, fit_logistic
from ..features.feature_model import FeatureModel, as_tensor
from ..features.features import Features
from .attention import accepted, require_attention

with extra("evaluation"):
    from pytorch_grad_cam import GradCAM


class LinearProbe(nn.Linear):
    """The logistic regression of `fit_logistic` as a layer; its scores are logits.

    Args:
        features: Features returned by `extract_features`.
        strengths: Candidates of C.
    """

    def __init__(self, features: Features, *, strengths: Sequence[float] = STRENGTHS) -> None:
        width, classes = features.embedding("train").shape[1], len(features.classes)
        super().__init__(width, classes)
        best, mean, std = fit_logistic(features, strengths=strengths)
        coefficients, intercepts = best.coef_ / std, best.intercept_
        if len(best.classes_) == 2:
            # scikit-learn keeps one row, of a sigmoid; half of it for each class is its softmax
            coefficients = np.concatenate([-coefficients, coefficients]) / 2
            intercepts = np.concatenate([-intercepts, intercepts]) / 2
        weight = np.zeros((classes, width))
        bias = np.full(classes, -1e9)  # a class that train lacks is never chosen
        weight[best.classes_] = coefficients
        bias[best.classes_] = intercepts - coefficients @ mean
        self.requires_grad_(False)
        self.weight.copy_(torch.from_numpy(weight))
        self.bias.copy_(torch.from_numpy(bias))


class KnnVote(nn.Module):
    """DINO's weighted kNN vote as a layer; its scores are the logarithms of the votes.

    Their softmax is the share of the votes. The share itself has no gradient where all neighbours
    agree: there it is 1 for any image.

    Args:
        features: Features returned by `extract_features`; the train split is the bank.
        k: Number of neighbours.
        temperature: Temperature of the weights.

    Raises:
        InputError: If `k` or `temperature` is out of range, a label stands for no class, or a
            feature is not finite.
    """

    bank: torch.Tensor
    labels: torch.Tensor

    def __init__(
        self, features: Features, *, k: int = 20, temperature: float = TEMPERATURE
    ) -> None:
        super().__init__()
        (k,) = checked_ks((k,))
        bank, labels = features.labelled("train")
        self.k = min(k, len(labels))
        self.classes = len(features.classes)
        self.temperature = checked_temperature(temperature)
        self.register_buffer("bank", functional.normalize(torch.tensor(bank)))
        self.register_buffer("labels", torch.tensor(labels))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return scores [n, classes] of embeddings [n, width]; -1e9 without a neighbour."""
        similarities, rows = (functional.normalize(embeddings) @ self.bank.T).topk(self.k)
        classes = torch.arange(self.classes, device=rows.device)
        is_class = self.labels[rows][:, None] == classes[:, None]
        weights = (similarities / self.temperature)[:, None].expand(is_class.shape)
        return weights.masked_fill(~is_class, -1e9).logsumexp(-1)


class Similarity(nn.Module):
    """Cosine similarity to reference embeddings as a layer, one target per reference.

    Args:
        references: float32, [references, width], such as the embedding of another image.
    """

    references: torch.Tensor

    def __init__(self, references: np.ndarray) -> None:
        super().__init__()
        checked = torch.tensor(checked_embeddings(np.atleast_2d(references)))
        self.register_buffer("references", functional.normalize(checked))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return scores [n, references] of embeddings [n, width]."""
        return functional.normalize(embeddings) @ self.references.T


class Scores(nn.Module):
    """A backbone followed by a probe, for images that carry a gradient.

    Args:
        backbone: Any vision transformer or convolutional network of timm.
        probe: Module from embeddings [n, width] to scores [n, targets].
    """

    def __init__(self, backbone: Backbone, probe: nn.Module) -> None:
        super().__init__()
        self.features, self.probe = FeatureModel(backbone), probe
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return scores [n, targets] of images [n, 3, height, width], grey levels 0 to 255."""
        return self.probe(self.features(images.permute(0, 2, 3, 1))[0])


def best_target(backbone: Backbone | str, probe: nn.Module, image: np.ndarray) -> int:
    """Return the target with the greatest score, which Grad-CAM explains by default.

    Args:
        backbone: See `grad_cam`.
        probe: See `grad_cam`.
        image: uint8, [height, width] or [height, width, 3].
    """
    backbone = as_backbone(backbone)
    with torch.no_grad():
        return int(Scores(backbone, probe)(as_tensor(backbone, image))[0].argmax())


class IndependentScore(InputError):
    """A target's score does not depend on the image: there is nothing that a map could explain."""


def grad_cam(
    backbone: Backbone | str, probe: nn.Module, image: np.ndarray, target: int | None = None
) -> np.ndarray:
    """Return the Grad-CAM of a target's score on the patch grid.

    The layer is the last stage of a convolutional network, or `blocks[-1].norm1` of a vision
    transformer: behind the last attention the class token reads no patch any more, so that at
    `norm2` of the last block the gradient of every patch is zero. The image requires the gradient
    and the weights do not, so the backbone may be frozen, and no gradient stays in it.

    Source: Selvaraju et al., ICCV 2017 (arXiv:1610.02391), as pytorch-grad-cam computes it.

    Args:
        backbone: Any vision transformer or convolutional network of timm, or its registered name.
        probe: `LinearProbe`, `KnnVote`, `Similarity`, or any module from embeddings [n, width] to
            scores [n, targets].
        image: uint8, [height, width] or [height, width, 3].
        target: Target whose score is explained; by default the one with the greatest score.

    Returns:
        float32, 0 to 1, [grid height, grid width].

    Raises:
        IndependentScore: If the score does not depend on the image, such as a kNN vote without a
            neighbour of the target.
        InputError: If the backbone is no vision transformer, the target does not exist, or the
            image is smaller than a patch.
    """
    backbone = as_backbone(backbone)
    _require_layer(backbone)
    model, images = Scores(backbone, probe), as_tensor(backbone, image)
    with _frozen(model), _GridCam(backbone, model) as cam:
        with torch.no_grad():
            scores = model(images)[0]
        target = int(scores.argmax()) if target is None else target
        if not 0 <= target < len(scores):
            raise InputError(f"target {target}: the probe has the targets 0 to {len(scores) - 1}.")
        heat = cam(images.requires_grad_(True), [lambda output: output[target]])[0]
        if not any(gradient.any() for gradient in cam.activations_and_grads.gradients):
            raise IndependentScore(
                f"target {target}: its score does not depend on the image, so there is nothing to "
                "explain (a kNN vote without a neighbour of that class?); choose another target."
            )
    return heat.astype(np.float32)


def with_grad_cam(backbones: Iterable[Backbone]) -> list[Backbone]:
    """Return the backbones that have a Grad-CAM, and print a sentence for each other."""
    return accepted(backbones, _require_layer)


def _require_layer(backbone: Backbone) -> None:
    """Check that a backbone has a layer whose map Grad-CAM can weight."""
    if not is_convolutional(backbone.model):
        require_attention(backbone)


class _GridCam(GradCAM):
    """Grad-CAM that stays on the patch grid."""

    def __init__(self, backbone: Backbone, model: Scores) -> None:
        network, self.grid = backbone.model, patch_grid(backbone)
        if is_convolutional(network):
            last_stage = network.get_submodule(network.feature_info[-1]["module"])
            super().__init__(model, [last_stage])
        else:
            self.prefix = backbone.num_prefix_tokens
            layers = [network.blocks[-1].norm1]
            super().__init__(model, layers, reshape_transform=self._on_grid)

    def _on_grid(self, tokens: torch.Tensor) -> torch.Tensor:
        """Reshape tokens [n, tokens, width] to [n, width, grid height, grid width]."""
        return tokens[:, self.prefix :].unflatten(1, self.grid).permute(0, 3, 1, 2)

    def get_target_width_height(self, input_tensor: torch.Tensor) -> tuple[int, int]:
        return self.grid[1], self.grid[0]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Let no parameter require a gradient within the context, so that no gradient is kept."""
    thawed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
