"""Every number is recomputed from prediction files, and what was tampered with is found."""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from radiodino_utils import cli
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import REPOSITORY
from radiodino_utils.evaluation.few_shot import classify_few_shot
from radiodino_utils.evaluation.knn import knn_curve
from radiodino_utils.evaluation.predictions import Prediction
from radiodino_utils.evaluation.protocols import classify
from radiodino_utils.evaluation.published import (
    beside_baselines,
    compare_published,
    field_numbers,
    published_table,
)
from radiodino_utils.evaluation.records import (
    read_predictions,
    read_scores,
    write_predictions,
    write_scores,
)
from radiodino_utils.evaluation.results import (
    COLUMNS,
    SHOWN,
    classification_rows,
    collect_rows,
    curve_rows,
    paired_table,
    read_table,
    wide_table,
    write_table,
)
from radiodino_utils.evaluation.segmentation.results import is_fraction, segmentation_rows
from radiodino_utils.evaluation.segmentation.tables import segmentation_table
from radiodino_utils.evaluation.segmentation.twins import twin_points
from radiodino_utils.evaluation.twins import class_mix, three_ways
from radiodino_utils.explain.tables import against_controls, explanation_rows
from radiodino_utils.radiomics.models import EVEN_ODDS, PROTOCOL
from radiodino_utils.radiomics.stability import feature_correlations, stability_table
from radiodino_utils.workflow.verify import contradictions, verify_results

from ..synthetic import synthetic_features

BACKBONES = ("random-t16", "pixels")
TWINS = {"made": {"train": np.arange(10), "val": np.array([1]), "test": np.array([0, 7])}}


def _rows(predictions, **options):
    return pd.concat(
        [classification_rows(one, **options) for one in predictions], ignore_index=True
    )


def _segmentation_scores():
    generator, table = np.random.default_rng(0), []
    for backbone in BACKBONES:
        for row in range(9):
            for label, name in enumerate(("background", "lesion")):
                counts = dict(zip(("tp", "fp", "fn"), generator.integers(1, 400, 3), strict=True))
                line = {
                    "dataset": "made-seg",
                    "backbone": backbone,
                    "probe": "linear",
                    "seed": 0,
                    "fold": 0,
                    "labelled": 12,
                    "group": "",
                    "unit": "image",
                    "groups_from": "",
                }
                line |= {
                    "weights": "ab",
                    "caveat": "",
                    "positive": "lesion",
                    "engine": "torch",
                    "precision": "fp32",
                }
                line |= {
                    "seen_in_pretraining": "none",
                    "choice": "lr = 0.1",
                    "id": f"i{row}",
                    "kind": "",
                    "class": name,
                }
                line |= {
                    "hd95_px": generator.random() * 9 if label else np.nan,
                    "hd95_mm": np.nan,
                    "pixels": 1024,
                }
                table.append(
                    line
                    | counts
                    | {"lesions": label, "found": label * int(row % 2), "false_lesions": 0}
                )
    return pd.DataFrame(table)


def make_results(folder: Path) -> Path:
    """What the notebooks write, of made features and scores."""
    tables, records = folder / "tables", folder / "predictions"
    features = [
        synthetic_features(backbone=name, noise=noise)
        for name, noise in zip(BACKBONES, (1.5, 2.5), strict=True)
    ]
    curve = knn_curve(features[0], ks=(1, 5))
    write_predictions(curve, records / "03_k_curve.parquet")
    write_table(curve_rows(curve), tables / "03_k_curve.csv")
    found = [
        one
        for name in ("knn", "knn1")
        for one in three_ways(classify, features, TWINS, protocol=name, ks=(1, 5))
    ]
    write_predictions(found, records / "03_knn_rows.parquet")
    write_table(_rows(found), tables / "03_knn_rows.csv")
    write_table(class_mix(found), tables / "03_twins.csv")
    probes = three_ways(classify, features, TWINS, protocol="logistic")
    write_predictions(probes, records / "07_probe_rows.parquet")
    write_table(_rows(probes), tables / "07_probe_rows.csv")
    write_table(paired_table(probes), tables / "07_paired.csv")
    few = three_ways(classify_few_shot, features, TWINS, shots=(1,), draws=2)
    write_predictions(few, records / "07_fewshot_rows.parquet", resamples=50)
    rows = _rows(few, resamples=50)
    write_table(rows[rows["metric"].isin(SHOWN)], tables / "07_fewshot_rows.csv")
    tuned = [
        replace(probes[0], protocol="finetune", seed=seed, choice={"epoch": "1 of 2"})
        for seed in (0, 1)
    ]
    write_predictions(tuned, records / "07_finetune_rows.parquet")
    write_table(_rows(tuned), tables / "07_finetune_rows.csv")
    scores, splits = _segmentation_scores(), {"made-seg": "halves"}
    write_scores(
        scores, records / "05_segmentation_rows.parquet", empty="skip", seed=0, splits=splits
    )
    rows = segmentation_rows(scores)
    write_table(rows.loc[is_fraction(rows), list(COLUMNS)], tables / "05_segmentation_rows.csv")
    write_table(rows.loc[~is_fraction(rows), list(COLUMNS)], tables / "05_distance_rows.csv")
    write_table(segmentation_table(rows, splits), tables / "05_segmentation.csv")
    twins = scores.assign(fitted="official", twin=scores["id"].isin(["i2", "i5"]))
    twins["group"] = twins["id"]
    write_scores(twins, records / "05_twins.parquet", empty="skip", seed=0)
    write_table(twin_points(twins), tables / "05_twins.csv")
    _explanations(tables, records)
    _radiomics(tables, records, probes)
    write_table(pd.DataFrame({"umap1": [1.0]}), tables / "04_coordinates.csv")
    rows = collect_rows(tables)
    write_table(rows, tables / "09_results.csv")
    people = rows[(rows["task"] == "classification") & ~rows["protocol"].str.startswith("fewshot-")]
    write_table(wide_table(people), tables / "09_classification.csv")
    write_table(published_table(compare_published(rows)), tables / "09_published.csv")
    write_table(beside_baselines(rows), tables / "09_baselines.csv")
    write_table(field_numbers(), tables / "09_field.csv")
    return folder


