import numpy as np
from matplotlib.colors import to_rgb

from radiodino_utils.plots.style import COLOURS, series_positions

# Machado et al., IEEE TVCG 15:1291, 2009, severity 1
DEUTERANOPIA = [
    [0.367322, 0.860646, -0.227968],
    [0.280085, 0.672501, 0.047413],
    [-0.011820, 0.042940, 0.968881],
]
PROTANOPIA = [
    [0.152286, 1.052583, -0.204868],
    [0.114503, 0.786281, 0.099216],
    [-0.003882, -0.048116, 1.051998],
]


def test_the_palette_keeps_its_contrast_for_the_colour_blind():
    colours = np.array([to_rgb(colour) for colour in COLOURS])
    for matrix in (np.eye(3), DEUTERANOPIA, PROTANOPIA):
        seen = np.clip(colours @ np.transpose(matrix), 0, 1)
        pairs = zip(*np.triu_indices(len(seen), 1), strict=True)
        assert min(np.linalg.norm(seen[i] - seen[j]) for i, j in pairs) > 0.1


def test_series_stand_beside_each_other_around_their_category():
    positions = [series_positions(2, i, 3, width=0.6) for i in range(3)]
    np.testing.assert_allclose(positions, [[-0.2, 0.8], [0, 1], [0.2, 1.2]])
