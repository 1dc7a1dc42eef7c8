import re

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.environment import git_revision
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.states import write_state
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.results import (
    COLUMNS,
    classification_rows,
    collect_rows,
    notes,
    over_seeds,
    paired_table,
    read_table,
    wide_table,
    write_table,
)

from ..synthetic import synthetic_features


def synthetic_rows(**changes):
    return classification_rows(
        classify_knn(synthetic_features(noise=2.0), protocol="knn11"), resamples=50
    ).assign(**changes)


def test_a_row_says_all_about_its_number():
    rows = classification_rows(
        classify_knn(synthetic_features(noise=2.0, caveat="one patient"), ks=(5,)),
        seed=7,
        resamples=50,
    )
    assert tuple(rows.columns) == (*COLUMNS, "val_accuracy")
    assert {"dataset", "task", "protocol", "backbone", "split", "metric", "value"} < set(COLUMNS)
    assert {"ci_low", "ci_high", "n", "seed", "weights", "git"} < set(COLUMNS)
    first = rows.iloc[0].to_dict()
    expected = {
        "dataset": "made",
        "task": "classification",
        "protocol": "knn",
        "backbone": "random-t16",
        "split": "test",
    }
    expected |= {
        "positive": "",
        "engine": "torch",
        "precision": "fp32",
        "seen_in_pretraining": "none",
    }
    expected |= {
        "metric": "accuracy",
        "n": 30,
        "seed": 7,
        "weights": "0123456789ab",
        "choice": "k = 5",
        "caveat": "one patient",
    }
    assert {name: first[name] for name in expected} == expected
    assert first["git"] == git_revision()
    assert rows["value"].between(0, 1).all() and (rows["ci_low"] <= rows["value"]).all()
    assert rows["metric"].tolist() == ["accuracy", "balanced_accuracy", "f1_macro", "auc", "ece"]


def test_tables_have_six_digits(tmp_path):
    path = write_table(
        pd.DataFrame({"value": [1 / 3, 2e-7 / 3, 1.0], "n": [1, 2, 1234567]}),
        tmp_path / "new" / "t.csv",
    )
    assert path.read_bytes() == b"value,n\n0.333333,1\n6.66667e-08,2\n1,1234567\n"


def test_rows_come_back_as_they_were_written(tmp_path):
    first, second = (
        synthetic_rows(weights="000012345678"),
        synthetic_rows(dataset="None", git="1234567890"),
    )
    write_table(first, tmp_path / "03_a_rows.csv")
    write_table(second, tmp_path / "05_b_rows.csv")
    write_table(first, tmp_path / "03_k_curve.csv")
    back = collect_rows(tmp_path)
    pd.testing.assert_frame_equal(
        back, pd.concat([first, second], ignore_index=True), rtol=1e-5, check_dtype=False
    )


def test_rows_without_a_validation_score_are_read_beside_others(tmp_path):
    older = synthetic_rows().drop(columns="val_accuracy")
    write_table(older, tmp_path / "05_older_rows.csv")
    assert tuple(collect_rows(tmp_path)) == COLUMNS
    write_table(synthetic_rows(val_accuracy=0.75), tmp_path / "03_newer_rows.csv")
    scores = collect_rows(tmp_path)["val_accuracy"]
    assert (scores[: len(older)] == 0.75).all() and scores[len(older) :].isna().all()


NAMES = [
    '=HYPERLINK("x")',
    "+cmd|' /C calc'!A0",
    "-cmd",
    "@SUM(1)",
    "\tx",
    "\rx",
    "a\r=x",
    "\uff1dx",
]
NAMES += ["'=x", "''", "'", "-5", 'a,"b', ""]


