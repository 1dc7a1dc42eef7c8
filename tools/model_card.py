"""The bundled checkpoint and its card, both written from the folders of the runs that made it."""

import argparse
import hashlib
import json
import platform
from collections.abc import Iterable
from pathlib import Path

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
from radiodino_utils.evaluation.results import classification_rows, wide_table, write_table
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

DATASETS = ("organct-axial", "organct-coronal", "organct-sagittal", "breastmnist-224")
BACKBONES = (NAME, "random-t16", "pixels")
FLOORS = (("breastmnist-224", "knn", "auc", 0.88), ("breastmnist-224", "logistic", "auc", 0.90))
LEAD = 0.10  # of kNN accuracy on OrganCT, over both floors
AIM = "the frozen DINO ViT-B/16 of MedMNIST+, 16 times as large: BreastMNIST kNN 87.2 %, linear 88.7 % and AUC 93.4 %"
HELP = (
    "What would help: more images of more kinds, CT and ultrasound above all, and a GPU that passes through tens of millions "
    "at 224 px. On this corpus more steps did not: in the longer trials kNN on the axial set of OrganCT fell again within some "
    "tens of thousands of images while BreastMNIST gained little, and neither batches of one group, Sinkhorn-Knopp, masked "
    "patches nor a short finish at 224 px changed that. By cross-validation BreastMNIST's frozen features are worth about as "
    "much as its pixels."
)
LIMITS = (
    "It has 5.5 million parameters and was trained on a processor, on few images at a low resolution; the released "
    "RadioDINO models are larger and were trained on a million images and more. Do not use it for diagnosis.",
    "OrganCT is one patient with automatic labels: it shows that the pipeline works and no more. BreastMNIST's test split has "
    "156 images: its intervals are wide.",
    "The training rows of BreastMNIST are in the corpus (without labels), so its test rows are of a known domain. They are "
    "545 of BUSI's 780 images, which the folds of BUSI test; and the checkpoint was chosen by the cross-validated labels of "
    "BreastMNIST's 624 training and validation rows, images of BUSI too. The column seen_in_pretraining says so in every row.",
    "MedNIST's CT and X-ray come from public archives: other sets of the same archives may share patients with the corpus.",
)


def corpus_sha256(digests: list[str]) -> str:
    """SHA-256 of the sorted digests, one a line."""
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest()


def export(run: Path, path: Path) -> Path:
    """Writes a run's teacher in half precision under its final name.

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
    """Result rows of kNN (three protocols) and logistic regression on the test splits."""
    rows = []
    for dataset in map(load_dataset, datasets):
        for backbone in map(load_backbone, backbones):
            features = extract_features(backbone, dataset)
            predictions = [
                classify_knn(features, protocol=protocol) for protocol in ("knn", "knn1", "knn11")
            ]
            rows += [
                classification_rows(one) for one in (*predictions, classify_logistic(features))
            ]
    return pd.concat(rows, ignore_index=True)


def verdicts(rows: pd.DataFrame) -> list[dict[str, object]]:
    """Each floor beside what was measured: columns what, floor, value, met."""
    values = rows.set_index(["dataset", "protocol", "metric", "backbone"])["value"]
    found = []
    for dataset in sorted({name for name in rows["dataset"] if name.startswith("organct-")}):
        own, *others = (
            float(values[dataset, "knn", "accuracy", backbone]) for backbone in BACKBONES
        )
        floor = max(others) + LEAD
        found.append(
            {"what": f"{dataset}, kNN accuracy", "floor": floor, "value": own, "met": own >= floor}
        )
    for dataset, protocol, metric, floor in FLOORS:
        own = float(values[dataset, protocol, metric, NAME])
        found.append(
            {
                "what": f"{dataset}, {protocol} {metric.upper()}",
                "floor": floor,
                "value": own,
                "met": own >= floor,
            }
        )
    return found


def curves(runs: list[Path]) -> pd.DataFrame:
    """The monitors of runs that follow one another, with images counted on."""
    tables, seen = [], 0
    for number, run in enumerate(runs, 1):
        table = read_monitor(run).assign(run=f"stage {number}")
        table["images"] += seen
        seen = int(table["images"].iloc[-1])
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def card(
    runs: list[Path], trials: pd.DataFrame, rows: pd.DataFrame, digests: list[str]
) -> dict[str, object]:
    """All facts of the checkpoint as JSON values."""
    attribution = yaml.safe_load((WEIGHTS / "sources.yaml").read_text(encoding="utf-8"))
    stages = []
    for run in runs:
        facts, monitor = read_run(run), read_monitor(run)
        images = monitor["images"].diff().fillna(monitor["images"].iloc[0])
        steps = steps_done(run)
        stages.append(
            {
                key: facts[key]
                for key in ("config", "seed", "init", "processes", "precision", "versions")
            }
            | {"steps_done": steps, "images_seen": steps * facts["config"]["batch_size"]}
            | {"hours": round(float((images / monitor["images_per_second"]).sum() / 3600), 3)}
        )
    sources = read_run(runs[-1])["sources"]
    weights = WEIGHTS / f"{NAME}.safetensors"
    backbone = load_backbone(NAME)
    return {
        "name": NAME,
        "architecture": "vit_tiny_patch16_224",
        "parameters": sum(one.numel() for one in backbone.model.parameters()),
        "fingerprint": backbone.fingerprint,
        "sha256": file_hash(weights),
        "bytes": weights.stat().st_size,
        "preprocessing": backbone.describe()["preprocessing"],
        "licence": "CC BY-SA 4.0",
        "hardware": f"{cpu_count()} processor cores ({_processor()}), no GPU, shared with other work",
        "images_seen": sum(stage["images_seen"] for stage in stages),
        "stages": stages,
        "corpus": [{**source, **attribution[source["source"]]} for source in sources],
        "corpus_images": len(digests),
        "corpus_sha256": corpus_sha256(digests),
        "trials": json.loads(trials.to_json(orient="records")),
        "aim": AIM,
        "limits": list(LIMITS),
        **_measured(rows),
    }  # fmt: skip


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


_CARD = """# {name}

