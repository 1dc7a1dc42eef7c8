import math

import numpy as np
import pytest
import torch
from torch import nn

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.config import architecture
from radiodino_utils.pretraining.losses import Criterion
from radiodino_utils.pretraining.networks import make_pair
from radiodino_utils.pretraining.optimizer import parameter_groups
from radiodino_utils.pretraining.schedules import schedule, schedule_note, schedule_table
from radiodino_utils.pretraining.views import make_views

from ..synthetic_corpus import smallest, synthetic_images


def views(config, count=4):
    return make_views(
        list(synthetic_images(count)[0]),
        config,
        [np.random.default_rng([0, row]) for row in range(count)],
    )


@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_student_and_teacher_start_equal_and_only_the_student_learns(method):
    config = smallest(method=method, drop_path=0.0)
    student, teacher = make_pair("t16", config)
    assert all(
        torch.equal(a, b)
        for a, b in zip(student.state_dict().values(), teacher.state_dict().values(), strict=True)
    )
    loss = Criterion(config)(student, teacher, views(config), 0.04)
    loss.total.backward()
    learning = {name for name, one in student.named_parameters() if one.requires_grad}
    assert {name for name, one in student.named_parameters() if one.grad is not None} == learning
    assert all(one.grad is None and not one.requires_grad for one in teacher.parameters())
    assert torch.isfinite(loss.total)
    assert set(loss.parts) == ({"dino"} if method == "dino" else {"dino", "ibot", "koleo"})


def test_the_loss_of_class_tokens_is_the_definition():
    config = smallest(drop_path=0.0)
    student, teacher = make_pair("t16", config)
    made = views(config)
    with torch.no_grad():
        t = torch.softmax(teacher(made.global_views)[1] / 0.04, -1).chunk(
            2
        )  # the centre starts at zero
        s = [*torch.log_softmax(student(made.global_views)[1] / 0.1, -1).chunk(2)]
        s += torch.log_softmax(student(made.local_views)[1] / 0.1, -1).chunk(2)
        terms = [-(t[i] * s[j]).sum(-1).mean() for i in range(2) for j in range(4) if i != j]
        loss = Criterion(config)(student, teacher, made, 0.04).parts["dino"]
    assert float(loss) == pytest.approx(float(sum(terms) / len(terms)), rel=1e-5)


@pytest.mark.parametrize("method", ["dino", "dinov2"])
def test_sinkhorn_takes_every_prototype_equally_often(method):
    config = smallest(method=method, drop_path=0.0, centering="sinkhorn", output_dim=16)
    student, teacher = make_pair("t16", config)
    criterion, made = Criterion(config), views(config, 32)
    loss = criterion(student, teacher, made, 0.04)
    with torch.no_grad():
        plain = torch.softmax(teacher(made.global_views)[1] / 0.04, -1).sum(0)
        taken = torch.softmax(loss.teacher_logits / 0.04, -1)
    assert torch.allclose(taken.sum(1), torch.ones(64), atol=1e-5)
    assert (taken.sum(0) - 4).abs().mean() < 0.5 * (
        plain - 4
    ).abs().mean()  # 64 views, 16 prototypes, three rounds
    t, s = taken.chunk(2), torch.log_softmax(loss.student_logits / 0.1, -1).chunk(2)
    assert loss.teacher_logits.dtype == torch.float32
    assert torch.isfinite(loss.total)
    assert not criterion.dino.center.any()
    if not config.local_count:
        assert float(loss.parts["dino"]) == pytest.approx(
            float(-(t[0] * s[1] + t[1] * s[0]).sum(-1).mean() / 2), rel=1e-4
        )


def test_probabilities_are_not_rounded_by_autocast():
    config = smallest(drop_path=0.0)
    student, teacher = make_pair("t16", config)
    with torch.autocast("cpu", torch.bfloat16):
        loss = Criterion(config)(student, teacher, views(config), 0.04).total
    assert loss.dtype == torch.float32
    assert not torch.equal(loss, loss.bfloat16().float())


def test_masked_patches_are_hidden_from_the_student():
    config = smallest(method="dinov2", drop_path=0.0)
    student, _ = make_pair("t16", config)
    images = torch.randn(2, 3, 32, 32)
    masks = torch.zeros(2, 2, 2, dtype=torch.bool)
    masks[:, 0, 0] = True
    changed = images.clone()
    changed[:, :, :16, :16] += 1
    with torch.no_grad():
        assert torch.allclose(student(images, masks)[0], student(changed, masks)[0], atol=1e-5)
        assert not torch.allclose(student(images)[0], student(changed)[0], atol=1e-5)


def test_parameter_groups():
    config = smallest(method="dinov2", layer_decay=0.9)
    student, _ = make_pair("t16", config)
    groups = parameter_groups(student, config)
    names = {id(one): name for name, one in student.named_parameters()}
    decays = {names[id(one)]: group["decays"] for group in groups for one in group["params"]}
    assert set(decays) == {name for name, one in student.named_parameters() if one.requires_grad}
    assert sum(len(group["params"]) for group in groups) == len(decays)
    for name, has_decay in decays.items():
        is_plain = (
            name.endswith("bias")
            or ".norm" in name
            or any(part in name for part in ("pos_embed", "cls_token", "mask_token"))
        )
        assert has_decay != is_plain, name
    scale = {names[id(one)]: group["lr_scale"] for group in groups for one in group["params"]}
    assert scale["backbone.vit.blocks.11.mlp.fc1.weight"] / scale[
        "backbone.vit.blocks.10.mlp.fc1.weight"
    ] == pytest.approx(1 / 0.9)
    assert scale["head.last_layer.weight_v"] == 1.0


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


def test_architectures_by_name():
    assert architecture("t16") == "vit_tiny_patch16_224"
    with pytest.raises(InputError, match="unknown architecture 't61'; did you mean t16"):
        architecture("t61")


def test_patches_of_eight():
    config = smallest(patch_size=8)
    student, _ = make_pair("s8", config)
    assert student.vit.patch_embed.patch_size == (8, 8)
    assert isinstance(student.vit.norm, nn.LayerNorm)
    with torch.no_grad():
        assert student(torch.randn(1, 3, 32, 32))[0].shape == (1, 384)
