"""What lies at a path: the kind of dataset, and the name by which other commands load it."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from .archives import ARCHIVES
from .dicom import read_header
from .folder_layout import is_image_file, split_of, visible_files
from .folders import SYNONYMS
from .open_names import UNLABELLED, OpenName
from .reading import SUFFIXES
from .studies import LABELS
from .tables import LISTS, read_table

NIFTI = (".nii", ".nii.gz")
_RASTER = tuple(suffix for suffix in SUFFIXES if suffix not in (*NIFTI, ".dcm"))
_UNLABELLED = f"?labels={UNLABELLED}"
# folders side by side that hold images and their masks
_IMAGES = ("images", "image", "imgs", "img")
_MASKS = ("masks", "mask", "msks", "msk", "labels", "segmentations")
KINDS = {
    "classes": "a folder per class",
    "list": "a list of images",
    "dicom": "DICOM studies",
    "npz": "arrays in MedMNIST's layout",
    "masks": "images with masks",
    "volumes": "volumes with label volumes",
    "images": "images without labels",
    "archive": "an archive",
    "nothing": "no images",
}


@dataclass(frozen=True)
class Detected:
    """What lies at a path.

    Attributes:
        path: The file or folder.
        kind: A key of `KINDS`.
        name: Name for `load_dataset`, or for `load_segmentation_dataset` if it begins with
            `masks:` or `volumes:`; empty if there is none, as for a single image.
        hint: What gives it labels, if it has none, or another way to read it.
        is_dicom: Whether most files of the folder are DICOM files, whatever the kind.
        is_nifti: Whether all images of the folder are NIfTI volumes.
        images: Folder of the images that have masks.
        masks: Folder of these masks.
    """

    path: Path
    kind: str
    name: str = ""
    hint: str = ""
    is_dicom: bool = False
    is_nifti: bool = False
    images: Path | None = None
    masks: Path | None = None

    @property
    def has_labels(self) -> bool:
        """Whether the name is that of a dataset with labels of images."""
        return bool(self.name) and not self.has_masks and not self.name.endswith(_UNLABELLED)

    @property
    def has_masks(self) -> bool:
        """Whether the name is that of a segmentation dataset."""
        return self.name.startswith(("masks:", "volumes:"))


def detect(path: str | Path) -> Detected:
    """Find out what lies at a path, by names and the first bytes of files.

    Args:
        path: A list, npz file, archive or image, or a folder of any layout in docs/own-data.md.

    Returns:
        What it is. Whether it can be loaded is seen by loading it.

    Raises:
        InputError: If there is no such file or folder.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        return _detect_folder(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such file or folder.")
    name = path.name.lower()
    if name.endswith(LISTS):
        return Detected(path, "list", f"folder:{path}")
    if name.endswith(".npz"):
        return Detected(path, "npz", f"npz:{path}")
    if name.endswith(ARCHIVES):
        hint = "unpack it to classify or segment; embed and pretrain read it as it is"
        return Detected(path, "archive", hint=hint)
    return Detected(path, "images" if is_image_file(path) else "nothing")


def _detect_folder(root: Path) -> Detected:
    images, masks = (_subfolder(root, names) for names in (_IMAGES, _MASKS))
    if images and masks and any(map(is_image_file, visible_files(masks))):
        files = list(filter(is_image_file, visible_files(images)))
        is_nifti = bool(files) and all(file.name.lower().endswith(NIFTI) for file in files)
        kind = "volumes" if is_nifti else "masks"
        name = f"{kind}:{root}"
        if (images.name, masks.name) != ("images", "masks"):
            name = str(OpenName(kind, str(masks), {"images": str(images)}))
        return Detected(root, kind, name, images=images, masks=masks)
    files = sorted(filter(is_image_file, visible_files(root)))
    if not files:
        return Detected(root, "nothing")
    of_dicom = [file for file in files if not file.name.lower().endswith((*_RASTER, *NIFTI))]
    if of_dicom and (root / LABELS).is_file():
        return Detected(root, "dicom", f"dicom:{root}", is_dicom=True)
    folders = _class_folders(root, files)
    is_split = any(folder.parent != root for folder in folders)
    is_dicom = len(of_dicom) * 2 > len(files)
    is_of_patients = is_dicom and not is_split and not _mix_patients(folders)
    if len(folders) > 1 and not is_of_patients:
        return Detected(root, "classes", f"folder:{root}", is_dicom=is_dicom)
    if is_dicom:
        hint = f"label it by {LABELS} in it (columns PatientID and label): then it is dicom:{root}"
        if len(folders) > 1:
            hint += f"; if its folders are classes, it is folder:{root}"
        return Detected(root, "dicom", f"dicom:{root}{_UNLABELLED}", hint, is_dicom=True)
    lists = [path for path in sorted(root.iterdir()) if _is_list(path)]
    if len(lists) == 1:
        return Detected(root, "list", f"folder:{lists[0]}")
    hint = "label it by one folder per class, or a list with the columns path and label"
    is_nifti = all(file.name.lower().endswith(NIFTI) for file in files)
    return Detected(root, "images", f"folder:{root}{_UNLABELLED}", hint, is_nifti=is_nifti)


def _subfolder(root: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder that bears one of the names in any case, the first of them."""
    folders = {folder.name.lower(): folder for folder in root.iterdir() if folder.is_dir()}
    return next((folders[name] for name in names if name in folders), None)


def _class_folders(root: Path, files: list[Path]) -> dict[Path, list[Path]]:
    """Return the images of each folder that stands for a class, in split folders or not."""
    found: dict[Path, list[Path]] = defaultdict(list)
    for file in files:
        parents = file.relative_to(root).parts[:-1]
        is_split = len(parents) > 1 and split_of(parents[0]) is not None
        if parents:
            found[root.joinpath(*parents[: 1 + is_split])].append(file)
    return found


def _mix_patients(folders: dict[Path, list[Path]]) -> bool:
    """Return whether each folder holds several patients, so that it may stand for a class."""
    for files in folders.values():
        try:
            first, last = (read_header(file).get("PatientID") for file in (files[0], files[-1]))
        except InputError:
            continue
        if first == last:
            return False
    return True


def _is_list(path: Path) -> bool:
    if not path.name.lower().endswith(LISTS):
        return False
    try:
        read_table(path, ("path", "label"), synonyms=SYNONYMS)
    except InputError:
        return False
    return True
