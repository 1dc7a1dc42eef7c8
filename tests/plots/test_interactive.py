import json
import re

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.path import Path

from radiodino_utils.core.errors import InputError
from radiodino_utils.data.dataset import ImageDataset, Split
from radiodino_utils.plots.embeddings import scatter_grid
from radiodino_utils.plots.interactive import interactive_map
from radiodino_utils.plots.style import shortened

from ..browser import needs_chromium, open_browser
from ..synthetic import synthetic_features

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


def inputs(count=30):
    """Return a dataset with hostile names, its features by two backbones, and their points."""
    sizes = {"train": count, "test": count}
    names = (HOSTILE, "=1+1", "c")
    ids = {split: [f"{split}/{i} {HOSTILE}" for i in range(count)] for split in sizes}
    features = [
        synthetic_features(sizes=sizes, seed=i, backbone=name, **{"classes": 3, "ids": ids})
        for i, name in enumerate(("random-t16", HOSTILE))
    ]
    for entry in features:
        object.__setattr__(entry, "classes", names)
    generator = np.random.default_rng(0)
    splits = {
        split: Split(
            generator.integers(0, 256, (count, 60, 40), np.uint8),
            features[0].labels[split],
            ids[split],
            [f"patient {i % 4}" for i in range(count)],
        )
        for split in sizes
    }
    dataset = ImageDataset("made", names, splits, "", HOSTILE, unit="patient")
    table = pd.DataFrame(
        {"dataset": "made", "split": np.repeat(list(sizes), count), "id": sum(ids.values(), [])}
    )
    table["class"] = [names[label] for split in sizes for label in features[0].labels[split]]
    points = [
        table.assign(
            backbone=entry.backbone,
            cluster=np.arange(2 * count) % 5,
            **{name: generator.normal(size=len(table)) for name in ("pca1", "pca2")},
            **{name: generator.normal(size=len(table)) for name in ("umap1", "umap2")},
        )
        for entry in features
    ]
    return dataset, features, pd.concat(points)


def test_the_page_needs_no_network_and_escapes_names():
    dataset, features, points = inputs()
    page = interactive_map(dataset, features, points)
    assert "<script>alert(1)" not in page and "<img src=x" not in page
    assert not re.search(r"<(?:script|link|img)[^>]*(?:src|href)\s*=\s*[\"']?(?:https?:)?//", page)


def test_a_class_has_the_colour_of_the_static_figure():
    dataset, features, points = inputs()
    other = points.assign(**{"dataset": "other", "class": "a first class"})
    points = pd.concat([points, other])
    page = interactive_map(dataset, features, points)
    data = re.search(r'type="application/json">(.*?)</script>', page)[1]
    figure = scatter_grid(points, method="pca")
    legend = figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]
    colours = [to_hex(handle.get_markerfacecolor()) for handle in legend.legend_handles]
    looks = json.loads(data)["looks"]
    assert len(looks) == 4
    for name, colour in looks.items():
        assert colours[names.index(shortened(name))] == colour.lower()


def test_points_of_another_dataset_are_an_error():
    dataset, features, points = inputs()
    with pytest.raises(InputError, match="points and images differ"):
        interactive_map(dataset, features, points.assign(dataset="other"))


SCREEN = """(() => {
  const view = [...Bokeh.index].find(view => view.model.renderers[0].glyph.x.field === "%s1");
  const box = view.canvas_view.el.getBoundingClientRect(), {frame} = view;
  const {pca1, pca2, umap1, umap2} = view.model.renderers[0].data_source.data;
  const [x, y] = "%s" === "pca" ? [pca1, pca2] : [umap1, umap2];
  return [...x].map((v, i) => [box.x + frame.x_scale.compute(v),
                               box.y + frame.y_scale.compute(y[i])]);
})()"""


@needs_chromium
@pytest.mark.parametrize("method", ["pca", "umap"])
def test_a_lasso_of_the_mouse_exports_the_ids_inside_it(tmp_path, method):
    dataset, features, points = inputs(150)
    page_file, saved = tmp_path / "map.html", tmp_path / "saved"
    page_file.write_text(interactive_map(dataset, features, points), encoding="utf-8")
    saved.mkdir()
    with open_browser(tmp_path / "profile") as page:
        page.open(page_file, height=3000)  # no scroll bar, which would move the plots
        page.wait("document.body.dataset.ready === 'yes'")
        drawn = np.array(page.run(SCREEN % (method, method)))
        middle, reach = np.median(drawn, axis=0), drawn.std(axis=0)
        angles = np.linspace(0, 2 * np.pi, 24)
        radii = np.where(np.arange(24) % 2, 0.5, 1.3)[:, None]  # a star, which is not convex
        corners = middle + radii * reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        page.drag(corners.tolist())
        table = pd.read_csv(page.download("#export", saved))
    inside = Path(corners).contains_points(drawn)
    assert 10 < inside.sum() < 200
    ids = points["id"].iloc[: len(drawn)]
    assert table["id"].tolist() == ids[inside].tolist()


@needs_chromium
@pytest.mark.slow
def test_ten_thousand_images_are_small_enough_and_open_in_seconds(tmp_path):
    dataset, features, points = inputs(5000)
    path = tmp_path / "map.html"
    path.write_text(interactive_map(dataset, features[:1], points), encoding="utf-8")
    assert path.stat().st_size <= 25e6
    with open_browser(tmp_path / "profile") as page:
        page.send("Performance.enable", timeDomain="threadTicks")
        page.open(path)
        page.wait("document.body.dataset.ready === 'yes'")
        metrics = page.send("Performance.getMetrics")["metrics"]
        used = {metric["name"]: metric["value"] for metric in metrics}["ThreadTime"]
    assert used < 3  # of a processor: a busy machine is slow, not red


@needs_chromium
def test_the_map_works_in_a_browser(tmp_path):
    dataset, features, points = inputs()
    further = pd.DataFrame({"age": np.arange(60.0)}, index=points["id"].iloc[:60])
    path = tmp_path / "map.html"
    path.write_text(interactive_map(dataset, features, points, columns=further), encoding="utf-8")
    with open_browser(tmp_path / "profile") as page:
        for width in (390, 1440):
            page.open(path, width=width, dark=width == 390)
            page.wait("document.body.dataset.ready === 'yes'")
            assert page.overflow <= 0 and page.requests == [] and page.errors == []
        assert page.serious_faults() == []
        options = "[...document.querySelectorAll('#colour option')].map(o => o.value)"
        columns = ["class", "split", "patient", "age", "prediction", "correct", "cluster"]
        assert page.run(options) == columns
        source = "Bokeh.documents[0].get_model_by_name('images')"
        for column in columns:
            change = "colour.dispatchEvent(new Event('change'))"
            page.run(f"colour.value = '{column}'; {change}")
            colours = page.run(f"new Set({source}.data.colour).size")
            assert colours == {"split": 2, "patient": 4, "age": 60, "cluster": 5}.get(
                column, colours
            )
        page.run(f"radiodinoMap.show([3]); {source}.selected.indices = [5, 2]")
        assert "train/3 </script>" in page.run("card.textContent")
        assert page.run("card.querySelectorAll('li').length") == 5
        assert page.run("count.textContent") == "2 images are selected"
        lines = page.run("radiodinoMap.csv()").splitlines()
        assert len(lines) == 3 and lines[1].startswith('"train/2')
        assert not any(line.split('","')[2].startswith("=") for line in lines)
        before = page.run(f"{source}.data.pca1[0]")
        page.run("backbone.selectedIndex = 1; backbone.dispatchEvent(new Event('change'))")
        assert page.run(f"{source}.data.pca1[0]") != before and page.errors == []
