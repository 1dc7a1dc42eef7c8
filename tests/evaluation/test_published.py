import os

import numpy as np
import pandas as pd
import pytest

from radiodino_utils.core.files import REPOSITORY
from radiodino_utils.evaluation.protocols import protocol_names
from radiodino_utils.evaluation.published import (
    beside_baselines,
    compare_published,
    field_numbers,
    published,
    published_table,
)
from tests.evaluation.test_results import synthetic_rows


def released(**changes):
    return synthetic_rows(**({"backbone": "radiodino-s16", "dataset": "breastmnist-224"} | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"dataset": "made"},
        {"backbone": "random-s16"},
        {"backbone": "radiodino-mini"},
        {"backbone": "dino-s16"},
        {"backbone": "file:radiodino-s16"},
        {"backbone": "radiodino-b16"},  # another size than the published one
        {"dataset": "breastmnist-28"},
        {"split": "val"},
        {"task": "segmentation"},
        {"protocol": "fewshot-50-knn"},
    ],
)
def test_published_numbers_are_not_measured_by_anything_else(changes):
    compared = compare_published(released(**changes))
    assert len(compared) == len(published("radiodino"))
    assert (
        compared["value"].isna().all()
        and compared["verdict"].str.startswith("not measured: ").all()
    )


TOLD = {
    ("BreastMNIST", "classification"): ("breastmnist-224", "knn11")
}  # as if the paper's text were known


def verdict_of(rows, dataset="BreastMNIST", **options):
    return (
        compare_published(rows, **options)
        .query(f"dataset == '{dataset}' and metric == 'accuracy'")
        .iloc[0]
    )


@pytest.mark.parametrize(
    ("value", "low", "high", "n", "verdict"),
    [
        (0.90, 0.88, 0.93, 156, "reproduced"),  # published: 91.67 %
        (0.90, 0.84, 0.96, 156, "compatible, interval of +-6.0 points"),
        (0.90, 0.88, 0.91, 156, "differs"),
        (0.91, 0.905, 0.915, 156, "differs"),
        (0.91, 0.905, 0.915, 5001, "reproduced"),
        (0.90, 0.895, 0.905, 5001, "differs"),
    ],
)
def test_the_verdict_is_by_the_rule(value, low, high, n, verdict):
    line = verdict_of(released(value=value, ci_low=low, ci_high=high, n=n), stated=TOLD)
    assert line["verdict"] == verdict and line["difference"] == pytest.approx(value - 0.9167)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"protocol": "finetune"}, "measured by finetune, not by knn11"),
        ({"protocol": "knn11 (deduplicated)"}, "measured by knn11 (deduplicated), not by knn11"),
        ({"precision": "bf16"}, "measured in bf16, not in fp32"),
    ],
)
def test_another_protocol_or_precision_gets_no_verdict(changes, reason):
    rows = released(value=0.9, ci_low=0.88, ci_high=0.93, **changes)
    assert verdict_of(rows, stated=TOLD)["verdict"] == f"not comparable: {reason}"


@pytest.mark.parametrize(
    ("dataset", "name", "backbone", "unknown"),
    [
        ("BreastMNIST", "breastmnist-224", "radiodino-s16", "protocol"),
        ("BUSI", "busi-folds", "radiodino-b16", "split and protocol"),
        ("BUSI", "busi-breastmnist", "radiodino-b16", "split and protocol"),
        ("RadImageNet", "radimagenet", "radiodino-t16", "split"),
    ],
)
def test_what_the_source_does_not_state_cannot_be_compared(dataset, name, backbone, unknown):
    rows = released(
        dataset=name, backbone=backbone, protocol="knn1", value=0.9, ci_low=0.1, ci_high=1.0
    )
    assert (
        verdict_of(rows, dataset)["verdict"]
        == f"not comparable: the published {unknown} is not public"
    )


def test_radimagenet_is_met_by_knn1_alone():
    rows = pd.concat(
        [
            released(dataset="radimagenet", backbone="radiodino-t16", protocol=one)
            for one in ("knn1", "knn11")
        ]
    )
    measured = compare_published(rows).dropna(subset="value")
    assert set(measured["dataset"]) == {"RadImageNet"} and set(measured["protocol"]) == {"knn1"}


