"""A distillation run: student, optimizer, steps and checkpoints."""

import pickle
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from ..core.errors import InputError
from ..core.files import atomic, require_space
from .distillation_config import DistillationConfig
from .progress import Clock
from .run_files import BACKBONE, STATE, require_intact
from .student import Student, standardised
from .target_store import TargetStore


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: Steps done.
        crops: Crops seen.
        progress: Share of the schedule that is done.
    """

    step: int = 0
    crops: int = 0
    progress: float = 0.0

    @property
    def is_end(self) -> bool:
        """Whether the schedule is done."""
        return self.progress >= 1 - 1e-9

    def advance(self, crops: int, length: int) -> None:
        """Count a step of some crops in a run of a length in crops."""
        self.step += 1
        self.crops += crops
        self.progress = min(1.0, self.progress + crops / length)


@dataclass(frozen=True)
class StepResult:
    """Outcome of a step.

    Attributes:
        losses: Value of each of `student.LOSSES`.
        size: Edge of the crops in pixels.
        lr: Learning rate.
        gradient_norm: Norm of the gradient before clipping.
    """

    losses: dict[str, torch.Tensor]
    size: int
    lr: float
    gradient_norm: float


class DistillationRun:
    """A run that is set up and can make its steps; `distillation.distill` carries out a whole one.

    Args:
        config: Settings.
        store: Crops and targets.
        folder: Folder of the run.
        precision: "bf16" (autocast) or "fp32".
    """

    def __init__(
        self, config: DistillationConfig, store: TargetStore, folder: Path, *, precision: str
    ) -> None:
        self.config, self.store, self.folder, self.precision = config, store, folder, precision
        self.position = Position()
        self.student = Student(config, store.widths())
        parameters = list(self.student.parameters())
        require_space(folder, 20 * sum(parameter.numel() for parameter in parameters))
        matrices = [parameter for parameter in parameters if parameter.ndim > 1]
        vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.lr, fused=True)

    def training_step(self) -> StepResult:
        """Make a step of the optimizer.

        Raises:
            InputError: If the loss is not finite.
        """
        config, start = self.config, self.position.crops
        size = config.size_at(self.position.progress)
        lr = config.lr_at(self.position.progress)
        crops, targets = self.store.read(start, config.batch_size)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            losses = self.student.losses(
                standardised(crops, size), [targets[name] for name in self.store.names]
            )
        total = sum(
            (getattr(config, name) * loss for name, loss in losses.items()), torch.zeros(())
        )
        if not torch.isfinite(total):
            raise InputError(
                f"crop {start}: the loss is {total.item()}: the run diverges; lower lr. "
                "The last checkpoint is intact."
            )
        self.optimizer.zero_grad()
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.student.parameters(), config.clip).item()
        self.optimizer.step()
        self.position.advance(config.batch_size, config.crops)
        return StepResult(losses, size, lr, norm)

    def row(self, step: StepResult, clock: Clock) -> dict[str, float]:
        """Return a row of the monitor for the step just made."""
        losses = {name: loss.item() for name, loss in step.losses.items()}
        return {
            **asdict(self.position),
            "size": step.size,
            "loss": sum(getattr(self.config, name) * loss for name, loss in losses.items()),
            "lr": step.lr,
            "gradient_norm": step.gradient_norm,
            "crops_per_second": clock.read()[0],
            **losses,
        }

    def restore(self) -> None:
        """Load the state that the folder holds.

        Raises:
            InputError: If it is damaged, or the state of another run.
        """
        path = self.folder / STATE
        try:
            require_intact(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
            self.student.load_state_dict(state["student"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.position = Position(state["step"], state["crops"], state["progress"])
        except (
            KeyError,
            TypeError,
            ValueError,
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            zipfile.BadZipFile,
        ) as error:
            raise InputError(
                f"{path}: not the state of such a run ({str(error).splitlines()[0]}); "
                "start again elsewhere."
            ) from error
        self._export()  # a run that was killed between the two files has an older one

    def save(self) -> None:
        """Write the state and the student's vision transformer."""
        state = {
            "student": self.student.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **asdict(self.position),
        }
        with atomic(self.folder / STATE) as temporary:
            torch.save(state, temporary)
        self._export()

    def _export(self) -> None:
        """Write the student's vision transformer."""
        vit = self.student.vit
        weights = {name: tensor.float().contiguous() for name, tensor in vit.state_dict().items()}
        with atomic(self.folder / BACKBONE) as temporary:
            save_file(weights, temporary, {"num_heads": str(vit.blocks[0].attn.num_heads)})
