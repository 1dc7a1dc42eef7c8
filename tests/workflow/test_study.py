"""Profiles for images of one's own: what they run, and what they leave out and why."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.segmentation import load_segmentation_dataset
from radiodino_utils.workflow.command import RunOptions, parse
from radiodino_utils.workflow.profiles import load_profile
from radiodino_utils.workflow.study import Study, write_study

from ..conftest import tiny_transformer
from ..data.test_dicom import dicom


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Write noisy images of the given names into a folder, results beside it."""
    monkeypatch.setenv("RADIODINO_RESULTS", str(tmp_path / "results"))

    def write(names):
        generator = np.random.default_rng(0)
        for name in names:
            path = tmp_path / "scans" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(0, 256, (16, 16), np.uint8)).save(path)
        return tmp_path / "scans"

    return write


def classes(count):
    return [f"{label}/{number}.png" for label in ("benign", "malignant") for number in range(count)]


def parameters(path):
    return {notebook.number: notebook.parameters for notebook in load_profile(str(path))}


def test_class_folders_are_classified_by_cross_validation(images):
    found = parameters(write_study(Study(images(classes(12)), name="mystudy")))
    root = images([])
    assert list(found) == ["00", "01", "02", "03", "04", "07", "09"]
    assert found["03"]["datasets"] == [f"mystudy=folder:{root}"]
    assert found["03"]["backbones"] == ["radiodino-mini", "random-t16", "pixels"]
    assert found["03"]["profile"] == "mystudy"
    assert (found["03"]["folds"], found["03"]["repeats"]) == (5, 3)
    assert found["03"]["ks"] == [1, 5, 10]  # of 24 images, 14 are learnt from
    assert found["07"]["shots"] == [1, 5]
    assert "no masks" in found["00"]["left_out"]["05_segmentation_probing"]


def test_images_without_labels_are_seen_and_not_classified(images, capsys):
    path = write_study(Study(images(["a.png", "deep/b.png", "c.png", "d.png"])))
    assert path.name == "scans.yaml"
    found = parameters(path)
    assert list(found) == ["00", "01", "02", "04"]
    assert found["02"]["datasets"] == [f"scans=folder:{images([])}?labels=unlabelled"]
    printed = capsys.readouterr().out
    assert "03_knn_classification" in printed and "no labels were found or given" in printed
    assert "no labels were found or given" in path.read_text()


def test_a_list_of_labels_joins_images(images, tmp_path):
    rows = [f"{number}.png,{'xy'[number % 2]},p{number // 2}" for number in range(8)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label,patient", *rows]))
    root = images([f"{number}.png" for number in range(8)])
    study = Study(root, labels=tmp_path / "labels.csv", backbones=["random-t16"], quick=True)
    found = parameters(write_study(study))
    assert found["03"]["datasets"] == [f"scans=folder:{root}?labels={tmp_path / 'labels.csv'}"]
    assert found["03"]["backbones"] == ["random-t16", "pixels"]
    assert (found["03"]["folds"], found["03"]["repeats"]) == (4, 1)
    assert found["07"]["shots"] == []


def test_masks_are_segmented(images):
    names = [f"{part}/{number}.png" for part in ("images", "masks") for number in range(6)]
    root = images(names)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(path)
    found = parameters(write_study(Study(root)))
    assert found["05"]["datasets"] == [f"scans=masks:{root}"]
    assert found["11"]["images"] == f"{root}/images" and found["11"]["masks"] == f"{root}/masks"
    assert "need an outcome" in found["00"]["left_out"]["models of radiomics"]
    assert found["02"]["datasets"] == [f"scans=folder:{root / 'images'}?labels=unlabelled"]
    apart = parameters(write_study(Study(root / "images", masks=root / "masks")))
    assert apart["05"]["datasets"] == [f"images=masks:{root / 'masks'}?images={root / 'images'}"]
    assert {apart["11"][part] for part in ("images", "masks")} == {
        str(root / part) for part in ("images", "masks")
    }


def test_values_of_masks_are_classes(images):
    names = [f"{part}/{number}.png" for part in ("images", "masks") for number in range(6)]
    root = images(names)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.eye(16, dtype=np.uint8) * 3).save(path)
    (name,) = parameters(write_study(Study(root)))["05"]["datasets"]
    (dataset,) = load_segmentation_dataset(name)
    assert dataset.classes == ("background", "class 1", "class 2", "class 3")
    images(["masks/0.png"])  # grey noise, as of a JPEG
    with pytest.raises(InputError, match=r"masks hold \d+ values up to \d+; they should number"):
        write_study(Study(root))


def test_masks_of_another_size_are_refused_at_once(images, tmp_path):
    names = [f"{part}/{number}.png" for part in ("images", "masks") for number in range(6)]
    root = images(names)
    for path in (root / "masks").iterdir():
        Image.fromarray(np.eye(12, dtype=np.uint8)).save(path)
    with pytest.raises(InputError, match=r"0\.png: its mask has 12 x 12 pixels"):
        write_study(Study(root))
    assert not (tmp_path / "results").exists()


