"""What a profile needs, checked before any work; the rest of profiles is tested with the runner."""

from pathlib import Path

import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import results_folder
from radiodino_utils.workflow import notebooks as sequence
from radiodino_utils.workflow import verify
from radiodino_utils.workflow.missing import without_missing_inputs
from radiodino_utils.workflow.notebooks import Notebook, outline
from radiodino_utils.workflow.profiles import load_profile, require_parts

from ..synthetic_notebooks import small_profile


@pytest.fixture
def notebooks(monkeypatch, data_folder):
    monkeypatch.delenv("BUSI", raising=False)

    def one(name, *needs, **parameters):
        return Notebook(name, Path(f"{name}.ipynb"), needs, 60, parameters)

    return [
        one("01_own", dataset="organct-axial"),
        one("02_busi", dataset="busi-fold0"),
        one("03_both", "02_busi", datasets=["organct-axial", "busi-fold0"]),
    ]


def test_missing_data_stop_a_profile_with_all_that_is_missing(notebooks):
    with pytest.raises(
        InputError,
        match=r"lacks 1 datasets or weights:\n  busi-fold0: download it from .*\n.*--allow-missing",
    ):
        without_missing_inputs(notebooks, notebooks, allow_missing=False)


def test_only_what_the_chosen_notebooks_need_is_checked(notebooks):
    assert without_missing_inputs(notebooks, notebooks[:1], allow_missing=False) == notebooks
    with pytest.raises(InputError, match="busi-fold0"):
        without_missing_inputs(notebooks, notebooks[2:], allow_missing=False)


def test_what_is_there_runs_where_it_is_allowed(notebooks, capsys):
    kept = without_missing_inputs(notebooks, notebooks, allow_missing=True)
    assert [(one.name, one.needs, one.parameters) for one in kept] == [
        ("01_own", (), {"dataset": "organct-axial"}),
        ("03_both", (), {"datasets": ["organct-axial"]}),
    ]
    assert "02_busi" in capsys.readouterr().out
    with pytest.raises(InputError, match="nothing is left to run"):
        without_missing_inputs(notebooks, notebooks[1:2], allow_missing=True)


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Writes the text of the profile `small`."""
    folder = small_profile(tmp_path / "notebooks")
    monkeypatch.setattr(sequence, "FOLDER", folder)
    return lambda text: (folder / "profiles" / "small.yaml").write_bytes(
        text.encode() if isinstance(text, str) else text
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("01_first: {value: [1", r"small.yaml, line 1: cannot be read as YAML"),
        (
            "01_first: !!python/object:os.system {}",
            r"line 1: cannot be read as YAML: could not determine a constructor",
        ),
        (b"01_first: \xff", "small.yaml: cannot be read as YAML"),
        ("", "names no notebook"),
        ("# nothing", "names no notebook"),
        ("all: {value: 1}", "names no notebook"),
        ("- 01_first", "'name: value' pairs are needed"),
        ("text", "'name: value' pairs are needed"),
        ("01_first: [value]", "01_first holds"),
        ("all: 3\n01_first: {}", "all holds 3"),
        ("01_first: {}\n01_first: {}", "line 2: .*'01_first' is there twice"),
        ("01_first: {value: 1, value: 2}", "'value' is there twice"),
        ("1: {}", "unknown notebook '1'"),
        ("01_first: {1: 2}", "unknown parameter '1'"),
        ("01_first: {value: text}", "value is 'text'; write it like 1"),
        ("01_first: {value: 1.5}", "value is 1.5"),
        ("01_first: {value: true}", "value is True"),
        ("01_first: {value: null}", "value is None"),
        ("01_first: {rate: fast}", "rate is 'fast'"),
        ("01_first: {data: 2024-01-01}", "neither text nor number"),
        ("01_first: &loop {data: [*loop]}", "neither text nor number|cannot be read"),
        ("01_first: {profile: demo}", "profile is 'demo'; the file's name decides"),
        ("all: {profile: ../../x}\n01_first: {}", "profile is '../../x'; the file's name decides"),
    ],
)
def test_a_profile_of_another_form_is_one_sentence(text, sentence, written):
    written(text)
    with pytest.raises(InputError, match=sentence) as stopped:
        load_profile("small")
    assert "\n" not in str(stopped.value)


def test_the_name_of_the_file_is_the_profile_and_numbers_are_numbers(written):
    written("all: &all {rate: 1e-4}\n01_first: {<<: *all, value: 2, rate: 1}\n02_second:\n")
    first, second = load_profile("small")
    assert first.parameters == {"rate": 1, "value": 2, "profile": "small"}
    assert second.parameters == {"rate": 1e-4, "profile": "small"}
    assert [(one.name, one.needs) for one in outline("small")] == [
        ("01_first", ()),
        ("02_second", ("01_first",)),
    ]


def test_what_is_tuned_must_be_loaded():
    values = {"backbones": ["pixels"], "tuned": ["random-t16"], "datasets": []}
    with pytest.raises(InputError, match="07: tuned names 'random-t16', which backbones lacks"):
        require_parts(values, "07")
    require_parts(values | {"tuned": ["pixels"]}, "07")


@pytest.mark.parametrize("text", ["", "{}", "[", '{"cells": [3]}'])
def test_a_damaged_notebook_is_one_sentence(text, written, tmp_path):
    (tmp_path / "notebooks" / "01_first.ipynb").write_text(text)
    with pytest.raises(InputError, match="01_first.ipynb: not a notebook"):
        load_profile("small")


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", ".hidden", "a\\b", "x..y"])
def test_a_profile_cannot_lead_out_of_results(name, monkeypatch):
    monkeypatch.delenv("RADIODINO_RESULTS", raising=False)
    with pytest.raises(InputError, match="names a folder of results"):
        results_folder(name)


def test_without_the_checkout_one_sentence_says_where_to_run(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence, "FOLDER", tmp_path / "notebooks")
    with pytest.raises(InputError, match="notebooks: there is no such folder; .* the checkout"):
        sequence.list_notebooks("demo")
    monkeypatch.setattr(verify, "REPOSITORY", tmp_path)
    with pytest.raises(InputError, match="results: there is no such folder; .* the checkout"):
        verify.verify_profiles()
