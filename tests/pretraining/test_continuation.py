import csv
import json
from dataclasses import replace

import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining import drift
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.run_files import verify_run
from radiodino_utils.pretraining.start import start_transformer
from radiodino_utils.pretraining.trainer import pretrain

from ..synthetic_corpus import smallest, synthetic_corpus

QUICK = RunOptions(precision="fp32", accelerator="cpu", monitor_every=1)
SETTINGS = {
    "drop_path": 0.0,
    "anchor": 1.0,
    "held_out": 20,
    "checks": 3,
    "lr": 1e-3,
    "output_dim": 32,
}


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def start(tmp_path):
    """A tiny vision transformer in a file."""
    torch.manual_seed(5)
    model = timm.create_model("test_vit", num_classes=0)
    save_file(model.state_dict(), tmp_path / "start.safetensors", {"num_heads": "2"})
    return load_backbone(f"file:{tmp_path / 'start.safetensors'}")


def plan_of(start, **changes):
    return Plan(None, smallest(**SETTINGS | changes), start=start)


def rows_of(folder):
    with open(folder / "monitor.csv", newline="") as file:
        return list(csv.DictReader(file))


def distance(folder, start):
    weights = load_file(folder / "backbone.safetensors")
    own = start_transformer(start).state_dict()
    return max(float((weights[name] - own[name]).abs().max()) for name in own)


@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_a_run_continues_from_its_start_and_measures_the_drift(tmp_path, start, method):
    corpus = synthetic_corpus(tmp_path, 100)
    progress = pretrain(plan_of(start, method=method), corpus, tmp_path / "run", options=QUICK)
    rows = rows_of(tmp_path / "run")
    assert progress.step == 6 and not progress.end and 0 < distance(tmp_path / "run", start) < 0.05
    assert [bool(row["overlap"]) for row in rows] == [False, True] * 3
    assert float(rows[0]["anchor"]) < 1e-4 < float(rows[-1]["anchor"]) or method == "dinov2"
    loaded = load_backbone(f"file:{progress.backbone}")
    assert (loaded.patch_size, loaded.preprocessing.size) == (16, 160)
    facts = json.loads((tmp_path / "run" / "run.json").read_text())
    assert facts["start"] == start.fingerprint and facts["sources"][0]["images"] == 100
    verify_run(tmp_path / "run")


def test_a_strong_anchor_holds_the_tokens(tmp_path, start):
    corpus = synthetic_corpus(tmp_path, 100)
    anchors = []
    for weight in (0.0, 100.0):
        plan = plan_of(start, anchor=weight, steps=20, output_dim=64)
        rows = pretrain(plan, corpus, tmp_path / str(weight), options=QUICK).rows
        anchors.append(rows[-1]["anchor"])
    assert anchors[1] < 0.5 * anchors[0]


def test_heads_alone_are_trained_first(tmp_path, start):
    corpus = synthetic_corpus(tmp_path, 100)
    plan = plan_of(start, freeze_backbone=1.0, method="dinov2")
    pretrain(plan, corpus, tmp_path / "run", options=QUICK)
    state = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    own = start_transformer(start).state_dict()
    assert all(torch.equal(state["student"][f"backbone.vit.{name}"], own[name]) for name in own)
    assert not torch.equal(
        state["student"]["head.last_layer.weight_v"], state["teacher"]["head.last_layer.weight_v"]
    )


def test_a_run_that_drifts_ends_with_the_backbone_of_the_check_before(tmp_path, start, monkeypatch):
    corpus, plan = synthetic_corpus(tmp_path, 100), plan_of(start, min_overlap=0.9)
    pretrain(plan_of(start, min_overlap=0.0), corpus, tmp_path / "free",
             options=QUICK.model_copy(update={"stop_at": 2}))  # fmt: skip
    genuine, calls = drift.Drift.__call__, []

    def second_check_fails(self, vit):
        calls.append(1)
        return genuine(self, vit) | {"overlap": 0.95 if len(calls) < 2 else 0.1}

    monkeypatch.setattr(drift.Drift, "__call__", second_check_fails)
    progress = pretrain(plan, corpus, tmp_path / "run", options=QUICK)
    assert progress.step == 4 and progress.end.startswith("10% of the neighbours are left")
    assert len(rows_of(tmp_path / "run")) == 4
    exported, of_first_check = (
        load_file(tmp_path / name / "backbone.safetensors") for name in ("run", "free")
    )
    assert all(torch.equal(exported[name], of_first_check[name]) for name in exported)
    again = pretrain(plan, corpus, tmp_path / "run", options=QUICK, resume=True)
    assert again.step == 4 and again.end == progress.end and len(calls) == 2
    verify_run(tmp_path / "run")


def test_resuming_is_exact(tmp_path, start):
    corpus, plan = synthetic_corpus(tmp_path, 100), plan_of(start)
    pretrain(plan, corpus, tmp_path / "whole", options=QUICK)
    for stop in (3, None):
        options = QUICK.model_copy(update={"stop_at": stop})
        pretrain(plan, corpus, tmp_path / "parts", options=options, resume=stop is None)
    values = [
        [(row["loss"], row["overlap"]) for row in rows_of(tmp_path / name)]
        for name in ("whole", "parts")
    ]
    assert values[0] == values[1]
    whole, parts = (
        (tmp_path / name / "backbone.safetensors").read_bytes() for name in ("whole", "parts")
    )
    assert whole == parts


def test_what_cannot_be_continued(tmp_path, start):
    corpus = synthetic_corpus(tmp_path, 100)
    pretrain(plan_of(start, steps=1), corpus, tmp_path / "run", options=QUICK)
    torch.manual_seed(6)
    another = timm.create_model("test_vit", num_classes=0)
    save_file(another.state_dict(), tmp_path / "other.safetensors", {"num_heads": "2"})
    other = load_backbone(f"file:{tmp_path / 'other.safetensors'}")
    with pytest.raises(InputError, match="holds another run \\(start differ"):
        pretrain(plan_of(other, steps=1), corpus, tmp_path / "run", options=QUICK, resume=True)
    for plan, images, hint in (
        (plan_of(load_backbone("pixels")), corpus, "^pixels: has no class and patch tokens"),
        (plan_of(start), synthetic_corpus(tmp_path / "few", 40), "has 40 images; at least 100"),
    ):
        with pytest.raises(InputError, match=hint):
            pretrain(plan, images, tmp_path / "new", options=QUICK)
    for arguments, hint in (
        (("t16", smallest(anchor=1.0)), "^anchor: needs a start"),
        (("t16", smallest(), 0, None, start), "^start: brings architecture"),
    ):
        with pytest.raises(InputError, match=hint):
            Plan(*arguments)


def test_the_preprocessing_of_the_start_is_that_of_the_result(tmp_path, start):
    own = replace(start.preprocessing, interpolation="bicubic", mean=(0.5,) * 3, std=(0.25,) * 3)
    start = replace(start, preprocessing=own)
    progress = pretrain(
        plan_of(start, steps=1, lr=0.0), synthetic_corpus(tmp_path, 100), tmp_path / "run",
        options=QUICK,
    )  # fmt: skip
    loaded = load_backbone(f"file:{progress.backbone}")
    assert loaded.preprocessing.interpolation == "bicubic" and "?heads" not in loaded.name
    pixels = torch.rand(2, 3, 160, 160)
    features = []
    for backbone in (start, loaded):
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
        )
        with torch.inference_mode():
            features.append(backbone.model((pixels - mean) / std))
    assert torch.allclose(*features, atol=1e-4)
    verify_run(tmp_path / "run")


def test_the_card_tells_start_images_and_drift(tmp_path, start):
    corpus = synthetic_corpus(tmp_path, 100)
    pretrain(plan_of(start), corpus, tmp_path / "run", options=QUICK)
    card = (tmp_path / "run" / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["library_name"] == "timm" and "license" not in header
    assert "Adapted without labels from `file start.safetensors`" in card
    assert start.fingerprint in card and str(tmp_path) not in card
    assert "| images | 100 | 1 |" in card and "6 of 6 steps" in card
    table = card.partition("| step | loss")[2].splitlines()[2:5]
    assert [line.split(" | ")[0] for line in table] == ["| 2", "| 4", "| 6"]
