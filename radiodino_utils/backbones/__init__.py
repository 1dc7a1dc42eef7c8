"""Pre-trained vision backbones by registered name."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "backbone": (
            "Backbone",
            "for_training",
            "from_model",
            "with_all_blocks",
            "with_blocks",
            "with_padding",
        ),
        "bundled": ("evaluation_rows", "training_curves"),
        "loading": ("load_backbone",),
        "preprocessing": ("Preprocessing",),
        "presence": ("backbone_table", "list_models"),
        "registry": ("backbone_names", "register_backbone"),
        "seen": ("seen_in_pretraining",),
        "sizes": ("at_size", "fitting_size"),
    },
)
