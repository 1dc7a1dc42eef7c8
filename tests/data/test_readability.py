"""Datasets with unreadable files."""

import numpy as np
import pandas as pd
import pydicom
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data import readability
from radiodino_utils.data.readability import unreadable_table
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.data.segmentation import load_segmentation_dataset

LABELS = ("heart", "lung")


@pytest.fixture
def folder(images):
    """A folder dataset of 200 images; the files are named by their numbers."""
    return images([f"{label}/{number:03d}.png" for label in LABELS for number in range(100)])


def cut(*paths):
    for path in paths:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 3 // 5])


def test_a_whole_dataset_stays_the_same(folder):
    dataset = load_dataset(f"folder:{folder}")
    assert dataset.digest == load_dataset(f"folder:{folder}", on_error="raise").digest
    assert dataset.unreadable == {} and dataset.caveat == ""


def test_one_bad_file_is_left_out_and_listed(folder):
    cut(folder / "lung" / "007.png")
    with pytest.warns(UserWarning, match=r"1 of 200 images cannot be read and are left out; .*007"):
        dataset = load_dataset(f"folder:{folder}")
    split, whole = dataset.splits["all"], load_dataset(f"folder:{folder}", on_error="raise")
    assert len(split) == len(split.images) == len(split.ids) == 199
    row = split.ids.index("lung/008.png")
    np.testing.assert_array_equal(split.images[row], whole.splits["all"].images[row + 1])
    assert split.labels[row] == 1
    assert dataset.caveat == "1 of 200 images cannot be read and are left out"
    table = unreadable_table([dataset])
    assert table[["dataset", "id"]].to_numpy().tolist() == [[dataset.name, "lung/007.png"]]
    assert table["reason"][0].startswith("the image is damaged or truncated")


def test_the_digest_is_of_what_was_read(folder):
    bad = folder / "lung" / "007.png"
    cut(bad)
    with pytest.warns(UserWarning):
        skipped = load_dataset(f"folder:{folder}").digest
    bad.write_bytes(b"damaged in another way")
    with pytest.warns(UserWarning):
        assert load_dataset(f"folder:{folder}").digest == skipped
    bad.unlink()
    assert load_dataset(f"folder:{folder}").digest == skipped


def test_more_than_the_limit_is_an_error_that_names_the_files_and_the_option(folder, monkeypatch):
    cut(*(folder / "lung" / f"{number:03d}.png" for number in range(5)))
    names = r"\(lung/000\.png, lung/001\.png, lung/002\.png, \.\.\.\)"
    sentence = rf"5 of 200 images cannot be read {names}, .* 1\.0%, which RADIODINO_UNREADABLE"
    with pytest.raises(InputError, match=sentence):
        load_dataset(f"folder:{folder}")
    monkeypatch.setenv("RADIODINO_UNREADABLE", "0.025")
    with pytest.warns(UserWarning, match="5 of 200"):
        assert len(load_dataset(f"folder:{folder}").splits["all"]) == 195


@pytest.mark.parametrize("text", ["much", "-0.1", "5", "nan"])
def test_the_limit_is_a_share(text, folder, monkeypatch):
    monkeypatch.setenv("RADIODINO_UNREADABLE", text)
    with pytest.raises(InputError, match=f"RADIODINO_UNREADABLE is '{text}'; give a share"):
        load_dataset(f"folder:{folder}")


def test_of_twenty_images_one_may_be_bad_and_of_nineteen_none(images):
    root = images([f"a/{number}.png" for number in range(20)])
    cut(root / "a" / "3.png")
    with pytest.warns(UserWarning, match="1 of 20"):
        load_dataset(f"folder:{root}")
    (root / "a" / "19.png").unlink()
    with pytest.raises(InputError, match="1 of 19 images cannot be read, more than the limit"):
        load_dataset(f"folder:{root}")


def test_the_first_bad_file_ends_the_work_where_that_is_wanted(folder):
    cut(folder / "lung" / "007.png")
    dataset = load_dataset(f"folder:{folder}", on_error="raise")
    assert len(dataset.splits["all"]) == 200
    with pytest.raises(InputError, match=r"007\.png: the image is damaged"):
        dataset.splits["all"].images[107]
    with pytest.raises(InputError, match="unknown on_error 'ignore'"):
        load_dataset(dataset.name, on_error="ignore")


