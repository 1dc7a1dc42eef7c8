"""Embeddings of image files without labels, written as a table."""

from collections import Counter
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
from ..core.files import atomic, make_folder, shortened
from ..core.prefetch import prefetched
from ..data.images import SUFFIXES, stacked
from ..data.readability import OnError, few, require_few, tolerated_share
from ..data.readers import FileReader, Reader
from ..data.unlabelled import AllImages, all_images
from .chunks import AHEAD
from .engines import make_engine

SMALL = 2  # images from which on one may be left out: no result is computed from them here


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
        unreadable: By path the reason for each image that could not be embedded.
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


def image_readers(paths: Sequence[str | Path]) -> AllImages:
    """Find the images that paths name.

    Args:
        paths: Files and folders of any kind that `data.inspect` understands.

    Returns:
        Reader of each image, files once, and how many other files are left out by reason.

    Raises:
        InputError: If a path does not exist, or holds no image.
    """
    readers: dict[str, Reader] = {}
    left_out: Counter[str] = Counter()
    for path in paths:
        found = all_images(path)
        if not found.readers:
            raise InputError(f"{path}: holds no image (known: {', '.join(SUFFIXES)}, DICOM).")
        readers |= {str(reader): reader for reader in found.readers}
        left_out.update(found.left_out)
    return AllImages(list(readers.values()), dict(left_out))


def embed_images(
    paths: Sequence[str | Path | Reader],
    backbone: Backbone | str,
    *,
    engine: str = "auto",
    precision: str = "fp32",
    batch_size: int = 16,
    threads: int | None = None,
    on_error: OnError = "skip",
) -> Embeddings:
    """Embed image files; few that cannot be read are left out and reported.

    Args:
        paths: Image files, see `read_image`, or readers of `image_readers`; of volumes the middle
            slice is embedded.
        backbone: Registered name, or backbone returned by `load_backbone`.
        engine: See `make_engine`.
        precision: See `make_engine`.
        batch_size: Images per forward pass.
        threads: See `make_engine`.
        on_error: `skip` leaves out up to 1 % of the images (`$RADIODINO_UNREADABLE`), of two or
            more at least one; `raise` none.

    Returns:
        The embeddings, in the order of the paths.

    Raises:
        InputError: If the backbone, the engine or the precision is unknown, `batch_size` is below
            1, or no image or too few can be embedded.
    """
    tolerated = tolerated_share(on_error)
    batch_size = checked_count(batch_size, what="batch_size")
    backbone = as_backbone(backbone)
    runner = make_engine(backbone, engine=engine, precision=precision, threads=threads)
    embedded: list[str] = []
    unreadable: dict[str, str] = {}
    if not paths:
        raise InputError("embed_images: no path is given.")
    readers = [path if isinstance(path, Reader) else FileReader(Path(path)) for path in paths]
    batches = _batches(readers, backbone, batch_size, tolerated, embedded, unreadable)
    values = np.concatenate([outputs[0] for outputs in runner.map(batches)])
    finite = np.isfinite(values).all(1)
    for path in np.array(embedded)[~finite]:
        unreadable[str(path)] = "its features are NaN or infinite; check the weights."
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
    readers: Sequence[Reader],
    backbone: Backbone,
    batch_size: int,
    tolerated: float | None,
    embedded: list[str],
    unreadable: dict[str, str],
) -> Iterator[np.ndarray]:
    """Yield uint8 [n, height, width, channels]; note what is embedded and what is unreadable."""

    def read(reader: Reader) -> np.ndarray | Exception:
        try:
            return backbone.seen(reader.read())
        except (InputError, OSError) as error:
            return error

    total, source = len(readers), backbone.name
    images: list[np.ndarray] = []
    results = prefetched(read, readers, ahead=AHEAD * batch_size)
    for reader, image in tqdm(zip(readers, results, strict=True), source, total, unit="image"):
        if isinstance(image, np.ndarray):
            images.append(image)
            embedded.append(str(reader))
        elif tolerated is None:
            raise image
        else:
            unreadable[str(reader)] = str(image).removeprefix(f"{reader}: ")
            if len(unreadable) > few(total, tolerated, small=SMALL):
                break
        if len(images) == batch_size:
            yield stacked(images)
            images = []
    require_few(unreadable, total, source=source, share=tolerated or 0, small=SMALL)
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


def write_unreadable(embeddings: Embeddings, path: Path) -> Path | None:
    """Write the images that could not be embedded to `NAME_unreadable.csv` beside a table.

    Args:
        embeddings: Result of `embed_images`.
        path: File of the embeddings.

    Returns:
        The path; `None` if there are none, and an old file is removed then.
    """
    beside = path.with_name(f"{shortened(path.stem, most=200)}_unreadable.csv")
    beside.unlink(missing_ok=True)
    if not embeddings.unreadable:
        return None
    rows = pd.DataFrame(list(embeddings.unreadable.items()), columns=["path", "reason"])
    with atomic(beside.absolute()) as temporary:
        _to_csv(rows, temporary)
    return beside


def _write_csv(embeddings: Embeddings, path: Path) -> None:
    _to_csv(embeddings.table(), path)


def _to_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table without paths that a spreadsheet would run as formulas."""
    risky = table["path"].map(lambda path: FORMULA.match(path) is not None)
    table.assign(path=table["path"].where(~risky, "./" + table["path"])).to_csv(
        path, index=False, lineterminator="\n"
    )


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
