"""Self-supervised pre-training of vision transformers on images without labels."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": ("Recipe", "load_recipe", "recipe_names"),
        "corpus": ("Corpus", "Source", "load_corpus"),
        "networks": ("schedule_note", "schedule_table"),
        "online_probe": ("KnnProbe",),
        "trainer": ("Plan", "Progress", "Running", "pretrain", "run_folder"),
        "views": ("ViewSet", "Views", "make_views"),
    },
)
