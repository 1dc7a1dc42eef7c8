"""Tables of radiomics: one row per region, and nothing is dropped unsaid."""

import json

import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from radiodino_utils import cli
from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.extraction import extract_radiomics
from radiodino_utils.radiomics.table import RadiomicsTable


@pytest.fixture
def folders(tmp_path):
    """Two images with a mask of two labels, one with an empty mask, one with a mask too small."""
    generator = np.random.default_rng(0)
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir(), masks.mkdir()
    for name in ("p1", "p2", "empty", "small"):
        image = generator.integers(0, 255, (48, 64), np.uint8)
        Image.fromarray(image).save(images / f"{name}.png")
        labels = np.zeros((40, 64) if name == "small" else (48, 64), np.uint8)
        if name != "empty":
            labels[4:20, 6:30], labels[30:36, 40:41] = 1, 2
        Image.fromarray(labels).save(masks / f"{name}.png")
    return images, masks


def test_one_row_per_region_and_every_exclusion_with_its_reason(folders):
    table = extract_radiomics(*folders, backbone="random-t16", size=64, engine="torch")
    assert table.rows[["case", "label"]].to_numpy().tolist() == [
        ["p1", 1], ["p1", 2], ["p2", 1], ["p2", 2]
    ]  # fmt: skip
    assert table.excluded["case"].tolist() == ["empty", "small"]
    assert "the mask is empty" in table.excluded["reason"][0]
    assert "40 x 64 voxels" in table.excluded["reason"][1]
    assert len(table.columns("deep")) == 4 * 192 and len(table.columns("shape2d")) == 9
    assert table.rows[table.columns("deep", "handcrafted")].notna().all().all()
    assert table.rows["patient"].tolist() == ["p1", "p1", "p2", "p2"]
    assert table.dictionary()["name"].tolist() == table.rows.columns.tolist()
    assert "4 regions" in repr(table)


def test_a_mask_without_an_image_is_an_exclusion(folders):
    images, masks = folders
    (images / "p2.png").unlink()
    with pytest.warns(UserWarning, match=r"masks without an image .*: p2\.png"):
        table = extract_radiomics(images, masks, bin_count=8)
    reasons = table.excluded.set_index("case")["reason"]
    assert reasons["p2.png"].endswith("p2.png: the mask has no image.") and len(reasons) == 3


def test_the_deep_features_of_another_backbone_take_the_place_of_the_first(folders):
    both = {"size": 64, "engine": "torch", "bin_width": 16}
    first = extract_radiomics(*folders, backbone="random-t16", **both)
    other = extract_radiomics(*folders, backbone="pixels", handcrafted=False, **both)
    table = first.with_deep(other)
    assert table.columns("handcrafted") == first.columns("handcrafted")
    assert table.rows[table.columns("deep")].equals(other.rows[other.columns("deep")])
    assert table.about()["backbone"] == "pixels"
    with pytest.raises(InputError, match="other regions"):
        first.with_deep(extract_radiomics(*folders, backbone="pixels", labels=(1,), **both))


def test_clinical_columns_join_by_patient_and_the_rest_is_named(folders, tmp_path):
    clinical = tmp_path / "clinical.csv"
    clinical.write_text("patient;image;age\nA ; p1.png;61\nC;p7;40\n")
    with pytest.warns(UserWarning, match="without a"):
        table = extract_radiomics(*folders, clinical=clinical, labels=(1, 7), bin_width=16)
    assert table.rows["patient"].tolist() == ["A", "p2"]
    assert table.rows["clinical_age"].tolist()[0] == 61 and table.columns("clinical")
    assert table.facts["patients_without_region"] == ["C"]
    assert table.facts["patients_without_clinical_row"] == ["p2"]
    assert table.facts["labels_in_no_image"] == [7]
    assert table.facts["images_only_in_clinical_table"] == ["p7"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name,age\nA,1\n", "column patient is missing"),
        ("patient,age\nA,1\nA,2\n", "several rows that differ"),
        ("patient,age\nA,1\n,2\n", "row 2 names no patient"),
        ("patient,image\nA,p1.png\nB,p1\n", "image 'p1' is of several patients"),
        ("patient,age\nA,1,\nB,2,\n", "more fields than the header"),
        ("", "not a CSV file"),
        ("patient,age\n\x81,1\n", "not a CSV file"),
    ],
)
def test_a_clinical_table_that_cannot_be_used_is_one_sentence(folders, tmp_path, text, sentence):
    clinical = tmp_path / "clinical.csv"
    clinical.write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=sentence):
        extract_radiomics(*folders, clinical=clinical)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bin_widht": 3}, "did you mean bin_width"),
        ({"planes": ("oblique",)}, "unknown plane"),
        ({"bin_width": 0}, "greater than 0"),
        ({"margin_mm": np.inf}, "finite"),
        ({"lowest": np.nan}, "finite"),
        ({"window": "300,100", "backbone": "random-t16"}, "lower value comes first"),
        ({"window": "soft", "backbone": "random-t16"}, "two numbers"),
    ],
)
def test_wrong_options_are_one_sentence(folders, options, sentence):
    with pytest.raises(InputError, match=sentence):
        extract_radiomics(*folders, **options)


def test_images_without_spacing_cannot_be_resampled_and_the_rows_stay(folders):
    table = extract_radiomics(*folders, resample_mm=1.0)
    assert len(table.rows) == 4
    assert table.reasons().set_index("what")["n"]["handcrafted"] == 4


def test_labels_that_no_image_has_are_an_error(folders):
    with pytest.raises(InputError, match="no image has the labels 7, 9"):
        extract_radiomics(*folders, labels=(7, 9), bin_width=16)


