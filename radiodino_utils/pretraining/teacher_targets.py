"""Crops of a corpus with a teacher's targets, computed once and kept in memory-mapped files."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..backbones.backbone import Backbone
from ..core.errors import InputError
from ..core.files import make_folder, require_space, write_json
from ..features.openvino_engine import compiled_by_openvino
from .corpus import Corpus

STORE = "targets.json"
CHUNK = 1024  # crops that an interruption can lose
SIZE = 224


@dataclass(frozen=True)
class CropSettings:
    """How crops are cut and changed; the ranges are uniform.

    Attributes:
        scale: Share of the image's area.
        aspect: Width to height, drawn on a logarithmic scale.
        flip: Probability of a mirror image.
        brightness: Greatest change, as a share of the mean.
        contrast: Greatest change, as a share.
        gamma: Exponent, drawn on a logarithmic scale.
    """

    scale: tuple[float, float] = (0.35, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    brightness: float = 0.3
    contrast: float = 0.3
    gamma: tuple[float, float] = (0.7, 1.4)


def cut(
    image: np.ndarray, generator: np.random.Generator, settings: CropSettings, *, size: int = SIZE
) -> np.ndarray:
    """Return a random resized crop with changed brightness, contrast and gamma.

    Args:
        image: uint8, [height, width].
        generator: Of all random numbers.
        settings: Ranges.
        size: Edge in pixels.

    Returns:
        uint8, [size, size].
    """
    height, width = image.shape
    area = height * width * generator.uniform(*settings.scale)
    ratio = np.exp(generator.uniform(*np.log(settings.aspect)))
    w, h = min(width, np.sqrt(area * ratio)), min(height, np.sqrt(area / ratio))
    left, top = generator.uniform(0, width - w), generator.uniform(0, height - h)
    crop = Image.fromarray(image).resize(
        (size, size), Image.Resampling.BILINEAR, box=(left, top, left + w, top + h)
    )
    values = np.asarray(crop, np.float32) / 255
    if generator.random() < settings.flip:
        values = values[:, ::-1]
    values = values ** np.exp(generator.uniform(*np.log(settings.gamma)))
    mean = values.mean()
    contrast, brightness = (
        1 + generator.uniform(-most, most) for most in (settings.contrast, settings.brightness)
    )
    return np.rint(np.clip((values - mean) * contrast + mean * brightness, 0, 1) * 255).astype(
        np.uint8
    )


class TeacherModel(nn.Module):
    """A teacher with its standardisation: the global target and the map of a batch of grey crops.

    Of a convolutional network the map is its stage of stride 16 and the global target its pooled
    output; of a vision transformer the patch tokens, and the class token beside the mean patch
    token.

    Args:
        backbone: Backbone returned by `load_backbone`.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.model, self.prefix = backbone.model, backbone.num_prefix_tokens
        self.is_transformer = hasattr(backbone.model, "patch_embed")
        self.register_buffer(
            "mean", torch.tensor(backbone.preprocessing.mean).view(1, 3, 1, 1) * 255
        )
        self.register_buffer("std", torch.tensor(backbone.preprocessing.std).view(1, 3, 1, 1) * 255)
        if not self.is_transformer:
            strides = [one["reduction"] for one in backbone.model.feature_info]
            self.stage = strides.index(16)

    def forward(self, crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute targets.

        Args:
            crops: uint8, [n, size, size].

        Returns:
            Global targets, [n, width], and maps, [n, channels, grid, grid].
        """
        standardised = (crops[:, None].float() - self.mean) / self.std
        if self.is_transformer:
            tokens = self.model.forward_features(standardised)
            patches = tokens[:, self.prefix :]
            grid = int(patches.shape[1] ** 0.5)
            whole = (
                torch.cat([tokens[:, 0], patches.mean(1)], 1) if self.prefix else patches.mean(1)
            )
            return whole, patches.transpose(1, 2).unflatten(2, (grid, grid))
        final, stages = self.model.forward_intermediates(standardised, indices=[self.stage])
        return self.model.forward_head(final), stages[0]


@dataclass(frozen=True)
class Targets:
    """The targets of some crops of one teacher, standardised per dimension.

    Attributes:
        whole: float32, [n, width].
        maps: float32, [n, channels, grid, grid].
    """

    whole: torch.Tensor
    maps: torch.Tensor


class TargetStore:
    """Crops and targets of a run, made in chunks as they are asked for and kept.

    The files: `targets.json` (what they depend on and how many crops are done), `crops.npy`
        (uint8), and for each teacher
    `NAME-whole.npy`, `NAME-map.npy` (float16) and `NAME-scale.npz` (mean and deviation of each
    dimension over the first chunk).

    Args:
        folder: Where the files are kept.
        corpus: Images.
        teachers: Backbones by name.
        capacity: Crops to keep.
        seed: Of draws and crops.
        settings: Of the crops.
        precision: "bf16" or "fp32", of the teachers.
        threads: Processors that the teachers may use.

    Raises:
        InputError: If the folder's files are of another corpus, teacher, seed or other settings, or
            are damaged, or the disk is too full.
    """

    def __init__(
        self,
        folder: Path,
        corpus: Corpus,
        teachers: Sequence[Backbone],
        *,
        capacity: int,
        seed: int = 0,
        settings: CropSettings | None = None,
        precision: str = "fp32",
        threads: int = 1,
    ) -> None:
        if len(corpus) < 2:
            raise InputError(
                "the corpus has one image; distillation compares images with each other: add some."
            )
        if not teachers:
            raise InputError("no teacher is named; give at least one.")
        self.folder, self.corpus, self.settings = (
            make_folder(folder),
            corpus,
            settings or CropSettings(),
        )
        self.capacity, self.seed = -(-capacity // CHUNK) * CHUNK, seed
        self.identity = {
            "corpus": corpus.digest,
            "teachers": {one.name: one.fingerprint for one in teachers},
            "seed": seed,
            "size": SIZE,
            "capacity": self.capacity,
            "precision": precision,
            "crops": json.loads(json.dumps(asdict(self.settings))),
        }
        self.names = [one.name for one in teachers]
        self._models = {}
        for one in teachers:
            self._models[one.name] = _compiled(one, precision, threads)
        self._open()

    def _open(self) -> None:
        about = self.folder / STORE
        if about.is_file():
            try:
                known = json.loads(about.read_text(encoding="utf-8"))
                self.done = int(known.pop("done"))
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"{about}: the list of targets is damaged; remove the folder to compute them again."
                ) from error
            if differing := [
                name for name, value in self.identity.items() if known.get(name) != value
            ]:
                raise InputError(
                    f"{self.folder}: holds the targets of another run ({', '.join(differing)} differ); name another folder."
                )
            self._arrays = {path.stem: _mapped(path) for path in self._paths()}
            return
        shapes = {"crops": ((SIZE, SIZE), np.uint8)}
        probe = np.zeros((1, SIZE, SIZE), np.uint8)
        for name, model in self._models.items():
            whole, maps = (one.shape[1:] for one in model(probe))
            shapes |= {f"{name}-whole": (whole, np.float16), f"{name}-map": (maps, np.float16)}
        require_space(
            self.folder,
            sum(
                self.capacity * int(np.prod(shape)) * np.dtype(kind).itemsize
                for shape, kind in shapes.values()
            ),
        )
        self._arrays = {
            name: np.lib.format.open_memmap(
                self.folder / f"{name}.npy", "w+", kind, (self.capacity, *shape)
            )
            for name, (shape, kind) in shapes.items()
        }
        self.done = 0
        self._write()

    def _paths(self) -> list[Path]:
        names = ["crops", *(f"{name}-{kind}" for name in self.names for kind in ("whole", "map"))]
        return [self.folder / f"{name}.npy" for name in names]

    def _write(self) -> None:
        write_json(self.folder / STORE, self.identity | {"done": self.done})

    def extend(self) -> None:
        """Compute one more chunk; nothing happens when the store is full."""
        if self.done >= self.capacity:
            return
        rows = np.arange(self.done, self.done + CHUNK)
        images = self.corpus.draw(self.done // CHUNK, CHUNK, seed=self.seed)
        crops = np.stack(
            [
                cut(self.corpus[image], np.random.default_rng([self.seed, int(row)]), self.settings)
                for row, image in zip(rows, images, strict=True)
            ]
        )
        part = slice(self.done, self.done + CHUNK)
        self._arrays["crops"][part] = crops
        for name, model in self._models.items():
            found = [model(crops[start : start + 32]) for start in range(0, CHUNK, 32)]
            whole, maps = (np.concatenate(one) for one in zip(*found, strict=True))
            self._arrays[f"{name}-whole"][part], self._arrays[f"{name}-map"][part] = whole, maps
            if self.done == 0:
                scale = {"whole_mean": whole.mean(0), "whole_std": whole.std(0)}
                scale |= {"map_mean": maps.mean((0, 2, 3)), "map_std": maps.std((0, 2, 3))}
                np.savez(self.folder / f"{name}-scale.npz", **scale)
        for array in self._arrays.values():
            array.flush()
        self.done += CHUNK
        self._write()

    def read(self, start: int, count: int) -> tuple[np.ndarray, dict[str, Targets]]:
        """Return crops and targets in order, from the beginning again after the last; missing ones
        are computed.

        Args:
            start: Number of the first crop since the beginning of the run.
            count: Crops.

        Returns:
            Crops (uint8, [count, 224, 224]) and the targets by teacher.
        """
        rows = np.arange(start, start + count) % self.capacity
        while self.done <= rows.max():
            self.extend()
        targets = {}
        for name in self.names:
            scale = self._scale(name)
            whole = (
                self._arrays[f"{name}-whole"][rows].astype(np.float32) - scale["whole_mean"]
            ) / scale["whole_std"]
            maps = (
                self._arrays[f"{name}-map"][rows].astype(np.float32)
                - scale["map_mean"][:, None, None]
            )
            targets[name] = Targets(
                torch.from_numpy(whole), torch.from_numpy(maps / scale["map_std"][:, None, None])
            )
        return np.asarray(self._arrays["crops"][rows]), targets

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return the width of the global target and of the map by teacher."""
        return {
            name: (self._arrays[f"{name}-whole"].shape[1], self._arrays[f"{name}-map"].shape[1])
            for name in self.names
        }

    def _scale(self, name: str) -> dict[str, np.ndarray]:
        if name not in (scales := self.__dict__.setdefault("_scales", {})):
            path = self.folder / f"{name}-scale.npz"
            try:
                with np.load(path) as file:
                    scales[name] = {key: file[key] for key in file.files}
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"{path}: is missing or damaged; remove the folder to compute the targets again."
                ) from error
            for kind in (
                "whole_std",
                "map_std",
            ):  # a dimension that hardly moves would be all noise
                scales[name][kind] = np.maximum(scales[name][kind], scales[name][kind].mean() / 10)
        return scales[name]


def _compiled(
    teacher: Backbone, precision: str, threads: int
) -> Callable[[np.ndarray], tuple[np.ndarray, ...]]:
    example, shape = torch.zeros(1, SIZE, SIZE, dtype=torch.uint8), [-1, SIZE, SIZE]
    model = compiled_by_openvino(
        TeacherModel(teacher),
        example,
        shape=shape,
        precision=precision,
        threads=threads,
        hint="LATENCY",
    )
    return lambda crops: tuple(model([crops]).values())


def _mapped(path: Path) -> np.ndarray:
    try:
        np.load(
            path, mmap_mode="r"
        )  # numpy lengthens a file that is cut short when it opens it for writing
        return np.load(path, mmap_mode="r+")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: the targets are missing or cut short; remove the folder to compute them again."
        ) from error
