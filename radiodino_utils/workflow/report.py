"""The report: one self-contained HTML page of a profile's tables, figures and provenance."""

import base64
import os
import platform
import re
from pathlib import Path

import pandas as pd
from PIL import Image

from ..core.environment import git_revision, made_on, processor, versions
from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import REPOSITORY, results_folder, write_text
from ..core.states import current_files, read_state, recorded
from ..evaluation.results import read_table

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>RadioDINO, profile {{ profile }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1b1b; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.7em; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; } h3 { margin-bottom: .3em; }
table { border-collapse: collapse; font-size: .85em; } .wide { overflow-x: auto; }
th, td { padding: .25em .7em; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap; } th { background: #f4f4f4; }
figure { margin: 1em 0 2em; } img { max-width: 100%; height: auto; } figcaption, .note { color: #555; font-size: .9em; }
.note { background: #fff6dd; padding: .5em 1em; } .attention { color: #b00020; font-weight: bold; }
</style></head><body>
<h1>RadioDINO: results of the profile “{{ profile }}”</h1>
{% for caveat in caveats %}<p class="note">{{ caveat }}</p>{% endfor %}
<h2>Notebooks</h2>
<div class="wide"><table><tr><th>notebook</th><th>state</th><th>seconds</th><th>peak memory</th><th>git</th></tr>
{% for n in notebooks %}<tr><td>{% if n.link %}<a href="{{ n.link }}">{{ n.name }}</a>{% else %}{{ n.name }}{% endif %}</td>
<td{% if n.state != "done" %} class="attention"{% endif %}>{{ n.state }}</td>
<td>{{ n.seconds }}</td><td>{{ n.memory }}</td><td>{{ n.git }}</td></tr>
{% endfor %}</table></div>
{% if notebooks | rejectattr("state", "equalto", "done") | list %}
<p class="note">Tables and figures of notebooks that are not done are left out below.</p>{% endif %}
<h2>Tables</h2>
{% for t in tables %}<h3>{{ t.title }}</h3><div class="wide">{{ t.html | safe }}</div>
<p><a href="{{ t.link }}">{{ t.link }}</a></p>{% endfor %}
<h3>All tables as CSV</h3><p>{% for link in links %}<a href="{{ link }}">{{ link }}</a> {% endfor %}</p>
<p class="note">{{ intervals }}</p>
<h2>Figures</h2>
{% for f in figures %}<figure><img alt="{{ f.title }}" width="{{ f.width }}" src="data:image/png;base64,{{ f.data }}">
<figcaption>{{ f.title }} — <a href="{{ f.link }}">PNG</a>{% if f.pdf %}, <a href="{{ f.pdf }}">PDF</a>{% endif %}</figcaption>
</figure>{% endfor %}
<h2>Provenance</h2>
<table>{% for key, value in provenance.items() %}<tr><th>{{ key }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
<h3>Backbones</h3><div class="wide">{{ backbones | safe }}</div>
</body></html>
"""
_LIMIT = 250  # table lines on the page; longer tables are linked only
_TABLES = {
    "09_classification": "Classification",
    "09_published": "The published table and what was measured",
    "09_baselines": "The same datasets in MedMNIST v2 and MedMNIST+",
    "07_paired": "Differences between backbones (paired bootstrap)",
    "05_segmentation": "Segmentation",
    "02_features": "Feature files",
}
_INTERVALS = (
    "Intervals are percentile bootstrap 95 % intervals over the test images (1000 seeded resamples). They treat the "
    "images as independent and know nothing of other patients or trainings."
)
_RANDOM = "Backbones named random-* have random weights: they are a floor to compare with, not a trained RadioDINO."


def build_report(profile: str) -> Path:
    """Writes `report.html` from what the profile's last runs left in its results folder.

    Tables and figures of notebooks that failed, are out of date or left the profile are not shown.
    Where no run has a record, as in a clone, everything in the folder is.

    Args:
        profile: The profile's name.

    Returns:
        The page's path; it needs no network to be read.

    Raises:
        InputError: If the folder holds no tables.
    """
    with extra("notebooks"):
        from jinja2 import Environment

    folder = results_folder(profile)
    tables = {path.stem: read_table(path, dtype=str) for path in _current(folder, "tables/*.csv")}
    if not tables and not recorded(folder):
        raise InputError(
            f"{folder / 'tables'}: holds no tables; run the notebooks of the profile first."
        )
    features = tables.get("02_features", pd.DataFrame(columns=["backbone", "weights", "source"]))
    rows = tables.get("09_results", pd.DataFrame(columns=["caveat", "backbone"]))
    caveats = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in rows["caveat"].unique() if caveat]
    if pd.concat([features["backbone"], rows["backbone"]]).str.startswith("random-").any():
        caveats.append(_RANDOM)
    page = (
        Environment(autoescape=True)
        .from_string(_PAGE)
        .render(
            profile=profile,
            caveats=caveats,
            notebooks=_notebooks(folder),
            tables=[
                {
                    "title": _TABLES[name],
                    "html": tables[name].to_html(index=False, border=0),
                    "link": f"tables/{name}.csv",
                }
                for name in _TABLES
                if name in tables and len(tables[name]) <= _LIMIT
            ],
            links=[f"tables/{name}.csv" for name in tables],
            intervals=_INTERVALS,
            figures=[_figure(path, folder) for path in _current(folder, "figures/*.png")],
            provenance=_provenance(folder),
            backbones=features[["backbone", "weights", "source"]]
            .drop_duplicates()
            .to_html(index=False, border=0),
        )
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _current(folder: Path, pattern: str) -> list[Path]:
    current = current_files(folder)
    paths = sorted(folder.glob(pattern))
    return [
        path for path in paths if current is None or path.relative_to(folder).as_posix() in current
    ]


def _notebooks(folder: Path) -> list[dict[str, object]]:
    lines = []
    for name in recorded(folder):
        stamp = read_state(folder, name)
        executed = folder / "notebooks" / f"{name}.ipynb"
        page = _as_page(executed) if executed.exists() else None
        lines.append(
            {
                "name": name,
                "link": page and os.path.relpath(page, folder),
                "state": stamp.get("state", "record damaged: run again"),
                "seconds": f"{stamp.get('seconds', 0):.0f}",
                "memory": f"{stamp.get('peak_memory_mb', 0):.0f} MB",
                "git": stamp.get("git", ""),
            }
        )
    return lines


def _as_page(notebook: Path) -> Path:
    """Makes an HTML page of an executed notebook, without the scripts that nbconvert would load from a network."""
    with extra("notebooks"):
        from nbconvert import HTMLExporter

    page = notebook.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
        offline = {"mathjax_url": "", "require_js_url": "", "jquery_url": "", "mermaid_js_url": ""}
        html, _ = HTMLExporter(embed_images=True, **offline).from_filename(str(notebook))
        write_text(page, re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL))
    return page


def _figure(path: Path, folder: Path) -> dict[str, object]:
    pdf = path.with_suffix(".pdf")
    with Image.open(path) as image:
        width = round(
            image.width * 110 / image.info.get("dpi", (200, 200))[0]
        )  # a little above the size in print
    return {
        "width": width,
        "title": path.stem.replace("_", " "),
        "data": base64.b64encode(path.read_bytes()).decode(),
        "link": os.path.relpath(path, folder),
        "pdf": os.path.relpath(pdf, folder) if pdf.exists() else "",
    }


def _provenance(folder: Path) -> dict[str, str]:
    return {
        "git revision": git_revision(),
        "Python": platform.python_version(),
        "processor": made_on(folder) or processor(),
        "system": platform.system(),
        **versions(),
    }


_MARK = re.compile(
    r"(<!-- table: (\S+)(?: columns: (.+?))?(?: rows: (\w+) = (.+?))? -->\n).*?(<!-- end -->)",
    re.DOTALL,
)


def readme_with_tables(text: str, folder: Path) -> str:
    """Fills the marked places of a README with Markdown tables from a folder's CSV files.

    Args:
        text: The README; a place is `<!-- table: FILE.csv -->`, perhaps with `columns: NAME, NAME`
            and after them `rows: NAME = VALUE, VALUE` before the arrow, to `<!-- end -->`.
        folder: What the files' paths start from.

    Returns:
        The README with the tables as they are now, and under each of a profile's the processors
        that made it.

    Raises:
        InputError: If a file or a column is not there.
    """

    def table(match: re.Match) -> str:
        if not (folder / match[2]).is_file():
            raise InputError(
                f"{folder / match[2]}: the README asks for this table and it is not there; run the notebooks first."
            )
        frame = read_table(folder / match[2], dtype=str).replace(r"\|", r"\|", regex=True)
        wanted = match[3].split(", ") if match[3] else list(frame)
        if absent := [name for name in (*wanted, match[4] or wanted[0]) if name not in frame]:
            raise InputError(
                f"{folder / match[2]}: the README asks for the column {absent[0]} and it is not there."
            )
        if match[4]:
            frame = frame[frame[match[4]].isin(match[5].split(", "))]
        frame = frame[wanted]
        lines = [frame.columns, ["---"] * len(frame.columns), *frame.to_numpy()]
        where = made_on((folder / match[2]).parents[1])
        caption = f"\nMade on: {where}.\n" * bool(where)
        return (
            match[1] + "".join(f"| {' | '.join(line)} |\n" for line in lines) + caption + match[6]
        )

    return _MARK.sub(table, text)


def update_readme() -> Path:
    """Fill the tables of `results/README.md` and return its path."""
    path = REPOSITORY / "results" / "README.md"
    write_text(path, readme_with_tables(path.read_text(encoding="utf-8"), REPOSITORY))
    return path
