"""Random weights: the same bits on every processor, distributed as timm draws them."""

import json

import pytest
import timm
import torch
from torch import nn

from radiodino_utils.backbones.fingerprints import fingerprint
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.random_weights import draw, redraw
from radiodino_utils.pretraining.config import ARCHITECTURES

DIGESTS = """
import hashlib, json, sys, torch
from radiodino_utils.backbones.loading import load_backbone
torch.set_num_threads(int(sys.argv[1]))
digests = {}
for name in sys.argv[2:]:
    digest = hashlib.sha256()
    for key, tensor in sorted(load_backbone(name).model.state_dict().items()):
        digest.update(key.encode() + tensor.numpy().astype("<f4").tobytes())
    digests[name] = digest.hexdigest()
print(json.dumps([torch.backends.cpu.get_cpu_capability(), digests]))
"""
SHA256 = {
    "random-t16": "b724bf56ea1850eb3509916ae1996c287caafb09e1cfa63eaf5a5ffae9d0a67b",
    "random-s16": "fb6c10c25b79368488a249390c3e4f3d0eae16fb16dc010ba6aab49db31c8fe0",
    "random-b16": "ced502cd4dfc6998fd3825609fba69a61b6afbdd222a80282f1ff0ce56f4835e",
}


@pytest.mark.parametrize(
    ("threads", "environment"),
    [
        (1, {}),
        (2, {"ATEN_CPU_CAPABILITY": "default", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
        (4, {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    ],
)
def test_bits_depend_on_neither_instruction_set_nor_threads(run_python, threads, environment):
    names = SHA256 if threads == 1 else ["random-t16", "random-s16"]
    done = run_python(DIGESTS, threads, *names, **environment)
    assert done.returncode == 0, done.stderr
    capability, digests = json.loads(done.stdout)
    if "ATEN_CPU_CAPABILITY" in environment:
        assert capability == environment["ATEN_CPU_CAPABILITY"].upper()
    assert digests == {name: SHA256[name] for name in names}


@pytest.mark.parametrize("arch", ["t16", "s8"])
def test_every_tensor_has_the_deviation_of_timms_own_and_none_keeps_a_bit_of_it(arch):
    models = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        models.append(timm.create_model(ARCHITECTURES[arch], num_classes=0))
    # single values of timm's lie at 2, a hundred standard deviations away, where a uniform number
    # was 1
    theirs = {name: tensor.detach().clone() for name, tensor in models[0].named_parameters()}
    ours = [redraw(model, seed=0, linear_std=0.02) for model in models]
    assert fingerprint(ours[0]) == fingerprint(ours[1])
    for name, tensor in ours[0].state_dict().items():
        if theirs[name].std() == 0:
            assert torch.equal(tensor, theirs[name]), name
        else:
            std = float(theirs[name].clamp(-0.1, 0.1).std())
            assert float(tensor.std()) == pytest.approx(std, rel=6 / tensor.numel() ** 0.5), name
            assert abs(float(tensor.mean())) < 5 * float(tensor.std()) / tensor.numel() ** 0.5, name


def test_layers_of_torch_keep_its_standard_deviation():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(16, 256, 3),
        nn.BatchNorm2d(256),
        nn.PReLU(),
        nn.ConvTranspose2d(256, 64, 2),
        nn.Linear(500, 900),
    )
    theirs = {
        name: float(tensor.detach().std())
        for name, tensor in network.named_parameters()
        if tensor.numel() > 1
    }
    for name, tensor in redraw(network, seed=3).named_parameters():
        if tensor.numel() > 1:
            std = float(tensor.detach().std())
            assert std == pytest.approx(theirs[name], rel=0.2, abs=1e-9), name


def test_seed_and_name_decide_alone():
    tensor = draw((3, 5), std=2.0, seed=0, name="a")
    assert torch.equal(tensor, draw((3, 5), std=2.0, seed=0, name="a"))
    assert torch.equal(
        tensor.flatten()[:6], draw((2, 3), std=2.0, seed=0, name="a").flatten()
    )  # the first of a stream
    assert not torch.equal(tensor, draw((3, 5), std=2.0, seed=1, name="a"))
    assert not torch.equal(tensor, draw((3, 5), std=2.0, seed=0, name="b"))
    many = draw((200_000,), std=2.0, seed=0, name="a").double()
    assert many.std() == pytest.approx(2.0, rel=0.01) and many.abs().max() < 2 * 3.47
    kurtosis = ((many - many.mean()) ** 4).mean() / many.var() ** 2
    assert kurtosis == pytest.approx(
        3 - 1.2 / 4, rel=0.02
    )  # Irwin-Hall of four; a normal distribution has 3


def test_the_fingerprint_is_of_what_was_drawn():
    assert load_backbone("random-t16").fingerprint == fingerprint(load_backbone("random-t16").model)
    assert (
        load_backbone("random-t16", seed=7).fingerprint != load_backbone("random-t16").fingerprint
    )
