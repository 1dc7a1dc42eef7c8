"""Protocols on frozen features, fine-tuning, segmentation probes, metrics and result rows."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "few_shot": ("classify_few_shot",),
        "finetune_config": ("FinetuneConfig",),
        "finetuning": ("FineTuned", "finetune", "finetune_seeds"),
        "folds": ("in_folds",),
        "knn": ("chosen_k", "classify_knn", "knn_curve", "knn_probabilities"),
        "linear": ("classify_linear",),
        "logistic": ("classify_logistic",),
        "medmnist": ("write_for_medmnist",),
        "metrics": ("classification_metrics", "mean_interval", "paired_differences"),
        "neighbours": ("nearest",),
        "predictions": ("Prediction", "joined_folds", "write_medmnist"),
        "protocols": ("classify", "protocol_names", "register_protocol"),
        "published": ("beside_baselines", "compare_published", "published_table"),
        "records": ("read_predictions", "read_scores", "write_predictions", "write_scores"),
        "results": (
            "classification_rows",
            "collect_rows",
            "curve_rows",
            "over_seeds",
            "paired_table",
            "read_table",
            "wide_table",
            "write_table",
        ),
        "scoring": ("print_accuracy", "score"),
        "segmentation.metrics": ("score_images",),
        "segmentation.prediction": ("Segmentation",),
        "segmentation.probes": ("segment", "segment_unet"),
        "segmentation.results": ("is_fraction", "seeds_spread", "segmentation_rows"),
        "segmentation.runs": ("choice_table", "segment_all"),
        "segmentation.tables": ("caption", "segmentation_table"),
        "segmentation.training": ("Training",),
        "twins": (
            "class_mix",
            "deduplicated",
            "find_all_twins",
            "find_twins",
            "is_official",
            "three_ways",
        ),
    },
)
