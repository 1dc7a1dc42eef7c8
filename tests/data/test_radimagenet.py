"""RadImageNet's layout, with synthetic images."""

import pandas as pd
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.features.extraction import extract_features


@pytest.fixture
def radimagenet(tmp_path, images):
    """Write RadImageNet's layout: 165 classes, and a CSV of filename and label per split."""

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
            for label in classes:
                number += 1
                file = name.format(label=label.rpartition("/")[2], number=number)
                rows.append((f"radiology_ai/{label}/{file}", label.replace("/", "_")))
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
        match=r"RadImageNet is not there; request it at https://www\.radimagenet\.com .* RADIMAGE",
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


def test_images_are_read_only_when_needed(radimagenet, monkeypatch):
    root = radimagenet()
    monkeypatch.setattr(
        "radiodino_utils.data.images.read_image", lambda path: pytest.fail(f"{path} was read")
    )
    assert len(load_dataset("radimagenet", folder=root).splits["train"]) == 165
