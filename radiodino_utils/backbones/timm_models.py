"""Backbones of timm with weights of the Hub, loaded strictly by timm's own conversions."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch

from ..core.errors import InputError
from .architecture import load_strictly
from .backbone import Backbone, from_model, is_convolutional, require_supported
from .checkpoints import read_tensors
from .hub import fetch_weights
from .preprocessing import Preprocessing
from .registry import Model

_FAULTS = (RuntimeError, ValueError, KeyError, TypeError, AttributeError)
_PROJECTION = "visual.head.proj"  # of OpenCLIP, which timm takes for the classifier


def load_from_hub(name: str, entry: Model) -> Backbone:
    """Load a backbone whose weights are on the Hub.

    The preprocessing is that of its configuration: input size, interpolation, mean and standard
    deviation. The whole image is resized; the centre crop that some configurations ask for would
    cut off its border and is left out.

    Args:
        name: For tables and figures.
        entry: Of kind "hub".

    Raises:
        InputError: If weights or configuration are missing, damaged or do not fit, cannot be
            downloaded, or describe a network that is no `Backbone`.
    """
    weights, commit = fetch_weights(
        entry.model,
        entry.revision,
        names=entry.weights_files,
        with_config=not entry.architecture,
    )
    architecture = entry.architecture or f"local-dir:{weights.parent}"
    source, options = f"{entry.model}@{commit}", dict(entry.options)
    config = _configuration(name, architecture, options)
    model = _loaded(architecture, read_tensors(weights), config, options, source)
    return from_model(name, model, source, _preprocessing(model, entry))


def _configuration(name: str, architecture: str, options: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a model's weights, once it is known to be a backbone."""
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture, num_classes=0, in_chans=3, **options)
        require_supported(name, model)
        return dict(model.pretrained_cfg)
    except InputError:
        raise
    except _FAULTS as error:
        place = Path(architecture.removeprefix("local-dir:")) / "config.json"
        raise InputError(
            f"{place}: not a configuration that timm can build a model from ({error})."
        ) from error


def _loaded(
    architecture: str,
    tensors: dict[str, torch.Tensor],
    config: Mapping[str, Any],
    options: dict[str, Any],
    source: str,
) -> Any:
    """Build a model with its weights and take its classifier off.

    timm is strict about the tensors only if it builds the classifier that they hold.
    """
    classes = _number_of_classes(tensors, config)
    overlay = {"source": "", "state_dict": tensors, "num_classes": classes}
    try:
        model = timm.create_model(
            architecture,
            pretrained=True,
            pretrained_cfg_overlay=overlay,
            num_classes=classes,
            in_chans=3,
            **options,
        )
    except _FAULTS as error:
        with torch.device("meta"):
            blank = timm.create_model(architecture, num_classes=classes, in_chans=3, **options)
        load_strictly(blank, tensors, source)  # lists what does not fit
        raise InputError(
            f"{source}: timm cannot load the tensors ({' '.join(str(error).split())})."
        ) from error
    if classes:
        model.reset_classifier(0)
    del model.pretrained_cfg["state_dict"]
    return model.eval()


def _number_of_classes(tensors: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> int:
    """Return the width of the classifier that the tensors hold, or 0 if they hold none."""
    classifiers = config.get("classifier") or ()
    names = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    widths = [
        len(tensors[f"{name}.weight"])
        for name in (*names, _PROJECTION)
        if f"{name}.weight" in tensors
    ]
    return widths[0] if widths else 0


def _preprocessing(model: Any, entry: Model) -> Preprocessing:
    config = timm.data.resolve_data_config(model=model) | dict(entry.preprocessing)
    shape = config["input_size"][1:] if is_convolutional(model) else model.patch_embed.img_size
    height, width = shape
    return Preprocessing(
        height if height == width else (height, width),
        config["interpolation"],
        tuple(config["mean"]),
        tuple(config["std"]),
    )
