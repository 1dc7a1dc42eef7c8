"""The files around the package agree with each other and with what the README says."""

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from pip._internal.network.session import PipSession
from pip._internal.req import parse_requirements

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / "requirements.txt").read_text(), re.M))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _declared() -> list[Requirement]:
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    declared = [Requirement(line) for lines in lists for line in lines]
    return [one for one in declared if one.name != PROJECT["name"]]  # an extra includes others


def test_pins_and_project_name_the_same_packages_and_agree() -> None:
    declared = {one.name: one.specifier for one in _declared()}
    assert set(declared) == set(PINS)
    assert [name for name, allowed in declared.items() if not allowed.contains(PINS[name])] == []


def test_conda_environment_installs_the_pins_on_an_allowed_python(tmp_path: Path) -> None:
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    pip = next(one["pip"] for one in dependencies if isinstance(one, dict))
    # conda writes the section to a file beside environment.yml and calls pip install -U -r FILE
    shutil.copy(ROOT / "requirements.txt", tmp_path)
    (tmp_path / "condaenv.txt").write_text("\n".join(pip))
    read = list(parse_requirements(str(tmp_path / "condaenv.txt"), session=PipSession()))
    assert dict(one.requirement.split("==") for one in read if not one.is_editable) == PINS
    assert [one.requirement for one in read if one.is_editable] == ["."]
    python = next(one for one in dependencies if str(one).startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.split("=")[1]
    )


def test_installed_versions_are_the_pinned_ones() -> None:
    assert {name: version(name) for name in PINS} == {
        name: str(Version(pin)) for name, pin in PINS.items()
    }


@pytest.mark.parametrize(
    "path", ["radiodino_utils", *(str(p.relative_to(ROOT)) for p in NOTEBOOKS)]
)
def test_every_import_is_a_declared_dependency(path: str) -> None:
    files = [ROOT / path] if path.endswith(".ipynb") else (ROOT / path).rglob("*.py")
    imported = {name for file in files for name in _imports(file)}
    own = {"radiodino_utils", "__future__", *sys.stdlib_module_names}
    names = {
        "PIL": "pillow",
        "sklearn": "scikit-learn",
        "umap": "umap-learn",
        "yaml": "pyyaml",
        "faiss": "faiss-cpu",
    }
    names |= {"gdcm": "python-gdcm", "IPython": "ipython"}
    names |= {"imagehash": "ImageHash", "pytorch_grad_cam": "grad-cam"}
    names |= {"skimage": "scikit-image", "sksurv": "scikit-survival"}
    wanted = {names.get(name, name).replace("_", "-") for name in imported - own}
    assert wanted <= {name.replace("_", "-") for name in PINS}


def _imports(file: Path) -> set[str]:
    source = file.read_text()
    if file.suffix == ".ipynb":
        source = "\n".join(
            "".join(c["source"]) for c in json.loads(source)["cells"] if c["cell_type"] == "code"
        )
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_the_readme_tables_are_those_of_the_committed_results(tmp_path: Path) -> None:
    from radiodino_utils.workflow.readme import readme_with_tables

    # out of git: a run on another processor leaves slightly other tables in the folder
    folders = ["results", "benchmarks", "radiodino_utils/evaluation/tables"]
    archive = subprocess.run(["git", "archive", "HEAD", *folders], cwd=ROOT, capture_output=True)
    if archive.returncode:
        pytest.skip("not a git checkout, so nothing says which results are the committed ones")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
        files.extractall(tmp_path, filter="data")
    readme = (ROOT / "results" / "README.md").read_text()
    assert readme_with_tables(readme, tmp_path) == readme
    assert readme.count("<!-- table:") >= 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_prose_and_calls_executed_once(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [
        output for cell in code for output in cell["outputs"] if output["output_type"] == "error"
    ]
    assert cells[0]["source"][0].startswith(f"# {path.stem[:2]} ·")
    code = code[1:]  # the first one is for Google Colab, see test_colab
    sources = ["".join(cell["source"]) for cell in code]
    assert not [source for source in sources if re.search(r"^\s*(def|class) ", source, re.M)]
    assert all(re.fullmatch(r"\w+ = .+  # .+", line) for line in sources[0].splitlines())
    assert "parameters" in code[0]["metadata"]["tags"]
    *imports, opened, printed = [line for line in sources[1].splitlines() if line]
    assert opened == "results = rd.Results(profile)"
    assert printed.startswith("results.print_configuration(")
    assert "import radiodino_utils as rd" in imports
    assert len([line for line in imports if "radiodino_utils" in line]) <= 3 and len(imports) <= 4


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_cells_of_notebooks_are_one_idea_each(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert max(len(source.splitlines()) for source in sources[2:]) <= 15
    assert max(len(line) for source in sources for line in source.splitlines()) <= 100
    assert not re.search(r"save_figure|write_table|plt\.show", "\n".join(sources))
    loops = [
        node
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ListComp | ast.DictComp | ast.GeneratorExp)
    ]
    assert all(len(node.generators) <= 2 for node in loops)


def test_layers_import_only_what_stands_below_them() -> None:
    program = Path(sys.executable).parent / "lint-imports"
    run = subprocess.run([program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_nothing_of_this_machine_is_committed() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split("\0")
    if not any(listed):
        pytest.skip("not a git checkout")
    texts = [
        ROOT / name
        for name in listed
        if name.endswith((".py", ".md", ".ipynb", ".yaml", ".yml", ".csv", ".sh", ".json"))
    ]
    marks = re.compile(r"/home/\w+|/root/|/tmp/|[A-Z]:\\\\Users")  # a path of somebody's machine
    assert [
        path.name
        for path in texts
        if path.is_file() and path != Path(__file__) and marks.search(path.read_text())
    ] == []


def test_no_time_out_turns_a_slow_machine_red() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    limits = [project["tool"]["pytest"]["ini_options"]["timeout"]]
    limits += [
        int(one) for one in re.findall(r"timeout (\d+)", (ROOT / "run_tests.sh").read_text())
    ]
    for file in (ROOT / "tests").glob("*.py"):
        calls = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.keyword)
        ]
        limits += [
            one.value.value
            for one in calls
            if one.arg == "timeout" and isinstance(one.value, ast.Constant)
        ]
    assert min(limits) >= 600
