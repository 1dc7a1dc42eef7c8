import pytest

from radiodino_utils.cli import main
from radiodino_utils.pretraining import target_store
from radiodino_utils.pretraining.run_files import BACKBONE

from ..synthetic_corpus import synthetic_corpus


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--teacher", "random-t16"], "--data: the corpus is empty"),
        (
            ["--teacher", "eficientnet-lite0", "--data", "{data}"],
            "unknown backbone 'eficientnet-lite0'; did you mean efficientnet-lite0",
        ),
        (
            ["--teacher", "random-t16", "--data", "{data}", "--set", "rate=1"],
            "unknown option of DistillationConfig 'rate'",
        ),
        (
            ["--teacher", "random-t16", "--data", "{data}", "--workers", "1"],
            "--workers: does not apply with --teacher",
        ),
        (["--data", "{data}", "--capacity", "8"], "--capacity: needs --teacher"),
    ],
)
def test_the_command_line_says_what_is_wrong(tmp_path, capsys, arguments, message):
    synthetic_corpus(tmp_path)
    arguments = [argument.format(data=tmp_path / "images") for argument in arguments]
    with pytest.raises(SystemExit) as exit_:
        main(["pretrain", *arguments, "--out", str(tmp_path / "run")])
    assert exit_.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_command_line_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(target_store, "CHUNK", 8)
    synthetic_corpus(tmp_path)
    options = ["--teacher", "random-t16", "--data", str(tmp_path / "images"), "--capacity", "8"]
    options += ["--set", "crops=16", "--batch-size", "8", "--set", "sizes=[[32, 1.0]]"]
    with pytest.raises(SystemExit, match="0"):
        main(["pretrain", *options, "--out", str(tmp_path / "run")])
    assert "after 2 of 2 steps" in capsys.readouterr().out
    assert (tmp_path / "run" / BACKBONE).is_file()
