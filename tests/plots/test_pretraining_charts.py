import matplotlib
import numpy as np
import pandas as pd

from radiodino_utils.plots.classification import schedule_lines, training_curves, view_sheet
from radiodino_utils.pretraining.monitor import COLUMNS
from radiodino_utils.pretraining.schedules import schedule_table
from radiodino_utils.pretraining.views import ViewSet

from ..synthetic_corpus import smallest, synthetic_corpus

matplotlib.use("agg")


def synthetic_monitor(run, start=0):
    rows = {column: np.linspace(1, 2, 20) for column in COLUMNS} | {
        "images": start + np.arange(20) * 64,
        "ibot": np.nan,
    }
    return pd.DataFrame(rows).assign(run=run)


def test_curves_of_one_run_and_of_two():
    one = training_curves(synthetic_monitor("a").drop(columns="run"), title="one")
    assert len(one.axes) == 9 and [len(axis.lines) for axis in one.axes][:2] == [3, 3]
    assert not any(axis.texts for axis in one.axes)
    unprobed = training_curves(
        synthetic_monitor("a").assign(probe=np.nan, probe_auc=np.nan), title="unprobed"
    )
    assert [axis.get_title() for axis in unprobed.axes if axis.texts] == ["kNN probe"]
    two = training_curves(
        pd.concat([synthetic_monitor("a"), synthetic_monitor("b", 1280)], ignore_index=True),
        title="two",
    )
    assert [len(axis.lines) for axis in two.axes][:2] == [6, 6]
    assert "a, b" in two.get_suptitle()
    assert [text.get_text() for text in two.axes[1].get_legend().get_texts()] == [
        "teacher",
        "student",
        "KL",
    ]


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
