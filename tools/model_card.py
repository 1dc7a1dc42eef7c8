"""The bundled checkpoint and its model card, written from the folders of its runs."""

import argparse
import hashlib
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import load_file, save_file

from radiodino_utils.backbones.bundled import NAME, WEIGHTS
from radiodino_utils.backbones.checkpoints import saved_num_heads
from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.seen import corpus_prefixes
from radiodino_utils.core.environment import cpu_count
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import atomic, file_hash, write_json, write_text
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.knn import classify_knn
from radiodino_utils.evaluation.logistic import classify_logistic
from radiodino_utils.evaluation.results import classification_rows, write_table
from radiodino_utils.features.extraction import extract_features
from radiodino_utils.pretraining.run_files import (
    BACKBONE,
    read_digests,
    read_monitor,
    read_run,
    require_run,
    steps_done,
    verify_run,
)

from .model_card_markdown import markdown

DATASETS = ("organct-axial", "organct-coronal", "organct-sagittal", "breastmnist-224")
BACKBONES = (NAME, "random-t16", "pixels")
THRESHOLDS = (
    ("breastmnist-224", "knn", "auc", 0.88),
    ("breastmnist-224", "logistic", "auc", 0.90),
)
LEAD = 0.10  # of kNN accuracy on OrganCT, over the better baseline
AIM = (
    "the frozen DINO ViT-B/16 of MedMNIST+, 16 times as large: BreastMNIST kNN 87.2 %, "
    "linear 88.7 % and AUC 93.4 %"
)
LIMITS = (
    "It has 5.5 million parameters and was trained on a processor, on few images at a low "
    "resolution; the released RadioDINO models are larger and were trained on a million images and "
    "more. Do not use it for diagnosis.",
    "OrganCT is one patient with automatic labels: it shows that the pipeline works and no more. "
    "BreastMNIST's test split has 156 images: its intervals are wide.",
    "The training rows of BreastMNIST are in the corpus (without labels), so its test rows are of "
    "a known domain. They are 545 of BUSI's 780 images, which the folds of BUSI test; and the "
    "checkpoint was chosen by the cross-validated labels of BreastMNIST's 624 training and "
    "validation rows, images of BUSI too. The column seen_in_pretraining says so in every row.",
    "MedNIST's CT and X-ray come from public archives: other sets of the same archives may share "
    "patients with the corpus.",
)


def corpus_sha256(digests: list[str]) -> str:
    """Return the SHA-256 of the sorted digests, one per line."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def export(run: Path, path: Path) -> Path:
    """Write a run's teacher in half precision under its final name.

    Raises:
        InputError: If the run has no backbone, or a value does not fit half precision.
    """
    if not (run / BACKBONE).is_file():
        raise InputError(f"{run}: holds no {BACKBONE}; name the folder of a run.")
    state = {name: tensor.half().contiguous() for name, tensor in load_file(run / BACKBONE).items()}
    if bad := [name for name, tensor in state.items() if not torch.isfinite(tensor).all()]:
        raise InputError(f"{run}: {bad[0]} does not fit half precision.")
    heads = saved_num_heads(run / BACKBONE)
    with atomic(path) as temporary:
        save_file(state, temporary, {"num_heads": str(heads)} if heads else None)
    return path


def evaluate(
    backbones: tuple[str, ...] = BACKBONES, datasets: tuple[str, ...] = DATASETS
) -> pd.DataFrame:
    """Return result rows of kNN (three protocols) and logistic regression on the test splits."""
    results = []
    for dataset in map(load_dataset, datasets):
        for backbone in map(load_backbone, backbones):
            features = extract_features(backbone, dataset)
            predictions = [
                classify_knn(features, protocol=protocol) for protocol in ("knn", "knn1", "knn11")
            ]
            predictions.append(classify_logistic(features))
            results += [classification_rows(prediction) for prediction in predictions]
    return pd.concat(results, ignore_index=True)


def verdicts(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare the checkpoint with its thresholds.

    Args:
        results: Returned by `evaluate`.

    Returns:
        `what`, `threshold`, `value` and `met` of each.
    """
    values = results.set_index(["dataset", "protocol", "metric", "backbone"])["value"]
    compared = []
    for dataset in sorted({name for name in results["dataset"] if name.startswith("organct-")}):
        own, *baselines = (
            float(values[dataset, "knn", "accuracy", backbone]) for backbone in BACKBONES
        )
        compared.append((f"{dataset}, kNN accuracy", max(baselines) + LEAD, own))
    for dataset, protocol, metric, threshold in THRESHOLDS:
        own = float(values[dataset, protocol, metric, NAME])
        compared.append((f"{dataset}, {protocol} {metric.upper()}", threshold, own))
    return [
        {"what": what, "threshold": threshold, "value": value, "met": value >= threshold}
        for what, threshold, value in compared
    ]


