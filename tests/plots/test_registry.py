import matplotlib
import pytest
from matplotlib.figure import Figure

import radiodino_utils as rd
from radiodino_utils.core.errors import InputError
from radiodino_utils.plots import registry
from radiodino_utils.plots.registry import register_figure

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_figures", {})


def two_axes():
    figure = Figure()
    figure.subplots(1, 2)
    return figure


def test_a_registered_figure_is_offered_beside_the_others():
    register_figure("two_axes", two_axes)
    assert len(rd.plots.two_axes().axes) == 2
    assert {"two_axes", "metric_bars"} <= set(dir(rd.plots))
    register_figure("two_axes", two_axes)  # the same once more is harmless


@pytest.mark.parametrize("name", ["two_axes", "metric_bars", "style", "__all__"])
def test_a_name_that_is_taken_is_refused(name):
    register_figure("two_axes", two_axes)
    with pytest.raises(InputError, match=f"figure {name}: the name is taken"):
        register_figure(name, lambda: two_axes())


def test_what_cannot_be_called_by_its_name_is_refused():
    with pytest.raises(InputError, match="figure 'two axes': choose a name of letters"):
        register_figure("two axes", two_axes)
    with pytest.raises(InputError, match="figure other: 'two_axes' is no function"):
        register_figure("other", "two_axes")


def test_an_unknown_figure_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'three_axes'"):
        rd.plots.three_axes  # noqa: B018
