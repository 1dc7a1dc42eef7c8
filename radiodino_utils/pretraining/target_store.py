"""Crops of a corpus with the teachers' targets, computed once and kept in memory-mapped files."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ..backbones.backbone import Backbone
from ..core.errors import InputError
from ..core.files import make_folder, require_space, write_json
from .corpus import Corpus
from .crops import SIZE, CropSettings, random_crop
from .teachers import Targets, compiled_teacher

STORE = "targets.json"
CHUNK = 1024  # crops that an interruption can lose
_BATCH = 32


class TargetStore:
    """Crops and targets of a run, computed in chunks when they are needed, and kept.

    The files are `targets.json` (what they depend on, and how many crops are done), `crops.npy`
    (uint8) and, for each teacher, `NAME-whole.npy` and `NAME-map.npy` (float16) and
    `NAME-scale.npz` (mean and deviation of each dimension over the first chunk).

    Args:
        folder: Folder of the files.
        corpus: Images.
        teachers: Backbones returned by `load_backbone`.
        capacity: Crops to keep, rounded up to whole chunks.
        seed: Seed of draws and crops.
        settings: How crops are cut.
        precision: Precision of the teachers, "bf16" or "fp32".
        threads: Processors that the teachers may use.

    Raises:
        InputError: If the files are of another corpus, teacher, seed or other settings, or are
            damaged, or the disk is too full.
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
        self.folder, self.corpus = make_folder(folder), corpus
        self.settings, self.seed = settings or CropSettings(), seed
        self.capacity = -(-capacity // CHUNK) * CHUNK
        self.identity = {
            "corpus": corpus.digest,
            "teachers": {teacher.name: teacher.fingerprint for teacher in teachers},
            "seed": seed,
            "size": SIZE,
            "capacity": self.capacity,
            "precision": precision,
            "crops": json.loads(json.dumps(asdict(self.settings))),
        }
        self.names = [teacher.name for teacher in teachers]
        self._models = {
            teacher.name: compiled_teacher(teacher, precision=precision, threads=threads)
            for teacher in teachers
        }
        self._scales: dict[str, dict[str, np.ndarray]] = {}
        self._arrays: dict[str, np.memmap]
        if (self.folder / STORE).is_file():
            self._open()
        else:
            self._create()

    def extend(self) -> None:
        """Compute one more chunk, unless the store is full."""
        if self.done >= self.capacity:
            return
        chunk = slice(self.done, self.done + CHUNK)
        crops = self._crops(np.arange(chunk.start, chunk.stop))
        self._arrays["crops"][chunk] = crops
        for name, model in self._models.items():
            batches = [model(crops[start : start + _BATCH]) for start in range(0, CHUNK, _BATCH)]
            whole, maps = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            self._arrays[f"{name}-whole"][chunk] = whole
            self._arrays[f"{name}-map"][chunk] = maps
            if self.done == 0:
                np.savez(
                    self._scale_path(name),
                    whole_mean=whole.mean(0),
                    whole_std=whole.std(0),
                    map_mean=maps.mean((0, 2, 3)),
                    map_std=maps.std((0, 2, 3)),
                )
        for array in self._arrays.values():
            array.flush()
        self.done += CHUNK
        self._write()

    def read(self, start: int, count: int) -> tuple[np.ndarray, dict[str, Targets]]:
        """Return crops and targets in order; missing ones are computed.

        After the last crop that is kept the first one follows again.

        Args:
            start: Number of the first crop since the beginning of the run.
            count: Number of crops.

        Returns:
            Crops (uint8, [count, 224, 224]) and the targets by teacher.
        """
        rows = np.arange(start, start + count) % self.capacity
        while self.done <= rows.max():
            self.extend()
        targets = {name: self._targets(name, rows) for name in self.names}
        return np.asarray(self._arrays["crops"][rows]), targets

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return the width of the global target and of the map by teacher."""
        return {
            name: (self._arrays[f"{name}-whole"].shape[1], self._arrays[f"{name}-map"].shape[1])
            for name in self.names
        }

    def _open(self) -> None:
        path = self.folder / STORE
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            self.done = int(known.pop("done"))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{path}: the list of targets is damaged; remove the folder to compute them again."
            ) from error
        differing = [name for name, value in self.identity.items() if known.get(name) != value]
        if differing:
            raise InputError(
                f"{self.folder}: holds the targets of another run "
                f"({', '.join(differing)} differ); name another folder."
            )
        names = ["crops"]
        for name in self.names:
            names += [f"{name}-whole", f"{name}-map"]
        self._arrays = {name: _mapped(self.folder / f"{name}.npy") for name in names}

    def _create(self) -> None:
        blank = np.zeros((1, SIZE, SIZE), np.uint8)
        shapes: dict[str, tuple[int, ...]] = {"crops": (SIZE, SIZE)}
        for name, model in self._models.items():
            whole, maps = model(blank)
            shapes |= {f"{name}-whole": whole.shape[1:], f"{name}-map": maps.shape[1:]}
        kinds = {name: np.dtype(np.uint8 if name == "crops" else np.float16) for name in shapes}
        require_space(
            self.folder,
            sum(
                self.capacity * int(np.prod(shape)) * kinds[name].itemsize
                for name, shape in shapes.items()
            ),
        )
        self._arrays = {
            name: np.lib.format.open_memmap(
                self.folder / f"{name}.npy", "w+", kinds[name], (self.capacity, *shape)
            )
            for name, shape in shapes.items()
        }
        self.done = 0
        self._write()

    def _write(self) -> None:
        write_json(self.folder / STORE, self.identity | {"done": self.done})

    def _crops(self, rows: np.ndarray) -> np.ndarray:
        """Return the crops of a chunk, each from a generator of its own number."""
        images = self.corpus.draw(self.done // CHUNK, CHUNK, seed=self.seed)
        generators = [np.random.default_rng([self.seed, int(row)]) for row in rows]
        return np.stack(
            [
                random_crop(self.corpus[image], generator, self.settings)
                for image, generator in zip(images, generators, strict=True)
            ]
        )

    def _targets(self, name: str, rows: np.ndarray) -> Targets:
        scale = self._scale(name)
        whole = self._arrays[f"{name}-whole"][rows].astype(np.float32)
        maps = self._arrays[f"{name}-map"][rows].astype(np.float32)
        whole = (whole - scale["whole_mean"]) / scale["whole_std"]
        maps = (maps - scale["map_mean"][:, None, None]) / scale["map_std"][:, None, None]
        return Targets(torch.from_numpy(whole), torch.from_numpy(maps))

    def _scale_path(self, name: str) -> Path:
        return self.folder / f"{name}-scale.npz"

    def _scale(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._scales:
            path = self._scale_path(name)
            try:
                with np.load(path) as file:
                    scale = {key: file[key] for key in file.files}
            except (OSError, ValueError, KeyError) as error:
                raise InputError(
                    f"{path}: is missing or damaged; remove the folder to compute the targets "
                    "again."
                ) from error
            for key in ("whole_std", "map_std"):
                # a dimension that hardly varies would become pure noise
                scale[key] = np.maximum(scale[key], scale[key].mean() / 10)
            self._scales[name] = scale
        return self._scales[name]


def _mapped(path: Path) -> np.memmap:
    try:
        np.load(path, mmap_mode="r")  # in mode r+ numpy lengthens a file that was cut short
        return np.load(path, mmap_mode="r+")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: the targets are missing or cut short; remove the folder to compute them "
            "again."
        ) from error
