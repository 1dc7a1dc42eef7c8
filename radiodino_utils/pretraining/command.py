"""The command line of self-supervised pre-training: `python -m radiodino_utils.pretraining.command`."""

import argparse
import sys
from pathlib import Path

import yaml

from ..core.errors import InputError
from .config import METHODS, recipe_names

_ARCHITECTURES = ("t16", "s16", "b16", "s8")
_EPILOG = """examples:
  python -m radiodino_utils.pretraining.command --method dino --arch t16 --data mednist.zip --out runs/first
  python -m radiodino_utils.pretraining.command --data ct/=0.7 --data ultrasound.zip=0.3 --out runs/mixed --set rotation=10
  python -m radiodino_utils.pretraining.command --data mednist.zip --out runs/first --resume
  torchrun --nproc-per-node 4 -m radiodino_utils.pretraining.command --recipe dinov2 --arch b16 --strategy fsdp --data ...
  python -m radiodino_utils.pretraining.command @settings.args --out runs/again   (a file with one argument a line)
  python -m radiodino_utils.pretraining.command --teacher efficientnet-lite0 --help   (distillation)"""


def make_parser() -> argparse.ArgumentParser:
    """The options, each explained; importing this module loads no torch."""
    parser = argparse.ArgumentParser(
        prog="python -m radiodino_utils.pretraining.command",
        description="Pre-trains a RadioDINO of your own from unlabelled radiology images, with DINO or DINOv2.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        fromfile_prefix_chars="@",
    )
    what = parser.add_argument_group("what to train")
    what.add_argument("--method", choices=METHODS, help="dino: class tokens; dinov2: with masked patches and KoLeo; "
                      "the recipe's by default")  # fmt: skip
    what.add_argument("--arch", choices=_ARCHITECTURES, default="t16", help="vision transformer: tiny, small or base with "
                      "patches of 16 pixels, or small with 8 (default: t16)")  # fmt: skip
    what.add_argument("--recipe", default="small", metavar="NAME|FILE", help=f"settings: {', '.join(recipe_names())}, or a "
                      "YAML file that may start from one with 'base: NAME' (default: small, which scales with it)")  # fmt: skip
    what.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting of the recipe; may "
                      "be given again")  # fmt: skip
    what.add_argument(
        "--epochs",
        type=float,
        help="length of the run in times the corpus; the recipe's by default",
    )
    what.add_argument("--steps", type=int, help="length of the run in steps, instead of epochs")
    what.add_argument("--batch-size", type=int, help="images a step, of all processes together")
    what.add_argument(
        "--accumulate", type=int, help="parts in which a batch is computed, to save memory"
    )
    what.add_argument(
        "--lr", type=float, help="learning rate, before the recipe's scaling by the batch size"
    )
    what.add_argument(
        "--seed", type=int, default=0, help="of weights, draws and views (default: 0)"
    )
    what.add_argument("--init", type=Path, metavar="FILE", help="last.ckpt of another run, whose student and teacher this one "
                      "starts from")  # fmt: skip
    data = parser.add_argument_group("images")
    data.add_argument("--data", action="append", metavar="SOURCE[=WEIGHT]", help="a folder with anything below it, a list of "
                      "files (.txt), RadImageNet's split (.csv), a .zip or .tar of images, an .npz in MedMNIST's layout or a "
                      "labelled set by its name (training rows); PNG, JPEG, TIFF, DICOM and more; may be given again; WEIGHT is "
                      "the share of the draws, the number of images by default")  # fmt: skip
    data.add_argument("--hold-out", action="append", default=[], metavar="DATASET", help="labelled set (breastmnist-224, "
                      "npz:PATH, folder:PATH) whose val and test images are left out of the corpus by pixels")  # fmt: skip
    data.add_argument("--unreadable", type=float, default=0.01, metavar="SHARE", help="share of unreadable images that is "
                      "borne; they are listed in run.json (default: 0.01)")  # fmt: skip
    data.add_argument("--memory", type=float, default=4.0, metavar="GB", help="a corpus that fits is decoded once and kept in "
                      "memory; a larger one is decoded as it is drawn (default: 4)")  # fmt: skip
    data.add_argument("--workers", type=int, default=0, help="processes that prepare views beside the steps; 0 prepares them "
                      "between the steps, best on two cores (default: 0)")  # fmt: skip
    data.add_argument("--loader-seconds", type=float, default=600.0, help="longest wait for a batch of the workers before the "
                      "run ends (default: 600)")  # fmt: skip
    run = parser.add_argument_group("the run")
    run.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where run.json, monitor.csv, last.ckpt and "
                     "backbone.safetensors go")  # fmt: skip
    run.add_argument("--resume", action="store_true", help="go on with the run in the folder, exactly; the other options must "
                     "be those it was started with")  # fmt: skip
    run.add_argument(
        "--stop-after",
        type=float,
        metavar="MINUTES",
        help="save and stop after this long; resume goes on",
    )
    run.add_argument(
        "--stop-at",
        type=int,
        metavar="STEP",
        help="save and stop after this step of the run; resume goes on",
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
        default=10,
        help="steps between two rows of monitor.csv (default: 10)",
    )
    run.add_argument("--probe", metavar="DATASET", help="labelled set for a kNN probe of the teacher: val images among train "
                     "images")  # fmt: skip
    run.add_argument(
        "--probe-minutes", type=float, default=15.0, help="minutes between two probes (default: 15)"
    )
    machine = parser.add_argument_group("the machine")
    machine.add_argument("--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 where the processor "
                         "or GPU computes in it (default: auto)")  # fmt: skip
    machine.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto", help="auto: GPUs where there are any "
                         "(default: auto)")  # fmt: skip
    machine.add_argument(
        "--devices",
        type=int,
        help="GPUs of this machine; several machines: start with torchrun (default: 1)",
    )
    machine.add_argument("--strategy", choices=("auto", "ddp", "fsdp"), default="auto", help="several processes: ddp keeps a "
                         "whole model each, fsdp shares a large one among GPUs (default: auto)")  # fmt: skip
    machine.add_argument(
        "--threads", type=int, help="processors a process may use; all, shared evenly, by default"
    )
    return parser


