"""The model card of the bundled checkpoint for people, in the format of the Hugging Face Hub."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import ModelCardData

from radiodino_utils.evaluation.results import wide_table

_TAGS = ["radiology", "medical-imaging", "vision-transformer", "distillation", "feature-extraction"]

_TEMPLATE = Path(__file__).with_name("model_card_template.md")


def markdown(facts: dict[str, Any]) -> str:
    """Return the card with its YAML header."""
    run = facts["run"]
    return _TEMPLATE.read_text(encoding="utf-8").format(
        **{key: facts[key] for key in ("name", "architecture", "corpus_images", "licence")},
        **{key: facts[key] for key in ("corpus_sha256", "crops_seen", "hours", "hardware")},
        header=_header(facts),
        millions=facts["parameters"] / 1e6,
        teacher_names=" and ".join(f"`{teacher['name']}`" for teacher in facts["teachers"]),
        teacher=facts["teachers"][0]["name"],
        start=run["config"]["start"],
        lengths=", ".join(f"{part['crops']} from {part['from_crops']}" for part in run["lengths"]),
        capacity=run["targets"]["capacity"],
        corpus_table=_corpus_table(facts["corpus"]),
        teachers_table=_teachers_table(facts["teachers"]),
        settings_table=_table(("setting", "value"), sorted(run["config"].items())),
        trials_table=_frame(pd.DataFrame(facts["trials"]).astype(object).fillna("")),
        evaluation_table=_evaluation_table(facts),
        paired_table=_paired_table(pd.DataFrame(facts["paired"])),
        bars_table=_bars_table(facts["bars"]),
        verdict=_verdict(facts["bars"]),
        limits_list="\n".join(f"- {limit}" for limit in facts["limits"]),
    )


def _header(facts: dict[str, Any]) -> str:
    data = ModelCardData(
        license=facts["licence"].lower().replace(" ", "-", 1).replace(" ", "-"),
        library_name="timm",
        pipeline_tag="image-feature-extraction",
        tags=_TAGS,
    )
    return str(data.to_yaml())


def _corpus_table(corpus: list[dict[str, Any]]) -> str:
    columns = ("source", "images", "share of draws", "licence", "by")
    lines = [
        (
            source["title"],
            source["images"],
            f"{source['share of draws']:.1%}",
            source["licence"],
            source["by"],
        )
        for source in corpus
    ]
    return _table(columns, lines)


def _teachers_table(teachers: list[dict[str, Any]]) -> str:
    columns = ("name", "licence", "fingerprint")
    return _table(columns, [[teacher[column] for column in columns] for teacher in teachers])


def _evaluation_table(facts: dict[str, Any]) -> str:
    rows = pd.DataFrame(facts["evaluation"])
    return _frame(wide_table(rows[rows["protocol"].isin(["knn", "knn-k20", "logistic"])]))


def _paired_table(paired: pd.DataFrame) -> str:
    rows = paired[(paired["metric"] == "auc") & paired["protocol"].isin(["knn", "logistic"])]
    differences = [
        f"{100 * row.difference:.1f} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
        for row in rows.itertuples()
    ]
    return _frame(rows[["dataset", "protocol", "other", "n"]].assign(difference=differences))


def _bars_table(bars: list[dict[str, Any]]) -> str:
    lines = [
        (bar["what"], bar["bar"], bar["value"], "met" if bar["met"] else "missed") for bar in bars
    ]
    return _table(("what", "bar", "measured", "met or missed"), lines)


def _verdict(bars: list[dict[str, Any]]) -> str:
    missed = [bar["what"] for bar in bars if not bar["met"]]
    if not missed:
        return "All bars are met."
    return f"{len(missed)} of {len(bars)} bars are missed: {'; '.join(missed)}."


def _frame(table: pd.DataFrame) -> str:
    return _table(table.columns, table.itertuples(index=False))


def _table(head: Iterable[object], lines: Iterable[Iterable[object]]) -> str:
    columns = list(head)
    cells = [columns, ["---"] * len(columns), *lines]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in cells)
