"""The light installation: what it imports, and that a missing package is named with its extra."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.core.extras import MissingExtra, extra

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DISTRIBUTIONS = {
    "PIL": "pillow",
    "faiss": "faiss-cpu",
    "imagehash": "ImageHash",
    "IPython": "ipython",
    "pytorch_grad_cam": "grad-cam",
    "sklearn": "scikit-learn",
    "sksurv": "scikit-survival",
    "umap": "umap-learn",
    "yaml": "pyyaml",
}
IMPORTS = {distribution: module for module, distribution in DISTRIBUTIONS.items()}
BLOCK = """
import sys
import numpy as np
sys.modules |= dict.fromkeys(sys.argv[1].split(","))  # their import fails
"""


def _declared(lines: list[str]) -> set[str]:
    """Names of distributions, those of included extras too."""
    names = set()
    for one in map(Requirement, lines):
        included = [PROJECT["optional-dependencies"][name] for name in one.extras]
        names |= set().union(*map(_declared, included)) if included else {one.name}
    return names


LIGHT = _declared(PROJECT["dependencies"])
EXTRAS = {
    name: _declared(lines) - LIGHT for name, lines in PROJECT["optional-dependencies"].items()
}


def _imports(node: ast.AST, within: str = "") -> Iterator[tuple[str, str, int]]:
    """Each imported top-level module, the extra whose block it stands in, and its line."""
    for child in ast.iter_child_nodes(node):
        names = [one.name for one in child.names] if isinstance(child, ast.Import) else []
        if isinstance(child, ast.ImportFrom) and not child.level:
            names = [child.module]
        yield from ((name.partition(".")[0], within, child.lineno) for name in names)
        inner = within
        if isinstance(child, ast.With) and isinstance(
            call := child.items[0].context_expr, ast.Call
        ):
            inner = call.args[0].value if ast.unparse(call.func) == "extra" else within
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _imports(child, inner)


def test_packages_of_an_extra_are_imported_within_it_only() -> None:
    optional, faults = EXTRAS["test"], []
    for file in sorted((ROOT / "radiodino_utils").rglob("*.py")):
        for module, within, line in _imports(ast.parse(file.read_text())):
            distribution = DISTRIBUTIONS.get(module, module)
            if distribution in optional and distribution not in EXTRAS.get(within, ()):
                faults.append(f"{file.relative_to(ROOT)}:{line} {module}")
    assert faults == []


def test_the_light_installation_is_light_and_each_extra_includes_the_one_before() -> None:
    heavy = {"jupyterlab", "lightning", "lightly", "monai", "matplotlib", "scikit-learn", "pytest"}
    assert not LIGHT & heavy
    assert EXTRAS["evaluation"] < EXTRAS["train"] < EXTRAS["notebooks"] < EXTRAS["test"]


def test_images_become_features_without_any_extra(tmp_path: Path, run_python) -> None:
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(2):
            Image.new("L", (40, 40), 20 * number).save(
                tmp_path / "images" / label / f"{number}.png"
            )
    code = BLOCK + (
        "from radiodino_utils.backbones.loading import load_backbone\n"
        "from radiodino_utils.data.registry import load_dataset\n"
        "from radiodino_utils.features.extraction import extract_features\n"
        "dataset = load_dataset(f'folder:{sys.argv[2]}')\n"
        "features = extract_features(load_backbone('radiodino-mini'), dataset)\n"
        "print(features.embedding('all').shape)"
    )
    blocked = ",".join(IMPORTS.get(name, name.replace("-", "_")) for name in EXTRAS["test"])
    run = run_python(code, blocked, tmp_path / "images", RADIODINO_DATA=tmp_path / "data")
    assert run.stdout.splitlines()[-1:] == ["(4, 192)"], run.stderr


@pytest.mark.parametrize(
    ("module", "name", "code"),
    [
        (
            "faiss",
            "evaluation",
            "from radiodino_utils.evaluation.neighbours import nearest\n"
            "nearest(np.ones((2, 2)), np.ones((1, 2)), 1)",
        ),
        ("sklearn", "evaluation", "import radiodino_utils.evaluation.protocols"),
        (
            "medmnist",
            "evaluation",
            "import radiodino_utils as rd; rd.load_dataset('breastmnist-28')",
        ),
        ("sksurv", "survival", "import radiodino_utils as rd; rd.radiomics.SurvivalModels"),
        ("lightning", "train", "import radiodino_utils.pretraining.trainer"),
        ("lightly", "train", "import radiodino_utils.pretraining.networks"),
        ("matplotlib", "notebooks", "import radiodino_utils.plots.style"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(module, name, code, run_python) -> None:
    run = run_python(BLOCK + code, module)
    last = run.stderr.splitlines()[-1]
    assert last.startswith("radiodino_utils.core.extras.MissingExtra: ") and module in last
    assert last.endswith(f"this needs the extra [{name}]: pip install '.[{name}]' in the checkout.")


def test_a_missing_extra_is_an_import_error_and_an_input_error() -> None:
    with (
        pytest.raises(MissingExtra, match=r"No module named 'nowhere'.*\[train\]") as caught,
        extra("train"),
    ):
        import nowhere  # noqa: F401
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, InputError)
