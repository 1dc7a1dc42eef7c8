"""The results folder that notebooks write to."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.predictions import Prediction
from radiodino_utils.evaluation.records import read_predictions, read_scores
from radiodino_utils.evaluation.results import read_table
from radiodino_utils.workflow.results import Results


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Results:
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path / "results"))
    return Results("demo")


def test_the_configuration_names_the_profile_and_sets_the_threads(
    results: Results, capsys: pytest.CaptureFixture
) -> None:
    before = torch.get_num_threads()
    try:
        results.print_configuration(seed=3, threads=1)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
    assert capsys.readouterr().out.startswith("profile demo · seed 3 · device ")


def test_a_table_is_written_and_returned(results: Results) -> None:
    frame = pd.DataFrame({"dataset": ["npz:a/b"], "value": [1 / 3]})
    assert results.table(frame, "03_rows_npz:a/b") is frame
    assert read_table(results.table_folder / "03_rows_npz-a-b.csv")["value"].tolist() == [0.333333]


def test_a_figure_is_written_twice_and_closed(results: Results) -> None:
    figure = plt.figure()
    assert results.figure(figure, "03_curve") is None
    assert sorted(path.name for path in results.figure_folder.iterdir()) == [
        "03_curve.pdf",
        "03_curve.png",
    ]
    assert not plt.fignum_exists(figure.number)


def test_a_figure_is_shown_once_in_a_notebook(results: Results) -> None:
    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            results.figure(plt.figure(), "03_curve")
            results.figure(plt.figure(), "08_monitor", show=False)
    finally:
        InteractiveShell.clear_instance()
    assert len(captured.outputs) == 1
    assert (results.figure_folder / "08_monitor.png").is_file()


def test_predictions_and_scores_keep_what_their_tables_are_computed_from(results: Results) -> None:
    prediction = Prediction(
        dataset="two",
        backbone="pixels",
        protocol="knn",
        split="test",
        classes=("a", "b"),
        labels=np.array([0, 1]),
        probabilities=np.array([[0.75, 0.25], [0.5, 0.5]]),
        ids=["x", "y"],
        weights="none",
    )
    results.predictions([prediction], "03_knn_rows", seed=7, resamples=20)
    (read,), facts = read_predictions(results.prediction_folder / "03_knn_rows.parquet")
    assert read.probabilities.tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert (facts["seed"], facts["resamples"]) == (7, 20)

    results.scores(pd.DataFrame({"id": ["x"], "tp": [3]}), "05_rows", seed=1, empty="nan")
    scores, facts = read_scores(results.prediction_folder / "05_rows.parquet", ["id", "tp"])
    assert scores["tp"].tolist() == [3] and facts["empty"] == "nan"


def test_a_profile_is_a_name_that_stays_in_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RADIODINO_RESULTS", raising=False)
    with pytest.raises(InputError, match="rename it"):
        Results("../elsewhere")
    with pytest.raises(InputError, match="pass the name of a profile"):
        Results(3)
    assert Results("demo").folder.parts[-2:] == ("results", "demo")
