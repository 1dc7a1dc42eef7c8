"""Every family of timm's vision transformers: its own pooling, LoRA, explanations."""

import numpy as np
import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from radiodino_utils.backbones.backbone import from_model, with_blocks
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.finetune_config import FinetuneConfig
from radiodino_utils.evaluation.finetuning import finetune
from radiodino_utils.explain.attention import attention_maps, with_attention
from radiodino_utils.explain.class_activation import Similarity, grad_cam
from radiodino_utils.features.feature_model import FeatureModel, as_tensor
from tests.evaluation.test_finetuning import halves  # noqa: F401

from ..conftest import tiny_transformer

SMALL = {"depth": 2, "img_size": 32}
FAMILIES = {
    "vit_tiny_patch16_224": {},
    "vit_small_patch8_224": {"embed_dim": 192, "num_heads": 3},
    "vit_small_patch14_dinov2": {"img_size": 28},
    "vit_small_patch14_reg4_dinov2": {"img_size": 28},
    "vit_small_patch16_dinov3": {},
    "vit_small_patch16_dinov3_qkvb": {},
    "deit_tiny_patch16_224": {},
    "deit_tiny_distilled_patch16_224": {},
    "deit3_small_patch16_224": {},
    "beit_base_patch16_224": {"embed_dim": 192, "num_heads": 3},
    "beitv2_base_patch16_224": {"embed_dim": 192, "num_heads": 3},
    "eva_large_patch14_196": {"embed_dim": 192, "num_heads": 3, "img_size": 28},
    "eva02_tiny_patch14_224": {"img_size": 28},
    "eva02_base_patch14_224": {"img_size": 28, "embed_dim": 192, "num_heads": 3},
    "vit_base_patch16_siglip_224": {"embed_dim": 192, "num_heads": 3},
    "vit_base_patch16_clip_224": {"embed_dim": 192, "num_heads": 3},
    "aimv2_large_patch14_224": {"embed_dim": 192, "num_heads": 3, "img_size": 28},
    "vit_relpos_small_patch16_224": {"embed_dim": 192, "num_heads": 3},
    "vit_relpos_base_patch16_cls_224": {"embed_dim": 192, "num_heads": 3},
    "vit_base_patch16_gap_224": {"embed_dim": 192, "num_heads": 3},
    "vit_medium_patch16_gap_240": {"embed_dim": 192, "num_heads": 3},
    "vit_base_patch16_rope_224": {"embed_dim": 192, "num_heads": 3},
    "vit_pe_core_tiny_patch16_384": {},
    "vit_little_patch16_reg4_gap_256": {"embed_dim": 192, "num_heads": 3},
}
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 36), np.uint8)


def random_model(name, **options):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=0, **(SMALL | FAMILIES[name] | options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def embedding(backbone):
    with torch.inference_mode():
        return FeatureModel(backbone).eval()(as_tensor(backbone, IMAGE).permute(0, 2, 3, 1))[0]


def expected(backbone):
    preprocessing = backbone.preprocessing
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) * 255
        for values in (preprocessing.mean, preprocessing.std)
    )
    with torch.inference_mode():
        return backbone.model((as_tensor(backbone, IMAGE) - mean) / std)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_embedding_is_what_the_model_returns(name):
    backbone = from_model(name, random_model(name), "random")
    torch.testing.assert_close(embedding(backbone), expected(backbone), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        embedding(with_blocks(backbone, 2)), expected(backbone), atol=1e-5, rtol=1e-5
    )


