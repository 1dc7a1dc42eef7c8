import builtins
import ctypes
import sys

import numpy as np
import pytest
import torch

from radiodino_utils.backbones.backbone import with_blocks
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.explain.attention import attention_maps
from radiodino_utils.features.engines import choose_engine, make_engine
from radiodino_utils.features.openvino_engine import OpenVinoEngine

from ..conftest import tiny_transformer

AGREEMENT = {"fp32": 0.999999, "bf16": 0.9999}


def cosines(one, other):
    one, other = one.astype(np.float64), other.astype(np.float64)
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.fixture(scope="module")
def random_t16():
    return load_backbone("random-t16")


@pytest.fixture(scope="module")
def images():
    """Smooth and noisy images, 224 px."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 256, (3, 224, 224, 1), np.uint8)
    ramp = np.linspace(0, 255, 224).astype(np.uint8)
    return np.concatenate(
        [
            noise,
            np.broadcast_to(ramp[None, :, None, None], (1, 224, 224, 1)),
            np.zeros((1, 224, 224, 1), np.uint8),
        ]
    )


@pytest.fixture(scope="module")
def reference(random_t16, images):
    return make_engine(random_t16, engine="torch", precision="fp32")(images)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no alternate signal stacks")
def test_openvino_leaves_the_signal_stack_as_it_was(tiny_backbone):
    def stack():
        ctypes.CDLL(None).sigaltstack(None, now := ctypes.create_string_buffer(24))
        return now.raw

    before = stack()
    make_engine(tiny_backbone, engine="openvino", precision="fp32")
    assert stack() == before


@pytest.mark.parametrize(
    ("engine", "precision"), [("openvino", "fp32"), ("openvino", "bf16"), ("torch", "bf16")]
)
def test_agreement_with_torch_fp32(random_t16, images, reference, engine, precision):
    outputs = make_engine(random_t16, engine=engine, precision=precision)(images)
    assert len(outputs) == 2
    for output, expected in zip(outputs, reference, strict=True):
        assert output.dtype == np.float32
        assert output.shape == expected.shape == (5, 192)
        assert cosines(output, expected).min() >= AGREEMENT[precision]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(
    "options",
    [
        {"reg_tokens": 4, "no_embed_class": True},
        {"class_token": False, "global_pool": "avg", "fc_norm": False},
    ],
    ids=str,
)
def test_every_kind_of_prefix(weights_file, engine, options):
    model = tiny_transformer(**options)
    backbone = load_backbone(f"file:{weights_file(model)}")
    batch = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
    mean, std = (
        torch.tensor(value).view(3, 1, 1)
        for value in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    with torch.inference_mode():
        tokens = model.forward_features(
            (torch.from_numpy(batch).permute(0, 3, 1, 2) / 255 - mean) / std
        ).numpy()
    outputs = dict(
        zip(
            backbone.outputs,
            make_engine(backbone, engine=engine, precision="fp32")(batch),
            strict=True,
        )
    )
    assert (
        cosines(outputs["mean_patch_token"], tokens[:, model.num_prefix_tokens :].mean(1)).min()
        >= AGREEMENT["fp32"]
    )
    if "class_token" in outputs:
        assert cosines(outputs["class_token"], tokens[:, 0]).min() >= AGREEMENT["fp32"]


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_batches_keep_their_order_and_grey_equals_grey_in_colour(tiny_backbone, engine):
    runner = make_engine(tiny_backbone, engine=engine, precision="fp32")
    images = np.random.default_rng(2).integers(0, 256, (23, 32, 32, 1), np.uint8)
    whole = runner(images)[0]
    sizes = [1, 7, 2, 3, 1, 5, 4]
    parts = list(runner.map(iter(np.split(images, np.cumsum(sizes)[:-1]))))
    assert [len(part[0]) for part in parts] == sizes
    np.testing.assert_allclose(np.concatenate([part[0] for part in parts]), whole, atol=1e-4)
    np.testing.assert_allclose(runner(np.repeat(images, 3, -1))[0], whole, atol=1e-4)


def test_automatic_choice(random_t16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    engine, precision, device = choose_engine(random_t16)
    assert (engine, device) == ("openvino", "cpu")
    import openvino

    has_bf16 = "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert precision == ("bf16" if has_bf16 else "fp32")
    assert choose_engine(load_backbone("pixels"))[1] == "fp32"
    runner = make_engine(random_t16)
    assert (runner.name, runner.precision) == (engine, precision)


def test_a_gpu_is_taken_by_torch_unless_openvino_is_asked_for(random_t16, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert choose_engine(random_t16) == ("torch", "bf16", "cuda")
    assert choose_engine(random_t16, precision="fp16", device="cuda:1") == (
        "torch",
        "fp16",
        "cuda:1",
    )
    assert choose_engine(random_t16, engine="openvino", precision="fp32") == (
        "openvino",
        "fp32",
        "cpu",
    )


def test_torch_without_openvino(random_t16, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name == "openvino":
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_engine(random_t16) == ("torch", "fp32", "cpu")
    with pytest.raises(InputError, match="engine openvino: the package is not installed"):
        choose_engine(random_t16, engine="openvino")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "openvin"}, "unknown engine 'openvin'; did you mean openvino"),
        ({"precision": "bf61"}, "unknown precision 'bf61'; did you mean bf16"),
        ({"engine": "openvino", "precision": "fp16"}, "precision fp16: OpenVINO has it on no CPU"),
        ({"engine": "torch", "precision": "fp16", "device": "cpu"}, "precision fp16: needs a GPU"),
        ({"precision": "fp16", "device": "cpu"}, "precision fp16: needs a GPU"),
    ],
)
def test_choices_that_are_impossible(random_t16, options, message):
    with pytest.raises(InputError, match=message):
        make_engine(random_t16, **options)


def test_one_engine_serves_several_data_sets(tiny_backbone):
    assert make_engine(tiny_backbone, precision="fp32") is make_engine(
        tiny_backbone, precision="fp32"
    )
    assert make_engine(tiny_backbone, precision="fp32") is not make_engine(
        tiny_backbone, engine="torch", precision="fp32"
    )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_agreement_on_a_gpu(random_t16, images, reference, precision):
    outputs = make_engine(random_t16, precision=precision)(images)
    assert cosines(outputs[0], reference[0]).min() >= AGREEMENT.get(precision, 0.9999)
    assert next(random_t16.model.parameters()).device.type == "cpu"
    assert attention_maps(random_t16, images[0, ..., 0]).rows.shape[0] == 1


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_class_tokens_of_the_last_blocks(weights_file, engine):
    model = tiny_transformer(depth=3)
    backbone = with_blocks(load_backbone(f"file:{weights_file(model)}"), 2)
    assert backbone.outputs == ("class_token", "mean_patch_token", "class_token_2")
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    last, _, before = make_engine(backbone, engine=engine, precision="fp32", device="cpu")(batch)
    seen = {}
    model.blocks[1].register_forward_hook(lambda block, given, out: seen.update(out=out))
    how = backbone.preprocessing
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) * 255 for one in (how.mean, how.std))
    with torch.inference_mode():
        expected = model((torch.tensor(batch).permute(0, 3, 1, 2).float() - mean) / std)
        expected_before = model.norm(seen["out"])[:, 0]
    np.testing.assert_allclose(last, expected, atol=2e-3)
    np.testing.assert_allclose(before, expected_before, atol=2e-3)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_output_does_not_depend_on_what_else_is_asked_for(precision, images):
    backbone = load_backbone("radiodino-mini")
    first = OpenVinoEngine(backbone, precision=precision)(images)
    assert len(first) == 2
    for blocks in (2, 4, 6):
        outputs = OpenVinoEngine(with_blocks(backbone, blocks), precision=precision)(images)
        assert len(outputs) == blocks + 1
        assert all(np.array_equal(one, other) for one, other in zip(first, outputs, strict=False))