def test_no_region_at_all_is_an_error(folders):
    images, masks = folders
    for path in masks.iterdir():
        Image.new("L", (64, 48)).save(path)
    with pytest.raises(InputError, match="no region has features: the mask is empty"):
        extract_radiomics(images, masks)


def test_a_volume_with_nan_inside_one_region(tmp_path):
    values = np.random.default_rng(0).normal(size=(20, 20, 12)).astype(np.float32)
    labels = np.zeros(values.shape, np.uint8)
    labels[2:8, 2:8, 2:6], labels[12:18, 12:18, 2:6], labels[0, 0, 0] = 1, 2, 3
    values[14, 14, 4] = np.nan
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(values, affine), tmp_path / "ct.nii")
    nibabel.save(nibabel.Nifti1Image(labels, affine), tmp_path / "ct_seg.nii")
    table = extract_radiomics(
        tmp_path / "ct.nii", tmp_path / "ct_seg.nii", resample_mm=2.0, bin_count=8
    )
    assert table.rows["label"].tolist() == [1, 3]
    assert table.rows["size_slices_mm"].tolist() == [12, 3]
    reasons = table.excluded.set_index("label")["reason"]
    assert reasons[2] == "NaN or infinite values inside"
    assert reasons[3] == "smaller than a voxel of the resampled image"
    assert table.rows["shape_voxel_volume"][0] == pytest.approx(6 * 6 * 12, rel=0.2)


def test_the_command_writes_table_dictionary_and_sidecar(folders, tmp_path, capsys):
    images, masks = folders
    (images / "p1.png").rename(images / "=p1.png")
    (masks / "p1.png").rename(masks / "=p1.png")
    out = tmp_path / "out" / "table.csv"
    arguments = ["--images", str(images), "--masks", str(masks), "--out", str(out)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["radiomics", *arguments, "--bin-count", "16"])
    assert ended.value.code == 0
    assert "4 regions" in (printed := capsys.readouterr()).out
    assert "left out: row, 1 x the mask is empty" in printed.err
    assert pd.read_csv(out)["case"][0] == "'=p1"  # no spreadsheet computes it
    sidecar = json.loads(out.with_suffix(".json").read_text())
    assert sidecar["options"]["bin_count"] == 16 and sidecar["regions"] == 4
    assert len(sidecar["excluded"]["list"]) == 2 and "fastrad" in sidecar["versions"]
    dictionary = pd.read_csv(out.with_suffix(".dictionary.csv"), dtype=str).set_index("name")
    assert dictionary.loc["glcm_contrast", "ibsi_code"] == "ACUI"
    assert dictionary.loc["shape2d_perimeter", "unit"] == "mm"


def test_an_image_without_the_labels_asked_for_is_named_and_the_sidecar_is_strict_json(
    folders, tmp_path
):
    Image.fromarray(np.eye(48, 64, dtype=np.uint8)).save(folders[1] / "p2.png")
    table = extract_radiomics(*folders, labels=(2,), bin_count=16)
    reasons = table.excluded.set_index("case")["reason"]
    assert reasons["p2"] == "the mask has none of the labels 2" and len(reasons) == 3
    text = table.write(tmp_path / "table.parquet")[2].read_text()
    assert "NaN" not in text and json.loads(text)["excluded"]["list"][0]["label"] is None


def test_a_written_table_is_read_again(folders, tmp_path):
    table = extract_radiomics(*folders, bin_count=16)
    path, _, sidecar = table.write(tmp_path / "table.parquet")
    again = RadiomicsTable.read(path)
    pd.testing.assert_frame_equal(again.rows, table.rows)
    pd.testing.assert_frame_equal(again.excluded, table.excluded, check_dtype=False)
    assert again.facts == json.loads(json.dumps(table.facts)) and again.columns("shape2d")
    sidecar.write_text("{}")
    with pytest.raises(InputError, match="no radiomics table in parquet with its sidecar"):
        RadiomicsTable.read(path)


def test_a_volume_of_colours_is_left_out_with_its_reason(tmp_path):
    colours = np.zeros((8, 8, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    nibabel.save(nibabel.Nifti1Image(colours, np.eye(4)), tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 4), np.uint8), np.eye(4)), tmp_path / "b.nii")
    with pytest.raises(InputError, match="a: the values are no grey values"):
        extract_radiomics(tmp_path / "a.nii", tmp_path / "b.nii")


def test_an_unknown_suffix_stops_before_any_work(folders, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["radiomics", "--images", "demo-ct", "--out", str(tmp_path / "table.xlsx")])
    assert ended.value.code == 2 and "unknown suffix '.xlsx'" in capsys.readouterr().err


@pytest.mark.parametrize("resample_mm", [None, 2.0, 4.0])
def test_a_region_of_one_slice_of_a_volume_has_the_features_of_a_volume(tmp_path, resample_mm):
    values = np.random.default_rng(0).normal(size=(20, 20, 6)).astype(np.float32)
    labels = np.zeros(values.shape, np.uint8)
    labels[2:18, 2:18, 3] = 1
    for name, array in (("ct", values), ("ct_seg", labels)):
        image = nibabel.Nifti1Image(array, np.diag([1.0, 1.0, 3.0, 1.0]))
        nibabel.save(image, tmp_path / f"{name}.nii")
    paths = tmp_path / "ct.nii", tmp_path / "ct_seg.nii"
    table = extract_radiomics(*paths, bin_count=8, resample_mm=resample_mm)
    assert table.columns("shape") and not table.columns("shape2d")
