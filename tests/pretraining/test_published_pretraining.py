"""The configurations dino and dinov2 against numbers of the published configurations and code.

Sources:
    facebookresearch/dinov2: dinov2/configs/ssl_default_config.yaml, dinov2/utils/param_groups.py,
    dinov2/train/train.py, dinov2/train/ssl_meta_arch.py, dinov2/models/vision_transformer.py;
    facebookresearch/dino: main_dino.py, utils.py; Caron et al. (2021), section 3.2, for the
    teacher's temperature.
"""

import numpy as np
import pytest
import torch

from radiodino_utils.core.fabric import make_fabric
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.losses import Criterion
from radiodino_utils.pretraining.networks import Network, make_pair
from radiodino_utils.pretraining.optimizer import parameter_groups
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.progress import Clock
from radiodino_utils.pretraining.run import Run
from radiodino_utils.pretraining.schedules import schedule
from radiodino_utils.pretraining.views import make_views

from ..synthetic_corpus import SMALLEST, synthetic_corpus, synthetic_images

DINO = {
    "output_dim": 65536,
    "bottleneck_dim": 256,
    "hidden_dim": 2048,
    "norm_last_layer": True,
    "student_temp": 0.1,
    "teacher_temp_start": 0.04,
    "teacher_temp": 0.07,
    "teacher_temp_warmup": 0.3,
    "centering": "mean",
    "center_momentum": 0.9,
    "momentum": 0.996,
    "momentum_end": 1.0,
    "weight_decay": 0.04,
    "weight_decay_end": 0.4,
    "lr": 0.0005,
    "lr_end": 1e-6,
    "lr_scaling": "linear256",
    "warmup": 0.1,
    "layer_decay": 1.0,
    "patch_embed_lr": 1.0,
    "clip": 3.0,
    "clip_each": True,
    "freeze_last_layer": 0.01,
    "freeze_by": "gradient",
    "drop_path": 0.1,
    "drop_path_uniform": False,
    "layer_scale": 0.0,
    "global_size": 224,
    "global_scale": (0.4, 1.0),
    "local_count": 8,
    "local_size": 96,
    "local_scale": (0.05, 0.4),
    "token_weight_decay": True,
    "initialization": "dino",
    "schedules": "published",
    "epochs": 100.0,
}
DINOV2 = DINO | {
    "norm_last_layer": False,
    "patch_head": "shared",
    "koleo_weight": 0.1,
    "koleo_views": "sum",
    "ibot_weight": 1.0,
    "mask_probability": 0.5,
    "mask_ratio": (0.1, 0.5),
    "drop_path": 0.3,
    "drop_path_uniform": True,
    "layer_scale": 1e-5,
    "momentum": 0.992,
    "lr": 0.004,
    "lr_scaling": "sqrt1024",
    "patch_embed_lr": 0.2,
    "layer_decay": 0.9,
    "clip_each": False,
    "freeze_by": "rate",
    "global_scale": (0.32, 1.0),
    "local_scale": (0.05, 0.32),
    "initialization": "dinov2",
}
PUBLISHED = {"dino": DINO, "dinov2": DINOV2}


def tiny(name, **changes):
    """Return a published configuration with networks and views of the smallest size."""
    return load_config(name, images=12, **SMALLEST | changes)


