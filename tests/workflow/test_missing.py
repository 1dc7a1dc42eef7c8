import pytest
from medmnist import INFO

from radiodino_utils.workflow.missing import describe_missing, missing_inputs, without_missing
from radiodino_utils.workflow.profiles import load_profile

from ..synthetic_busi import synthetic_busi
from ..web_server import web_server

PARAMETERS = [
    {
        "datasets": ["organct-axial", "busi-fold0", "organamnist-64"],
        "backbones": ["radiodino-s16", "random-t16"],
        "ks": [1, 5],
    },
    {"dataset": "radimagenet", "backbone": "radiodino-s16", "seed": 0},
]


@pytest.fixture(autouse=True)
def empty(monkeypatch, tmp_path):
    """No weights and no datasets here, and nobody listens at the servers."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setitem(INFO["organamnist"], "url_64", "http://127.0.0.1:9/organamnist_64.npz")
    for name in ("BUSI", "MEDMNIST", "RADIMAGENET"):
        monkeypatch.delenv(name, raising=False)


def test_everything_that_is_missing_is_named_with_how_to_provide_it():
    missing = missing_inputs(PARAMETERS)
    assert [one.name for one in missing] == [
        "busi-fold0",
        "organamnist-64",
        "radiodino-s16",
        "radimagenet",
    ]
    lines = describe_missing(missing).splitlines()
    for line, words in zip(
        lines,
        [
            ("scholar.cu.edu.eg", "BUSI"),
            ("organamnist_64.npz", "MEDMNIST"),
            ("hub", "RadioDino-s16"),
            ("radimagenet.com", "RADIMAGENET"),
        ],
        strict=True,
    ):
        assert all(word in line for word in words)


def test_what_is_here_or_can_be_downloaded_is_not_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("BUSI", str(synthetic_busi(tmp_path / "busi", counts=(1, 1, 1))))
    (tmp_path / "organamnist_64.npz").touch()
    monkeypatch.setenv("MEDMNIST", str(tmp_path))
    with web_server({}) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.url)
        assert [one.name for one in missing_inputs(PARAMETERS)] == ["radimagenet"]


def test_paths_of_ones_own(tmp_path):
    (tmp_path / "mine.npz").touch()
    names = [f"{kind}:{tmp_path / 'mine.npz'}" for kind in ("npz", "folder", "masks", "file")]
    assert missing_inputs([{"datasets": names}]) == []
    missing = missing_inputs([{"datasets": [f"{name}x" for name in names]}])
    assert [one.name for one in missing] == [f"{name}x" for name in names]
    assert "mine.npzx does not exist" in describe_missing(missing)


def test_no_server_is_asked_where_nothing_would_be_downloaded(monkeypatch):
    monkeypatch.setattr(
        "radiodino_utils.workflow.missing.is_reachable", lambda url: pytest.fail(f"{url} was asked")
    )
    assert (
        missing_inputs(
            [
                {
                    "dataset": "organct-axial",
                    "backbones": ["random-t16", "pixels"],
                    "protocols": ["knn"],
                }
            ]
        )
        == []
    )


def test_without_what_is_missing():
    missing = missing_inputs(PARAMETERS)
    assert without_missing(PARAMETERS[0], missing) == {
        "datasets": ["organct-axial"],
        "backbones": ["random-t16"],
        "ks": [1, 5],
    }
    assert without_missing(PARAMETERS[1], missing) is None
    assert without_missing({"datasets": ["busi-fold0"], "empty": []}, missing) is None
    assert without_missing({"datasets": [], "nothing": None}, missing) == {
        "datasets": [],
        "nothing": None,
    }


def test_the_demo_lacks_nothing_on_a_fresh_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("RADIODINO_DATA", str(tmp_path / "data"))
    assert missing_inputs(notebook.parameters for notebook in load_profile("demo")) == []
