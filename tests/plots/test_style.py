import numpy as np
import pandas as pd
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from radiodino_utils.data.demo_ct import ORGANS, STRUCTURES
from radiodino_utils.plots.style import COLOURS, chance, class_looks, draw_backbones

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


def test_backbones_stand_beside_each_other_around_their_row():
    axis = Figure().subplots()
    values = {"value": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    rows = [
        {"backbone": backbone, "protocol": name} | values for backbone in "abc" for name in "pq"
    ]
    names, labels = ["absent", "p", "q"], ["none", "p", "q"]
    table = pd.DataFrame(rows)
    draw_backbones(axis, table, names, list("abc"), key="protocol", labels=labels)
    positions = [line.get_ydata() for line in axis.lines]
    np.testing.assert_allclose(np.mean(positions, 0), [0, 1, 2])
    np.testing.assert_allclose(np.diff(positions, axis=0), 0.7 / 3)
    assert [label.get_text() for label in axis.get_yticklabels()] == labels
    np.testing.assert_allclose(axis.lines[0].get_xdata(), [np.nan, 50, 50])


def test_a_class_has_one_look_in_every_figure():
    whole = class_looks(STRUCTURES)
    assert len({colour for colour, _ in whole.values()}) == len(STRUCTURES) == 12
    assert class_looks(ORGANS) == {name: whole[name] for name in whole if name in ORGANS}
    assert list(class_looks(["10", "9", "a"])) == ["a", "9", "10"]
    sixty = class_looks(f"class {i}" for i in range(60))
    assert len(set(sixty.values())) == 60


def test_chance_depends_on_metric_and_classes():
    assert chance("accuracy", 4) == 25 and chance("auc", None) == 50
    assert np.isnan(chance("accuracy", None)) and np.isnan(chance("f1_macro", 4))
