"""The hub path for real: the genuine client and a server on this machine."""

import hashlib
import json
import time

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save

from radiodino_utils.backbones.fingerprints import fingerprint
from radiodino_utils.backbones.hub import _is_intact
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.presence import missing_weights
from radiodino_utils.core import downloads
from radiodino_utils.core.errors import InputError

from ..hub_server import COMMIT, OLDER, hub_server
from ..web_server import web_server

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
NOWHERE = "http://127.0.0.1:9"  # the port of `discard`: nobody listens
LOAD = """
import json, sys
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.backbones.presence import missing_weights
for argument in sys.argv[1:]:
    revision = None if argument == "-" else argument
    try:
        print(json.dumps(load_backbone("radiodino-s16", revision=revision).describe()))
    except InputError as error:
        print(json.dumps({"error": str(error)}))
"""


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(7)
    return [timm.create_model("vit_small_patch16_224", depth=1, num_classes=0) for _ in range(2)]


@pytest.fixture(scope="module")
def files(models):
    return {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": save(models[0].state_dict()),
    }


def fetched(server):
    """Return how often weights were fetched."""
    return sum(
        command == "GET" and path.endswith("model.safetensors") and "/cdn/" in path
        for command, path in server.requests
    )


def test_environment_revision_and_cache(run_python, models, files, tmp_path):
    environment = {
        "HF_HOME": tmp_path / "hf",
        "HF_HUB_CACHE": tmp_path / "hf" / "hub",
        "HF_TOKEN": "",
    }
    older = {**files, "model.safetensors": save(models[1].state_dict())}
    with hub_server({REPOSITORY: {"main": files, "older": older}}) as server:
        online = run_python(
            LOAD,
            "-",
            "-",
            "older",
            OLDER,
            "no-such-tag",
            HF_ENDPOINT=server.url,
            HF_HUB_OFFLINE="0",
            **environment,
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
    offline = run_python(
        LOAD, "-", "older", HF_ENDPOINT=server.url, HF_HUB_OFFLINE="1", **environment
    )
    assert list(map(json.loads, offline.stdout.splitlines())) == [main, tag]


def test_offline_with_an_empty_cache(run_python, tmp_path):
    with hub_server({}) as server:
        done = run_python(
            LOAD,
            "-",
            HF_ENDPOINT=server.url,
            HF_HUB_OFFLINE="1",
            HF_HOME=tmp_path,
            HF_HUB_CACHE=tmp_path / "hub",
        )
        assert not server.requests
    error = json.loads(done.stdout)["error"]
    assert error.startswith(f"{REPOSITORY}@main: the weights are not in the local cache")
    assert "HF_HUB_OFFLINE is set" in error


def test_no_network(use_hub, models, files):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        use_hub(server.url)
        load_backbone("radiodino-s16")
    use_hub(NOWHERE)
    assert load_backbone("radiodino-s16").fingerprint == fingerprint(models[0])  # from the cache
    start = time.monotonic()
    with pytest.raises(
        InputError,
        match=r"RadioDino-b16@main: .*\(config\.json\), and the Hub cannot be reached \(no network",
    ):
        load_backbone("radiodino-b16")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize(("status", "asked"), [(503, None), (429, "86400"), (500, "soon")])
def test_a_busy_hub_is_said_and_the_cache_is_used(status, asked, files, use_hub):
    with hub_server({REPOSITORY: {"main": files}}, retry_after=asked) as server:
        use_hub(server.url)
        server.busy = status
        start = time.monotonic()
        wait = f" and asks to wait {asked} s" if asked == "86400" else ""
        with pytest.raises(
            InputError, match=rf"and the Hub is busy \(HTTP {status}\){wait}; try again later"
        ):
            load_backbone("radiodino-s16")
        server.busy = 0
        load_backbone("radiodino-s16")
        server.busy = status
        load_backbone("radiodino-s16")
        assert time.monotonic() - start < 30


def test_a_page_that_is_not_the_hub(use_hub):
    with web_server({"config.json": b"<html>"}) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match="what answers at http://127.* is not the Hub"):
            load_backbone("radiodino-s16")


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_every_flipped_bit_of_the_cache_is_found(file, files, use_hub, capsys):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        cache = use_hub(server.url)
        first = load_backbone("radiodino-s16")
        path, generator = next(cache.rglob(file)), np.random.default_rng(0)
        content = path.read_bytes()
        for _ in range(50):
            flipped = bytearray(content)
            flipped[int(generator.integers(len(content)))] ^= 1 << int(generator.integers(8))
            path.resolve().write_bytes(flipped)
            assert not _is_intact(path)
        assert load_backbone("radiodino-s16").describe() == first.describe()
        assert (
            f"{REPOSITORY}@main: {file} in the Hub's cache is damaged; fetched again."
            in capsys.readouterr().out
        )
        assert path.read_bytes() == content
        path.resolve().write_bytes(b"{")
    use_hub(NOWHERE)
    with pytest.raises(
        InputError,
        match=rf"weights are damaged in the local cache \({file}\), and the Hub cannot be reached",
    ):
        load_backbone("radiodino-s16")


def test_an_unknown_repository(files, use_hub):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        use_hub(server.url)
        with pytest.raises(
            InputError,
            match=r"RadioDino-b16@main: .*, and the Hub knows no such repository, or it needs a",
        ):
            load_backbone("radiodino-b16")


