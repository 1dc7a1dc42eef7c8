"""Embeddings of image files without labels, written as a table."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..backbones.loading import as_backbone
from ..core.checks import FORMULA, checked_count
from ..core.errors import InputError
from ..core.files import atomic, make_folder
from ..data.images import SUFFIXES, read_image, stacked
from .engines import make_engine


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of images, and where they come from.

    Attributes:
        paths: Image files, in the order of the rows.
        values: float32, [n, width]; the first output of the backbone.
        backbone: Name of the backbone.
        weights: Fingerprint of its weights.
        engine: Engine that computed them.
        precision: Its precision.
        unreadable: By path a sentence for each image that could not be embedded.
    """

    paths: list[str]
    values: np.ndarray
    backbone: str
    weights: str
    engine: str
    precision: str
    unreadable: dict[str, str] = field(default_factory=dict)

    def table(self) -> pd.DataFrame:
        """Return one row per image: path, backbone, weights, and a column per feature."""
        columns = [f"feature_{number}" for number in range(self.values.shape[1])]
        facts = {"path": self.paths, "backbone": self.backbone, "weights": self.weights}
        features = pd.DataFrame(self.values, columns=columns)
        return pd.concat([pd.DataFrame(facts, index=features.index), features], axis=1)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """Find the image files that paths name.

    Args:
        paths: Image files of any name, and folders, of which every file with a known suffix counts
            at any depth. Hidden files do not count.

    Returns:
        The files, each once; those of a folder are sorted.

    Raises:
        InputError: If a path does not exist, or a folder holds no image.
    """
    files: dict[Path, None] = {}
    for path in map(Path, paths):
        if path.is_dir():
            members = [
                member
                for member in sorted(path.rglob("*"))
                if member.name.lower().endswith(SUFFIXES)
                and not any(part.startswith(".") for part in member.relative_to(path).parts)
                and member.is_file()
            ]
            if not members:
                raise InputError(f"{path}: holds no image (known: {', '.join(SUFFIXES)}).")
            files |= dict.fromkeys(members)
        elif path.exists():
            files[path] = None
        else:
            raise InputError(f"{path}: there is no such file or folder.")
    return list(files)


def embed_images(
    paths: Sequence[str | Path],
    backbone: Backbone | str,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 16,
    threads: int | None = None,
) -> Embeddings:
    """Embed image files; those that cannot be read are left out and reported.

    Args:
        paths: Image files, see `read_image`; of volumes the middle slice is embedded.
        backbone: Registered name, or backbone returned by `load_backbone`.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images per forward pass.
        threads: See `make_engine`.

    Returns:
        The embeddings, in the order of the paths.

    Raises:
        InputError: If the backbone, the engine or the precision is unknown, `batch_size` is below
            1, or no image can be embedded.
    """
    batch_size = checked_count(batch_size, what="batch_size")
    backbone = as_backbone(backbone)
    runner = make_engine(backbone, engine=engine, precision=precision, threads=threads)
    embedded: list[str] = []
    unreadable: dict[str, str] = {}
    batches = _batches(paths, backbone, batch_size, embedded, unreadable)
    outputs = [outputs[0] for outputs in runner.map(batches)]
    if not outputs:
        first = next(iter(unreadable.values()), "no path is given.")
        raise InputError(f"none of the {len(paths)} images can be embedded: {first}")
    values = np.concatenate(outputs)
    finite = np.isfinite(values).all(1)
    for path in np.array(embedded)[~finite]:
        unreadable[str(path)] = f"{path}: its features are NaN or infinite; check the weights."
    return Embeddings(
        paths=[path for path, is_finite in zip(embedded, finite, strict=True) if is_finite],
        values=values[finite],
        backbone=backbone.name,
        weights=backbone.fingerprint,
        engine=runner.name,
        precision=runner.precision,
        unreadable=unreadable,
    )


def _batches(
    paths: Sequence[str | Path],
    backbone: Backbone,
    batch_size: int,
    embedded: list[str],
    unreadable: dict[str, str],
) -> Iterator[np.ndarray]:
    """Yield uint8 [n, height, width, channels]; note what is embedded and what is unreadable."""
    images: list[np.ndarray] = []
    for path in tqdm(paths, desc=backbone.name, unit="image"):
        try:
            images.append(backbone.seen(read_image(path)))
        except InputError as error:
            sentence = str(error)
            named = sentence if str(path) in sentence else f"{path}: {sentence}"
            unreadable[str(path)] = named
            continue
        embedded.append(str(path))
        if len(images) == batch_size:
            yield stacked(images)
            images = []
    if images:
        yield stacked(images)


def writer_of(path: Path) -> Callable[[Embeddings, Path], None]:
    """Return the function that writes the format of a file name.

    Raises:
        InputError: If the suffix is not .csv, .parquet or .npz, or the folder cannot be written to.
    """
    if path.suffix not in _WRITERS:
        raise InputError(
            f"--out {path}: unknown suffix '{path.suffix}'; use {', '.join(_WRITERS)}."
        )
    make_folder(path.absolute().parent)
    return _WRITERS[path.suffix]


def write_embeddings(embeddings: Embeddings, path: Path) -> Path:
    """Write embeddings, whole or not at all.

    Args:
        embeddings: Result of `embed_images`.
        path: File whose suffix chooses the format: .csv or .parquet (one row per image, see
            `Embeddings.table`), or .npz (`paths`, `features` and the other facts, no pickles).

    Returns:
        The path.

    Raises:
        InputError: If the suffix is unknown, or the file cannot be written.
    """
    write = writer_of(path)
    with atomic(path.absolute()) as temporary:
        write(embeddings, temporary)
    return path


def _write_csv(embeddings: Embeddings, path: Path) -> None:
    table = embeddings.table()
    risky = table["path"].map(lambda path: FORMULA.match(path) is not None)
    table["path"] = table["path"].where(~risky, "./" + table["path"])
    table.to_csv(path, index=False, lineterminator="\n")


def _write_parquet(embeddings: Embeddings, path: Path) -> None:
    embeddings.table().to_parquet(path, index=False)


def _write_npz(embeddings: Embeddings, path: Path) -> None:
    np.savez(
        path,
        paths=np.array(embeddings.paths, dtype=str),
        features=embeddings.values,
        backbone=embeddings.backbone,
        weights=embeddings.weights,
        engine=embeddings.engine,
        precision=embeddings.precision,
    )


_WRITERS: dict[str, Callable[[Embeddings, Path], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".npz": _write_npz,
}
