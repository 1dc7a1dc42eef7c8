import base64
import json
import os
import re
import sys

import nbformat
import pandas as pd
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from radiodino_utils import cli
from radiodino_utils.core import files
from radiodino_utils.core.environment import processor, record_processor
from radiodino_utils.core.errors import InputError
from radiodino_utils.evaluation.labels import percent
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.evaluation.retrieval import retrieval_rows, retrieval_scores
from radiodino_utils.workflow.readme import readme_with_tables
from radiodino_utils.workflow.report import build_report
from radiodino_utils.workflow.report_summary import summary

from ..browser import needs_chromium, open_browser
from ..synthetic import synthetic_features

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
LOADED = re.compile(
    r"""(?:src\s*=|<link[^>]*href\s*=|@import|url\()\s*["']?(https?:)?//""", re.IGNORECASE
)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """A results folder as the notebooks leave it behind."""
    folder = tmp_path / "results"
    for part in ("tables", "figures", "state", "notebooks"):
        (folder / part).mkdir(parents=True)
    monkeypatch.setenv("RADIODINO_RESULTS", str(folder))
    pd.DataFrame({"backbone": ["random-t16"], "caveat": ["one patient & <b>no more</b>"]}).to_csv(
        folder / "tables" / "09_results.csv"
    )
    table = pd.DataFrame(
        {"dataset": ["<script>alert(1)</script>"], "accuracy %": ["48.10 [43.8, 52.5]"]}
    )
    table.to_csv(folder / "tables" / "09_classification.csv", index=False)
    features = pd.DataFrame(
        {
            "backbone": ["random-t16"],
            "weights": ["000012345678"],
            "source": ["random weights, seed 0"],
        }
    )
    features.to_csv(folder / "tables" / "02_features.csv", index=False)
    (folder / "figures" / "03_k_curve.png").write_bytes(PIXEL)
    (folder / "figures" / "03_k_curve.pdf").write_bytes(b"%PDF-")
    return folder


def test_the_page_needs_no_network(results):
    page = build_report("demo").read_text()
    assert not LOADED.search(page)
    assert set(re.findall(r'src="([^"]{0,16})', page)) == {"data:image/webp;"}


def test_links_lead_to_files_beside_the_page(results):
    page = build_report("demo")
    links = re.findall(r'href="(?!#|data:)([^"]+)"', page.read_text())
    expected = {
        "tables/09_results.csv",
        "tables/09_classification.csv",
        "figures/03_k_curve.png",
        "figures/03_k_curve.pdf",
    }
    assert expected <= set(links)
    assert all((page.parent / link).is_file() for link in links)


def test_text_from_files_is_escaped(results):
    page = build_report("<i>demo</i>").read_text()
    assert "&lt;script&gt;alert(1)" in page and "alert(1)</script>" not in page
    assert "One patient &amp; &lt;b&gt;no more&lt;/b&gt;." in page
    assert "<i>demo" not in page


def test_numbers_are_shown_as_they_were_written(results):
    page = build_report("demo").read_text()
    assert "<td>000012345678</td>" in page and "48.10 [43.8, 52.5]" in page


@pytest.mark.parametrize("gone", ["02_features", "09_results"])
def test_random_weights_are_called_so(results, gone):
    (results / "tables" / f"{gone}.csv").unlink()
    assert "random-* have random weights" in build_report("demo").read_text()


def test_trained_weights_are_not_called_random(results):
    for path in (results / "tables").glob("*.csv"):
        path.write_text(path.read_text().replace("random-t16", "radiodino-s16"))
    assert "random-* have random weights" not in build_report("demo").read_text()


def test_intervals_are_explained(results):
    assert "percentile bootstrap 95 % intervals" in build_report("demo").read_text()


def test_a_long_table_is_linked_only(results):
    pd.DataFrame({"dataset": [f"set {i}" for i in range(251)]}).to_csv(
        results / "tables" / "09_published.csv", index=False
    )
    page = build_report("demo").read_text()
    assert "set 250" not in page and 'href="tables/09_published.csv"' in page
    assert "251 rows, too many for this page" in page


