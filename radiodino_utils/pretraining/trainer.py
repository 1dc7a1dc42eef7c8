"""The training loop of DINO and DINOv2 on Lightning Fabric: checkpoints, resuming, monitor."""

import resource
import shutil
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..backbones.backbone import Backbone
from ..backbones.loading import load_backbone
from ..core.environment import git_revision, versions
from ..core.errors import InputError
from ..core.extras import extra
from ..core.fabric import make_fabric
from ..core.files import atomic, make_folder, require_space
from .config import Recipe
from .corpus import Corpus
from .monitor import Monitor, measures, require_finite
from .networks import Criterion, Loss, Network, make_pair, parameter_groups, schedule
from .run_files import (
    BACKBONE,
    MONITOR,
    RUN,
    STATE,
    export_backbone,
    read_run,
    read_state,
    sole_user,
    write_run,
)
from .views import Views, ViewSet

with extra("train"):
    from lightly.models.utils import update_momentum
    from lightning.fabric import Fabric, seed_everything

SHARED = Path("/dev/shm")  # through which loader processes pass their tensors


@dataclass(frozen=True)
class Plan:
    """What a run is: two runs with the same plan give the same backbone.

    Attributes:
        arch: t16, s16, b16 or s8.
        recipe: All settings.
        seed: Of weights, draws and views.
        init: A state file of another run whose weights it starts from, or nothing.
    """

    arch: str
    recipe: Recipe
    seed: int = 0
    init: Path | None = None


@dataclass(frozen=True)
class Running:
    """How a run is carried out; none of it changes what comes out.

    Attributes:
        precision: "auto" takes bf16 where the processor or GPU computes in it, "bf16", "fp32".
        accelerator: "auto", "cpu" or "cuda".
        devices: Processes on this machine; what `torchrun` started, or one, by default.
        strategy: "auto" (DDP for several processes), "ddp" or "fsdp" (for GPUs).
        workers: Loader processes; 0 makes the views between the steps.
        loader_seconds: Longest wait for a batch of theirs.
        monitor_every: Steps.
        save_minutes: Between two checkpoints.
        probe_minutes: Between two probes.
        stop_after: Stop (and save) after so many minutes.
        stop_at: Stop (and save) after so many steps of the whole run.
    """

    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | None = None
    strategy: str = "auto"
    workers: int = 0
    loader_seconds: float = 600.0
    monitor_every: int = 10
    save_minutes: float = 5.0
    probe_minutes: float = 15.0
    stop_after: float | None = None
    stop_at: int | None = None


@dataclass
class Progress:
    """Where a run stands: what a callback sees and a call gives back.

    Attributes:
        folder: The run's folder.
        step: Steps done.
        steps: Steps of the whole run.
        rows: Rows of the monitor written by this call.
    """

    folder: Path
    step: int
    steps: int
    rows: list[dict] = field(default_factory=list)

    @property
    def backbone(self) -> Path:
        """The exported teacher: `load_backbone(f"file:{progress.backbone}")`."""
        return self.folder / BACKBONE

    def load(self, name: str = "this-run") -> Backbone:
        """The exported teacher as a backbone, under a name for tables."""
        return replace(load_backbone(f"file:{self.backbone}"), name=name)


