"""Attention, Grad-CAM and patch similarity, and how faithful they are."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "attention": (
            "Attention",
            "attention_maps",
            "attention_rollout",
            "head_diversity",
            "mass_masks",
            "with_attention",
        ),
        "class_activation": (
            "IndependentScore",
            "KnnVote",
            "LinearProbe",
            "Scores",
            "Similarity",
            "best_target",
            "grad_cam",
            "with_grad_cam",
        ),
        "faithfulness": (
            "explanation_maps",
            "mass_share",
            "pointing_hit",
            "road",
        ),
        "patches": ("PatchColours", "patch_at", "patch_pca", "patch_similarity", "patch_tokens"),
        "tables": (
            "against_control",
            "against_controls",
            "diversity_table",
            "explanation_rows",
            "explanation_scores",
            "maps_that_beat_controls",
            "mass_table",
        ),
    },
)
