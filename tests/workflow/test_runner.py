"""The runner, with small notebooks of its own and the real papermill."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from radiodino_utils import cli
from radiodino_utils.core.environment import made_on, processor
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.states import current_files, recorded
from radiodino_utils.workflow import notebooks as sequence
from radiodino_utils.workflow.check import check_profile
from radiodino_utils.workflow.notebooks import list_notebooks, profile_names
from radiodino_utils.workflow.outputs import save_outputs
from radiodino_utils.workflow.profiles import load_profile
from radiodino_utils.workflow.runner import run_profile

from ..synthetic_notebooks import (
    WRITE,
    runner_command,
    small_profile,
    write_notebook,
    write_profile,
    write_sequence,
)

FAULTS = {
    "error": ("1 / 0", "ZeroDivisionError"),
    "killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "was killed"),
    "timeout": ("import time\ntime.sleep(600)", "took longer than the time-out"),
    "exit": ("import sys\nsys.exit(0)", "SystemExit"),
}


@pytest.fixture
def notebooks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The small profile of `synthetic_notebooks`, with results of its own."""
    folder = small_profile(tmp_path / "notebooks")
    monkeypatch.setattr(sequence, "FOLDER", folder)
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path / "results"))
    return folder


def _states(printed: str) -> list[str]:
    """The state of each notebook by its line, without seconds and memory."""
    return [" ".join(line.split()[:2]) for line in printed.splitlines() if line.startswith("0")]


