"""The training loop of DINO and DINOv2 on Lightning Fabric: checkpoints, resuming, monitor."""

import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightly.models.utils import update_momentum
from lightning.fabric import Fabric, seed_everything
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from .augment import Views, ViewSet
from .corpus import Corpus
from .distillation import Criterion, Network, clip_gradients, make_pair, parameter_groups, schedule
from .errors import InputError
from .files import atomic, make_folder, require_space, write_json
from .monitor import Monitor, measures, require_finite
from .provenance import cpu_count, git_revision, versions
from .recipes import Recipe

RUN, STATE, BACKBONE, MONITOR = "run.json", "last.ckpt", "backbone.safetensors", "monitor.csv"
STRATEGIES = ("auto", "ddp", "fsdp")


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
        monitor_every: Steps.
        save_minutes: Between two checkpoints.
        probe_minutes: Between two probes.
        stop_after: Stop (and save) after so many minutes.
    """

    precision: str = "auto"
    accelerator: str = "auto"
    devices: int | None = None
    strategy: str = "auto"
    workers: int = 0
    monitor_every: int = 10
    save_minutes: float = 5.0
    probe_minutes: float = 15.0
    stop_after: float | None = None


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

    Writes into the folder: `run.json` (the plan, the corpus, versions), `monitor.csv`, `last.ckpt` (everything for
    resuming) and `backbone.safetensors` (the teacher, by timm's names). Each is replaced whole. SIGTERM and Ctrl-C
    end the run after the step under way, with a checkpoint.

    Args:
        plan: What to do.
        corpus: Pictures.
        folder: Where to.
        running: How.
        resume: Go on with the run that the folder holds; the same losses as without the interruption.
        probe: Given the teacher's vision transformer, gives `probe` and perhaps `probe_auc`, fractions.
        on_row: Called after each row of the monitor.

    Returns:
        Where the run stands at the end.

    Raises:
        InputError: If the folder holds another run, the corpus is smaller than a batch, the disk is full, the loss is
            not finite, or the run collapses.
    """
    running = running or Running()
    if len(corpus) < plan.recipe.batch_size:
        raise InputError(
            f"the corpus has {len(corpus)} pictures, fewer than a batch of {plan.recipe.batch_size}; lower batch_size or add some."
        )
    make_folder(folder)
    _check_folder(plan, corpus, folder, resume)
    fabric = _fabric(running)
    per_process, rest = divmod(plan.recipe.batch_size // plan.recipe.accumulate, fabric.world_size)
    if rest or not per_process:
        raise InputError(
            f"a batch of {plan.recipe.batch_size} in {plan.recipe.accumulate} parts cannot be shared by {fabric.world_size} processes."
        )
    run = _Run(plan, corpus, folder, running, fabric, resume)
    return run.train(probe, on_row)


def _fabric(running: Running) -> Fabric:
    world, local = (int(os.environ.get(key, 0)) for key in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    devices = running.devices or local or 1
    strategy = running.strategy if running.strategy != "auto" else "ddp" if (world or devices) > 1 else "auto"
    cuda = running.accelerator in ("auto", "cuda") and torch.cuda.is_available()
    if running.accelerator == "cuda" and not cuda:
        raise InputError("accelerator cuda: this machine has no GPU that torch can use; choose cpu.")
    if strategy == "fsdp":
        if not cuda:
            raise InputError("strategy fsdp: needs GPUs; use ddp on CPUs.")
        from lightning.fabric.strategies import FSDPStrategy

        strategy = FSDPStrategy(use_orig_params=True, state_dict_type="full")
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=devices,
        num_nodes=world // local if local else 1,
        strategy=strategy,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[_precision(running.precision, cuda)],
    )
    fabric.launch()
    return fabric


def _precision(wanted: str, cuda: bool) -> str:
    if wanted != "auto":
        return wanted
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def _identity(plan: Plan, corpus: Corpus) -> dict[str, object]:
    return {
        "arch": plan.arch,
        "seed": plan.seed,
        "recipe": plan.recipe.describe(),
        "corpus": corpus.digest,
        "init": plan.init.name if plan.init else None,
    }


def _check_folder(plan: Plan, corpus: Corpus, folder: Path, resume: bool) -> None:
    path = folder / RUN
    if not path.is_file() or not (folder / STATE).is_file():
        if resume and path.is_file():
            return
        if resume:
            raise InputError(f"{folder}: holds no run to resume; leave out resume to start one.")
        return
    if not resume:
        raise InputError(f"{folder}: holds a run already; resume it, or choose another folder.")
    kept, wanted = json.loads(path.read_text()), _identity(plan, corpus)
    flat = {**{f"recipe {key}": key for key in wanted["recipe"]}}
    differing = [name for name in ("arch", "seed", "corpus", "init") if kept.get(name) != wanted[name]]
    differing += [label for label, key in flat.items() if kept["recipe"].get(key) != wanted["recipe"][key]]
    if differing:
        raise InputError(f"{folder}: holds another run: {', '.join(differing)} differ; use its settings or another folder.")


class _Run:
    def __init__(
        self, plan: Plan, corpus: Corpus, folder: Path, running: Running, fabric: Fabric, resume: bool
    ) -> None:
        self.plan, self.recipe, self.corpus, self.folder = plan, plan.recipe, corpus, folder
        self.running, self.fabric = running, fabric
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly's heads use the older weight_norm
            seed_everything(plan.seed, verbose=False)
            student, teacher = make_pair(plan.arch, self.recipe)
        criterion = Criterion(self.recipe)
        if plan.init:
            _start_from(plan.init, student, teacher, criterion)
        optimizer = torch.optim.AdamW(parameter_groups(student, self.recipe), lr=self.recipe.peak_lr, fused=True)
        self.student, self.optimizer = fabric.setup(student, optimizer)
        self.teacher = fabric.setup_module(teacher) if running.strategy == "fsdp" else fabric.to_device(teacher)
        self.criterion, self.bare = fabric.to_device(criterion), student
        self.step = 0
        if resume and (folder / STATE).is_file():
            self._load()
        if fabric.is_global_zero:
            require_space(folder, 40 * sum(one.numel() for one in student.parameters()))
            facts = {"versions": versions(("torch", "timm", "lightly", "lightning", "numpy", "pillow")), "git": git_revision()}
            sources = self.corpus.table().to_dict("records")
            write_json(folder / RUN, _identity(plan, corpus) | {"sources": sources} | facts | {"unreadable": corpus.unreadable})
        fabric.barrier()

    def train(self, probe: Callable | None, on_row: Callable | None) -> Progress:
        recipe, fabric = self.recipe, self.fabric
        progress = Progress(self.folder, self.step, recipe.steps)
        monitor = Monitor(self.folder / MONITOR, outputs=recipe.output_dim, step=self.step) if fabric.is_global_zero else None
        views = iter(self._loader())
        clock = _Clock()
        saved = probed = time.monotonic()
        with _Stop() as stop, tqdm(total=recipe.steps, initial=self.step, unit="step", disable=not fabric.is_global_zero) as bar:
            while self.step < recipe.steps:
                now = schedule(recipe, self.step)
                loss, norm = self._one_step(views, now, clock)
                self.step += 1
                progress.step = self.step
                bar.update()
                done = self.step == recipe.steps
                ended = stop.asked or (running_out := clock.minutes > (self.running.stop_after or float("inf")))  # noqa: F841
                if monitor and (self.step % self.running.monitor_every == 0 or self.step == 1 or done):
                    row = self._row(loss, now, norm, clock)
                    if probe and (done or time.monotonic() - probed > 60 * self.running.probe_minutes):
                        row |= probe(_plain(self.teacher).vit)
                        probed = time.monotonic()
                        clock.restart()
                    progress.rows.append(row)
                    bar.set_postfix(loss=f"{row['loss']:.3f}", rank=f"{row['effective_rank']:.0f}", data=f"{row['data_share']:.0%}")
                    monitor.write(row)
                    if on_row:
                        on_row(progress)
                ended = bool(self._agreed(float(ended)))
                if done or ended or self._agreed(float(time.monotonic() - saved > 60 * self.running.save_minutes)):
                    self._save()
                    saved = time.monotonic()
                if ended:
                    break
        if stop.asked and self.step < recipe.steps:
            raise SystemExit(128 + stop.asked)
        return progress

    def _loader(self) -> DataLoader:
        recipe, fabric = self.recipe, self.fabric
        data = ViewSet(self.corpus, recipe, seed=self.plan.seed, rank=fabric.global_rank, world=fabric.world_size)
        order = range(self.step * recipe.accumulate, len(data))
        workers = self.running.workers
        return DataLoader(data, batch_size=None, sampler=order, num_workers=workers, pin_memory=fabric.device.type == "cuda")

    def _one_step(self, views: object, now: dict[str, float], clock: "_Clock") -> tuple:
        recipe, fabric = self.recipe, self.fabric
        for group in self.optimizer.param_groups:
            group["lr"] = now["lr"] * group["lr_scale"]
            group["weight_decay"] = now["weight_decay"] if group["decays"] else 0.0
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step) * 4099 + fabric.global_rank)  # drop path, without a state
        self.student.train()
        for part in range(recipe.accumulate):
            with clock.waiting():
                batch = next(views)
                batch = Views(*(fabric.to_device(one) for one in (batch.global_views, batch.local_views, batch.masks)))
            with fabric.no_backward_sync(self.student, enabled=part + 1 < recipe.accumulate), fabric.autocast():
                loss = self.criterion(self.student, self.teacher, batch, now["teacher_temp"])
                require_finite(loss, self.step, now["lr"])
                fabric.backward(loss.total / recipe.accumulate)
        norm = clip_gradients(self.student, recipe)
        if self.step < recipe.freeze_last_layer * recipe.steps:
            for head in (self.bare.head, self.bare.patch_head):
                if head is not None:
                    head.cancel_last_layer_gradients(head.freeze_last_layer - 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_momentum(self.bare, _plain(self.teacher), now["momentum"])
        clock.count(recipe.batch_size)
        return loss, norm

    def _row(self, loss: object, now: dict[str, float], norm: float, clock: "_Clock") -> dict[str, float]:
        rate, share = clock.read()
        return {
            "step": self.step,
            "pictures": self.step * self.recipe.batch_size,
            "loss": loss.total.item(),
            **{name: part.item() for name, part in loss.parts.items()},
            **measures(loss, self.criterion.dino.center, self.recipe.student_temp),
            **now,
            "gradient_norm": norm,
            "pictures_per_second": rate,
            "data_share": share,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _agreed(self, value: float) -> float:
        """The greatest value of any process, so that all stop and save together."""
        return value if self.fabric.world_size == 1 else float(self.fabric.all_reduce(torch.tensor(value), reduce_op="max"))

    def _state(self) -> dict[str, object]:
        return {"student": self.student, "teacher": self.teacher, "criterion": self.criterion, "optimizer": self.optimizer}

    def _save(self) -> None:
        fabric = self.fabric
        weights = _plain(self.teacher).vit.state_dict()
        if fabric.world_size > 1 and self.running.strategy == "fsdp":
            fabric.save(self.folder / STATE, self._state() | {"step": self.step})
        elif fabric.is_global_zero:
            with atomic(self.folder / STATE) as temporary:
                fabric.save(temporary, self._state() | {"step": self.step})
        if fabric.is_global_zero:
            with atomic(self.folder / BACKBONE) as temporary:
                save_file({name: one.detach().float().contiguous().cpu() for name, one in weights.items()}, temporary)
        fabric.barrier()

    def _load(self) -> None:
        self.step = self.fabric.load(self.folder / STATE, self._state())["step"]


def _start_from(path: Path, student: Network, teacher: Network, criterion: Criterion) -> None:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for module, name in ((student, "student"), (teacher, "teacher"), (criterion, "criterion")):
            module.load_state_dict(state[name])
    except (OSError, KeyError) as error:
        raise InputError(f"{path}: not the state of a run ({error}); name the last.ckpt of one.") from error
    except RuntimeError as error:
        lines = str(error).splitlines()
        raise InputError(f"{path}: is of another architecture or method: {' '.join(lines[1:3]).strip()}") from error


def _plain(module: torch.nn.Module) -> Network:
    return getattr(module, "module", module) if not isinstance(module, Network) else module


class _Clock:
    """Pictures per second and the share of the time spent waiting for data, since the last reading."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.restart()

    @property
    def minutes(self) -> float:
        return (time.monotonic() - self._begin) / 60

    def restart(self) -> None:
        self._start, self._waited, self._pictures = time.monotonic(), 0.0, 0

    def waiting(self) -> "_Clock":
        return self

    def __enter__(self) -> None:
        self._since = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._waited += time.monotonic() - self._since

    def count(self, pictures: int) -> None:
        self._pictures += pictures

    def read(self) -> tuple[float, float]:
        passed = max(time.monotonic() - self._start, 1e-9)
        result = self._pictures / passed, self._waited / passed
        self.restart()
        return result


class _Stop:
    """Remembers SIGTERM and SIGINT until the step under way is done."""

    def __enter__(self) -> "_Stop":
        self.asked, self._before = 0, {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self._before[number] = signal.signal(number, self._remember)
            except ValueError:  # not in the main thread
                break
        return self

    def _remember(self, number: int, _: object) -> None:
        self.asked = number

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def threads(count: int | None = None) -> int:
    """Fixes the threads of torch; all processors that the process may use by default."""
    torch.set_num_threads(count or cpu_count())
    return torch.get_num_threads()


def picked(names: Sequence[str]) -> list[str]:
    """Names without doubles, in order."""
    return list(dict.fromkeys(names))
