import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from radiodino_utils.backbones import bundled
from radiodino_utils.backbones.checkpoints import saved_num_heads
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.seen import corpus_prefixes
from radiodino_utils.core.errors import InputError
from tools import card_evaluation, model_card
from tools.card_evaluation import bars
from tools.card_facts import BACKBONES, CORPUS, NAME, WEIGHTS, corpus_sha256
from tools.card_text import markdown
from tools.model_card import export

CARD = WEIGHTS / f"{NAME}.json"


@pytest.fixture
def facts():
    return json.loads(CARD.read_text())


def synthetic_rows(value):
    keys = [(view, "knn", "accuracy") for view in ("organct-axial", "organct-coronal")]
    keys += [("breastmnist-224", protocol, "auc") for protocol in ("knn", "logistic")]
    rows = [
        (*key, backbone, value if backbone == NAME else 0.5)
        for key in keys
        for backbone in BACKBONES
    ]
    return pd.DataFrame(rows, columns=["dataset", "protocol", "metric", "backbone", "value"])


def synthetic_paired(lower):
    rows = [
        ("breastmnist-224", protocol, NAME, "pixels", "auc", lower + 0.05, lower, lower + 0.1, 156)
        for protocol in ("knn", "logistic")
    ]
    columns = ["dataset", "protocol", "backbone", "other", "metric", "difference", "ci_low"]
    return pd.DataFrame(rows, columns=[*columns, "ci_high", "n"])


def test_bars_are_compared_with_what_was_measured(tmp_path):
    good = bars(synthetic_rows(0.95), synthetic_paired(0.01), tmp_path)
    bad = bars(synthetic_rows(0.64), synthetic_paired(-0.01), tmp_path)
    measured = [bar for bar in good if bar["value"] != "not measured"]
    assert [bar["bar"] for bar in measured] == [0.65, 0.65, 0.86, 0.0, 0.88, 0.0]
    assert all(bar["met"] for bar in measured) and not any(bar["met"] for bar in bad)
    unmeasured = {bar["what"].split(",")[0] for bar in good if bar["value"] == "not measured"}
    assert unmeasured == {"busi", "organct-seg", "maps"}


def test_tables_of_other_weights_are_not_measured(tmp_path):
    tables = tmp_path / "breast" / "tables"
    tables.mkdir(parents=True)
    for weights, expected in (("0" * 12, "not measured"), (load_backbone(NAME).fingerprint, 0.1)):
        rows = [
            ("busi-folds", "logistic", "auc", NAME, 0.9, weights),
            ("busi-folds", "logistic", "auc", "pixels", 0.8, "0" * 12),
        ]
        columns = ["dataset", "protocol", "metric", "backbone", "value", "weights"]
        pd.DataFrame(rows, columns=columns).to_csv(tables / "07_probe_rows.csv", index=False)
        found = bars(synthetic_rows(0.9), synthetic_paired(0.0), tmp_path)
        (lead,) = [bar["value"] for bar in found if bar["what"].startswith("busi, 5 folds")]
        assert lead == expected


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
    facts = dict.fromkeys(("config", "targets", "lengths", "sources", "versions"), {})
    steps = [
        (None, "run.json"),
        ("run.json", "monitor.jsonl"),
        ("monitor.jsonl", "trials.csv"),
    ]
    for name, hint in steps:
        if name:
            (tmp_path / name).write_text(json.dumps(facts | {"crops": 1}) + "\n")
        with pytest.raises(SystemExit, match="2"):
            options = ["--run", str(tmp_path), "--trials", str(tmp_path / "trials.csv")]
            model_card.main(options)
        assert hint in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in WEIGHTS.iterdir()} == before


