"""Batches of views, prepared by worker processes or between the steps."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torch.utils.data import DataLoader

from ..core.errors import InputError
from ..core.extras import extra
from .config import PretrainConfig
from .corpus import Corpus
from .plan import RunOptions
from .views import Views, ViewSet

with extra("train"):
    from lightning.fabric import Fabric

SHARED_MEMORY = Path("/dev/shm")  # through which workers pass their tensors


def make_loader(
    corpus: Corpus,
    config: PretrainConfig,
    options: RunOptions,
    *,
    seed: int,
    step: int,
    fabric: Fabric,
) -> DataLoader:
    """Return a loader of the views of all steps of a run from one on.

    Args:
        corpus: Images.
        config: Settings of the run.
        options: Workers.
        seed: Seed of draws and views.
        step: Steps done.
        fabric: Process and device.
    """
    views = ViewSet(corpus, config, seed=seed, rank=fabric.global_rank, world=fabric.world_size)
    return DataLoader(
        views,
        batch_size=None,
        sampler=range(step * config.accumulate, len(views)),
        num_workers=options.workers,
        timeout=options.loader_seconds if options.workers else 0,
        pin_memory=fabric.device.type == "cuda",
    )


def next_batch(batches: Iterator[Views]) -> Views:
    """Return the next batch; errors of loader processes become one sentence.

    Raises:
        InputError: If a worker failed, or gave no batch in time.
    """
    try:
        return next(batches)
    except InputError as error:  # of a loader process, with its traceback before the sentence
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise InputError(
            f"the loader processes gave no batch ({str(error).splitlines()[0]}); take workers 0, "
            "enlarge the shared memory (docker run --shm-size 2g), or raise loader_seconds. "
            "The last checkpoint is intact."
        ) from error


def require_shared_memory(config: PretrainConfig, images: int, workers: int) -> None:
    """Check that the batches of the workers fit into the shared memory.

    A worker that cannot pass its batch on hangs without a word.

    Args:
        config: Sizes of the views.
        images: Images of each process in each part of a batch.
        workers: Number of workers.

    Raises:
        InputError: If they do not fit.
    """
    if not SHARED_MEMORY.is_dir():
        return
    pixels = 2 * config.global_size**2 + config.local_count * config.local_size**2
    needed = (2 * workers + 1) * images * pixels * 3 * 4
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free < needed:
        raise InputError(
            f"workers {workers}: their batches need {needed / 1e6:.0f} MB of shared memory, and "
            f"{SHARED_MEMORY} has {free / 1e6:.0f} MB free; take workers 0 or a smaller batch, or "
            "enlarge it (docker run --shm-size 2g)."
        )
