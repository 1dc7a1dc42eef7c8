"""What holds for every figure, drawn from synthetic results."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from radiodino_utils import plots
from radiodino_utils.data.registry import ImageDataset, Split
from radiodino_utils.evaluation.knn import classify_knn, knn_curve
from radiodino_utils.evaluation.results import classification_rows, curve_rows
from radiodino_utils.explain.attention import Attention
from radiodino_utils.explain.faithfulness import METRICS
from radiodino_utils.explain.patches import PatchColours
from radiodino_utils.features.projection import explained_variance
from radiodino_utils.plots.style import read_texts

from ..synthetic import synthetic_features
from .conftest import BACKBONES, CAVEAT, DATASETS
from .text_boxes import require_room

KS = (1, 5, 20, 200)


def classification_figures(features):
    predictions = [classify_knn(part, ks=KS) for part in features]
    results = pd.concat([classification_rows(part, resamples=50) for part in predictions])
    curves = curve_rows(part for each in features for part in knn_curve(each, ks=KS))
    chosen = {(part.dataset, part.backbone): part.choice["k"] for part in predictions}
    two_classes = [
        replace(
            part,
            classes=("malignant", "normal, benign"),
            labels=part.labels % 2,
            probabilities=part.probabilities[:, :2],
            choice={"C": "0.01 / 0.001 / 0.00316 / 0.00562 / 0.00178"},
        )
        for part in predictions[:3]
    ]
    images = np.random.default_rng(0).integers(0, 256, (30, 16, 16), dtype=np.uint8)
    train = Split(images, np.arange(30) % 3, [str(i) for i in range(30)])
    dataset = ImageDataset("synthetic", ("liver", "lung", "rib"), {"train": train}, "", CAVEAT)
    return {
        "sample_sheet": lambda: plots.sample_sheet(dataset),
        "k_curves": lambda: plots.k_curves(curves, chosen, caveat=CAVEAT),
        "confusion_matrices": lambda: plots.confusion_matrices(predictions[:3]),
        "confusion_matrices_of_two_classes": lambda: plots.confusion_matrices(two_classes),
        "metric_bars": lambda: plots.metric_bars(results),
    }


def embedding_figures(features):
    variances = pd.concat([explained_variance(part) for part in features])
    coordinates = np.random.default_rng(0).normal(size=(240, 4))
    names = [f"structure {i}" for i in range(12)]
    points = pd.DataFrame(coordinates, columns=["pca1", "pca2", "umap1", "umap2"]).assign(
        dataset=np.repeat(DATASETS, 120),
        backbone=np.tile(BACKBONES, 80),
        **{"class": np.repeat([*names, *names], 10)},
    )
    return {
        "scree": lambda: plots.scree(variances, caveat=CAVEAT),
        "scatter_pca": lambda: plots.scatter_grid(points, method="pca", caveat=CAVEAT),
        "scatter_umap": lambda: plots.scatter_grid(points, method="umap", caveat=CAVEAT),
    }


def explanation_figures():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (2, 16, 16), dtype=np.uint8)
    maps = generator.random((1, 3, 4, 4), dtype=np.float32)
    attention = Attention(np.zeros((1, 3, 17)), maps, images[0], np.zeros(8))
    titled_maps = {"attention": maps[0, 0], "rollout": maps[0, 1]}
    panels = plots.map_panels(images[0], titled_maps, outlines=[images[0] > 128])
    colours = generator.random((2, 4, 4, 3))
    shares = np.array([0.4, 0.2, 0.1])
    coloured = PatchColours(colours, np.ones((2, 4, 4), bool), shares, list(images))
    rows = {"kidney\nrandom-t16": panels, "aorta\nrandom-t16": panels}
    similarity = {"random-t16": (maps[0, :1], images[:1])}
    keys = pd.MultiIndex.from_product(
        [("attention", "centre"), BACKBONES, METRICS], names=["protocol", "backbone", "metric"]
    )
    scores = keys.to_frame(index=False).assign(value=0.2, ci_low=0.1, ci_high=0.4, n=5)
    options = {"title": "an image", "caveat": CAVEAT}
    return {
        "attention_heads": lambda: plots.attention_heads(attention, **options),
        "map_sheet": lambda: plots.map_sheet(rows, **options),
        "colour_sheet": lambda: plots.colour_sheet({"random-t16": coloured}, **options),
        "similarity_sheet": lambda: plots.similarity_sheet(
            images[0], (1, 2), similarity, ["liver"], **options
        ),
        "score_intervals": lambda: plots.score_intervals(scores, caveat=CAVEAT),
    }


def radiomics_figures():
    generator = np.random.default_rng(0)
    icc = generator.uniform(0.3, 1, 120)
    families = np.repeat(["shape", "firstorder", "glcm", "glrlm", "ngtdm", "deep"], 20)
    table = pd.DataFrame({"family": families, "icc2": icc, "icc2_low": icc - 0.1})
    curves = pd.DataFrame(
        {
            "model": np.repeat(["clinical", "fused", "treat all", "treat none"], 9),
            "threshold": np.tile(np.linspace(0.1, 0.9, 9), 4),
            "net_benefit": np.tile(np.linspace(0.5, 0, 9), 4),
        }
    )
    return {
        "stability_by_family": lambda: plots.stability_by_family(
            table.assign(regions=89, measurements=7), caveat=CAVEAT
        ),
        "decision_curves": lambda: plots.decision_curves(curves, caveat=CAVEAT),
    }


@pytest.fixture(scope="module")
def figures(features):
    """Functions that draw each figure, by name."""
    of_features = classification_figures(features) | embedding_figures(features)
    return of_features | explanation_figures() | radiomics_figures()


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
    "stability_by_family",
    "decision_curves",
]


def test_every_figure_is_checked(figures):
    assert set(figures) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_text_lies_on_another_or_beyond_the_edge(figures, name):
    require_room(figures[name]())


@pytest.mark.parametrize("count", [2, 3, 12, 60])
@pytest.mark.parametrize(
    "name",
    [
        *("sample_sheet", "confusion_matrices", "error_sheet", "query_strip"),
        *("roc_and_reliability", "scatter_pca", "scatter_umap"),
    ],
)
def test_there_is_room_for_any_number_of_classes(name, count):
    names = tuple(f"structure {i} of the body" for i in range(count))
    labels = np.arange(3 * count) % count
    probabilities = np.eye(count)[np.roll(labels, 1)]
    prediction = replace(
        classify_knn(synthetic_features(), protocol="knn1"),
        **{"classes": names, "labels": labels, "probabilities": probabilities, "positive": ""},
        ids=[str(i) for i in range(len(labels))],
    )
    predictions = [replace(prediction, backbone=backbone) for backbone in BACKBONES]
    images = np.zeros((len(labels), 16, 16), np.uint8)
    dataset = ImageDataset("made", names, {"train": Split(images, labels, prediction.ids)}, "")
    found = pd.DataFrame({"row": range(6), "class": names[-1], "distance": 0.123})
    points = pd.DataFrame(
        np.random.default_rng(0).random((len(labels), 4)),
        columns=["pca1", "pca2", "umap1", "umap2"],
    ).assign(dataset="synthetic", backbone=BACKBONES[0], **{"class": np.array(names)[labels]})
    draw = {
        "sample_sheet": lambda: plots.sample_sheet(dataset),
        "confusion_matrices": lambda: plots.confusion_matrices(predictions),
        "error_sheet": lambda: plots.error_sheet(prediction, [dataset]),
        "query_strip": lambda: plots.query_strip(
            images[0], found, dataset.splits["train"], title="a query", true_class=names[0]
        ),
        "roc_and_reliability": lambda: plots.roc_and_reliability(predictions),
        "scatter_pca": lambda: plots.scatter_grid(points, method="pca", caveat=CAVEAT),
        "scatter_umap": lambda: plots.scatter_grid(points, method="umap", caveat=CAVEAT),
    }
    require_room(draw[name]())


@pytest.mark.parametrize("count", [2, 3, 12, 60])
def test_there_is_room_for_any_number_of_families(count):
    icc = np.random.default_rng(0).uniform(0.3, 1, 4 * count)
    families = np.repeat([f"family of features {i}" for i in range(count)], 4)
    table = pd.DataFrame({"family": families, "icc2": icc, "icc2_low": icc - 0.1})
    table = table.assign(regions=89, measurements=7)
    require_room(plots.stability_by_family(table, caveat=CAVEAT))


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_saved_again_is_the_same_file(figures, name, tmp_path):
    first = plots.save_figure(figures[name](), tmp_path / "first", name)
    second = plots.save_figure(figures[name](), tmp_path / "second", name)
    assert [path.suffix for path in first] == [".png", ".pdf"]
    for path, again in zip(first, second, strict=True):
        assert path.read_bytes() == again.read_bytes()
    assert first[0].read_bytes()[:4] == b"\x89PNG" and first[1].read_bytes()[:5] == b"%PDF-"


@pytest.mark.parametrize("name", NAMES)
def test_the_caveat_is_in_the_figure(figures, name):
    assert CAVEAT in figures[name]().get_suptitle().replace("\n", " ")


@pytest.mark.parametrize("name", ["k_curves", "scree", "metric_bars"])
def test_baselines_are_named_in_the_legends(figures, name):
    labels = [text.get_text() for text in figures[name]().legends[0].get_texts()]
    named = ["random-t16 (random weights)", "pixels (no backbone)", "radiodino-s16"]
    assert [label for label in labels if label != "chance"] == named


@pytest.mark.parametrize("name", ["scatter_pca", "scatter_umap"])
def test_scatters_are_not_stretched(figures, name):
    figure = figures[name]()
    figure.canvas.draw()
    for axis in figure.axes:
        box = axis.get_window_extent()
        per_x, per_y = box.width / np.ptp(axis.get_xlim()), box.height / np.ptp(axis.get_ylim())
        assert per_x == pytest.approx(per_y, rel=0.01)


def test_twelve_classes_are_told_apart_by_colour_and_marker(figures):
    legend = figures["scatter_pca"]().legends[0]
    colours = {str(handle.get_markerfacecolor()) for handle in legend.legend_handles}
    markers = {str(handle.get_marker()) for handle in legend.legend_handles}
    assert len(legend.get_texts()) == len(colours) == 12 and len(markers) == 5
    assert legend.get_title().get_text() == "class"


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_figure_says_what_it_shows(figures, name, tmp_path):
    texts = read_texts(plots.save_figure(figures[name](), tmp_path, name)[0])
    assert texts["Caption"].endswith(".") and len(texts["Caption"].split()) > 12
    kind, _, title = texts["Alt"].partition(": ")
    assert kind not in ("", "Figure") and title.endswith(".")


def test_chance_is_drawn_where_it_is_known(figures, features):
    figure = plots.metric_bars(
        pd.concat([classification_rows(classify_knn(features[0], ks=(5,)), resamples=9)]),
        classes={DATASETS[0]: 4},
    )
    for axis, level in zip(figure.axes, (25, None, 50), strict=True):
        drawn = [line for line in axis.collections if line.get_label() == "chance"]
        assert [line.get_segments()[0][0, 0] for line in drawn] == ([level] if level else [])
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[-1] == "chance" and figure.legends[0].get_title().get_text() == "backbone"