def test_an_external_test_set_may_have_masks(images, capsys):
    sides = [f"{side}/{part}" for side in ("here", "there") for part in ("images", "masks")]
    root = images([f"{folder}/{number}.png" for folder in sides for number in range(6)])
    for path in root.glob("*/masks/*.png"):
        Image.fromarray(np.eye(16, dtype=np.uint8)).save(path)
    for number in range(6):  # not the images of the other side
        path = root / "there" / "images" / f"{number}.png"
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    here, there = root / "here" / "images", root / "there" / "images"
    options = {"masks": root / "here" / "masks", "test": there}
    study = Study(here, name="x", **options, test_masks=root / "there" / "masks")
    (name,) = parameters(write_study(study))["05"]["datasets"]
    (dataset,) = load_segmentation_dataset(name)
    assert len(dataset.splits["test"]) == 6 and "external test set" in dataset.caveat
    left_out = parameters(write_study(Study(here, name="x", **options)))["00"]["left_out"]
    assert "--test-masks PATH" in left_out["segmentation of the test set"]
    with pytest.raises(InputError, match="--test-masks belongs to --masks PATH; give that too"):
        write_study(replace(study, masks=None))


@pytest.fixture
def series(tmp_path, images):
    """Return DICOM files in folders that are no classes, and the labels of their patients."""
    for number in range(12):
        path = images([]) / f"batch{number // 6}" / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        dicom(path, np.full((16, 16), number, np.uint8), PatientID=f"p{number}")
    rows = [f"p{number},{'xy'[number % 2]}" for number in range(12)]
    (tmp_path / "labels.csv").write_text("\n".join(["patient,label", *rows]))
    return tmp_path / "scans", tmp_path / "labels.csv"


def test_all_slices_are_taken_but_by_quick(series):
    root, labels = series
    found = parameters(write_study(Study(root, labels=labels, name="x")))
    assert "slices=all" in found["03"]["datasets"][0]
    quick = parameters(write_study(Study(root, labels=labels, name="x", quick=True)))
    assert "slices=5" in quick["03"]["datasets"][0]


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["a/1.png", "a/2.png", "b/1.png", "b/2.png"], "the class 'a' has 2 independent images"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png", "val/b/1.png"], "only train, val"),
    ],
)
def test_what_cannot_be_classified_has_a_reason(images, capsys, names, reason):
    assert "03" not in parameters(write_study(Study(images(names))))
    assert reason in capsys.readouterr().out


def test_without_validation_nothing_is_chosen(images):
    names = [f"{split}/{name}" for split in ("train", "test") for name in classes(4)]
    found = parameters(write_study(Study(images(names))))
    assert found["03"]["protocols"] == ["knn-k20", "knn1", "knn11"] and "folds" not in found["03"]
    assert "07" not in found


def test_an_edited_profile_is_kept(images, capsys):
    study = Study(images(classes(4)))
    path = write_study(study)
    text = path.read_text()
    write_study(study)
    assert not path.with_suffix(".yaml.old").exists()
    path.write_text(text + "# edited")
    write_study(study)
    assert path.with_suffix(".yaml.old").read_text() == text + "# edited"
    assert path.read_text() == text


@pytest.mark.parametrize("name", ["demo", "breast", "own", "../x", "busi", "busi-lesions"])
def test_results_of_the_project_are_safe(images, monkeypatch, name):
    monkeypatch.delenv("RADIODINO_RESULTS")
    with pytest.raises(InputError, match="use letters, digits|choose another --name"):
        write_study(Study(images(["a.png"]), name=name))


def test_a_profile_elsewhere_must_not_take_the_name_of_the_projects(tmp_path):
    (tmp_path / "demo.yaml").write_text("00_dataset_audit: {}")
    with pytest.raises(InputError, match=r"results/demo belongs to the project; rename the file"):
        load_profile(str(tmp_path / "demo.yaml"))
    with pytest.raises(InputError, match="there is no such profile"):
        load_profile(str(tmp_path / "none.yaml"))


def test_options_that_do_not_go_together():
    options = parse(["--data", "x", "--backbone", "a", "--backbone", "b", "--quick"])
    assert options == RunOptions(data="x", backbone=["a", "b"], quick=True)
    with pytest.raises(InputError, match="--labels belongs to --data PATH"):
        parse(["--labels", "x.csv"])
    with pytest.raises(InputError, match="leave out --save-outputs"):
        parse(["--data", "x", "--save-outputs"])
    with pytest.raises(InputError, match="--test-masks belongs to --test PATH"):
        parse(["--data", "x", "--test-masks", "y"])


def test_backbones_are_checked_before_anything_is_written(
    images, tmp_path, weights_file, monkeypatch
):
    root = images(classes(4))
    (tmp_path / "text.pth").write_text("no weights")
    for name, message in (
        ("nonsense", "unknown backbone"),
        ("file:no.pth", "there is no such"),
        (f"file:{tmp_path}/text.pth", "text.pth"),
    ):
        with pytest.raises(InputError, match=message):
            write_study(Study(root, backbones=[name]))
    assert not (tmp_path / "results").exists()
    monkeypatch.chdir(tmp_path)
    path = weights_file(tiny_transformer())
    study = Study(root, backbones=[f"file:{path.name}?heads=2"])
    names = parameters(write_study(study))["02"]["backbones"]
    assert names[0] == f"file:{path}?heads=2"


def test_paths_that_hold_nothing(images, tmp_path):
    with pytest.raises(InputError, match="there is no such file or folder"):
        write_study(Study(Path(tmp_path / "nowhere")))
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "notes.txt").write_text("")
    with pytest.raises(InputError, match="no images; name a folder"):
        write_study(Study(tmp_path / "scans"))
