"""A profile for images of one's own: what can be computed with them, and what cannot and why."""

import json
import os
import re
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..backbones.registry import OPEN_NAMES, REGISTRY, find_model
from ..core.errors import InputError, unknown_name
from ..core.files import make_folder, results_folder, write_text
from ..data.dataset import ImageDataset
from ..data.detection import KINDS, detect
from ..data.groups import with_groups
from ..data.open_names import UNLABELLED, OpenName, parse_open_name
from ..data.registry import dataset_names, load_dataset
from ..data.segmentation import SEGMENTATION_NAMES, load_segmentation_dataset
from ..evaluation.folds import in_folds
from ..radiomics.readers import case_readers
from .inputs import WEIGHTS
from .notebooks import OWN, profile_names

BACKBONE, BASELINES = "radiodino-mini", ("random-t16", "pixels")
QUICK_SLICES = "5"  # of each series of DICOM, evenly
FOLDS, REPEATS = 5, 3
MASK_CLASSES = 32  # values of masks, at most
BIN_COUNT = 32  # grey levels of radiomics
SHOTS, KS = (1, 5, 10, 20, 50), (1, 5, 10, 20, 50, 100, 200)
_NO_VALIDATION = ("knn-k20", "knn1", "knn11")  # kNN protocols that choose nothing
_UNFIT = {
    "06_attention_maps": "it scores maps on the organs of the demo's CT; set its `image` to a file",
    "08_pretraining": "it shows how a backbone is trained; see docs/pretraining.md",
    "10_adaptation": "training on your images is a step of its own; see docs/pretraining.md",
    "11_radiomics": "it needs masks and an outcome; see docs/radiomics.md",
}


@dataclass(frozen=True)
class Study:
    """Images of one's own.

    Attributes:
        data: Path of the images, see `detection.detect`.
        labels: List of labels, if it lies elsewhere.
        masks: Folder of the masks of the images.
        test: Path of an external test set with the same labels, which no fit sees.
        test_labels: List of the labels of `test`, if it lies elsewhere.
        test_masks: Folder of the masks of `test`.
        backbones: Names of the backbones; `BACKBONE` by default.
        name: Name of the study and of its results folder; by default that of `data`.
        quick: Whether to leave out what takes most of the time.
    """

    data: Path
    labels: Path | None = None
    masks: Path | None = None
    test: Path | None = None
    test_labels: Path | None = None
    test_masks: Path | None = None
    backbones: Sequence[str] = ()
    name: str = ""
    quick: bool = False


@dataclass
class _Plan:
    """Parameters of the notebooks that can run, and why the others cannot."""

    notebooks: dict[str, dict[str, Any]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=lambda: dict(_UNFIT))


def write_study(study: Study) -> Path:
    """Write the profile of a study to `results/NAME/NAME.yaml`, and print what it leaves out.

    An earlier profile of another content is kept as `NAME.yaml.old`.

    Args:
        study: The images and what to do with them.

    Returns:
        The path of the profile; `--profile PATH` runs it again.

    Raises:
        InputError: If the images, labels or masks cannot be read, or the name is that of a profile
            of the project.
    """
    name = _name(study)
    study = replace(study, backbones=_backbones(study.backbones))
    dataset, segmentation = _names(study, name)
    with warnings.catch_warnings():
        # of each image; it comes again where they are used
        warnings.filterwarnings("ignore", message=".*give a window to choose otherwise")
        plan = _plan(study, with_groups(load_dataset(dataset)), dataset, segmentation)
    path = make_folder(results_folder(name)) / f"{name}.yaml"
    text = _text(plan, path)
    if path.exists() and path.read_text(encoding="utf-8") != text:
        os.replace(path, path.with_suffix(".yaml.old"))
        print(f"{path}: was another profile, which is kept as {path.name}.old")
    write_text(path, text)
    for notebook, reason in plan.left_out.items():
        print(f"{notebook:28} left out: {reason}")
    return path


