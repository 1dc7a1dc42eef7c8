"""Figures of results."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
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
