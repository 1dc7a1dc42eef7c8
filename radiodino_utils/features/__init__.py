"""Features of datasets: embeddings, patch maps and their projections."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "clusters": ("cluster",),
        "extraction": ("extract_features",),
        "patch_maps": ("DenseFeatures", "extract_patch_maps"),
        "projection": ("explained_variance", "project"),
        "features": ("Features", "describe_features", "feature_table", "read_index"),
    },
)