A {architecture} ({millions:.1f} million parameters) that this project pre-trained itself, without labels, on {corpus_images:,}
openly licensed radiology images. `load_backbone("{name}")` loads it; its preprocessing is that of the RadioDINO family.
Licence of the weights: {licence}. `python -m tools.model_card` writes this card.

## Corpus

{corpus_table}

Nothing of BreastMNIST's validation or test rows, nor of the demo's CT. The SHA-256 of the sorted SHA-256 of all images is
`{corpus_sha256}`; the first 64 bits of each are in `{name}-corpus.npy`.

## PretrainConfig

`configurations/mini.yaml` holds the settings, `{name}.args` the options with the seed and the weights of the sources, and
`{name}-curves.csv` the curves. Again: `python -m radiodino_utils.pretraining.command @{name}.args --out FOLDER`, from a folder that holds
`corpus/` and `medmnist/`. Hardware: {hardware}. {images_seen:,} images seen.

{stages_table}

## Trials

Probed on *validation* rows (weighted kNN, k = 20) and, since 78 validation images of BreastMNIST say little, *crossed*: by
five folds over its training and validation rows together. Nothing was chosen on test rows. One seed each, so differences of
some points are noise. Kept is the state with the best mean of the five values that stand for the floors: kNN accuracy of the
three OrganCT sets, crossed kNN and logistic AUC of BreastMNIST; this rule was set when the values were known. The values of
W, X and XF were written by `python -m tools.trials`, as were the rows L to R; the floors and the other columns of R
come from the same probe, and the rest was copied from logs.

{trials_table}

## Evaluation

Test rows, once, at the end; per cent with bootstrap 95 % intervals.

{evaluation_table}

{floors_table}

{verdict} The aim was {aim}; it reaches {reached}.

## Limits

{limits_list}
"""


def markdown(facts: dict[str, object]) -> str:
    """The card for people."""
    rows = pd.DataFrame(facts["evaluation"])
    missed = [one for one in facts["floors"] if not one["met"]]
    trials = pd.DataFrame(facts["trials"]).convert_dtypes().astype(object).fillna("")
    corpus = [
        (s["title"], s["images"], f"{s['share of draws']:.0%}", s["licence"], s["by"])
        for s in facts["corpus"]
    ]
    floors = [
        (f["what"], f"{f['floor']:.3f}", f"{f['value']:.3f}", "met" if f["met"] else "missed")
        for f in facts["floors"]
    ]
    evaluation = wide_table(rows[rows["protocol"].isin(["knn", "logistic"])])
    stages = [
        (
            i,
            f"{s['config']['global_size']} px",
            s["config"]["batch_size"],
            f"{s['steps_done']} of {s['config']['steps']}",
            s["images_seen"],
            s["hours"],
            s["seed"],
        )
        for i, s in enumerate(facts["stages"], 1)
    ]
    own = rows[(rows["backbone"] == NAME) & (rows["dataset"] == "breastmnist-224")].set_index(
        ["protocol", "metric"]
    )["value"]
    kinds = (
        ("kNN", "knn", "accuracy"),
        ("logistic regression", "logistic", "accuracy"),
        ("AUC", "logistic", "auc"),
    )
    reached = [f"{kind} {100 * own[protocol, metric]:.1f} %" for kind, protocol, metric in kinds]
    return _CARD.format(
        **facts,
        millions=facts["parameters"] / 1e6,
        corpus_table=_table(("source", "images", "share of draws", "licence", "by"), corpus),
        stages_table=_table(
            ("stage", "global views", "batch", "steps", "images seen", "hours", "seed"), stages
        ),
        trials_table=_table(trials.columns, trials.itertuples(index=False)),
        evaluation_table=_table(evaluation.columns, evaluation.itertuples(index=False)),
        floors_table=_table(("floor", "wanted", "measured", "met or missed"), floors),
        verdict=f"{len(missed)} of {len(facts['floors'])} floors are missed. {HELP}"
        if missed
        else "All floors are met.",
        reached=f"{reached[0]}, {reached[1]} and {reached[2]}",
        limits_list="\n".join(f"- {limit}" for limit in facts["limits"]),
    )


def _table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    head = list(head)
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in cells)


def main(arguments: list[str] | None = None) -> None:
    """Exports the last run's teacher as the bundled checkpoint, evaluates it and writes its card."""
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


def _evaluated() -> dict[str, object]:
    facts, rows = json.loads((WEIGHTS / f"{NAME}.json").read_text(encoding="utf-8")), evaluate()
    write_table(rows, WEIGHTS / f"{NAME}-evaluation.csv")
    return facts | _measured(rows)


def _exported(runs: list[Path], trials_path: Path) -> dict[str, object]:
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
    rows = evaluate()
    write_table(rows, WEIGHTS / f"{NAME}-evaluation.csv")
    write_table(trials, WEIGHTS / f"{NAME}-trials.csv")
    return card(runs, trials, rows, digests)


def _measured(rows: pd.DataFrame) -> dict[str, object]:
    """What the card says of the test splits."""
    return {
        "floors": verdicts(rows),
        "evaluation": json.loads(rows.to_json(orient="records", double_precision=4)),
    }


if __name__ == "__main__":
    main()
