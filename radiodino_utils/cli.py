"""The command `radiodino`: one function per sub-command, whose imports wait until it runs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer

from .core.command_line import with_options
from .core.errors import InputError
from .pretraining.command import register as register_pretrain
from .radiomics.options import RadiomicsOptions
from .workflow.command import DESCRIPTION, RunOptions

app = typer.Typer(
    name="radiodino",
    help="Use and reproduce RadioDINO, self-supervised vision transformers for radiology.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
DatasetName = Annotated[
    str, typer.Argument(metavar="DATASET", help="Registered name, folder:, dicom: or npz:PATH.")
]
BackboneName = Annotated[
    str,
    typer.Option(
        "--backbone", metavar="NAME", help="Registered name, file:PATH, hub:ORG/NAME or timm:NAME."
    ),
]
Revision = Annotated[
    str | None, typer.Option(help="Branch, tag or commit of the weights on the Hub. [main]")
]
Engine = Annotated[
    Literal["auto", "torch", "openvino"],
    typer.Option(help="auto: torch on a GPU, else OpenVINO, else torch."),
]
Precision = Annotated[
    Literal["auto", "fp32", "bf16", "fp16"],
    typer.Option(help="auto: bf16 if the processor computes in it, else fp32."),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per forward pass.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Number of processors. [all]")]
OnError = Annotated[
    Literal["skip", "raise"],
    typer.Option(
        help="skip leaves out up to 1 % of files that cannot be read, and lists them; raise stops."
    ),
]
ProfileName = Annotated[str, typer.Option(metavar="NAME", help="Profile of the results.")]


@app.command(help=DESCRIPTION)
@with_options(RunOptions)
def run(**options: Any) -> None:
    """Run notebooks; `./run_all.sh` is this command in its environment."""
    from .workflow.command import run as run_notebooks

    raise typer.Exit(run_notebooks(RunOptions(**options)))


@app.command("list")
def list_(profile: ProfileName = "demo") -> None:
    """List the notebooks of a profile.

    Each line shows the title, what the notebook needs, and how its last run ended.
    """
    from .workflow.notebooks import list_notebooks

    print(list_notebooks(profile))


@app.command()
def backbones() -> None:
    """List the backbones.

    Each line shows source, parameters, size, patch, licence, and whether the weights are here.
    """
    from .backbones.presence import list_models

    print(list_models())


@app.command()
def datasets() -> None:
    """List the datasets.

    Each line shows whether the dataset is here, and else how to provide it.
    """
    from .data.registry import list_datasets

    print(list_datasets())


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="File or folder of any kind.")],
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Write small images, with masks.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts as JSON.")] = False,
) -> None:
    """Show what would be read of your own data.

    It names the dataset for other commands, and what is ignored and why. Only headers are read. The
    exit code is 1 if nothing can be used.
    """
    from .data.inspection import inspect as inspect_path

    inspection = inspect_path(path)
    print(json.dumps(inspection.facts(), indent=2) if as_json else inspection)
    if sheet and inspection.is_usable:
        from .data.sheets import write_sheet

        print(f"{write_sheet(inspection, sheet)}: look at it.", file=sys.stderr)
    raise typer.Exit(0 if inspection.is_usable else 1)


@app.command()
def extract(
    dataset: DatasetName,
    backbone: BackboneName,
    revision: Revision = None,
    folder: Annotated[Path | None, typer.Option(help="Folder of the feature files.")] = None,
    engine: Engine = "auto",
    precision: Precision = "fp32",
    batch_size: BatchSize = 16,
    threads: Threads = None,
    on_error: OnError = "skip",
) -> None:
    """Extract the features of a dataset.

    They go to the cache. Under torchrun the processes share the work.
    """
    from .backbones.loading import load_backbone
    from .core.environment import launched
    from .data.registry import load_dataset
    from .features.extraction import extract_features

    features = extract_features(
        load_backbone(backbone, revision=revision),
        load_dataset(dataset, on_error=on_error),
        folder=folder,
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
    )
    if launched()[0] == 0:
        print(features.path)


@app.command()
def embed(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH", help="Files and folders of any kind; see inspect."),
    ],
    backbone: BackboneName,
    out: Annotated[Path, typer.Option(help="File to write: .csv, .parquet or .npz.")],
    revision: Revision = None,
    engine: Engine = "auto",
    precision: Precision = "fp32",
    batch_size: BatchSize = 16,
    threads: Threads = None,
    on_error: OnError = "skip",
) -> None:
    """Embed images without labels.

    The file holds one row per image. What is no image is left out with a count. Images that cannot
    be read are listed in NAME_unreadable.csv beside it.
    """
    from .features import embedding

    embedding.writer_of(out)
    found = embedding.image_readers(paths)
    from .backbones.loading import load_backbone

    embeddings = embedding.embed_images(
        found.readers,
        load_backbone(backbone, revision=revision),
        engine=engine,
        precision=precision,
        batch_size=batch_size,
        threads=threads,
        on_error=on_error,
    )
    embedding.write_embeddings(embeddings, out)
    print(f"{out}: {len(embeddings.paths)} images, {embeddings.values.shape[1]} features each")
    if found.left_out:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in found.left_out.items())
        print(f"left out: {reasons}", file=sys.stderr)
    if unreadable := embedding.write_unreadable(embeddings, out):
        count = f"{len(embeddings.unreadable)} of {len(found.readers)} images"
        print(f"{unreadable}: {count} could not be embedded")


@app.command()
def audit(
    dataset: DatasetName,
    out: Annotated[Path, typer.Option(help="Folder of the tables.")],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Compare the embeddings of this backbone.")
    ] = None,
) -> None:
    """Audit a dataset.

    The audit finds duplicates, leaks between splits, label conflicts, drift, faulty images, and
    files that cannot be read.
    """
    from .data.registry import load_dataset
    from .evaluation.audit import audit as audit_dataset
    from .features.extraction import extract_features

    loaded = load_dataset(dataset, on_error="list")
    features = extract_features(backbone, loaded) if backbone else None
    result = audit_dataset(loaded, features=features)
    result.write(out)
    print(result.summary)


@app.command()
@with_options(RadiomicsOptions, panel="Regions and features")
def radiomics(
    *,
    images: Annotated[
        str,
        typer.Option(
            metavar="PATH",
            help="Folder of images or NIfTI volumes, or one; or demo-ct, lung-tumour, busi.",
        ),
    ],
    masks: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Masks with the names of the images, or one."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Table to write: .parquet or .csv.")],
    backbone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Backbone of the deep features. [none]")
    ] = None,
    clinical: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Clinical table with the column patient.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="DICOM SR to write as well, of a series with a SEG file."
        ),
    ] = None,
    engine: Engine = "auto",
    precision: Precision = "fp32",
    threads: Threads = None,
    **options: Any,
) -> None:
    """Write a table of features with one row per labelled region.

    A data dictionary and a sidecar with settings and exclusions lie beside it.
    """
    from .radiomics.extraction import extract_radiomics
    from .radiomics.table import require_written

    require_written(out)
    table = extract_radiomics(
        images,
        masks,
        backbone=backbone,
        clinical=clinical,
        engine=engine,
        precision=precision,
        threads=threads,
        **options,
    )
    table.write(out)
    print(f"{out}: {table}")
    if report:
        from .radiomics.reports import write_structured_report

        print(write_structured_report(table, report, images, masks or ""))
    for what, reason, count in table.reasons().itertuples(index=False):
        print(f"left out: {what}, {count} x {reason}", file=sys.stderr)


register_pretrain(app)


@app.command()
def report(
    profile: ProfileName = "demo",
    readme: Annotated[
        bool, typer.Option("--readme", help="Fill the tables of results/README.md instead.")
    ] = False,
) -> None:
    """Write results/PROFILE/report.html."""
    from .workflow.readme import update_readme
    from .workflow.report import build_report

    print(update_readme() if readme else build_report(profile))


@app.command()
def verify(
    profile: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Profile to verify; may be given again. [all]"),
    ] = None,
) -> None:
    """Recompute every committed number.

    The numbers follow from the prediction files. Differences are listed, and the exit code is 1
    then.
    """
    from .workflow.verify import verify_profiles

    if faults := verify_profiles(profile or []):
        print("\n".join(faults))
        raise typer.Exit(1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a mistake of the user is one sentence and exit code 2."""
    try:
        code = app(arguments, prog_name="radiodino", standalone_mode=False)
    except typer.TyperException as error:  # of an option
        _stop(error.format_message())
    except InputError as error:
        _stop(str(error))
    except typer.Abort:
        _stop("aborted.")
    sys.exit(code or 0)


def _stop(sentence: str) -> NoReturn:
    print(sentence, file=sys.stderr)
    sys.exit(2)


if __name__ == "__main__":
    main()
