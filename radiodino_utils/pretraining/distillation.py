"""Distillation of frozen teachers into a small vision transformer."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm

from ..core.environment import git_revision, versions
from ..core.errors import InputError
from ..core.files import atomic, make_folder, write_json
from .distillation_config import DistillationConfig
from .distillation_run import DistillationRun
from .progress import Clock, Progress, Timer, stop_signals
from .run_files import RUN, another_run, holds_run, sole_user
from .target_store import TargetStore

MONITOR = "monitor.jsonl"
_PACKAGES = ("torch", "timm", "openvino", "numpy", "pillow")


def distill(
    config: DistillationConfig,
    store: TargetStore,
    folder: Path,
    *,
    resume: bool = False,
    precision: str = "fp32",
    stop_after: float | None = None,
    save_minutes: float = 5.0,
    probe_minutes: float = 15.0,
    monitor_every: int = 20,
    probe: Callable[[nn.Module], dict[str, float]] | None = None,
) -> Progress:
    """Distil teachers into a student.

    The folder receives `run.json`, `monitor.jsonl`, `last.ckpt` (everything for resuming) and
    `backbone.safetensors`, each whole. SIGTERM and Ctrl-C end the run after the current step, with
    a checkpoint. A run may be resumed with another length: its schedule continues from the share
    of the run that is done, and `run.json` lists the lengths.

    Args:
        config: Settings.
        store: Crops and targets.
        folder: Folder of the run.
        resume: Continue the run that the folder holds.
        precision: "bf16" (autocast) or "fp32".
        stop_after: Save and stop after so many minutes.
        save_minutes: Minutes between two checkpoints.
        probe_minutes: Minutes between two probes.
        monitor_every: Steps between two rows of the monitor.
        probe: Function of the student's vision transformer that returns named values for the
            monitor.

    Returns:
        State of the run at the end.

    Raises:
        InputError: If the folder holds another run, the disk is full, or the loss is not finite.
    """
    make_folder(folder)
    with _sole_user_of(folder, store.folder), stop_signals() as signals:
        run = _set_up(config, store, folder, resume=resume, precision=precision)
        position, clock = run.position, Clock()
        left = math.ceil((1 - position.progress) * config.crops / config.batch_size)
        progress = Progress(folder, position.step, position.step + left)
        end, next_save, next_probe = Timer(stop_after), Timer(save_minutes), Timer(probe_minutes)
        bar = tqdm(total=progress.steps, initial=position.step, desc="distilling", unit="step")
        while not position.is_end:
            result = run.training_step()
            progress.step, clock.images = position.step, clock.images + config.batch_size
            bar.update()
            if position.step % monitor_every == 0 or position.is_end:
                row = run.row(result, clock)
                if probe and (position.is_end or next_probe.is_over()):
                    row |= probe(run.student.vit)
                    next_probe.restart()
                    clock.restart()
                progress.rows.append(row)
                _append(folder / MONITOR, row)
                bar.set_postfix(loss=f"{row['loss']:.3f}", size=row["size"])
            stops = bool(signals) or end.is_over()
            if position.is_end or stops or next_save.is_over():
                run.save()
                next_save.restart()
            if stops:
                break
        bar.close()
    if signals:
        raise SystemExit(128 + signals[0])
    return progress


@contextmanager
def _sole_user_of(folder: Path, targets: Path) -> Iterator[None]:
    """Keep other runs out of the folders of a run and of its targets."""
    with sole_user(folder):
        if targets.resolve() == folder.resolve():
            yield
        else:
            with sole_user(targets):
                yield


def _set_up(
    config: DistillationConfig, store: TargetStore, folder: Path, *, resume: bool, precision: str
) -> DistillationRun:
    """Return a new or resumed run, its facts written and its monitor cut to its state."""
    facts = _facts(config, store, folder, resume)
    run = DistillationRun(config, store, folder, precision=precision)
    if resume:
        run.restore()
    length = {"from_crops": run.position.crops, "crops": config.crops}
    write_json(folder / RUN, facts | {"lengths": [*facts["lengths"], length]})
    _cut_monitor(folder / MONITOR, run.position.step)
    return run


def _facts(
    config: DistillationConfig, store: TargetStore, folder: Path, resume: bool
) -> dict[str, Any]:
    """Return the content of `run.json`, after comparing it with the run that is to be resumed."""
    settings = config.model_dump(mode="json", exclude={"crops"})  # the length may change
    identity = json.loads(json.dumps({"config": settings, "targets": store.identity}))
    lengths: list[dict[str, int]] = []
    if holds_run(folder, resume=resume):
        kept = _read_facts(folder / RUN)
        kept_settings = kept.get("config", {})
        differing = [
            name for name, value in identity["config"].items() if kept_settings.get(name) != value
        ]
        if kept.get("targets") != identity["targets"]:
            differing.append("targets")
        if differing:
            raise another_run(folder, differing)
        lengths = kept["lengths"]
    return identity | {
        "lengths": lengths,
        "sources": store.corpus.table().to_dict("records"),
        "unreadable": store.corpus.unreadable,
        "versions": versions(_PACKAGES),
        "git": git_revision(),
    }


def _read_facts(path: Path) -> dict[str, Any]:
    """Return the content of `run.json`."""
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(facts, dict) and isinstance(facts.get("config"), dict):
            return facts | {"lengths": [*facts.get("lengths", [])]}
    except (ValueError, TypeError):
        pass
    raise InputError(f"{path}: damaged, or not of a distillation; put back a copy.")


def _cut_monitor(path: Path, step: int) -> None:
    """Drop the rows after a step, of a run that was interrupted between two checkpoints."""
    if not path.is_file():
        return
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the line that a killed run was writing
            break
    kept = "".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step)
    with atomic(path) as temporary:
        temporary.write_text(kept, encoding="utf-8")


def _append(path: Path, row: dict[str, float]) -> None:
    rounded = {
        name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()
    }
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(rounded) + "\n")
