import math

import pytest

from radiodino_utils.pretraining.schedules import schedule, schedule_note, schedule_table

from ..synthetic_corpus import smallest


def test_schedules():
    config = smallest(
        steps=100, warmup=0.1, lr=1e-3, momentum=0.99, weight_decay_end=0.4, teacher_temp=0.07
    )
    rows = [schedule(config, step) for step in range(100)]
    lrs = [row["lr"] for row in rows]
    assert (
        lrs[0] == pytest.approx(1e-4)
        and max(lrs) == pytest.approx(1e-3)
        and lrs.index(max(lrs)) in (9, 10)
    )
    assert lrs[-1] == pytest.approx(1e-6) and all(
        a >= b for a, b in zip(lrs[10:], lrs[11:], strict=False)
    )
    assert (rows[0]["weight_decay"], rows[-1]["weight_decay"]) == pytest.approx((0.04, 0.4))
    assert (rows[0]["momentum"], rows[-1]["momentum"]) == pytest.approx((0.99, 1.0))
    assert (
        rows[0]["teacher_temp"],
        rows[30]["teacher_temp"],
        rows[-1]["teacher_temp"],
    ) == pytest.approx((0.04, 0.07, 0.07))
    middle = 0.04 + (0.4 - 0.04) * (1 - math.cos(math.pi * 50 / 99)) / 2
    assert rows[50]["weight_decay"] == pytest.approx(middle)


def test_notes_say_what_the_schedules_do():
    flat = schedule_note(
        schedule_table(
            smallest(steps=20, teacher_temp=0.02, weight_decay=0.04, lr=0.001, momentum=0.99)
        )
    )
    assert "teacher temp: constant at 0.02" in flat and "momentum: rises from 0.99 to 1" in flat
    assert "lr: rises from 0.00025 to 0.001 at step 3 and falls to 1e-06" in flat
    warm = schedule_note(
        schedule_table(
            smallest(steps=20, teacher_temp=0.07, weight_decay=0.2, weight_decay_end=0.1)
        )
    )
    assert (
        "teacher temp: rises from 0.04 to 0.07" in warm
        and "weight decay: falls from 0.2 to 0.1" in warm
    )
