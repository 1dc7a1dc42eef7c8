"""A profile for images of one's own: what lies there, under which names."""

import json
import os
import re
import shlex
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..backbones.registry import OPEN_NAMES, REGISTRY, find_model
from ..core.errors import InputError, unknown_name
from ..core.files import make_folder, results_folder, write_text
from ..data.detection import KINDS, detect
from ..data.groups import with_groups
from ..data.open_names import UNLABELLED, OpenName, parse_open_name
from ..data.registry import dataset_names, load_dataset
from ..data.segmentation import SEGMENTATION_NAMES, load_segmentation_dataset
from .inputs import WEIGHTS
from .notebooks import OWN, profile_names
from .study_plan import StudyPlan, study_plan

BACKBONE, BASELINES = "radiodino-mini", ("random-t16", "pixels")
QUICK_SLICES = "5"  # of each series of DICOM, evenly
MASK_CLASSES = 32  # values of masks, at most


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
        plan = study_plan(
            with_groups(load_dataset(dataset)),
            segmentation,
            name=dataset,
            backbones=study.backbones,
            quick=study.quick,
            has_test=study.test is not None,
        )
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


def _text(plan: StudyPlan, path: Path) -> str:
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
