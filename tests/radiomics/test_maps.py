"""Maps of a feature lie where the regions lie."""

import nibabel
import numpy as np
import pytest

from radiodino_utils.core.errors import InputError
from radiodino_utils.radiomics.extraction import extract_radiomics
from radiodino_utils.radiomics.maps import write_feature_maps

AFFINES = {  # of what is stored slice by slice
    "axial": [[-2.0, 0, 0, 7], [0, 3.0, 0, -4], [0, 0, 4.0, 9], [0, 0, 0, 1]],
    "coronal": [[2.0, 0, 0, 7], [0, 0, -3.0, -4], [0, 4.0, 0, 9], [0, 0, 0, 1]],
    "sagittal": [[0, 0, 2.0, 7], [-3.0, 0, 0, -4], [0, -4.0, 0, 9], [0, 0, 0, 1]],
    "oblique": [[1.9, 0.6, 0, 7], [-0.4, 2.9, 0.2, -4], [0.1, -0.3, 4.0, 9], [0, 0, 0, 1]],
}


@pytest.fixture(params=AFFINES)
def pair(tmp_path, request):
    values = np.random.default_rng(0).normal(size=(14, 12, 6)).astype(np.float32)
    labels = np.zeros(values.shape, np.uint8)
    labels[1:5, 2:9, 1:5], labels[8:13, 2:5, 0:3], labels[8:10, 8:12, 4:6] = 1, 2, 2
    for name, array in (("ct", values), ("ct_seg", labels)):
        nibabel.save(
            nibabel.Nifti1Image(array, np.array(AFFINES[request.param])), tmp_path / f"{name}.nii"
        )
    return tmp_path / "ct.nii", tmp_path / "ct_seg.nii"


@pytest.mark.parametrize("components", [False, True])
def test_a_map_holds_the_value_of_each_region_on_the_grid_of_the_image(pair, tmp_path, components):
    table = extract_radiomics(*pair, components=components, bin_count=8)
    assert len(table.rows) == 2 + components
    (path,) = write_feature_maps(table, "firstorder_mean", tmp_path / "maps", *pair)
    image, mask, painted = (nibabel.as_closest_canonical(nibabel.load(p)) for p in (*pair, path))
    np.testing.assert_allclose(painted.affine, image.affine, atol=1e-5)
    values, labels, drawn = (volume.get_fdata() for volume in (image, mask, painted))
    assert np.array_equal(np.isnan(drawn), labels == 0)
    assert np.unique(drawn[labels == 1]) == pytest.approx(values[labels == 1].mean(), rel=1e-5)
    assert len(np.unique(drawn[labels == 2])) == 1 + components


def test_an_unknown_feature_is_one_sentence(pair, tmp_path):
    table = extract_radiomics(*pair, bin_count=8)
    with pytest.raises(InputError, match="did you mean firstorder_mean"):
        write_feature_maps(table, "firstorder_meen", tmp_path, *pair)
