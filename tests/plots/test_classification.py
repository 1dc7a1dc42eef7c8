from dataclasses import replace

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import ImageDataset, Split
from radiodino_utils.evaluation.knn import classify_knn, knn_curve
from radiodino_utils.evaluation.results import classification_rows, curve_rows
from radiodino_utils.explain.attention import Attention
from radiodino_utils.explain.faithfulness import METRICS
from radiodino_utils.explain.patches import PatchColours
from radiodino_utils.features.projection import explained_variance
from radiodino_utils.plots import classification as figures
from radiodino_utils.plots import explanations as map_figures
from radiodino_utils.plots.style import COLOURS

from ..synthetic import synthetic_features

matplotlib.use("Agg")
CAVEAT = "one patient, automatic labels"
BACKBONES, SETS, KS = (
    ("random-t16", "pixels", "radiodino-s16"),
    ("made-a", "made-b"),
    (1, 5, 20, 200),
)


@pytest.fixture(scope="module")
def features():
    return [
        synthetic_features(
            noise=2.0, seed=i, dataset=name, backbone=backbone, classes=12, caveat=CAVEAT
        )
        for name in SETS
        for i, backbone in enumerate(BACKBONES)
    ]


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def drawn(features):
    """Every figure, by the name of its function."""
    generator = np.random.default_rng(0)
    curves = curve_rows(one for part in features for one in knn_curve(part, ks=KS))
    chosen = {
        (one.dataset, one.backbone): one.choice["k"]
        for one in (classify_knn(each, ks=KS) for each in features)
    }
    predictions = [classify_knn(one, ks=KS) for one in features]
    rows = pd.concat(
        [classification_rows(one, resamples=50) for one in predictions], ignore_index=True
    )
    names = [f"structure {i}" for i in range(12)]
    points = pd.DataFrame(
        generator.normal(size=(240, 4)), columns=["pca1", "pca2", "umap1", "umap2"]
    ).assign(
        dataset=np.repeat(SETS, 120),
        backbone=np.tile(BACKBONES, 80),
        **{"class": np.repeat([*names, *names], 10)},
    )
    images = generator.integers(0, 256, (30, 16, 16), dtype=np.uint8)
    train = Split(images, np.arange(30) % 3, [str(i) for i in range(30)])
    maps = generator.random((1, 3, 4, 4), dtype=np.float32)
    panels = map_figures.map_panels(
        images[0], {"attention": maps[0, 0], "rollout": maps[0, 1]}, outlines=[images[0] > 128]
    )
    coloured = PatchColours(
        generator.random((2, 4, 4, 3)),
        np.ones((2, 4, 4), bool),
        np.array([0.4, 0.2, 0.1]),
        list(images[:2]),
    )
    explained = pd.DataFrame(
        {
            "protocol": name,
            "backbone": backbone,
            "metric": metric,
            "value": 0.2,
            "ci_low": 0.1,
            "ci_high": 0.4,
            "n": 5,
        }
        for name in ("attention", "centre")
        for backbone in BACKBONES
        for metric in METRICS
    )
    attention = Attention(np.zeros((1, 3, 17)), maps, images[0], np.zeros(8))
    return {
        "sample_sheet": lambda: figures.sample_sheet(
            ImageDataset("made", ("liver", "lung", "rib"), {"train": train}, "", CAVEAT)
        ),
        "attention_heads": lambda: map_figures.attention_heads(
            attention, title="random-t16: a image", caveat=CAVEAT
        ),
        "map_sheet": lambda: map_figures.map_sheet(
            {"kidney\nrandom-t16": panels, "aorta\nrandom-t16": panels}, title="maps", caveat=CAVEAT
        ),
        "colour_sheet": lambda: map_figures.colour_sheet(
            {"random-t16": coloured}, title="colours", caveat=CAVEAT
        ),
        "similarity_sheet": lambda: map_figures.similarity_sheet(
            images[0],
            (1, 2),
            {"random-t16": (maps[0, :1], images[:1])},
            ["liver"],
            title="likeness",
            caveat=CAVEAT,
        ),
        "score_intervals": lambda: map_figures.score_intervals(explained, caveat=CAVEAT),
        "k_curves": lambda: figures.k_curves(curves, chosen, caveat=CAVEAT),
        "confusion_matrices": lambda: figures.confusion_matrices(predictions[:3]),
        "confusion_matrices_of_two_classes": lambda: figures.confusion_matrices(
            [
                replace(
                    one,
                    classes=("malignant", "normal, benign"),
                    labels=one.labels % 2,
                    probabilities=one.probabilities[:, :2],
                    choice={"C": "0.01 / 0.001 / 0.00316 / 0.00562 / 0.00178"},
                )
                for one in predictions[:3]
            ]
        ),
        "scree": lambda: figures.scree(
            pd.concat([explained_variance(one) for one in features]), caveat=CAVEAT
        ),
        "scatter_pca": lambda: figures.scatter_grid(points, method="pca", caveat=CAVEAT),
        "scatter_umap": lambda: figures.scatter_grid(points, method="umap", caveat=CAVEAT),
        "metric_bars": lambda: figures.metric_bars(rows),
    }


