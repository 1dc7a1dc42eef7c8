import json

import pytest
import timm
import torch

from radiodino_utils.backbones.backbone import from_model
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining import target_store
from radiodino_utils.pretraining.command import main
from radiodino_utils.pretraining.distillation import MONITOR, distill
from radiodino_utils.pretraining.distillation_config import DistillationConfig
from radiodino_utils.pretraining.initialization import selected_weights
from radiodino_utils.pretraining.run_files import BACKBONE, RUN, STATE
from radiodino_utils.pretraining.student import LOSSES, Student
from radiodino_utils.pretraining.target_store import TargetStore
from radiodino_utils.pretraining.teachers import Targets

from ..conftest import tiny_transformer
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


def test_weights_of_every_second_channel_and_head():
    large = timm.create_model("vit_small_patch14_dinov2", img_size=224, num_classes=0)
    with torch.no_grad():
        for block in large.blocks:
            block.ls1.gamma.uniform_(0.5, 2)
    small = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    state = selected_weights(large, small)
    small.load_state_dict(state)
    qkv = large.blocks[3].attn.qkv.weight
    assert torch.equal(state["blocks.3.attn.qkv.weight"][:64, :5], qkv[:64, 0:10:2])
    assert torch.equal(state["blocks.3.attn.qkv.weight"][64:128, 0], qkv[128:192, 0])
    wanted = large.blocks[3].attn.proj.weight[::2] * large.blocks[3].ls1.gamma[::2, None]
    assert torch.allclose(state["blocks.3.attn.proj.weight"][:, :64], wanted[:, :64])
    assert state["pos_embed"].shape == (1, 197, 192) and state["patch_embed.proj.weight"].shape[
        -2:
    ] == (16, 16)


def test_the_weights_of_an_equal_transformer_are_its_own():
    large, small = (tiny_transformer(seed=seed) for seed in (0, 1))
    small.load_state_dict(selected_weights(large, small))
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.allclose(small(images), large(images), atol=1e-6)


@pytest.mark.parametrize(
    ("large", "message"),
    [
        (
            lambda: timm.create_model("resnet10t", num_classes=0),
            "weights are selected from a vision transformer",
        ),
        (
            tiny_transformer,
            "does not hold one of 192 in 3 heads and 12 blocks; name a larger one of the family",
        ),
    ],
)
def test_starts_of_another_architecture(large, message):
    with pytest.raises(InputError, match=message):
        selected_weights(large(), timm.create_model("vit_tiny_patch16_224", num_classes=0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"arch": "t32"}, "unknown architecture 't32'"),
        ({"crops": 4}, "a batch needs two crops, and a run one batch"),
        ({"sizes": ((100, 1.0),)}, "multiples of 16 up to 224"),
        ({"sizes": ((112, 0.5),)}, "the share of the run at which it ends"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(InputError, match=message):
        DistillationConfig(**settings)


def test_several_teachers_count_alike(store):
    widths = {"one": (8, 4), "two": (16, 4)}
    student = Student(QUICK, widths)
    targets = [
        Targets(torch.randn(4, whole), torch.randn(4, channels, 14, 14))
        for whole, channels in widths.values()
    ]
    crops = torch.randn(4, 3, 32, 32)
    both = student.losses(crops, targets)
    alone = []
    for number in (0, 1):
        student.heads, kept = torch.nn.ModuleList([student.heads[number]]), student.heads
        alone.append(student.losses(crops, [targets[number]]))
        student.heads = kept
    for name in LOSSES:
        torch.testing.assert_close(both[name], (alone[0][name] + alone[1][name]) / 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "random-t16"], "--data: the corpus is empty"),
        (
            ["--teacher", "eficientnet-lite0", "--data", "{data}"],
            "unknown backbone 'eficientnet-lite0'; did you mean efficientnet-lite0",
        ),
        (
            ["--teacher", "random-t16", "--data", "{data}", "--set", "rate=1"],
            "unknown option of DistillationConfig 'rate'",
        ),
        (
            ["--teacher", "random-t16", "--data", "{data}", "--workers", "1"],
            "--workers: does not apply with --teacher",
        ),
        (["--data", "{data}", "--capacity", "8"], "--capacity: needs --teacher"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path, capsys, arguments, message):
    synthetic_corpus(tmp_path)
    arguments = [argument.format(data=tmp_path / "images") for argument in arguments]
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--out", str(tmp_path / "run")])
    assert exit_.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_line_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(target_store, "CHUNK", 8)
    synthetic_corpus(tmp_path)
    options = ["--teacher", "random-t16", "--data", str(tmp_path / "images"), "--capacity", "8"]
    options += ["--set", "crops=16", "--batch-size", "8", "--set", "sizes=[[32, 1.0]]"]
    main([*options, "--out", str(tmp_path / "run")])
    assert "after 2 of 2 steps" in capsys.readouterr().out
    assert (tmp_path / "run" / BACKBONE).is_file()
