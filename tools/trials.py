"""Table of trials of a pre-training: what each run changed, and its teacher's validation scores."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.backbones.registry import REGISTRY
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.online_probe import KnnProbe
from radiodino_utils.pretraining.run_files import BACKBONE, read_run, steps_done, verify_run

from . import card_facts


def changed_settings(config: dict[str, Any], base: str, images: int) -> str:
    """Return the settings in which a run differs from a configuration, `name value, ...`.

    Args:
        config: Settings of the run.
        base: Name of the configuration.
        images: Number of images of the corpus.
    """
    known = load_config(base, images=images).describe()
    return (
        ", ".join(f"{key} {value}" for key, value in config.items() if value != known[key])
        or "unchanged"
    )


def trial_row(
    trial: str, probes: list[KnnProbe], *, crossed: Sequence[KnnProbe] = (), base: str = "small"
) -> dict[str, object]:
    """Return a row of the table: a run as it stands, finished or not, or a baseline.

    Args:
        trial: Folder of a run, or the registered name of a backbone.
        probes: Labelled datasets that judge it on validation images.
        crossed: Labelled datasets that judge it by cross-validation over train and validation
            images.
        base: Configuration with which the settings of a self-supervised run are compared.

    Returns:
        trial, setting, steps, crops seen, seed, and accuracy and AUC (fractions) of each dataset.

    Raises:
        InputError: If it is neither a run nor a backbone.
    """
    row = _facts(trial, base)
    name = trial if trial in REGISTRY else f"file:{Path(trial) / BACKBONE}"
    model = load_backbone(name).model
    for probe in probes:
        values = probe(model)
        row[f"{probe.name} val accuracy"] = round(values["probe"], 3)
        row[f"{probe.name} val AUC"] = round(values["probe_auc"], 3)
    for probe in crossed:
        for protocol, value in probe.cross_validated(model).items():
            row[f"{probe.name} crossed {protocol} AUC"] = round(value, 3)
    return row


def _facts(trial: str, base: str) -> dict[str, object]:
    if trial in REGISTRY:
        setting = "no training of this project"
        return {"trial": trial, "setting": setting, "steps": 0, "crops seen": 0, "seed": 0}
    run = Path(trial)
    if (run / "monitor.jsonl").is_file():
        return _distillation_facts(run)
    verify_run(run)
    facts, steps = read_run(run), steps_done(run)
    images = sum(source["images"] for source in facts["sources"])
    return {
        "trial": run.name,
        "setting": changed_settings(facts["config"], base, images),
        "steps": steps,
        "crops seen": steps * facts["config"]["batch_size"],
        "seed": facts["seed"],
    }


def _distillation_facts(run: Path) -> dict[str, object]:
    facts, last = card_facts.read_run(run), card_facts.read_monitor(run).iloc[-1]
    config, targets = facts["config"], facts["targets"]
    sizes = ", ".join(f"{size} px to {100 * end:.0f} %" for size, end in config["sizes"])
    setting = (
        f"distilled from {', '.join(targets['teachers'])}, start {config['start']}, {sizes}, "
        f"{targets['capacity']} crops kept, {facts['lengths'][-1]['crops']} planned"
    )
    return {
        "trial": run.name,
        "setting": setting,
        "steps": int(last["step"]),
        "crops seen": int(last["images"]),
        "seed": config["seed"],
    }


def main(arguments: list[str] | None = None) -> None:
    """Add the current state of runs to a table of trials; rows that it has stay as they are."""
    parser = argparse.ArgumentParser(prog="python -m tools.trials", description=main.__doc__)
    parser.add_argument("trials", nargs="+", help="folders of runs, and backbones by name")
    parser.add_argument(
        "--probe", action="append", required=True, help="labelled set with the splits train and val"
    )
    parser.add_argument(
        "--crossed",
        action="append",
        default=[],
        help="labelled set for 5-fold cross-validation, train and val",
    )
    parser.add_argument(
        "--base",
        default="small",
        help="configuration with which the settings are compared (default: small)",
    )
    parser.add_argument("--out", type=Path, required=True, help="the table, CSV")
    options = parser.parse_args(arguments)
    try:
        probes, crossed = (
            [KnnProbe(load_dataset(name)) for name in names]
            for names in (options.probe, options.crossed)
        )
        rows = pd.DataFrame(
            [
                trial_row(trial, probes, crossed=crossed, base=options.base)
                for trial in options.trials
            ]
        )
    except InputError as error:
        parser.exit(2, f"{error}\n")
    known = [pd.read_csv(options.out)] if options.out.is_file() else []
    write_table(pd.concat([*known, rows]).drop_duplicates(["trial", "crops seen"]), options.out)
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