def test_what_is_in_the_data_and_what_is_wrong_with_it_is_shown(results):
    tables = {"classes": "kidney", "duplicates": "near", "faulty": "saturated", "drift": "width"}
    for name, cell in tables.items():
        table = pd.DataFrame({"first": [cell], "second": ["x"]})
        table.to_csv(results / "tables" / f"00_{name}.csv", index=False)
    page = build_report("demo").read_text()
    assert 'href="#part-00">Audit of the data</a>' in page
    assert all(f"<td>{cell}</td>" in page for cell in tables.values())


def test_retrieval_is_shown_in_percent(results):
    features = [synthetic_features(backbone=name) for name in ("radiodino-mini", "pixels")]
    rows = retrieval_rows(retrieval_scores(features))
    write_table(rows, results / "tables" / "03_retrieval_rows.csv")
    page = build_report("demo").read_text()
    assert "precision at 10 %" in page and 'href="tables/03_retrieval_rows.csv"' in page
    assert percent(*rows.iloc[0][["value", "ci_low", "ci_high"]], digits=1) in page


@pytest.mark.parametrize("folder", [True, False])
def test_missing_tables_are_an_error(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path / "nothing"))
    if folder:
        (tmp_path / "nothing" / "tables").mkdir(parents=True)
    with pytest.raises(InputError, match="tables: holds no tables; run the notebooks"):
        build_report("demo")
    assert not list(tmp_path.rglob("report.html"))


def test_notebooks_are_linked_as_pages_without_network(results):
    cells = [
        nbformat.v4.new_markdown_cell("# Title\n\n$x^2$ and `code`"),
        nbformat.v4.new_code_cell(
            "1", execution_count=1, outputs=[nbformat.v4.new_output("stream", text="seen\n")]
        ),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), results / "notebooks" / "03_knn.ipynb")
    stamp = {"state": "done", "seconds": 12.4, "peak_memory_mb": 812.3, "git": "abc"}
    (results / "state" / "03_knn.json").write_text(json.dumps(stamp))
    (results / "state" / "04_umap.json").write_text(json.dumps({"state": "FAILED"}))
    page = build_report("demo").read_text()
    assert (
        '<a href="notebooks/03_knn.html">03_knn</a>' in page
        and "<td>12</td><td>812 MB</td><td>abc</td>" in page
    )
    assert '<td class="attention">FAILED</td>' in page and "04_umap.html" not in page
    notebook = (results / "notebooks" / "03_knn.html").read_text()
    assert "seen" in notebook and "<script" not in notebook and not LOADED.search(notebook)


def test_a_notebook_that_ran_again_gets_a_new_page(results, monkeypatch):
    path = results / "notebooks" / "03_knn.ipynb"
    (results / "state" / "03_knn.json").write_text("{}")
    for word, seconds in (("before", 1_000_000), ("after", 20_000_000_000)):
        nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(word)]), path)
        os.utime(path, (seconds, seconds))
        build_report("demo")
        assert word in path.with_suffix(".html").read_text()
    os.utime(path, (1_000_000, 1_000_000))
    monkeypatch.setitem(sys.modules, "nbconvert", None)  # takes seconds to import
    build_report("demo")


README = (
    "before\n<!-- table: a.csv -->\nold\n<!-- end -->\n"
    "between\n<!-- table: b.csv -->\n<!-- end -->\nafter\n"
)


def test_the_readme_gets_the_tables_as_they_are(tmp_path):
    (tmp_path / "a.csv").write_text("name,value\nx|y,0.10\n,None\n")
    (tmp_path / "b.csv").write_text("n\n007\n")
    filled = readme_with_tables(README, tmp_path)
    assert filled == (
        "before\n<!-- table: a.csv -->\n| name | value |\n| --- | --- |\n"
        "| x\\|y | 0.10 |\n|  | None |\n<!-- end -->\n"
        "between\n<!-- table: b.csv -->\n| n |\n| --- |\n| 007 |\n<!-- end -->\nafter\n"
    )
    assert readme_with_tables(filled, tmp_path) == filled


