"""The command `radiodino`, from the outside."""

import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from radiodino_utils import cli
from radiodino_utils.features.engines import ENGINES, PRECISIONS

from .conftest import REPOSITORY

COMMANDS = ["run", "list", "backbones", "datasets", "inspect", "extract", "embed", "audit"]
COMMANDS += ["radiomics", "pretrain", "adapt", "report", "verify"]


@pytest.fixture
def radiodino(capfd):
    """Run the command in this process; return exit code, standard output and standard error."""

    def run(*words):
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            cli.main([*map(str, words)])
        return stopped.value.code, *capfd.readouterr()

    return run


def test_every_command_is_listed(radiodino):
    code, shown, _ = radiodino("--help")
    assert code == 0
    listed = [line.split()[0] for line in shown.split("Commands:")[1].splitlines() if line]
    assert listed == COMMANDS


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_quick_and_imports_neither_torch_nor_pandas(command):
    code = """
import sys, time
from radiodino_utils import cli
try:
    cli.main(sys.argv[1:])
finally:
    print(time.process_time(), "torch" in sys.modules, "pandas" in sys.modules)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, *command.split(), "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: " in run.stdout.lower()
    seconds, *imported = run.stdout.splitlines()[-1].split()
    assert float(seconds) < 1 and imported == ["False", "False"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("lst", "No such command 'lst'. Did you mean 'list'?"),
        ("list --profile demoo", "unknown profile 'demoo'; did you mean demo?"),
        ("run --jobs many", "Invalid value for '--jobs': Input should be a valid integer"),
        ("run --jobs 0", "--jobs 0: at least one notebook at a time is needed."),
        ("run --only 99", "unknown notebook '99'"),
        ("extract organct-axia --backbone pixels", "unknown dataset 'organct-axia'; did you mean"),
        ("extract organct-axial --backbone pixel", "unknown backbone 'pixel'; did you mean pixels"),
        ("extract organct-axial --backbone pixels --engine cuda", "Invalid value for '--engine'"),
        ("extract organct-axial", "Missing option '--backbone'"),
        ("embed nowhere.png --backbone pixels --out out.csv", "nowhere.png: there is no such file"),
        ("embed . --backbone pixels --out out.txt", "--out out.txt: unknown suffix '.txt'; use"),
        ("embed . --backbone pixels --out out.csv", ".: holds no image"),
        ("inspect nowhere", "nowhere: there is no such file or folder."),
        ("audit npz:nowhere.npz --out audit", "nowhere.npz"),
        ("report --profile ../x", "profile '../x': names a folder of results"),
        ("verify --profile empty", "holds no tables to verify"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    words, sentence, radiodino, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RADIODINO_RESULTS", raising=False)
    code, shown, message = radiodino(*words.split())
    assert code == 2 and shown == "", message
    assert sentence in message and message.count("\n") == 1


def test_engines_and_precisions_are_those_of_the_package():
    chosen = [get_args(option)[0] for option in (cli.Engine, cli.Precision)]
    assert [get_args(choice) for choice in chosen] == [ENGINES, PRECISIONS]


def test_backbones_and_datasets_are_listed(radiodino):
    code, shown, _ = radiodino("backbones")
    mini = next(line for line in shown.splitlines() if line.startswith("radiodino-mini"))
    assert code == 0 and all(word in mini for word in ("CC BY-SA 4.0", "16 px", "present"))
    code, shown, _ = radiodino("datasets")
    lines = dict(line.split(maxsplit=1) for line in shown.splitlines())
    assert code == 0 and lines["organct-axial"] == "built when it is needed"
    assert "not present" in lines["busi"] and "not present" in lines["radimagenet"]


@pytest.fixture
def images(tmp_path):
    """Return a folder without labels: PNG, JPEG, TIFF, DICOM and NIfTI, one of them nested."""
    import nibabel

    generator, folder = np.random.default_rng(0), tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    for name in ("a.png", "b.jpg", "deeper/c.tif"):
        Image.fromarray(generator.integers(0, 256, (40, 50), np.uint8)).save(folder / name)
    source = pydicom.data.get_testdata_file("CT_small.dcm")
    (folder / "d.dcm").write_bytes(Path(source).read_bytes())
    volume = generator.integers(0, 256, (40, 40, 3)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / "e.nii.gz")
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_images_of_every_kind_are_embedded(suffix, images, radiodino, tmp_path):
    out = tmp_path / "new" / f"features{suffix}"
    code, shown, message = radiodino("embed", images, "--backbone", "pixels", "--out", out)
    assert code == 0, message
    assert "5 images, 1024 features each" in shown
    names = ["a.png", "b.jpg", "d.dcm", "deeper/c.tif", "e.nii.gz"]
    if suffix == ".npz":
        arrays = np.load(out)
        assert arrays["paths"].tolist() == [str(images / name) for name in names]
        assert arrays["features"].shape == (5, 1024) and arrays["weights"] == "pixels-32x32"
        return
    table = pd.read_csv(out) if suffix == ".csv" else pd.read_parquet(out)
    assert table["path"].tolist() == [str(images / name) for name in names]
    assert table.shape == (5, 3 + 1024) and set(table["backbone"]) == {"pixels"}


def test_a_bad_file_is_listed_beside_the_embeddings_of_the_others(images, radiodino, tmp_path):
    (images / "broken.png").write_bytes(b"broken")
    out, beside = tmp_path / "features.csv", tmp_path / "features_unreadable.csv"
    files = [images / name for name in ("broken.png", "a.png", "b.jpg")]
    options = ["--backbone", "random-t16", "--out", out, "--batch-size", 1]
    code, shown, message = radiodino("embed", *files, *options)
    assert code == 0, message
    assert "2 images, 192 features each" in shown and f"{beside}: 1 of 3 images" in shown
    assert pd.read_csv(out)["path"].tolist() == [str(files[1]), str(files[2])]
    table = pd.read_csv(beside)
    assert table["path"].tolist() == [str(files[0])]
    assert table["reason"][0].startswith("not an image that can be read")
    code, *_ = radiodino("embed", *files[1:], *options)
    assert code == 0 and not beside.exists()


def test_more_bad_files_than_the_limit_or_any_at_all_stop_embedding(images, radiodino, tmp_path):
    (images / "broken.png").write_bytes(b"broken")
    (images / "empty.png").write_bytes(b"")
    command = ["embed", images, "--backbone", "pixels", "--out", tmp_path / "features.csv"]
    code, _, message = radiodino(*command)
    assert code == 2 and "2 of 7 images cannot be read" in message
    assert "RADIODINO_UNREADABLE" in message and not (tmp_path / "features.csv").exists()
    code, _, message = radiodino(*command, "--on-error", "raise")
    assert code == 2 and "broken.png: not an image" in message.splitlines()[-1]


@pytest.fixture
def labelled(tmp_path):
    """Return a folder of 2 classes of 15 images, one of which is cut."""
    generator = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for number in range(15):
            image = Image.fromarray(generator.integers(0, 256, (40, 40), np.uint8))
            image.save(tmp_path / "set" / label / f"{number:02d}.png")
    (tmp_path / "set" / "b" / "03.png").write_bytes(b"cut")
    return tmp_path / "set"


@pytest.mark.filterwarnings("ignore:.*cannot be read and are left out")
def test_features_without_a_bad_file_say_so(labelled, radiodino, tmp_path):
    command = ["extract", f"folder:{labelled}", "--backbone", "pixels", "--folder", tmp_path / "f"]
    code, shown, message = radiodino(*command)
    assert code == 0, message
    sidecar = json.loads(Path(shown.strip()).with_suffix(".json").read_text())
    assert list(sidecar["unreadable"]) == ["b/03.png"] and sidecar["splits"] == {"all": 29}
    code, _, message = radiodino(*command, "--on-error", "raise")
    assert code == 2 and "03.png: not an image" in message.splitlines()[-1]


@pytest.mark.filterwarnings("ignore:.*cannot be read and are left out")
def test_an_audit_reports_bad_files_however_many(labelled, radiodino, tmp_path):
    for path in sorted((labelled / "a").glob("*.png"))[1:]:
        path.write_bytes(b"")
    command = ["audit", f"folder:{labelled}", "--out", tmp_path / "out", "--backbone", "pixels"]
    code, shown, message = radiodino(*command)
    assert code == 0, message
    assert "set: 15 all. 15 further images cannot be read." in shown
    table = pd.read_csv(tmp_path / "out" / "set_unreadable.csv")
    assert len(table) == 15 and table["id"].iloc[-1] == "b/03.png"


@pytest.mark.filterwarnings("ignore:.*scaled from")
def test_an_inspection_says_what_would_be_read(images, radiodino, tmp_path):
    code, shown, message = radiodino("inspect", images, "--sheet", tmp_path / "sheet.png")
    assert code == 0 and "7 in 5 files" in shown and "no image (.txt) (1)" in shown
    assert "sheet.png: look at it." in message
    assert Image.open(tmp_path / "sheet.png").mode == "RGB"
    code, shown, _ = radiodino("inspect", images, "--json")
    facts = json.loads(shown)
    assert (code, facts["kind"], facts["patients"]) == (0, "images", 1)
    code, _, message = radiodino("inspect", images, "--sheet", tmp_path / "sheet.pdf")
    assert code == 2 and "unknown suffix '.pdf'; use .png." in message
    (tmp_path / "empty").mkdir()
    assert radiodino("inspect", tmp_path / "empty")[:2] == (1, f"{tmp_path / 'empty'}: no images\n")


def test_an_audit_prints_its_summary_and_writes_its_tables(radiodino, synthetic_dataset, tmp_path):
    synthetic_dataset((6, 3, 4), size=64)
    code, shown, _ = radiodino("audit", f"npz:{tmp_path / 'made.npz'}", "--out", tmp_path / "out")
    assert code == 0 and "6 train, 3 val, 4 test" in shown
    assert len(list((tmp_path / "out").glob("made_*.csv"))) == 5
