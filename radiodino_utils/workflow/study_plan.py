"""Which notebooks can run on images of one's own, and why the others cannot."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..core.errors import InputError
from ..data.dataset import ImageDataset
from ..data.open_names import UNLABELLED, parse_open_name
from ..data.segmentation import load_segmentation_dataset
from ..evaluation.folds import in_folds
from ..radiomics.readers import case_readers

FOLDS, REPEATS = 5, 3
BIN_COUNT = 32  # grey levels of radiomics
SHOTS, KS = (1, 5, 10, 20, 50), (1, 5, 10, 20, 50, 100, 200)
_NO_VALIDATION = ("knn-k20", "knn1", "knn11")  # kNN protocols that choose nothing
_UNFIT = {
    "06_attention_maps": "it scores maps on the organs of the demo's CT; set its `image` to a file",
    "08_pretraining": "it shows how a backbone is trained; see docs/pretraining.md",
    "10_adaptation": "training on your images is a step of its own; see docs/pretraining.md",
    "11_radiomics": "it needs masks and an outcome; see docs/radiomics.md",
}


@dataclass
class StudyPlan:
    """Parameters of the notebooks that can run, and why the others cannot."""

    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=lambda: dict(_UNFIT))


def study_plan(
    dataset: ImageDataset,
    segmentation: str,
    *,
    name: str,
    backbones: Sequence[str],
    quick: bool = False,
    has_test: bool = False,
) -> StudyPlan:
    """Return which notebooks can run on a dataset, with their parameters.

    Args:
        dataset: Images of one's own, with groups.
        segmentation: Open name of the same images with their masks; empty without masks.
        name: Open name of the dataset.
        backbones: Names of the backbones, the baselines last.
        quick: Whether to leave out what takes most of the time.
        has_test: Whether there is an external test set.

    Raises:
        InputError: If a mask cannot be read or does not fit its image.
    """
    plan = StudyPlan()
    all_of_them: dict[str, Any] = {"datasets": [name], "backbones": [*backbones]}
    plan.notebooks = {
        "00_dataset_audit": {"dataset": name},
        "01_single_image": {"backbone": backbones[0], "dataset": name},
        "02_feature_extraction": all_of_them,
        "04_embedding_visualization": all_of_them,
    }
    if reason := _why_not_classified(dataset):
        plan.left_out |= dict.fromkeys(
            [
                "03_knn_classification",
                "07_linear_probe_and_finetuning",
                "09_paper_comparison",
            ],
            reason,
        )
    else:
        _add_classification(plan, dataset, all_of_them, quick=quick)
    if segmentation:
        (masks, *_) = load_segmentation_dataset(segmentation)
        for row in range(len(masks)):
            masks.mask(row)  # is refused now rather than after an hour
        if has_test and "external test set" not in masks.caveat:
            reason = "no masks of the test set were given (--test-masks PATH)"
            plan.left_out["segmentation of the test set"] = reason
        labelled = [count for count in (4, 12, 32) if count < len(masks.splits["train"])]
        plan.notebooks["05_segmentation_probing"] = all_of_them | {
            "datasets": [segmentation],
            "epochs": 4 if quick else 12,
            "labelled": labelled[:1] if quick else labelled,
        }
        _add_radiomics(plan, segmentation, backbones[0])
    else:
        plan.left_out["05_segmentation_probing"] = "no masks were given (--masks PATH)"
    plan.notebooks["00_dataset_audit"]["left_out"] = plan.left_out
    return plan


def _add_radiomics(plan: StudyPlan, segmentation: str, backbone: str) -> None:
    """Add the table of radiomics of the regions of the masks."""
    opened = parse_open_name(segmentation)
    assert opened
    images, masks = opened.mask_folders
    try:
        case_readers(images, masks)
    except InputError as error:
        plan.left_out["11_radiomics"] = str(error).rstrip(".")
        return
    del plan.left_out["11_radiomics"]
    plan.left_out["models of radiomics"] = "they need an outcome; see docs/radiomics.md"
    plan.notebooks["11_radiomics"] = {
        "images": str(images),
        "masks": str(masks),
        "backbones": [backbone],
        "options": {"bin_count": BIN_COUNT},
        "perturbed": [],
        "readers": False,
    }


def _why_not_classified(dataset: ImageDataset) -> str:
    """Return why the images of a dataset cannot be classified; empty if they can."""
    if dataset.classes == (UNLABELLED,):
        return "no labels were found or given (--labels CSV)"
    if len(dataset.classes) < 2:
        return f"all images are of the class '{dataset.classes[0]}'"
    if "train" in dataset.splits and "test" in dataset.splits:
        return ""
    if list(dataset.splits) != ["all"]:
        return f"of train and test only {', '.join(dataset.splits)} is there"
    units = _units(dataset)
    if min(units) < 3:
        label = dataset.classes[units.index(min(units))]
        found = f"the class '{label}' has {min(units)} independent images or groups"
        return f"{found}; 3 are needed: add some, or leave the class out"
    return ""


def _units(dataset: ImageDataset) -> list[int]:
    """Return the number of groups of each class, or of images where no groups are known."""
    part = dataset.splits["all"]
    units = np.arange(len(part)) if part.groups is None else np.asarray(part.groups)
    return [len(np.unique(units[part.labels == label])) for label in range(len(dataset.classes))]


def _add_classification(
    plan: StudyPlan, dataset: ImageDataset, parameters: dict[str, Any], *, quick: bool
) -> None:
    """Add the notebooks that classify, with what the number of images allows."""
    splits = dataset.splits
    folds: dict[str, int] = {}
    if "train" in splits:
        trained = np.bincount(splits["train"].labels, minlength=len(dataset.classes))
    else:
        folds["folds"] = min(FOLDS, *_units(dataset))
        folds["repeats"] = 1 if quick else REPEATS
        parts = [part.splits["train"].labels for part in in_folds([dataset], repeats=1)]
        trained = np.min([np.bincount(part, minlength=len(dataset.classes)) for part in parts], 0)
    has_validation = bool(folds) or "val" in splits
    protocol = "knn" if has_validation else "knn-k20"
    plan.notebooks["09_paper_comparison"] = {"protocol": protocol, "published": False}
    plan.notebooks["03_knn_classification"] = (
        parameters
        | folds
        | {
            "protocols": [*(["knn"] if has_validation else []), *_NO_VALIDATION],
            "ks": [k for k in KS if k <= trained.sum()],
        }
    )
    if not has_validation:
        reason = "its probes are chosen on a split `val`, which is missing"
        plan.left_out["07_linear_probe_and_finetuning"] = reason
        return
    shots = [] if quick else [count for count in SHOTS if count <= trained.min()]
    plan.notebooks["07_linear_probe_and_finetuning"] = (
        parameters
        | folds
        | {
            "protocols": ["logistic"],
            "shots": shots,
            "draws": 4,
            "recipes": [],
            "tuned": [],
            "tuned_datasets": [],
        }
    )
    plan.left_out["fine-tuning"] = "it takes hours without a GPU; add `recipes` to the profile"
    if dropped := [count for count in SHOTS if count not in shots]:
        reason = "by --quick" if quick else f"{trained.min()} can be learnt from"
        plan.left_out[f"{', '.join(map(str, dropped))} labels per class"] = reason
