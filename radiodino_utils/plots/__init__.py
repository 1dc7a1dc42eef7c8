"""Figures of results: each function draws one matplotlib figure and returns it."""

from typing import Any

from ..core.lazy import attach
from .registry import registered_figures

_import_name, _, __all__ = attach(
    __name__,
    {
        "charts": ("few_shot_curves", "forest", "roc_and_reliability", "tuning_curves"),
        "classification": (
            "confusion_matrices",
            "k_curves",
            "metric_bars",
            "sample_sheet",
            "save_figure",
            "scatter_grid",
            "schedule_lines",
            "scree",
            "training_curves",
            "view_sheet",
        ),
        "explanations": (
            "Panel",
            "attention_heads",
            "colour_sheet",
            "map_panels",
            "map_sheet",
            "score_intervals",
            "similarity_sheet",
        ),
        "live": ("LiveMonitor",),
        "registry": ("register_figure", "registered_figures"),
        "segmentation": (
            "case_sheet",
            "dice_by_class",
            "dice_by_size",
            "image_dice",
            "learning_curve",
            "probe_bars",
        ),
    },
)


def __getattr__(name: str) -> Any:
    return registered_figures().get(name) or _import_name(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *registered_figures()])