def pretrain(
    plan: Plan,
    corpus: Corpus,
    folder: Path,
    *,
    running: Running | None = None,
    resume: bool = False,
    probe: Callable[[torch.nn.Module], dict[str, float]] | None = None,
    on_row: Callable[[Progress], None] | None = None,
) -> Progress:
    """Pre-trains a backbone.

    Writes into the folder: `run.json` (the plan, the corpus, versions), `corpus.txt` (SHA-256 of
        its images),
    `monitor.csv`, `last.ckpt` (everything for resuming) and `backbone.safetensors` (the teacher, by
    timm's names). Each is replaced whole and verified when it is read again. SIGTERM and Ctrl-C end
    the run after the step under way, with a checkpoint; a second one ends it at once.

    Args:
        plan: What to do.
        corpus: Images.
        folder: Where to.
        running: How.
        resume: Go on with the run that the folder holds; the same losses as without the
            interruption.
        probe: Given the teacher's vision transformer, gives `probe` and perhaps `probe_auc`,
            fractions.
        on_row: Called after each row of the monitor.

    Returns:
        Where the run stands at the end.

    Raises:
        InputError: If the folder holds another run, another process writes into it, one of its
            files is damaged, the corpus is smaller than a batch, the disk or the shared memory of
            the workers is full, the loss is not finite, or the run collapses.
    """
    running = running or Running()
    if len(corpus) < plan.recipe.batch_size:
        raise InputError(
            f"the corpus has {len(corpus)} images, fewer than a batch of {plan.recipe.batch_size}; lower batch_size "
            "or add some."
        )
    make_folder(folder)
    _check_folder(plan, corpus, folder, resume)
    fabric = make_fabric(
        precision=running.precision,
        accelerator=running.accelerator,
        devices=running.devices,
        strategy=running.strategy,
    )
    per_process, rest = divmod(plan.recipe.batch_size // plan.recipe.accumulate, fabric.world_size)
    if rest or not per_process:
        raise InputError(
            f"a batch of {plan.recipe.batch_size} in {plan.recipe.accumulate} parts cannot be shared evenly by "
            f"{fabric.world_size} processes; change batch_size."
        )
    if running.workers:
        _require_shared_memory(plan.recipe, per_process, running.workers)
    if not fabric.is_global_zero:
        return Run(plan, corpus, folder, running, fabric, resume).train(probe, on_row)
    with sole_user(folder):
        _check_folder(plan, corpus, folder, resume)  # once more: another run may have ended since
        return Run(plan, corpus, folder, running, fabric, resume).train(probe, on_row)


def run_folder(name: str = "") -> Path:
    """The folder of that name, or a new temporary one."""
    return Path(name or tempfile.mkdtemp(prefix="radiodino-"))


def _identity(plan: Plan, corpus: Corpus) -> dict[str, object]:
    return {
        "arch": plan.arch,
        "seed": plan.seed,
        "init": plan.init.name if plan.init else None,
        "corpus": corpus.digest,
        "recipe": plan.recipe.describe(),
    }


def _check_folder(plan: Plan, corpus: Corpus, folder: Path, resume: bool) -> None:
    there = (folder / RUN).is_file() and (folder / STATE).is_file()
    if resume and not there:
        raise InputError(f"{folder}: holds no run to resume; leave out resume to start one.")
    if there and not resume:
        raise InputError(f"{folder}: holds a run already; resume it, or choose another folder.")
    if not there:
        return
    kept, wanted = read_run(folder), _identity(plan, corpus)
    differing = [
        name for name in ("arch", "seed", "init", "corpus") if kept.get(name) != wanted[name]
    ]
    differing += [
        f"recipe's {key}"
        for key, value in wanted["recipe"].items()
        if kept["recipe"].get(key) != value
    ]
    if differing:
        raise InputError(
            f"{folder}: holds another run ({', '.join(differing)} differ); use its settings or another folder."
        )


class Run:
    """A run that is set up and can make its steps; `pretrain` is the way to carry out a whole one.

    Args:
        plan: What to do.
        corpus: Images.
        folder: Where its files go.
        running: How.
        fabric: Made by `core.fabric.make_fabric`.
        resume: Start from the folder's checkpoint.
    """

    def __init__(
        self,
        plan: Plan,
        corpus: Corpus,
        folder: Path,
        running: Running,
        fabric: Fabric,
        resume: bool = False,
    ) -> None:
        self.plan, self.recipe, self.corpus, self.folder = plan, plan.recipe, corpus, folder
        self.running, self.fabric, self.is_sharded = running, fabric, running.strategy == "fsdp"
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # lightly's heads use the older weight_norm
            seed_everything(plan.seed, verbose=False)
            student, teacher = make_pair(plan.arch, self.recipe)
        criterion = Criterion(self.recipe)
        if plan.init:
            _start_from(plan.init, student, teacher, criterion)
        require_space(folder, 40 * sum(one.numel() for one in student.parameters()))
        optimizer = torch.optim.AdamW(
            parameter_groups(student, self.recipe), lr=self.recipe.peak_lr, fused=True
        )
        self.bare = student
        self.student, self.optimizer = fabric.setup(student, optimizer)
        self.teacher = (
            fabric.setup_module(teacher) if self.is_sharded else fabric.to_device(teacher)
        )
        self.criterion = fabric.to_device(criterion)
        self.step, self.monitor, seal = 0, None, None
        if resume:
            seal = read_state(folder / STATE)["monitor"]
            self.step = fabric.load(folder / STATE, self._state())["step"]
        if fabric.is_global_zero:
            self.monitor = Monitor(
                folder / MONITOR, outputs=self.recipe.output_dim, step=self.step, seal=seal
            )
            if resume:
                export_backbone(folder)  # a run that was killed between the two has an older one
            facts = {
                "sources": corpus.table().to_dict("records"),
                "unreadable": corpus.unreadable,
                "processes": fabric.world_size,
                "device": str(fabric.device),
                "precision": fabric._precision.precision,
                "versions": versions(("torch", "timm", "lightly", "lightning", "numpy", "pillow")),
                "git": git_revision(),
            }
            write_run(folder, _identity(plan, corpus) | facts, corpus.digests)

    def train(
        self,
        probe: Callable[[torch.nn.Module], dict[str, float]] | None,
        on_row: Callable[[Progress], None] | None,
    ) -> Progress:
        """Makes all steps that are left, with monitor, probe and checkpoints; see `pretrain`."""
        recipe, running = self.recipe, self.running
        is_first = self.fabric.is_global_zero
        progress = Progress(self.folder, self.step, recipe.steps)
        batches, clock = iter(self.batches()), Clock()
        began = saved = probed = time.monotonic()
        with (
            _asked_to_stop() as signals,
            tqdm(
                total=recipe.steps,
                initial=self.step,
                desc="pre-training",
                unit="step",
                disable=not is_first,
            ) as bar,
        ):
            while self.step < recipe.steps:
                now = schedule(recipe, self.step)
                loss, norm = self.one_step(batches, now, clock)
                self.step += 1
                progress.step = self.step
                bar.update()
                is_last = self.step == recipe.steps
                if self.monitor and (
                    self.step % running.monitor_every == 0 or self.step == 1 or is_last
                ):
                    row = self._row(loss, now, norm, clock)
                    if probe and (
                        is_last or time.monotonic() - probed > 60 * running.probe_minutes
                    ):
                        row |= probe(_plain(self.teacher).vit)
                        probed = time.monotonic()
                        clock.restart()
                    progress.rows.append(row)
                    bar.set_postfix(
                        loss=f"{row['loss']:.3f}",
                        rank=f"{row['effective_rank']:.0f}",
                        data=f"{row['data_share']:.0%}",
                    )
                    self.monitor.write(row)
                    if on_row:
                        on_row(progress)
                minutes = (time.monotonic() - began) / 60
                is_over = running.stop_after is not None and minutes > running.stop_after
                stops = self._any(signals or is_over or self.step == running.stop_at)
                if (
                    is_last
                    or stops
                    or self._any(time.monotonic() - saved > 60 * running.save_minutes)
                ):
                    self._save()
                    saved = time.monotonic()
                if stops:
                    break
        if signals:
            raise SystemExit(128 + signals[0])
        return progress

    def batches(self) -> DataLoader:
        """The views of every step from here on."""
        data = ViewSet(
            self.corpus,
            self.recipe,
            seed=self.plan.seed,
            rank=self.fabric.global_rank,
            world=self.fabric.world_size,
        )
        return DataLoader(
            data,
            batch_size=None,
            sampler=range(self.step * self.recipe.accumulate, len(data)),
            num_workers=self.running.workers,
            timeout=self.running.loader_seconds if self.running.workers else 0,
            pin_memory=self.fabric.device.type == "cuda",
        )

    def one_step(
        self, batches: Iterator[Views], now: dict[str, float], clock: "Clock"
    ) -> tuple[Loss, float]:
        """Makes a step of the optimiser and of the teacher.

        Args:
            batches: An iterator over `batches`.
            now: What `schedule` gives for the step.
            clock: Learns how long it waited for the batch.

        Returns:
            The losses (of the last part of an accumulated batch) and the norm of the gradient
            before clipping.
        """
        recipe, fabric = self.recipe, self.fabric
        is_frozen = self.step < recipe.freeze_last_layer * recipe.steps
        for group in self.optimizer.param_groups:
            stands = is_frozen and group["is_last"] and recipe.freeze_by == "rate"
            group["lr"] = 0.0 if stands else now["lr"] * group["lr_scale"]
            group["weight_decay"] = now["weight_decay"] if group["decays"] else 0.0
        # drop path draws from torch's generator: seeded by the step, so that resuming needs no
        # state of it
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step) * 4099 + fabric.global_rank)
        self.student.train()
        for part in range(recipe.accumulate):
            with clock.waiting():
                views = _next(batches)
                views = Views(
                    *(
                        fabric.to_device(one)
                        for one in (views.global_views, views.local_views, views.masks)
                    )
                )
            with fabric.no_backward_sync(self.student, enabled=part + 1 < recipe.accumulate):
                with fabric.autocast():
                    loss = self.criterion(self.student, self.teacher, views, now["teacher_temp"])
                require_finite(loss, self.step, now["lr"])
                fabric.backward(loss.total / recipe.accumulate)
        norm = self._clip()
        if is_frozen and recipe.freeze_by == "gradient":
            for head in self.bare.heads:
                head.cancel_last_layer_gradients(head.freeze_last_layer - 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_momentum(self.bare, _plain(self.teacher), now["momentum"])
        clock.images += recipe.batch_size
        return loss, norm

    def _clip(self) -> float:
        """Clips the gradient and gives its norm before."""
        clip = self.recipe.clip or float("inf")
        limit = clip if self.is_sharded else float("inf")
        norm = self.fabric.clip_gradients(
            self.student, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        if not self.is_sharded:
            parts = [
                self.bare.backbone.parameters(),
                *(head.parameters() for head in self.bare.heads),
            ]
            for part in self.bare.parameters() if self.recipe.clip_each else parts:
                torch.nn.utils.clip_grad_norm_(part, clip)
        return norm.item()

    def _row(
        self, loss: Loss, now: dict[str, float], norm: float, clock: "Clock"
    ) -> dict[str, float]:
        rate, share = clock.read()
        return {
            "step": self.step,
            "images": self.step * self.recipe.batch_size,
            "loss": loss.total.item(),
            **{name: part.item() for name, part in loss.parts.items()},
            **measures(loss, self.criterion.dino.center, self.recipe.student_temp),
            **now,
            "gradient_norm": norm,
            "images_per_second": rate,
            "data_share": share,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _any(self, value: object) -> bool:
        """Whether the value is true in any process, so that all stop and save together."""
        if self.fabric.world_size == 1:
            return bool(value)
        return bool(self.fabric.all_reduce(torch.tensor(float(bool(value))), reduce_op="sum") > 0)

    def _state(self) -> dict[str, object]:
        return {
            "student": self.student,
            "teacher": self.teacher,
            "criterion": self.criterion,
            "optimizer": self.optimizer,
        }

    def _save(self) -> None:
        is_first, path = self.fabric.is_global_zero, self.folder / STATE
        with atomic(path) if is_first else nullcontext() as temporary:
            facts = {"step": self.step, "num_heads": self.bare.vit.blocks[0].attn.num_heads}
            facts["monitor"] = self.monitor.seal if self.monitor else None
            self.fabric.save(self.fabric.broadcast(temporary), self._state() | facts)
        if is_first:
            export_backbone(self.folder)


def _start_from(path: Path, student: Network, teacher: Network, criterion: Criterion) -> None:
    state = read_state(path)
    try:
        for module, name in ((student, "student"), (teacher, "teacher"), (criterion, "criterion")):
            module.load_state_dict(state[name])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(
            f"{path}: is of another architecture, method or output_dim: {first}"
        ) from error


def _require_shared_memory(recipe: Recipe, count: int, workers: int) -> None:
    """Check that the batches under way fit: a loader process that cannot pass one on never says so."""
    if not SHARED.is_dir():
        return
    pixels = 2 * recipe.global_size**2 + recipe.local_count * recipe.local_size**2
    needed, free = (2 * workers + 1) * count * pixels * 3 * 4, shutil.disk_usage(SHARED).free
    if free < needed:
        raise InputError(
            f"workers {workers}: their batches need {needed / 1e6:.0f} MB of shared memory, and {SHARED} has "
            f"{free / 1e6:.0f} MB free; take workers 0 or a smaller batch, or enlarge it (docker run --shm-size 2g)."
        )


def _next(batches: Iterator[Views]) -> Views:
    try:
        return next(batches)
    except InputError as error:  # of a loader process, with its traceback before the sentence
        raise InputError(str(error).rpartition("InputError: ")[2].strip()) from error
    except RuntimeError as error:
        if "DataLoader" not in str(error):
            raise
        raise InputError(
            f"the loader processes gave no batch ({str(error).splitlines()[0]}); take workers 0, enlarge the shared "
            "memory (docker run --shm-size 2g), or raise loader_seconds. The last checkpoint is intact."
        ) from error


def _plain(module: torch.nn.Module) -> Network:
    return module if isinstance(module, Network) else module.module


class Clock:
    """Images per second and the share of the time spent waiting for data, since the last reading.

    Attributes:
        images: Number done; whoever does them adds to it.
        waited: Seconds.
    """

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begins anew."""
        self._start, self.waited, self.images = time.monotonic(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the block as waiting."""
        since = time.monotonic()
        yield
        self.waited += time.monotonic() - since

    def read(self) -> tuple[float, float]:
        """Images per second and share of waiting; begins anew."""
        passed = max(time.monotonic() - self._start, 1e-9)
        result = self.images / passed, self.waited / passed
        self.restart()
        return result


@contextmanager
def _asked_to_stop() -> Iterator[list[int]]:
    """Collect SIGTERM and SIGINT, so that the step under way can end and be saved; a second one acts as it did before."""
    asked, before = [], {}

    def note(number: int, _: object) -> None:
        asked.append(number)
        for one, handler in before.items():
            signal.signal(one, handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        try:
            before[number] = signal.signal(number, note)
        except ValueError:  # not in the main thread
            break
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