def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path):
    rows = pd.concat(
        [synthetic_rows(dataset=name, positive=name, value=-0.25) for name in NAMES],
        ignore_index=True,
    )
    path = write_table(rows, tmp_path / "03_rows.csv")
    back = collect_rows(tmp_path)
    assert back["dataset"].tolist() == back["positive"].tolist() == rows["dataset"].tolist()
    assert (back["value"] == -0.25).all()
    raw = pd.read_csv(path, dtype=str, keep_default_na=False)
    started = [cell for cell in raw.to_numpy().ravel() if cell.startswith(tuple("=+-@\t\r\uff1d"))]
    assert set(started) == {"-5", "-0.25"}
    for text in ("-1.2 [-3.0, 0.5]", "-6.67", "+1.00", "-0.3 \u00b1 0.1 [no interval]"):
        assert (
            write_table(pd.DataFrame({"a": [text]}), tmp_path / "t.csv")
            .read_text()
            .splitlines()[1]
            .strip('"')
            == text
        )
    write_table(pd.DataFrame({"=1+1": ["-2+3"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "'=1+1\n'-2+3\n"
    assert read_table(tmp_path / "t.csv").to_dict("list") == {"=1+1": ["-2+3"]}


def test_a_metric_that_is_not_defined_survives(tmp_path):
    features = synthetic_features(sizes={"train": 30, "val": 3, "test": 1})
    write_table(
        classification_rows(classify_knn(features, protocol="knn1")), tmp_path / "a_rows.csv"
    )
    back = collect_rows(tmp_path)
    assert np.isnan(back.loc[back["metric"] == "auc", "value"].item())
    assert wide_table(back)["AUC %"].item() == "–"


def test_missing_rows_and_columns_are_named(tmp_path):
    with pytest.raises(InputError, match=re.escape(str(tmp_path)) + ".*holds no result rows"):
        collect_rows(tmp_path)
    write_table(synthetic_rows().drop(columns=["seed", "git"]), tmp_path / "03_rows.csv")
    with pytest.raises(InputError, match="03_rows.csv: the columns seed, git are missing"):
        collect_rows(tmp_path)


def test_the_table_for_readers_is_in_percent_with_intervals():
    rows = synthetic_rows()
    rows.loc[rows["metric"] == "accuracy", ["value", "ci_low", "ci_high"]] = 0.48125, 0.4375, 0.525
    table = wide_table(pd.concat([rows, synthetic_rows(backbone="pixels")], ignore_index=True))
    leading = ["dataset", "protocol", "backbone", "seen_in_pretraining", "choice", "n"]
    assert table.columns.tolist() == [*leading, "accuracy %", "macro-F1 %", "AUC %"]
    assert table["backbone"].tolist() == ["random-t16 (random weights)", "pixels (no backbone)"]
    assert table["accuracy %"].iloc[0] == "48.1 [43.8, 52.5]"


def test_the_table_for_readers_shows_a_dash_for_a_metric_that_is_not_there():
    rows = synthetic_rows()
    assert wide_table(rows[rows["metric"] != "f1_macro"])["macro-F1 %"].tolist() == ["–"]


def test_no_row_vanishes_behind_another():
    with pytest.raises(
        InputError, match="made, knn11, random-t16.*two result rows for the same cell"
    ):
        wide_table(
            pd.concat([synthetic_rows(), synthetic_rows(weights="another")], ignore_index=True)
        )


def test_runs_of_several_seeds_become_one_line():
    runs = [
        synthetic_rows(protocol="finetune", seed=seed, value=value, choice=f"epoch = {seed}")
        for seed, value in ((0, 0.5), (1, 0.6))
    ]
    table = wide_table(pd.concat([*runs, synthetic_rows()], ignore_index=True))
    assert table["protocol"].tolist() == ["knn11", "finetune"] and table["choice"].tolist() == [
        "k = 11",
        "2 runs",
    ]
    assert table["accuracy %"].iloc[1].startswith("55.0 ± 7.1 [")


def test_a_single_run_has_no_standard_deviation():
    merged = over_seeds(synthetic_rows())
    assert merged["sd"].isna().all() and set(merged["runs"]) == {1}
    assert np.array_equal(merged["value"], synthetic_rows()["value"])


def test_the_first_backbone_is_compared_with_each_other_one_on_the_same_images():
    backbones = {"random-t16": 0.5, "pixels": 2.0, "random-s16": 0.5}
    found = [
        classify_knn(synthetic_features(noise=noise, backbone=name), protocol="knn1")
        for name, noise in backbones.items()
    ]
    table = paired_table(found).set_index(["other", "metric"])
    assert set(table["backbone"]) == {"random-t16"} and len(table) == 2 * 3
    assert table.loc[("pixels", "accuracy"), "ci_low"] > 0
    assert table.loc[("random-s16", "accuracy"), ["difference", "ci_low", "ci_high"]].tolist() == [
        0,
        0,
        0,
    ]
    every = paired_table(found, every_pair=True).set_index(["backbone", "other", "metric"])
    assert len(every) == 3 * 3
    swapped = every.loc[("pixels", "random-s16", "accuracy"), "difference"]
    assert swapped == -every.loc[("random-t16", "pixels", "accuracy"), "difference"]


def test_rows_that_the_last_runs_did_not_write_are_left_out(tmp_path):
    tables = tmp_path / "tables"
    for name in ("03_knn_rows", "06_faithfulness_rows"):
        write_table(
            pd.DataFrame({column: ["1"] for column in COLUMNS} | {"dataset": [name]}),
            tables / f"{name}.csv",
        )
    assert len(collect_rows(tables)) == 2
    write_state(tmp_path, "03_knn", {"state": "done", "outputs": {"tables/03_knn_rows.csv": "1"}})
    assert list(collect_rows(tables)["dataset"]) == ["03_knn_rows"]


def test_figures_name_positive_classes_and_what_was_seen():
    rows = synthetic_rows(
        dataset="a", positive="COVID", seen_in_pretraining="unlabelled test", caveat="few"
    )
    assert (
        notes(rows)
        == "a: positive class COVID; random-t16 was pre-trained on unlabelled test images of a; few"
    )
    assert notes(synthetic_rows()) == ""


def test_the_table_for_people_names_the_positive_class_and_what_was_seen():
    both = pd.concat(
        [
            synthetic_rows(dataset="a", positive="COVID", seen_in_pretraining="unlabelled test"),
            synthetic_rows(),
        ]
    )
    table = wide_table(both)
    assert table.columns.tolist()[:5] == [
        "dataset",
        "positive",
        "protocol",
        "backbone",
        "seen_in_pretraining",
    ]
    assert table["positive"].tolist() == ["COVID", ""] and table[
        "seen_in_pretraining"
    ].tolist() == ["unlabelled test", "none"]