def curves(runs: list[Path]) -> pd.DataFrame:
    """Return the monitors of consecutive runs, with images counted through."""
    tables, seen = [], 0
    for number, run in enumerate(runs, 1):
        table = read_monitor(run).assign(run=f"stage {number}")
        table["images"] += seen
        seen = int(table["images"].iloc[-1])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def card(
    runs: list[Path], trials: pd.DataFrame, results: pd.DataFrame, digests: list[str]
) -> dict[str, Any]:
    """Return all facts of the checkpoint as JSON values.

    Args:
        runs: Folders of the runs, each starting from the one before.
        trials: Table of the trials.
        results: Returned by `evaluate`.
        digests: SHA-256 of each image of the corpus.
    """
    attribution = yaml.safe_load((WEIGHTS / "sources.yaml").read_text(encoding="utf-8"))
    stages = [_stage(run) for run in runs]
    weights = WEIGHTS / f"{NAME}.safetensors"
    backbone = load_backbone(NAME)
    return {
        "name": NAME,
        "architecture": "vit_tiny_patch16_224",
        "parameters": sum(tensor.numel() for tensor in backbone.model.parameters()),
        "fingerprint": backbone.fingerprint,
        "sha256": file_hash(weights),
        "bytes": weights.stat().st_size,
        "preprocessing": backbone.describe()["preprocessing"],
        "licence": "CC BY-SA 4.0",
        "hardware": f"{cpu_count()} processor cores ({_processor()}), no GPU, "
        "shared with other work",
        "images_seen": sum(stage["images_seen"] for stage in stages),
        "stages": stages,
        "corpus": [
            {**source, **attribution[source["source"]]} for source in read_run(runs[-1])["sources"]
        ],
        "corpus_images": len(digests),
        "corpus_sha256": corpus_sha256(digests),
        "trials": json.loads(trials.to_json(orient="records")),
        "aim": AIM,
        "limits": list(LIMITS),
        **_measured(results),
    }


def _stage(run: Path) -> dict[str, Any]:
    """Return the facts of one run."""
    facts, monitor, steps = read_run(run), read_monitor(run), steps_done(run)
    images = monitor["images"].diff().fillna(monitor["images"].iloc[0])
    kept = ("config", "seed", "init", "processes", "precision", "versions")
    return {
        **{name: facts[name] for name in kept},
        "steps_done": steps,
        "images_seen": steps * facts["config"]["batch_size"],
        "hours": round(float((images / monitor["images_per_second"]).sum() / 3600), 3),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main(arguments: list[str] | None = None) -> None:
    """Export the last run's teacher as the bundled checkpoint, evaluate it and write its card."""
    parser = argparse.ArgumentParser(prog="python -m tools.model_card", description=main.__doc__)
    parser.add_argument(
        "--runs",
        type=Path,
        nargs="+",
        help="folders of the runs, each starting from the one before",
    )
    parser.add_argument("--trials", type=Path, help="CSV table of the trials")
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="evaluate the bundled checkpoint again and change nothing else of its card",
    )
    options = parser.parse_args(arguments)
    if options.evaluation == bool(options.runs or options.trials) or bool(options.runs) != bool(
        options.trials
    ):
        parser.error("give --runs and --trials, or --evaluation alone")
    try:
        facts = _evaluated() if options.evaluation else _exported(options.runs, options.trials)
        write_json(WEIGHTS / f"{NAME}.json", facts)
        write_text(WEIGHTS / f"{NAME}.md", markdown(facts))
    except (InputError, OSError) as error:
        parser.exit(2, f"{error}\n")
    print(WEIGHTS / f"{NAME}.md")


def _evaluated() -> dict[str, Any]:
    """Return the facts of the committed card with a new evaluation."""
    facts = json.loads((WEIGHTS / f"{NAME}.json").read_text(encoding="utf-8"))
    results = evaluate()
    write_table(results, WEIGHTS / f"{NAME}-evaluation.csv")
    return facts | _measured(results)


def _exported(runs: list[Path], trials_path: Path) -> dict[str, Any]:
    """Write the bundled files of the last run and return the facts of its card."""
    for run in runs:
        require_run(run)
    trials = pd.read_csv(trials_path)
    for run in runs:
        verify_run(run)
    digests = read_digests(runs[-1])
    export(runs[-1], WEIGHTS / f"{NAME}.safetensors")
    with atomic(WEIGHTS / f"{NAME}-corpus.npy") as temporary:
        np.save(temporary, corpus_prefixes(digests))
    write_table(curves(runs), WEIGHTS / f"{NAME}-curves.csv")
    results = evaluate()
    write_table(results, WEIGHTS / f"{NAME}-evaluation.csv")
    write_table(trials, WEIGHTS / f"{NAME}-trials.csv")
    return card(runs, trials, results, digests)


def _measured(results: pd.DataFrame) -> dict[str, Any]:
    """Return what the card says about the test splits."""
    return {
        "thresholds": verdicts(results),
        "evaluation": json.loads(results.to_json(orient="records", double_precision=4)),
    }


if __name__ == "__main__":
    main()