def _radiomics(tables: Path, records: Path, probes: list[Prediction]) -> None:
    fair, plain = (
        [replace(one, protocol=f"{PROTOCOL}{end}") for one in probes if one.protocol == "logistic"]
        for end in (EVEN_ODDS, "")
    )
    write_predictions([*fair, *plain], records / "11_evaluation.parquet")
    write_table(_rows([*fair, *plain]), tables / "11_evaluation.csv")
    paired = paired_table(fair, metrics=("auc",), every_pair=True)
    write_table(paired, tables / "11_paired.csv")
    keys = [range(6), ["none", "noise"]]
    values = pd.MultiIndex.from_product(keys, names=["label", "measurement"]).to_frame(index=False)
    values = values.sort_values("measurement").assign(case="made", component=0)
    noise = np.random.default_rng(0).normal(size=(len(values), 2))
    names = ["glcm_contrast", "deep_mean_0000"]
    values[names] = values[["label"]].to_numpy() + 0.5 * noise
    about = {"seed": 0, "weights": "ab"}
    write_scores(values, records / "11_readers.parquet", threshold=0.5, about=about)
    correlations = feature_correlations(values)
    write_table(correlations, tables / "11_readers.csv")
    families = stability_table(correlations, threshold=0.5).assign(threshold=0.5, **about)
    write_table(families, tables / "11_readers_families.csv")


def _explanations(tables: Path, records: Path) -> None:
    generator = np.random.default_rng(1)
    facts = {"dataset": "made", "split": "test", "seed": 0, "caveat": ""}
    keys = pd.MultiIndex.from_product(
        [BACKBONES, ("attention", "centre", "even"), range(6)], names=["backbone", "map", "image"]
    )
    scores = keys.to_frame(index=False).assign(
        road=generator.normal(size=len(keys)),
        mass_share=generator.random(len(keys)),
        pointing=lambda table: table["image"] % 2.0,
        weights="ab",
        seen_in_pretraining="not known",
    )
    write_scores(scores, records / "06_faithfulness_rows.parquet", **facts)
    rows = explanation_rows(scores, **facts)
    write_table(rows, tables / "06_faithfulness_rows.csv")
    write_table(
        wide_table(rows, metrics=("road", "mass_share", "pointing")), tables / "06_faithfulness.csv"
    )
    write_table(against_controls(scores), tables / "06_against_controls.csv")
    heads = pd.DataFrame(
        {
            "backbone": "random-t16",
            "block": [1, 1, 2, 2],
            "image": list("abab"),
            "divergence_bits": [0.1, 0.3, 0.2, 0.5],
        }
    )
    write_scores(heads, records / "06_head_diversity.parquet")
    groups = heads.groupby(["backbone", "block"], sort=False)["divergence_bits"]
    write_table(
        groups.agg(["mean", "std", "count"]).reset_index(), tables / "06_head_diversity.csv"
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_results(tmp_path_factory.mktemp("results") / "demo")


@pytest.fixture
def results(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "demo"))


def test_an_untouched_folder_is_verified_and_what_cannot_be_is_named(results: Path) -> None:
    faults, beyond = verify_results(results)
    assert faults == []
    assert beyond == ["tables/04_coordinates.csv (coordinates of PCA and UMAP)"]


