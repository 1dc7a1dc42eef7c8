import csv
import math

import pytest
import torch

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.losses import Loss
from radiodino_utils.pretraining.monitor import (
    PATIENCE,
    Monitor,
    measures,
    require_finite,
    sign_of_collapse,
)

HEALTHY = {"feature_std": 0.8, "effective_rank": 30.0, "teacher_entropy": 2.0, "kl": 0.5}


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def loss_of(features, teacher, student=None):
    return Loss(
        torch.tensor(1.0), {}, features, teacher, teacher if student is None else student, 0.1
    )


def test_measures_of_known_outputs():
    torch.manual_seed(0)
    features, uniform = torch.randn(200, 16), torch.zeros(200, 32)
    found = measures(loss_of(features, uniform), torch.zeros(1, 1, 32), 0.1)
    assert found["teacher_entropy"] == pytest.approx(math.log(32), abs=1e-4)
    assert found["student_entropy"] == pytest.approx(math.log(32), abs=1e-4)
    assert found["kl"] == pytest.approx(0, abs=1e-5)
    assert found["feature_std"] == pytest.approx(1, abs=0.02)
    assert 15 < found["effective_rank"] <= 16
    sharp = torch.zeros(200, 32)
    sharp[:, 0] = 100
    assert measures(loss_of(features, sharp), torch.zeros(1, 1, 32), 0.1)[
        "teacher_entropy"
    ] == pytest.approx(0, abs=1e-5)
    line = torch.randn(200, 1) * torch.randn(1, 16) + 5
    assert measures(loss_of(line, uniform), torch.zeros(1, 1, 32), 0.1)["effective_rank"] < 2


@pytest.mark.parametrize(
    "change, sign",
    [
        ({}, None),
        ({"feature_std": 0.001}, "nearly equal"),
        ({"effective_rank": 1.1}, "on a line"),
        ({"teacher_entropy": math.log(64), "kl": 0.0}, "uniform"),
        ({"teacher_entropy": 0.0, "kl": 0.0}, "one prototype"),
        ({"teacher_entropy": 0.0, "kl": 1.0}, None),
    ],
)
def test_signs_of_collapse(change, sign):
    found = sign_of_collapse(HEALTHY | change, 64)
    assert (found is None) if sign is None else sign in found


def test_a_collapse_that_lasts_stops_the_run_and_says_what_to_change(tmp_path):
    monitor = Monitor(tmp_path / "m.csv", outputs=64)
    for step in range(PATIENCE - 1):
        monitor.write({"step": step} | HEALTHY | {"feature_std": 0.0})
    monitor.write({"step": PATIENCE} | HEALTHY)
    for step in range(PATIENCE - 1):
        monitor.write({"step": 10 + step} | HEALTHY | {"feature_std": 0.0})
    with pytest.raises(
        InputError, match="has collapsed: the features of all images are nearly equal.*lower lr"
    ):
        monitor.write({"step": 20} | HEALTHY | {"feature_std": 0.0})
    assert len(rows_of(tmp_path / "m.csv")) == 2 * PATIENCE


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    monitor = Monitor(tmp_path / "m.csv", outputs=64)
    for step in (10, 20, 30):
        monitor.write({"step": step} | HEALTHY)
        if step == 20:
            seal = monitor.seal
    Monitor(tmp_path / "m.csv", outputs=64, step=20, seal=seal)
    assert [row["step"] for row in rows_of(tmp_path / "m.csv")] == ["10", "20"]
    Monitor(tmp_path / "m.csv", outputs=64)
    assert not rows_of(tmp_path / "m.csv")


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite(value):
    loss = loss_of(torch.zeros(1, 1), torch.zeros(1, 1))
    loss.total = torch.tensor(value)
    with pytest.raises(InputError, match="step 3: the loss is .* the run diverges; lower lr"):
        require_finite(loss, 3, 1.0)