def names_of(network):
    return {id(one): name for name, one in network.named_parameters()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_settings_are_those_of_the_published_configuration(name):
    config = load_config(name, images=1_281_167)
    assert {key: getattr(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]


def test_rates_scale_with_the_batch_as_published():
    rates = {
        (name, batch): load_config(name, images=10**6, batch_size=batch).peak_lr
        for name in PUBLISHED
        for batch in (256, 1024, 2048)
    }
    assert [rates["dino", batch] for batch in (256, 1024, 2048)] == pytest.approx(
        [0.0005, 0.002, 0.004]
    )
    assert [rates["dinov2", batch] for batch in (256, 1024, 2048)] == pytest.approx(
        [0.002, 0.004, 0.0056568542]
    )


def test_schedules_at_several_steps_of_the_published_run():
    config = load_config("dinov2", images=1_281_167, steps=125_000)
    expected = {  # 100 epochs of 1250 steps: 10 of warm-up, 30 with a colder teacher
        0: (0, 0.04, 0.992, 0.04),
        1_250: (0.0004000320026, 0.04008881913, 0.992001973759, 0.04100002667),
        12_499: (0.004, 0.04880842916, 0.99219574287, 0.04999946665),
        12_500: (0.004, 0.04880982707, 0.992195773935, 0.05000026667),
        37_499: (0.003532241754, 0.1141949947, 0.99364877766, 0.07),
        68_750: (0.0020005, 0.2481582037, 0.99662573786, 0.07),
        124_999: (1.00000078e-06, 0.3999999999, 0.999999999999, 0.07),
    }
    for step, numbers in expected.items():
        found = schedule(config, step)
        values = (found["lr"], found["weight_decay"], found["momentum"], found["teacher_temp"])
        assert values == pytest.approx(numbers, rel=1e-6, abs=1e-12), step


def test_schedules_are_curves_of_numpy():
    """The same numbers in another way: a ramp before a half wave that ends a step short."""
    config, steps = load_config("dino", images=10**6, steps=1000), np.arange(1000)
    half = (1 + np.cos(np.pi * np.arange(900) / 900)) / 2
    rates = np.concatenate([np.linspace(0, 0.002, 100), 1e-6 + (0.002 - 1e-6) * half])
    rows = [schedule(config, step) for step in steps]
    assert [row["lr"] for row in rows] == pytest.approx(list(rates), rel=1e-9)
    whole = (1 + np.cos(np.pi * steps / 1000)) / 2
    assert [row["weight_decay"] for row in rows] == pytest.approx(
        list(0.4 - 0.36 * whole), rel=1e-9
    )
    assert [row["momentum"] for row in rows] == pytest.approx(list(1 - 0.004 * whole), rel=1e-9)
    assert [row["teacher_temp"] for row in rows] == pytest.approx(
        [*np.linspace(0.04, 0.07, 300), *[0.07] * 700], rel=1e-9
    )


BLOCK_RATES = [
    0.28242953648100,
    0.31381059609000,
    0.34867844010000,
    0.38742048900000,
    0.43046721000000,
    0.47829690000000,
    0.531441,
    0.59049,
    0.6561,
    0.729,
    0.81,
    0.9,
]
FIRST = 0.2541865828329  # 0.9 to the 13th


def test_groups_of_dinov2_on_a_vision_transformer_of_twelve_blocks():
    config = tiny("dinov2")
    student = Network("t16", config)
    names = names_of(student)
    found = {
        names[id(one)]: group
        for group in parameter_groups(student, config)
        for one in group["params"]
    }
    assert set(found) == {name for name, one in student.named_parameters() if one.requires_grad}
    expected = {
        "backbone.mask_token": (FIRST, True),
        "backbone.vit.cls_token": (FIRST, True),
        "backbone.vit.pos_embed": (FIRST, True),
        "backbone.vit.patch_embed.proj.weight": (0.2 * FIRST, True),
        "backbone.vit.patch_embed.proj.bias": (0.2 * FIRST, False),
        "backbone.vit.norm.weight": (1.0, False),
        "backbone.vit.norm.bias": (1.0, False),
        "head.last_layer.weight_g": (1.0, True),
        "head.last_layer.weight_v": (1.0, True),
    }
    for layer in (0, 2, 4):
        expected |= {
            f"head.layers.{layer}.weight": (1.0, True),
            f"head.layers.{layer}.bias": (1.0, False),
        }
    for block, rate in enumerate(BLOCK_RATES):
        for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            expected |= {
                f"backbone.vit.blocks.{block}.{part}.{kind}": (rate, kind == "weight")
                for kind in ("weight", "bias")
            }
        for part in (
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
            "ls1.gamma",
            "ls2.gamma",
        ):
            expected[f"backbone.vit.blocks.{block}.{part}"] = (rate, False)
    assert {name: group["decays"] for name, group in found.items()} == {
        name: decays for name, (_, decays) in expected.items()
    }
    assert {name: group["lr_scale"] for name, group in found.items()} == pytest.approx(
        {name: rate for name, (rate, _) in expected.items()}
    )
    assert {name for name, group in found.items() if group["is_last"]} == {
        f"head.last_layer.weight_{one}" for one in "gv"
    }


def test_groups_of_dino_decay_all_but_biases_and_vectors():
    config = tiny("dino")
    student = Network("t16", config)
    names = names_of(student)
    found = {
        names[id(one)]: group
        for group in parameter_groups(student, config)
        for one in group["params"]
    }
    assert {group["lr_scale"] for group in found.values()} == {1.0}
    assert {"backbone.vit.cls_token", "backbone.vit.pos_embed"} <= {
        name for name, group in found.items() if group["decays"]
    }
    assert all(
        group["decays"] == (not name.endswith("bias") and "norm" not in name)
        for name, group in found.items()
    )
    assert "head.last_layer.weight_g" not in found and "backbone.mask_token" not in found


def test_the_backbone_starts_as_published():
    torch.manual_seed(0)
    v2, dino = (
        Network("t16", tiny(name), drop_path=PUBLISHED[name]["drop_path"])
        for name in ("dinov2", "dino")
    )
    for block in v2.vit.blocks:
        assert torch.equal(block.ls1.gamma, torch.full((192,), 1e-5)) and torch.equal(
            block.ls2.gamma, block.ls1.gamma
        )
        assert block.drop_path1.drop_prob == block.drop_path2.drop_prob == 0.3
    assert not hasattr(dino.vit.blocks[0].ls1, "gamma")
    assert [
        getattr(block.drop_path1, "drop_prob", 0.0) for block in dino.vit.blocks
    ] == pytest.approx(np.linspace(0, 0.1, 12))
    for network in (v2, dino):
        assert float(network.vit.pos_embed.std()) == pytest.approx(0.02, rel=0.05)
        assert float(network.vit.blocks[3].mlp.fc1.weight.std()) == pytest.approx(0.02, rel=0.05)
        assert network.head.last_layer.weight_g.eq(1).all()
    assert float(v2.vit.cls_token.abs().max()) < 1e-5 and not v2.backbone.mask_token.any()
    assert float(dino.vit.cls_token.std()) == pytest.approx(0.02, rel=0.2)
    assert (
        v2.head.last_layer.weight_g.requires_grad,
        dino.head.last_layer.weight_g.requires_grad,
    ) == (True, False)
    assert v2.patch_head is None and v2.heads == [v2.head]


@pytest.fixture
def outputs():
    """Networks that differ, views of four images, and centres away from zero."""
    config = tiny("dinov2", drop_path=0.0, local_count=3)
    torch.manual_seed(5)
    student, teacher = make_pair("t16", config)
    with torch.no_grad():
        for one in student.parameters():
            one.add_(torch.randn_like(one) * 0.02)
    views = make_views(
        list(synthetic_images(4)[0]), config, [np.random.default_rng([3, row]) for row in range(4)]
    )
    criterion = Criterion(config)
    criterion.dino.center.normal_(std=0.01)
    criterion.ibot.center.center.normal_(std=0.01)
    return config, student, teacher, views, criterion


def test_losses_of_dinov2_equal_a_reference_in_numpy(outputs):
    config, student, teacher, views, criterion = outputs
    with torch.no_grad():
        _, taught, taught_patches, _ = teacher(views.global_views, None, views.masks)
        tokens, learnt, learnt_patches, _ = student(views.global_views, views.masks, views.masks)
        local = student(views.local_views)[1]
    centre, patch_centre = (
        criterion.dino.center.view(-1).numpy().copy(),
        criterion.ibot.center.value.view(-1).numpy().copy(),
    )
    with torch.no_grad():
        loss = criterion(student, teacher, views, 0.05)
    taught, taught_patches, learnt, learnt_patches, local, tokens = (
        one.double().numpy()
        for one in (taught, taught_patches, learnt, learnt_patches, local, tokens)
    )

    def probabilities(logits, middle):
        powers = np.exp((logits - middle) / 0.05)
        return powers / powers.sum(-1, keepdims=True)

    def cross_entropy(wanted, logits):
        return -(wanted * (logits / 0.1 - np.log(np.exp(logits / 0.1).sum(-1, keepdims=True)))).sum(
            -1
        )

    first, second = np.split(probabilities(taught, centre), 2)
    terms = 2 + 2 * 3  # global pairs and pairs with a local view
    crossed = cross_entropy(second, learnt[:4]).mean() + cross_entropy(first, learnt[4:]).mean()
    for view in np.split(local, 3):
        crossed += cross_entropy(first, view).mean() + cross_entropy(second, view).mean()
    counts = views.masks.numpy().reshape(8, -1).sum(1)
    each = cross_entropy(probabilities(taught_patches, patch_centre), learnt_patches)
    ibot = sum(part.mean() for part in np.split(each, np.cumsum(counts)[:-1]) if len(part)) / 8
    koleo = 0
    for view in np.split(tokens, 2):
        unit = view / np.linalg.norm(view, axis=1, keepdims=True)
        apart = np.linalg.norm(unit[:, None] - unit[None], axis=-1) + 10 * np.eye(4)
        koleo -= np.log(apart.min(1)).mean()
    assert float(loss.parts["dino"]) == pytest.approx(crossed / terms, rel=1e-4)
    assert float(loss.parts["ibot"]) == pytest.approx(ibot, rel=1e-4)
    assert float(loss.parts["koleo"]) == pytest.approx(koleo, rel=1e-4)
    assert float(loss.total) == pytest.approx(crossed / terms + ibot + 0.1 * koleo, rel=1e-4)
    assert criterion.dino.center.view(-1).numpy() == pytest.approx(
        0.9 * centre + 0.1 * taught.mean(0), abs=1e-6
    )
    assert criterion.ibot.center.value.view(-1).numpy() == pytest.approx(
        0.9 * patch_centre + 0.1 * taught_patches.mean(0), abs=1e-6
    )


def test_masked_patches_and_class_tokens_share_the_head(outputs):
    config, student, _, views, _ = outputs
    with torch.no_grad():
        patches = student(views.global_views, views.masks, views.masks)[2]
        tokens = student.backbone.encode(
            views.global_views, mask=torch.nn.functional.pad(views.masks.flatten(1), (1, 0))
        )
        assert torch.allclose(
            patches, student.head(tokens[:, 1:][views.masks.flatten(1)]), atol=1e-6
        )
    own = Network("t16", tiny("dinov2", patch_head="separate"))
    assert own.patch_head is not None and len(own.heads) == 2


def make_run(folder, config):
    corpus = synthetic_corpus(folder)
    run = folder / "run"
    run.mkdir()
    options = RunOptions(precision="fp32", accelerator="cpu")
    return Run(
        Plan("t16", config), corpus, run, options, make_fabric(precision="fp32", accelerator="cpu")
    )


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_gradients_are_clipped_as_published(tmp_path, name):
    run = make_run(tmp_path, tiny(name))
    for one in run.network.parameters():
        if one.requires_grad:
            one.grad = torch.randn_like(one)
    run.clip_gradients()
    norms = {
        key: float(one.grad.norm())
        for key, one in run.network.named_parameters()
        if one.grad is not None
    }
    if name == "dino":  # each tensor by itself
        assert max(norms.values()) == pytest.approx(3.0, rel=1e-3)
        assert norms["backbone.vit.blocks.0.mlp.fc1.weight"] == pytest.approx(
            norms["head.layers.0.weight"], rel=1e-3
        )
    else:  # the backbone and the head, each as a whole
        for part in ("backbone.", "head."):
            assert np.sqrt(
                sum(norm**2 for key, norm in norms.items() if key.startswith(part))
            ) == pytest.approx(3.0, rel=1e-3)


@pytest.mark.parametrize("name", ["dino", "dinov2"])
def test_prototypes_stand_still_in_the_first_epoch(tmp_path, name):
    run = make_run(
        tmp_path, tiny(name, freeze_last_layer=0.5, warmup=0.0, lr=0.01, lr_scaling="none")
    )
    batches, clock, seen = iter(run.batches()), Clock(), []
    for _ in range(4):
        seen.append([one.detach().clone() for one in run.network.head.last_layer.parameters()])
        run.training_step(batches, schedule(run.config, run.step), clock)
        run.step += 1
    assert all(torch.equal(a, b) for later in seen[1:] for a, b in zip(seen[0], later, strict=True))
    assert not torch.equal(seen[0][1], list(run.network.head.last_layer.parameters())[1])