def _name(study: Study) -> str:
    name = study.name or re.sub(r"[^\w.-]+", "-", study.data.resolve().stem).strip(".-")
    if not re.fullmatch(r"[\w-][\w.-]*", name):
        raise InputError(f"--name '{name}': use letters, digits, '-', '_' and '.' only.")
    if name in (taken := [*profile_names(), OWN]):
        raise InputError(
            f"--name {name}: its results folder belongs to the project ({', '.join(taken)}); "
            "choose another --name."
        )
    if name in (*dataset_names(), *SEGMENTATION_NAMES):
        raise InputError(f"--name {name}: is a registered dataset; choose another --name.")
    return name


def _names(study: Study, name: str) -> tuple[str, str]:
    """Return the names of the dataset and of the segmentation dataset, which may be empty."""
    opened, masks = _opened(study.data, study.labels, study.masks, study.quick)
    if study.test_masks and not masks:
        raise InputError("--test-masks belongs to --masks PATH; give that too.")
    if study.test:
        test, test_masks = _opened(study.test, study.test_labels, study.test_masks, study.quick)
        opened = replace(opened, options=opened.options | {"test": str(test)})
        if masks and test_masks:
            masks = replace(masks, options=masks.options | {"test": str(test_masks)})
    if masks:
        masks = replace(_with_classes(masks), alias=name)
    return str(replace(opened, alias=name)), str(masks or "")


def _with_classes(masks: OpenName) -> OpenName:
    """Return the name of images with masks that also names the classes, if there are several."""
    (dataset, *_) = load_segmentation_dataset(str(masks.without_test()))
    values = sorted({int(value) for mask in dataset.masks for value in np.unique(mask)})
    if len(values) > MASK_CLASSES or values[-1] > 255:
        raise InputError(
            f"{masks.path}: the masks hold {len(values)} values up to {values[-1]}; they should "
            f"number at most {MASK_CLASSES} classes, and not be saved as JPEG."
        )
    if values[-1] < 2:
        return masks
    names = ["background", *(f"class {value}" for value in range(1, values[-1] + 1))]
    classes = {"classes": ",".join(names)}
    test = parse_open_name(masks.test)
    if test:
        classes["test"] = str(replace(test, options=test.options | classes))
    return replace(masks, options=masks.options | classes)


def _opened(
    path: Path, labels: Path | None, masks: Path | None, quick: bool
) -> tuple[OpenName, OpenName | None]:
    """Return the open names of images, and of the same with their masks."""
    found = detect(path.expanduser().absolute())
    if not found.name:
        hint = found.hint or "name a folder of images, or a list of them"
        raise InputError(f"{path}: {KINDS[found.kind]}; {hint}.")
    opened = parse_open_name(found.name)
    assert opened
    with_masks = opened if found.has_masks else None
    if with_masks:
        opened = OpenName("folder", str(found.images), {"labels": UNLABELLED})
    elif labels and found.is_dicom:  # its folders are no classes
        opened = OpenName("dicom", str(found.path))
    if opened.kind == "dicom":
        slices = {"slices": QUICK_SLICES if quick else "all"}
        opened = replace(opened, options=slices | opened.options)
    if masks and found.kind == "npz":
        raise InputError(f"--masks {masks}: belongs to image files, and {path} is an npz file.")
    if masks:
        images = found.path if found.path.is_dir() else found.path.parent  # of a list
        kind = "volumes" if found.is_nifti else "masks"
        with_masks = OpenName(kind, str(masks.expanduser().absolute()), {"images": str(images)})
    if labels:
        listed = {"labels": str(labels.expanduser().absolute())}
        opened = replace(opened, options=opened.options | listed)
    return opened, with_masks