NAMES = [
    "sample_sheet",
    "attention_heads",
    "map_sheet",
    "colour_sheet",
    "similarity_sheet",
    "score_intervals",
    "k_curves",
    "confusion_matrices",
    "confusion_matrices_of_two_classes",
    "scree",
    "scatter_pca",
    "scatter_umap",
    "metric_bars",
]


def _within(place, limits):
    return min(limits) <= place <= max(limits)


def texts(figure):
    """Every text that is drawn, with its box in pixels."""
    found = [figure._suptitle, *(text for legend in figure.legends for text in legend.get_texts())]
    for axis in figure.axes:
        if axis.axison:
            found += [axis.xaxis.label, axis.yaxis.label]
            found += [
                one
                for one in axis.get_xticklabels()
                if _within(one.get_position()[0], axis.get_xlim())
            ]
            found += [
                one
                for one in axis.get_yticklabels()
                if _within(one.get_position()[1], axis.get_ylim())
            ]
        found += [axis.title, *axis.texts]
    return [
        (one.get_text(), one.get_window_extent())
        for one in found
        if one.get_visible() and one.get_text().strip()
    ]


@pytest.mark.parametrize("name", NAMES)
def test_no_text_lies_on_another_or_beyond_the_edge(drawn, name):
    figure = drawn[name]()
    figure.canvas.draw()
    boxes = texts(figure)
    assert boxes
    edges = (
        (figure.bbox.x0 - 2, figure.bbox.x1 + 2),
        (figure.bbox.y0 - 2, figure.bbox.y1 + 2),
    )  # pixels of 0.25 mm
    for i, (text, box) in enumerate(boxes):
        assert (
            _within(box.x0, edges[0])
            and _within(box.x1, edges[0])
            and _within(box.y0, edges[1])
            and _within(box.y1, edges[1])
        ), text
        for other, other_box in boxes[:i]:
            wide = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
            high = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
            assert wide <= 0.5 or high <= 0.5, f"{text!r} lies on {other!r}"


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_saved_again_is_the_same_file(drawn, name, tmp_path):
    first = figures.save_figure(drawn[name](), tmp_path / "first", name)
    second = figures.save_figure(drawn[name](), tmp_path / "second", name)
    assert [path.suffix for path in first] == [".png", ".pdf"]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()
    assert first[0].read_bytes()[:4] == b"\x89PNG" and first[1].read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize("name", NAMES)
def test_the_caveat_is_in_the_figure(drawn, name):
    assert CAVEAT in drawn[name]().get_suptitle().replace("\n", " ")


def test_floors_are_named_in_the_legends(drawn):
    for name in ("k_curves", "scree", "metric_bars"):
        labels = [text.get_text() for text in drawn[name]().legends[0].get_texts()]
        assert labels == ["random-t16 (random weights)", "pixels (no backbone)", "radiodino-s16"]


def test_every_class_is_named_beside_the_confusion_matrix(drawn, features):
    figure = drawn["confusion_matrices"]()
    figure.canvas.draw()
    first, *others = figure.axes[:3]
    assert [one.get_text() for one in first.get_yticklabels()] == list(features[0].classes)
    for axis in (first, *others):
        assert [one.get_text() for one in axis.get_xticklabels()] == list(features[0].classes)
    assert "k = " in first.get_title()
    sizes = {
        (round(axis.get_window_extent().width), round(axis.get_window_extent().height))
        for axis in (first, *others)
    }
    assert len(sizes) == 1


def test_confusion_is_in_percent_of_the_true_class(features):
    one = classify_knn(features[0], protocol="knn11")
    mesh = figures.confusion_matrices([one]).axes[0].collections[0]
    shares = mesh.get_array().reshape(12, 12)
    np.testing.assert_allclose(shares.sum(1), 100)
    right = np.mean(one.probabilities.argmax(1)[one.labels == 0] == 0)
    assert shares[0, 0] == pytest.approx(100 * right)


def test_only_a_choice_on_validation_is_called_so(features):
    figure = figures.confusion_matrices([classify_knn(features[0], protocol="knn1")])
    assert "validation" not in figure.get_suptitle() and "k = 1" in figure.axes[0].get_title()


def test_bars_show_the_interval_itself(features):
    rows = classification_rows(classify_knn(features[0], ks=(5,)), resamples=50)
    rows[["value", "ci_low", "ci_high"]] = (
        0.5,
        0.55,
        0.6,
    )  # a percentile interval need not hold the value
    segment = figures.metric_bars(rows).axes[0].collections[0].get_segments()[0]
    np.testing.assert_allclose(segment[:, 0], [55, 60])


