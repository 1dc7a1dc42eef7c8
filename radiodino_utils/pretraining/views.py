"""Multi-crop views of greyscale images, every random number from a seed, a step and a position."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d, pad

from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from ..core.extras import extra
from .config import PretrainConfig
from .corpus import Corpus


@dataclass(frozen=True)
class Views:
    """Views of a batch of n images.

    Attributes:
        global_views: float32, [2 n, 3, size, size], all first views before all second ones.
        local_views: float32, [local views x n, 3, size, size], in the same order; empty where a
            configuration has none.
        masks: bool, [2 n, grid, grid]: patches of the global views hidden from the student.
    """

    global_views: torch.Tensor
    local_views: torch.Tensor
    masks: torch.Tensor

    def grey_levels(self) -> list[np.ndarray]:
        """Return the views as images for drawing, the global ones first.

        Returns:
            An array for each view, float32, [n, size, size], in 0..1.
        """
        n = len(self.global_views) // 2
        views = [*self.global_views.split(n), *self.local_views.split(n)]
        return [
            (view[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]).clamp(0, 1).numpy()
            for view in views
            if len(view)
        ]


class ViewSet(torch.utils.data.Dataset):
    """Batches of a run by their step: a map-style dataset, so that workers need no state.

    Args:
        corpus: Images.
        config: Crops and changes of the grey levels.
        seed: Seed of draws and changes.
        rank: Number of this process, which prepares its share of every batch.
        world: Number of processes.
    """

    def __init__(
        self, corpus: Corpus, config: PretrainConfig, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.corpus, self.config, self.seed = corpus, config, seed
        self.rank, self.world = rank, world

    def __len__(self) -> int:
        return self.config.steps * self.config.accumulate

    def __getitem__(self, micro_step: int) -> Views:
        """Return the share of this process of one part of a batch."""
        count = self.config.batch_size // self.config.accumulate
        rows = self.corpus.draw(micro_step, count, seed=self.seed, batch_of=self.config.batch_of)
        positions = range(self.rank, count, self.world)
        generators = [
            np.random.default_rng([self.seed, micro_step, position]) for position in positions
        ]
        return make_views(
            [self.corpus[rows[position]] for position in positions], self.config, generators
        )


def make_views(
    images: list[np.ndarray], config: PretrainConfig, generators: list[np.random.Generator]
) -> Views:
    """Cut the views of images and change their grey levels.

    Args:
        images: uint8, [height, width] each.
        config: Sizes, scales and strengths.
        generators: One per image.
    """
    fields = [
        _field(image, config, generator)
        for image, generator in zip(images, generators, strict=True)
    ]
    first, second, local = config.blur
    global_views = _views_of_size(
        fields, config.global_size, config.global_scale, [first, second], config, generators
    )
    local_views = _views_of_size(
        fields,
        config.local_size,
        config.local_scale,
        [local] * config.local_count,
        config,
        generators,
    )
    return Views(global_views, local_views, _masks(config, len(images), generators))


def _views_of_size(
    fields: list[np.ndarray],
    size: int,
    scale: tuple[float, float],
    blurs: list[float],
    config: PretrainConfig,
    generators: list[np.random.Generator],
) -> torch.Tensor:
    """Return a view of each field for each probability of a blur, [views x n, 3, size, size]."""
    crops: list[np.ndarray] = []
    changes: list[_Change] = []
    for blur in blurs:
        for field, generator in zip(fields, generators, strict=True):
            crops.append(_crop(field, size, scale, config, generator))
            changes.append(_draw_change(config, blur, generator))
    return _changed(np.stack(crops), changes) if crops else torch.zeros(0, 3, size, size)


def _field(image: np.ndarray, config: PretrainConfig, generator: np.random.Generator) -> np.ndarray:
    """Return the part of an image in which all its views lie: all of it, or a detail."""
    height, width = image.shape
    least = max(config.field[0], min(1.0, config.field_pixels / min(height, width)))
    share = math.exp(generator.uniform(math.log(least), math.log(max(config.field[1], least))))
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
    return image[top : top + h, left : left + w]


def _crop(
    field: np.ndarray,
    size: int,
    scale: tuple[float, float],
    config: PretrainConfig,
    generator: np.random.Generator,
) -> np.ndarray:
    height, width = field.shape
    area = height * width * generator.uniform(*scale)
    ratio = math.exp(generator.uniform(math.log(config.aspect[0]), math.log(config.aspect[1])))
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    x = generator.uniform(w / 2, width - w / 2) if w < width else width / 2
    y = generator.uniform(h / 2, height - h / 2) if h < height else height / 2
    angle = math.radians(generator.uniform(-config.rotation, config.rotation))
    mirror = -1 if generator.random() < config.flip else 1
    image = Image.fromarray(field)
    if (factor := int(min(w, h) // size)) > 1:  # average first: fine detail would alias
        image = image.reduce(factor)
        x, y, w, h = x / factor, y / factor, w / factor, h / factor
    cos, sin = math.cos(angle), math.sin(angle)
    a, b, d, e = mirror * cos * w / size, sin * h / size, -mirror * sin * w / size, cos * h / size
    half = (size - 1) / 2 + 0.5
    matrix = (a, b, x - (a + b) * half, d, e, y - (d + e) * half)
    return np.asarray(
        image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    )


@dataclass(frozen=True)
class _Change:
    """Change of the grey levels of a view."""

    brightness: float
    contrast: float
    gamma: float
    sigma: float
    noise: float
    noise_seed: int


def _draw_change(config: PretrainConfig, blur: float, generator: np.random.Generator) -> _Change:
    """Draw a change; views without jitter draw its numbers too, so that later draws are equal."""
    uniform = generator.uniform
    is_jittered = generator.random() < config.jitter_probability
    brightness = uniform(-config.brightness, config.brightness)
    contrast = uniform(-config.contrast, config.contrast)
    gamma = math.exp(uniform(math.log(config.gamma[0]), math.log(config.gamma[1])))
    sigma = uniform(*config.blur_sigma) if generator.random() < blur else 0.0
    noise = uniform(0, config.noise) if generator.random() < config.noise_probability else 0.0
    seed = int(generator.integers(2**31))
    if not is_jittered:
        brightness, contrast, gamma = 0, 0, 1
    return _Change(brightness, contrast, gamma, sigma, noise, seed)


def _changed(crops: np.ndarray, changes: list[_Change]) -> torch.Tensor:
    """Change the grey levels of crops and standardise them.

    Args:
        crops: uint8, [n, size, size].
        changes: One per crop.

    Returns:
        float32, [n, 3, size, size].
    """

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)

    brightness = column([change.brightness for change in changes])
    contrast = column([change.contrast for change in changes])
    gamma = column([change.gamma for change in changes])
    values = torch.from_numpy(crops).float().div_(255)
    if (gamma != 1).any():
        values = values.clamp_(1e-3).pow_(gamma)
    mean = values.mean((1, 2), keepdim=True)
    values = (values - mean).mul_(1 + contrast).add_(mean * (1 + brightness))
    for row, change in enumerate(changes):
        if change.sigma:
            values[row] = _blurred(values[row], change.sigma)
        if change.noise:
            noise_generator = torch.Generator().manual_seed(change.noise_seed)
            noise = torch.empty_like(values[row]).normal_(generator=noise_generator)
            values[row].add_(noise, alpha=change.noise)
    values.clamp_(0, 1)
    mean, std = (
        torch.tensor(channels).view(1, 3, 1, 1) for channels in (IMAGENET_MEAN, IMAGENET_STD)
    )
    return (values[:, None] - mean) / std


def _blurred(values: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = pad(values[None, None], [reach] * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def _masks(
    config: PretrainConfig, images: int, generators: list[np.random.Generator]
) -> torch.Tensor:
    """Return the masks of the global views; a batch has at least one masked view."""
    import random

    with extra("train"):
        from lightly.models.utils import random_block_mask_image

    grid = config.global_size // config.patch_size
    masks = torch.zeros(2 * images, grid, grid, dtype=torch.bool)
    if not config.masks_patches:
        return masks
    state = random.getstate()  # lightly draws from the global generator
    for row in range(2 * images):
        generator = generators[row % images]
        random.seed(int(generator.integers(2**31)))
        patches = max(1, int(grid**2 * generator.uniform(*config.mask_ratio)))
        is_last_chance = row == 2 * images - 1 and not masks.any()
        if generator.random() < config.mask_probability or is_last_chance:
            masks[row] = random_block_mask_image(
                (grid, grid), patches, min_num_masks_per_block=min(4, patches)
            )
    random.setstate(state)
    return masks
