import numpy as np
import pytest
import torch

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
