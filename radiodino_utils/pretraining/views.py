"""Multi-crop views of greyscale images, every random number from a seed, a step and a position."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import conv2d, pad

from ..backbones.registry import IMAGENET_MEAN, IMAGENET_STD
from ..core.extras import extra
from .config import Recipe
from .corpus import Corpus


@dataclass(frozen=True)
class Views:
    """The views of a batch.

    Attributes:
        global_views: float32, [2 x n, 3, size, size], all first views before all second ones.
        local_views: float32, [locals x n, 3, size, size], in the same order; no rows where a recipe
            has none.
        masks: bool, [2 x n, grid, grid], which patches of the global views the student does not
            see.
    """

    global_views: torch.Tensor
    local_views: torch.Tensor
    masks: torch.Tensor

    def grey_levels(self) -> list[np.ndarray]:
        """The views as images, for drawing: one array a view, float32 [n, size, size] in 0..1, the global ones first."""
        n = len(self.global_views) // 2
        views = [*self.global_views.split(n), *self.local_views.split(n)]
        return [
            (one[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]).clamp(0, 1).numpy()
            for one in views
            if len(one)
        ]


class ViewSet(torch.utils.data.Dataset):
    """The batches of a run by their step: a map-style dataset, so that loader workers need no
    state.

    Args:
        corpus: The images.
        recipe: Crops and greyscale changes.
        seed: Of draws and changes.
        rank: Which share of every batch to make.
        world: Number of shares.
    """

    def __init__(
        self, corpus: Corpus, recipe: Recipe, *, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        self.corpus, self.recipe, self.seed, self.rank, self.world = (
            corpus,
            recipe,
            seed,
            rank,
            world,
        )

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.accumulate

    def __getitem__(self, micro_step: int) -> Views:
        """The share of this rank of one micro-batch."""
        count = self.recipe.batch_size // self.recipe.accumulate
        rows = self.corpus.draw(micro_step, count, seed=self.seed, batch_of=self.recipe.batch_of)
        positions = range(self.rank, count, self.world)
        generators = [
            np.random.default_rng([self.seed, micro_step, position]) for position in positions
        ]
        return make_views(
            [self.corpus[rows[position]] for position in positions], self.recipe, generators
        )


def make_views(
    images: list[np.ndarray], recipe: Recipe, generators: list[np.random.Generator]
) -> Views:
    """Cuts and changes the views of some images.

    Args:
        images: uint8, [height, width] each.
        recipe: Sizes, scales and strengths.
        generators: One a image.

    Returns:
        The views.
    """
    fields = [
        _field(image, recipe, generator)
        for image, generator in zip(images, generators, strict=True)
    ]
    kinds = []
    for count, size, scale, blur in (
        (2, recipe.global_size, recipe.global_scale, recipe.blur),
        (recipe.local_count, recipe.local_size, recipe.local_scale, recipe.blur),
    ):
        crops, changes = [], []
        for view in range(count):
            for field, generator in zip(fields, generators, strict=True):
                crops.append(_crop(field, size, scale, recipe, generator))
                changes.append(
                    _changes(
                        recipe,
                        blur[min(view, 1)] if size == recipe.global_size else blur[-1],
                        generator,
                    )
                )
        kinds.append(_changed(np.stack(crops), changes) if count else torch.zeros(0, 3, size, size))
    return Views(*kinds, _masks(recipe, len(images), generators))


def _field(image: np.ndarray, recipe: Recipe, generator: np.random.Generator) -> np.ndarray:
    """The part of a image in which its views lie: of a large image now the whole, now a detail."""
    height, width = image.shape
    least = max(recipe.field[0], min(1.0, recipe.field_pixels / min(height, width)))
    share = math.exp(generator.uniform(math.log(least), math.log(max(recipe.field[1], least))))
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
    return image[top : top + h, left : left + w]


def _crop(
    field: np.ndarray,
    size: int,
    scale: tuple[float, float],
    recipe: Recipe,
    generator: np.random.Generator,
) -> np.ndarray:
    height, width = field.shape
    area = height * width * generator.uniform(*scale)
    ratio = math.exp(generator.uniform(math.log(recipe.aspect[0]), math.log(recipe.aspect[1])))
    w, h = min(width, math.sqrt(area * ratio)), min(height, math.sqrt(area / ratio))
    x = generator.uniform(w / 2, width - w / 2) if w < width else width / 2
    y = generator.uniform(h / 2, height - h / 2) if h < height else height / 2
    angle = math.radians(generator.uniform(-recipe.rotation, recipe.rotation))
    mirror = -1 if generator.random() < recipe.flip else 1
    image = Image.fromarray(field)
    if (
        factor := int(min(w, h) // size)
    ) > 1:  # averages before sampling, so that fine detail does not alias
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
    brightness: float
    contrast: float
    gamma: float
    sigma: float
    noise: float
    noise_seed: int


def _changes(recipe: Recipe, blur: float, generator: np.random.Generator) -> _Change:
    uniform = generator.uniform
    changed = generator.random() < recipe.jitter_probability
    brightness, contrast = (
        uniform(-recipe.brightness, recipe.brightness),
        uniform(-recipe.contrast, recipe.contrast),
    )
    gamma = math.exp(uniform(math.log(recipe.gamma[0]), math.log(recipe.gamma[1])))
    sigma = uniform(*recipe.blur_sigma) if generator.random() < blur else 0.0
    noise = uniform(0, recipe.noise) if generator.random() < recipe.noise_probability else 0.0
    seed = int(generator.integers(2**31))
    return (
        _Change(brightness, contrast, gamma, sigma, noise, seed)
        if changed
        else _Change(0, 0, 1, sigma, noise, seed)
    )


def _changed(crops: np.ndarray, changes: list[_Change]) -> torch.Tensor:
    """Greyscale changes of a stack of crops, uint8 [n, size, size], and the standardisation: float32 [n, 3, size, size]."""

    def column(name: str) -> torch.Tensor:
        return torch.tensor(
            [getattr(change, name) for change in changes], dtype=torch.float32
        ).view(-1, 1, 1)

    values = torch.from_numpy(crops).float().div_(255)
    if (column("gamma") != 1).any():
        values = values.clamp_(1e-3).pow_(column("gamma"))
    mean = values.mean((1, 2), keepdim=True)
    values = (values - mean).mul_(1 + column("contrast")).add_(mean * (1 + column("brightness")))
    for row, change in enumerate(changes):
        if change.sigma:
            values[row] = _blurred(values[row], change.sigma)
        if change.noise:
            noise = torch.empty_like(values[row]).normal_(
                generator=torch.Generator().manual_seed(change.noise_seed)
            )
            values[row].add_(noise, alpha=change.noise)
    values.clamp_(0, 1)
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in (IMAGENET_MEAN, IMAGENET_STD))
    return (values[:, None] - mean) / std


def _blurred(values: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = max(1, round(2.5 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    padded = pad(values[None, None], [reach] * 4, mode="replicate")
    return conv2d(conv2d(padded, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))[0, 0]


def _masks(recipe: Recipe, images: int, generators: list[np.random.Generator]) -> torch.Tensor:
    import random

    with extra("train"):
        from lightly.models.utils import random_block_mask_image

    grid = recipe.global_size // recipe.patch_size
    masks = torch.zeros(2 * images, grid, grid, dtype=torch.bool)
    if not recipe.masks_patches:
        return masks
    state = random.getstate()  # lightly draws from the global generator
    for row in range(2 * images):
        generator = generators[row % images]
        random.seed(int(generator.integers(2**31)))
        wanted = max(1, int(grid**2 * generator.uniform(*recipe.mask_ratio)))
        last_chance = (
            row == 2 * images - 1 and not masks.any()
        )  # the loss needs one masked view in every batch
        if generator.random() < recipe.mask_probability or last_chance:
            masks[row] = random_block_mask_image(
                (grid, grid), wanted, min_num_masks_per_block=min(4, wanted)
            )
    random.setstate(state)
    return masks
