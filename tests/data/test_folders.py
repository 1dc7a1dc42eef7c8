"""Class folders and CSV lists."""

import os
import zipfile

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import summary
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.pretraining.corpus import load_corpus
from radiodino_utils.pretraining.sources import Source


@pytest.fixture
def folder(tmp_path):
    """Write images of one grey value each into a folder."""

    def write(images):
        for value, name in enumerate(images):
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), value, np.uint8)).save(path)
        return tmp_path / "set"

    return write


def test_a_folder_of_classes(folder):
    names = [
        "liver/b.png",
        "liver/a.PNG",
        "heart/deep/er/c.bmp",
        ".ipynb_checkpoints/x.png",
        "liver/.hidden.png",
    ]
    root = folder(names)
    (root / "liver" / "notes.txt").write_text("no image")
    (root / "readme.txt").write_text("no class")
    dataset = load_dataset(f"folder:{root}")
    assert dataset.classes == ("heart", "liver")
    split = dataset.splits["all"]
    assert split.ids == ["heart/deep/er/c.bmp", "liver/a.PNG", "liver/b.png"]
    assert split.labels.tolist() == [0, 1, 1]
    assert [int(image[0, 0]) for image in split.images[:]] == [
        names.index(id_) for id_ in split.ids
    ]
    assert split.images[1].shape == (4, 6)


def test_a_folder_of_splits(folder):
    dataset = load_dataset(
        f"folder:{folder(['train/b/1.png', 'train/a/1.png', 'test/b/1.png', 'test/a/2.png'])}"
    )
    assert dataset.classes == ("a", "b")
    assert {name: split.labels.tolist() for name, split in dataset.splits.items()} == {
        "train": [0, 1],
        "test": [0, 1],
    }
    assert dataset.splits["test"].ids == ["test/a/2.png", "test/b/1.png"]


def test_the_digest_of_a_folder_changes_with_its_files(folder):
    root = folder(["a/1.png", "b/1.png"])
    before = load_dataset(f"folder:{root}").digest
    assert load_dataset(f"folder:{root}").digest == before
    folder(["a/1.png", "b/1.png", "b/2.png"])
    assert load_dataset(f"folder:{root}").digest != before


def test_invalid_folders(folder, tmp_path):
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load_dataset(f"folder:{tmp_path / 'nowhere'}")
    with pytest.raises(InputError, match="holds no class folders"):
        load_dataset(f"folder:{folder(['a.png'])}")
    root = folder(["train/a/1.png"])
    (root / "test" / "a").mkdir(parents=True)
    with pytest.raises(
        InputError, match="test: the split 'test' is empty: it holds no image files"
    ):
        load_dataset(f"folder:{root}")


@pytest.fixture
def listed(tmp_path, images):
    """Write a CSV list of rows and the images that it names."""

    def write(rows, columns="path label split group", absent=()):
        table = pd.DataFrame(rows, columns=columns.split())
        images([path for path in table.get("path", []) if path and path not in absent])
        table.to_csv(tmp_path / "list.csv", index=False)
        return f"folder:{tmp_path / 'list.csv'}"

    return write


ROWS = [
    ("a/1.png", "lung", "train", "p1"),
    ("b.png", "heart", "train", "p2"),
    ("c.png", "lung", "test", "p3"),
    ("d.png", "heart", "test", "p4"),
]


def test_a_list_with_splits_and_groups(listed):
    dataset = load_dataset(listed(ROWS))
    assert dataset.classes == ("heart", "lung")
    assert {name: split.labels.tolist() for name, split in dataset.splits.items()} == {
        "train": [1, 0],
        "test": [1, 0],
    }
    assert list(dataset.splits["test"].ids) == ["c.png", "d.png"]
    assert list(dataset.splits["train"].groups) == ["p1", "p2"]
    assert (dataset.unit, dataset.groups_from) == ("group", "column group")
    assert [int(image[0, 0]) for image in dataset.splits["test"].images[:]] == [2, 3]


def test_a_column_of_patients_is_named_as_such(listed):
    dataset = load_dataset(listed(ROWS, "path label split Patient_ID"))
    assert list(dataset.splits["train"].groups) == ["p1", "p2"]
    assert (dataset.unit, dataset.groups_from) == ("patient", "column patient")


def test_patients_of_some_images_only_are_refused(listed):
    rows = [*ROWS[:-1], (*ROWS[-1][:3], "")]
    with pytest.raises(InputError, match=r"line 5: the patient is empty \(1 such\); give every"):
        load_dataset(listed(rows, "path label split patient"))
    without = [(*row[:3], "") for row in ROWS]
    assert load_dataset(listed(without)).splits["train"].groups is None


