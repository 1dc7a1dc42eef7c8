"""Crops of a corpus with the teachers' targets, computed once and kept in memory-mapped files."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from ..backbones.backbone import Backbone
from ..core.errors import InputError
from ..core.files import file_hash, make_folder, require_space, value_hash, write_json
from .corpus import Corpus
from .crops import SIZE, CropSettings, random_crop
from .teachers import Targets, compiled_teacher

STORE = "targets.json"
CHUNK = 1024  # crops that an interruption can lose
_BATCH = 32


class TargetStore:
    """Crops and targets of a run, computed in chunks when they are needed, and kept.

    The files are `targets.json` (what they depend on, and the SHA-256 of each chunk that is done),
    `crops.npy` (uint8) and, for each teacher, `NAME-whole.npy` and `NAME-map.npy` (float16) and
    `NAME-scale.npz` (mean and deviation of each dimension over the first chunk). A chunk is
    verified at its first reading, and a damaged one is computed again.

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
        self._chunks: list[str] = []  # SHA-256 of each
        self._scale_hashes: dict[str, str] = {}
        self._verified: set[int] = set()
        self._arrays: dict[str, np.memmap]
        if (self.folder / STORE).is_file():
            self._open()
        else:
            self._create()

    @property
    def done(self) -> int:
        """Crops that are kept."""
        return CHUNK * len(self._chunks)

    def extend(self) -> None:
        """Compute one more chunk, unless the store is full."""
        if self.done >= self.capacity:
            return
        number = len(self._chunks)
        self._chunks.append(self._compute(number))
        self._verified.add(number)
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
        for number in sorted({int(row) // CHUNK for row in rows} - self._verified):
            self._verify(number)
        targets = {name: self._targets(name, rows) for name in self.names}
        return np.asarray(self._arrays["crops"][rows]), targets

    def widths(self) -> dict[str, tuple[int, int]]:
        """Return the width of the global target and of the map by teacher."""
        return {
            name: (self._arrays[f"{name}-whole"].shape[1], self._arrays[f"{name}-map"].shape[1])
            for name in self.names
        }

    def _open(self) -> None:
        path, cause = self.folder / STORE, None
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            is_whole = known.pop("checksum") == value_hash(known)
            self._chunks, self._scale_hashes = known["chunks"], known["scales"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            is_whole, cause = False, error
        if not is_whole:
            raise InputError(
                f"{path}: the list of targets is damaged; remove the folder to compute them again."
            ) from cause
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
        self._write()

    def _write(self) -> None:
        state = self.identity | {"chunks": self._chunks, "scales": self._scale_hashes}
        write_json(self.folder / STORE, state | {"checksum": value_hash(state)})

    def _compute(self, number: int) -> str:
        """Compute a chunk, write it into the arrays and return its SHA-256."""
        rows = _rows(number)
        crops = self._crops(number)
        self._arrays["crops"][rows] = crops
        for name, model in self._models.items():
            batches = [model(crops[start : start + _BATCH]) for start in range(0, CHUNK, _BATCH)]
            whole, maps = (np.concatenate(parts) for parts in zip(*batches, strict=True))
            self._arrays[f"{name}-whole"][rows] = whole
            self._arrays[f"{name}-map"][rows] = maps
            if number == 0:
                self._write_scale(name, whole, maps)
        for array in self._arrays.values():
            array.flush()
        return self._hash(number)

    def _verify(self, number: int) -> None:
        """Compute a chunk again if it is damaged."""
        if self._hash(number) != self._chunks[number]:
            warnings.warn(
                f"{self.folder}: crops {CHUNK * number} to {CHUNK * (number + 1) - 1} are damaged "
                "and are computed again.",
                stacklevel=3,
            )
            self._chunks[number] = self._compute(number)
            self._write()
        self._verified.add(number)

    def _hash(self, number: int) -> str:
        digest = hashlib.sha256()
        for name in sorted(self._arrays):
            digest.update(np.ascontiguousarray(self._arrays[name][_rows(number)]).data)
        return digest.hexdigest()

    def _write_scale(self, name: str, whole: np.ndarray, maps: np.ndarray) -> None:
        """Write mean and deviation of each dimension over the first chunk."""
        path = self._scale_path(name)
        np.savez(
            path,
            whole_mean=whole.mean(0),
            whole_std=whole.std(0),
            map_mean=maps.mean((0, 2, 3)),
            map_std=maps.std((0, 2, 3)),
        )
        self._scale_hashes[name] = file_hash(path)

    def _crops(self, number: int) -> np.ndarray:
        """Return the crops of a chunk, each from a generator of its own number."""
        images = self.corpus.draw(number, CHUNK, seed=self.seed)
        rows = range(CHUNK * number, CHUNK * (number + 1))
        generators = [np.random.default_rng([self.seed, row]) for row in rows]
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
                if file_hash(path) != self._scale_hashes[name]:
                    raise ValueError("another file")
                with np.load(path, allow_pickle=False) as file:
                    scale = {key: file[key] for key in file.files}
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                raise InputError(
                    f"{path}: is missing or damaged; remove the folder to compute the targets "
                    "again."
                ) from error
            for key in ("whole_std", "map_std"):
                # a dimension that hardly varies would become pure noise
                scale[key] = np.maximum(scale[key], scale[key].mean() / 10)
            self._scales[name] = scale
        return self._scales[name]


def _rows(number: int) -> slice:
    """Return the rows of a chunk."""
    return slice(CHUNK * number, CHUNK * (number + 1))


def _mapped(path: Path) -> np.memmap:
    try:
        np.load(path, mmap_mode="r")  # in mode r+ numpy lengthens a file that was cut short
        return np.load(path, mmap_mode="r+")
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path}: the targets are missing or cut short; remove the folder to compute them "
            "again."
        ) from error
