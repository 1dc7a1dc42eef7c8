"""A backbone: a timm model with its preprocessing and the names of its outputs."""

from dataclasses import asdict, dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import nn

from ..core.errors import InputError
from .fingerprints import fingerprint, structure
from .preprocessing import Preprocessing
from .registry import IMAGENET_MEAN, IMAGENET_STD

BLOCKS = 4  # last blocks whose class tokens DINOv2's linear probe reads


@dataclass(frozen=True, repr=False)
class Backbone:
    """A backbone ready for use.

    Attributes:
        name: As given to `load_backbone`.
        model: In evaluation mode, float32, on the CPU; for `pixels` a module that flattens.
        preprocessing: Preprocessing of the images.
        patch_size: Edge of a patch in pixels, or stride of the last stage of a convolutional
            network; 0 for `pixels`.
        num_prefix_tokens: Number of class and register tokens before the patch tokens.
        embedding_dim: Width of a feature.
        source: Where the weights come from.
        outputs: Names of the features, the embedding first. The embedding is what `model` itself
            pools: `class_token`, `mean_patch_token` (with the norm behind it, if there is one),
            `pooled_token` (any other pooling), or `pooled` (a convolutional network).
    """

    name: str
    model: Any  # a module; torch types the attributes of every module as Tensor | Module
    preprocessing: Preprocessing
    patch_size: int
    num_prefix_tokens: int
    embedding_dim: int
    source: str
    outputs: tuple[str, ...]

    def __repr__(self) -> str:
        height, width = self.preprocessing.shape
        outputs = ", ".join(self.outputs)
        return f"Backbone({self.name!r}, {height} x {width}, {outputs} [{self.embedding_dim}])"

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the weights as they are in memory now, 12 hexadecimal digits."""
        return fingerprint(self.model) if self.model.state_dict() else "pixels-32x32"

    @property
    def structure(self) -> str:
        """Fingerprint of what the model computes beside its weights."""
        return structure(self.model)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """Return an image as the backbone sees it, before standardisation.

        Args:
            image: uint8, [height, width] or [height, width, 3].

        Returns:
            uint8, of the preprocessing's height and width.

        Raises:
            InputError: If the image is not such an array, or is smaller than a patch.
        """
        shape = image.shape if isinstance(image, np.ndarray) else None
        if shape is None or len(shape) not in (2, 3):
            given = type(image).__name__ if shape is None else f"an array of shape {shape}"
            raise InputError(
                "image: a uint8 array [height, width] or [height, width, 3] is needed, not "
                f"{given}."
            )
        height, width = shape[:2]
        if min(height, width) < self.patch_size:
            raise InputError(
                f"an image of {height} x {width} pixels is smaller than a patch of {self.name} "
                f"({self.patch_size} x {self.patch_size}); give a larger image."
            )
        return self.preprocessing.fitted(image)

    def describe(self) -> dict[str, Any]:
        """Return everything but the model, as JSON values."""
        facts = {name: value for name, value in vars(self).items() if name != "model"}
        facts |= {"fingerprint": self.fingerprint, "structure": self.structure}
        return facts | {"preprocessing": asdict(self.preprocessing), "outputs": list(self.outputs)}


class Pixels(nn.Module):
    """Baseline without a network: the grey image as a vector."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Flatten the mean over the channels: [n, 3, height, width] to [n, height x width]."""
        return images.mean(1).flatten(1)


def with_padding(backbone: Backbone) -> Backbone:
    """Return the backbone with small images padded instead of enlarged.

    `pixels`, whose images are smaller, is returned as it is.
    """
    if not backbone.patch_size:
        return backbone
    return replace(backbone, preprocessing=replace(backbone.preprocessing, interpolation="pad"))


def with_blocks(backbone: Backbone, blocks: int = BLOCKS) -> Backbone:
    """Return the backbone with the class tokens of its last blocks among its outputs.

    The linear probe reads them.

    Args:
        backbone: Backbone returned by `load_backbone`.
        blocks: Number of blocks; `class_token_2` is that of the block before the last.

    Returns:
        The same weights with more outputs; a backbone without a class token is returned as it is.
    """
    if "class_token" not in backbone.outputs:
        return backbone
    own = tuple(name for name in backbone.outputs if not name.startswith("class_token_"))
    earlier = tuple(f"class_token_{back}" for back in range(2, blocks + 1))
    return replace(backbone, outputs=(*own, *earlier))