def settings(pairs: list[str]) -> dict[str, object]:
    """Reads `KEY=VALUE` pairs, values as in YAML.

    Raises:
        InputError: If a pair has no equals sign.
    """
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise InputError(f"--set {wrong[0]}: write KEY=VALUE.")
    return {key: yaml.safe_load(value) for key, _, value in (pair.partition("=") for pair in pairs)}


def main(arguments: list[str] | None = None) -> None:
    """Runs a pre-training from the command line; with `--teacher` a distillation."""
    given = sys.argv[1:] if arguments is None else arguments
    if any(one.partition("=")[0] == "--teacher" for one in given):
        from .distill_command import main as distill

        distill(given)
        return
    parser = make_parser()
    options = parser.parse_args(arguments)
    try:
        progress = _run(options)
    except InputError as error:
        parser.exit(2, f"{error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; the last checkpoint is intact.\n")
    if progress is not None:
        print(f"{progress.backbone} after {progress.step} of {progress.steps} steps")


def _run(options: argparse.Namespace):  # noqa: ANN202
    from ..core.environment import cpu_count, launched
    from ..data.registry import load_dataset
    from .corpus import Source, load_corpus

    if not options.data:
        raise InputError("--data: the corpus is empty: name at least one source of images.")
    hold_out = [load_dataset(name) for name in options.hold_out]
    corpus = load_corpus(
        [Source.parse(text) for text in options.data],
        hold_out=hold_out,
        limit=options.unreadable,
        memory=options.memory * 1e9,
    )
    rank, _, here = launched()
    if rank == 0:
        print(corpus.table().to_string(index=False, float_format="%.3f"), file=sys.stderr)
        for name, reason in corpus.unreadable:
            print(f"left out: {name}: {reason}", file=sys.stderr)

    import torch

    from .config import load_recipe
    from .online_probe import KnnProbe
    from .trainer import Plan, Running, pretrain

    torch.set_num_threads(options.threads or max(1, cpu_count() // here))
    recipe = load_recipe(
        options.recipe, method=options.method, images=len(corpus), patch_size=8 if options.arch == "s8" else 16,
        epochs=options.epochs, steps=options.steps, batch_size=options.batch_size, accumulate=options.accumulate,
        lr=options.lr, **settings(options.set),
    )  # fmt: skip
    running = Running(
        precision=options.precision, accelerator=options.accelerator, devices=options.devices, strategy=options.strategy,
        workers=options.workers, loader_seconds=options.loader_seconds, monitor_every=options.monitor_every,
        save_minutes=options.save_minutes,
        probe_minutes=options.probe_minutes, stop_after=options.stop_after, stop_at=options.stop_at,
    )  # fmt: skip
    probe = (
        KnnProbe(load_dataset(options.probe), corpus=corpus)
        if options.probe and rank == 0
        else None
    )
    plan = Plan(options.arch, recipe, options.seed, options.init)
    progress = pretrain(
        plan, corpus, options.out, running=running, resume=options.resume, probe=probe
    )
    return progress if rank == 0 else None


if __name__ == "__main__":
    main()
