"""The table of trials of a pre-training: what each run changed, and what its teacher is worth on validation rows."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from radiodino_utils.backbones.loading import load_backbone
from radiodino_utils.core.errors import InputError
from radiodino_utils.data.registry import load_dataset
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.pretraining.config_files import load_config
from radiodino_utils.pretraining.online_probe import KnnProbe
from radiodino_utils.pretraining.run_files import BACKBONE, read_run, steps_done, verify_run


def changed_settings(config: dict[str, object], base: str, images: int) -> str:
    """The settings in which a run's config differs from a named one, `name value, ...`."""
    known = load_config(base, images=images).describe()
    return (
        ", ".join(f"{key} {value}" for key, value in config.items() if value != known[key])
        or "unchanged"
    )


def trial_row(
    run: Path, probes: list[KnnProbe], *, crossed: Sequence[KnnProbe] = (), base: str = "small"
) -> dict[str, object]:
    """One row of the table: a run as it stands, finished or not.

    Args:
        run: Folder of the run.
        probes: Labelled sets that judge its teacher on validation rows.
        crossed: Labelled sets that judge it by cross-validation over train and validation rows.
        base: The config with which the run's settings are compared.

    Returns:
        trial, setting, shares of the sources, steps, images seen, seed, and accuracy and AUC
        (fractions) of each set.

    Raises:
        InputError: If the folder holds no run.
    """
    verify_run(run)
    facts = read_run(run)
    step = steps_done(run)
    row = {
        "trial": run.name,
        "setting": changed_settings(
            facts["config"], base, sum(source["images"] for source in facts["sources"])
        ),
        "shares of the sources": ", ".join(
            f"{one['source']} {one['share of draws']:.2f}" for one in facts["sources"]
        ),
        "steps": step,
        "images seen": step * facts["config"]["batch_size"],
        "seed": facts["seed"],
    }
    model = load_backbone(f"file:{run / BACKBONE}").model
    for probe in probes:
        found = probe(model)
        row |= {
            f"{probe.name} val accuracy": round(found["probe"], 3),
            f"{probe.name} val AUC": round(found["probe_auc"], 3),
        }
    for probe in crossed:
        found = probe.cross_validated(model)
        row |= {
            f"{probe.name} crossed {name} AUC": round(value, 3) for name, value in found.items()
        }
    return row


def main(arguments: list[str] | None = None) -> None:
    """Adds the present state of runs to a table of trials; a state that the table has is left as it is."""
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
        help="config with which the settings are compared (default: small)",
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
