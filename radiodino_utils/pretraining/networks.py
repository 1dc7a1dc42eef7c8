"""Student and teacher of DINO and DINOv2: timm backbones with lightly's heads and losses."""

import math
import re
from dataclasses import dataclass

import pandas as pd
import timm
import torch
from timm.layers import DropPath
from torch import nn

from ..backbones.backbone import for_training
from ..core.errors import unknown_name
from ..core.extras import extra
from .config import Recipe
from .views import Views

with extra("train"):
    from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
    from lightly.loss.swav_loss import sinkhorn
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
    from lightly.utils.scheduler import (
        cosine_schedule,
        cosine_warmup_schedule,
        linear_warmup_schedule,
    )

ARCHITECTURES = {
    "t16": "vit_tiny_patch16_224",
    "s16": "vit_small_patch16_224",
    "b16": "vit_base_patch16_224",
    "s8": "vit_small_patch8_224",
}


class Network(nn.Module):
    """A backbone with the heads of the class token and, for DINOv2, of the patch tokens.

    Args:
        arch: A key of `ARCHITECTURES`.
        recipe: Sizes of the heads.
        drop_path: Probability that a block is left out.
    """

    def __init__(self, arch: str, recipe: Recipe, *, drop_path: float = 0.0) -> None:
        super().__init__()
        scale = {"init_values": recipe.layer_scale} if recipe.layer_scale else {}
        vit = timm.create_model(
            architecture(arch),
            num_classes=0,
            dynamic_img_size=True,
            drop_path_rate=drop_path,
            **scale,
        )
        if recipe.drop_path_uniform and drop_path:
            for block in vit.blocks:
                block.drop_path1, block.drop_path2 = DropPath(drop_path), DropPath(drop_path)
        if recipe.initialization == "mae":
            self.backbone = MaskedVisionTransformerTIMM(vit)
            nn.init.normal_(self.backbone.mask_token, std=0.02)
        else:  # timm's own initialization is DINOv2's
            self.backbone = MaskedVisionTransformerTIMM(
                vit, weight_initialization="skip", pos_embed_initialization="skip"
            )
            if recipe.initialization == "dino":
                nn.init.trunc_normal_(vit.cls_token, std=0.02)
        vit.pos_embed.requires_grad_(True)
        sizes = (vit.embed_dim, recipe.hidden_dim, recipe.bottleneck_dim, recipe.output_dim)
        self.head = DINOProjectionHead(*sizes, norm_last_layer=recipe.norm_last_layer)
        has_own = recipe.masks_patches and recipe.patch_head == "separate"
        self.patch_head = (
            DINOProjectionHead(*sizes, norm_last_layer=recipe.norm_last_layer) if has_own else None
        )
        self.backbone.mask_token.requires_grad_(
            recipe.masks_patches
        )  # DDP bears no parameter without a gradient

    def forward(
        self,
        views: torch.Tensor,
        masks: torch.Tensor | None = None,
        chosen: torch.Tensor | None = None,
    ) -> tuple:
        """Class tokens and logits of some views of one size.

        Args:
            views: float32, [n, 3, size, size].
            masks: bool, [n, grid, grid]: patches to hide.
            chosen: bool, [n, grid, grid]: patches whose logits are wanted besides.

        Returns:
            Class tokens [n, width], their logits [n, output_dim] and the logits of the chosen
            patches [m, output_dim].
        """
        prefix = self.backbone.vit.num_prefix_tokens
        hidden = None if masks is None else nn.functional.pad(masks.flatten(1), (prefix, 0))
        tokens = self.backbone.encode(views, mask=hidden)
        patches = None
        if chosen is not None:
            patches = (self.patch_head or self.head)(tokens[:, prefix:][chosen.flatten(1)]).float()
        return tokens[:, 0].float(), self.head(tokens[:, 0]).float(), patches

    @property
    def vit(self) -> nn.Module:
        """The timm vision transformer."""
        return self.backbone.vit

    @property
    def heads(self) -> list[DINOProjectionHead]:
        """The head of the class token and, where it is a separate one, that of the patches."""
        return [head for head in (self.head, self.patch_head) if head is not None]


