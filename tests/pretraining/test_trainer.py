import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core import files
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining import config as pretrain_config
from radiodino_utils.pretraining import run
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.monitor import COLUMNS
from radiodino_utils.pretraining.networks import make_pair
from radiodino_utils.pretraining.online_probe import KnnProbe
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.sources import Source
from radiodino_utils.pretraining.trainer import pretrain

from ..synthetic_corpus import smallest, synthetic_corpus, synthetic_folder, synthetic_npz

QUICK = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks this small only lose by sharing the work
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(monkeypatch):
    """timm's smallest transformer in the place of t16, and s16 a wider one."""
    monkeypatch.setitem(pretrain_config.ARCHITECTURES, "t16", "test_vit")
    monkeypatch.setitem(pretrain_config.ARCHITECTURES, "s16", "test_vit2")


def monitor_rows(folder):
    with open(folder / "monitor.csv", newline="") as file:
        return list(csv.DictReader(file))


def losses(folder):
    return [float(row["loss"]) for row in monitor_rows(folder)]


@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_a_run_writes_finite_rows_and_a_backbone_that_loads(tmp_path, method):
    progress = pretrain(
        Plan("t16", smallest(method=method, steps=2)),
        synthetic_corpus(tmp_path),
        tmp_path / "run",
        options=QUICK,
    )
    assert progress.step == progress.steps == 2
    rows = monitor_rows(tmp_path / "run")
    wanted = set(COLUMNS) - {"ibot", "koleo", "probe", "probe_auc"}
    assert all(np.isfinite(float(row[name])) for row in rows for name in wanted)
    backbone = load_backbone(f"file:{progress.backbone}")
    assert (backbone.embedding_dim, backbone.patch_size, backbone.preprocessing.size) == (
        192,
        16,
        224,
    )
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["config"]["method"] == method and facts["sources"][0]["images"] == 12
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".")]


def test_the_teacher_is_the_moving_average_of_the_student(tiny, tmp_path, monkeypatch):
    seen = []
    genuine = run.update_momentum

    def watched(student, teacher, m):
        before = [one.clone() for one in teacher.parameters()]
        genuine(student, teacher, m)
        expected = [
            m * old + (1 - m) * new for old, new in zip(before, student.parameters(), strict=True)
        ]
        seen.append(
            max(
                float((a - b).abs().max())
                for a, b in zip(teacher.parameters(), expected, strict=True)
            )
        )

    monkeypatch.setattr(run, "update_momentum", watched)
    pretrain(
        Plan("t16", smallest(method="dinov2")),
        synthetic_corpus(tmp_path),
        tmp_path / "run",
        options=QUICK,
    )
    assert len(seen) == 6 and max(seen) < 1e-6
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    assert any(
        not torch.equal(state["student"][name], state["teacher"][name]) for name in state["student"]
    )


@pytest.mark.parametrize("changes", [{"method": "dinov2"}, {"accumulate": 2, "drop_path": 0.2}])
def test_resuming_is_exact(tiny, tmp_path, changes):
    corpus, plan = synthetic_corpus(tmp_path), Plan("t16", smallest(**changes))
    pretrain(plan, corpus, tmp_path / "whole", options=QUICK)

    def stop_at_three(progress):
        if progress.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        pretrain(plan, corpus, tmp_path / "parts", options=QUICK, on_row=stop_at_three)
    assert caught.value.code == 128 + signal.SIGTERM
    assert len(losses(tmp_path / "parts")) == 3
    pretrain(plan, corpus, tmp_path / "parts", options=QUICK, resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    whole, parts = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("whole", "parts")
    )
    assert all(
        torch.equal(whole["teacher"][name], parts["teacher"][name]) for name in whole["teacher"]
    )


def test_loader_workers_change_nothing(tiny, tmp_path):
    corpus, plan = synthetic_corpus(tmp_path), Plan("t16", smallest(steps=3))
    pretrain(plan, corpus, tmp_path / "none", options=QUICK)
    pretrain(
        plan,
        corpus,
        tmp_path / "one",
        options=RunOptions(precision="fp32", accelerator="cpu", monitor_every=1, workers=1),
    )
    assert losses(tmp_path / "none") == losses(tmp_path / "one")


