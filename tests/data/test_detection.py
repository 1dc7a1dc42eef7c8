"""What lies at a path, and its name for other commands."""

import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.detection import detect

from .test_dicom import dicom


@pytest.fixture
def studies(tmp_path):
    """Write DICOM files of patients, given by path."""

    def write(patients):
        for path, patient in patients.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            dicom(tmp_path / path, np.zeros((4, 5), np.uint8), PatientID=patient)
        return tmp_path

    return write


def kind_and_name(path):
    found = detect(path)
    return found.kind, found.name


def test_folders_of_photographic_images(images):
    root = images(["a/1.png", "b/1.png"])
    assert kind_and_name(root) == ("classes", f"folder:{root}")
    assert kind_and_name(root / "a") == ("images", f"folder:{root / 'a'}?labels=unlabelled")
    assert kind_and_name(images(["Train/a/1.png"]))[0] == "classes"


def test_a_list_beside_flat_images(tmp_path, images):
    root = images(["x/1.png", "x/2.png"])
    assert detect(root).kind == "images" and not detect(root).has_labels
    (root / "about.csv").write_text("one,two\n1,2\n")
    (root / "info.csv").write_text("Image;Diagnosis\nx/1.png;sick\n")
    assert kind_and_name(root) == ("list", f"folder:{root / 'info.csv'}")
    assert kind_and_name(root / "info.csv") == ("list", f"folder:{root / 'info.csv'}")
    (root / "more.tsv").write_text("path\tlabel\nx/1.png\tsick\n")
    assert detect(root).kind == "images" and not detect(root).has_labels


def test_masks_and_volumes(images, tmp_path):
    root = images(["images/1.png", "masks/1.png"])
    assert kind_and_name(root) == ("masks", f"masks:{root}")
    (root / "images" / "1.png").rename(root / "images" / "1.nii.gz")
    assert kind_and_name(root) == ("volumes", f"volumes:{root}")
    assert detect(root).has_masks


@pytest.mark.parametrize(("of_images", "of_masks"), [("Img", "msk"), ("imgs", "labels")])
def test_masks_in_folders_of_other_names(images, of_images, of_masks):
    root = images([f"{of_images}/1.png", f"{of_masks}/1.png"])
    name = f"masks:{root / of_masks}?images={root / of_images}"
    assert kind_and_name(root) == ("masks", name)
    assert (detect(root).images, detect(root).masks) == (root / of_images, root / of_masks)


def test_a_folder_of_labels_without_images_is_no_folder_of_masks(images):
    root = images(["images/1.png"])
    (root / "labels").mkdir()
    (root / "labels" / "1.txt").write_text("0 0 0 1 1")
    assert kind_and_name(root)[0] == "images"


def test_studies_are_known_by_their_content(studies):
    root = studies({"p1/IM0": "1", "p1/IM1": "1", "p2/IM0": "2", "p2/IM1": "2"})
    found = detect(root)
    assert (found.kind, found.name) == ("dicom", f"dicom:{root}?labels=unlabelled")
    assert f"dicom:{root}" in found.hint and f"folder:{root}" in found.hint
    (root / "labels.csv").write_text("patient,label\n1,x\n2,y\n")
    assert kind_and_name(root) == ("dicom", f"dicom:{root}")


def test_folders_that_each_mix_patients_are_classes(studies):
    root = studies({"sick/1.dcm": "1", "sick/2.dcm": "2", "well/3.dcm": "3", "well/4.dcm": "4"})
    assert kind_and_name(root) == ("classes", f"folder:{root}")


def test_dicom_in_one_folder(studies):
    assert kind_and_name(studies({"IM0": "1", "IM1": "2"}))[0] == "dicom"


def test_files_and_nothing(tmp_path, images):
    images(["a.png"])
    assert kind_and_name(tmp_path / "a.png") == ("images", "")
    for name, kind in (("a.NPZ", "npz"), ("b.tar.gz", "archive"), ("c.txt", "nothing")):
        (tmp_path / name).write_text("x")
        assert detect(tmp_path / name).kind == kind
    with pytest.raises(InputError, match="nowhere: there is no such file or folder"):
        detect(tmp_path / "nowhere")