def test_predictions_come_back_as_they_were_written(results: Path) -> None:
    predictions, facts = read_predictions(results / "predictions" / "07_fewshot_rows.parquet")
    features = [
        synthetic_features(backbone=name, noise=noise)
        for name, noise in zip(BACKBONES, (1.5, 2.5), strict=True)
    ]
    few = three_ways(classify_few_shot, features, TWINS, shots=(1,), draws=2)
    assert facts == {"kind": "predictions", "seed": 0, "resamples": 50} and len(predictions) == len(
        few
    )
    for one, other in zip(predictions, few, strict=True):
        arrays = ("labels", "probabilities")
        assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in arrays)
        same = {name: value for name, value in vars(one).items() if name not in arrays}
        assert same == {name: value for name, value in vars(other).items() if name not in arrays}


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert re.search(old, text)
    path.write_text(re.sub(old, new, text, count=1))


def _digit(match: re.Match) -> str:
    return match[1] + str((int(match[2]) + 1) % 10)


@pytest.mark.parametrize(
    "name",
    [
        "03_k_curve", "03_knn_rows", "03_twins",
        "05_segmentation_rows", "05_distance_rows", "05_segmentation", "05_twins",
        "06_faithfulness_rows", "06_faithfulness", "06_against_controls", "06_head_diversity",
        "07_probe_rows", "07_paired",
        "07_fewshot_rows", "07_finetune_rows", "09_results", "09_classification",
        "09_field",
        "11_evaluation", "11_paired", "11_readers", "11_readers_families",
    ],
)  # fmt: skip
def test_a_changed_digit_of_each_table_is_found(results: Path, name: str) -> None:
    path = results / "tables" / f"{name}.csv"
    text = path.read_text()
    changed = re.sub(r"(\d\.\d?)(\d)", _digit, text, count=1)
    assert changed != text
    path.write_text(changed)
    assert any(f"{name}.csv: " in fault for fault in verify_results(results)[0])


def test_each_changed_number_of_a_row_is_found(results: Path) -> None:
    path = results / "tables" / "07_probe_rows.csv"
    table = pd.read_csv(path, keep_default_na=False, dtype=str)
    columns = ("value", "ci_low", "ci_high", "n", "seed", "weights", "choice", "caveat", "positive")
    columns += ("val_accuracy",)
    for row, column in enumerate(columns):
        table.loc[row, column] = {"n": "31", "seed": "1"}.get(column, "0.5")
    table.to_csv(path, index=False)
    faults = "\n".join(verify_results(results)[0])
    for row, column in enumerate(columns):
        assert f"07_probe_rows.csv: {column}, row {row + 1}:" in faults


def test_files_from_before_the_validation_score_are_verified_too(results: Path) -> None:
    path = results / "predictions" / "07_probe_rows.parquet"
    older = pq.read_table(path)
    pq.write_table(older.drop_columns("val_accuracy"), path)
    table = results / "tables" / "07_probe_rows.csv"
    read_table(table, dtype=str).drop(columns="val_accuracy").to_csv(table, index=False)
    faults = verify_results(results)[0]
    assert not [fault for fault in faults if "07_" in fault]


def test_dropped_rows_and_files_are_found(results: Path) -> None:
    path = results / "tables" / "03_knn_rows.csv"
    path.write_text("\n".join(path.read_text().split("\n")[:-2]) + "\n")
    (results / "tables" / "07_paired.csv").unlink()
    (results / "predictions" / "07_fewshot_rows.parquet").unlink()
    faults = "\n".join(verify_results(results)[0])
    assert re.search(r"03_knn_rows.csv: has \d+ rows; recomputed are \d+", faults)
    assert "tables/07_paired.csv: is missing" in faults
    assert "07_fewshot_rows.parquet: is missing; run its notebook again" in faults


def _altered(results: Path, name: str, change: Callable[[list], list]) -> str:
    path = results / "predictions" / f"{name}.parquet"
    predictions, facts = read_predictions(path)
    write_predictions(change(predictions), path, seed=facts["seed"], resamples=facts["resamples"])
    return "\n".join(verify_results(results)[0])


def test_a_changed_probability_a_dropped_image_and_a_dropped_prediction_are_found(
    results: Path,
) -> None:
    def flipped(found: list) -> list:
        probabilities = found[0].probabilities.copy()
        probabilities[4] = np.roll(probabilities[4], 1)
        return [replace(found[0], probabilities=probabilities), *found[1:]]

    def shorter(found: list) -> list:
        one = found[0]
        return [
            replace(
                one, labels=one.labels[1:], probabilities=one.probabilities[1:], ids=one.ids[1:]
            ),
            *found[1:],
        ]

    assert "07_probe_rows.csv: value, row 1" in _altered(results, "07_probe_rows", flipped)
    assert "03_knn_rows.csv: " in _altered(results, "03_knn_rows", shorter)
    assert "07_finetune_rows.csv: has 10 rows; recomputed are 5" in _altered(
        results, "07_finetune_rows", lambda found: found[1:]
    )


