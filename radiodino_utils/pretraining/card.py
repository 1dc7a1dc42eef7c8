"""Card of an adapted backbone, in the format of Hugging Face."""

import pandas as pd
import yaml

from ..core.files import write_text
from .progress import Progress
from .run_files import read_monitor, read_run

CARD = "README.md"
_SETTINGS = ("method", "steps", "batch_size", "lr", "anchor", "global_size", "local_count")


def write_card(progress: Progress) -> None:
    """Write the card of a run from a start into its folder, from the files of the run.

    Args:
        progress: State of the run at the end.
    """
    facts, monitor = read_run(progress.folder), read_monitor(progress.folder)
    start, config = facts["started_from"], facts["config"]
    header = {
        "library_name": "timm",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["radiology", "medical-imaging", "vision-transformer", "self-supervised"],
    }
    checks = monitor[monitor["overlap"].notna()]
    drift = checks[["step", "loss", "anchor", "overlap", "rank_of_start"]]
    sources = pd.DataFrame(facts["sources"])
    end = f", ended there because {progress.end}" if progress.end else ""
    write_text(
        progress.folder / CARD,
        f"""---
{yaml.safe_dump(header)}---

# {_cell(start["name"])}, adapted

Adapted without labels from `{_cell(start["name"])}` ({_cell(start["source"])}, weights
{start["fingerprint"]}, licence: {_cell(start["licence"])}). Its licence and the terms of the images
apply to these weights. `load_backbone("file:backbone.safetensors")` loads them with their
preprocessing.

## Images

{_table(sources)}

{start["held_out"]} of them were held out to measure the drift. Left out because they could not be
read: {len(facts["unreadable"])}. `corpus.txt` lists the SHA-256 of each image, `run.json` all else.

## Training

{_table(pd.DataFrame([{name: config[name] for name in _SETTINGS} | {"seed": facts["seed"]}]))}

{progress.step} of {progress.steps} steps{end}; precision {facts["precision"]} on {facts["device"]}.
The loss of {config["method"]} was added to the distance of class token and patch tokens to the
frozen start, times `anchor`.

## Drift from the start

On the held-out images: `overlap` is the share of an image's five nearest neighbours that were its
neighbours at the start, `rank_of_start` the effective rank of the class tokens as a fraction of
that at the start. The weights are those of the last line within the bounds (overlap at least
{config["min_overlap"]}, rank at least {config["min_rank"]}), or of the start if there is none.

{_table(drift)}

## Limits

No label was used, so nothing here says whether the weights are better for a task than those of the
start: compare both on labelled validation images before using them. They are no medical device.
""",
    )


def _cell(value: object) -> str:
    """Return a text that cannot break out of a line, a table or code."""
    return " ".join(str(value).replace("|", "/").replace("`", "'").replace("<", "(").split())


def _table(frame: pd.DataFrame) -> str:
    """Return a table in Markdown."""
    rows = [[_cell(_rounded(value)) for value in row] for row in frame.itertuples(index=False)]
    lines = [list(frame.columns), ["---"] * len(frame.columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _rounded(value: object) -> object:
    return f"{value:.4g}" if isinstance(value, float) else value
