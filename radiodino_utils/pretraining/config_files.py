"""Configurations of pre-training as YAML files: the published ones, and one for small corpora."""

import math
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from ..core.errors import InputError, unknown_name
from .config import PretrainConfig

# maximum number of images and output dimension, as lightly-train scales it
_OUTPUT_DIMS = (
    (20_000, 1024),
    (50_000, 2048),
    (100_000, 4096),
    (200_000, 16_384),
    (500_000, 32_768),
    (math.inf, 65_536),
)


def config_names() -> list[str]:
    """Return the names of the configurations that come with the package."""
    folder = resources.files(__package__) / "configs"
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir())


def load_config(
    name: str | Path, *, images: int, patch_size: int = 16, **changes: object
) -> PretrainConfig:
    """Read a configuration and fill in what depends on the number of images.

    Args:
        name: One of `config_names`, or a YAML file that holds every setting, or `base: NAME` and
            the differences.
        images: Number of images of the corpus.
        patch_size: Patch size of the backbone in pixels; the views of the file are fitted to it.
        **changes: Settings in place of those of the file; None keeps that of the file.

    Raises:
        InputError: If the configuration is unknown, or a setting is unknown, missing or not valid.
    """
    settings = _read(name)
    for key in ("global_size", "local_size"):  # of another patch than that of the file
        if key in settings:
            settings[key] = patch_size * max(1, round(settings[key] / patch_size))
    settings |= {key: value for key, value in changes.items() if value is not None}
    settings["patch_size"] = patch_size
    needed = [key for key, field in PretrainConfig.model_fields.items() if field.is_required()]
    if missing := [key for key in needed if key not in settings]:
        raise InputError(
            f"{name}: the settings {', '.join(missing)} are missing; "
            "or name a configuration to start from with base."
        )
    for key, value in settings_by_size(images).items():
        if settings[key] == "auto":
            settings[key] = value
    has_steps = bool(settings["steps"])
    try:
        config = PretrainConfig(**(settings if has_steps else settings | {"steps": 1}))
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    if has_steps:
        return config
    return config.with_changes(steps=max(1, round(config.epochs * images / config.batch_size)))


def settings_by_size(images: int) -> dict[str, float]:
    """Return the settings that stand as "auto" in a file.

    The output dimension follows lightly-train. A small corpus gets a sharper teacher that follows
    faster, and a longer warm-up.

    Args:
        images: Number of images of the corpus.
    """
    share = min(1.0, max(0.0, (math.log10(max(images, 1)) - 4.3) / 1.4))  # 0: 20 k, 1: 500 k
    return {
        "output_dim": next(dim for most, dim in _OUTPUT_DIMS if images <= most),
        "teacher_temp": round(0.02 + 0.05 * share, 4),
        "momentum": round(0.99 + 0.006 * share, 4),
        "warmup": round(0.15 - 0.05 * share, 4),
    }


def _read(name: str | Path) -> dict[str, Any]:
    path = Path(name)
    if str(name) in config_names():
        path = Path(str(resources.files(__package__) / "configs" / f"{name}.yaml"))
    elif not path.is_file():
        raise unknown_name("configuration", str(name), [*config_names(), "a YAML file"])
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}: the configuration is no YAML ({reason}).") from error
    if not isinstance(settings, dict):
        raise InputError(
            f"{path}: the configuration holds no settings; write one 'name: value' per line."
        )
    base = settings.pop("base", None)
    return (_read(base) if base else {}) | settings
