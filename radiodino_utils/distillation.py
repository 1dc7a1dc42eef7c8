"""Student and teacher of DINO and DINOv2: timm backbones with lightly's heads and losses."""

from dataclasses import dataclass

import pandas as pd
import timm
import torch
from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
from lightly.loss.swav_loss import sinkhorn
from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM
from lightly.models.utils import get_weight_decay_parameters
from lightly.utils.scheduler import cosine_schedule, cosine_warmup_schedule, linear_warmup_schedule
from timm.optim import param_groups_layer_decay
from torch import nn

from .augment import Views
from .backbones import for_training
from .errors import unknown
from .recipes import Recipe

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
        vit = timm.create_model(architecture(arch), num_classes=0, dynamic_img_size=True, drop_path_rate=drop_path)
        self.backbone = MaskedVisionTransformerTIMM(vit)  # MAE's initialisation with sine and cosine positions
        vit.pos_embed.requires_grad_(True)
        nn.init.normal_(self.backbone.mask_token, std=0.02)
        sizes = (vit.embed_dim, recipe.hidden_dim, recipe.bottleneck_dim, recipe.output_dim)
        self.head = DINOProjectionHead(*sizes)
        self.patch_head = DINOProjectionHead(*sizes) if recipe.masks_patches else None
        self.backbone.mask_token.requires_grad_(recipe.masks_patches)  # DDP bears no parameter without a gradient

    def forward(self, views: torch.Tensor, masks: torch.Tensor | None = None, chosen: torch.Tensor | None = None) -> tuple:
        """Class tokens and logits of some views of one size.

        Args:
            views: float32, [n, 3, size, size].
            masks: bool, [n, grid, grid]: patches to hide.
            chosen: bool, [n, grid, grid]: patches whose logits are wanted besides.

        Returns:
            Class tokens [n, width], their logits [n, output_dim] and the logits of the chosen patches [m, output_dim].
        """
        prefix = self.backbone.vit.num_prefix_tokens
        hidden = None if masks is None else nn.functional.pad(masks.flatten(1), (prefix, 0))
        tokens = self.backbone.encode(views, mask=hidden)
        patches = None
        if chosen is not None and self.patch_head is not None:
            patches = self.patch_head(tokens[:, prefix:][chosen.flatten(1)]).float()
        return tokens[:, 0].float(), self.head(tokens[:, 0]).float(), patches

    @property
    def vit(self) -> nn.Module:
        """The timm vision transformer."""
        return self.backbone.vit

    @property
    def heads(self) -> list[DINOProjectionHead]:
        """The head of the class token and, where there is one, of the patches."""
        return [head for head in (self.head, self.patch_head) if head is not None]


def architecture(arch: str) -> str:
    """The name by which timm knows an architecture.

    Raises:
        InputError: If it is unknown.
    """
    if arch not in ARCHITECTURES:
        raise unknown("architecture", arch, ARCHITECTURES)
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
    """DINO's loss of class tokens and, for DINOv2, iBOT's of masked patches and KoLeo, all of them lightly's.

    Args:
        recipe: Temperatures, weights and the centre's momentum.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        momentum = 1.0 if recipe.centering == "sinkhorn" else recipe.center_momentum  # 1: the centre stays at zero
        options = {"student_temp": recipe.student_temp, "center_momentum": momentum}
        self.dino = DINOLoss(recipe.output_dim, warmup_teacher_temp_epochs=1, **options)
        self.ibot = IBOTPatchLoss(recipe.output_dim, **options) if recipe.masks_patches else None
        self.koleo = KoLeoLoss() if recipe.method == "dinov2" and recipe.koleo_weight else None

    def forward(self, student: nn.Module, teacher: nn.Module, views: Views, teacher_temp: float) -> Loss:
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
            teacher_tokens, teacher_logits, teacher_patches = teacher(views.global_views, None, masks)
            if self.recipe.centering == "sinkhorn":
                teacher_logits = _balanced(teacher_logits, teacher_temp)
                teacher_patches = None if teacher_patches is None else _balanced(teacher_patches, teacher_temp)
        tokens, logits, patches = student(views.global_views, masks, masks)
        outputs = list(logits.chunk(2))
        if len(views.local_views):
            outputs += student(views.local_views)[1].chunk(self.recipe.local_count)
        with torch.autocast(logits.device.type, enabled=False):  # lightly's products would round probabilities to bf16
            parts = {"dino": self.dino(list(teacher_logits.chunk(2)), outputs, teacher_temp=teacher_temp)}
            total = parts["dino"]
            if self.ibot:
                parts["ibot"] = self.ibot(teacher_patches, patches, masks, teacher_temp=teacher_temp)
                total = total + self.recipe.ibot_weight * parts["ibot"]
            if self.koleo:
                parts["koleo"] = sum(self.koleo(one) for one in tokens.chunk(2)) / 2
                total = total + self.recipe.koleo_weight * parts["koleo"]
        return Loss(total, parts, teacher_tokens, teacher_logits, logits.detach(), teacher_temp)


def _balanced(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Logits whose softmax at the temperature is Sinkhorn-Knopp's assignment, as DINOv2 centres: every prototype equally often.

    Source: Caron et al., SwaV (2020); Oquab et al., DINOv2 (2024); lightly's `sinkhorn`.
    """
    return temperature * sinkhorn(logits, epsilon=temperature, gather_distributed=True).clamp_min(1e-30).log()


def parameter_groups(student: Network, recipe: Recipe) -> list[dict]:
    """Groups with `lr_scale` and `decays`: norms, biases, positions and class tokens know no weight decay."""
    vit = student.vit
    groups = param_groups_layer_decay(vit, 1.0, vit.no_weight_decay(), layer_decay=recipe.layer_decay)
    groups = [{"params": one["params"], "lr_scale": one["lr_scale"], "decays": one["weight_decay"] > 0} for one in groups]
    decayed, plain = get_weight_decay_parameters(student.heads)
    plain = [*plain, student.backbone.mask_token]
    for parameters, decays in ((decayed, True), (plain, False)):
        groups.append({"params": [one for one in parameters if one.requires_grad], "lr_scale": 1.0, "decays": decays})
    return groups


def schedule(recipe: Recipe, step: int) -> dict[str, float]:
    """Learning rate, weight decay, teacher momentum and teacher temperature of a step."""
    steps, coldest = recipe.steps, min(recipe.teacher_temp_start, recipe.teacher_temp)
    return {
        "lr": cosine_warmup_schedule(step, steps, recipe.peak_lr, recipe.lr_end, round(recipe.warmup * steps), 0.0),
        "weight_decay": cosine_schedule(step, steps, recipe.weight_decay, recipe.weight_decay_end),
        "momentum": cosine_schedule(step, steps, recipe.momentum, recipe.momentum_end),
        "teacher_temp": linear_warmup_schedule(step, round(recipe.teacher_temp_warmup * steps), coldest, recipe.teacher_temp),
    }


def schedule_table(recipe: Recipe) -> pd.DataFrame:
    """The schedule of every step: columns step, lr, weight_decay, momentum, teacher_temp."""
    return pd.DataFrame([{"step": step} | schedule(recipe, step) for step in range(recipe.steps)])