def test_bars_are_of_the_test_split_only(features):
    rows = classification_rows(classify_knn(features[0], ks=(5,)), resamples=50)
    both = pd.concat([rows, rows.assign(split="val", value=0.0)], ignore_index=True)
    point = figures.metric_bars(both).axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(point, 100 * rows["value"].iloc[0])
    with pytest.raises(InputError, match="protocol linear: there are no result rows"):
        figures.metric_bars(both, protocol="linear")


@pytest.mark.parametrize("method", ["pca", "umap"])
def test_scatters_are_not_stretched(drawn, method):
    figure = drawn[f"scatter_{method}"]()
    figure.canvas.draw()
    for axis in figure.axes:
        box = axis.get_window_extent()
        per_x, per_y = box.width / np.ptp(axis.get_xlim()), box.height / np.ptp(axis.get_ylim())
        assert per_x == pytest.approx(per_y, rel=0.01)


def test_twelve_classes_are_told_apart_by_colour_and_marker(drawn):
    legend = drawn["scatter_pca"]().legends[0]
    looks = {(one.get_markerfacecolor(), one.get_marker()) for one in legend.legend_handles}
    assert len(legend.get_texts()) == 12 and len({str(look) for look in looks}) == 12


def test_more_backbones_than_colours_can_be_drawn():
    many = [synthetic_features(backbone=f"file:{i}", noise=2.0, seed=i) for i in range(9)]
    curves = curve_rows(one for part in many for one in knn_curve(part, ks=(1, 5)))
    assert len(figures.k_curves(curves, {}).legends[0].get_texts()) == 9


def test_the_palette_keeps_its_contrast_for_the_colour_blind():
    """Simulated deuteranopia and protanopia (Machado et al., 2009, severity 1) leave every pair of colours apart."""
    deuteranopia = [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]
    protanopia = [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]
    colours = np.array([to_rgb(one) for one in COLOURS])
    for matrix in (np.eye(3), deuteranopia, protanopia):
        seen = np.clip(colours @ np.transpose(matrix), 0, 1)
        apart = min(np.linalg.norm(seen[i] - seen[j]) for i in range(len(seen)) for j in range(i))
        assert apart > 0.1


def test_maps_of_fewer_images_are_in_the_title(drawn):
    assert "n = 5 images" in drawn["score_intervals"]().get_suptitle().replace("\n", " ")
    some = pd.DataFrame(
        {
            "protocol": ["attention", "even"],
            "backbone": "tiny",
            "metric": "road",
            "value": 0.2,
            "n": [4, 5],
        }
    )
    figure = map_figures.score_intervals(some.assign(ci_low=0.1, ci_high=0.3), caveat=CAVEAT)
    assert "n = 4 to 5 images" in figure.get_suptitle().replace("\n", " ")


def test_dollars_and_long_names_are_drawn_as_they_are(tmp_path):
    names = ("$\\frac", "a$b$c", "<b>x</b>", "_x_", "", "n" * 200)
    labels = np.arange(12) % 6
    one = replace(
        classify_knn(synthetic_features(), protocol="knn1"),
        classes=names,
        labels=labels,
        positive="",
    )
    one = replace(one, probabilities=np.eye(6)[labels], ids=list("abcdefghijkl"))
    figure = figures.confusion_matrices([one])
    shown = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert shown[:5] == list(names[:5]) and shown[5].endswith("…") and len(shown[5]) == 40
    figures.save_figure(figure, tmp_path, "a")
    part = Split(np.zeros((12, 4, 4), np.uint8), labels, one.ids)
    figures.save_figure(
        figures.sample_sheet(ImageDataset("made $x", names, {"train": part}, "")), tmp_path, "b"
    )


def test_thousands_of_classes_are_drawn_in_bounds():
    classes, n = 5000, 6000
    labels = np.r_[np.arange(classes), np.zeros(n - classes, np.int64)]
    names = tuple(f"class {i}" for i in range(classes))
    probabilities = np.zeros((n, classes), np.float32)
    probabilities[np.arange(n), np.roll(labels, 1)] = 1
    one = replace(
        classify_knn(synthetic_features(), protocol="knn1"),
        classes=names,
        labels=labels,
        probabilities=probabilities,
    )
    figure = figures.confusion_matrices([one])
    ticks = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert len(ticks) == 25 and ticks[0] == "class 0" and ticks[-1] == "4976 other classes"
    sheet = figures.sample_sheet(
        ImageDataset(
            "made", names, {"train": Split(np.zeros((n, 4, 4), np.uint8), labels, names)}, ""
        )
    )
    assert len(sheet.axes) == 24 * 8 and "the 24 largest of 5000 classes" in sheet.get_suptitle()
    plt.close("all")
