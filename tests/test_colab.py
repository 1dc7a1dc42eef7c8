"""The first cell of the notebooks, which installs the package on Google Colab."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXTRA = re.compile(r"radiodino-utils\[(\w+)\]")
RUN = """
import sys
from IPython.core.interactiveshell import InteractiveShell
if {hidden}:
    sys.modules["radiodino_utils"] = None
InteractiveShell.instance().run_cell(sys.argv[1]).raise_error()
"""


def first_cell(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return next("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")


def run_cell(source, *, hidden, **variables):
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | variables
    program = [sys.executable, "-c", RUN.format(hidden=hidden), source]
    return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=3600)


def test_all_notebooks_have_the_same_cell_and_an_extra_without_a_kernel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [EXTRA.search(first_cell(path))[1] for path in NOTEBOOKS]
    # ipython and ipykernel of `notebooks` would replace those that Colab runs on
    assert set(extras) <= set(project["optional-dependencies"]) - {"notebooks", "test"}
    assert len({EXTRA.sub("", first_cell(path)) for path in NOTEBOOKS}) == 1


def test_it_installs_the_package_where_that_is_absent(tmp_path):
    checkout = tmp_path / "checkout"
    shutil.copytree(ROOT / "radiodino_utils", checkout / "radiodino_utils")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, checkout)
    options = {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    options |= {"PIP_TARGET": str(tmp_path / "site"), "RADIODINO_SOURCE": checkout.as_uri()}
    done = run_cell(first_cell(NOTEBOOKS[0]), hidden=True, **options)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "radiodino_utils" / "__init__.py").is_file(), done.stdout
    (found,) = importlib.metadata.distributions(path=[str(tmp_path / "site")])
    assert found.name == "radiodino-utils"


def test_it_does_nothing_where_the_package_is(tmp_path):
    pip = {"PYTHONPATH": str(ROOT), "PIP_TARGET": str(tmp_path / "site"), "PIP_NO_INDEX": "1"}
    done = run_cell(first_cell(NOTEBOOKS[0]), hidden=False, **pip)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_stands_before_the_parameters_and_shows_nothing(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, second, *_ = [cell for cell in cells if cell["cell_type"] == "code"]
    assert first["outputs"] == [] and "find_spec" in "".join(first["source"])
    assert second["metadata"]["tags"] == ["parameters"]
