"""Class folders, CSV lists and RadImageNet."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radiodino_utils.core import files
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset, summary
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.pretraining.corpus import Source, load_corpus


@pytest.fixture
def images(tmp_path):
    """Writes a image of one grey value for each name."""

    def write(names, root=tmp_path):
        for value, name in enumerate(names):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 6), value % 256, np.uint8)).save(root / name)
        return root

    return write


@pytest.fixture
def listed(tmp_path, images):
    """Writes a CSV list of rows and the images that it names."""

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
    assert [int(one[0, 0]) for one in dataset.splits["test"].images[:]] == [2, 3]


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
    "a class of one": (
        [*ROWS, ("e.png", "bone", "train", "p5")],
        {},
        "the class 'bone' has one image",
    ),
    "a image in two splits": (
        [*ROWS, ROWS[0][:2] + ("test", "p9")],
        {},
        r"splits overlap: path 'a/1\.png' is in train and test",
    ),
    "a image twice": ([*ROWS, ROWS[0]], {}, r"'a/1\.png' is listed twice"),
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


def test_files_that_are_no_lists(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv: there is no such CSV file"):
        load_dataset(f"folder:{tmp_path / 'nowhere.csv'}")
    (tmp_path / "empty.csv").touch()
    with pytest.raises(InputError, match=r"empty\.csv: not a CSV file that can be read"):
        load_dataset(f"folder:{tmp_path / 'empty.csv'}")
    (tmp_path / "broken.csv").write_bytes(b"path,label\n\xff\xfe,1\n")
    with pytest.raises(InputError, match=r"broken\.csv: not a CSV file that can be read"):
        load_dataset(f"folder:{tmp_path / 'broken.csv'}")


def test_a_class_folder_with_one_image(images):
    root = images(["train/a/1.png", "test/a/2.png", "train/b/3.png"])
    with pytest.raises(
        InputError, match="the class 'b' has one image; it cannot be both learnt and tested"
    ):
        load_dataset(f"folder:{root}")


@pytest.fixture
def radimagenet(tmp_path, images):
    """Writes RadImageNet's layout: 165 classes, and a CSV of filename and label for each split."""

    def write(name="{label}{number:06d}.png", extra=()):
        root = tmp_path / "radimagenet"
        classes = [
            f"{modality}/{part}/finding-{number}"
            for modality, part, count in (
                ("CT", "abd", 28),
                ("CT", "lung", 6),
                ("MR", "knee", 116),
                ("US", "gb", 15),
            )
            for number in range(count)
        ]
        number = 0
        for split in ("train", "val", "test"):
            rows = []
            for one in classes:
                number += 1
                file = name.format(label=one.rpartition("/")[2], number=number)
                rows.append((f"radiology_ai/{one}/{file}", one.replace("/", "_")))
            table = pd.DataFrame(
                [*rows, *(row[1:] for row in extra if row[0] == split)],
                columns=["filename", "label"],
            )
            images(table["filename"], root)
            table.to_csv(root / f"RadiologyAI_{split}.csv", index=False)
        return root

    return write


def test_radimagenet_in_its_layout(radimagenet, monkeypatch, tiny_backbone):
    root = radimagenet()
    with pytest.raises(
        InputError,
        match=r"RadImageNet is not there; request it at https://www\.radimagenet\.com .* RADIMAGENET",
    ):
        load_dataset("radimagenet")
    monkeypatch.setenv("RADIMAGENET", str(root))
    dataset = load_dataset("radimagenet")
    assert len(dataset.classes) == 165
    assert [len(split) for split in dataset.splits.values()] == [165] * 3
    assert dataset.splits["val"].ids[0] == "radiology_ai/CT/abd/finding-0/finding-0000166.png"
    assert dataset.classes[dataset.splits["val"].labels[0]] == "CT_abd_finding-0"
    assert "patients are not known" in dataset.caveat
    assert dataset.splits["val"].groups is None
    features = extract_features(
        tiny_backbone, dataset, engine="torch", precision="fp32", batch_size=64
    )
    assert features.embedding("test").shape == (165, 128)
    assert features.ids["test"] == dataset.splits["test"].ids