def test_a_changed_count_of_a_mask_is_found(results: Path) -> None:
    path = results / "predictions" / "05_segmentation_rows.parquet"
    scores, facts = read_scores(path, ["tp"])
    scores.loc[1, "tp"] += 1
    write_scores(scores, path, **{name: value for name, value in facts.items() if name != "kind"})
    assert "05_segmentation_rows.csv: value" in "\n".join(verify_results(results)[0])


def test_flipped_bits_of_a_file_are_found_or_harmless(results: Path) -> None:
    path, generator = results / "predictions" / "07_probe_rows.parquet", np.random.default_rng(0)
    whole, (official, _) = path.read_bytes(), read_predictions(path)
    for _ in range(50):
        data = bytearray(whole)
        data[generator.integers(len(data))] ^= 1 << generator.integers(8)
        path.write_bytes(data)
        try:
            found, _ = read_predictions(path)
        except InputError as error:
            assert "\n" not in str(error) and path.name in str(error)
            continue
        for one, other in zip(found, official, strict=True):
            assert np.array_equal(one.probabilities, other.probabilities) and np.array_equal(
                one.labels, other.labels
            )


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet", None])
def test_a_damaged_or_foreign_file_gets_one_sentence(results: Path, content: bytes | None) -> None:
    path = results / "predictions" / "07_probe_rows.parquet"
    if content is None:
        pd.DataFrame({"a": [1]}).to_parquet(path)
    else:
        path.write_bytes(content)
    said = [fault for fault in verify_results(results)[0] if "07_probe_rows.parquet" in fault]
    assert (
        len(said) == 1
        and "\n" not in said[0]
        and ("is damaged" in said[0] or "not written by this project" in said[0])
    )


def test_files_and_tables_that_nothing_explains_are_named(results: Path) -> None:
    write_table(pd.DataFrame({"a": [1]}), results / "tables" / "10_new.csv")
    write_scores(pd.DataFrame({"a": [1]}), results / "predictions" / "10_new.parquet")
    faults = verify_results(results)[0]
    assert faults == [
        "predictions/10_new.parquet: no table is computed from such a file",
        "tables/10_new.csv: nothing says how to recompute it",
    ]
    with pytest.raises(InputError, match="holds no tables to verify"):
        verify_results(results / "nowhere")


def test_a_number_of_a_notebook_that_no_table_holds_is_found(results: Path, tmp_path: Path) -> None:
    row = pd.read_csv(results / "tables" / "07_probe_rows.csv").iloc[0]
    interval = f"[{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"
    right = f"accuracy {100 * row['value']:.1f} % {interval}"
    wrong = right.replace(f"{100 * row['value']:.1f}", "99.9")
    for text, count in ((right, 0), (wrong, 1)):
        cells = [{"cell_type": "code", "source": ['profile = "demo"  # whose'], "outputs": []}]
        cells.append(
            {
                "cell_type": "code",
                "source": [],
                "outputs": [{"output_type": "stream", "text": [text]}],
            }
        )
        (tmp_path / "07.ipynb").write_text(json.dumps({"cells": cells}))
        faults = verify_results(results, notebooks=tmp_path)[0]
        assert len(faults) == count and all(
            "99.9" in fault and "code cell 2" in fault for fault in faults
        )


def test_two_numbers_for_one_protocol_are_found() -> None:
    one = {
        "dataset": "a",
        "protocol": "knn",
        "backbone": "b",
        "split": "test",
        "metric": "auc",
        "seed": "0",
        "value": "0.5",
    }
    first, second = pd.DataFrame([one]), pd.DataFrame([one | {"value": "0.51"}])
    assert contradictions({"first": first, "again": first, "other": second.assign(seed="1")}) == []
    assert contradictions({"first": first, "second": second}) == [
        "two numbers for one protocol: a, knn, b, test, auc, 0: 0.5 (first), 0.51 (second)"
    ]


def test_the_command_says_what_differs(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("RADIODINO_RESULTS", str(results))
    change(results / "tables" / "07_paired.csv", "logistic", "linear")
    with pytest.raises(SystemExit) as stopped:
        cli.main(["verify", "--profile", "demo"])
    assert stopped.value.code == 1 and "07_paired.csv: protocol, row 1" in capsys.readouterr().out


def test_the_committed_results_are_verified_within_a_minute() -> None:
    if not list((REPOSITORY / "results").glob("*/predictions/*.parquet")):
        pytest.skip(
            "the committed results have no prediction files yet: run the profiles demo and breast"
        )
    start = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "radiodino_utils.cli", "verify"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert (
        time.monotonic() - start < 600
    )  # a busy machine is slow, not red; on a free one it takes about a minute