def test_runs_what_is_out_of_date_and_nothing_else(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(**options: object) -> list[str]:
        assert run_profile("small", **options)
        return _states(capfd.readouterr().out)

    table = tmp_path / "results" / "tables" / "01_numbers.csv"
    assert run() == ["01_first done", "02_second done"]
    assert table.read_text() == "value\n2\n"
    assert run() == ["01_first up", "02_second up"]
    stamp = json.loads((tmp_path / "results" / "state" / "01_first.json").read_text())
    assert stamp["state"] == "done" and stamp["seconds"] > 0 and stamp["peak_memory_mb"] > 20
    assert processor() in made_on(tmp_path / "results")

    table.unlink()  # made again; as it was, so that what reads it needs no run
    assert run() == ["01_first done", "02_second up"]
    write_profile(notebooks, {"01_first": {"value": 3}, "02_second": None})
    assert run(only=["02"]) == ["01_first done", "02_second done"]
    assert table.read_text() == "value\n3\n"
    assert run(only=["01_first"], force=True) == ["01_first done"]


def test_changed_code_runs_again_but_outputs_are_no_code(
    notebooks: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_profile("small", only=["01"])
    book = json.loads((notebooks / "01_first.ipynb").read_text())
    book["cells"][-1]["outputs"] = [{"output_type": "stream", "name": "stdout", "text": "5"}]
    (notebooks / "01_first.ipynb").write_text(json.dumps(book))
    capfd.readouterr()
    assert run_profile("small", only=["01"])
    assert _states(capfd.readouterr().out) == ["01_first up"]
    write_notebook(notebooks, "01_first", "value + 1")
    assert run_profile("small", only=["01"])
    assert _states(capfd.readouterr().out) == ["01_first done"]


def test_a_file_that_a_parameter_names_is_an_input(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(b"1")
    write_profile(notebooks, {"01_first": {"data": [f"file:{image}"]}})
    assert run_profile("small") and run_profile("small")
    assert _states(capfd.readouterr().out) == ["01_first done", "01_first up"]
    image.write_bytes(b"22")
    assert run_profile("small")
    assert _states(capfd.readouterr().out) == ["01_first done"]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_notebook_that_did_not_run_whole_has_failed(
    fault: str, notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source, sign = FAULTS[fault]
    write_notebook(notebooks, "01_first", source)
    write_notebook(notebooks, "03_other", "value")
    needs = {"01_first": [], "02_second": ["01_first"], "03_other": []}
    write_sequence(notebooks, needs, timeouts={"01_first": 5} if fault == "timeout" else {})
    write_profile(notebooks, {"01_first": None, "02_second": None, "03_other": None})
    assert not run_profile("small")
    printed = capfd.readouterr().out
    assert _states(printed) == ["01_first FAILED", "02_second not", "03_other done"]
    assert sign in printed and "01_first.log" in printed
    results = tmp_path / "results"
    assert not (results / "notebooks" / "01_first.ipynb").exists()
    assert json.loads((results / "state" / "01_first.json").read_text())["state"] == "FAILED"

    write_sequence(notebooks, needs)
    write_notebook(
        notebooks, "01_first", WRITE + "(tables / '01_numbers.csv').write_text('value');"
    )
    assert run_profile("small")
    assert _states(capfd.readouterr().out) == ["01_first done", "02_second done", "03_other up"]
    assert not list((results / "notebooks").glob("*.failed.ipynb"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_stopped_run_leaves_nothing_half_written_and_the_next_goes_on(
    number: int, notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    flag, marker = tmp_path / "started", tmp_path / "slow"
    marker.touch()
    slow = f"import time\nfrom pathlib import Path\nPath({str(flag)!r}).touch()\n"
    slow += f"if Path({str(marker)!r}).exists(): time.sleep(600)"
    write_notebook(notebooks, "02_second", slow)
    process = subprocess.Popen(
        runner_command(notebooks), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 900
    while not flag.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    with pytest.raises(
        InputError, match=rf"\.lock: still held by process {process.pid} .*; end it"
    ):
        run_profile("small")
    process.send_signal(number)
    out, err = process.communicate(timeout=900)
    assert process.returncode == (-number if number == signal.SIGKILL else 128 + number)
    assert number == signal.SIGKILL or "interrupted" in err
    assert _states(out)[0] == "01_first done"
    results = tmp_path / "results"
    assert sorted(path.name for path in (results / "notebooks").iterdir()) == ["01_first.ipynb"]

    (results / "tables" / ".x.csv.0123abcd").mkdir()  # as a killed write leaves it
    marker.unlink()
    capfd.readouterr()
    assert run_profile("small")
    assert _states(capfd.readouterr().out) == ["01_first up", "02_second done"]
    assert not [path for path in (results / "state").iterdir() if path.is_dir()] and not list(
        (results / "tables").glob(".*")
    )


def test_results_hold_only_what_the_last_runs_wrote(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    rows = WRITE + "(tables / f'01_{value}_rows.csv').write_text(f'value\\n{value}\\n');"
    write_notebook(notebooks, "01_first", rows)
    write_notebook(
        notebooks, "02_second", WRITE + "(tables / '02_rows.csv').write_text('value\\n1\\n');"
    )

    def run(values: dict, **options: object) -> list[str]:
        write_profile(notebooks, values)
        assert run_profile("small", **options)
        return _states(capfd.readouterr().out)

    assert run({"01_first": {"value": 2}, "02_second": None}) == ["01_first done", "02_second done"]
    assert current_files(results) == {"tables/01_2_rows.csv", "tables/02_rows.csv"}
    assert run({"01_first": {"value": 3}, "02_second": None}, only=["01"]) == ["01_first done"]
    assert {path.name for path in (results / "tables").iterdir()} == {
        "01_3_rows.csv",
        "02_rows.csv",
    }
    assert current_files(results) == {"tables/01_3_rows.csv"}
    assert "02_second                    out of date" in list_notebooks("small")
    assert run({"01_first": {"value": 3}, "02_second": None}) == ["01_first up", "02_second done"]
    (results / "state" / "02_second.json").write_text("")
    assert run({"01_first": {"value": 3}}) == ["01_first up"]
    assert recorded(results) == ["01_first"] and current_files(results) == {"tables/01_3_rows.csv"}


def test_the_runners_own_errors_are_shown(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "results" / "logs" / "01_first.log").mkdir(parents=True)
    (tmp_path / "results" / "state").mkdir()
    (tmp_path / "results" / "state" / "01_first.json").write_text("")
    assert not run_profile("small")
    printed = capfd.readouterr().out
    assert (
        "01_first.log: Is a directory" in printed
        and "its record is damaged, so it runs again" in printed
    )
    assert _states(printed)[-1] == "02_second not"


def test_two_notebooks_at_a_time_share_the_processors(notebooks: Path, tmp_path: Path) -> None:
    wait = "import time, os\nfrom pathlib import Path\n"
    for name, other in (("01_first", "02_second"), ("02_second", "01_first")):
        met = f"Path({str(tmp_path)!r}, '{name}').touch()\n"
        met += f"while not Path({str(tmp_path)!r}, '{other}').exists(): time.sleep(0.1)\n"
        met += "os.environ['OMP_NUM_THREADS']"
        write_notebook(notebooks, name, wait + met)
    write_sequence(notebooks, {"01_first": [], "02_second": []})
    assert run_profile("small", jobs=2)


def test_check_compares_with_the_committed_tables(
    notebooks: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(InputError, match="holds no tables to compare with"):
        check_profile("small")
    assert run_profile("small")
    before = dict(os.environ)
    assert check_profile("small") == []
    assert dict(os.environ) == before
    table = tmp_path / "results" / "tables" / "01_numbers.csv"
    table.write_text("value\n2.5\n")
    assert check_profile("small", only=["01"]) == [
        "01_numbers.csv: value, row 1: 2 instead of 2.5 (1 of 1 cells differ by more than 0.02)"
    ]
    assert table.read_text() == "value\n2.5\n"
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--profile", "small", "--check", "--only", "01"])
    assert stopped.value.code == 1


def test_saved_outputs_are_numbered_from_top_to_bottom(notebooks: Path) -> None:
    with pytest.raises(InputError, match="run the profile small first"):
        save_outputs("small")
    assert run_profile("small")
    save_outputs("small")
    cells = json.loads((notebooks / "01_first.ipynb").read_text())["cells"]
    assert [cell.get("execution_count") for cell in cells] == [None, 1, 2, 3]
    assert cells[-1]["outputs"][0]["data"]["text/plain"] == ["2"]
    assert cells[-1]["outputs"][0]["execution_count"] == 3
    write_notebook(notebooks, "01_first", "value + 1")
    with pytest.raises(InputError, match="other code"):
        save_outputs("small")


def test_list_tells_titles_needs_and_states(notebooks: Path) -> None:
    assert "02_second" in list_notebooks("small") and "needs 01" in list_notebooks("small")
    assert "not run yet" in list_notebooks("small")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--profile", "smal"], "unknown profile 'smal'; did you mean small?"),
        (
            ["--profile", "small", "--only", "01_frist"],
            "unknown notebook '01_frist'; did you mean 01_first?",
        ),
        (["--profile", "small", "--jobs", "0"], "--jobs 0"),
    ],
)
def test_wrong_options_are_one_sentence(
    arguments: list[str], sentence: str, notebooks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", *arguments])
    assert stopped.value.code == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]


def test_a_profile_may_name_only_what_exists(notebooks: Path) -> None:
    write_profile(notebooks, {"01_first": {"valeu": 1}})
    with pytest.raises(
        InputError, match=r"small.yaml, 01_first: unknown parameter 'valeu'; did you mean value\?"
    ):
        load_profile("small")
    write_profile(notebooks, {"01_frist": None})
    with pytest.raises(
        InputError, match=r"small.yaml: unknown notebook '01_frist'; did you mean 01_first\?"
    ):
        load_profile("small")


def test_a_profile_whose_data_are_missing_stops_before_any_work(
    notebooks: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("BUSI", raising=False)
    write_profile(notebooks, {"01_first": {"data": "busi-fold0"}, "02_second": None})
    with pytest.raises(SystemExit) as stopped:
        cli.main(["run", "--profile", "small"])
    assert stopped.value.code == 2
    assert "busi-fold0: download it from" in capfd.readouterr().err
    assert not (tmp_path / "results").exists()
    with pytest.raises(InputError, match="nothing is left to run"):
        run_profile("small", only=["01"], allow_missing=True)


def test_a_results_folder_that_cannot_be_written_to(
    notebooks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match="results: the folder is read-only"):
        run_profile("small")


def test_the_committed_profiles_fit_the_notebooks() -> None:
    for profile in profile_names():
        assert load_profile(profile)


def test_the_expected_time_is_that_of_the_last_runs(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_profile("small")
    assert "expected:" not in capfd.readouterr().out
    state = tmp_path / "results" / "state" / "01_first.json"
    content = json.loads(state.read_text())
    assert content["last_seconds"] == content["seconds"] > 0
    state.write_text(json.dumps(content | {"last_seconds": 90}))
    write_notebook(notebooks, "01_first", "1 / 0")
    assert not run_profile("small", only=["01"])
    expected = "expected: 1.5 minutes by the last runs of 1 notebooks"
    assert expected in capfd.readouterr().out
    assert json.loads(state.read_text())["last_seconds"] == 90


def test_a_profile_may_lie_elsewhere(
    notebooks: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text("01_first: {value: 7}")
    assert run_profile(str(tmp_path / "mine.yaml"))
    assert (tmp_path / "results" / "tables" / "01_numbers.csv").read_text() == "value\n7\n"
    assert list_notebooks(str(tmp_path / "mine.yaml")).startswith("profile mine")
