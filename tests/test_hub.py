"""The hub path for real: the genuine client and a server on this machine."""

import hashlib
import json

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import save

from radiodino_utils.backbones import load_backbone
from radiodino_utils.checkpoints import fingerprint
from radiodino_utils.errors import InputError
from radiodino_utils.models import missing_weights

from .hub_server import COMMIT, OLDER, hub_server

REPOSITORY = "Snarcy/RadioDino-s16"
CONFIG = {
    "architecture": "vit_small_patch16_224",
    "num_classes": 0,
    "model_args": {"depth": 1},  # a small download
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
LOAD = """
import json, sys
from radiodino_utils.backbones import load_backbone
from radiodino_utils.errors import InputError
from radiodino_utils.models import missing_weights
for revision in sys.argv[1:]:
    try:
        print(json.dumps(load_backbone("radiodino-s16", revision=None if revision == "-" else revision).describe()))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(7)
    return [timm.create_model("vit_small_patch16_224", depth=1, num_classes=0) for _ in range(2)]


@pytest.fixture(scope="module")
def files(models):
    return {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": save(models[0].state_dict())}


@pytest.fixture
def use(monkeypatch, tmp_path):
    """Points the client of this process at a server; it read its environment when it was imported."""

    def point(server, cache="hub"):
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / cache))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        return tmp_path / cache

    return point


def unfinished(cache):
    """Everything in a cache that is not whole, and the weights."""
    paths = list(cache.rglob("*"))
    dangling = [path for path in paths if path.is_symlink() and not path.exists()]
    return dangling + [path for path in paths if path.suffix == ".incomplete" or path.name == "model.safetensors"]


def fetched(server):
    """How often weights were fetched."""
    return sum(command == "GET" and path.endswith("model.safetensors") and "/cdn/" in path for command, path in server.requests)


def test_environment_revision_and_cache(run_python, models, files, tmp_path):
    environment = {"HF_HOME": tmp_path / "hf", "HF_HUB_CACHE": tmp_path / "hf" / "hub", "HF_TOKEN": ""}
    older = {**files, "model.safetensors": save(models[1].state_dict())}
    with hub_server({REPOSITORY: {"main": files, "older": older}}) as server:
        online = run_python(
            LOAD, "-", "-", "older", OLDER, "no-such-tag", HF_ENDPOINT=server.url, HF_HUB_OFFLINE="0", **environment
        )
        main, again, tag, commit, wrong = map(json.loads, online.stdout.splitlines())
        assert fetched(server) == 2
    assert main["fingerprint"] == fingerprint(models[0])
    assert main["source"] == f"{REPOSITORY}@{COMMIT[:10]}"
    assert (main["patch_size"], main["num_prefix_tokens"], main["embedding_dim"]) == (16, 1, 384)
    assert main["preprocessing"]["size"] == 224
    assert main["preprocessing"]["interpolation"] == "bilinear"
    assert main["preprocessing"]["mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert main["preprocessing"]["std"] == pytest.approx([0.229, 0.224, 0.225])
    assert again == main
    assert tag == commit
    assert tag["source"] == f"{REPOSITORY}@{OLDER[:10]}"
    assert tag["fingerprint"] == fingerprint(models[1])
    assert wrong == {"error": f"{REPOSITORY}@no-such-tag: the Hub knows no such revision."}
    offline = run_python(LOAD, "-", "older", HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1", **environment)
    assert list(map(json.loads, offline.stdout.splitlines())) == [main, tag]


def test_offline_with_an_empty_cache(run_python, tmp_path):
    with hub_server({}) as server:
        done = run_python(LOAD, "-", HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1", HF_HOME=tmp_path, HF_HUB_CACHE=tmp_path / "hub")
        assert not server.requests
    error = json.loads(done.stdout)["error"]
    assert error.startswith(f"{REPOSITORY}@main: the weights are not in the local cache")
    assert "HF_HUB_OFFLINE is set" in error


@pytest.mark.slow
def test_no_network(run_python, tmp_path):  # the client itself tries for half a minute
    done = run_python(LOAD, "-", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_HOME=tmp_path, HF_HUB_CACHE=tmp_path)
    assert "the Hub cannot be reached (no network" in json.loads(done.stdout)["error"]


def test_an_unknown_repository(files, use):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        use(server)
        with pytest.raises(InputError, match=r"RadioDino-b16@main: the Hub knows no such repository, or it needs a login"):
            load_backbone("radiodino-b16")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"cut": 1_000_000}, rf"{REPOSITORY}@main: the download was cut .*; try again\.$"),
        ({"corrupt": True}, r"model\.safetensors is corrupt .* try again"),
    ],
    ids=["cut", "corrupt"],
)
def test_a_faulty_download_leaves_no_half_file_and_can_be_tried_again(fault, sentence, files, use):
    with hub_server({REPOSITORY: {"main": files}}, **fault) as server:
        cache = use(server)
        with pytest.raises(InputError, match=sentence):
            load_backbone("radiodino-s16")
        assert not unfinished(cache)
        server.cut, server.corrupt = None, False
        assert load_backbone("radiodino-s16").source.startswith(REPOSITORY)


def test_weights_that_rot_in_the_cache(files, use):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        cache = use(server)
        load_backbone("radiodino-s16")
        blob = next(cache.rglob("model.safetensors")).resolve()
        blob.write_bytes(blob.read_bytes()[:-1] + b"?")
        with pytest.raises(InputError, match="corrupt"):
            load_backbone("radiodino-s16")
        load_backbone("radiodino-s16")
        assert fetched(server) == 2


CLASSIFIER = CONFIG | {"num_classes": 1000, "pretrained_cfg": {**CONFIG["pretrained_cfg"], "num_classes": 1000}}
WRONG = {
    "no weights": (lambda files, _: {"config.json": files["config.json"]}, "lacks config.json or model.safetensors"),
    "no JSON": (lambda files, _: {**files, "config.json": b"{"}, "config.json: not a configuration"),
    "unknown model": (
        lambda files, _: {**files, "config.json": b'{"architecture": "no_vit"}'},
        "config.json: not a configuration",
    ),
    "no tensors": (lambda files, _: {**files, "model.safetensors": b"not tensors"}, "model.safetensors: .* damaged or truncated"),
    "missing": (
        lambda files, state: {
            "config.json": json.dumps(CLASSIFIER).encode(),
            "model.safetensors": save({name: one for name, one in state.items() if name != "blocks.0.mlp.fc1.bias"}),
        },
        "missing blocks.0.mlp.fc1.bias",
    ),
    "misshapen": (
        lambda files, state: {
            **files,
            "model.safetensors": save({**state, "norm.weight": torch.ones(10), "blocks.9.x": torch.ones(1)}),
        },
        r"unexpected blocks\.9\.x; norm\.weight is \(10,\), not \(384,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_repositories_that_are_wrong(models, files, use, case):
    make, message = WRONG[case]
    with hub_server({REPOSITORY: {"main": make(files, models[0].state_dict())}}) as server:
        use(server)
        with pytest.raises(InputError, match=message):
            load_backbone("radiodino-s16")


def test_dinov2_is_resampled_to_224(use):
    torch.manual_seed(3)
    released = timm.create_model("vit_small_patch14_dinov2", depth=1, img_size=518, num_classes=0)
    trained = CONFIG["pretrained_cfg"] | {"input_size": [3, 518, 518]}
    config = CONFIG | {"architecture": "vit_small_patch14_dinov2", "pretrained_cfg": trained}
    repository = {"config.json": json.dumps(config).encode(), "model.safetensors": save(released.state_dict())}
    with hub_server({"timm/vit_small_patch14_dinov2.lvd142m": {"main": repository}}) as server:
        use(server)
        backbone = load_backbone("dinov2-s14")
    assert (backbone.patch_size, backbone.embedding_dim, backbone.num_prefix_tokens) == (14, 384, 1)
    assert backbone.model.pos_embed.shape == (1, 1 + 16 * 16, 384)
    assert (backbone.preprocessing.size, backbone.preprocessing.interpolation) == (224, "bicubic")
    assert torch.equal(backbone.model.blocks[0].attn.qkv.weight, released.blocks[0].attn.qkv.weight)


def test_weights_are_compared_with_the_known_sha256_of_their_commit(files, use, monkeypatch):
    known = {COMMIT: hashlib.sha256(files["model.safetensors"]).hexdigest()}
    monkeypatch.setattr("radiodino_utils.backbones.known_sha256", lambda repository, commit: known.get(commit))
    with hub_server({REPOSITORY: {"main": files}}) as server:
        use(server)
        load_backbone("radiodino-s16")
        known[COMMIT] = "0" * 64
        with pytest.raises(
            InputError, match=r"model\.safetensors has the SHA-256 \w{64}, not 0{64} as weights_sha256\.csv lists"
        ):
            load_backbone("radiodino-s16")


def test_what_is_missing_is_present_after_the_download(files, use):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        cache = use(server)
        missing = missing_weights("radiodino-s16")
        assert missing.url == f"{server.url}/{REPOSITORY}"
        assert str(cache) in missing.way_out
        load_backbone("radiodino-s16")
        assert missing_weights("radiodino-s16") is None
        assert missing_weights("radiodino-b16") is not None
