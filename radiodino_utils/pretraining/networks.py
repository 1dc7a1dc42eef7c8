"""Student and teacher of DINO and DINOv2: timm's vision transformers with lightly's heads."""

import timm
import torch
from timm.layers import DropPath
from torch import nn

from ..backbones.backbone import for_training
from ..core.extras import extra
from .config import PretrainConfig, architecture

with extra("train"):
    from lightly.models.modules import DINOProjectionHead, MaskedVisionTransformerTIMM


class Network(nn.Module):
    """A backbone with the heads of the class token and, for DINOv2, of the patch tokens.

    Args:
        arch: A key of `config.ARCHITECTURES`.
        config: Initialization, and sizes of the heads.
        drop_path: Drop path rate.
    """

    def __init__(self, arch: str, config: PretrainConfig, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.backbone = _backbone(arch, config, drop_path)
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
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Compute class tokens and logits of views of one size.

        Args:
            views: float32, [n, 3, size, size].
            masks: bool, [n, grid, grid]: patches to hide.
            predicted: bool, [n, grid, grid]: patches whose logits are computed as well.

        Returns:
            Class tokens [n, width], their logits [n, output_dim], and the logits of the m predicted
            patches [m, output_dim] or None.
        """
        prefix = self.vit.num_prefix_tokens
        hidden = None if masks is None else nn.functional.pad(masks.flatten(1), (prefix, 0))
        tokens = self.backbone.encode(views, mask=hidden)
        patch_logits = None
        if predicted is not None:
            patches = tokens[:, prefix:][predicted.flatten(1)]
            patch_logits = (self.patch_head or self.head)(patches).float()
        return tokens[:, 0].float(), self.head(tokens[:, 0]).float(), patch_logits

    @property
    def vit(self) -> nn.Module:
        """Vision transformer of timm."""
        return self.backbone.vit

    @property
    def heads(self) -> list[DINOProjectionHead]:
        """Head of the class token and, where there is one, the separate head of the patches."""
        return [head for head in (self.head, self.patch_head) if head is not None]


def make_pair(arch: str, config: PretrainConfig) -> tuple[Network, Network]:
    """Return a student and a teacher with equal weights.

    The teacher takes no gradient and has no drop path.

    Args:
        arch: A key of `config.ARCHITECTURES`.
        config: Settings of the run.
    """
    student, teacher = Network(arch, config, drop_path=config.drop_path), Network(arch, config)
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


def _head(width: int, config: PretrainConfig) -> DINOProjectionHead:
    return DINOProjectionHead(
        width,
        config.hidden_dim,
        config.bottleneck_dim,
        config.output_dim,
        norm_last_layer=config.norm_last_layer,
    )
