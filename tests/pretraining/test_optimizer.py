import pytest

from radiodino_utils.pretraining.networks import make_pair
from radiodino_utils.pretraining.optimizer import parameter_groups

from ..synthetic_corpus import smallest


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