def architecture(arch: str) -> str:
    """The name by which timm knows an architecture.

    Raises:
        InputError: If it is unknown.
    """
    if arch not in ARCHITECTURES:
        raise unknown_name("architecture", arch, ARCHITECTURES)
    return ARCHITECTURES[arch]


def make_pair(arch: str, recipe: Recipe) -> tuple[Network, Network]:
    """A student and a teacher that start equal; the teacher takes no gradient and drops no block."""
    student, teacher = Network(arch, recipe, drop_path=recipe.drop_path), Network(arch, recipe)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    for network in (student, teacher):
        for_training(network.vit)
    return student, teacher.eval()


@dataclass
class Loss:
    """The losses of a step and what the monitor wants to know of it."""

    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    class_tokens: torch.Tensor
    teacher_logits: torch.Tensor
    student_logits: torch.Tensor
    teacher_temp: float


class Criterion(nn.Module):
    """DINO's loss of class tokens and, for DINOv2, iBOT's of masked patches and KoLeo, all of them
    lightly's.

    Args:
        recipe: Temperatures, weights and the centre's momentum.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        momentum = (
            1.0 if recipe.centering == "sinkhorn" else recipe.center_momentum
        )  # 1: the centre stays at zero
        options = {"student_temp": recipe.student_temp, "center_momentum": momentum}
        self.dino = DINOLoss(recipe.output_dim, warmup_teacher_temp_epochs=1, **options)
        self.ibot = IBOTPatchLoss(recipe.output_dim, **options) if recipe.masks_patches else None
        self.koleo = KoLeoLoss() if recipe.method == "dinov2" and recipe.koleo_weight else None

    def forward(
        self, student: nn.Module, teacher: nn.Module, views: Views, teacher_temp: float
    ) -> Loss:
        """Passes the views through both networks.

        Args:
            student: A `Network`, perhaps wrapped.
            teacher: A `Network`.
            views: Of a batch.
            teacher_temp: Temperature of the teacher at this step.

        Returns:
            The losses; `total` carries the gradient.
        """
        masks = views.masks if self.ibot else None
        with torch.no_grad():
            teacher_tokens, teacher_logits, teacher_patches = teacher(
                views.global_views, None, masks
            )
            if self.recipe.centering == "sinkhorn":
                teacher_logits = _balanced(teacher_logits, teacher_temp)
                teacher_patches = (
                    None if teacher_patches is None else _balanced(teacher_patches, teacher_temp)
                )
        tokens, logits, patches = student(views.global_views, masks, masks)
        outputs = list(logits.chunk(2))
        if len(views.local_views):
            outputs += student(views.local_views)[1].chunk(self.recipe.local_count)
        with torch.autocast(
            logits.device.type, enabled=False
        ):  # lightly's products would round probabilities to bf16
            parts = {
                "dino": self.dino(list(teacher_logits.chunk(2)), outputs, teacher_temp=teacher_temp)
            }
            total = parts["dino"]
            if self.ibot:
                parts["ibot"] = self.ibot(
                    teacher_patches, patches, masks, teacher_temp=teacher_temp
                )
                total = total + self.recipe.ibot_weight * parts["ibot"]
            if self.koleo:
                parts["koleo"] = sum(self.koleo(one) for one in tokens.chunk(2)) / (
                    2 if self.recipe.koleo_views == "mean" else 1
                )
                total = total + self.recipe.koleo_weight * parts["koleo"]
        return Loss(total, parts, teacher_tokens, teacher_logits, logits.detach(), teacher_temp)


def _balanced(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits whose softmax at the temperature is Sinkhorn-Knopp's assignment, as DINOv2 centres:
    every prototype equally often.

    Source: Caron et al., SwaV (2020); Oquab et al., DINOv2 (2024); lightly's `sinkhorn`.
    """
    return (
        temperature
        * sinkhorn(logits, epsilon=temperature, gather_distributed=True).clamp_min(1e-30).log()
    )


