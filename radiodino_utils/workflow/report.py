"""The report: one self-contained HTML page of tables, figures and provenance."""

import base64
import io
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
from ..evaluation.results import read_table, wide_table
from ..plots.style import read_texts
from .report_summary import summary

_LIMIT = 250  # rows of a table on the page; longer tables are linked only
_TABLES = {
    "09_classification": "Classification",
    "09_published": "The published table and what was measured",
    "09_baselines": "The same datasets in MedMNIST v2 and MedMNIST+",
    "09_field": "Other published numbers, each by a protocol of its own",
    "03_retrieval": "Retrieval: nearest training images of the class of a test image",
    "07_paired": "Differences between backbones (paired bootstrap)",
    "05_segmentation": "Segmentation",
    "05_twins": "Dice that near duplicates across splits buy (paired bootstrap)",
    "04_clusters": "Clusters without labels, and their agreement with the classes",
    "06_faithfulness": "Scores of the maps",
    "02_features": "Feature files",
    "02_unreadable": "Images that cannot be read and are left out",
    "00_left_out": "What was left out, and why",
    "00_classes": "Images by split and class",
    "00_duplicates": "Duplicates",
    "00_faulty": "Constant and saturated images",
    "00_drift": "Drift between splits",
    "00_unreadable": "Files that cannot be read",
    "10_paired": "Differences after adaptation (paired bootstrap)",
    "11_regions": "Regions",
    "11_perturbed_families": "Stability of features under perturbations, by family",
    "11_readers_families": "Stability of features between readers, by family",
    "11_paired": "Differences between models of regions (paired bootstrap)",
}
_FILES = {"03_retrieval": "03_retrieval_rows"}  # of tables that are formatted here
_SECTIONS = {
    "09": "Comparison",
    "03": "Nearest neighbours",
    "07": "Probes and fine-tuning",
    "05": "Segmentation",
    "04": "Maps of the embeddings",
    "06": "Explanations",
    "02": "Data and features",
    "00": "Audit of the data",
    "01": "One image",
    "08": "Pre-training",
    "10": "Adaptation",
    "11": "Radiomics",
}
_WIDEST = 1600  # pixels of a figure inside the page
_INTERVALS = (
    "Intervals are percentile bootstrap 95 % intervals (1000 seeded resamples) over what the "
    "column unit says: patients or other groups where they are known, else images as if they were "
    "independent. They know nothing of other patients or trainings."
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
    features, rows = tables.get("02_features", empty), tables.get("09_results", empty)
    figures = {path.stem: path for path in _current(folder, "figures/*.png")}
    left_out = tables.get("00_left_out", pd.DataFrame(columns=["step", "reason"]))
    for path in _current(folder, "tables/03_retrieval_rows.csv"):
        tables["03_retrieval"] = _retrieval(path)
    first = summary(tables, list(figures))
    page = _template().render(
        profile=profile,
        caveats=_caveats(features, rows),
        left_out=left_out[["step", "reason"]].to_numpy().tolist(),
        summary=first,
        figure=_figure(figures[first["figure"]], folder) if first["figure"] else None,
        sections=_sections(folder, tables, figures),
        notebooks=_notebooks(folder),
        downloads=_downloads(folder),
        intervals=_INTERVALS,
        provenance=_provenance(folder),
        backbones=features[["backbone", "weights", "source"]].drop_duplicates(),
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
    known = [caveat for caveat in rows["caveat"].unique() if caveat]
    own = [text for text in known if not any(text.startswith(f"{other}; ") for other in known)]
    caveats = [f"{caveat[0].upper()}{caveat[1:]}." for caveat in own]
    if pd.concat([features["backbone"], rows["backbone"]]).str.startswith("random-").any():
        caveats.append(_RANDOM)
    return caveats


def _sections(
    folder: Path, tables: Mapping[str, pd.DataFrame], figures: Mapping[str, Path]
) -> list[dict[str, Any]]:
    """Return the tables, figures and maps of each notebook that has any, the results first."""
    maps = _current(folder, "figures/*.html")
    sections = []
    for number, title in _SECTIONS.items():
        shown = [
            {
                "title": heading,
                "table": tables[name].loc[:, (tables[name] != "").any()],  # no empty columns
                "link": f"tables/{_FILES.get(name, name)}.csv",
            }
            for name, heading in _TABLES.items()
            if name.startswith(number) and len(tables.get(name, ()))
        ]
        drawn = [_figure(path, folder) for name, path in figures.items() if name[:2] == number]
        found = [os.path.relpath(path, folder) for path in maps if path.stem[:2] == number]
        if shown or drawn or found:
            content = {"tables": shown, "figures": drawn, "maps": found, "limit": _LIMIT}
            sections.append({"id": f"part-{number}", "title": title} | content)
    return sections


def _retrieval(path: Path) -> pd.DataFrame:
    """Return the rows of retrieval for readers."""
    undefined = dict.fromkeys(("value", "ci_low", "ci_high"), [""])
    rows = read_table(path, na_values=undefined)
    return wide_table(rows, metrics=rows["metric"].unique())


def _downloads(folder: Path) -> list[dict[str, Any]]:
    """Return the files of tables, predictions and features, by kind."""
    kinds = {
        "Tables": ("tables/*.csv",),
        "Predictions of each image": ("predictions/*.csv", "predictions/*.parquet"),
        "Features of each image": ("features/*.parquet",),
    }
    return [
        {
            "title": title,
            "files": [
                (path.relative_to(folder).as_posix(), f"{path.stat().st_size / 1e6:.2f} MB")
                for pattern in patterns
                for path in _current(folder, pattern)
            ],
        }
        for title, patterns in kinds.items()
    ]


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
    page = notebook.with_suffix(".html")
    if not page.exists() or page.stat().st_mtime < notebook.stat().st_mtime:
        with extra("notebooks"):
            from nbconvert import HTMLExporter  # takes seconds to import
        offline = {"mathjax_url": "", "require_js_url": "", "jquery_url": "", "mermaid_js_url": ""}
        html, _ = HTMLExporter(embed_images=True, **offline).from_filename(str(notebook))
        write_text(page, re.sub(r"<script[^>]*>.*?</script>", "", html, flags=re.DOTALL))
    return page


def _figure(path: Path, folder: Path) -> dict[str, Any]:
    """Return a figure as WebP inside the page, with its texts and the files beside it."""
    pdf, texts = path.with_suffix(".pdf"), read_texts(path)
    title = path.stem[3:].replace("_", " ")
    with Image.open(path) as image:
        dots_per_inch = image.info.get("dpi", (200, 200))[0]
        width = round(image.width * 110 / dots_per_inch)  # a little above the size in print
        shown = image.convert("RGB")
    shown.thumbnail((_WIDEST, 4 * _WIDEST))
    buffer = io.BytesIO()
    shown.save(buffer, "WEBP", quality=80)
    return {
        "width": width,
        "height": round(width * shown.height / shown.width),
        "title": title,
        "alt": texts.get("Alt", title),
        "caption": texts.get("Caption", ""),
        "data": base64.b64encode(buffer.getvalue()).decode(),
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
