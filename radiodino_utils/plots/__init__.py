"""Figures of results: each function draws one matplotlib figure and returns it."""

from typing import Any

from ..core.lazy import attach
from .registry import registered_figures

_import_name, _, __all__ = attach(
    __name__,
    {
        "classification": ("confusion_matrices", "forest", "metric_bars", "sample_sheet"),
        "curves": ("few_shot_curves", "k_curves", "roc_and_reliability", "tuning_curves"),
        "embeddings": ("scatter_grid", "scree"),
        "explanations": (
            "Panel",
            "attention_heads",
            "colour_sheet",
            "map_panels",
            "map_sheet",
            "score_intervals",
            "similarity_sheet",
        ),
        "interactive": ("interactive_map",),
        "live": ("LiveMonitor",),
        "pretraining": ("schedule_lines", "training_curves", "view_sheet"),
        "radiomics": ("decision_curves", "stability_by_family", "survival_curves"),
        "registry": ("register_figure", "registered_figures"),
        "retrieval": ("error_sheet", "query_strip"),
        "segmentation": (
            "case_sheet",
            "dice_by_class",
            "dice_by_size",
            "image_dice",
            "learning_curve",
            "probe_bars",
        ),
        "style": ("save_figure", "styled"),
        "twins": ("twin_points",),
        "viewer": ("ImageViewer",),
    },
)


def __getattr__(name: str) -> Any:
    return registered_figures().get(name) or _import_name(name)


def __dir__() -> list[str]:
    return sorted([*__all__, *registered_figures()])
