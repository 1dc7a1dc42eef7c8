"""Small notebooks, a sequence and a profile of them, for the real papermill."""

import json
import sys
from pathlib import Path

import yaml

PARAMETERS = """value = 1  # a number
data = None  # what is read
rate = 0.1  # a fraction
profile = "demo"  # whose results"""
WRITE = "from pathlib import Path\nimport os\n"
WRITE += "tables = Path(os.environ['RADIODINO_RESULTS']) / 'tables'\ntables.mkdir(exist_ok=True)\n"


def write_notebook(folder: Path, name: str, *cells: str, kernel: str = "python3") -> None:
    """Write a notebook with a title, parameters and some code."""
    sources = [
        ("markdown", f"# {name[:2]} · made for a test", []),
        ("code", PARAMETERS, ["parameters"]),
    ]
    sources += [("code", cell, []) for cell in cells]
    written = [
        {"cell_type": kind, "id": f"c{i}", "metadata": {"tags": tags}, "source": source}
        | ({"outputs": [], "execution_count": None} if kind == "code" else {})
        for i, (kind, source, tags) in enumerate(sources)
    ]
    spec = {"display_name": "Python 3", "language": "python", "name": kernel}
    book = {"cells": written, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (folder / f"{name}.ipynb").write_text(json.dumps(book))


def write_sequence(
    folder: Path, needs: dict[str, list[str]], timeouts: dict[str, int] | None = None
) -> None:
    entries = {
        name: {"needs": needed, "timeout": (timeouts or {}).get(name, 900)}
        for name, needed in needs.items()
    }
    (folder / "sequence.yaml").write_text(yaml.safe_dump(entries, sort_keys=False))


def write_profile(folder: Path, values: dict) -> None:
    (folder / "profiles" / "small.yaml").write_text(yaml.safe_dump(values, sort_keys=False))


def small_profile(folder: Path) -> Path:
    """Write a sequence of two notebooks; the second one reads the table of the first."""
    (folder / "profiles").mkdir(parents=True)
    write_notebook(
        folder,
        "01_first",
        WRITE + "(tables / '01_numbers.csv').write_text(f'value\\n{value}\\n');",
        "value",
    )
    write_notebook(
        folder, "02_second", WRITE + "text = (tables / '01_numbers.csv').read_text()", "print(text)"
    )
    write_sequence(folder, {"01_first": [], "02_second": ["01_first"]})
    write_profile(folder, {"01_first": {"value": 2}, "02_second": None})
    return folder


def runner_command(folder: Path, *arguments: str) -> list[str]:
    """Return the command that runs a folder of notebooks in a process of its own."""
    code = "from pathlib import Path; from radiodino_utils import cli; "
    code += "from radiodino_utils.workflow import notebooks; "
    code += f"notebooks.FOLDER = Path({str(folder)!r}); "
    code += f"cli.main({['run', '--profile', 'small', *arguments]!r})"
    return [sys.executable, "-c", code]
