"""The command line of distillation: `python -m radiodino_utils.pretraining.distill_command`."""

import argparse
import sys
from dataclasses import fields
from pathlib import Path

from ..core.errors import InputError

_EPILOG = """examples:
  python -m radiodino_utils.pretraining.command --teacher efficientnet-lite0 --data mednist.zip --out runs/distilled
  python -m radiodino_utils.pretraining.command --teacher efficientnet-lite0 --teacher dinov2-s14-saliency --data ct/ --out runs/two
  python -m radiodino_utils.pretraining.command --teacher efficientnet-lite0 --data ct/ --out runs/two --resume --set crops=50000"""


def make_parser() -> argparse.ArgumentParser:
    """Return the options, each explained; importing this module loads no torch."""
    parser = argparse.ArgumentParser(
        prog="python -m radiodino_utils.pretraining.command --teacher NAME",
        description="Distils frozen backbones into a small vision transformer, on unlabelled radiology images.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    what = parser.add_argument_group("what to train")
    what.add_argument(
        "--teacher",
        action="append",
        metavar="NAME",
        help="backbone to learn from; may be given again",
    )
    what.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of DistillationConfig, such as "
                      "crops=100000 or start=dinov2-s14-saliency; may be given again")  # fmt: skip
    data = parser.add_argument_group("images")
    data.add_argument(
        "--data",
        action="append",
        metavar="SOURCE[=WEIGHT]",
        help="as of radiodino_utils.pretraining.command",
    )
    data.add_argument(
        "--only",
        type=Path,
        metavar="FILE",
        help="take only the images whose SHA-256 this list (CSV) names",
    )
    data.add_argument("--unreadable", type=float, default=0.01, metavar="SHARE", help="share of unreadable images that is "
                      "tolerated (default: 0.01)")  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where run.json, monitor.jsonl, last.ckpt and "
                     "backbone.safetensors go")  # fmt: skip
    run.add_argument("--targets", type=Path, metavar="FOLDER", help="where crops and targets are kept, some 100 kB per crop "
                     "(default: targets in the run's folder)")  # fmt: skip
    run.add_argument(
        "--capacity",
        type=int,
        default=50_000,
        help="crops to keep; a longer run sees them again (default: 50000)",
    )
    run.add_argument("--resume", action="store_true", help="continue the run in the folder; crops may be changed, its schedule "
                     "then goes on from the share that is done")  # fmt: skip
    run.add_argument(
        "--stop-after",
        type=float,
        metavar="MINUTES",
        help="save and stop after this long; resume goes on",
    )
    run.add_argument(
        "--save-minutes",
        type=float,
        default=5.0,
        help="minutes between two checkpoints (default: 5)",
    )
    run.add_argument(
        "--monitor-every",
        type=int,
        default=20,
        help="steps between two rows of the monitor (default: 20)",
    )
    run.add_argument("--probe", action="append", default=[], metavar="DATASET", help="labelled set for a kNN probe of the "
                     "student: val images among train images; may be given again")  # fmt: skip
    run.add_argument(
        "--probe-minutes", type=float, default=15.0, help="minutes between two probes (default: 15)"
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where the processor "
                         "computes in it (default: auto)")  # fmt: skip
    machine.add_argument("--threads", type=int, default=1, help="processors to use (default: 1)")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run a distillation from the command line."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        progress = _run(options)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    print(f"{progress.backbone} after {progress.step} of {progress.steps} steps")


def _run(options: argparse.Namespace):  # noqa: ANN202
    if not options.teacher:
        raise InputError("--teacher: name at least one backbone to learn from.")
    if not options.data:
        raise InputError("--data: the corpus is empty: name at least one source of images.")
    import torch

    from ..backbones.loading import load_backbone
    from ..core.fabric import resolved_precision
    from ..data.registry import load_dataset
    from .command import settings
    from .corpus import Source, load_corpus
    from .online_probe import KnnProbe
    from .separation import only_listed
    from .teacher_distillation import DistillationConfig, distill
    from .teacher_targets import TargetStore

    torch.set_num_threads(options.threads)
    chosen = settings(options.set)
    if wrong := [
        name for name in chosen if name not in {field.name for field in fields(DistillationConfig)}
    ]:
        raise InputError(
            f"--set {wrong[0]}: no such setting; known: {', '.join(field.name for field in fields(DistillationConfig))}."
        )
    if "sizes" in chosen:
        chosen["sizes"] = tuple(tuple(one) for one in chosen["sizes"])
    config = DistillationConfig(**chosen)
    teachers = [load_backbone(name) for name in options.teacher]
    corpus = load_corpus([Source.parse(text) for text in options.data], limit=options.unreadable)
    corpus = only_listed(corpus, options.only) if options.only else corpus
    print(corpus.table().to_string(index=False, float_format="%.3f"), file=sys.stderr)
    precision = resolved_precision(options.precision, cuda=False)
    probes = [KnnProbe(load_dataset(name), corpus=corpus) for name in options.probe]
    store = TargetStore(
        options.targets or options.out / "targets", corpus, teachers,
        capacity=options.capacity, seed=config.seed, precision=precision, threads=options.threads,
    )  # fmt: skip

    def probe(model: torch.nn.Module) -> dict[str, float]:
        found = [(one.name, one(model)) for one in probes]
        return {f"{name} {key}": value for name, values in found for key, value in values.items()}

    return distill(
        config, store, options.out, resume=options.resume, precision=precision, stop_after=options.stop_after,
        save_minutes=options.save_minutes, probe_minutes=options.probe_minutes, monitor_every=options.monitor_every,
        probe=probe if probes else None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
