"""Losses of DINO and DINOv2, made of lightly's."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import cosine_similarity

from ..core.extras import extra
from .config import PretrainConfig
from .views import Views

with extra("train"):
    from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss
    from lightly.loss.swav_loss import sinkhorn


@dataclass
class Loss:
    """Losses of a step, and the outputs that the monitor measures.

    Attributes:
        total: Weighted sum, which carries the gradient.
        parts: Loss of class tokens ("dino") and, for DINOv2, of masked patches ("ibot") and of the
            distances of class tokens ("koleo"); with a start also "anchor".
        class_tokens: Class tokens of the teacher, [2 n, width].
        teacher_logits: Logits of the teacher's class tokens, [2 n, output_dim].
        student_logits: The same of the student, without gradient.
        teacher_temp: Temperature of the teacher.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]
    class_tokens: torch.Tensor
    teacher_logits: torch.Tensor
    student_logits: torch.Tensor
    teacher_temp: float


class Criterion(nn.Module):
    """DINO's loss of class tokens and, for DINOv2, iBOT's of masked patches and KoLeo's.

    Args:
        config: Temperatures, weights, and the momentum of the center.
    """

    def __init__(self, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        # with a momentum of 1 the center stays at zero
        momentum = 1.0 if config.centering == "sinkhorn" else config.center_momentum
        options = {"student_temp": config.student_temp, "center_momentum": momentum}
        self.dino = DINOLoss(config.output_dim, warmup_teacher_temp_epochs=1, **options)
        self.ibot = IBOTPatchLoss(config.output_dim, **options) if config.masks_patches else None
        self.koleo = KoLeoLoss() if config.method == "dinov2" and config.koleo_weight else None

    def forward(
        self,
        student: nn.Module,
        teacher: nn.Module,
        views: Views,
        teacher_temp: float,
        start: nn.Module | None = None,
    ) -> Loss:
        """Pass the views through both networks and compare their outputs.

        Args:
            student: A `Network`, perhaps wrapped for several processes.
            teacher: A `Network`.
            views: Views of a batch.
            teacher_temp: Temperature of the teacher at this step.
            start: Frozen vision transformer whose tokens the student keeps close to.
        """
        masks = views.masks if self.ibot else None
        with torch.no_grad():
            teacher_tokens, teacher_logits, teacher_patches, _ = teacher(
                views.global_views, None, masks
            )
            anchors = None if start is None else start.forward_features(views.global_views)
            if self.config.centering == "sinkhorn":
                teacher_logits = _balanced(teacher_logits, teacher_temp)
                if teacher_patches is not None:
                    teacher_patches = _balanced(teacher_patches, teacher_temp)
        tokens, logits, patches, patch_tokens = student(views.global_views, masks, masks)
        outputs = list(logits.chunk(2))
        if len(views.local_views):
            outputs += student(views.local_views).logits.chunk(self.config.local_count)
        # under autocast lightly's products would round probabilities to bf16
        with torch.autocast(logits.device.type, enabled=False):
            targets = list(teacher_logits.chunk(2))
            parts = {"dino": self.dino(targets, outputs, teacher_temp=teacher_temp)}
            if self.ibot:
                parts["ibot"] = self.ibot(
                    teacher_patches, patches, masks, teacher_temp=teacher_temp
                )
            if self.koleo:
                koleo = sum(self.koleo(view) for view in tokens.chunk(2))
                parts["koleo"] = koleo / (2 if self.config.koleo_views == "mean" else 1)
            if anchors is not None:
                parts["anchor"] = _distance(tokens, patch_tokens, anchors, masks)
            total = self._total(parts)
        return Loss(total, parts, teacher_tokens, teacher_logits, logits.detach(), teacher_temp)

    def _total(self, parts: dict[str, torch.Tensor]) -> torch.Tensor:
        total = parts["dino"]
        if "ibot" in parts:
            total = total + self.config.ibot_weight * parts["ibot"]
        if "koleo" in parts:
            total = total + self.config.koleo_weight * parts["koleo"]
        if "anchor" in parts:
            total = total + self.config.anchor * parts["anchor"]
        return total


def _distance(
    class_tokens: torch.Tensor,
    patch_tokens: torch.Tensor,
    anchors: torch.Tensor,
    masks: torch.Tensor | None,
) -> torch.Tensor:
    """Return the cosine distances of class tokens and of visible patch tokens, added up.

    Args:
        class_tokens: Of the student, [n, width].
        patch_tokens: Of the student, [n, patches, width].
        anchors: All tokens of the start, [n, prefix + patches, width].
        masks: bool, [n, grid, grid]: patches hidden from the student, or None.
    """
    of_class = 1 - cosine_similarity(class_tokens, anchors[:, 0].float(), dim=-1)
    targets = anchors[:, -patch_tokens.shape[1] :]
    of_patches = 1 - cosine_similarity(patch_tokens.float(), targets.float(), dim=-1)
    if masks is not None:
        of_patches = of_patches[~masks.flatten(1)]
    return of_class.mean() + of_patches.mean()


def _balanced(logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return logits whose softmax at the temperature is the assignment of Sinkhorn-Knopp.

    Every prototype is then taken equally often, as in the centering of DINOv2.

    Source:
        Caron et al., SwAV (2020); Oquab et al., DINOv2 (2024); `sinkhorn` of lightly.
    """
    assignment = sinkhorn(logits, epsilon=temperature, gather_distributed=True)
    return temperature * assignment.clamp_min(1e-30).log()