def test_every_line_says_why_it_is_not_measured():
    nothing = compare_published(released(dataset="made", backbone="pixels"))["verdict"]
    assert set(nothing) == {
        *(f"not measured: radiodino-{size}16 was not run" for size in "sb"),
        "not measured: no tiny weights are released",
    }
    some = compare_published(released()).set_index("dataset")["verdict"]
    assert set(some["PneumoniaMNIST"]) == {
        "not measured: radiodino-s16 was not run on PneumoniaMNIST"
    }


def test_several_protocols_and_seeds_stand_beside_a_number():
    runs = [
        released(protocol="finetune", seed=seed, value=value)
        for seed, value in ((0, 0.9), (1, 0.8))
    ]
    table = published_table(compare_published(pd.concat([*runs, released()])))
    lines = table[(table["dataset"] == "BreastMNIST") & (table["metric"] == "accuracy")].set_index(
        "protocol"
    )
    assert set(lines.index) == {"finetune", "knn11"}
    assert (
        lines.loc["finetune", "measured %"].startswith("85.00 ± 7.07 [")
        and lines.loc["finetune", "difference"] == "-6.67"
    )


def test_measured_rows_stand_beside_the_baselines_of_their_set():
    rows = pd.concat(
        [
            released(backbone="pixels", dataset=f"breastmnist-{size}", value=size / 1000)
            for size in (28, 224)
        ]
    )
    table = beside_baselines(rows)
    line = table[(table["source"] == "measured here") & (table["dataset"] == "BreastMNIST")].iloc[0]
    assert (line["model"], line["protocol"]) == ("pixels (no backbone)", "knn11")
    assert line["accuracy %, 28"].startswith("2.8 [") and line["accuracy %, 224"].startswith(
        "22.4 ["
    )
    assert {"MedMNIST+", "MedMNIST v2", "RadioDINO README"} < set(
        table.loc[table["dataset"] == "BreastMNIST", "source"]
    )
    dino = table[
        (table["dataset"] == "BreastMNIST")
        & (table["model"] == "DINO ViT-B/16")
        & (table["protocol"] == "knn11")
    ].iloc[0]
    assert dino["accuracy %, 224"] == "87.18"


def test_a_set_that_nobody_measured_says_so():
    table = beside_baselines(released(backbone="pixels"))
    rest = table[(table["source"] == "measured here") & (table["dataset"] != "BreastMNIST")]
    assert len(rest) == 4 and set(rest["accuracy %, 224"]) == {"not measured"}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("radiodino", "radiodino_published"),
        ("medmnist_v2", "medmnist_v2_published"),
        ("medmnist_plus", "medmnist_plus_benchmark"),
    ],
)
def test_published_numbers_are_those_of_the_reference(name, file):
    folder = os.environ.get("RADIODINO_SHARED") or REPOSITORY.parent / "shared"
    reference = REPOSITORY.joinpath(folder, "reference", f"{file}.csv")
    if not reference.exists():
        pytest.skip(f"{reference} is not there (RADIODINO_SHARED names the folder)")
    pd.testing.assert_frame_equal(published(name), pd.read_csv(reference))


def test_no_published_number_is_beyond_a_percentage():
    assert published("radiodino")["value_percent"].between(0, 100).all()
    assert (
        published("medmnist_plus")["mean"].between(0, 100).all()
        and published("medmnist_v2")["acc"].between(0, 1).all()
    )
    assert np.isfinite(published("medmnist_plus")["mean"]).all()


def test_other_published_numbers_name_their_protocol_and_stand_beside_no_measured_one():
    numbers = field_numbers()
    assert (numbers.drop(columns="n") != "").all().all()
    assert not numbers.duplicated(["dataset", "model", "protocol", "metric"]).any()
    assert not set(numbers["protocol"]) & set(protocol_names())
    shown = beside_baselines(released())
    assert not set(shown["source"]) & set(numbers["source"])
    assert not set(published_table(compare_published(released()))["dataset"]) & set(
        numbers.query("dataset != 'BreastMNIST'")["dataset"]
    )
