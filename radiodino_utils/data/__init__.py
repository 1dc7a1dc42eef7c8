"""Datasets, image files, and duplicates in them."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "dataset": (
            "ImageDataset",
            "Split",
            "is_fold",
            "print_caveats",
            "summary",
        ),
        "duplicates": ("duplicate_groups",),
        "images": ("read_image", "resized"),
        "lidc": ("Tumour", "lung_tumour"),
        "organct": ("organ_masks",),
        "registry": ("dataset_names", "load_dataset", "register_dataset"),
        "segmentation": ("folder_segmentation", "load_segmentation_dataset"),
        "segmentation_dataset": ("SegmentationDataset", "segmentation_summary", "with_labelled"),
    },
)
