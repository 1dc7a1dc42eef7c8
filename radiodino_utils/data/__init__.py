"""Datasets, image files, and duplicates in them."""

from ..core.lazy import attach

__getattr__, __dir__, __all__ = attach(
    __name__,
    {
        "dataset": (
            "ImageDataset",
            "Split",
            "class_counts",
            "print_caveats",
            "summary",
        ),
        "duplicates": ("duplicate_groups",),
        "groups": ("with_groups",),
        "images": ("read_image", "resized"),
        "detection": ("Detected", "detect"),
        "inspection": ("Inspection", "inspect"),
        "lidc": ("Tumour", "lung_tumour"),
        "masks": ("read_mask",),
        "organct": ("organ_masks",),
        "readability": ("unreadable_table",),
        "registry": ("dataset_names", "load_dataset", "register_dataset", "with_test"),
        "segmentation": ("folder_segmentation", "load_segmentation_dataset"),
        "segmentation_dataset": ("SegmentationDataset", "segmentation_summary", "with_labelled"),
        "sheets": ("contact_sheet",),
        "drawn_folds": ("segmentation_folds",),
        "studies": ("index_studies",),
    },
)