def test_radimagenets_patients_where_the_names_tell(radimagenet):
    dataset = load_dataset("radimagenet", folder=radimagenet("patient{number:04d}_slice7.png"))
    assert dataset.splits["train"].groups[:2] == ["patient0001", "patient0002"]
    assert dataset.caveat == ""


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (("test", "radiology_ai/CT/new/x.png", "CT_new"), "unknown label 'CT_new' in test"),
        (
            ("val", "radiology_ai/CT/abd/finding-0/finding-0000001.png", "CT_abd_finding-0"),
            "the splits overlap: path .* train and val",
        ),
    ],
)
def test_faulty_split_files_of_radimagenet(radimagenet, row, message):
    with pytest.raises(InputError, match=message):
        load_dataset("radimagenet", folder=radimagenet(extra=[row]))


def test_images_are_read_only_when_asked_for(radimagenet, monkeypatch):
    root = radimagenet()
    monkeypatch.setattr(
        "radiodino_utils.data.images.read_image", lambda path: pytest.fail(f"{path} was read")
    )
    assert len(load_dataset("radimagenet", folder=root).splits["train"]) == 165


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


def test_large_sets_are_identified_without_reading_them(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"1234")
    monkeypatch.setattr(files, "CONTENT_LIMIT", 3)
    monkeypatch.setattr(files, "file_hash", lambda *_: pytest.fail("read"))
    before = files.files_digest(tmp_path, ["a"])
    assert files.files_digest(tmp_path, ["a"]) == before
    facts = (tmp_path / "a").stat()
    (tmp_path / "b").write_bytes(b"4321")
    (tmp_path / "b").replace(tmp_path / "a")
    os.utime(tmp_path / "a", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert files.files_digest(tmp_path, ["a"]) != before


@pytest.mark.parametrize("way", ["../outside.png", "{}/outside.png", "a/../../outside.png"])
def test_paths_out_of_the_lists_folder_need_the_option(way, tmp_path, images, monkeypatch):
    images(["outside.png", "set/a/b.png"])
    path = tmp_path / "set" / "list.csv"
    pd.DataFrame({"path": [way.format(tmp_path), "a/b.png"], "label": ["x", "x"]}).to_csv(
        path, index=False
    )
    with pytest.raises(
        InputError,
        match=r"list\.csv: '.*outside\.png' lies outside the list's folder; .*RADIODINO_OUTSIDE_PATHS=1",
    ):
        load_dataset(f"folder:{path}")
    (tmp_path / "set" / "list.txt").write_text(way.format(tmp_path))
    with pytest.raises(InputError, match="lies outside the list's folder"):
        load_corpus([Source(tmp_path / "set" / "list.txt")])
    monkeypatch.setenv("RADIODINO_OUTSIDE_PATHS", "1")
    assert len(load_dataset(f"folder:{path}").splits["all"]) == 2


def test_the_key_follows_what_is_replaced_in_memory(tiny_backbone, synthetic_set):
    dataset, fp32 = synthetic_set(), {"engine": "torch", "precision": "fp32"}
    test = dataset.splits["test"]
    first = extract_features(tiny_backbone, dataset, **fp32)
    for changed in (
        replace(test, labels=test.labels[::-1]),
        replace(test, images=np.array(test.images[::-1])),
        replace(test, images=test.images[::-1]),
        replace(test, images=list(test.images)[::-1]),
        replace(test, ids=[f"other {name}" for name in test.ids]),
    ):
        other = extract_features(
            tiny_backbone, replace(dataset, splits={**dataset.splits, "test": changed}), **fp32
        )
        assert other.path != first.path
        assert other.labels["test"].tolist() == changed.labels.tolist() and other.ids[
            "test"
        ] == list(changed.ids)
        turned = changed.images is not test.images
        np.testing.assert_allclose(
            other.embedding("test"), first.embedding("test")[:: -1 if turned else 1], atol=1e-5
        )
    assert extract_features(tiny_backbone, synthetic_set(), **fp32).path == first.path
