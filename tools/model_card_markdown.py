"""The model card of the bundled checkpoint as Markdown, from its facts."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from radiodino_utils.evaluation.results import wide_table

TEMPLATE = Path(__file__).with_name("model_card_template.md")
HELP = (
    "What would help: more images of more kinds, CT and ultrasound above all, and a GPU for tens "
    "of millions of images at 224 px. On this corpus more steps did not help: in the longer trials "
    "kNN on the axial OrganCT fell again within some tens of thousands of images while BreastMNIST "
    "gained little, and neither batches of one group, Sinkhorn-Knopp, masked patches nor a short "
    "finish at 224 px changed that. By cross-validation the frozen features of BreastMNIST are "
    "worth about as much as its pixels."
)


def markdown(facts: dict[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        facts: Returned by `model_card.card`.
    """
    results = pd.DataFrame(facts["evaluation"])
    trials = pd.DataFrame(facts["trials"]).convert_dtypes().astype(object).fillna("")
    evaluation = wide_table(results[results["protocol"].isin(["knn", "logistic"])])
    return TEMPLATE.read_text(encoding="utf-8").format(
        **facts,
        millions=facts["parameters"] / 1e6,
        corpus_table=_corpus_table(facts["corpus"]),
        stages_table=_stages_table(facts["stages"]),
        trials_table=_table(trials.columns, trials.itertuples(index=False)),
        evaluation_table=_table(evaluation.columns, evaluation.itertuples(index=False)),
        thresholds_table=_thresholds_table(facts["thresholds"]),
        verdict=_verdict(facts["thresholds"]),
        reached=_reached(results, facts["name"]),
        limits_list="\n".join(f"- {limit}" for limit in facts["limits"]),
    )


def _corpus_table(sources: list[dict[str, Any]]) -> str:
    lines = [
        (
            source["title"],
            source["images"],
            f"{source['share of draws']:.0%}",
            source["licence"],
            source["by"],
        )
        for source in sources
    ]
    return _table(("source", "images", "share of draws", "licence", "by"), lines)


def _stages_table(stages: list[dict[str, Any]]) -> str:
    lines = [
        (
            number,
            f"{stage['config']['global_size']} px",
            stage["config"]["batch_size"],
            f"{stage['steps_done']} of {stage['config']['steps']}",
            stage["images_seen"],
            stage["hours"],
            stage["seed"],
        )
        for number, stage in enumerate(stages, 1)
    ]
    head = ("stage", "global views", "batch", "steps", "images seen", "hours", "seed")
    return _table(head, lines)


def _thresholds_table(thresholds: list[dict[str, Any]]) -> str:
    lines = [
        (
            threshold["what"],
            f"{threshold['threshold']:.3f}",
            f"{threshold['value']:.3f}",
            "met" if threshold["met"] else "missed",
        )
        for threshold in thresholds
    ]
    return _table(("threshold", "wanted", "measured", "met or missed"), lines)


def _verdict(thresholds: list[dict[str, Any]]) -> str:
    missed = sum(not threshold["met"] for threshold in thresholds)
    if not missed:
        return "All thresholds are met."
    return f"{missed} of {len(thresholds)} thresholds are missed. {HELP}"


def _reached(results: pd.DataFrame, name: str) -> str:
    """Return what the checkpoint reaches on BreastMNIST."""
    own = results[(results["backbone"] == name) & (results["dataset"] == "breastmnist-224")]
    values = own.set_index(["protocol", "metric"])["value"]
    knn, logistic, auc = (
        f"{100 * values[key]:.1f} %"
        for key in (("knn", "accuracy"), ("logistic", "accuracy"), ("logistic", "auc"))
    )
    return f"kNN {knn}, logistic regression {logistic} and AUC {auc}"


def _table(head: Iterable[str], lines: Iterable[Iterable[object]]) -> str:
    head = list(head)
    cells = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in cells)
