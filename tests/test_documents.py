"""README, CONTRIBUTING and docs: short, and true to the repository."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from radiodino_utils import cli

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "results" / "README.md")
)
SCRIPTS = ("./run_all.sh", "./run_tests.sh")


def commands_of(text):
    """Return the commands of the bash blocks of a document, without comments."""
    lines = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    return [command for line in lines if (command := line.split("#")[0].split("(")[0].strip())]


COMMANDS = sorted(
    {command for name in DOCUMENTS for command in commands_of((ROOT / name).read_text("utf-8"))}
)


def headings_of(path):
    """Return the anchors of the headings of a Markdown file, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text("utf-8"), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {text.replace(" ", "-") for text in words}


def test_readme_and_contributing_are_short():
    assert len(README.split()) <= 700
    assert len((ROOT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


@pytest.mark.parametrize("name", DOCUMENTS)
def test_prose_and_code_wrap_at_100_columns(name):
    lines = (ROOT / name).read_text("utf-8").splitlines()
    free = ("|", "<!--", "![", "  title = ")  # tables, marks, images, a citation
    assert [line for line in lines if len(line) > 100 and not line.startswith(free)] == []


def test_the_readme_has_two_commands_with_time_and_disk_and_one_figure():
    assert commands_of(README)[:2] == list(SCRIPTS)
    assert re.search(r"\d+ GB of disk", README)
    for script in SCRIPTS:
        assert re.search(rf"^{re.escape(script)} .*(minutes|hour)", README, re.MULTILINE)
    figures = re.findall(r"!\[[^]]+\]\((?!https:)(.+?)\)", README)  # a badge is none
    assert len(figures) == 1 and (ROOT / figures[0]).is_file()


def test_the_readme_needs_three_lines_of_python():
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    lines = [line for line in block.splitlines() if line]
    assert len(lines) == 3 and "radiodino-s16" in block
    compile(block, "README.md", "exec")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_leads_somewhere(name):
    folder = (ROOT / name).parent
    for link in set(re.findall(r"\]\(([^)]+)\)", (ROOT / name).read_text("utf-8"))):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = folder / file if file else ROOT / name
        assert target.exists(), link
        assert not anchor or anchor in headings_of(target), link


def test_ci_runs_the_test_command_of_the_readme():
    assert "run_tests.sh" in (ROOT / ".ci" / "run").read_text("utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_exists_with_its_options(command):
    program, *words = shlex.split(command)
    if program == "torchrun":
        module = words.index("radiodino_utils")
        program, words = "radiodino", words[module + 1 :]
    name = Path(program).name
    if name == "radiodino":
        options = {word for word in words if word.startswith("--")}
        assert options <= set(_help(words[:1]).replace(",", " ").split())
    elif program in SCRIPTS:
        assert os.access(ROOT / program, os.X_OK)
        if program == "./run_all.sh":
            assert {word for word in words if word.startswith("--")} <= set(_help(["run"]).split())
    elif name in ("jupyter", "python", "pre-commit"):
        assert program.startswith(".venv/bin/")
    else:
        assert command in ("conda env create -f environment.yml", "conda activate radiodino")


def _help(words):
    words = [word for word in words if not word.startswith("-")]
    run = subprocess.run(
        [sys.executable, "-m", cli.__name__, *words, "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout
