import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from radiodino_utils.backbones import bundled
from radiodino_utils.backbones.checkpoints import saved_num_heads
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.seen import corpus_prefixes
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.duplicates import image_digests
from radiodino_utils.data.organct import VIEWS
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source
from tests.data.test_organct import built  # noqa: F401 (a fixture)
from tools import model_card as modelcard
from tools.model_card import NAME, WEIGHTS, corpus_sha256, export, markdown, verdicts

CARD = WEIGHTS / f"{NAME}.json"
shipped = pytest.mark.skipif(not CARD.is_file(), reason="this version carries no checkpoint")


@pytest.fixture
def facts():
    return json.loads(CARD.read_text())


def synthetic_rows(value):
    keys = [(d, "knn", "accuracy") for d in ("organct-axial", "organct-coronal")]
    keys += [("breastmnist-224", p, "auc") for p in ("knn", "logistic")]
    rows = [
        (*key, backbone, value if backbone == NAME else baseline)
        for key in keys
        for backbone, baseline in zip(modelcard.BACKBONES, (0, 0.4, 0.5), strict=True)
    ]
    return pd.DataFrame(rows, columns=["dataset", "protocol", "metric", "backbone", "value"])


def test_verdicts_compare_with_the_better_baseline():
    good, bad = verdicts(synthetic_rows(0.95)), verdicts(synthetic_rows(0.59))
    assert [verdict["threshold"] for verdict in good] == pytest.approx([0.6, 0.6, 0.88, 0.9])
    assert all(verdict["met"] for verdict in good) and not any(verdict["met"] for verdict in bad)


def test_export_is_half_precision_of_a_run(tmp_path):
    path = tmp_path / "backbone.safetensors"
    save_file({"a": torch.tensor([1.0, 2.0])}, path, {"num_heads": "3"})
    tensor = load_file(export(tmp_path, tmp_path / "out.safetensors"))["a"]
    assert saved_num_heads(tmp_path / "out.safetensors") == 3
    assert tensor.dtype == torch.float16 and tensor.tolist() == [1.0, 2.0]
    save_file({"a": torch.tensor([1e9])}, path)
    with pytest.raises(InputError, match="does not fit half precision"):
        export(tmp_path, tmp_path / "out.safetensors")
    with pytest.raises(InputError, match="holds no backbone.safetensors"):
        export(tmp_path / "none", tmp_path / "out.safetensors")


def test_a_mistake_leaves_the_shipped_files_alone(tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in WEIGHTS.iterdir()}
    for name in ("run.json", "last.ckpt", "backbone.safetensors", "monitor.csv"):
        (tmp_path / name).touch()
    for runs, trials, hint in (
        ("none", "t.csv", "holds no run.json"),
        (".", "t.csv", "holds no corpus.txt"),
    ):
        with pytest.raises(SystemExit, match="2"):
            modelcard.main(["--runs", str(tmp_path / runs), "--trials", str(tmp_path / trials)])
        assert hint in capsys.readouterr().err
    (tmp_path / "corpus.txt").touch()
    with pytest.raises(SystemExit, match="2"):
        modelcard.main(["--runs", str(tmp_path), "--trials", str(tmp_path / "t.csv")])
    assert "t.csv" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in WEIGHTS.iterdir()} == before


