"""Table of trials of a pre-training: what each run changed, and its teacher's validation scores."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.online_probe import KnnProbe
from radiodino_utils.pretraining.run_files import BACKBONE, read_run, steps_done, verify_run


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
    run: Path, probes: list[KnnProbe], *, crossed: Sequence[KnnProbe] = (), base: str = "small"
) -> dict[str, object]:
    """Return a row of the table: a run as it stands, finished or not.

    Args:
        run: Folder of the run.
        probes: Labelled datasets that judge its teacher on validation images.
        crossed: Labelled datasets that judge it by cross-validation over train and validation
            images.
        base: Configuration with which the settings of the run are compared.

    Returns:
        trial, setting, shares of the sources, steps, images seen, seed, and accuracy and AUC
        (fractions) of each dataset.

    Raises:
        InputError: If the folder holds no run.
    """
    verify_run(run)
    facts = read_run(run)
    step = steps_done(run)
    images = sum(source["images"] for source in facts["sources"])
    row: dict[str, object] = {
        "trial": run.name,
        "setting": changed_settings(facts["config"], base, images),
        "shares of the sources": ", ".join(
            f"{source['source']} {source['share of draws']:.2f}" for source in facts["sources"]
        ),
        "steps": step,
        "images seen": step * facts["config"]["batch_size"],
        "seed": facts["seed"],
    }
    model = load_backbone(f"file:{run / BACKBONE}").model
    for probe in probes:
        values = probe(model)
        row[f"{probe.name} val accuracy"] = round(values["probe"], 3)
        row[f"{probe.name} val AUC"] = round(values["probe_auc"], 3)
    for probe in crossed:
        for name, value in probe.cross_validated(model).items():
            row[f"{probe.name} crossed {name} AUC"] = round(value, 3)
    return row


def main(arguments: list[str] | None = None) -> None:
    """Add the current state of runs to a table of trials; rows that it has stay as they are."""
    parser = argparse.ArgumentParser(prog="python -m tools.trials", description=main.__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs")
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
            [trial_row(run, probes, crossed=crossed, base=options.base) for run in options.runs]
        )
    except InputError as error:
        parser.exit(2, f"{error}\n")
    known = [pd.read_csv(options.out)] if options.out.is_file() else []
    write_table(pd.concat([*known, rows]).drop_duplicates(["trial", "images seen"]), options.out)
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
