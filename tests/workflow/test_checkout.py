"""A checkout in an odd place, run by its script in a shell that is set against it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ..synthetic_notebooks import write_notebook, write_profile, write_sequence

ROOT = Path(__file__).resolve().parents[2]
CELL = """import os, sys
import radiodino_utils, matplotlib.pyplot as plt
plt.plot([0, 1])
plt.show()
facts = [radiodino_utils.__file__, sys.prefix, os.environ.get("WORLD_SIZE")]
[*facts, "started" in globals(), plt.get_backend(), rate, profile]"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Scripts and package, and one notebook that was saved under a kernel that is not here."""
    folder = tmp_path / "a{b}c $HOME 'quoted' \"ü\""
    shutil.copytree(
        ROOT / "radiodino_utils",
        folder / "radiodino_utils",
        ignore=shutil.ignore_patterns("weights", "__pycache__"),
    )
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("run_all.sh", "run_tests.sh", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    (folder / "notebooks" / "profiles").mkdir(parents=True)
    write_notebook(folder / "notebooks", "01_first", CELL, kernel="somebodys-kernel")
    write_sequence(folder / "notebooks", {"01_first": []})
    write_profile(folder / "notebooks", {"01_first": {"rate": 1e-5}})
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> dict[str, str]:
    """Variables of another checkout, a foreign kernel, start-up files, and a job of four ranks."""
    other = tmp_path / "other"
    (other / "radiodino_utils").mkdir(parents=True)
    (other / "radiodino_utils" / "__init__.py").write_text(
        "raise RuntimeError('the other checkout')"
    )
    (other / "sitecustomize.py").write_text("raise RuntimeError('the other checkout')")
    (other / "profile_default" / "startup").mkdir(parents=True)
    (other / "profile_default" / "startup" / "00.py").write_text("started = True")
    (other / ".ci").mkdir()
    for name in ("python3", "radiodino"):
        (other / "kernels" / name).mkdir(parents=True)
        spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": name, "language": "R"}
        (other / "kernels" / name / "kernel.json").write_text(json.dumps(spec))
    folders = (
        "PYTHONPATH",
        "JUPYTER_PATH",
        "JUPYTER_DATA_DIR",
        "IPYTHONDIR",
        "CDPATH",
        "PYTHONUSERBASE",
    )
    values = {
        "MPLBACKEND": "agg",
        "WORLD_SIZE": "4",
        "RANK": "2",
        "LOCAL_RANK": "2",
        "PYTHONHOME": "/nonexistent",
        "PIP_USER": "1",
    }
    return dict.fromkeys(folders, str(other)) | values


def test_a_run_executes_its_own_checkout_environment_and_kernel(
    checkout: Path, hostile: dict[str, str]
) -> None:
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("RADIODINO_", "CONDA_"))
    }
    environment = kept | hostile | {"VIRTUAL_ENV": sys.prefix}
    run = subprocess.run(
        ["bash", "run_all.sh", "--profile", "small"],
        cwd=checkout,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    book = nbformat.read(checkout / "results" / "small" / "notebooks" / "01_first.ipynb", 4)
    figure, answer = book.cells[-1].outputs
    assert "image/png" in figure["data"]
    package, prefix, *others = eval(answer["data"]["text/plain"])  # noqa: S307
    assert (Path(package).parents[1], prefix) == (checkout, sys.prefix)
    assert others == [None, False, "module://matplotlib_inline.backend_inline", 1e-5, "small"]
    assert (checkout / "results" / "small" / "report.html").is_file()

    nbval = [
        "-m",
        "radiodino_utils.workflow.processes",
        "with",
        str(checkout / "jupyter"),
        "pytest",
        "--nbval",
        "--nbval-kernel-name",
    ]
    command = [
        sys.executable,
        *nbval,
        "radiodino",
        "-p",
        "no:cacheprovider",
        "notebooks/01_first.ipynb",
    ]
    environment |= {"PYTHONPATH": str(checkout)}
    del environment["PYTHONHOME"]
    run = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    assert run.returncode == 0 and "2 passed" in run.stdout, run.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sign"),
    [
        (["--help"], 0, "--check"),
        (["--list", "--profile", "small"], 0, "01 · made for a test"),
        (["--profile", "smal"], 2, "unknown profile 'smal'; did you mean small?"),
        (["--profile", "../small"], 2, "unknown profile '../small'"),
        (["--profile", "small", "--only", "99"], 2, "unknown notebook '99'"),
        (["--jobs", "0"], 2, "--jobs 0"),
    ],
)
def test_what_needs_no_installation_installs_nothing(
    arguments: list[str], code: int, sign: str, checkout: Path
) -> None:
    kept = {
        name: text
        for name, text in os.environ.items()
        if name not in ("VIRTUAL_ENV", "CONDA_PREFIX")
    }
    run = subprocess.run(
        ["bash", "run_all.sh", *arguments], cwd=checkout, env=kept, capture_output=True, text=True
    )
    assert run.returncode == code and sign in run.stdout + run.stderr
    assert "Traceback" not in run.stderr and "installing" not in run.stdout
    assert not (checkout / ".venv").exists()


def test_a_change_anywhere_in_the_package_is_noticed(checkout: Path) -> None:
    kept = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith(("RADIODINO_", "CONDA_"))
    }

    def run() -> str:
        done = subprocess.run(
            ["bash", "run_all.sh", "--profile", "small"],
            cwd=checkout,
            env=kept | {"VIRTUAL_ENV": sys.prefix},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        return done.stdout

    assert "done" in run()
    assert "up to date" in run()
    with open(checkout / "radiodino_utils" / "core" / "errors.py", "a") as file:
        file.write("# changed\n")
    assert "done" in run()
