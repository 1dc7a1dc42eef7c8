"""Contact sheets: which images are shown, with their masks."""

import nibabel
import numpy as np
import pytest
from PIL import Image

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.inspection import inspect
from radiodino_utils.data.sheets import CAPTION, COLOURS, TILE, contact_sheet, write_sheet

pytestmark = pytest.mark.filterwarnings("ignore")


def sheet_of(path, **options):
    return np.asarray(contact_sheet(inspect(path, progress=False), **options))


@pytest.fixture
def write(tmp_path):
    """Write a grey image of one value."""

    def write(name, value, shape=(40, 60)):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(shape, value, np.uint8)).save(path)
        return path

    return write


def tile(sheet, row, column):
    """Return the centre of a tile."""
    return sheet[row * (TILE + CAPTION) + TILE // 2, column * TILE + TILE // 2].tolist()


def test_each_class_has_as_many_tiles(write, tmp_path):
    for number in range(9):
        write(f"a/{number}.png", 50)
    write("b/1.png", 200)
    sheet = sheet_of(tmp_path, count=4, columns=3)
    assert sheet.shape == (TILE + CAPTION, 3 * TILE, 3)
    assert [tile(sheet, 0, column) for column in range(3)] == [[50] * 3, [50] * 3, [200] * 3]


def test_masks_are_laid_over_their_images(write, tmp_path):
    for number in range(3):
        write(f"images/{number}.png", 100)
        write(f"masks/{number}_mask.png", 255 * (number > 0))
    sheet = sheet_of(tmp_path)
    mixed = [int(0.6 * 100 + 0.4 * channel) for channel in COLOURS[254 % len(COLOURS)]]
    assert tile(sheet, 0, 0) == [100] * 3 and tile(sheet, 0, 1) != [100] * 3
    write("beside/a.png", 100), write("beside/a_mask.png", 255)
    assert tile(sheet_of(tmp_path / "beside"), 0, 0) == mixed


def test_of_a_volume_the_slice_with_most_labels_is_shown(tmp_path):
    volume, labels = np.zeros((8, 8, 9), np.int16), np.zeros((8, 8, 9), np.uint8)
    volume[..., 7], labels[..., 7] = np.arange(8), 1
    for part, values in (("images", volume), ("masks", labels)):
        (tmp_path / part).mkdir()
        for name in "abc":
            nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / part / f"{name}.nii.gz")
    sheet = sheet_of(tmp_path)
    assert sheet[70:90, 70:90].any() and len(set(tile(sheet, 0, 0))) > 1


def test_pixels_that_are_not_square_are_shown_at_their_proportions(tmp_path):
    volume = nibabel.Nifti1Image(np.ones((40, 1, 10), np.int16) * 9, np.diag([1.0, 1, 4, 1]))
    volume.dataobj[0] = 0
    nibabel.save(volume, tmp_path / "coronal.nii")
    sheet = sheet_of(tmp_path, columns=1)
    assert (sheet[:TILE].max(-1).any(1)).sum() == TILE  # 10 rows of 4 mm are as high as 40 of 1 mm


def test_what_cannot_be_read_is_black(write, tmp_path):
    write("a.png", 100)
    content = write("b.png", 100, (400, 600)).read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    sheet = sheet_of(tmp_path)
    assert tile(sheet, 0, 0) == [100] * 3 and not sheet[5, TILE + 5].any()


def test_wrong_sheets(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    inspection = inspect(tmp_path, progress=False)
    with pytest.raises(InputError, match="holds no images to show"):
        contact_sheet(inspection)
    with pytest.raises(InputError, match=r"unknown suffix '.jpg'; use .png"):
        write_sheet(inspection, tmp_path / "sheet.jpg")
