import json

import pytest
import timm
import torch

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining import target_store
from radiodino_utils.pretraining.distillation import MONITOR, distill
from radiodino_utils.pretraining.distillation_config import DistillationConfig
from radiodino_utils.pretraining.run_files import BACKBONE, RUN, STATE
from radiodino_utils.pretraining.target_store import TargetStore

from ..synthetic_corpus import synthetic_corpus

QUICK = DistillationConfig(crops=48, batch_size=8, sizes=((32, 0.5), (48, 1.0)), lr=2e-3)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(target_store, "CHUNK", 16)
    torch.manual_seed(0)
    teacher = from_model("net", timm.create_model("resnet10t", num_classes=0), "random")
    return TargetStore(tmp_path / "targets", synthetic_corpus(tmp_path), [teacher], capacity=16)


def test_the_loss_falls_and_the_student_loads_as_a_backbone(store, tmp_path):
    report = distill(QUICK.with_changes(crops=160), store, tmp_path / "run", monitor_every=1)
    losses = [row["loss"] for row in report.rows]
    assert len(losses) == report.step == 20 and sum(losses[-4:]) < 0.9 * sum(losses[:4])
    assert {row["size"] for row in report.rows} == {32, 48} and report.rows[-1]["lr"] < 1e-4
    backbone = load_backbone(f"file:{report.backbone}")
    assert (backbone.embedding_dim, backbone.preprocessing.size, backbone.patch_size) == (
        192,
        224,
        16,
    )


def test_a_resumed_run_makes_the_same_weights(store, tmp_path):
    whole = distill(QUICK, store, tmp_path / "whole")
    first = distill(QUICK, store, tmp_path / "halves", stop_after=0, monitor_every=1)
    assert first.step == 1
    distill(QUICK, store, tmp_path / "halves", resume=True, monitor_every=1)
    assert (tmp_path / "halves" / BACKBONE).read_bytes() == (
        tmp_path / "whole" / BACKBONE
    ).read_bytes()
    rows = [json.loads(line) for line in (tmp_path / "halves" / MONITOR).read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6] and whole.step == 6


def test_a_run_may_be_resumed_with_another_length(store, tmp_path):
    distill(QUICK.with_changes(crops=80), store, tmp_path / "run", stop_after=0)
    report = distill(
        QUICK.with_changes(crops=40), store, tmp_path / "run", resume=True, monitor_every=1
    )
    assert (
        report.step == 6 and report.rows[-1]["progress"] == 1.0
    )  # a tenth of 80 is done, nine tenths of 40 are left
    assert [
        one["crops"] for one in json.loads((tmp_path / "run" / RUN).read_text())["lengths"]
    ] == [80, 40]


def test_another_run_in_the_folder_is_left_alone(store, tmp_path):
    distill(QUICK, store, tmp_path / "run", stop_after=0)
    kept = (tmp_path / "run" / STATE).read_bytes()
    with pytest.raises(
        InputError, match="holds a run already; resume it, or choose another folder"
    ):
        distill(QUICK, store, tmp_path / "run")
    with pytest.raises(InputError, match=r"holds another run \(lr differ\)"):
        distill(QUICK.with_changes(lr=1e-4), store, tmp_path / "run", resume=True)
    with pytest.raises(InputError, match="holds no run to resume"):
        distill(QUICK, store, tmp_path / "none", resume=True)
    assert (tmp_path / "run" / STATE).read_bytes() == kept
    (tmp_path / "run" / STATE).write_bytes(kept[:1000])
    with pytest.raises(InputError, match="not the state of such a run"):
        distill(QUICK, store, tmp_path / "run", resume=True)


def test_a_diverging_run_stops_with_a_sentence(store, tmp_path):
    with pytest.raises(InputError, match=r"^crop \d+: the loss is nan: the run diverges; lower lr"):
        distill(QUICK.with_changes(lr=float("inf")), store, tmp_path / "run")


def test_damage_and_a_kill_between_two_files_are_noticed(store, tmp_path):
    folder = tmp_path / "run"
    distill(QUICK, store, folder)
    backbone, state = (folder / BACKBONE).read_bytes(), (folder / STATE).read_bytes()
    (folder / BACKBONE).unlink()
    distill(QUICK, store, folder, resume=True)
    assert (folder / BACKBONE).read_bytes() == backbone
    flipped = bytearray(state)
    flipped[len(state) // 2] ^= 1
    (folder / STATE).write_bytes(flipped)
    with pytest.raises(InputError, match="last.ckpt: damaged .* fails its checksum"):
        distill(QUICK, store, folder, resume=True)
    (folder / RUN).write_text("{")
    with pytest.raises(InputError, match="run.json: damaged, or not of a distillation"):
        distill(QUICK, store, folder, resume=True)
