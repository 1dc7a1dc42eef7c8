"""The commands `radiodino pretrain` and `radiodino adapt`; torch is imported when they run."""

import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import yaml
from typer.core import TyperCommand

from ..core.command_line import with_options
from ..core.config import Config
from ..core.errors import InputError
from .command_options import (
    AdaptOptions,
    CommandOptions,
    CorpusOptions,
    DistillationOptions,
    FrequentSettings,
)
from .config import PretrainConfig
from .distillation_config import DistillationConfig
from .plan import Plan, RunOptions

if TYPE_CHECKING:
    import torch

    from .corpus import Corpus
    from .online_probe import KnnProbe
    from .progress import Progress

Options = TypeVar("Options", bound=Config)

_DISTILLATION_RUN = ("monitor_every", "save_minutes", "probe_minutes", "stop_after")
_DISTILLATION_OPTIONS = ("precision", "batch_size", "lr", *_DISTILLATION_RUN)
_SETTINGS = f"Settings of --set: {', '.join(PretrainConfig.model_fields)}."
_EPILOG = f"""
\b
Examples:
  radiodino pretrain --method dino --data images.zip --out runs/first
  radiodino pretrain --data ct/=0.7 --data us.zip=0.3 --out runs/mixed --set rotation=10
  radiodino pretrain --data images.zip --out runs/first --resume
  radiodino pretrain --start radiodino-mini --data images.zip --out runs/adapted
  radiodino pretrain --teacher efficientnet-lite0 --data images.zip --out runs/distilled
  radiodino pretrain @options.args --out runs/again

The file behind @ holds one argument per line. Several processes: torchrun -m radiodino_utils
pretrain.

{_SETTINGS}

With --teacher: {", ".join(DistillationConfig.model_fields)}.
"""


class CommandWithArgumentFiles(TyperCommand):
    """A command for which `@FILE` stands for the arguments in a file, one per line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Replace files by their arguments and parse them all."""
        return super().parse_args(ctx, [part for argument in args for part in _expanded(argument)])


@with_options(RunOptions, panel="Run")
@with_options(DistillationOptions, panel="Distillation")
@with_options(CorpusOptions, panel="Images")
@with_options(FrequentSettings, panel="Frequent settings")
@with_options(CommandOptions)
def pretrain(
    *,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the run: state, monitor, backbone.")
    ],
    **options: Any,
) -> None:
    """Pre-train a backbone on unlabelled images, with DINO, DINOv2 or teachers."""
    command, images = _chosen(CommandOptions, options), _chosen(CorpusOptions, options)
    if not images.data:
        raise InputError("--data: the corpus is empty: name at least one source of images.")
    run = _distilled if command.teacher else _pretrained
    try:
        progress = run(out, command, images, options)
    except KeyboardInterrupt:
        print("interrupted; the last checkpoint is intact.", file=sys.stderr)
        raise typer.Exit(130) from None
    if progress is not None:
        reason = f": {progress.end}" if progress.end else ""
        print(f"{progress.backbone} after {progress.step} of {progress.steps} steps{reason}")


@with_options(RunOptions, panel="Run")
@with_options(FrequentSettings, panel="Frequent settings")
@with_options(AdaptOptions)
def adapt(
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGES", help="Folder, DICOM tree, archive, list or dataset; SOURCE=WEIGHT."
        ),
    ],
    *,
    backbone: Annotated[
        str, typer.Option(metavar="NAME", help="Vision transformer to start from, or file:PATH.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Folder of the run: state, backbone, card.")
    ],
    **options: Any,
) -> None:
    """Adapt a backbone to your own images, without labels.

    Short for `pretrain --start NAME --data IMAGES`: self-supervision at a low learning rate with
    the frozen start as an anchor, ended by the drift of held-out images. The result loads as
    file:FOLDER/backbone.safetensors.
    """
    pretrain(out=out, start=backbone, data=tuple(images), **options)


def register(app: typer.Typer) -> None:
    """Add the commands to an application of typer."""
    app.command(cls=CommandWithArgumentFiles, epilog=_EPILOG)(pretrain)
    app.command(cls=CommandWithArgumentFiles, epilog=_SETTINGS)(adapt)


def parsed_settings(pairs: Sequence[str]) -> dict[str, Any]:
    """Return the settings of `KEY=VALUE` pairs, values as in YAML.

    Raises:
        InputError: If a pair has no equals sign, or its value is no YAML.
    """
    if wrong := [pair for pair in pairs if "=" not in pair]:
        raise InputError(f"--set {wrong[0]}: write KEY=VALUE.")
    settings = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            settings[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"--set {pair}: the value cannot be read; quote it.") from error
    return settings


