import numpy as np
import pandas as pd

from radiodino_utils.plots.pretraining import schedule_lines, training_curves, view_sheet
from radiodino_utils.pretraining.monitor import COLUMNS, START_COLUMNS
from radiodino_utils.pretraining.schedules import schedule_table
from radiodino_utils.pretraining.views import ViewSet

from ..synthetic_corpus import smallest, synthetic_corpus


def synthetic_monitor(run, start=0):
    rows = pd.DataFrame({column: np.linspace(1, 2, 20) for column in COLUMNS})
    return rows.assign(run=run, images=start + np.arange(20) * 64, ibot=np.nan)


def test_curves_of_one_run():
    figure = training_curves(synthetic_monitor("a").drop(columns="run"), title="one")
    assert len(figure.axes) == 9 and [len(axis.lines) for axis in figure.axes][:2] == [3, 3]
    assert not any(axis.texts for axis in figure.axes)


def test_a_column_without_values_is_called_not_measured():
    monitor = synthetic_monitor("a").assign(probe=np.nan, probe_auc=np.nan)
    figure = training_curves(monitor, title="unprobed")
    assert [axis.get_title() for axis in figure.axes if axis.texts] == ["kNN probe"]


def test_curves_of_an_adaptation_show_the_drift():
    rows = synthetic_monitor("a")
    for column in START_COLUMNS:
        rows[column] = np.where(rows.index % 2, 0.9, np.nan)
    figure = training_curves(rows, title="adapted")
    titles = [axis.get_title() for axis in figure.axes]
    drift = figure.axes[titles.index("held-out images (1: as the start)")]
    assert len(figure.axes) == 9 and "kNN probe" not in titles
    assert [len(line.get_xdata()) for line in drift.lines] == [10, 10]


def test_curves_of_two_runs():
    monitor = pd.concat([synthetic_monitor("a"), synthetic_monitor("b", 1280)], ignore_index=True)
    figure = training_curves(monitor, title="two")
    assert [len(axis.lines) for axis in figure.axes][:2] == [6, 6]
    assert "a, b" in figure.get_suptitle()
    labels = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert labels == ["teacher", "student", "KL"]


def test_schedules_and_views_are_drawn(tmp_path):
    config = smallest(method="dinov2")
    assert [axis.get_title() for axis in schedule_lines(schedule_table(config)).axes] == [
        "lr", "weight decay", "momentum", "teacher temp"
    ]  # fmt: skip
    corpus = synthetic_corpus(tmp_path)
    views = ViewSet(corpus, config, seed=0)[0]
    images = [corpus[row] for row in corpus.draw(0, 8, seed=0)]
    figure = view_sheet(images, views.grey_levels(), views.masks.numpy(), shown=3)
    assert len(figure.axes) == 3 * 5
    assert np.allclose(
        figure.axes[0].images[0].get_array() * 255,
        images[np.argsort(-views.masks[:8].sum((1, 2)))[0]],
    )


def test_curves_of_a_distillation_have_panels_of_their_own():
    names = ["loss", "class_token", "mean_patch_token", "map", "similarity", "lr", "size"]
    rows = pd.DataFrame({name: [1.0, 0.5] for name in names}).assign(images=[64, 128])
    figure = training_curves(rows.assign(gradient_norm=1.0), title="distilled")
    titles = [axis.get_title() for axis in figure.axes]
    assert "cosine distance" in titles and "teacher momentum" not in titles
    assert all(axis.lines for axis in figure.axes)
