"""Deep features of regions: patch tokens weighted by coverage, and a crop's embedding."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ..backbones.backbone import Backbone
from ..data.images import stacked
from ..data.intensity import Window, windowed
from ..features.dense import dense_backbone
from ..features.engines import make_engine
from .cases import Case, Region
from .options import PLANES, RadiomicsOptions

PERCENTILES = (0.5, 99.5)  # of a case without a window, which become black and white
BATCH = 4  # slices


class DeepExtractor:
    """Compute the deep features of regions with one dense pass per slice.

    A slice is padded to a square in mm and resized. Each patch token counts by the share of its
    patch that the region covers, so that regions smaller than a patch have features as well.

    Args:
        backbone: Backbone returned by `load_backbone`.
        options: Options of the table.
        engine: See `make_engine`.
        precision: See `make_engine`.
        threads: See `make_engine`.

    Raises:
        InputError: See `dense_backbone` and `make_engine`.
    """

    def __init__(
        self,
        backbone: Backbone,
        options: RadiomicsOptions,
        *,
        engine: str = "auto",
        precision: str = "fp32",
        threads: int | None = None,
    ) -> None:
        made: dict[str, Any] = {"engine": engine, "precision": precision, "threads": threads}
        self.backbone, self.options = backbone, options
        self.dense = _dense(backbone, backbone.fingerprint, options.size)
        self.engine = make_engine(self.dense, **made)
        self.whole = make_engine(backbone, **made) if options.crop else None

    def names(self) -> list[str]:
        """Return the names of the features, the number of covered patches first."""
        parts = {f"deep_{kind}": self.dense.embedding_dim for kind in ("mean", "max", "std")}
        if self.whole:
            parts["deep_crop"] = self.backbone.embedding_dim
        columns = [f"{part}_{n:04d}" for part, width in parts.items() for n in range(width)]
        return ["patches", *columns]

    def __call__(self, case: Case, regions: Sequence[Region]) -> np.ndarray:
        """Return the features of regions, float32 [regions, features]; the mean over planes."""
        planes = ("axial",) if len(case.values) == 1 else self.options.planes
        window = self._window(case)
        found = [self._of_plane(case, regions, PLANES.index(plane), window) for plane in planes]
        return np.asarray(np.mean(found, axis=0), np.float32)

    def _window(self, case: Case) -> Window | None:
        """Return the grey values that become black and white; of 8-bit images none is needed."""
        if self.options.grey_window or case.values.dtype == np.uint8:
            return self.options.grey_window
        values = case.values
        known = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = np.percentile(known, PERCENTILES)
        return float(low), float(high if high > low else low + 1)

    def _of_plane(
        self, case: Case, regions: Sequence[Region], axis: int, window: Window | None
    ) -> np.ndarray:
        """Return the features of one plane, [regions, features]."""
        spacing = np.delete(case.spacing_mm or (1.0, 1.0, 1.0), axis)
        areas = [region.inside.sum(tuple({0, 1, 2} - {axis})) for region in regions]
        members = defaultdict(list)
        for number, area in enumerate(areas):
            only = self.options.slices == "largest"
            within = [int(area.argmax())] if only else np.flatnonzero(area).tolist()
            for place in within:
                members[regions[number].box[axis].start + place].append(number)
        pooled = _Pooled(len(regions), self.dense.embedding_dim)
        order = sorted(members)
        maps = self.engine.map(self._batches(case, axis, order, spacing, window))
        for place, tokens in zip(order, (one for (batch,) in maps for one in batch), strict=True):
            shape = np.delete(case.values.shape, axis)
            pooled.add(members[place], tokens, self._coverage(
                [regions[number] for number in members[place]], axis, place, shape, spacing,
                tokens.shape[1:],
            ))  # fmt: skip
        features = [pooled.features()]
        if self.whole:
            crops = (
                self._crop(case, region, axis, int(area.argmax()), spacing, window)
                for region, area in zip(regions, areas, strict=True)
            )
            features.append(np.concatenate([output[0] for output in self.whole.map(crops)]))
        return np.concatenate(features, 1)

    def _batches(
        self, case: Case, axis: int, order: list[int], spacing: np.ndarray, window: Window | None
    ) -> Iterator[np.ndarray]:
        """Yield slices as the backbone sees them."""
        for start in range(0, len(order), BATCH):
            images = [_grey(case, axis, place, window) for place in order[start : start + BATCH]]
            squares = (np.pad(image, _padding(image.shape, spacing)) for image in images)
            yield stacked([self.dense.preprocessing.fitted(square) for square in squares])

    @staticmethod
    def _coverage(
        regions: list[Region],
        axis: int,
        place: int,
        shape: np.ndarray,
        spacing: np.ndarray,
        grid: tuple[int, ...],
    ) -> np.ndarray:
        """Return the share of each patch that each region covers, [regions, patches]."""
        padding = _padding(tuple(shape), spacing)
        down, right = (
            _overlap(int(edge + sum(pad)), patches)[:, pad[0] : pad[0] + edge]
            for edge, pad, patches in zip(shape, padding, grid, strict=True)
        )
        shares = []
        for region in regions:
            rows, columns = (box for number, box in enumerate(region.box) if number != axis)
            inside = np.take(region.inside, place - region.box[axis].start, axis)
            shares.append((down[:, rows] @ inside @ right[:, columns].T).ravel())
        return np.stack(shares)

    def _crop(
        self, case: Case, region: Region, axis: int, place: int, spacing: np.ndarray, window: Any
    ) -> np.ndarray:
        """Return the square around a region of one slice, as the backbone sees it.

        Outside of the image, its edge is repeated.
        """
        rows, columns = (box for number, box in enumerate(region.box) if number != axis)
        extents = [
            (box.stop - box.start) * step
            for box, step in zip((rows, columns), spacing, strict=True)
        ]
        edge = max(extents) + 2 * self.options.margin_mm
        image, picked = _grey(case, axis, region.box[axis].start + place, window), []
        for box, step, size in zip((rows, columns), spacing, image.shape, strict=True):
            count = max(1, round(edge / step))
            first = round((box.start + box.stop - count) / 2)
            picked.append(np.clip(np.arange(first, first + count), 0, size - 1))
        return stacked([self.backbone.preprocessing.fitted(image[np.ix_(*picked)])])


@lru_cache(maxsize=2)
def _dense(backbone: Backbone, fingerprint: str, size: int) -> Backbone:
    """Return the same object for the same weights, so that its engine is built once."""
    return dense_backbone(backbone, size=size)


class _Pooled:
    """Running sums over the patch tokens of regions.

    Args:
        regions: Number of regions.
        width: Width of a token.
    """

    def __init__(self, regions: int, width: int) -> None:
        self.weight = np.zeros((regions, 1))
        self.sum = np.zeros((regions, width))
        self.squares = np.zeros((regions, width))
        self.max = np.full((regions, width), -np.inf)

    def add(self, numbers: list[int], tokens: np.ndarray, coverage: np.ndarray) -> None:
        """Add a slice.

        Args:
            numbers: Regions in it.
            tokens: [width, grid, grid].
            coverage: [regions in it, patches].
        """
        tokens = tokens.reshape(len(tokens), -1).T.astype(np.float64)
        self.weight[numbers] += coverage.sum(1, keepdims=True)
        self.sum[numbers] += coverage @ tokens
        self.squares[numbers] += coverage @ tokens**2
        for number, share in zip(numbers, coverage, strict=True):
            mostly = share >= min(0.5, share.max())
            self.max[number] = np.maximum(self.max[number], tokens[mostly].max(0))

    def features(self) -> np.ndarray:
        """Return patches, mean, maximum and standard deviation, [regions, 1 + 3 x width]."""
        mean = self.sum / self.weight
        variance = np.maximum(self.squares / self.weight - mean**2, 0)
        return np.concatenate([self.weight, mean, self.max, np.sqrt(variance)], 1)


def _grey(case: Case, axis: int, place: int, window: Window | None) -> np.ndarray:
    """Return a slice, uint8 [rows, columns]; voxels that are not numbers are black."""
    image = np.take(case.values, place, axis)
    if window is None:
        return np.ascontiguousarray(image)
    low, high = window
    return windowed(np.nan_to_num(image.astype(float), nan=low, posinf=high, neginf=low), window)


def _padding(shape: tuple[int, ...], spacing: np.ndarray) -> list[tuple[int, int]]:
    """Return the rows and columns that make a slice a square in mm."""
    edge = max(count * step for count, step in zip(shape, spacing, strict=True))
    missing = [round(edge / step) - count for count, step in zip(shape, spacing, strict=True)]
    return [(int(rest // 2), int(rest - rest // 2)) for rest in missing]


def _overlap(pixels: int, patches: int) -> np.ndarray:
    """Return the share of each patch that each pixel covers, along an axis, [patches, pixels]."""
    edges = np.arange(patches + 1)[:, None] * pixels / patches
    pixel = np.arange(pixels)
    length = np.minimum(edges[1:], pixel + 1) - np.maximum(edges[:-1], pixel)
    return np.maximum(length, 0) * patches / pixels