def _backbones(names: Sequence[str]) -> list[str]:
    """Return the names of the backbones with the baselines, paths from the root.

    Raises:
        InputError: If one is not known, or its file cannot be read.
    """
    from ..backbones.loading import load_backbone  # imports torch

    found = []
    for name in names or [BACKBONE]:
        if match := WEIGHTS.fullmatch(name):
            path = Path(match[1]).expanduser().absolute()
            if not path.is_file():
                raise InputError(f"--backbone {name}: there is no such file; mend the path.")
            name = f"file:{path}{match[2] or ''}"
            load_backbone(name)
        elif find_model(name) is None:
            raise unknown_name("backbone", name, [*REGISTRY, *OPEN_NAMES])
        found.append(name)
    return [*dict.fromkeys([*found, *BASELINES])]


def _plan(study: Study, dataset: ImageDataset, name: str, segmentation: str) -> _Plan:
    """Return which notebooks can run on a dataset, with their parameters."""
    plan = _Plan()
    backbones = [*study.backbones]
    all_of_them: dict[str, Any] = {"datasets": [name], "backbones": backbones}
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
        _add_classification(plan, study, dataset, all_of_them)
    if segmentation:
        (masks, *_) = load_segmentation_dataset(segmentation)
        for row in range(len(masks)):
            masks.mask(row)  # is refused now rather than after an hour
        if study.test and "external test set" not in masks.caveat:
            reason = "no masks of the test set were given (--test-masks PATH)"
            plan.left_out["segmentation of the test set"] = reason
        labelled = [count for count in (4, 12, 32) if count < len(masks.splits["train"])]
        plan.notebooks["05_segmentation_probing"] = all_of_them | {
            "datasets": [segmentation],
            "epochs": 4 if study.quick else 12,
            "labelled": labelled[:1] if study.quick else labelled,
        }
        _add_radiomics(plan, study, segmentation)
    else:
        plan.left_out["05_segmentation_probing"] = "no masks were given (--masks PATH)"
    plan.notebooks["00_dataset_audit"]["left_out"] = plan.left_out
    return plan


def _add_radiomics(plan: _Plan, study: Study, segmentation: str) -> None:
    """Add the table of radiomics of the regions of the masks."""
    opened = parse_open_name(segmentation)
    assert opened
    apart = opened.options.get("images")
    root = opened.root
    images, masks = (apart, opened.path) if apart else (f"{root}/images", f"{root}/masks")
    try:
        case_readers(images, masks)
    except InputError as error:
        plan.left_out["11_radiomics"] = str(error).rstrip(".")
        return
    del plan.left_out["11_radiomics"]
    plan.left_out["models of radiomics"] = "they need an outcome; see docs/radiomics.md"
    plan.notebooks["11_radiomics"] = {
        "images": images,
        "masks": masks,
        "backbones": [study.backbones[0]],
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
    plan: _Plan, study: Study, dataset: ImageDataset, parameters: dict[str, Any]
) -> None:
    """Add the notebooks that classify, with what the number of images allows."""
    splits = dataset.splits
    folds: dict[str, int] = {}
    if "train" in splits:
        trained = np.bincount(splits["train"].labels, minlength=len(dataset.classes))
    else:
        folds["folds"] = min(FOLDS, *_units(dataset))
        folds["repeats"] = 1 if study.quick else REPEATS
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
    shots = [] if study.quick else [count for count in SHOTS if count <= trained.min()]
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
        reason = "by --quick" if study.quick else f"{trained.min()} can be learnt from"
        plan.left_out[f"{', '.join(map(str, dropped))} labels per class"] = reason


def _text(plan: _Plan, path: Path) -> str:
    """Return the profile as YAML with comments."""
    import yaml

    command = shlex.join(["./run_all.sh", "--profile", os.path.relpath(path)])
    lines = [f"# Edit it, and run it again: {command}", "# Left out:"]
    lines += [f"#   {name}: {reason}" for name, reason in plan.left_out.items()]
    body = {"all": {"seed": 0}} | dict(sorted(plan.notebooks.items()))
    # copies instead of aliases: each notebook is edited on its own
    body = json.loads(json.dumps(body))
    text = yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=100)
    return "\n".join([*lines, text])
