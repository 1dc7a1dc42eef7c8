import re
import subprocess

import numpy
import torch

from radiodino_utils.provenance import cpu_count, git_revision, print_configuration, set_threads, versions


def test_versions_and_what_is_absent():
    found = versions(("numpy", "no-such-package-at-all"))
    assert found == {"numpy": numpy.__version__, "no-such-package-at-all": "absent"}
    assert {"torch", "timm", "scikit-learn"} < set(versions())


def git(folder, *arguments):
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *who, *arguments], check=True, capture_output=True)


def test_git_revision(tmp_path):
    assert git_revision(tmp_path) == "unversioned"
    git(tmp_path, "init")
    package = tmp_path / "radiodino_utils"
    package.mkdir()
    (package / "provenance.py").write_text("1")
    (tmp_path / "other.txt").write_text("1")
    git(tmp_path, "add", "other.txt")
    git(tmp_path, "commit", "-m", "another project, around an environment that holds the package")
    assert git_revision(tmp_path) == "unversioned"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "this project")
    assert re.fullmatch(r"[0-9a-f]{10}", revision := git_revision(tmp_path))
    (tmp_path / "other.txt").write_text("2")
    assert git_revision(tmp_path) == revision
    (package / "provenance.py").write_text("2")
    assert git_revision(tmp_path) == revision + "+"


def test_threads(capsys):
    before = torch.get_num_threads()
    try:
        assert set_threads(1) == torch.get_num_threads() == 1
        assert set_threads() == torch.get_num_threads() == cpu_count()
        print_configuration(profile="demo", seed=3, threads=1)
    finally:
        torch.set_num_threads(before)
    first, second = capsys.readouterr().out.splitlines()
    assert "profile demo · seed 3 · device" in first
    assert "threads 1" in first
    assert f"torch {torch.__version__.partition('+')[0]}" in second


def test_processors_are_no_more_than_omp_num_threads(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    every = cpu_count()
    for value, expected in (("1", 1), ("100000", every), ("", every), ("0", every), ("4,2", every)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert cpu_count() == expected
