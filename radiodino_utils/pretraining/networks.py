"""Student and teacher of DINO and DINOv2: timm's vision transformers with lightly's heads."""

from copy import deepcopy
from typing import NamedTuple

import timm
import torch
from timm.layers import DropPath
from torch import nn

from ..backbones.backbone import for_training
from ..core.extras import extra
from .config import PretrainConfig, architecture

with extra("train"):
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM


class Outputs(NamedTuple):
    """Outputs of a network for n views.

    Attributes:
        class_tokens: float32, [n, width].
        logits: Of the class tokens, float32, [n, output_dim].
        patch_logits: Of the m predicted patches, float32, [m, output_dim], or None.
        patch_tokens: [n, patches, width].
    """

    class_tokens: torch.Tensor
    logits: torch.Tensor
    patch_logits: torch.Tensor | None
    patch_tokens: torch.Tensor


class Network(nn.Module):
    """A backbone with the heads of the class token and, for DINOv2, of the patch tokens.

    Args:
        arch: A key of `config.ARCHITECTURES`; None with a start.
        config: Initialization, and sizes of the heads.
        drop_path: Drop path rate.
        start: Vision transformer to continue from; a copy is taken.
    """

    def __init__(
        self,
        arch: str | None,
        config: PretrainConfig,
        *,
        drop_path: float = 0.0,
        start: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if start is not None:
            self.backbone = _continued(start, config, drop_path)
        else:
            self.backbone = _backbone(arch or "", config, drop_path)
        self.head = _head(self.vit.embed_dim, config)
        is_separate = config.masks_patches and config.patch_head == "separate"
        self.patch_head = _head(self.vit.embed_dim, config) if is_separate else None
        # DDP does not accept trainable parameters without a gradient
        self.backbone.mask_token.requires_grad_(config.masks_patches)

    def forward(
        self,
        views: torch.Tensor,
        masks: torch.Tensor | None = None,
        predicted: torch.Tensor | None = None,
    ) -> Outputs:
        """Compute tokens and logits of views of one size.

        Args:
            views: float32, [n, 3, size, size].
            masks: bool, [n, grid, grid]: patches to hide.
            predicted: bool, [n, grid, grid]: patches whose logits are computed as well.
        """
        prefix = self.vit.num_prefix_tokens
        hidden = None if masks is None else nn.functional.pad(masks.flatten(1), (prefix, 0))
        tokens = self.backbone.encode(views, mask=hidden)
        class_tokens, patch_tokens = tokens[:, 0], tokens[:, prefix:]
        patch_logits = None
        if predicted is not None:
            patches = patch_tokens[predicted.flatten(1)]
            patch_logits = (self.patch_head or self.head)(patches).float()
        logits = self.head(class_tokens).float()
        return Outputs(class_tokens.float(), logits, patch_logits, patch_tokens)

    @property
    def vit(self) -> nn.Module:
        """Vision transformer of timm."""
        return self.backbone.vit

    @property
    def heads(self) -> list[DINOProjectionHead]:
        """Head of the class token and, where there is one, the separate head of the patches."""
        return [head for head in (self.head, self.patch_head) if head is not None]


def make_pair(
    arch: str | None, config: PretrainConfig, start: nn.Module | None = None
) -> tuple[Network, Network]:
    """Return a student and a teacher with equal weights.

    The teacher takes no gradient and has no drop path.

    Args:
        arch: A key of `config.ARCHITECTURES`; None with a start.
        config: Settings of the run.
        start: Vision transformer to continue from.
    """
    student = Network(arch, config, drop_path=config.drop_path, start=start)
    teacher = Network(arch, config, start=start)
    teacher.load_state_dict(student.state_dict())
    teacher.requires_grad_(False)
    for network in (student, teacher):
        for_training(network.vit)
    return student, teacher.eval()


def _backbone(arch: str, config: PretrainConfig, drop_path: float) -> MaskedVisionTransformerTIMM:
    layer_scale = {"init_values": config.layer_scale} if config.layer_scale else {}
    vit = timm.create_model(
        architecture(arch),
        num_classes=0,
        dynamic_img_size=True,
        drop_path_rate=drop_path,
        **layer_scale,
    )
    if config.drop_path_uniform and drop_path:
        for block in vit.blocks:
            block.drop_path1, block.drop_path2 = DropPath(drop_path), DropPath(drop_path)
    if config.initialization == "mae":
        backbone = MaskedVisionTransformerTIMM(vit)
        nn.init.normal_(backbone.mask_token, std=0.02)
    else:  # timm's own initialization is that of DINOv2
        backbone = MaskedVisionTransformerTIMM(
            vit, weight_initialization="skip", pos_embed_initialization="skip"
        )
        if config.initialization == "dino":
            nn.init.trunc_normal_(vit.cls_token, std=0.02)
    vit.pos_embed.requires_grad_(True)
    return backbone


def _continued(
    start: nn.Module, config: PretrainConfig, drop_path: float
) -> MaskedVisionTransformerTIMM:
    """Return a copy of a trained vision transformer, with a mask token drawn at random."""
    vit = deepcopy(start)
    depth = len(vit.blocks)
    for number, block in enumerate(vit.blocks):
        share = 1.0 if config.drop_path_uniform else number / max(1, depth - 1)
        block.drop_path1, block.drop_path2 = (DropPath(share * drop_path) for _ in range(2))
    backbone = MaskedVisionTransformerTIMM(
        vit, weight_initialization="skip", pos_embed_initialization="skip"
    )
    nn.init.normal_(backbone.mask_token, std=0.02)
    vit.requires_grad_(True)
    return backbone


def _head(width: int, config: PretrainConfig) -> DINOProjectionHead:
    return DINOProjectionHead(
        width,
        config.hidden_dim,
        config.bottleneck_dim,
        config.output_dim,
        norm_last_layer=config.norm_last_layer,
    )