def test_a_table_of_results_names_the_processors_that_made_it(tmp_path, results):
    folder = tmp_path / "results" / "demo" / "tables"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text("n\n007\n")
    record_processor(folder.parent, "03_knn", threads=2)
    text = "<!-- table: results/demo/tables/a.csv -->\n<!-- end -->\n"
    filled = readme_with_tables(text, tmp_path)
    assert f"| 007 |\n\nMade on: {processor()}, 2 threads.\n<!-- end -->" in filled
    assert readme_with_tables(filled, tmp_path) == filled
    record_processor(results, "03_knn", threads=2)
    assert f"{processor()}, 2 threads" in build_report("demo").read_text()


def test_the_readme_may_ask_for_some_columns(tmp_path):
    (tmp_path / "a.csv").write_text("name,value,n\nx,0.10,3\n")
    text = "<!-- table: a.csv columns: n, name -->\n<!-- end -->\n"
    assert "| n | name |\n| --- | --- |\n| 3 | x |\n" in readme_with_tables(text, tmp_path)
    with pytest.raises(InputError, match="a.csv: the README asks for the column k"):
        readme_with_tables(text.replace("n, name", "k"), tmp_path)


def test_the_readme_may_ask_for_some_rows(tmp_path):
    (tmp_path / "a.csv").write_text("name,n\nx,3\ny,4\nz,5\n")
    text = "<!-- table: a.csv columns: n rows: name = x, z -->\n<!-- end -->\n"
    filled = readme_with_tables(text, tmp_path)
    assert (
        filled == "<!-- table: a.csv columns: n rows: name = x, z -->\n"
        "| n |\n| --- |\n| 3 |\n| 5 |\n<!-- end -->\n"
    )
    assert readme_with_tables(filled, tmp_path) == filled
    with pytest.raises(InputError, match="asks for the column k"):
        readme_with_tables(text.replace("name =", "k ="), tmp_path)


def test_a_table_that_the_readme_lacks_is_an_error(tmp_path):
    with pytest.raises(InputError, match="a.csv: the README asks for this table"):
        readme_with_tables(README, tmp_path)


def test_the_command_prints_the_path_last(results, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["report"])
    assert end.value.code == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(results / "report.html")


def test_the_command_fails_with_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main(["report"])
    assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_what_is_not_done_is_left_out_and_said(results):
    state = {"state": "out of date", "outputs": {"tables/09_classification.csv": "1"}}
    (results / "state" / "09_paper.json").write_text(json.dumps(state))
    state = {"state": "done", "outputs": {"tables/02_features.csv": "1"}}
    (results / "state" / "02_features.json").write_text(json.dumps(state))
    page = build_report("demo").read_text()
    assert "tables/02_features.csv" in page and "000012345678" in page
    assert "48.10 [43.8, 52.5]" not in page and "03_k_curve" not in page
    assert '<td class="attention">out of date</td>' in page and "not done are left out" in page


def result_rows(**changes):
    """Return result rows of two backbones by one protocol."""
    common = {"dataset": "made", "protocol": "knn", "split": "test", "n": "30", "caveat": ""}
    common |= {"unit": "patient", "units": "6", "ci_low": "0.6", "ci_high": "0.9"}
    rows = [
        common | {"backbone": name, "metric": metric, "value": value}
        for name, value in (("radiodino-mini", "0.8"), ("pixels", "0.4"))
        for metric in ("accuracy", "auc")
    ]
    return pd.DataFrame(rows).assign(**changes)


def test_a_caveat_is_said_once(results):
    texts = ["one patient", "one patient; without 1 images that have a twin", "other"]
    table = pd.DataFrame({"backbone": "pixels", "caveat": texts})
    table.to_csv(results / "tables" / "09_results.csv", index=False)
    notes = re.findall('<p class="note">(.*?)</p>', build_report("demo").read_text())
    assert notes[:2] == ["One patient.", "Other."]