def parameter_groups(student: Network, recipe: Recipe) -> list[dict]:
    """Assign every learnt parameter to a group of the optimizer.

    Args:
        student: Before it is wrapped.
        recipe: Decays and factors.

    Returns:
        Groups with `lr_scale` (factor of the learning rate), `decays` (whether the weight decay
        applies) and `is_last` (whether it holds the prototypes).

    Source: `get_params_groups_with_decay` of DINOv2, which with no layer decay is
        `get_params_groups` of DINO.
    """
    depth, groups = len(student.vit.blocks), {}
    for name, one in student.named_parameters():
        is_token = name.endswith(_TOKENS)
        decays = (
            one.ndim > 1
            and not name.endswith(".bias")
            and (recipe.token_weight_decay or not is_token)
        )
        if one.requires_grad:
            groups.setdefault(
                (_lr_scale(name, depth, recipe), decays, "last_layer" in name), []
            ).append(one)
    return [
        {"params": found, "lr_scale": scale, "decays": decays, "is_last": last}
        for (scale, decays, last), found in groups.items()
    ]


_TOKENS = ("pos_embed", "cls_token", "mask_token")


def _lr_scale(name: str, depth: int, recipe: Recipe) -> float:
    layer = depth + 1  # of the heads and the last norm
    if block := re.match(r"backbone\.vit\.blocks\.(\d+)\.", name):
        layer = int(block[1]) + 1
    elif name.endswith(_TOKENS) or "patch_embed" in name:
        layer = 0
    return recipe.layer_decay ** (depth + 1 - layer) * (
        recipe.patch_embed_lr if "patch_embed" in name else 1.0
    )


def schedule(recipe: Recipe, step: int) -> dict[str, float]:
    """Learning rate, weight decay, teacher momentum and teacher temperature of a step.

    Source: `CosineScheduler` of DINOv2, which is `cosine_scheduler` of DINO; lightly's schedules.
    """
    steps, coldest = recipe.steps, min(recipe.teacher_temp_start, recipe.teacher_temp)
    warmup, temp_warmup = round(recipe.warmup * steps), round(recipe.teacher_temp_warmup * steps)
    if recipe.schedules == "published":
        return {
            "lr": _cosine(step, steps, recipe.peak_lr, recipe.lr_end, warmup, 0.0),
            "weight_decay": _cosine(step, steps, recipe.weight_decay, recipe.weight_decay_end),
            "momentum": _cosine(step, steps, recipe.momentum, recipe.momentum_end),
            "teacher_temp": _cosine(
                step, steps, recipe.teacher_temp, recipe.teacher_temp, temp_warmup, coldest
            ),
        }
    return {
        "lr": cosine_warmup_schedule(step, steps, recipe.peak_lr, recipe.lr_end, warmup, 0.0),
        "weight_decay": cosine_schedule(step, steps, recipe.weight_decay, recipe.weight_decay_end),
        "momentum": cosine_schedule(step, steps, recipe.momentum, recipe.momentum_end),
        "teacher_temp": linear_warmup_schedule(step, temp_warmup, coldest, recipe.teacher_temp),
    }


def _cosine(
    step: int, steps: int, start: float, end: float, warmup: int = 0, warmup_start: float = 0.0
) -> float:
    if step < warmup:
        return warmup_start + (start - warmup_start) * step / max(1, warmup - 1)
    return end + (start - end) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2


def schedule_table(recipe: Recipe) -> pd.DataFrame:
    """The schedule of every step: columns step, lr, weight_decay, momentum, teacher_temp."""
    return pd.DataFrame([{"step": step} | schedule(recipe, step) for step in range(recipe.steps)])


def schedule_note(table: pd.DataFrame) -> str:
    """Return a line per schedule: where it starts, its extreme, where it ends, or that it is
    constant.

    Args:
        table: Returned by `schedule_table`.
    """
    notes = []
    for name in ("lr", "weight_decay", "momentum", "teacher_temp"):
        values = table[name]
        start, end, top, bottom = values.iloc[0], values.iloc[-1], values.max(), values.min()
        if top - bottom <= 1e-9 * top:
            note = f"constant at {start:.4g}"
        elif top > max(start, end):
            note = f"rises from {start:.4g} to {top:.4g} at step {values.idxmax()} and falls to {end:.4g}"
        else:
            note = f"{'rises' if end > start else 'falls'} from {start:.4g} to {end:.4g}"
        notes.append(f"{name.replace('_', ' ')}: {note}")
    return "\n".join(notes)
