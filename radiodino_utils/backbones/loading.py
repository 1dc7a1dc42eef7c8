"""Load backbones by registered name."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from ..core.errors import InputError, unknown_name, wrong_type
from .architecture import load_strictly, vision_transformer
from .backbone import Backbone, Pixels, from_model, require_transformer
from .checkpoints import read_state_dict, saved_num_heads
from .hub import fetch_weights
from .preprocessing import Preprocessing
from .random_weights import redraw
from .reference_weights import reference_model
from .registry import REGISTRY, Model, bundled_file


def load_backbone(
    name: str, *, revision: str | None = None, seed: int = 0, num_heads: int | None = None
) -> Backbone:
    """Load a backbone by its registered name.

    Args:
        name: `radiodino-s16`, `-b16`, `-s8` (the released weights), `radiodino-mini` (bundled),
            `dino-s16`, `dino-b16`, `dinov2-s14`, `dinov2-b14` (for comparison), `random-t16`,
            `-s16`, `-b16` (seeded random weights), `pixels` (the 32 x 32 grey image),
            `file:PATH` (a weights file, see `num_heads`), or a name of `register_backbone`.
        revision: Branch, tag or commit on the Hub; `main` by default. `HF_HUB_OFFLINE` and
            `HF_ENDPOINT` are honoured.
        seed: Of the random weights, which are bit-equal on every processor (see `random_weights`).
        num_heads: Of `file:PATH`: attention heads per block, if the metadata of the file does not
            name them; `file:PATH?heads=N` does the same.

    Returns:
        The backbone; its name loads it again.

    Raises:
        InputError: If the name is unknown, or weights are missing, damaged, or cannot be
            downloaded.
    """
    if not isinstance(name, str):
        raise wrong_type("backbone", name, "a registered name or a Backbone")
    if name.startswith("file:"):
        return _from_file(name, num_heads)
    if num_heads is not None:
        raise InputError(f"num_heads {num_heads}: is an option of file:PATH; {name} has its own.")
    if name not in REGISTRY:
        raise unknown_name("backbone", name, [*REGISTRY, "file:PATH"])
    entry = REGISTRY[name]
    if entry.kind == "hub":
        return _from_hub(name, entry, revision)
    if entry.kind == "random":
        return _random(name, entry, seed)
    return _LOADERS[entry.kind](name, entry)


def as_backbone(backbone: Backbone | str) -> Backbone:
    """Return a backbone given as an object or by its registered name.

    Args:
        backbone: A registered name (see `load_backbone`), or a backbone, returned as it is.

    Raises:
        InputError: If it is neither, or the name cannot be loaded.
    """
    return backbone if isinstance(backbone, Backbone) else load_backbone(backbone)


def _pixels(name: str, _: Model) -> Backbone:
    unscaled = Preprocessing(32, "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Backbone(
        name=name,
        model=Pixels(),
        preprocessing=unscaled,
        patch_size=0,
        num_prefix_tokens=0,
        embedding_dim=32 * 32,
        source="none",
        outputs=("pixels",),
    )


def _bundled(name: str, entry: Model) -> Backbone:
    path = bundled_file(entry.model)
    if not path.is_file():
        raise InputError(
            f"{name}: this version does not carry the checkpoint yet; use random-t16 or file:PATH."
        )
    model = vision_transformer(read_state_dict(path), str(path), **dict(entry.options))
    return from_model(name, model, f"bundled {entry.model}")


def _from_wheel(name: str, entry: Model) -> Backbone:
    preprocessing = Preprocessing(224, **dict(entry.preprocessing))
    return from_model(name, reference_model(name), f"wheel {entry.model}", preprocessing)


def _registered(name: str, entry: Model) -> Backbone:
    if entry.build is None:
        raise InputError(f"{name}: was registered without a function that builds it.")
    preprocessing = Preprocessing(**dict(entry.preprocessing)) if entry.preprocessing else None
    return from_model(name, entry.build(), entry.model, preprocessing)


_LOADERS: dict[str, Callable[[str, Model], Backbone]] = {
    "pixels": _pixels,
    "bundled": _bundled,
    "wheel": _from_wheel,
    "function": _registered,
}


def _random(name: str, entry: Model, seed: int) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        model = timm.create_model(entry.model, num_classes=0)
        model = redraw(model, seed=seed, linear_std=0.02)
    return from_model(name, model, f"random weights, seed {seed}")


def _from_hub(name: str, entry: Model, revision: str | None) -> Backbone:
    folder, commit = fetch_weights(entry.model, revision)
    source, options = f"{entry.model}@{commit}", dict(entry.options)
    model = _configured(name, folder, options)
    state = read_state_dict(folder / "model.safetensors")
    if "img_size" in options:  # trained at another size: timm resamples the position embedding
        state = checkpoint_filter_fn(state, model)
    load_strictly(model, state, source)
    config = timm.data.resolve_data_config(model=model) | dict(entry.preprocessing)
    preprocessing = Preprocessing(
        model.patch_embed.img_size[0], config["interpolation"], config["mean"], config["std"]
    )
    return from_model(name, model, source, preprocessing)


def _configured(name: str, folder: Path, options: dict[str, Any]) -> Any:
    """Build the model that a `config.json` describes, without weights."""
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=False, num_classes=0, **options)
        require_transformer(name, model)
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / 'config.json'}: not a configuration that timm can build a model from "
            f"({error})."
        ) from error
    return model


def _from_file(name: str, num_heads: int | None) -> Backbone:
    without_heads, _, heads = name.partition("?heads=")
    path = Path(without_heads.removeprefix("file:")).expanduser()
    if heads and not heads.isdecimal():
        raise InputError(
            f"{name}: heads={heads} is no number; write for example {without_heads}?heads=6."
        )
    state = read_state_dict(path)
    sources = {
        "heads in the name": int(heads) if heads else None,
        "num_heads": num_heads,
        "the metadata": saved_num_heads(path),
    }
    stated = {source: value for source, value in sources.items() if value is not None}
    if len(set(stated.values())) > 1:
        listed = ", ".join(f"{source} {value}" for source, value in stated.items())
        raise InputError(
            f"{path}: the numbers of attention heads contradict each other ({listed}); leave out "
            "the wrong one."
        )
    number = next(iter(stated.values()), None)
    if number is None or "the metadata" in stated:
        name = without_heads
    else:
        name = f"{without_heads}?heads={number}"
    model = vision_transformer(state, str(path), num_heads=number)
    return from_model(name, model, f"file {path.name}")