def test_the_first_screen_holds_the_answer(results):
    shown = summary({"09_results": result_rows()}, ["03_metrics", "02_samples_made"])
    assert shown["sentence"] == (
        "Tested on 30 images (6 patients) of made, radiodino-mini reaches 80.0 [60.0, 90.0] % "
        "accuracy by the protocol knn; the best baseline reaches 40.0 % (pixels)."
    )
    line = shown["table"].iloc[0]
    assert line["AUC %"] == "80.0 [60.0, 90.0]" and line["tested on"] == "30 images (6 patients)"
    assert shown["figure"] == "03_metrics"


def test_the_protocol_of_the_summary_is_not_chosen_by_its_results():
    worse = result_rows(protocol="logistic", value="0.1")
    line = summary({"09_results": pd.concat([result_rows(), worse])}, [])["table"].iloc[0]
    assert (line["protocol"], line["chosen by"]) == ("logistic", "fixed in advance")


def test_the_protocol_of_the_summary_is_the_best_on_validation():
    rows = [
        result_rows(val_accuracy="0.7"),
        result_rows(protocol="logistic", value="0.99", val_accuracy="0.6"),
        result_rows(protocol="knn (deduplicated)", val_accuracy="0.9"),
        result_rows(protocol="finetune", val_accuracy="", value="1.0"),
        result_rows(protocol="linear", seed="0", value="0.5", val_accuracy="0.9"),
        result_rows(protocol="linear", seed="1", value="0.7", val_accuracy="0.7"),
    ]
    rows = pd.concat(rows)
    others = rows["backbone"] == "pixels"  # whose scores choose nothing
    rows.loc[others, "val_accuracy"] = "1"
    shown = summary({"09_results": rows}, [])
    line = shown["table"].iloc[0]
    chosen = "validation (80.0 %)"
    assert (line["protocol"], line["chosen by"]) == ("linear", chosen)
    assert line["value %"].startswith("60.0 [") and line["best baseline %"] == "60.0 (pixels)"
    assert "by the protocol linear, chosen on validation; the best" in shown["sentence"]


def test_a_run_without_labels_says_so(results):
    (results / "tables" / "09_results.csv").unlink()
    features = pd.DataFrame(
        {"dataset": ["mine"], "backbone": [""], "weights": [""], "source": [""]}
    )
    features.to_csv(results / "tables" / "02_features.csv", index=False)
    counts = pd.DataFrame({"split": ["all"], "class": [""], "images": [41]})
    counts.to_csv(results / "tables" / "00_classes.csv", index=False)
    left_out = pd.DataFrame({"step": ["03_knn"], "reason": ["<no> labels were found"]})
    left_out.to_csv(results / "tables" / "00_left_out.csv", index=False)
    page = build_report("demo").read_text()
    assert "Features of 41 images of mine" in page
    assert "no result rows of a test split are here" in page
    assert "<li>03_knn: &lt;no&gt; labels were found.</li>" in page


def test_masks_without_labels_of_images_are_an_answer_too():
    rows = result_rows(protocol="seg-linear").replace({"metric": {"accuracy": "dice"}})
    shown = summary({"05_segmentation_rows": rows}, ["04_umap", "05_probes"])
    assert "reaches 80.0 [60.0, 90.0] % Dice by the protocol seg-linear" in shown["sentence"]
    assert shown["figure"] == "05_probes"


def test_a_baseline_is_not_compared_with_itself():
    line = summary({"09_results": result_rows()[2:]}, [])["table"].iloc[0]
    assert line["backbone"].startswith("pixels") and line["best baseline %"] == ""


def test_figures_carry_their_texts_and_files_their_sizes(results):
    texts = PngInfo()
    texts.add_text("Caption", "How to <read> it.")
    texts.add_text("Alt", "Line chart: a <title>.")
    Image.new("L", (4, 4)).save(results / "figures" / "03_k_curve.png", pnginfo=texts)
    (results / "predictions").mkdir()
    (results / "predictions" / "03_knn_rows.csv").write_text("id\n1\n")
    (results / "figures" / "04_map_made.html").write_text("a map")
    page = build_report("demo").read_text()
    assert "How to &lt;read&gt; it." in page and 'alt="Line chart: a &lt;title&gt;."' in page
    assert 'href="predictions/03_knn_rows.csv"' in page and "(0.00 MB)" in page
    assert 'href="figures/04_map_made.html">Interactive map' in page


def test_an_installed_copy_reports_on_the_current_folder(results, tmp_path, monkeypatch):
    monkeypatch.delenv("RADIODINO_RESULTS")
    monkeypatch.setattr(files, "REPOSITORY", tmp_path / "site-packages")
    monkeypatch.chdir(tmp_path)
    (results / "mine").mkdir()
    (results / "tables").rename(results / "mine" / "tables")
    assert build_report("mine") == tmp_path / "results" / "mine" / "report.html"


@needs_chromium
@pytest.mark.parametrize(("width", "sticky"), [(1440, 3), (390, 1)])
def test_the_first_columns_stick_as_far_as_there_is_room(results, tmp_path, width, sticky):
    many = pd.DataFrame({f"column {i}": ["a value"] for i in range(30)})
    many.to_csv(results / "tables" / "07_paired.csv", index=False)
    cells = "[...document.querySelectorAll('#part-07 td')].slice(0, 4)"
    places = f"{cells}.map(cell => cell.getBoundingClientRect().x)"
    with open_browser(tmp_path / "profile") as page:
        page.open(build_report("demo"), width=width)
        before = page.run(places)
        page.run("document.querySelector('#part-07 .wide').scrollLeft = 500")
        kept = [abs(a - b) < 0.5 for a, b in zip(before, page.run(places), strict=True)]
    assert kept == [number < sticky for number in range(4)]


@needs_chromium
def test_the_page_works_in_a_browser(results, tmp_path):
    many = pd.DataFrame(
        {f"column {i}": [f"{3 * j % 11} of many" for j in range(11)] for i in range(9)}
    )
    many.insert(0, "dataset", ["x" * 90] + ["made"] * 10)
    many.to_csv(results / "tables" / "09_published.csv", index=False)
    path = build_report("demo")
    with open_browser(tmp_path / "profile") as page:
        for width, dark in ((1440, False), (390, True)):
            page.open(path, width=width, dark=dark)
            assert page.overflow <= 0 and page.requests == [] and page.errors == []
            assert page.serious_faults() == []
        boxes = "[...document.querySelectorAll('.wide')]"
        wide = f"{boxes}.find(box => box.querySelectorAll('th').length > 9)"
        assert page.run(f"{wide}.scrollWidth > {wide}.clientWidth")
        links = "[...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))"
        assert page.run(f"{links}.every(id => document.getElementById(id))")
        page.run("document.querySelector('#provenance details').open = false")
        page.run("document.querySelector('nav a[href=\"#provenance\"]').click()")
        page.wait("document.querySelector('#provenance details').open")
        assert page.run("document.querySelector('#provenance').getBoundingClientRect().top < 900")
        column = (
            f"[...{wide}.querySelectorAll('tbody tr')].map(r => parseInt(r.cells[1].textContent))"
        )
        click = f"{wide}.querySelectorAll('th button')[1].click()"
        page.run(click)
        assert page.run(column) == list(range(11))
        page.run(click)
        assert page.run(column) == list(range(10, -1, -1))
        search = "document.querySelector('input[type=search]')"
        page.run(f"{search}.value = '7 of'; {search}.dispatchEvent(new Event('input'))")
        assert (
            page.run(f"[...{wide}.querySelectorAll('tbody tr')].filter(r => !r.hidden).length") == 1
        )
        assert page.errors == []
