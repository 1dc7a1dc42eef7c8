import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune, finetune_seeds

from ..conftest import tiny_transformer

QUICK = FinetuneConfig(
    lr=1e-3, batch_size=16, epochs=3, warmup_epochs=1, precision="fp32", dropout=0.0
)


@pytest.fixture
def halves(tmp_path):
    """Two classes that a look at the brightness of the upper half tells apart."""
    generator = np.random.default_rng(0)
    arrays = {}
    for split, n in (("train", 48), ("val", 16), ("test", 16)):
        labels = np.arange(n)[:, None] % 2
        images = generator.integers(0, 120, (n, 32, 32), np.uint8)
        images[:, :16] += (120 * labels[:, :, None]).astype(np.uint8)
        arrays |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "halves.npz", **arrays)
    return load_dataset(f"npz:{tmp_path / 'halves.npz'}")


def test_it_learns_keeps_the_best_epoch_and_leaves_the_backbone_alone(tiny_backbone, halves):
    before = {name: tensor.clone() for name, tensor in tiny_backbone.model.state_dict().items()}
    rows = []
    run = finetune(tiny_backbone, halves, config=QUICK.with_changes(epochs=6), on_epoch=rows.append)
    prediction = run.prediction
    assert (prediction.probabilities.argmax(1) == prediction.labels).mean() > 0.9
    assert (prediction.protocol, prediction.split, prediction.seed) == ("finetune", "test", 0)
    assert prediction.probabilities.sum(1) == pytest.approx(1)
    assert len(rows) == len(run.curve) == 6
    best = run.curve["f1_macro"].idxmax() + 1
    assert prediction.choice == {"epoch": f"{best} of 6"}
    assert prediction.val_accuracy == run.curve["accuracy"][best - 1]
    after = tiny_backbone.model.state_dict()
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    assert load_file(run.checkpoint)["head.weight"].shape == (2, 128)


def test_an_existing_run_is_not_repeated_and_another_setting_is(tiny_backbone, halves):
    first = finetune(tiny_backbone, halves, config=QUICK)
    written = first.checkpoint.stat().st_mtime_ns
    again = finetune(tiny_backbone, halves, config=QUICK)
    assert again.checkpoint == first.checkpoint and again.checkpoint.stat().st_mtime_ns == written
    assert np.array_equal(again.prediction.probabilities, first.prediction.probabilities)
    others = [
        finetune(tiny_backbone, halves, config=QUICK, seed=1),
        finetune(tiny_backbone, halves, config=QUICK.with_changes(lr=1e-4)),
    ]
    assert len({first.checkpoint, *(run.checkpoint for run in others)}) == 3


def test_a_seed_repeats(tiny_backbone, halves, tmp_path):
    first, again = (
        finetune(tiny_backbone, halves, config=QUICK, folder=tmp_path / name) for name in "ab"
    )
    np.testing.assert_allclose(
        first.prediction.probabilities, again.prediction.probabilities, atol=1e-5
    )


def test_the_schedule_warms_up_and_falls(tiny_backbone, halves):
    rates = finetune(
        tiny_backbone, halves, config=QUICK.with_changes(epochs=6, warmup_epochs=2)
    ).curve["lr"]
    assert rates[0] < rates[1] <= QUICK.lr and rates[2] > 0.8 * QUICK.lr
    assert rates[2:].is_monotonic_decreasing and rates.iloc[-1] < 0.1 * QUICK.lr


def test_lora_trains_the_adapters_alone_and_merges_them(tiny_backbone, halves):
    run = finetune(tiny_backbone, halves, config=QUICK.with_changes(lora_rank=4, lr=1e-2))
    state, before = load_file(run.checkpoint), tiny_backbone.model.state_dict()
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, state[name])}
    assert changed == {f"blocks.{block}.attn.qkv.weight" for block in (0, 1)}
    assert run.prediction.protocol == "lora"


def test_another_size_and_layer_decay(tiny_backbone, halves):
    run = finetune(
        tiny_backbone, halves, config=QUICK.with_changes(epochs=2, size=48, layer_decay=0.5)
    )
    assert (
        run.prediction.choice["size"] == 48
        and load_file(run.checkpoint)["pos_embed"].shape[1] == 10
    )


def test_seeds_in_parallel_are_those_in_turn(weights_file, halves, tmp_path):
    backbone = load_backbone(f"file:{weights_file(tiny_transformer())}")
    options = {"config": QUICK.with_changes(epochs=2)}
    parallel = finetune_seeds(backbone, halves, [0, 1], jobs=2, folder=tmp_path / "a", **options)
    in_turn = finetune_seeds(backbone, halves, [0, 1], folder=tmp_path / "b", **options)
    for run, expected in zip(parallel, in_turn, strict=True):
        assert run.prediction.seed == expected.prediction.seed
        np.testing.assert_allclose(
            run.prediction.probabilities, expected.prediction.probabilities, atol=1e-4
        )


def test_the_default_is_the_inferred_one():
    config = FinetuneConfig()
    assert (
        config.lr,
        config.weight_decay,
        config.batch_size,
        config.epochs,
        config.warmup_epochs,
    ) == (1e-5, 0.01, 128, 40, 10)
    assert (config.warmup_clip, config.clip, config.dropout, config.class_weights) == (
        0.5,
        1.0,
        0.4,
        "sqrt",
    )
    assert (config.flip, config.rotation, config.crop) == (0.5, 7.0, (0.85, 1.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"warmup_epochs": 3}, "warmup_epochs 3: must be fewer than the 3 epochs"),
        ({"class_weights": "root"}, "unknown class_weights 'root'"),
        ({"layer_decay": 0.9, "lora_rank": 4}, "layer_decay and lora_rank: LoRA trains no layers"),
        (
            {"lr": 1e30, "warmup_epochs": 0},
            "epoch 1: the loss is NaN or infinite; use a smaller lr",
        ),
    ],
)
def test_settings_that_cannot_be(tiny_backbone, halves, changes, message):
    with pytest.raises(InputError, match=message):
        finetune(tiny_backbone, halves, config=QUICK.with_changes(**changes))


def test_pixels_have_no_weights(halves):
    with pytest.raises(InputError, match="pixels: has no weights to fine-tune"):
        finetune(load_backbone("pixels"), halves, config=QUICK)