@shipped
def test_a_new_evaluation_changes_the_cards_numbers_and_nothing_else(facts, tmp_path, monkeypatch):
    shutil.copytree(modelcard.WEIGHTS, tmp_path / "weights")
    rows = bundled.evaluation_rows()
    rows.loc[(rows["protocol"] == "logistic") & (rows["metric"] == "accuracy"), "value"] = 0.4321
    monkeypatch.setattr(modelcard, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(bundled, "WEIGHTS", tmp_path / "weights")
    monkeypatch.setattr(
        modelcard, "evaluate", lambda: rows
    )  # the extraction takes minutes and BreastMNIST
    modelcard.main(["--evaluation"])
    assert (bundled.evaluation_rows()["value"] == 0.4321).sum() == 12
    again = json.loads((tmp_path / "weights" / f"{modelcard.NAME}.json").read_text())
    assert {name for name in facts if again[name] != facts[name]} <= {
        "evaluation",
        "thresholds",
    } and again.keys() == facts.keys()
    text = (tmp_path / "weights" / f"{modelcard.NAME}.md").read_text()
    assert text == modelcard.markdown(again) and text.count("| 43.2 [") == 12
    for options in (["--evaluation", "--runs", "a"], ["--runs", "a"], []):
        with pytest.raises(SystemExit) as stopped:
            modelcard.main(options)
        assert stopped.value.code == 2


def test_the_checkpoint_is_the_one_of_the_card(facts):
    backbone = load_backbone(NAME)
    assert backbone.fingerprint == facts["fingerprint"]
    assert (backbone.embedding_dim, backbone.patch_size, backbone.preprocessing.size) == (
        192,
        16,
        224,
    )
    path = WEIGHTS / f"{NAME}.safetensors"
    assert path.stat().st_size == facts["bytes"] < 12e6
    assert modelcard.file_hash(path) == facts["sha256"]
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


@shipped
def test_the_card_for_people_is_made_of_the_facts(facts):
    assert (WEIGHTS / f"{NAME}.md").read_text() == markdown(facts)
    for source in facts["corpus"]:
        assert source["licence"] and source["by"] and source["images"] > 0


@shipped
def test_the_committed_configuration_and_options_are_those_of_the_run(facts):
    (stage,) = facts["stages"]
    config = load_config("mini", images=facts["corpus_images"]).describe()
    assert {key: config[key] for key in stage["config"]} == stage["config"]
    assert {key: value for key, value in config.items() if key not in stage["config"]} == {
        "initialization": "mae",
        "layer_scale": 0.0,
        "norm_last_layer": True,
        "patch_head": "separate",
        "schedules": "lightly",
        "patch_embed_lr": 1.0,
        "token_weight_decay": False,
        "drop_path_uniform": False,
        "freeze_by": "gradient",
        "koleo_views": "mean",
    }
    options = (WEIGHTS / f"{NAME}.args").read_text().split()
    assert options[options.index("--seed") + 1] == str(stage["seed"])
    assert options[options.index("--config") + 1] == "mini"
    assert options[options.index("--stop-at") + 1] == str(stage["steps_done"])
    weights = [
        float(one.split("=")[1])
        for before, one in zip(options, options[1:], strict=False)
        if before == "--data"
    ]
    assert np.allclose(
        np.array(weights) / sum(weights), [source["share of draws"] for source in facts["corpus"]]
    )


@shipped
def test_what_is_shipped_is_the_best_trial_by_validation(facts):
    trials = pd.read_csv(WEIGHTS / f"{NAME}-trials.csv")
    values = trials.filter(regex="organct.* val accuracy|crossed").dropna()
    assert values.shape[1] == 5 and len(values) > 5
    assert trials.loc[values.mean(axis=1).idxmax(), "images seen"] == facts["images_seen"]


@shipped
@pytest.mark.slow
@pytest.mark.parametrize("view", VIEWS)
def test_no_image_of_the_demo_was_seen(built, view):  # noqa: F811
    seen = set(np.load(WEIGHTS / f"{NAME}-corpus.npy").tolist())
    for split in load_dataset(f"npz:{built[view]}").splits.values():
        assert not seen & set(corpus_prefixes(image_digests(split.images)).tolist())


@shipped
@pytest.mark.data
def test_nothing_of_breastmnist_but_training_rows_was_seen(shared_data, facts):
    labelled = load_dataset("breastmnist-224", folder=shared_data / "medmnist")
    seen = np.load(WEIGHTS / f"{NAME}-corpus.npy")
    for split in ("val", "test"):
        assert not set(seen.tolist()) & set(
            corpus_prefixes(image_digests(labelled.splits[split].images)).tolist()
        )
    train = corpus_prefixes(image_digests(labelled.splits["train"].images))
    assert np.isin(train, seen).sum() == len(set(train.tolist())) - 1
    assert not np.isin(
        corpus_prefixes(image_digests(labelled.splits["train"].images[115:116])), seen
    ).any()


@shipped
@pytest.mark.slow
@pytest.mark.data
def test_the_corpus_of_the_card_is_that_of_the_files(shared_data, facts):
    labelled = load_dataset("breastmnist-224", folder=shared_data / "medmnist")
    folder = shared_data / "corpus"
    sources = [Source(folder / f"{one['source']}.zip", 1) for one in facts["corpus"][:-1]]
    corpus = load_corpus(
        [*sources, Source(shared_data / "medmnist" / "breastmnist_224.npz", 1)], hold_out=[labelled]
    )
    assert corpus_sha256(corpus.digests) == facts["corpus_sha256"]
    assert (corpus_prefixes(corpus.digests) == np.load(WEIGHTS / f"{NAME}-corpus.npy")).all()