def test_a_list_without_splits(listed):
    dataset = load_dataset(listed([row[:2] for row in ROWS], "path label"))
    assert list(dataset.splits) == ["all"]
    assert dataset.splits["all"].groups is None


def test_the_digest_changes_with_the_list_and_the_files(listed, images, tmp_path):
    name = listed(ROWS)
    before = load_dataset(name).digest
    images(["a/1.png"])
    assert load_dataset(name).digest == before  # written anew, the same content
    images(["x.png", "a/1.png"])
    changed = load_dataset(name).digest
    path = tmp_path / "list.csv"
    text = path.read_text()
    path.write_text(text.replace("test", "val"))
    moved = load_dataset(name).digest
    path.write_text(text.replace("lung", "liver"))
    assert len({before, changed, moved, load_dataset(name).digest}) == 4


def test_a_list_declares_its_positive_class(listed):
    rows = [(path, {"lung": "COVID", "heart": "Normal"}[label]) for path, label, *_ in ROWS]
    assert (
        load_dataset(listed(rows, "path label")).positive == "Normal"
    )  # the last one in sorted order
    assert load_dataset(listed(rows, "path label"), positive="COVID").positive == "COVID"
    marked = [(*row, "COVID" if i == 2 else "") for i, row in enumerate(rows)]
    dataset = load_dataset(listed(marked, "path label positive"))
    assert (dataset.positive, summary([dataset])["positive"].item()) == ("COVID", "COVID")
    for declared, message in (
        ({2: "covid"}, "positive class 'covid'"),
        ({1: "COVID", 2: "Normal"}, "names COVID, Normal; only"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(
                listed(
                    [(*row, declared.get(i, "")) for i, row in enumerate(rows)],
                    "path label positive",
                )
            )


FAULTS = {
    "no label column": (
        [row[:1] for row in ROWS],
        {"columns": "path"},
        r"the columns label are missing; it has path",
    ),
    "nothing": ([], {}, "lists no images"),
    "missing files": (
        ROWS,
        {"absent": ("b.png", "c.png")},
        r"2 of 4 listed files are missing, first 'b\.png'",
    ),
    "an empty label": ([*ROWS, ("e.png", "", "test", "p5")], {}, "line 6: the label is empty"),
    "an unknown split": (
        [*ROWS, ("e.png", "lung", "dev", "p5")],
        {},
        "unknown split 'dev'; the column split holds train, val, test",
    ),
    "an unknown label": (
        [*ROWS, ("e.png", "bone", "test", "p5")],
        {},
        "unknown label 'bone' in test: train has no image of it",
    ),
    "a class missing in a split": (
        [*ROWS, ("e.png", "bone", "train", "p5"), ("f.png", "bone", "train", "p6")],
        {},
        "the split 'test' has no image of the class 'bone'",
    ),
    "a class of one": (
        [*ROWS, ("e.png", "bone", "train", "p5")],
        {},
        "the class 'bone' has one image",
    ),
    "an image in two splits": (
        [*ROWS, ROWS[0][:2] + ("test", "p9")],
        {},
        r"splits overlap: path 'a/1\.png' is in train and test",
    ),
    "an image twice": ([*ROWS, ROWS[0]], {}, r"'a/1\.png' is listed twice"),
    "a patient in two splits": (
        [*ROWS, ("e.png", "lung", "val", "p1")],
        {},
        r"the splits overlap: group 'p1' is in train and val \(1 such\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_lists(listed, fault):
    rows, options, message = FAULTS[fault]
    name = listed(rows, **options)
    with pytest.raises(InputError, match=rf"list\.csv.*{message}"):
        load_dataset(name)


def test_invalid_csv_files(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: there is no such CSV file"):
        load_dataset(f"folder:{tmp_path / 'nowhere.csv'}")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv: not a CSV file that can be read"):
        load_dataset(f"folder:{tmp_path / 'empty.csv'}")
    (tmp_path / "broken.csv").write_bytes(b"path,label\n\x81\x8d,1\n")
    with pytest.raises(InputError, match=r"broken\.csv: not a CSV file that can be read"):
        load_dataset(f"folder:{tmp_path / 'broken.csv'}")


def test_a_class_folder_with_one_image(images):
    root = images(["train/a/1.png", "test/a/2.png", "train/b/3.png"])
    with pytest.raises(
        InputError, match="the class 'b' has one image; it cannot be both learnt and tested"
    ):
        load_dataset(f"folder:{root}")


def test_the_digest_follows_content_behind_the_same_size_time_and_name(tmp_path):
    for name, value in (("one", 3), ("other", 4)):
        for label in "ab":
            (tmp_path / name / label).mkdir(parents=True)
            Image.fromarray(np.full((4, 6), value, np.uint8)).save(
                tmp_path / name / label / "1.bmp"
            )
    (tmp_path / "link").symlink_to(tmp_path / "one")
    before = load_dataset(f"folder:{tmp_path / 'link'}").digest
    assert before == load_dataset(f"folder:{tmp_path / 'one'}").digest
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert load_dataset(f"folder:{tmp_path / 'link'}").digest != before
    file, facts = tmp_path / "one" / "a" / "1.bmp", (tmp_path / "one" / "a" / "1.bmp").stat()
    file.write_bytes((tmp_path / "other" / "a" / "1.bmp").read_bytes())
    os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert load_dataset(f"folder:{tmp_path / 'one'}").digest != before


@pytest.mark.parametrize("way", ["../outside.png", "{}/outside.png", "a/../../outside.png"])
def test_paths_out_of_the_lists_folder_need_the_option(way, tmp_path, images, monkeypatch):
    images(["outside.png", "set/a/b.png"])
    path = tmp_path / "set" / "list.csv"
    pd.DataFrame({"path": [way.format(tmp_path), "a/b.png"], "label": ["x", "x"]}).to_csv(
        path, index=False
    )
    with pytest.raises(
        InputError,
        match=r"list\.csv: '.*outside\.png' lies outside the list's folder; .*RADIODINO_OUTSIDE",
    ):
        load_dataset(f"folder:{path}")
    (tmp_path / "set" / "list.txt").write_text(way.format(tmp_path))
    with pytest.raises(InputError, match="lies outside the list's folder"):
        load_corpus([Source(tmp_path / "set" / "list.txt")])
    monkeypatch.setenv("RADIODINO_OUTSIDE_PATHS", "1")
    assert len(load_dataset(f"folder:{path}").splits["all"]) == 2


@pytest.mark.parametrize(
    "names",
    [
        *[("Training", "Testing"), ("TRAIN", "Val"), ("train", "valid"), ("train", "validation")],
        *[("train_data", "test_data"), ("Train ", "test set")],
    ],
)
def test_usual_names_of_splits(folder, names):
    first, second = names
    images = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    files = [f"{split}/{image}" for split in names for image in images]
    dataset = load_dataset(f"folder:{folder(files)}")
    assert list(dataset.splits) == ["train", "test" if "est" in second else "val"]
    assert dataset.classes == ("a", "b")
    assert next(iter(dataset.splits.values())).ids[0] == f"{first}/a/1.png"


def test_ambiguous_layouts_are_refused(folder):
    root = folder(["train/a/1.png", "train/a/2.png", "test/a/1.png", "test/a/2.png"])
    folder(["Testing/a/1.png"])
    with pytest.raises(InputError, match="'Testing' and 'test' are both the split 'test'"):
        load_dataset(f"folder:{root}")
    (root / "Testing").rename(root / "control")
    with pytest.raises(
        InputError, match=r"'control' holds images beside the split folders \(test, tr"
    ):
        load_dataset(f"folder:{root}")
    (root / "control" / "a" / "1.png").unlink()
    assert list(load_dataset(f"folder:{root}").splits) == ["train", "test"]
    folder(["train/b/1.png", "train/b/2.png"])
    with pytest.raises(InputError, match="the split 'test' has no image of the class 'b'"):
        load_dataset(f"folder:{root}")


def test_masks_checkpoints_and_hidden_files_are_no_images(folder):
    names = ["a/x (1).png", "a/x (1)_mask.png", "a/x (1)_mask_1.png", "b/only_mask.png"]
    root = folder([*names, "a/.ipynb_checkpoints/x.png", "b/__MACOSX/x.png", "b/._x.png"])
    with pytest.warns(
        UserWarning, match=r"2 masks beside their images are left out, first 'a/x \(1\)"
    ):
        dataset = load_dataset(f"folder:{root}")
    assert dataset.splits["all"].ids == ["a/x (1).png", "b/only_mask.png"]


def test_symbolic_links_are_followed_once(folder, tmp_path):
    root = folder(["a/1.png", "b/1.png", "b/2.png"])
    (tmp_path / "far").mkdir()
    (root / "b" / "2.png").rename(tmp_path / "far" / "2.png")
    (root / "b" / "link").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "loop").symlink_to(root / "b")
    assert load_dataset(f"folder:{root}").splits["all"].ids == [
        "a/1.png",
        "b/1.png",
        "b/link/2.png",
    ]


@pytest.mark.parametrize("link", ["c", "a/loop"])
def test_an_image_has_one_label_whatever_links_there_are(folder, link):
    root = folder(["a/1.png", "b/1.png"])
    (root / link).symlink_to(root / "b")
    with pytest.raises(InputError, match="are one file by a symbolic link; remove the link"):
        load_dataset(f"folder:{root}")


def test_a_link_to_nothing_is_not_left_out_unsaid(folder):
    root = folder(["a/1.png", "b/1.png"])
    (root / "a" / "2.png").symlink_to(root / "nowhere.png")
    with pytest.raises(InputError, match=r"1 of 3 listed files are missing, first 'a/2\.png'"):
        load_dataset(f"folder:{root}", on_error="raise")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_lists_of_other_programs(images, tmp_path, encoding, separator):
    images(["ä.png", "b.png"])
    rows = [
        ["File Name", "Diagnosis", "Patient ID"],
        ["ä.png", "Ödem", "1"],
        ["b.png", "keins", "2"],
    ]
    text = "\r\n".join(separator.join(row) for row in rows)
    path = tmp_path / ("list.tsv" if separator == "\t" else "list.csv")
    path.write_bytes(text.encode(encoding))
    split = load_dataset(f"folder:{path}").splits["all"]
    assert split.ids == ["ä.png", "b.png"] and split.groups == ["1", "2"]
    assert load_dataset(f"folder:{path}").classes == ("keins", "Ödem")


def test_names_of_splits_in_a_list(listed):
    rows = [(*row[:2], {"train": "Training", "test": "Testing"}[row[2]], row[3]) for row in ROWS]
    assert list(load_dataset(listed(rows)).splits) == ["train", "test"]


@pytest.mark.parametrize(
    "pair",
    [
        *[("benign", "Benign"), ("benign", " benign"), ("0", "0.0")],
        *[("no_tumor", "no tumor"), ("M\u00fcller", "Mu\u0308ller")],
    ],
)
def test_labels_that_are_almost_the_same_are_refused(listed, pair):
    rows = [(f"{n}.png", label) for n, label in enumerate([*pair, *pair])]
    with pytest.raises(
        InputError, match=r"list\.csv: the labels '.*' and '.*' are almost the same"
    ):
        load_dataset(listed(rows, "path label"))


def test_labels_are_renamed_where_the_name_says_so(listed, folder):
    rows = [(f"{n}.png", label) for n, label in enumerate(["benign", "Benign", "0", "0.0"])]
    name = listed(rows, "path label")
    renamed = load_dataset(f"{name}?rename=Benign:benign,0.0:0")
    assert renamed.classes == ("0", "benign")
    root = folder(["a/1.png", "A/2.png"])
    assert load_dataset(f"folder:{root}?rename=A:a").classes == ("a",)
    for option, message in (
        ("x:benign", "unknown label to rename"),
        ("Benign", "write OLD:NEW"),
        ("Benign:benign", "the labels '0' and '0.0' are almost the same"),
    ):
        with pytest.raises(InputError, match=message):
            load_dataset(f"{name}?rename={option}")


@pytest.mark.parametrize("label", ["nan", "NaN", "<NA>", "NA", "#N/A", "null"])
def test_missing_labels_are_no_class(listed, label):
    rows = [("a.png", label), ("b.png", "lung")]
    with pytest.raises(InputError, match=f"the label '{label}' stands for a missing value"):
        load_dataset(listed(rows, "path label"))


def test_two_columns_for_one_thing(listed):
    with pytest.raises(InputError, match="the columns class, diagnosis could all be the label"):
        load_dataset(listed([("a.png", "x", "y")], "path class diagnosis"))


def test_a_list_elsewhere_names_the_images_of_a_folder(folder, tmp_path):
    root = folder(["1.png", "deep/2.png"])
    (tmp_path / "labels.csv").write_text("image,diagnosis\ndeep/2.png,a\n1.png,b\n")
    dataset = load_dataset(f"mystudy=folder:{root}?labels={tmp_path / 'labels.csv'}")
    assert dataset.name == "mystudy" and dataset.classes == ("a", "b")
    assert dataset.splits["all"].ids == ["deep/2.png", "1.png"]
    assert [int(image[0, 0]) for image in dataset.splits["all"].images[:]] == [1, 0]


def test_a_list_elsewhere_may_leave_out_folders_and_suffixes(folder, tmp_path):
    root = folder(["1.png", "deep/2.png", "deep/3.png", "other/3.png"])
    name = f"folder:{root}?labels={tmp_path / 'labels.csv'}"
    (tmp_path / "labels.csv").write_text("image,label\n2.png,a\n1,b\nother/3,b\n")
    assert load_dataset(name).splits["all"].ids == ["deep/2.png", "1.png", "other/3.png"]
    (tmp_path / "labels.csv").write_text("image,label\n1,a\n3,b\n")
    with pytest.raises(InputError, match=r"'3' is the name of 2 files, such as deep/3\.png"):
        load_dataset(name)


def test_a_list_elsewhere_may_name_patients_alone(folder, tmp_path):
    root = folder(["p1/1.png", "p1/2.png", "site/p2/1.png", "p3.png", "else.png"])
    name, path = f"folder:{root}?labels={tmp_path / 'labels.csv'}", tmp_path / "labels.csv"
    path.write_text("Patient ID,diagnosis,age\np1,a,30\np2,b,40\np3,b,50\n")
    with pytest.warns(UserWarning, match="1 images of no listed patient are left out, first 'else"):
        dataset = load_dataset(name)
    (part,) = dataset.splits.values()
    assert part.ids == ["p1/1.png", "p1/2.png", "p3.png", "site/p2/1.png"]
    assert [dataset.classes[label] for label in part.labels] == [*"aabb"]
    assert part.groups == ["p1", "p1", "p3", "p2"] and dataset.unit == "patient"
    for row, message in (
        ("p1,b", "the patient 'p1' is listed twice"),
        ("p9,b", "1 of 3 patients have no image, first 'p9'"),
        ("site,b", "site/p2/1.png has the names of the patients p2, site"),
    ):
        path.write_text(f"patient,label\np1,a\np2,b\n{row}\n")
        with pytest.raises(InputError, match=message):
            load_dataset(name)
    path.write_text("number,label\np1,a\n")
    with pytest.raises(InputError, match="a column path or patient is needed beside label; it has"):
        load_dataset(name)


def test_files_may_begin_with_the_name_of_their_patient(folder, tmp_path):
    root = folder(["sub-1_T1w.png", "sub-1_b_T1w.png", "sub-2/sub-2_T1w.png", "sub-10_T1w.png"])
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tdiagnosis\nsub-1\ta\nsub-10\tb\nsub-2\tb\n")
    (part,) = load_dataset(f"folder:{root}?labels={path}").splits.values()
    assert dict(zip(part.ids, part.groups, strict=True)) == {
        "sub-1_T1w.png": "sub-1",
        "sub-1_b_T1w.png": "sub-1",
        "sub-2/sub-2_T1w.png": "sub-2",
        "sub-10_T1w.png": "sub-10",
    }


def test_images_without_labels_have_one_class(folder, tmp_path):
    dataset = load_dataset(f"folder:{folder(['b/1.png', '2.png'])}?labels=unlabelled")
    assert dataset.classes == ("unlabelled",)
    assert dataset.splits["all"].ids == ["2.png", "b/1.png"]
    with pytest.raises(InputError, match="unknown option of folder: 'label'; did you mean labels"):
        load_dataset(f"folder:{tmp_path}?label=x")
    with pytest.raises(InputError, match="npz: takes no option"):
        load_dataset("npz:a.npz?labels=x")


def test_tables_that_are_none(tmp_path):
    path = tmp_path / "list.csv"
    for text, message in (
        (b"path,label,label\na.png,x,y\n", "the column 'label' is there twice"),
        (b"path,category\na.png,x\n", "label may be called label, class, diagnosis"),
    ):
        path.write_bytes(text)
        with pytest.raises(InputError, match=message):
            load_dataset(f"folder:{path}")
    with zipfile.ZipFile(path, "w") as workbook:
        workbook.writestr("xl/workbook.xml", "")
    with pytest.raises(InputError, match="a workbook or archive, not a CSV file"):
        load_dataset(f"folder:{path}")


def test_the_first_line_of_excel_is_no_header(listed, tmp_path):
    name = listed([row[:2] for row in ROWS], "path label")
    path = tmp_path / "list.csv"
    path.write_text("sep=,\n" + path.read_text())
    assert load_dataset(name).classes == ("heart", "lung")