def test_a_new_evaluation_changes_the_cards_numbers_and_nothing_else(facts, tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    rows, paired = bundled.evaluation_rows(), pd.DataFrame(facts["paired"])
    changed = (rows["protocol"] == "logistic") & (rows["metric"] == "accuracy")
    rows.loc[changed, "value"] = 0.4321
    for module in (model_card, bundled):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path / "weights")
    # the extraction takes minutes and BreastMNIST
    monkeypatch.setattr(model_card, "evaluate", lambda: (rows, paired))
    model_card.main(["--evaluation"])
    assert (bundled.evaluation_rows()["value"] == 0.4321).sum() == changed.sum() == 16
    again = json.loads((tmp_path / "weights" / f"{NAME}.json").read_text())
    assert {name for name in facts if again[name] != facts[name]} <= {"evaluation", "bars"}
    assert again.keys() == facts.keys()
    text = (tmp_path / "weights" / f"{NAME}.md").read_text()
    assert text == markdown(again) and text.count("| 43.2 [") == 16
    for options in (["--evaluation", "--run", "a"], ["--run", "a"], []):
        with pytest.raises(SystemExit) as stopped:
            model_card.main(options)
        assert stopped.value.code == 2


def test_the_checkpoint_is_the_one_of_the_card(facts):
    backbone = load_backbone(NAME)
    assert backbone.fingerprint == facts["fingerprint"]
    sizes = (backbone.embedding_dim, backbone.patch_size, backbone.preprocessing.size)
    assert sizes == (192, 16, 224)
    path = WEIGHTS / f"{NAME}.safetensors"
    assert path.stat().st_size == facts["bytes"] < 12e6
    assert card_evaluation.load_backbone(NAME).fingerprint == facts["fingerprint"]
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}


def test_the_card_for_people_is_made_of_the_facts(facts):
    text = (WEIGHTS / f"{NAME}.md").read_text()
    assert text == markdown(facts)
    for source in facts["corpus"]:
        assert source["licence"] and source["by"] and source["images"] > 0
    assert sum(source["images"] for source in facts["corpus"]) == facts["corpus_images"]
    assert sum(source["share of draws"] for source in facts["corpus"]) == pytest.approx(1, abs=0.01)


def test_the_hub_can_read_the_card():
    header = ModelCard((WEIGHTS / f"{NAME}.md").read_text()).data
    assert header.license == "cc-by-sa-4.0" and header.library_name == "timm"
    assert header.pipeline_tag == "image-feature-extraction"


def test_the_committed_options_are_those_of_the_run(facts):
    words = (WEIGHTS / f"{NAME}.args").read_text().split("\n")
    pairs = list(zip(words[::2], words[1::2], strict=False))
    config, targets = facts["run"]["config"], facts["run"]["targets"]
    assert [value for name, value in pairs if name == "--teacher"] == list(targets["teachers"])
    assert int(dict(pairs)["--capacity"]) == targets["capacity"]
    for setting in (value for name, value in pairs if name == "--set"):
        name, _, value = setting.partition("=")
        wanted = facts["run"]["lengths"][-1]["crops"] if name == "crops" else config[name]
        assert value == (wanted if isinstance(wanted, str) else json.dumps(wanted))
    weights = {
        value.split("/")[1].split(".")[0]: float(value.split("=")[1])
        for name, value in pairs
        if name == "--data"
    }
    images = pd.read_csv(WEIGHTS / CORPUS, dtype=str)["name"].str.split("/", n=2, expand=True)
    archive = dict(zip(images[1], images[0], strict=True))
    shares = pd.DataFrame(facts["corpus"])
    drawn = shares.groupby(shares["source"].map(archive))["share of draws"].sum()
    assert drawn.to_dict() == pytest.approx(
        {name: weight / sum(weights.values()) for name, weight in weights.items()}, abs=2e-3
    )


def test_what_is_shipped_is_the_best_trial_by_validation(facts):
    trials = pd.read_csv(WEIGHTS / f"{NAME}-trials.csv")
    values = trials.filter(regex="organct.* val accuracy|crossed")
    assert values.shape[1] == 5 and values.notna().all(axis=None)
    candidates = trials["crops seen"] > 0  # not the baselines nor the teacher
    best = values[candidates].mean(axis=1).idxmax()
    assert trials.loc[best, "crops seen"] == facts["crops_seen"]


def test_the_corpus_of_the_card_is_the_listed_one(facts):
    digests = pd.read_csv(WEIGHTS / CORPUS, dtype=str)["sha256"].tolist()
    assert corpus_sha256(digests) == facts["corpus_sha256"]
    assert (corpus_prefixes(digests) == np.load(WEIGHTS / f"{NAME}-corpus.npy")).all()
