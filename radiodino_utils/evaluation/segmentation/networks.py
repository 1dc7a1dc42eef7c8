"""The networks of the segmentation probes: a linear head, a light decoder, and a U-Net."""

from collections.abc import Sequence

from torch import nn

from ...core.extras import extra


def linear_probe(channels: int, classes: int) -> nn.Module:
    """Return the linear head of DINOv2: batch norm and a 1 x 1 convolution.

    Source: Oquab et al., TMLR 2024; facebookresearch/dinov2.
    """
    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False, momentum=None), nn.Conv2d(channels, classes, 1)
    )


def conv_decoder(channels: int, classes: int, *, width: int = 48) -> nn.Module:
    """Return a light decoder with 3 x 3 convolutions on the patch grid and on one twice as fine.

    Args:
        channels: Channels of the patch maps.
        classes: Number of classes.
        width: Channels inside the decoder.
    """

    def block() -> list[nn.Module]:
        return [nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]

    return nn.Sequential(
        nn.BatchNorm2d(channels, affine=False, momentum=None),
        nn.Conv2d(channels, width, 1),
        nn.ReLU(),
        *block(),
        nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        *block(),
        nn.Conv2d(width, classes, 1),
    )


def unet(classes: int, *, channels: Sequence[int]) -> nn.Module:
    """Return MONAI's residual U-Net for grey images.

    Args:
        classes: Number of classes.
        channels: Channels of each level.
    """
    with extra("evaluation"):
        from monai.networks.nets import UNet

    strides = (2,) * (len(channels) - 1)
    return UNet(2, 1, classes, tuple(channels), strides, num_res_units=1, norm="batch")
