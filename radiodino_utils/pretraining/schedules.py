"""Schedules of learning rate, weight decay, teacher momentum and teacher temperature."""

import math

import pandas as pd

from ..core.extras import extra
from .config import PretrainConfig

with extra("train"):
    from lightly.utils.scheduler import (
        cosine_schedule,
        cosine_warmup_schedule,
        linear_warmup_schedule,
    )


def schedule(config: PretrainConfig, step: int) -> dict[str, float]:
    """Return learning rate, weight decay, teacher momentum and teacher temperature of a step.

    Source:
        `CosineScheduler` of DINOv2, which is `cosine_scheduler` of DINO; schedules of lightly.
    """
    steps, coldest = config.steps, min(config.teacher_temp_start, config.teacher_temp)
    warmup, temp_warmup = round(config.warmup * steps), round(config.teacher_temp_warmup * steps)
    if config.schedules == "published":
        return {
            "lr": _cosine(step, steps, config.peak_lr, config.lr_end, warmup, 0.0),
            "weight_decay": _cosine(step, steps, config.weight_decay, config.weight_decay_end),
            "momentum": _cosine(step, steps, config.momentum, config.momentum_end),
            "teacher_temp": _cosine(
                step, steps, config.teacher_temp, config.teacher_temp, temp_warmup, coldest
            ),
        }
    return {
        "lr": cosine_warmup_schedule(step, steps, config.peak_lr, config.lr_end, warmup, 0.0),
        "weight_decay": cosine_schedule(step, steps, config.weight_decay, config.weight_decay_end),
        "momentum": cosine_schedule(step, steps, config.momentum, config.momentum_end),
        "teacher_temp": linear_warmup_schedule(step, temp_warmup, coldest, config.teacher_temp),
    }


def schedule_table(config: PretrainConfig) -> pd.DataFrame:
    """Return a row per step: step, lr, weight_decay, momentum, teacher_temp."""
    return pd.DataFrame([{"step": step} | schedule(config, step) for step in range(config.steps)])


def schedule_note(table: pd.DataFrame) -> str:
    """Return a line per schedule: where it starts, its extreme and its end, or its constant value.

    Args:
        table: Returned by `schedule_table`.
    """
    notes = []
    for name in ("lr", "weight_decay", "momentum", "teacher_temp"):
        values = table[name]
        start, end, top, bottom = values.iloc[0], values.iloc[-1], values.max(), values.min()
        if top - bottom <= 1e-9 * top:
            note = f"constant at {start:.4g}"
        elif top > max(start, end):
            peak = f"{top:.4g} at step {values.idxmax()}"
            note = f"rises from {start:.4g} to {peak} and falls to {end:.4g}"
        else:
            note = f"{'rises' if end > start else 'falls'} from {start:.4g} to {end:.4g}"
        notes.append(f"{name.replace('_', ' ')}: {note}")
    return "\n".join(notes)


def _cosine(
    step: int, steps: int, start: float, end: float, warmup: int = 0, warmup_start: float = 0.0
) -> float:
    if step < warmup:
        return warmup_start + (start - warmup_start) * step / max(1, warmup - 1)
    return end + (start - end) * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2