def test_a_class_does_not_vanish(images, monkeypatch):
    root = images([*(f"a/{number}.png" for number in range(30)), "b/1.png"])
    cut(root / "b" / "1.png")
    with pytest.raises(InputError, match="no image of 'b' in all can be read"):
        load_dataset(f"folder:{root}")
    with pytest.warns(UserWarning):
        assert load_dataset(f"folder:{root}", on_error="list").classes == ("a", "b")
    cut(*root.rglob("*.png"))
    with pytest.raises(InputError, match="none of 31 images can be read"):
        load_dataset(f"folder:{root}", on_error="list")


def test_a_missing_file_of_a_list_is_left_out_with_its_patient(folder):
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    rows = pd.DataFrame({"path": paths, "label": [path[:4] for path in paths]})
    rows.assign(patient=range(200)).to_csv(folder / "list.csv", index=False)
    (folder / "heart" / "002.png").unlink()
    with pytest.warns(UserWarning, match=r"heart/002\.png: there is no such image file"):
        split = load_dataset(f"folder:{folder / 'list.csv'}").splits["all"]
    assert len(split) == 199 and "2" not in split.groups
    for number in range(3, 9):
        (folder / "heart" / f"{number:03d}.png").unlink()
    with pytest.raises(InputError, match="7 of 200 listed files are missing"):
        load_dataset(f"folder:{folder / 'list.csv'}")


def test_what_was_read_once_is_read_again_only_if_it_changes(folder, monkeypatch):
    load_dataset(f"folder:{folder}")
    monkeypatch.setattr(readability, "prefetched", lambda function, rows: (1 / 0 for _ in rows))
    load_dataset(f"folder:{folder}")
    Image.new("L", (9, 9)).save(folder / "lung" / "007.png")
    with pytest.raises(ZeroDivisionError):
        load_dataset(f"folder:{folder}")


def test_a_bad_slice_and_a_bad_header_of_studies_are_left_out(tmp_path):
    source = pydicom.dcmread(pydicom.data.get_testdata_file("CT_small.dcm"))
    for number in range(40):
        source.PatientID = source.SeriesInstanceUID = f"{number}"
        source.save_as(tmp_path / f"{number:02d}.dcm")
    names = [f"{number}" for number in range(40)]
    table = pd.DataFrame({"PatientID": names, "label": ["a", "b"] * 20})
    table.to_csv(tmp_path / "labels.csv", index=False)
    whole = load_dataset(f"dicom:{tmp_path}").splits["all"]
    content = (tmp_path / "07.dcm").read_bytes()
    (tmp_path / "07.dcm").write_bytes(content[:-20000])
    with pytest.warns(UserWarning, match=r"1 of 40 images .* 07\.dcm: the DICOM file cannot be"):
        dataset = load_dataset(f"dicom:{tmp_path}")
    assert dataset.splits["all"].ids == [name for name in whole.ids if name != "07.dcm"]
    left_out = whole.groups[whole.ids.index("07.dcm")]
    assert set(whole.groups) - set(dataset.splits["all"].groups) == {left_out}
    (tmp_path / "07.dcm").write_bytes(content)
    (tmp_path / "09.dcm").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"09\.dcm: the header is damaged"):
        dataset = load_dataset(f"dicom:{tmp_path}")
    assert list(dataset.unreadable) == ["09.dcm", "patient 9"]
    table.loc[0, "PatientID"] = "nobody"
    table.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match="2 of 40 rows fit no image"):
        load_dataset(f"dicom:{tmp_path}")


def test_an_image_leaves_with_its_mask(tmp_path):
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for number in range(30):
            image = Image.fromarray(np.full((32, 32), number if kind == "images" else 1, np.uint8))
            image.save(tmp_path / kind / f"{number:02d}.png")
    cut(tmp_path / "masks" / "04.png")
    with pytest.warns(UserWarning, match="1 of 30 images"):
        (skipped,) = load_segmentation_dataset(f"masks:{tmp_path}")
    assert list(skipped.unreadable) == ["04.png"] and "1 of 30" in skipped.caveat
    for kind in ("images", "masks"):
        (tmp_path / kind / "04.png").unlink()
    (clean,) = load_segmentation_dataset(f"masks:{tmp_path}")
    assert (skipped.ids, skipped.digest) == (clean.ids, clean.digest)
    assert all((skipped.splits[name] == clean.splits[name]).all() for name in clean.splits)
    assert [skipped.mask(row).max() for row in range(29)] == [1] * 29
