import numpy as np
import pytest
import torch
from torch import nn

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.config import architecture
from radiodino_utils.pretraining.losses import Criterion
from radiodino_utils.pretraining.networks import make_pair
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
