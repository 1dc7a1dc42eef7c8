"""Distillation of frozen teachers into a small vision transformer: start, heads, losses and the training loop."""

import json
import math
import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import cosine_similarity, interpolate, mse_loss, normalize
from tqdm.auto import tqdm

from ..backbones.backbone import for_training
from ..backbones.loading import load_backbone
from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from ..core.environment import git_revision, versions
from ..core.errors import InputError, unknown_name
from ..core.files import atomic, make_folder, require_space, write_json
from .networks import ARCHITECTURES
from .teacher_targets import SIZE, Targets, TargetStore
from .trainer import BACKBONE, RUN, STATE, Clock, Progress
from .trainer import _asked_to_stop as asked_to_stop

MONITOR = "monitor.jsonl"
LOSSES = ("class_token", "mean_patch_token", "map", "similarity")


@dataclass(frozen=True)
class DistillationConfig:
    """Settings of a distillation.

    Attributes:
        arch: A key of `distillation.ARCHITECTURES`.
        start: "timm" for timm's initialization, or the name of a larger vision transformer whose
            weights are selected.
        crops: Length of the run in crops.
        sizes: Edge of the student's crops in pixels, and the share of the run at which it ends.
        batch_size: Crops per step.
        lr: Peak learning rate.
        warmup: Share of the run in which the rate rises.
        weight_decay: Of all weights of two or more dimensions.
        clip: Greatest norm of the gradient.
        class_token: Weight of the cosine of the class token's head with the global target.
        mean_patch_token: Weight of the same of the mean patch token.
        map: Weight of the cosine of the patch tokens' head with the teacher's map.
        similarity: Weight of the squared difference of the batch's similarity matrices.
        seed: Of weights and draws.
    """

    arch: str = "t16"
    start: str = "timm"
    crops: int = 100_000
    sizes: tuple[tuple[int, float], ...] = ((112, 0.75), (160, 0.93), (224, 1.0))
    batch_size: int = 64
    lr: float = 1e-3
    warmup: float = 0.03
    weight_decay: float = 0.05
    clip: float = 3.0
    class_token: float = 1.0
    mean_patch_token: float = 1.0
    map: float = 1.0
    similarity: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.arch not in ARCHITECTURES:
            raise unknown_name("architecture", self.arch, ARCHITECTURES)
        if self.crops < self.batch_size or self.batch_size < 2:
            raise InputError(
                f"crops {self.crops}, batch_size {self.batch_size}: a batch needs two crops, and a run one batch."
            )
        ends = [end for _, end in self.sizes]
        if (
            not self.sizes
            or ends != sorted(ends)
            or ends[-1] != 1.0
            or any(size % 16 or not 0 < size <= SIZE for size, _ in self.sizes)
        ):
            raise InputError(
                f"sizes {self.sizes}: multiples of 16 up to {SIZE}, each with the share of the run at which it ends."
            )

    def size_at(self, progress: float) -> int:
        """Return the edge of the crops at a share of the run."""
        return next((size for size, end in self.sizes if progress < end), self.sizes[-1][0])

    def lr_at(self, progress: float) -> float:
        """Return the learning rate at a share of the run: a linear rise, then a cosine to zero."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        return (
            self.lr
            * (1 + math.cos(math.pi * min(1.0, (progress - self.warmup) / (1 - self.warmup))))
            / 2
        )


def selected_weights(large: nn.Module, small: nn.Module) -> dict[str, torch.Tensor]:
    """Return the weights of a narrower vision transformer, taken from evenly spaced channels and
    heads of a wider one.

    The patch embedding and the positions are resampled; layer scale is folded into the projections
    before it.

    Args:
        large: timm's vision transformer, of at least the depth and the width.
        small: timm's vision transformer with the same width per head.

    Returns:
        A state dict for `small`.

    Raises:
        InputError: If the two do not fit.

    Source:
        Xu et al., "Initializing Models with Larger Ones", ICLR 2024.
    """
    if not hasattr(large, "patch_embed") or not hasattr(small, "patch_embed"):
        raise InputError(
            "start: weights are selected from a vision transformer; name one, or timm."
        )
    theirs, ours = large.blocks[0].attn, small.blocks[0].attn
    head = small.embed_dim // ours.num_heads
    if (
        large.embed_dim // theirs.num_heads != head
        or large.embed_dim < small.embed_dim
        or len(large.blocks) < len(small.blocks)
        or large.blocks[0].mlp.fc1.out_features < small.blocks[0].mlp.fc1.out_features
    ):
        raise InputError(
            f"start: a width of {large.embed_dim} in {theirs.num_heads} heads and {len(large.blocks)} blocks does not hold one "
            f"of {small.embed_dim} in {ours.num_heads} heads and {len(small.blocks)} blocks; name a larger one of the family."
        )
    state = {name: one.detach().float().clone() for name, one in large.state_dict().items()}
    for number, block in enumerate(large.blocks):
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            if isinstance(getattr(block, scale), nn.Identity):
                continue
            gamma = state.pop(f"blocks.{number}.{scale}.gamma")
            state[f"blocks.{number}.{layer}.weight"] *= gamma[:, None]
            state[f"blocks.{number}.{layer}.bias"] *= gamma
    heads = _evenly(theirs.num_heads, ours.num_heads)
    channels = _evenly(large.embed_dim, small.embed_dim)
    in_heads = torch.cat([torch.arange(head) + head * int(one) for one in heads])
    qkv = torch.cat([in_heads + part * large.embed_dim for part in range(3)])
    hidden = _evenly(large.blocks[0].mlp.fc1.out_features, small.blocks[0].mlp.fc1.out_features)
    depths = _evenly(len(large.blocks), len(small.blocks)).tolist()
    chosen = {
        "cls_token": state["cls_token"][..., channels],
        "pos_embed": _resampled_positions(large, small, state)[..., channels],
        "patch_embed.proj.weight": _resampled_patches(
            state["patch_embed.proj.weight"][channels], small.patch_embed.patch_size
        ),
        "patch_embed.proj.bias": state["patch_embed.proj.bias"][channels],
        "norm.weight": state["norm.weight"][channels],
        "norm.bias": state["norm.bias"][channels],
    }
    rows_and_columns = {
        "attn.qkv": (qkv, channels),
        "attn.proj": (channels, in_heads),
        "mlp.fc1": (hidden, channels),
        "mlp.fc2": (channels, hidden),
    }
    for ours_at, theirs_at in enumerate(depths):
        for layer, (rows, columns) in rows_and_columns.items():
            chosen[f"blocks.{ours_at}.{layer}.weight"] = state[
                f"blocks.{theirs_at}.{layer}.weight"
            ][rows][:, columns]
            chosen[f"blocks.{ours_at}.{layer}.bias"] = state[f"blocks.{theirs_at}.{layer}.bias"][
                rows
            ]
        for norm in ("norm1.weight", "norm1.bias", "norm2.weight", "norm2.bias"):
            chosen[f"blocks.{ours_at}.{norm}"] = state[f"blocks.{theirs_at}.{norm}"][channels]
    return chosen


def _evenly(large: int, small: int) -> torch.Tensor:
    return torch.arange(small) * large // small


def _resampled_positions(
    large: nn.Module, small: nn.Module, state: dict[str, torch.Tensor]
) -> torch.Tensor:
    from timm.layers import resample_abs_pos_embed

    return resample_abs_pos_embed(
        state["pos_embed"],
        list(small.patch_embed.grid_size),
        old_size=list(large.patch_embed.grid_size),
        num_prefix_tokens=1,
    )


def _resampled_patches(weight: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    from timm.layers import resample_patch_embed

    return (
        weight
        if tuple(weight.shape[-2:]) == tuple(size)
        else resample_patch_embed(weight, list(size))
    )


class Student(nn.Module):
    """A vision transformer with linear heads for each teacher.

    Args:
        config: Architecture, start and seed.
        widths: Of the global target and of the map, by teacher.
    """

    def __init__(self, config: DistillationConfig, widths: dict[str, tuple[int, int]]) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.vit = for_training(
                timm.create_model(ARCHITECTURES[config.arch], num_classes=0, dynamic_img_size=True)
            )
            width = self.vit.embed_dim
            self.heads = nn.ModuleList(
                nn.ModuleDict(
                    {
                        "class_token": nn.Linear(width, whole),
                        "mean_patch_token": nn.Linear(width, whole),
                        "map": nn.Linear(width, channels),
                    }
                )
                for whole, channels in widths.values()
            )
        if config.start != "timm":
            self.vit.load_state_dict(selected_weights(load_backbone(config.start).model, self.vit))

    def losses(self, crops: torch.Tensor, targets: Sequence[Targets]) -> dict[str, torch.Tensor]:
        """Compute the parts of the loss, each a mean over the teachers.

        Args:
            crops: float32, standardised, [n, 3, size, size].
            targets: Of each teacher, in the order of the heads.

        Returns:
            A value for each of `LOSSES`.
        """
        tokens = self.vit.forward_features(crops)
        prefix = self.vit.num_prefix_tokens
        class_token, patches = tokens[:, 0], tokens[:, prefix:]
        grid = math.isqrt(patches.shape[1])
        own = _similarities(class_token.float())
        found = {name: [] for name in LOSSES}
        for heads, target in zip(self.heads, targets, strict=True):
            maps = interpolate(
                target.maps,
                size=(grid, grid),
                mode="area" if grid <= target.maps.shape[-1] else "bilinear",
            )
            maps = maps.flatten(2).transpose(1, 2)
            found["class_token"].append(_distance(heads["class_token"](class_token), target.whole))
            found["mean_patch_token"].append(
                _distance(heads["mean_patch_token"](patches.mean(1)), target.whole)
            )
            found["map"].append(_distance(heads["map"](patches), maps))
            found["similarity"].append(mse_loss(own, _similarities(target.whole)))
        return {name: torch.stack(parts).mean() for name, parts in found.items()}


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    return 1 - cosine_similarity(found.float(), wanted, dim=-1).mean()


def _similarities(features: torch.Tensor) -> torch.Tensor:
    unit = normalize(features, dim=-1)
    return unit @ unit.T


def distill(
    config: DistillationConfig,
    store: TargetStore,
    folder: Path,
    *,
    resume: bool = False,
    precision: str = "fp32",
    stop_after: float | None = None,
    save_minutes: float = 5.0,
    probe_minutes: float = 15.0,
    monitor_every: int = 20,
    probe: Callable[[nn.Module], dict[str, float]] | None = None,
) -> Progress:
    """Distil teachers into a student.

    Writes into the folder: `run.json`, `monitor.jsonl`, `last.ckpt` (everything for resuming) and
        `backbone.safetensors`, each
    whole. SIGTERM and Ctrl-C end the run after the step under way, with a checkpoint. A run may be
    resumed with another
    length: its schedule goes on from the share of the run that is done, and `run.json` lists the
        lengths.

    Args:
        config: Settings.
        store: Crops and targets.
        folder: Where to.
        resume: Continue the run that the folder holds.
        precision: "bf16" (autocast) or "fp32".
        stop_after: Save and stop after so many minutes.
        save_minutes: Between two checkpoints.
        probe_minutes: Between two probes.
        monitor_every: Steps between two rows of the monitor.
        probe: Given the student's vision transformer, returns named values for the monitor.

    Returns:
        Where the run stands at the end.

    Raises:
        InputError: If the folder holds another run, the disk is full, or the loss is not finite.
    """
    make_folder(folder)
    facts = _facts(config, store, folder, resume)
    student = Student(config, store.widths())
    require_space(folder, 20 * sum(one.numel() for one in student.parameters()))
    decays = [one for one in student.parameters() if one.ndim > 1]
    plain = [one for one in student.parameters() if one.ndim <= 1]
    groups = [
        {"params": decays, "weight_decay": config.weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)
    state = {"step": 0, "crops": 0, "progress": 0.0}
    if resume:
        state = _restore(folder / STATE, student, optimizer)
    write_json(
        folder / RUN,
        facts
        | {"lengths": [*facts["lengths"], {"from_crops": state["crops"], "crops": config.crops}]},
    )
    _cut_monitor(folder / MONITOR, state["step"])
    clock = Clock()
    began = saved = probed = time.monotonic()
    steps = state["step"] + math.ceil((1 - state["progress"]) * config.crops / config.batch_size)
    report = Progress(folder, state["step"], steps)
    with (
        asked_to_stop() as signals,
        tqdm(total=steps, initial=state["step"], desc="distilling", unit="step") as bar,
    ):
        while state["progress"] < 1 - 1e-9:
            size, lr = config.size_at(state["progress"]), config.lr_at(state["progress"])
            losses, norm = _one_step(
                config, store, student, optimizer, state["crops"], size, lr, precision
            )
            state["step"] += 1
            state["crops"] += config.batch_size
            state["progress"] = min(1.0, state["progress"] + config.batch_size / config.crops)
            report.step, clock.images = state["step"], clock.images + config.batch_size
            is_last = state["progress"] >= 1 - 1e-9
            bar.update()
            if state["step"] % monitor_every == 0 or is_last:
                values = {name: one.item() for name, one in losses.items()}
                total = sum(getattr(config, name) * value for name, value in values.items())
                row = {
                    **state,
                    "size": size,
                    "loss": total,
                    "lr": lr,
                    "gradient_norm": norm,
                    "crops_per_second": clock.read()[0],
                }
                row |= values
                if probe and (is_last or time.monotonic() - probed > 60 * probe_minutes):
                    row |= probe(student.vit)
                    probed = time.monotonic()
                    clock.restart()
                report.rows.append(row)
                _append(folder / MONITOR, row)
                bar.set_postfix(loss=f"{total:.3f}", size=size)
            stops = bool(signals) or (
                stop_after is not None and time.monotonic() - began > 60 * stop_after
            )
            if is_last or stops or time.monotonic() - saved > 60 * save_minutes:
                _save(folder, student, optimizer, state)
                saved = time.monotonic()
            if stops:
                break
    if signals:
        raise SystemExit(128 + signals[0])
    return report


def _one_step(
    config: DistillationConfig,
    store: TargetStore,
    student: Student,
    optimizer: torch.optim.Optimizer,
    start: int,
    size: int,
    lr: float,
    precision: str,
) -> tuple[dict[str, torch.Tensor], float]:
    crops, targets = store.read(start, config.batch_size)
    for group in optimizer.param_groups:
        group["lr"] = lr
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        losses = student.losses(standardised(crops, size), [targets[name] for name in store.names])
    total = sum(getattr(config, name) * one for name, one in losses.items())
    if not torch.isfinite(total):
        raise InputError(
            f"crop {start}: the loss is {total.item()}: the run diverges; lower lr. The last checkpoint is intact."
        )
    optimizer.zero_grad()
    total.backward()
    norm = nn.utils.clip_grad_norm_(student.parameters(), config.clip).item()
    optimizer.step()
    return losses, norm


def standardised(crops: "np.ndarray", size: int) -> torch.Tensor:  # noqa: F821
    """Return grey crops as the student sees them.

    Args:
        crops: uint8, [n, 224, 224].
        size: Edge in pixels, at most 224.

    Returns:
        float32, [n, 3, size, size].
    """
    values = torch.from_numpy(crops)[:, None].float().div_(255)
    if size != values.shape[-1]:
        values = interpolate(values, size=(size, size), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    return (values - mean) / std


def _facts(config: DistillationConfig, store: TargetStore, folder: Path, resume: bool) -> dict:
    there = (folder / RUN).is_file() and (folder / STATE).is_file()
    if resume and not there:
        raise InputError(f"{folder}: holds no run to resume; leave out resume to start one.")
    if there and not resume:
        raise InputError(f"{folder}: holds a run already; resume it, or choose another folder.")
    plan = {name: value for name, value in asdict(config).items() if name != "crops"}
    wanted = json.loads(json.dumps({"config": plan, "targets": store.identity}))
    lengths = []
    if there:
        kept = json.loads((folder / RUN).read_text(encoding="utf-8"))
        differing = [
            name
            for name, value in wanted["config"].items()
            if kept.get("config", {}).get(name) != value
        ]
        differing += ["targets"] if kept.get("targets") != wanted["targets"] else []
        if differing:
            raise InputError(
                f"{folder}: holds another run ({', '.join(differing)} differ); use its settings or another folder."
            )
        lengths = kept["lengths"]
    corpus = store.corpus
    return wanted | {
        "lengths": lengths,
        "sources": corpus.table().to_dict("records"),
        "unreadable": corpus.unreadable,
        "versions": versions(("torch", "timm", "openvino", "numpy", "pillow")),
        "git": git_revision(),
    }


def _restore(path: Path, student: Student, optimizer: torch.optim.Optimizer) -> dict:
    try:
        kept = torch.load(path, map_location="cpu", weights_only=True)
        student.load_state_dict(kept["student"])
        optimizer.load_state_dict(kept["optimizer"])
        return {name: kept[name] for name in ("step", "crops", "progress")}
    except (
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
        RuntimeError,
        EOFError,
    ) as error:
        raise InputError(
            f"{path}: not the state of such a run ({str(error).splitlines()[0]}); start anew elsewhere."
        ) from error


def _save(folder: Path, student: Student, optimizer: torch.optim.Optimizer, state: dict) -> None:
    with atomic(folder / STATE) as temporary:
        torch.save(
            {"student": student.state_dict(), "optimizer": optimizer.state_dict()} | state,
            temporary,
        )
    weights = {name: one.float().contiguous() for name, one in student.vit.state_dict().items()}
    with atomic(folder / BACKBONE) as temporary:
        save_file(weights, temporary, {"num_heads": str(student.vit.blocks[0].attn.num_heads)})


def _cut_monitor(path: Path, step: int) -> None:
    """Drop the rows after a step, of a run that was interrupted between two checkpoints."""
    if not path.is_file():
        return
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
    with atomic(path) as temporary:
        temporary.write_text(kept, encoding="utf-8")


def _append(path: Path, row: dict) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write(
            json.dumps(
                {
                    name: round(one, 6) if isinstance(one, float) else one
                    for name, one in row.items()
                }
            )
            + "\n"
        )
