"""The hub path for real: the genuine client, a process of its own, and a server on this machine."""

import json

import pytest
import timm
import torch
from safetensors.torch import save

from radiodino_utils.checkpoints import fingerprint

from .hub_server import COMMIT, OLDER, hub_server

REPOSITORY = "Snarcy/RadioDino-s16"
LOAD = """
import json, sys
from radiodino_utils.backbones import load_backbone
from radiodino_utils.errors import InputError
try:
    print(json.dumps(load_backbone(sys.argv[1], revision=sys.argv[2] if len(sys.argv) > 2 else None).describe()))
except InputError as error:
    sys.exit(f"InputError: {error}")
"""
CONFIG = {
    "architecture": "vit_small_patch16_224",
    "num_classes": 0,
    "num_features": 384,
    "pretrained_cfg": {
        "num_classes": 0,
        "input_size": [3, 224, 224],
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "first_conv": "patch_embed.proj",
        "classifier": "head",
    },
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(7)
    return timm.create_model("vit_small_patch16_224", num_classes=0)


@pytest.fixture(scope="module")
def files(model):
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(model.state_dict())}


@pytest.fixture
def load(run_python, tmp_path):
    """Loads a backbone in a process that asks the given server and keeps what it gets in a folder of its own."""

    def run(server, name="radiodino-s16", *revision, **environment):
        url = server if isinstance(server, str) else server.url
        environment = {"HF_ENDPOINT": url, "HF_HOME": tmp_path / "hf", "HF_HUB_OFFLINE": "0", "HF_TOKEN": ""} | environment
        return run_python(LOAD, name, *revision, **environment)

    return run


def fails(done, *words):
    """Whether a process ended with one clear sentence that holds the words."""
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("InputError: ") and "Traceback" not in done.stderr
    assert all(word in last for word in words), last
    return True


def halves(folder):
    """Files of a cache that are not whole."""
    return [path for path in folder.rglob("*") if path.name.endswith(".incomplete") or (path.is_symlink() and not path.exists())]


def test_download_revision_and_offline(load, model, files, tmp_path):
    torch.manual_seed(8)
    older = {**files, "model.safetensors": save(timm.create_model("vit_small_patch16_224", num_classes=0).state_dict())}
    with hub_server({REPOSITORY: {"main": files, "older": older}}) as server:
        facts = json.loads(load(server).stdout)
        assert facts["fingerprint"] == fingerprint(model)
        assert facts["source"] == f"{REPOSITORY}@{COMMIT[:10]}"
        assert (facts["patch_size"], facts["num_prefix_tokens"], facts["embedding_dim"]) == (16, 1, 384)
        how = facts["preprocessing"]
        assert (how["size"], how["interpolation"]) == (224, "bilinear")
        assert how["mean"] == pytest.approx([0.485, 0.456, 0.406])
        asked = {path.rsplit("/", 1)[1] for command, path in server.requests}
        assert asked == {"config.json", "model.safetensors"}
        fetched = len([1 for command, path in server.requests if command == "GET" and path.startswith("/cdn/")])
        assert json.loads(load(server).stdout) == facts  # from the cache
        assert len([1 for command, path in server.requests if command == "GET" and path.startswith("/cdn/")]) == fetched == 1
        old = json.loads(load(server, "radiodino-s16", "older").stdout)
        assert old["source"] == f"{REPOSITORY}@{OLDER[:10]}"
        assert old["fingerprint"] != facts["fingerprint"]
        assert fails(load(server, "radiodino-s16", "no-such-tag"), f"{REPOSITORY}@no-such-tag", "no such revision")
        assert fails(load(server, "radiodino-b16"), "Snarcy/RadioDino-b16", "no such repository")
    offline = load(server, HF_HUB_OFFLINE="1")
    assert json.loads(offline.stdout) == facts
    assert json.loads(load(server).stdout) == facts  # the server is gone, the cache is there


def test_offline_with_an_empty_cache(load, tmp_path):
    with hub_server({}) as server:
        assert fails(load(server, HF_HUB_OFFLINE="1"), REPOSITORY, "not in the local cache", "random-t16")
        assert not server.requests


def test_no_network(load):
    assert fails(load("http://127.0.0.1:9"), REPOSITORY, "cannot be reached", "random-t16")


def test_a_download_that_is_cut(load, files, tmp_path):
    with hub_server({REPOSITORY: {"main": files}}, cut=1_000_000) as server:
        assert fails(load(server), REPOSITORY, "download was cut", "try again")
        assert not halves(tmp_path / "hf")
        assert not list((tmp_path / "hf").rglob("model.safetensors"))
        server.cut = None
        assert load(server).returncode == 0


def test_a_download_that_is_corrupt(load, files, tmp_path):
    with hub_server({REPOSITORY: {"main": files}}, corrupt=True) as server:
        assert fails(load(server), REPOSITORY, "model.safetensors is corrupt", "try again")
        assert not halves(tmp_path / "hf")
        assert not list((tmp_path / "hf").rglob("model.safetensors"))
        server.corrupt = False
        assert load(server).returncode == 0


def test_repositories_that_are_wrong(load, model, files, tmp_path):
    state = model.state_dict()
    lacking = save({name: tensor for name, tensor in state.items() if name != "blocks.3.mlp.fc1.bias"})
    misshapen = save({**state, "norm.weight": torch.ones(10), "blocks.99.ls": torch.ones(1)})
    classifier = json.dumps(CONFIG | {"num_classes": 1000, "pretrained_cfg": {**CONFIG["pretrained_cfg"], "num_classes": 1000}})
    cases = [
        ({"config.json": files["config.json"]}, ["lacks", "model.safetensors"]),
        ({**files, "config.json": b"{not json"}, ["config.json", "not a configuration"]),
        ({**files, "config.json": b'{"architecture": "no_such_vit"}'}, ["config.json", "not a configuration"]),
        ({**files, "model.safetensors": b"not tensors at all"}, ["model.safetensors", "damaged"]),
        ({**files, "config.json": classifier.encode(), "model.safetensors": lacking}, ["missing blocks.3.mlp.fc1.bias"]),
        ({**files, "model.safetensors": misshapen}, ["unexpected blocks.99.ls", "norm.weight is (10,), not (384,)"]),
    ]
    for number, (wrong, words) in enumerate(cases):
        with hub_server({REPOSITORY: {"main": wrong}}) as server:
            assert fails(load(server, HF_HOME=tmp_path / f"hf{number}"), *words)