@given(
    pooling=st.sampled_from(["", "token", "avg", "avgmax", "max", "map"]),
    class_token=st.booleans(),
    registers=st.sampled_from([0, 4]),
    fc_norm=st.sampled_from([None, False, True]),
    final_norm=st.booleans(),
    include_prefix=st.booleans(),
)
def test_the_embedding_is_what_the_model_returns_for_every_pooling(
    pooling, class_token, registers, fc_norm, final_norm, include_prefix
):
    options = {
        "class_token": class_token or pooling == "token",
        "reg_tokens": registers,
        "fc_norm": fc_norm,
    }
    options |= {
        "global_pool": pooling,
        "final_norm": final_norm,
        "pool_include_prefix": include_prefix,
    }
    backbone = from_model("tiny", tiny_transformer(**options), "random")
    wanted = expected(backbone)
    if wanted.ndim == 3:  # pools nothing
        prefix = backbone.num_prefix_tokens
        wanted = wanted[:, 0] if options["class_token"] else wanted[:, prefix:].mean(1)
    torch.testing.assert_close(embedding(backbone), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_follow_the_embedding_or_are_refused(name):
    backbone = from_model(name, random_model(name), "random")
    heat = grad_cam(backbone, Similarity(np.ones(backbone.embedding_dim, np.float32)), IMAGE, 0)
    assert heat.shape == tuple(backbone.model.patch_embed.grid_size)
    if backbone.outputs[0] == "pooled_token":
        with pytest.raises(InputError, match=f"^{name}: its embedding is pooled by "):
            attention_maps(backbone, IMAGE)
        assert with_attention([backbone]) == []
    else:
        attention = attention_maps(backbone, IMAGE)
        np.testing.assert_allclose(attention.rows.sum(-1), 1, atol=1e-5)
        np.testing.assert_allclose(attention.embedding, expected(backbone)[0], atol=1e-4)


@pytest.mark.parametrize("name", FAMILIES)
def test_lora_reaches_every_block_of_every_family(name, halves):  # noqa: F811
    backbone = from_model(name, random_model(name), "random")
    before = {key: value.clone() for key, value in backbone.model.state_dict().items()}
    config = FinetuneConfig(
        lr=1e-2,
        lora_rank=2,
        batch_size=48,
        epochs=2,
        warmup_epochs=0,
        precision="fp32",
        dropout=0.0,
    )
    run = finetune(backbone, halves, config=config)
    state = load_file(run.checkpoint)
    now = backbone.model.state_dict()
    assert all(torch.equal(value, before[key]) for key, value in now.items())
    changed = {key for key in before if not torch.equal(before[key], state[key])}
    projections = {
        key
        for key in before
        if key.endswith(("qkv.weight", "q_proj.weight", "k_proj.weight", "v_proj.weight"))
    }
    assert changed == {key for key in projections if key.startswith("blocks.")} and len(
        changed
    ) in (2, 6)
    reloaded = timm.create_model(name, num_classes=2, **(SMALL | FAMILIES[name])).eval()
    reloaded.load_state_dict(state)
    tuned = from_model("tuned", reloaded, "random")
    assert (embedding(tuned) - embedding(backbone)).abs().max() > 1e-4
    again = finetune(backbone, halves, config=config)
    np.testing.assert_array_equal(again.prediction.probabilities, run.prediction.probabilities)


@pytest.mark.parametrize("rank", [0, 2])
def test_a_run_that_would_change_nothing_is_refused(rank, halves):  # noqa: F811
    name = "vit_tiny_patch16_224"
    config = FinetuneConfig(
        lr=1e-2, lora_rank=rank, batch_size=48, epochs=2, warmup_epochs=0, precision="fp32"
    )
    with pytest.raises(
        InputError, match=f"^{name}: a step trains none of the .* since lr 0 is too small"
    ):
        finetune(
            from_model(name, random_model(name), "random"),
            halves,
            config=config.with_changes(lr=0.0),
        )
    frozen = from_model(name, random_model(name).requires_grad_(False), "random")
    if rank:
        finetune(frozen, halves, config=config)
    else:
        with pytest.raises(InputError, match=f"^{name}: every tensor of the backbone is frozen"):
            finetune(frozen, halves, config=config)
    deaf = random_model(name)
    deaf.norm.weight.data.zero_()  # the embedding no longer depends on the blocks
    deaf.norm.requires_grad_(False)
    with pytest.raises(InputError, match="get no gradient|no gradient reaches them"):
        finetune(from_model(name, deaf, "random"), halves, config=config)
