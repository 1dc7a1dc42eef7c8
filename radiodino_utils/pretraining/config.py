"""Pre-training recipes as data: the published ones, and one that scales with the number of images."""

import contextlib
import dataclasses
import math
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import yaml

from ..core.errors import InputError, unknown_name

METHODS = ("dino", "dinov2")
_CHOICES = {
    "batch_of": ("mixed", "group"),
    "centering": ("mean", "sinkhorn"),
    "lr_scaling": ("none", "linear256", "sqrt1024"),
    "initialization": ("dino", "dinov2", "mae"),
    "patch_head": ("shared", "separate"),
    "schedules": ("published", "lightly"),
    "freeze_by": ("gradient", "rate"),
    "koleo_views": ("sum", "mean"),
}
# lightly-train's scaling: output dimension up to so many images; teacher temperature and momentum
# grow with the set
_SIZES = (
    (20_000, 1024),
    (50_000, 2048),
    (100_000, 4096),
    (200_000, 16_384),
    (500_000, 32_768),
    (math.inf, 65_536),
)


@dataclass(frozen=True)
class Recipe:
    """All settings of a pre-training but data, architecture and seed. Shares are of the run's
    steps.

    Attributes:
        method: "dino" (class token only) or "dinov2" (with masked patch tokens and KoLeo).
        epochs: Length of the run in images of the corpus; `steps` overrides it.
        steps: Length of the run in optimiser steps.
        batch_size: Images an optimiser step, of all processes together.
        batch_of: "mixed", or "group": all images of a batch from one group (folder) of one source,
            so that telling the groups apart does not lower the loss.
        accumulate: Micro-batches that make a batch.
        global_size: Edge of the two global views, pixels.
        global_scale: Their share of the field's area.
        local_count: Local views a image.
        local_size: Their edge, pixels.
        local_scale: Their share of the field's area.
        field: Edge of the part of a image in which all its views lie, as a share.
        field_pixels: The least edge of that part, pixels.
        aspect: Width to height of a view.
        rotation: Greatest angle, degrees.
        flip: Probability of a mirrored view.
        jitter_probability: Of a change of brightness, contrast and gamma.
        brightness: Greatest relative change.
        contrast: Greatest relative change.
        gamma: Range of the exponent.
        blur: Probability for the first global, the second global and the local views.
        blur_sigma: Range, pixels.
        noise_probability: Of Gaussian noise.
        noise: Greatest standard deviation, of a range of 0 to 1.
        initialization: Of the backbone: "dino" and "dinov2" as published (truncated normal, learnt
            positions; the class token's spread differs), "mae" as lightly does it (Xavier, sine and
            cosine positions).
        layer_scale: Initial factor of each residual branch; 0 for none.
        hidden_dim: Of the projection head.
        bottleneck_dim: Of the projection head.
        output_dim: Prototypes; "auto" by the number of images.
        norm_last_layer: Keep the norm of every prototype at one instead of learning it.
        patch_head: Of masked patches: "shared" with the class token, or "separate".
        student_temp: Temperature of the student.
        teacher_temp_start: Temperature of the teacher at the start.
        teacher_temp: And after its warm-up; "auto" by the number of images.
        teacher_temp_warmup: Share.
        centering: Of the teacher's outputs: "mean" (a moving average) or "sinkhorn" (Sinkhorn-Knopp
            over the batch).
        center_momentum: Of the moving average.
        momentum: Of the teacher at the start; "auto" by the number of images.
        momentum_end: At the end.
        schedules: "published" (the first step at the very start of a warm-up, the cosine just short
            of its end, as DINO and DINOv2 compute them) or "lightly" (the first step one step into
            the warm-up of the rate, the cosine to its end).
        lr: Learning rate for the batch size that `lr_scaling` names.
        lr_scaling: "linear256" (lr x batch / 256), "sqrt1024" (lr x sqrt(batch / 1024)) or "none".
        lr_end: Learning rate at the end, absolute.
        warmup: Share; "auto" by the number of images.
        layer_decay: Factor of the learning rate from one block to the one before; of the last block
            too, as in DINOv2.
        patch_embed_lr: Factor of the learning rate of the patch embedding, besides.
        weight_decay: At the start.
        weight_decay_end: At the end.
        token_weight_decay: Decay the class token, the positions and the mask token as well; biases,
            norms and layer scales never decay.
        clip: Greatest norm of the gradient; 0 for none.
        clip_each: Clip each parameter by itself, as DINO does, instead of the backbone and each
            head, as DINOv2 does.
        drop_path: Of the student.
        drop_path_uniform: The same for every block instead of rising from 0 in the first to its
            value in the last.
        freeze_last_layer: Share in which the prototypes stay fixed.
        freeze_by: "gradient" (they get none, as in DINO) or "rate" (theirs is 0, as in DINOv2).
        mask_probability: Of a masked global view.
        mask_ratio: Range of the share of masked patches.
        ibot_weight: Of the loss of masked patches.
        koleo_weight: Of the loss that spreads class tokens.
        koleo_views: Its "sum" over the two global views, as in DINOv2, or their "mean".
        patch_size: Of the backbone; filled in.
    """

    method: str
    epochs: float
    steps: int | None
    batch_size: int
    batch_of: str
    accumulate: int
    global_size: int
    global_scale: tuple[float, float]
    local_count: int
    local_size: int
    local_scale: tuple[float, float]
    field: tuple[float, float]
    field_pixels: int
    aspect: tuple[float, float]
    rotation: float
    flip: float
    jitter_probability: float
    brightness: float
    contrast: float
    gamma: tuple[float, float]
    blur: tuple[float, float, float]
    blur_sigma: tuple[float, float]
    noise_probability: float
    noise: float
    initialization: str
    layer_scale: float
    hidden_dim: int
    bottleneck_dim: int
    output_dim: int | str
    norm_last_layer: bool
    patch_head: str
    student_temp: float
    teacher_temp_start: float
    teacher_temp: float | str
    teacher_temp_warmup: float
    centering: str
    center_momentum: float
    momentum: float | str
    momentum_end: float
    schedules: str
    lr: float
    lr_scaling: str
    lr_end: float
    warmup: float | str
    layer_decay: float
    patch_embed_lr: float
    weight_decay: float
    weight_decay_end: float
    token_weight_decay: bool
    clip: float
    clip_each: bool
    drop_path: float
    drop_path_uniform: bool
    freeze_last_layer: float
    freeze_by: str
    mask_probability: float
    mask_ratio: tuple[float, float]
    ibot_weight: float
    koleo_weight: float
    koleo_views: str
    patch_size: int = 16

    @property
    def peak_lr(self) -> float:
        """The learning rate after the warm-up."""
        factor = {
            "none": 1.0,
            "linear256": self.batch_size / 256,
            "sqrt1024": math.sqrt(self.batch_size / 1024),
        }
        return self.lr * factor[self.lr_scaling]

    @property
    def masks_patches(self) -> bool:
        """Whether the student learns masked patches too."""
        return self.method == "dinov2" and self.ibot_weight > 0

    def describe(self) -> dict[str, object]:
        """All settings as JSON values."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in dataclasses.asdict(self).items()
        }


def recipe_names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(
        file.name.removesuffix(".yaml")
        for file in (resources.files(__package__) / "configs").iterdir()
    )


def load_recipe(
    name: str | Path,
    *,
    method: str | None = None,
    images: int,
    patch_size: int = 16,
    **changes: object,
) -> Recipe:
    """Reads a recipe and fills in what depends on the number of images.

    Args:
        name: One of `recipe_names`, or a YAML file that names every setting or has `base: NAME` and
            the differences.
        method: "dino" or "dinov2" instead of the recipe's.
        images: Number of images of the corpus.
        patch_size: Of the backbone, pixels.
        **changes: Settings instead of the recipe's.

    Returns:
        The recipe, without "auto".

    Raises:
        InputError: If the recipe or a setting is unknown, missing, or of another kind.
    """
    settings = _read(name) | ({"method": method} if method else {})
    settings |= {key: value for key, value in changes.items() if value is not None} | {
        "patch_size": patch_size
    }
    fields = {field.name: field for field in dataclasses.fields(Recipe)}
    for key in settings:
        if key not in fields:
            raise unknown_name(f"setting of {name}", key, fields)
    if missing := [key for key in fields if key not in settings]:
        raise InputError(
            f"{name}: the settings {', '.join(missing)} are missing; or name a recipe to start from with base."
        )
    if settings["method"] not in METHODS:
        raise unknown_name("method", settings["method"], METHODS)
    scaled = _scaled(images)
    settings = {
        key: scaled[key] if value == "auto" and key in scaled else value
        for key, value in settings.items()
    }
    settings = {
        key: _checked(key, value, fields[key].type, name) for key, value in settings.items()
    }
    if not settings["steps"]:
        settings["steps"] = max(1, round(settings["epochs"] * images / settings["batch_size"]))
    recipe = Recipe(**settings)
    _check(recipe, name)
    return recipe


def _read(name: str | Path) -> dict[str, object]:
    path = Path(name)
    if str(name) in recipe_names():
        path = Path(str(resources.files(__package__) / "configs" / f"{name}.yaml"))
    elif not path.is_file():
        raise unknown_name("recipe", str(name), [*recipe_names(), "a YAML file"])
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: the recipe is no YAML ({str(error).splitlines()[0]})."
        ) from error
    if not isinstance(settings, dict):
        raise InputError(f"{path}: the recipe holds no settings; write one 'name: value' a line.")
    base = settings.pop("base", None)
    return (_read(base) if base else {}) | settings


def _scaled(images: int) -> dict[str, float]:
    """Output dimension as lightly-train scales it; a sharper, faster teacher and a longer warm-up for a small set."""
    output_dim = next(dim for most, dim in _SIZES if images <= most)
    share = min(
        1.0, max(0.0, (math.log10(max(images, 1)) - 4.3) / 1.4)
    )  # 0 up to 20 k images, 1 from 500 k
    return {
        "output_dim": output_dim,
        "teacher_temp": round(0.02 + 0.05 * share, 4),
        "momentum": round(0.99 + 0.006 * share, 4),
        "warmup": round(0.15 - 0.05 * share, 4),
    }


def _checked(key: str, value: object, kind: object, name: str | Path) -> object:
    text = str(kind)
    if text.startswith("tuple"):
        wanted = text.count("float")
        if (
            not isinstance(value, (list, tuple))
            or len(value) != wanted
            or not all(isinstance(x, (int, float)) for x in value)
        ):
            raise InputError(f"{name}: {key} must be a list of {wanted} numbers, not {value!r}.")
        return tuple(float(x) for x in value)
    if key == "steps" and value is None:
        return None
    kinds = {
        "<class 'str'>": str,
        "<class 'bool'>": bool,
        "<class 'int'>": int,
        "int | None": int,
        "int | str": int,
    }
    wanted = kinds.get(text, float)
    if wanted is float and isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value)  # YAML takes 1e-6 for a text
    if isinstance(value, bool) != (wanted is bool) or not isinstance(
        value, (int, float) if wanted is float else wanted
    ):
        raise InputError(f"{name}: {key} must be {wanted.__name__}, not {value!r}.")
    return wanted(value)


def _check(recipe: Recipe, name: str | Path) -> None:
    patch = recipe.patch_size
    for key in ("global_size", "local_size"):
        if (size := getattr(recipe, key)) % patch or size <= 0:
            raise InputError(f"{name}: {key} {size} is no multiple of the patch of {patch} pixels.")
    if recipe.batch_size % recipe.accumulate:
        raise InputError(
            f"{name}: batch_size {recipe.batch_size} is no multiple of accumulate {recipe.accumulate}."
        )
    for key, known in _CHOICES.items():
        if getattr(recipe, key) not in known:
            raise unknown_name(key, getattr(recipe, key), known)
