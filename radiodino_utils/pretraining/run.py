"""A run of DINO or DINOv2 on Lightning Fabric: set-up, steps, checkpoints, resuming."""

import resource
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from ..core.environment import git_revision, versions
from ..core.extras import extra
from ..core.files import atomic, require_space
from .continuation import Continuation
from .corpus import Corpus
from .loader import make_loader, next_batch
from .losses import Criterion, Loss
from .monitor import COLUMNS, START_COLUMNS, Monitor, measures, require_finite
from .networks import Network, make_pair
from .optimizer import parameter_groups
from .plan import Plan, RunOptions
from .progress import Clock, Progress, Timer, stop_signals
from .run_files import MONITOR, STATE, export_backbone, load_weights, read_state, write_run
from .schedules import schedule
from .views import Views

with extra("train"):
    from lightly.models.utils import update_momentum
    from lightning.fabric import Fabric, seed_everything

_PACKAGES = ("torch", "timm", "lightly", "lightning", "numpy", "pillow")


class Run:
    """A run that is set up and can make its steps; `trainer.pretrain` carries out a whole one.

    Args:
        plan: What to train.
        corpus: Images.
        folder: Folder of the run.
        options: How the run is carried out.
        fabric: Returned by `core.fabric.make_fabric`.
        resume: Start from the folder's checkpoint.

    Attributes:
        network: The student, not wrapped for several processes.
        student: The student as the optimizer trains it.
        teacher: The teacher, perhaps wrapped.
        step: Steps done.
    """

    def __init__(
        self,
        plan: Plan,
        corpus: Corpus,
        folder: Path,
        options: RunOptions,
        fabric: Fabric,
        *,
        resume: bool = False,
    ) -> None:
        self.plan, self.config, self.corpus, self.folder = plan, plan.config, corpus, folder
        self.options, self.fabric, self.is_sharded = options, fabric, options.strategy == "fsdp"
        self.continuation = Continuation(plan, corpus) if plan.start else None
        self._set_up_networks()
        self.step, seal = 0, None
        self.monitor: Monitor | None = None
        if resume:
            seal = read_state(folder / STATE)["monitor"]
            rest = fabric.load(folder / STATE, self._state())
            self.step = rest["step"]
            if self.continuation:
                self.continuation.end = rest["end"]
        if fabric.is_global_zero:
            self.monitor = Monitor(
                folder / MONITOR,
                outputs=self.config.output_dim,
                columns=(*COLUMNS, *START_COLUMNS) if plan.start else COLUMNS,
                step=self.step,
                seal=seal,
            )
            if resume:
                export_backbone(folder)  # a run that was killed between the two has an older one
            write_run(folder, plan.identity(corpus) | self._facts(), corpus.digests)

    def train(
        self,
        probe: Callable[[torch.nn.Module], dict[str, float]] | None = None,
        on_row: Callable[[Progress], None] | None = None,
    ) -> Progress:
        """Make all remaining steps, with monitor, probe and checkpoints; see `pretrain`."""
        options = self.options
        progress = Progress(self.folder, self.step, self.config.steps, end=self._end)
        batches, clock = iter(self.batches()), Clock()
        end, save, next_probe = (
            Timer(minutes)
            for minutes in (options.stop_after, options.save_minutes, options.probe_minutes)
        )
        with stop_signals() as signals, self._progress_bar() as bar:
            while self.step < self.config.steps and not self._end:
                scheduled = schedule(self.config, self.step)
                loss, norm = self.training_step(batches, scheduled, clock)
                self.step += 1
                bar.update()
                checked = self._checked()
                progress.step, progress.end = self.step, self._end
                if self._is_monitored() or (checked and self.monitor):
                    row = self._row(loss, scheduled, norm, clock) | checked
                    if probe and (self._is_done() or next_probe.is_over()):
                        row |= probe(_unwrapped(self.teacher).vit)
                        next_probe.restart()
                        clock.restart()
                    self._report(row, progress, bar, on_row)
                is_stopped = signals or end.is_over() or self.step == options.stop_at
                stops = self._any(is_stopped or self._end)
                if self._is_done() or stops or self._any(save.is_over()):
                    self._save()
                    save.restart()
                if stops:
                    break
        if signals:
            raise SystemExit(128 + signals[0])
        return progress

    def batches(self) -> DataLoader:
        """Return a loader of the views of all remaining steps."""
        return make_loader(
            self.continuation.corpus if self.continuation else self.corpus,
            self.config,
            self.options,
            seed=self.plan.seed,
            step=self.step,
            fabric=self.fabric,
        )

    def training_step(
        self, batches: Iterator[Views], scheduled: dict[str, float], clock: Clock
    ) -> tuple[Loss, float]:
        """Make a step of the optimizer and of the teacher.

        Args:
            batches: Iterator over `batches`.
            scheduled: Returned by `schedule` for the step.
            clock: Counts the images and the time spent waiting for them.

        Returns:
            Losses (of the last part of an accumulated batch) and the norm of the gradient before
            clipping.
        """
        config, fabric = self.config, self.fabric
        is_frozen = self.step < config.freeze_last_layer * config.steps
        self._set_rates(scheduled, is_frozen=is_frozen)
        # drop path draws from torch's generator: seeded by the step, so that resuming needs no
        # state of it
        torch.manual_seed((self.plan.seed * 1_000_003 + self.step) * 4099 + fabric.global_rank)
        self.student.train()
        for part in range(config.accumulate):
            with clock.waiting():
                views = self._to_device(next_batch(batches))
            with fabric.no_backward_sync(self.student, enabled=part + 1 < config.accumulate):
                with fabric.autocast():
                    loss = self.criterion(
                        self.student,
                        self.teacher,
                        views,
                        scheduled["teacher_temp"],
                        self.continuation and self.continuation.start,
                    )
                require_finite(loss, self.step, scheduled["lr"])
                fabric.backward(loss.total / config.accumulate)
        norm = self.clip_gradients()
        if is_frozen and config.freeze_by == "gradient":
            for head in self.network.heads:
                head.cancel_last_layer_gradients(head.freeze_last_layer - 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        update_momentum(self.network, _unwrapped(self.teacher), scheduled["momentum"])
        clock.images += config.batch_size
        return loss, norm

    def clip_gradients(self) -> float:
        """Clip the gradients and return their norm before."""
        clip = self.config.clip or float("inf")
        limit = clip if self.is_sharded else float("inf")
        norm = self.fabric.clip_gradients(
            self.student, self.optimizer, max_norm=limit, error_if_nonfinite=False
        )
        if self.is_sharded:
            return norm.item()
        parts = [self.network.backbone, *self.network.heads]
        for part in self.network.parameters() if self.config.clip_each else parts:
            parameters = part if isinstance(part, torch.Tensor) else part.parameters()
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        return norm.item()

    def _set_up_networks(self) -> None:
        fabric = self.fabric
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # lightly's heads use old weight_norm
            seed_everything(self.plan.seed, verbose=False)
            start = self.continuation and self.continuation.start
            student, teacher = make_pair(self.plan.arch, self.config, start)
        criterion = Criterion(self.config)
        if self.plan.init:
            load_weights(self.plan.init, student, teacher, criterion)
        parameters = sum(parameter.numel() for parameter in student.parameters())
        require_space(self.folder, 48 * parameters)  # bytes: a checkpoint and its replacement
        optimizer = torch.optim.AdamW(
            parameter_groups(student, self.config), lr=self.config.peak_lr, fused=True
        )
        self.network = student
        self.student, self.optimizer = fabric.setup(student, optimizer)
        self.teacher = (
            fabric.setup_module(teacher) if self.is_sharded else fabric.to_device(teacher)
        )
        self.criterion = fabric.to_device(criterion)
        if self.continuation:
            self.continuation.set_up(fabric)

    def _set_rates(self, scheduled: dict[str, float], *, is_frozen: bool) -> None:
        is_rate_zero = is_frozen and self.config.freeze_by == "rate"
        is_backbone_frozen = self.step < self.config.freeze_backbone * self.config.steps
        for group in self.optimizer.param_groups:
            is_fixed = group["is_last"] if is_rate_zero else False
            is_fixed |= is_backbone_frozen and not group["is_head"]
            group["lr"] = 0.0 if is_fixed else scheduled["lr"] * group["lr_scale"]
            group["weight_decay"] = scheduled["weight_decay"] if group["decays"] else 0.0

    def _to_device(self, views: Views) -> Views:
        tensors = (views.global_views, views.local_views, views.masks)
        return Views(*(self.fabric.to_device(tensor) for tensor in tensors))

    def _facts(self) -> dict[str, object]:
        """Return what else `run.json` says about the run."""
        return {
            "started_from": self.continuation.facts if self.continuation else None,
            "sources": self.corpus.table().to_dict("records"),
            "unreadable": self.corpus.unreadable,
            "processes": self.fabric.world_size,
            "device": str(self.fabric.device),
            "precision": self.fabric._precision.precision,
            "versions": versions(_PACKAGES),
            "git": git_revision(),
        }

    def _progress_bar(self) -> tqdm:
        return tqdm(
            total=self.config.steps,
            initial=self.step,
            desc="pre-training",
            unit="step",
            disable=not self.fabric.is_global_zero,
        )

    def _is_done(self) -> bool:
        return self.step == self.config.steps

    def _is_monitored(self) -> bool:
        is_due = self.step % self.options.monitor_every == 0 or self.step == 1
        return self.monitor is not None and (is_due or self._is_done())

    @property
    def _end(self) -> str:
        """Why the run has ended before its last step, or nothing."""
        return self.continuation.end if self.continuation else ""

    def _checked(self) -> dict[str, float]:
        """Return the drift from the start, where it is due."""
        if self.continuation and self.continuation.is_due(self.step):
            return self.continuation.check(_unwrapped(self.teacher).vit)
        return {}

    def _row(
        self, loss: Loss, scheduled: dict[str, float], norm: float, clock: Clock
    ) -> dict[str, float]:
        """Return a row of the monitor; its columns are `monitor.COLUMNS`."""
        rate, share = clock.read()
        return {
            "step": self.step,
            "images": self.step * self.config.batch_size,
            "loss": loss.total.item(),
            **{name: part.item() for name, part in loss.parts.items()},
            **measures(loss, self.criterion.dino.center, self.config.student_temp),
            **scheduled,
            "gradient_norm": norm,
            "images_per_second": rate,
            "data_share": share,
            "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    def _report(
        self,
        row: dict[str, float],
        progress: Progress,
        bar: tqdm,
        on_row: Callable[[Progress], None] | None,
    ) -> None:
        progress.rows.append(row)
        bar.set_postfix(
            loss=f"{row['loss']:.3f}",
            rank=f"{row['effective_rank']:.0f}",
            data=f"{row['data_share']:.0%}",
        )
        if self.monitor:
            self.monitor.write(row)
        if on_row:
            on_row(progress)

    def _any(self, value: object) -> bool:
        """Return whether the value is true in any process, so that all stop and save together."""
        if self.fabric.world_size == 1:
            return bool(value)
        return bool(self.fabric.all_reduce(torch.tensor(float(bool(value))), reduce_op="sum") > 0)

    def _state(self) -> dict[str, Any]:
        state = {
            "student": self.student,
            "teacher": self.teacher,
            "criterion": self.criterion,
            "optimizer": self.optimizer,
        }
        return state | ({"kept": self.continuation.kept} if self.continuation else {})

    def _save(self) -> None:
        is_first, path, start = self.fabric.is_global_zero, self.folder / STATE, self.plan.start
        with atomic(path) if is_first else nullcontext() as temporary:
            facts = {
                "step": self.step,
                "num_heads": self.network.vit.blocks[0].attn.num_heads,
                "monitor": self.monitor.seal if self.monitor else None,
                "end": self._end,
                "interpolation": start.preprocessing.interpolation if start else None,
            }
            self.fabric.save(self.fabric.broadcast(temporary), self._state() | facts)
        if is_first:
            export_backbone(self.folder)


def _unwrapped(module: torch.nn.Module) -> Network:
    return module if isinstance(module, Network) else module.module
