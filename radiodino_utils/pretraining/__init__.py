"""Self-supervised pre-training of vision transformers on images without labels."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "config": ("PretrainConfig",),
        "config_files": ("config_names", "load_config"),
        "corpus": ("Corpus", "load_corpus"),
        "online_probe": ("KnnProbe",),
        "progress": ("Progress",),
        "run_files": ("run_folder",),
        "plan": ("Plan", "RunOptions"),
        "separation": ("sparsely",),
        "schedules": ("schedule_note", "schedule_table"),
        "sources": ("Source",),
        "trainer": ("pretrain",),
        "views": ("ViewSet", "Views", "make_views"),
    },
)
