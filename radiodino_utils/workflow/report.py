"""The report: one self-contained HTML page of tables, figures and provenance."""

import base64
import os
import platform
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from ..core.environment import git_revision, made_on, processor, versions
from ..core.errors import InputError
from ..core.extras import extra
from ..core.files import results_folder, write_text
from ..core.states import current_files, read_state, recorded
from ..evaluation.results import read_table

_LIMIT = 250  # rows of a table on the page; longer tables are linked only
_TABLES = {
    "09_classification": "Classification",
    "09_published": "The published table and what was measured",
    "09_baselines": "The same datasets in MedMNIST v2 and MedMNIST+",
    "07_paired": "Differences between backbones (paired bootstrap)",
    "05_segmentation": "Segmentation",
    "02_features": "Feature files",
    "02_unreadable": "Images that cannot be read and are left out",
}
_INTERVALS = (
    "Intervals are percentile bootstrap 95 % intervals over the test images "
    "(1000 seeded resamples). They treat the images as independent and know nothing of other "
    "patients or trainings."
)
_RANDOM = (
    "Backbones named random-* have random weights: they are a baseline, not a trained RadioDINO."
)


def build_report(profile: str) -> Path:
    """Write `report.html` from what the last runs of a profile left in its results folder.

    Tables and figures of notebooks that failed, are out of date or left the profile are not shown.
    Where no run has a record, as in a clone, everything in the folder is shown.

    Args:
        profile: Name of the profile.

    Returns:
        The path of the page, which needs no network to be read.

    Raises:
        InputError: If the folder holds no tables.
    """
    folder = results_folder(profile)
    tables = {path.stem: read_table(path, dtype=str) for path in _current(folder, "tables/*.csv")}
    if not tables and not recorded(folder):
        raise InputError(
            f"{folder / 'tables'}: holds no tables; run the notebooks of the profile first."
        )
    empty = pd.DataFrame(columns=["backbone", "weights", "source", "caveat"])
    features = tables.get("02_features", empty)
    rows = tables.get("09_results", empty)
    page = _template().render(
        profile=profile,
        caveats=_caveats(features, rows),
        notebooks=_notebooks(folder),
        tables=_shown_tables(tables),
        links=[f"tables/{name}.csv" for name in tables],
        intervals=_INTERVALS,
        figures=[_figure(path, folder) for path in _current(folder, "figures/*.png")],
        provenance=_provenance(folder),
        backbones=_as_html(features[["backbone", "weights", "source"]].drop_duplicates()),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _template() -> Any:
    """Return the template of the page, which escapes every value that is not HTML of pandas."""
    with extra("notebooks"):
        from jinja2 import Environment

    text = (resources.files(__package__) / "report_template.html").read_text(encoding="utf-8")
    return Environment(autoescape=True).from_string(text)


def _caveats(features: pd.DataFrame, rows: pd.DataFrame) -> list[str]:
    caveats = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in rows["caveat"].unique() if caveat]
    if pd.concat([features["backbone"], rows["backbone"]]).str.startswith("random-").any():
        caveats.append(_RANDOM)
    return caveats


def _shown_tables(tables: Mapping[str, pd.DataFrame]) -> list[dict[str, str]]:
    return [
        {"title": title, "html": _as_html(tables[name]), "link": f"tables/{name}.csv"}
        for name, title in _TABLES.items()
        if name in tables and 0 < len(tables[name]) <= _LIMIT
    ]


def _as_html(table: pd.DataFrame) -> str:
    """Return a table as HTML, its cells escaped."""
    return table.to_html(index=False, border=0)


def _current(folder: Path, pattern: str) -> list[Path]:
    current = current_files(folder)
    paths = sorted(folder.glob(pattern))
    return [
        path for path in paths if current is None or path.relative_to(folder).as_posix() in current
    ]


def _notebooks(folder: Path) -> list[dict[str, Any]]:
    """Return one row per notebook that ran: page, state, duration, memory and git revision."""
    rows = []
    for name in recorded(folder):
        state = read_state(folder, name)
        executed = folder / "notebooks" / f"{name}.ipynb"
        rows.append(
            {
                "name": name,
                "link": os.path.relpath(_as_page(executed), folder) if executed.exists() else "",
                "state": state.get("state", "record damaged: run again"),
                "seconds": f"{state.get('seconds', 0):.0f}",
                "memory": f"{state.get('peak_memory_mb', 0):.0f} MB",
                "git": state.get("git", ""),
            }
        )
    return rows


def _as_page(notebook: Path) -> Path:
    """Return an HTML page of an executed notebook, without scripts from a network."""
    with extra("notebooks"):
        from nbconvert import HTMLExporter

    page = notebook.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
        offline = {"mathjax_url": "", "require_js_url": "", "jquery_url": "", "mermaid_js_url": ""}
        html, _ = HTMLExporter(embed_images=True, **offline).from_filename(str(notebook))
        write_text(page, re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL))
    return page


def _figure(path: Path, folder: Path) -> dict[str, Any]:
    pdf = path.with_suffix(".pdf")
    with Image.open(path) as image:
        dots_per_inch = image.info.get("dpi", (200, 200))[0]
        width = round(image.width * 110 / dots_per_inch)  # a little above the size in print
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
