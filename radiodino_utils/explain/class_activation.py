"""Grad-CAM of a frozen vision transformer under a linear probe, a kNN vote or an embedding similarity."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..backbones.backbone import Backbone, is_convolutional
from ..backbones.loading import as_backbone
from ..core.checks import checked_embeddings, checked_ks, checked_temperature
from ..core.errors import InputError
from ..core.extras import extra
from ..evaluation.knn import TEMPERATURE
from ..evaluation.logistic import STRENGTHS, fit_logistic
from ..features.feature_model import FeatureModel, as_tensor
from ..features.features import Features
from .attention import require_attention

with extra("evaluation"):
    from pytorch_grad_cam import GradCAM


class LinearProbe(nn.Linear):
    """The logistic regression of `logistic.fit_logistic` as a layer: scores are the logits of the
    classes.

    Args:
        features: What `extract_features` gives.
        strengths: Candidates of C.
    """

    def __init__(self, features: Features, *, strengths: Sequence[float] = STRENGTHS) -> None:
        super().__init__(features.embedding("train").shape[1], len(features.classes))
        best, mean, std = fit_logistic(features, strengths=strengths)
        weight, bias = (
            np.zeros(self.weight.shape),
            np.full(self.bias.shape, -1e9),
        )  # a class that train lacks is never chosen
        coefficients, intercepts = best.coef_ / std, best.intercept_
        if (
            len(best.classes_) == 2
        ):  # scikit-learn keeps the one row of a sigmoid; half of it for each class is its softmax
            coefficients, intercepts = (
                np.stack([-one[0], one[0]]) / 2 for one in (coefficients, intercepts)
            )
        weight[best.classes_] = coefficients
        bias[best.classes_] = intercepts - coefficients @ mean
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float32), requires_grad=False)
        self.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float32), requires_grad=False)


class KnnVote(nn.Module):
    """DINO's weighted kNN vote as a layer: scores are the logarithms of the votes, so softmax gives
    the probabilities.

    The share of the votes itself would not do: where all neighbours agree it is 1 whatever the
        image, without gradient.

    Args:
        features: What `extract_features` gives; the train split is the bank.
        k: Neighbours.
        temperature: Of the weights.

    Raises:
        InputError: If `k` or `temperature` do not fit, a label stands for no class, or a feature is
            not finite.
    """

    def __init__(
        self, features: Features, *, k: int = 20, temperature: float = TEMPERATURE
    ) -> None:
        super().__init__()
        (bank, labels), (k,) = features.labelled("train"), checked_ks((k,))
        self.k, self.classes, self.temperature = (
            min(k, len(labels)),
            len(features.classes),
            checked_temperature(temperature),
        )
        self.register_buffer("bank", functional.normalize(torch.tensor(bank)))
        self.register_buffer("labels", torch.tensor(labels))

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores [n, classes] of embeddings [n, width]; -1e9 for a class without a neighbour."""
        similarities, rows = (functional.normalize(embeddings) @ self.bank.T).topk(self.k)
        is_class = (
            self.labels[rows][:, None] == torch.arange(self.classes, device=rows.device)[:, None]
        )
        weights = (similarities / self.temperature)[:, None].expand(is_class.shape)
        return weights.masked_fill(~is_class, -1e9).logsumexp(-1)


class Similarity(nn.Module):
    """Cosine similarity to reference embeddings as a layer: the score of target i is that to
    reference i.

    Args:
        references: float32, [references, width], such as the embedding of another image.
    """

    def __init__(self, references: np.ndarray) -> None:
        super().__init__()
        self.register_buffer(
            "references",
            functional.normalize(torch.tensor(checked_embeddings(np.atleast_2d(references)))),
        )

    def forward(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Scores [n, references] of embeddings [n, width]."""
        return functional.normalize(embeddings) @ self.references.T


class Scores(nn.Module):
    """A backbone with a probe behind, for images that carry a gradient.

    Args:
        backbone: Any vision transformer of timm.
        probe: From embeddings [n, width] to scores [n, targets].
    """

    def __init__(self, backbone: Backbone, probe: nn.Module) -> None:
        super().__init__()
        self.features, self.probe = FeatureModel(backbone), probe
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores [n, targets] of images, float32 grey levels from 0 to 255, [n, 3, height, width]."""
        return self.probe(self.features(images.permute(0, 2, 3, 1))[0])


class IndependentScore(InputError):
    """A target's score does not depend on the image: there is nothing that a map could explain."""


def grad_cam(
    backbone: Backbone | str, probe: nn.Module, image: np.ndarray, target: int | None = None
) -> np.ndarray:
    """Computes the Grad-CAM of a target's score on the patch grid.

    The layer is the last stage of a convolutional network and `blocks[-1].norm1` of a vision
    transformer: behind the last attention the class token reads no patch any more, so that at
    `norm2` of the last block the gradient of every patch is zero. The image requires the gradient
    and the weights do not, so a frozen backbone serves, and no gradient stays in it.

    Source: Selvaraju et al., ICCV 2017 (arXiv:1610.02391), as pytorch-grad-cam computes it.

    Args:
        backbone: Any vision transformer or convolutional network of timm, or its registered name.
        probe: `LinearProbe`, `KnnVote`, `Similarity`, or any module from embeddings [n, width] to
            scores [n, targets].
        image: uint8, [height, width] or [height, width, 3].
        target: Whose score is explained; the one with the greatest score by default.

    Returns:
        float32, 0 to 1, [grid height, grid width].

    Raises:
        IndependentScore: If the target's score does not depend on the image, as a kNN vote without
            a neighbour of it.
        InputError: If the backbone is no vision transformer, the target does not exist, or the
            image is smaller than a patch.
    """
    backbone = as_backbone(backbone)
    if not is_convolutional(backbone.model):
        require_attention(backbone)
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
                f"target {target}: its score does not depend on the image, so there is nothing to explain "
                "(a kNN vote without a neighbour of that class?); choose another target."
            )
    return heat.astype(np.float32)


class _GridCam(GradCAM):
    """Grad-CAM that stays on the patch grid."""

    def __init__(self, backbone: Backbone, model: Scores) -> None:
        if is_convolutional(backbone.model):
            self.grid = tuple(edge // backbone.patch_size for edge in backbone.preprocessing.shape)
            super().__init__(
                model, [backbone.model.get_submodule(backbone.model.feature_info[-1]["module"])]
            )
            return
        self.grid = backbone.model.patch_embed.grid_size
        prefix = backbone.num_prefix_tokens
        super().__init__(
            model,
            [backbone.model.blocks[-1].norm1],
            reshape_transform=lambda tokens: (
                tokens[:, prefix:].unflatten(1, self.grid).permute(0, 3, 1, 2)
            ),
        )

    def get_target_width_height(self, input_tensor: torch.Tensor) -> tuple[int, int]:
        return self.grid[1], self.grid[0]


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient meanwhile, so that none stays behind."""
    thawed = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
