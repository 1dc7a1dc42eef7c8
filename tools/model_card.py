"""The bundled checkpoint and its card, both written from the folder of the run that made it."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save_file

from radiodino_utils.backbones.bundled import NAME, WEIGHTS
from radiodino_utils.backbones.checkpoints import saved_num_heads
from radiodino_utils.backbones.seen import corpus_prefixes
from radiodino_utils.core.errors import InputError
from radiodino_utils.core.files import atomic, write_json, write_text
from radiodino_utils.evaluation.results import write_table
from radiodino_utils.pretraining.run_files import BACKBONE

from .card_evaluation import evaluate, measured_facts
from .card_facts import CORPUS, card_facts, read_monitor, read_run, stated
from .card_text import markdown


def export(run: Path, path: Path) -> Path:
    """Write the backbone of a run in half precision under its final name.

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


def main(arguments: list[str] | None = None) -> None:
    """Export the backbone of a run as the bundled checkpoint, evaluate it and write its card."""
    parser = argparse.ArgumentParser(prog="python -m tools.model_card", description=main.__doc__)
    parser.add_argument("--run", type=Path, help="folder of the distillation run")
    parser.add_argument("--trials", type=Path, help="CSV table of the trials")
    parser.add_argument(
        "--evaluation",
        action="store_true",
        help="evaluate the bundled checkpoint again, and take its trials from their table",
    )
    options = parser.parse_args(arguments)
    exports = bool(options.run or options.trials)
    if options.evaluation == exports or bool(options.run) != bool(options.trials):
        parser.error("give --run and --trials, or --evaluation alone")
    try:
        facts = _evaluated() if options.evaluation else _exported(options.run, options.trials)
        write_json(WEIGHTS / f"{NAME}.json", facts)
        write_text(WEIGHTS / f"{NAME}.md", markdown(facts))
    except (InputError, OSError) as error:
        parser.exit(2, f"{error}\n")
    print(WEIGHTS / f"{NAME}.md")


def _evaluated() -> dict[str, Any]:
    facts = json.loads((WEIGHTS / f"{NAME}.json").read_text(encoding="utf-8"))
    return facts | stated(pd.read_csv(WEIGHTS / f"{NAME}-trials.csv")) | _measured()


def _exported(run: Path, trials_path: Path) -> dict[str, Any]:
    read_run(run)
    monitor, trials = read_monitor(run), pd.read_csv(trials_path)
    digests = pd.read_csv(WEIGHTS / CORPUS, dtype=str)["sha256"].tolist()
    export(run, WEIGHTS / f"{NAME}.safetensors")
    with atomic(WEIGHTS / f"{NAME}-corpus.npy") as temporary:
        np.save(temporary, corpus_prefixes(digests))
    write_table(monitor, WEIGHTS / f"{NAME}-curves.csv")
    write_table(trials, WEIGHTS / f"{NAME}-trials.csv")
    return card_facts(run, trials) | _measured()


def _measured() -> dict[str, Any]:
    rows, paired = evaluate()
    write_table(rows, WEIGHTS / f"{NAME}-evaluation.csv")
    return measured_facts(rows, paired)


if __name__ == "__main__":
    main()
