"""Load backbones by name."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import timm
import torch

from ..core.errors import InputError, unknown_name, wrong_type
from ..data.images import INTERPOLATIONS
from .architecture import vision_transformer
from .backbone import Backbone, Pixels, from_model
from .checkpoints import read_state_dict, saved_facts, saved_num_heads
from .preprocessing import Preprocessing
from .random_weights import redraw
from .reference_weights import reference_model
from .registry import OPEN_NAMES, REGISTRY, Model, bundled_file, find_model
from .timm_models import load_from_hub


def load_backbone(
    name: str, *, revision: str | None = None, seed: int = 0, num_heads: int | None = None
) -> Backbone:
    """Load a backbone by name.

    Args:
        name: A registered name (`backbone_names` lists them), or an open one: `hub:ORG/NAME` for a
            repository of timm's models on the Hub, `timm:NAME` for a model whose weights timm
            knows, both with `@REVISION` if it is to be pinned, and `file:PATH` for a weights file.
        revision: Branch, tag or commit on the Hub; `main` by default. `HF_HUB_OFFLINE` and
            `HF_ENDPOINT` are respected.
        seed: Seed of random weights, which are bit-equal on every processor.
        num_heads: Attention heads per block of `file:PATH`, if the metadata of the file does not
            state them; `file:PATH?heads=N` does the same.

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
    entry = find_model(name)
    if entry is None:
        raise unknown_name("backbone", name, [*REGISTRY, *OPEN_NAMES])
    if entry.kind == "hub":
        return load_from_hub(*_pinned(name, entry, revision))
    if entry.kind == "random":
        return _random(name, entry, seed)
    return _LOADERS[entry.kind](name, entry)


def _pinned(name: str, entry: Model, revision: str | None) -> tuple[str, Model]:
    """Return the name and entry at a revision; of an open name, the name tells it."""
    if revision is None:
        return name, entry
    if entry.revision not in ("", revision):
        raise InputError(
            f"{name}: names another revision than revision={revision}; give only one of them."
        )
    if name not in REGISTRY and not entry.revision:
        name = f"{name}@{revision}"
    return name, replace(entry, revision=revision)


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
    backbone = from_model(name, model, f"file {path.name}")
    interpolation = saved_facts(path).get("interpolation", "bilinear")
    if interpolation not in (*INTERPOLATIONS, "pad"):
        raise InputError(f"{path}: its metadata name an unknown interpolation, {interpolation}.")
    preprocessing = replace(backbone.preprocessing, interpolation=interpolation)
    return replace(backbone, preprocessing=preprocessing)