def test_accumulation_gives_a_gradient_of_the_same_size(tiny, tmp_path):
    corpus = synthetic_corpus(tmp_path)
    rows = [
        pretrain(
            Plan("t16", smallest(steps=1, accumulate=parts)),
            corpus,
            tmp_path / str(parts),
            options=QUICK,
        ).rows[0]
        for parts in (1, 2)
    ]
    assert rows[0]["gradient_norm"] == pytest.approx(rows[1]["gradient_norm"], rel=0.5)


def test_the_last_layer_is_frozen_first(tiny, tmp_path):
    def last_layer(share):
        folder = tmp_path / f"run{share}"
        pretrain(
            Plan("t16", smallest(steps=2, freeze_last_layer=share)),
            synthetic_corpus(folder),
            folder,
            options=QUICK,
        )
        return torch.load(folder / "last.ckpt", weights_only=True)["student"][
            "head.last_layer.weight_v"
        ]

    frozen, free = last_layer(1.0), last_layer(0.0)
    run.seed_everything(0, verbose=False)
    start, _ = make_pair("t16", smallest())
    assert torch.equal(frozen, start.head.last_layer.weight_v)
    assert not torch.equal(free, frozen)


_WORKER = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from radiodino_utils.pretraining import config
config.ARCHITECTURES["t16"] = "test_vit"
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.trainer import pretrain
from tests.synthetic_corpus import smallest
corpus = load_corpus([Source(Path(sys.argv[1]))])
options = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1, save_minutes=0)
pretrain(Plan("t16", smallest(steps=3, drop_path=0.0)), corpus, Path(sys.argv[2]), options=options)
"""


@pytest.mark.slow
def test_two_processes_learn_what_one_with_the_doubled_batch_learns(tmp_path):
    synthetic_folder(tmp_path / "images")
    (tmp_path / "worker.py").write_text(_WORKER)
    repository = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"}
    for name, count in (("one", 1), ("two", 2)):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(count),
        ]
        command += [tmp_path / "worker.py", tmp_path / "images", tmp_path / name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (
        torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two")
    )
    assert one["step"] == two["step"] == 3
    for name, tensor in one["teacher"].items():
        assert torch.allclose(tensor, two["teacher"][name], atol=2e-5), name
    assert torch.allclose(
        one["criterion"]["dino.center"], two["criterion"]["dino.center"], atol=1e-5
    )
    assert json.loads((tmp_path / "two" / "run.json").read_text())["processes"] == 2


@pytest.mark.slow
def test_a_run_of_minutes_raises_the_probe(tmp_path):
    synthetic_folder(tmp_path / "images", 300)
    corpus = load_corpus([Source(tmp_path / "images")])
    probe = KnnProbe(
        load_dataset(f"npz:{synthetic_npz(tmp_path / 'l.npz', (60, 120, 3), seed=900)}"),
        corpus=corpus,
        size=224,
    )
    sizes = {
        "output_dim": 256,
        "hidden_dim": 256,
        "bottleneck_dim": 64,
        "global_size": 48,
        "global_scale": [0.6, 1.0],
    }
    config = smallest(
        method="dinov2", ibot_weight=0.0, steps=150, batch_size=32, lr=1e-3, rotation=45.0, **sizes
    )
    run.seed_everything(0, verbose=False)
    start = probe(make_pair("t16", config)[1].vit)["probe"]
    options = RunOptions(accelerator="cpu", monitor_every=50, probe_minutes=1e9)
    progress = pretrain(Plan("t16", config), corpus, tmp_path / "run", options=options, probe=probe)
    assert progress.rows[-1]["probe"] > start


def test_memory_is_flat(tiny, tmp_path):
    progress = pretrain(
        Plan("t16", smallest(steps=40)), synthetic_corpus(tmp_path), tmp_path / "run", options=QUICK
    )
    assert progress.rows[-1]["memory_mb"] - progress.rows[20]["memory_mb"] < 20


def test_starting_from_another_run(tiny, tmp_path):
    corpus = synthetic_corpus(tmp_path)
    pretrain(Plan("t16", smallest(steps=2)), corpus, tmp_path / "first", options=QUICK)
    second = Plan(
        "t16",
        smallest(steps=1, global_size=64, local_size=32),
        init=tmp_path / "first" / "last.ckpt",
    )
    assert pretrain(second, corpus, tmp_path / "second", options=QUICK).step == 1
    for arch, init, hint in (
        ("s16", tmp_path / "first" / "last.ckpt", "is of another architecture"),
        ("t16", tmp_path / "first" / "run.json", "not the state of a run"),
        ("t16", tmp_path / "nothing.ckpt", "there is no such file"),
    ):
        with pytest.raises(InputError, match=hint):
            pretrain(Plan(arch, smallest(), init=init), corpus, tmp_path / "third", options=QUICK)


def test_a_folder_of_another_run(tiny, tmp_path):
    corpus, plan, folder = (
        synthetic_corpus(tmp_path),
        Plan("t16", smallest(steps=1)),
        tmp_path / "run",
    )
    with pytest.raises(InputError, match="holds no run to resume"):
        pretrain(plan, corpus, folder, options=QUICK, resume=True)
    pretrain(plan, corpus, folder, options=QUICK)
    kept = {path.name: path.read_bytes() for path in folder.iterdir()}
    other = synthetic_corpus(tmp_path / "other", seed=5)
    for another, images, resume, hint in (
        (plan, corpus, False, "holds a run already"),
        (Plan("s16", plan.config), corpus, True, "holds another run \\(arch differ"),
        (Plan("t16", plan.config, seed=1), corpus, True, "seed differ"),
        (Plan("t16", smallest(steps=1, lr=0.5)), corpus, True, "config's lr differ"),
        (plan, other, True, "corpus differ"),
    ):
        with pytest.raises(InputError, match=hint):
            pretrain(another, images, folder, options=QUICK, resume=resume)
    assert kept == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_fewer_images_than_a_batch(tmp_path):
    with pytest.raises(InputError, match="has 12 images, fewer than a batch of 64"):
        pretrain(Plan("t16", smallest(batch_size=64)), synthetic_corpus(tmp_path), tmp_path / "run")


def test_a_learning_rate_that_diverges(tiny, tmp_path):
    with pytest.raises(InputError, match="the run diverges; lower lr|has collapsed: .*; lower lr"):
        pretrain(
            Plan("t16", smallest(lr=1e30, steps=40)),
            synthetic_corpus(tmp_path),
            tmp_path / "run",
            options=QUICK,
        )


def test_no_disk_space(tiny, tmp_path, monkeypatch):
    corpus, plan = synthetic_corpus(tmp_path), Plan("t16", smallest(steps=2))
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(InputError, match="no disk space"):
        pretrain(plan, corpus, tmp_path / "run", options=QUICK)
    monkeypatch.undo()
    monkeypatch.setattr(pretrain_config, "ARCHITECTURES", {"t16": "test_vit"})
    pretrain(
        Plan("t16", smallest(steps=4)),
        corpus,
        tmp_path / "run",
        options=RunOptions(precision="fp32", accelerator="cpu", stop_after=0),
    )
    kept = (tmp_path / "run" / "last.ckpt").read_bytes()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lightning.fabric.strategies.strategy.Strategy.save_checkpoint", full)
    with pytest.raises(InputError, match="last.ckpt: no disk space is left"):
        pretrain(
            Plan("t16", smallest(steps=4)), corpus, tmp_path / "run", options=QUICK, resume=True
        )
    assert (tmp_path / "run" / "last.ckpt").read_bytes() == kept


def test_choices_that_this_machine_cannot_follow(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    corpus = synthetic_corpus(tmp_path)
    for options, hint in (
        (RunOptions(accelerator="cuda"), "no GPU"),
        (RunOptions(strategy="fsdp"), "needs GPUs"),
    ):
        with pytest.raises(InputError, match=hint):
            pretrain(Plan("t16", smallest()), corpus, tmp_path / "run", options=options)