def test_a_cut_download_goes_on_where_it_was_cut(files, use_hub, capsys):
    with hub_server({REPOSITORY: {"main": files}}, cut=1_000_000) as server:
        cache = use_hub(server.url)
        with pytest.raises(
            InputError,
            match=r"model\.safetensors: the connection was cut 5 times; try again: 1\.0 MB are",
        ):
            load_backbone("radiodino-s16")
        assert "the connection was cut; attempt 2 of 5" in capsys.readouterr().out
        assert not list(cache.rglob("model.safetensors"))
        server.cut = None
        assert load_backbone("radiodino-s16").source.startswith(REPOSITORY)
        assert server.ranges == [
            None,
            *["bytes=983040-"] * downloads.ATTEMPTS,
        ]  # whole pieces of 64 KiB
        assert not list(cache.rglob("*.part"))


def test_a_corrupt_download_is_not_kept_and_can_be_tried_again(files, use_hub):
    with hub_server({REPOSITORY: {"main": files}}, corrupt=True) as server:
        cache = use_hub(server.url)
        with pytest.raises(
            InputError,
            match=r"model\.safetensors: wrong SHA-256: .*; the file was removed: try again",
        ):
            load_backbone("radiodino-s16")
        assert not list(cache.rglob("*.part")) and not list(cache.rglob("model.safetensors"))
        server.corrupt = False
        assert load_backbone("radiodino-s16").source.startswith(REPOSITORY)


CLASSIFIER = CONFIG | {
    "num_classes": 1000,
    "pretrained_cfg": {**CONFIG["pretrained_cfg"], "num_classes": 1000},
}
WRONG = {
    "no weights": (
        lambda files, _: {"config.json": files["config.json"]},
        "the repository has none of model.safetensors, pytorch_model.bin",
    ),
    "no JSON": (
        lambda files, _: {**files, "config.json": b"{"},
        "config.json: not a configuration",
    ),
    "unknown model": (
        lambda files, _: {**files, "config.json": b'{"architecture": "no_vit"}'},
        "config.json: not a configuration",
    ),
    "no tensors": (
        lambda files, _: {**files, "model.safetensors": b"not tensors"},
        "model.safetensors: .* damaged or truncated",
    ),
    "missing": (
        lambda files, state: {
            "config.json": json.dumps(CLASSIFIER).encode(),
            "model.safetensors": save(
                {name: value for name, value in state.items() if name != "blocks.0.mlp.fc1.bias"}
            ),
        },
        "missing blocks.0.mlp.fc1.bias",
    ),
    "misshapen": (
        lambda files, state: {
            **files,
            "model.safetensors": save(
                {**state, "norm.weight": torch.ones(10), "blocks.9.x": torch.ones(1)}
            ),
        },
        r"unexpected blocks\.9\.x; norm\.weight is \(10,\), not \(384,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_repositories_that_are_wrong(models, files, use_hub, case):
    make, message = WRONG[case]
    with hub_server({REPOSITORY: {"main": make(files, models[0].state_dict())}}) as server:
        use_hub(server.url)
        with pytest.raises(InputError, match=message):
            load_backbone("radiodino-s16")


def test_dinov2_is_resampled_to_224(use_hub):
    torch.manual_seed(3)
    released = timm.create_model("vit_small_patch14_dinov2", depth=1, img_size=518, num_classes=0)
    trained = CONFIG["pretrained_cfg"] | {"input_size": [3, 518, 518]}
    config = CONFIG | {"architecture": "vit_small_patch14_dinov2", "pretrained_cfg": trained}
    repository = {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": save(released.state_dict()),
    }
    with hub_server({"timm/vit_small_patch14_dinov2.lvd142m": {"main": repository}}) as server:
        use_hub(server.url)
        backbone = load_backbone("dinov2-s14")
    assert (backbone.patch_size, backbone.embedding_dim, backbone.num_prefix_tokens) == (14, 384, 1)
    assert backbone.model.pos_embed.shape == (1, 1 + 16 * 16, 384)
    assert (backbone.preprocessing.size, backbone.preprocessing.interpolation) == (224, "bicubic")
    assert torch.equal(backbone.model.blocks[0].attn.qkv.weight, released.blocks[0].attn.qkv.weight)


def test_weights_are_compared_with_the_known_sha256_of_their_commit(files, use_hub, monkeypatch):
    known = {COMMIT: hashlib.sha256(files["model.safetensors"]).hexdigest()}
    monkeypatch.setattr(
        "radiodino_utils.backbones.hub.known_sha256",
        lambda repository, commit: known.get(commit),
    )
    with hub_server({REPOSITORY: {"main": files}}) as server:
        use_hub(server.url)
        load_backbone("radiodino-s16")
        known[COMMIT] = "0" * 64
        with pytest.raises(
            InputError,
            match=r"model\.safetensors has the SHA-256 \w{64}, not 0{64} as weights_sha256\.csv",
        ):
            load_backbone("radiodino-s16")


def test_what_is_missing_is_present_after_the_download(files, use_hub):
    with hub_server({REPOSITORY: {"main": files}}) as server:
        cache = use_hub(server.url)
        missing = missing_weights("radiodino-s16")
        assert missing.url == f"{server.url}/{REPOSITORY}"
        assert str(cache) in missing.hint
        load_backbone("radiodino-s16")
        assert missing_weights("radiodino-s16") is None
        assert missing_weights("radiodino-b16") is not None
