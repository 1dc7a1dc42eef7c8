import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.pretraining.plan import Plan, RunOptions
from radiodino_utils.pretraining.trainer import pretrain
from tools.trials import changed_settings, main, trial_row

from ..synthetic_corpus import smallest, synthetic_corpus, synthetic_npz


@pytest.fixture
def run(tmp_path):
    plan, corpus = Plan("t16", smallest(steps=4)), synthetic_corpus(tmp_path)
    return pretrain(plan, corpus, tmp_path / "first", options=RunOptions(stop_at=2)).folder


def test_only_what_differs_is_named():
    config = smallest().describe()
    text = changed_settings(config, "small", 12)
    assert f"global_size {config['global_size']}" in text and "student_temp" not in text
    assert changed_settings(smallest(student_temp=0.2).describe(), "small", 12) != text


def test_the_table_keeps_what_it_has(run, tmp_path, capsys):
    probe, table = f"npz:{synthetic_npz(tmp_path / 'labelled.npz')}", tmp_path / "trials.csv"
    main([str(run), "--probe", probe, "--crossed", probe, "--out", str(table)])
    first = pd.read_csv(table)
    assert first[["trial", "steps", "crops seen"]].values.tolist() == [
        ["first", 2, 2 * smallest().batch_size]
    ]
    assert first.filter(like="val").to_numpy().min() >= 0 and first.filter(
        like="crossed"
    ).shape == (1, 2)
    main([str(run), "--probe", probe, "--crossed", probe, "--out", str(table)])
    pd.testing.assert_frame_equal(pd.read_csv(table), first)


def test_a_folder_without_a_run(tmp_path):
    with pytest.raises(InputError, match="holds no run.json"):
        trial_row(str(tmp_path), [])
    with pytest.raises(SystemExit, match="2"):
        main(
            [
                str(tmp_path),
                "--probe",
                f"npz:{synthetic_npz(tmp_path / 'labelled.npz')}",
                "--out",
                str(tmp_path / "t.csv"),
            ]
        )
