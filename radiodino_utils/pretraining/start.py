"""A trained vision transformer as the start of a run."""

import torch
from timm.models.vision_transformer import VisionTransformer

from ..backbones.architecture import vision_transformer
from ..backbones.backbone import Backbone, is_convolutional
from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from ..core.errors import InputError

_TOLERANCE = 1e-3  # of an output; layer norm makes outputs of about 1


def start_transformer(backbone: Backbone) -> VisionTransformer:
    """Return a copy of a backbone for images of any size, standardised as those of ImageNet.

    Mean and standard deviation of another preprocessing are folded into the patch embedding.

    Args:
        backbone: Returned by `load_backbone`; it stays as it is.

    Returns:
        timm's vision transformer, built from nothing but the tensors and the number of heads, as
        `file:PATH` will build the adapted one.

    Raises:
        InputError: If the backbone is no such transformer with a class token, or computes
            something else than its tensors tell.
    """
    require_tokens(backbone)
    name, model = backbone.name, backbone.model
    state = {key: tensor.detach().clone() for key, tensor in model.state_dict().items()}
    refusal = (
        f"{name}: is no plain vision transformer of timm, such as those of RadioDINO, DINO and "
        "DINOv2; name another start"
    )
    try:
        start = vision_transformer(
            state, name, num_heads=model.blocks[0].attn.num_heads, dynamic_img_size=True
        )
    except (InputError, AttributeError) as error:
        raise InputError(f"{refusal} ({error}).") from error
    if not _computes_the_same(model, start, backbone.preprocessing.shape):
        raise InputError(f"{refusal} (its tensors alone do not tell what it computes).")
    return _for_imagenet(start, backbone)


def require_tokens(backbone: Backbone) -> None:
    """Check that a backbone has what a run continues.

    Raises:
        InputError: If it has no class token or no patch tokens.
    """
    if not backbone.patch_size or is_convolutional(backbone.model):
        raise InputError(
            f"{backbone.name}: has no class and patch tokens to start from; name a vision "
            "transformer."
        )
    if "class_token" not in backbone.outputs:
        raise InputError(
            f"{backbone.name}: has no class token, which DINO trains; name another start."
        )


@torch.inference_mode()
def _computes_the_same(
    model: torch.nn.Module, start: VisionTransformer, shape: tuple[int, int]
) -> bool:
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(0)) - 0.5
    return torch.allclose(model(image), start(image), atol=_TOLERANCE)


def _for_imagenet(start: VisionTransformer, backbone: Backbone) -> VisionTransformer:
    """Fold the difference of two standardisations into the patch embedding, in place."""
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    target_mean, target_std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD)
    )
    with torch.no_grad():
        projection = start.patch_embed.proj
        projection.bias += (projection.weight * (target_mean - mean) / std).sum((1, 2, 3))
        projection.weight *= target_std / std
    return start
