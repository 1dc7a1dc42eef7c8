"""Self-supervised pre-training of a backbone from a plan and a corpus."""

from collections.abc import Callable
from pathlib import Path

import torch

from ..core.errors import InputError, wrong_type
from ..core.fabric import make_fabric
from ..core.files import make_folder
from .card import write_card
from .config import PretrainConfig
from .corpus import Corpus
from .drift import LEAST
from .loader import require_shared_memory
from .plan import Plan, RunOptions
from .progress import Progress
from .run import Run
from .run_files import another_run, holds_run, read_run, sole_user


def pretrain(
    plan: Plan,
    corpus: Corpus,
    folder: str | Path,
    *,
    options: RunOptions | None = None,
    resume: bool = False,
    probe: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    on_row: Callable[[Progress], None] | None = None,
) -> Progress:
    """Pre-train a backbone.

    The folder receives `run.json` (plan, corpus, versions), `corpus.txt` (SHA-256 of its images),
    `monitor.csv`, `last.ckpt` (everything for resuming) and `backbone.safetensors` (the teacher, by
    timm's names), and of a run from a start its card, `README.md`. Each is replaced whole, and
    verified when it is read again. SIGTERM and Ctrl-C end the run after the current step, with a
    checkpoint; a second one ends it at once.

    Args:
        plan: What to train.
        corpus: Images.
        folder: Folder of the run.
        options: How the run is carried out.
        resume: Continue the run that the folder holds, with the losses it would have had without
            the interruption.
        probe: Function of the teacher's vision transformer that returns `probe` and perhaps
            `probe_auc`, fractions.
        on_row: Called after each row of the monitor.

    Returns:
        State of the run at the end.

    Raises:
        InputError: If plan or corpus are of another type, the folder holds another run, another
            process writes into it, one of its files is damaged, the corpus is smaller than a
            batch, the disk or the shared memory of the workers is full, the loss is not finite, or
            the run collapses.
    """
    if not isinstance(plan, Plan):
        raise wrong_type("plan", plan, "a Plan of radiodino_utils.pretraining.plan")
    if not isinstance(corpus, Corpus):
        raise wrong_type("corpus", corpus, "the result of load_corpus")
    folder = Path(folder)
    options = options or RunOptions()
    _require_images(plan.config, len(corpus))
    make_folder(folder)
    _check_folder(plan, corpus, folder, resume)
    fabric = make_fabric(
        precision=options.precision,
        accelerator=options.accelerator,
        devices=options.devices,
        strategy=options.strategy,
    )
    per_process = _images_per_process(plan.config, fabric.world_size)
    if options.workers:
        require_shared_memory(plan.config, per_process, options.workers)
    if not fabric.is_global_zero:
        return Run(plan, corpus, folder, options, fabric, resume=resume).train(probe, on_row)
    with sole_user(folder):
        _check_folder(plan, corpus, folder, resume)  # again: another run may have ended since
        run = Run(plan, corpus, folder, options, fabric, resume=resume)
        progress = run.train(probe, on_row)
        if plan.start:
            write_card(progress)
        return progress


def _require_images(config: PretrainConfig, count: int) -> None:
    images = f"{count} image{'s' if count != 1 else ''}"
    if config.held_out and count < 5 * LEAST:
        raise InputError(
            f"the corpus has {images}; at least {5 * LEAST} are needed, of which {LEAST} are held "
            "out to measure the drift from the start; add some, or set held_out to 0."
        )
    if count < config.batch_size:
        raise InputError(
            f"the corpus has {images}, fewer than a batch of {config.batch_size}; "
            "lower batch_size or add some."
        )


def _check_folder(plan: Plan, corpus: Corpus, folder: Path, resume: bool) -> None:
    """Check that the folder is free, or holds the very run that is to be resumed."""
    if not holds_run(folder, resume=resume):
        return
    kept, wanted = read_run(folder), plan.identity(corpus)
    differing = [
        name
        for name in ("arch", "seed", "init", "start", "corpus")
        if kept.get(name) != wanted[name]
    ]
    differing += [
        f"config's {name}"
        for name, value in plan.config.describe().items()
        if kept["config"].get(name, PretrainConfig.model_fields[name].default) != value
    ]
    if differing:
        raise another_run(folder, differing)


def _images_per_process(config: PretrainConfig, processes: int) -> int:
    """Return the images of each process in each part of a batch."""
    images, rest = divmod(config.batch_size // config.accumulate, processes)
    if rest or not images:
        raise InputError(
            f"a batch of {config.batch_size} in {config.accumulate} parts cannot be shared evenly "
            f"by {processes} processes; change batch_size."
        )
    return images
