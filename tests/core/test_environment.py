"""Versions, revision, processor and threads."""

import re
import subprocess

import numpy
import pytest
import torch

from radiodino_utils.core.environment import (
    TRAINING_THREADS,
    cpu_count,
    git_revision,
    made_on,
    print_configuration,
    processor,
    record_processor,
    set_threads,
    training_threads,
    versions,
)


def test_versions_and_what_is_absent():
    assert versions(("numpy", "no-such-package-at-all")) == {
        "numpy": numpy.__version__,
        "no-such-package-at-all": "absent",
    }
    assert {"torch", "timm", "scikit-learn"} < set(versions())


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def test_git_revision(tmp_path):
    revision_of = git_revision.__wrapped__  # each call asks git
    assert revision_of(tmp_path) == "unversioned"
    git(tmp_path, "init")
    package = tmp_path / "radiodino_utils" / "core"
    package.mkdir(parents=True)
    (package / "environment.py").write_text("1")
    (tmp_path / "other.txt").write_text("1")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-m", "another project, around an environment that holds the package")
    assert revision_of(tmp_path) == "unversioned"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "this project")
    assert re.fullmatch(r"[0-9a-f]{10}", revision := revision_of(tmp_path))
    (tmp_path / "other.txt").write_text("2")
    assert revision_of(tmp_path) == revision
    (package / "environment.py").write_text("2")
    assert revision_of(tmp_path) == revision + "+"


def test_threads(capsys):
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        assert set_threads() == torch.get_num_threads() == cpu_count()
        print_configuration(profile="demo", seed=3, threads=1)
    finally:
        torch.set_num_threads(before)
    first, machine, second = capsys.readouterr().out.splitlines()
    assert "profile demo · seed 3 · device" in first
    assert "threads 1" in first
    assert machine == f"processor {processor()} · training threads {TRAINING_THREADS}"
    assert f"torch {torch.__version__.partition('+')[0]}" in second


def test_processors_are_no_more_than_omp_num_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    every = cpu_count()
    for value, expected in (("1", 1), ("100000", every), ("", every), ("0", every), ("4,2", every)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert cpu_count() == expected


def test_training_threads_are_fixed_and_restored():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with training_threads():
            assert torch.get_num_threads() == TRAINING_THREADS
        assert torch.get_num_threads() == 3
        with pytest.raises(KeyError), training_threads():
            raise KeyError
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_the_processor_has_a_name_and_an_instruction_set(monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    assert re.fullmatch(r".+ \(\w+\)", processor())
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert processor().endswith("(avx2)")


def test_a_results_folder_knows_which_processors_made_it(tmp_path, monkeypatch):
    assert made_on(tmp_path) == ""
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    record_processor(tmp_path, "03_knn", threads=1)
    record_processor(tmp_path, "04_umap", threads=1)
    called = processor()
    assert made_on(tmp_path) == f"{called}, 1 thread"
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    record_processor(tmp_path, "04_umap", threads=2)
    assert made_on(tmp_path) == f"{processor()}, 2 threads; {called}, 1 thread"
    record_processor(tmp_path, "03_knn", threads=2)
    assert made_on(tmp_path) == f"{processor()}, 2 threads"
    assert list(tmp_path.iterdir()) == [tmp_path / "processors.json"]