def with_all_blocks(backbone: Backbone) -> Backbone:
    """Return the backbone with the class tokens of all blocks that its model can return."""
    intermediates = getattr(backbone.model, "forward_intermediates", None)
    if intermediates is None or "return_prefix_tokens" not in signature(intermediates).parameters:
        return backbone
    count = sum(name.startswith("class_token") for name in backbone.outputs)
    return with_blocks(backbone, max(count, len(backbone.model.blocks)))


def for_training(model: Any) -> Any:
    """Prepare a vision transformer for training, in place.

    On a CPU the fused attention is switched off: its backward pass is several times slower.
    """
    for block in model.blocks if hasattr(model, "patch_embed") else ():
        block.attn.fused_attn = torch.cuda.is_available()
    return model


def from_model(
    name: str, model: Any, source: str, preprocessing: Preprocessing | None = None
) -> Backbone:
    """Return a vision transformer or convolutional network of timm as a backbone.

    Args:
        name: Name in tables and figures.
        model: Model without a classifier (`num_classes=0`).
        source: Where the weights come from.
        preprocessing: By default the size of the model (224 pixels for a convolutional network),
            bilinear, and the mean and standard deviation of ImageNet.

    Raises:
        InputError: If the model is neither.
    """
    if is_convolutional(model):
        return Backbone(
            name=name,
            model=model.eval(),
            preprocessing=preprocessing or _imagenet(224),
            patch_size=model.feature_info[-1]["reduction"],
            num_prefix_tokens=0,
            embedding_dim=getattr(model, "head_hidden_size", model.num_features),
            source=source,
            outputs=("pooled",),
        )
    require_supported(name, model)
    height, width = model.patch_embed.img_size
    return Backbone(
        name=name,
        model=model.eval(),
        preprocessing=preprocessing or _imagenet(height if height == width else (height, width)),
        patch_size=model.patch_embed.patch_size[0],
        num_prefix_tokens=model.num_prefix_tokens,
        embedding_dim=model.embed_dim,
        source=source,
        outputs=_outputs(model),
    )


def _imagenet(size: int | tuple[int, int]) -> Preprocessing:
    return Preprocessing(size, "bilinear", IMAGENET_MEAN, IMAGENET_STD)


def _outputs(model: Any) -> tuple[str, ...]:
    """Return the names of the features of a vision transformer, by its own pooling."""
    pooling = getattr(model, "global_pool", "")
    if not pooling:
        pooling = "token" if getattr(model, "cls_token", None) is not None else "avg"
    with_prefix = getattr(model, "pool_include_prefix", False) and model.global_pool == "avg"
    if pooling == "token":
        return ("class_token", "mean_patch_token")
    return ("mean_patch_token",) if pooling == "avg" and not with_prefix else ("pooled_token",)


def require_supported(name: str, model: Any) -> None:
    """Check that a model is a vision transformer or convolutional network of timm.

    Args:
        name: Of the backbone, for the message.
        model: A model.

    Raises:
        InputError: If it is neither. Transformers in stages, such as Swin, are neither.
    """
    needed = ("blocks", "num_prefix_tokens", "embed_dim", "forward_head")
    is_transformer = hasattr(getattr(model, "patch_embed", None), "img_size") and all(
        hasattr(model, part) for part in needed
    )
    if not is_transformer and not is_convolutional(model):
        raise InputError(
            f"{name}: {type(model).__name__} is no vision transformer; give one of timm, or a "
            "convolutional network."
        )


def is_convolutional(model: nn.Module) -> bool:
    """Return whether a model is a convolutional network of timm: stages, a global average pool."""
    pools = hasattr(model, "global_pool") or hasattr(getattr(model, "head", None), "global_pool")
    return pools and hasattr(model, "feature_info") and not hasattr(model, "patch_embed")