def _pretrained(
    out: Path, command: CommandOptions, images: CorpusOptions, options: dict[str, Any]
) -> "Progress | None":
    """Carry out a run of DINO or DINOv2; only the first process returns its progress."""
    _refuse(options, DistillationOptions.model_fields, "needs --teacher")
    if command.start:
        _refuse(options, ("arch", "init"), "does not apply with --start")
    if len(command.probe) > 1:
        raise InputError("--probe: name one dataset; only with --teacher there may be more.")
    settings = parsed_settings(command.set)
    from ..core.environment import launched

    rank, _, processes = launched()
    corpus = _corpus(images, is_quiet=rank > 0)
    _set_threads(command.threads, processes)

    from ..backbones.loading import load_backbone
    from ..data.registry import load_dataset
    from .config_files import load_config
    from .online_probe import KnnProbe
    from .start import require_tokens
    from .trainer import pretrain as train

    start = load_backbone(command.start) if command.start else None
    if start:
        require_tokens(start)

    frequent = {name: options[name] for name in FrequentSettings.model_fields if name in options}
    config = load_config(
        command.config or ("adapt" if start else "small"),
        images=len(corpus),
        patch_size=start.patch_size if start else 8 if command.arch == "s8" else 16,
        **frequent | settings,
    )
    probe = None
    if command.probe and rank == 0:
        probe = KnnProbe(load_dataset(command.probe[0]), corpus=corpus)
    progress = train(
        Plan(None if start else command.arch, config, command.seed, command.init, start),
        corpus,
        out,
        options=_chosen(RunOptions, options),
        resume=command.resume,
        probe=probe,
    )
    return progress if rank == 0 else None


def _distilled(
    out: Path, command: CommandOptions, images: CorpusOptions, options: dict[str, Any]
) -> "Progress":
    """Carry out a distillation."""
    unused = {*FrequentSettings.model_fields, *RunOptions.model_fields, "config", "init", "start"}
    _refuse(options, unused - {*_DISTILLATION_OPTIONS}, "does not apply with --teacher")
    from ..backbones.loading import load_backbone
    from ..core.fabric import resolved_precision
    from ..data.registry import load_dataset
    from .distillation import distill
    from .online_probe import KnnProbe
    from .target_store import TargetStore

    given = {name: options[name] for name in DistillationConfig.model_fields if name in options}
    config = DistillationConfig(**given | parsed_settings(command.set))
    threads = command.threads or 1
    _set_threads(threads)
    teachers = [load_backbone(name) for name in command.teacher]
    corpus = _corpus(images)
    run, targets = _chosen(RunOptions, options), _chosen(DistillationOptions, options)
    precision = resolved_precision(run.precision, cuda=False)
    probes = [KnnProbe(load_dataset(name), corpus=corpus) for name in command.probe]
    store = TargetStore(
        targets.targets or out / "targets",
        corpus,
        teachers,
        capacity=targets.capacity,
        seed=config.seed,
        precision=precision,
        threads=threads,
    )
    return distill(
        config,
        store,
        out,
        resume=command.resume,
        precision=precision,
        probe=_joined(probes) if probes else None,
        **{name: options[name] for name in _DISTILLATION_RUN if name in options},
    )


def _joined(probes: "Sequence[KnnProbe]") -> "Callable[[torch.nn.Module], dict[str, float]]":
    """Return one probe that names the dataset of each value."""

    def probe(model: "torch.nn.Module") -> dict[str, float]:
        values = [(probe.name, probe(model)) for probe in probes]
        return {
            f"{dataset} {name}": value for dataset, part in values for name, value in part.items()
        }

    return probe


def _corpus(images: CorpusOptions, *, is_quiet: bool = False) -> "Corpus":
    """Return the corpus, and print its sources and what was left out."""
    from ..data.registry import load_dataset
    from .corpus import load_corpus
    from .separation import only_listed
    from .sources import Source

    corpus = load_corpus(
        [Source.parse(text) for text in images.data],
        hold_out=[load_dataset(name) for name in images.hold_out],
        limit=images.unreadable,
        memory=images.memory * 1e9,
    )
    if images.only:
        corpus = only_listed(corpus, images.only)
    if not is_quiet:
        print(corpus.table().to_string(index=False, float_format="%.3f"), file=sys.stderr)
        for name, reason in corpus.unreadable:
            print(f"left out: {name}: {reason}", file=sys.stderr)
    return corpus


def _set_threads(threads: int | None, processes: int = 1) -> None:
    import torch

    from ..core.environment import cpu_count

    torch.set_num_threads(threads or max(1, cpu_count() // processes))


def _chosen(model: type[Options], options: dict[str, Any]) -> Options:
    """Return a model with those of its fields that were given."""
    return model(**{name: options[name] for name in model.model_fields if name in options})


def _refuse(options: dict[str, Any], names: Iterable[str], reason: str) -> None:
    if wrong := sorted(set(names) & set(options)):
        raise InputError(f"--{wrong[0].replace('_', '-')}: {reason}.")


def _expanded(argument: str) -> list[str]:
    if not argument.startswith("@"):
        return [argument]
    path = Path(argument[1:])
    if not path.is_file():
        raise InputError(f"{path}: there is no such file of arguments.")
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8; save it as one.") from error
