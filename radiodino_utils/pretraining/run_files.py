"""The files of a pre-training run: locked while it writes them, verified whenever they are read."""

import fcntl
import io
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from ..core.errors import InputError
from ..core.files import atomic, value_hash, write_json, write_text
from .monitor import sealed_rows

RUN, STATE, BACKBONE, MONITOR, CORPUS = (
    "run.json",
    "last.ckpt",
    "backbone.safetensors",
    "monitor.csv",
    "corpus.txt",
)


def require_run(folder: Path) -> None:
    """Check that a folder holds all files of a run.

    Raises:
        InputError: If one is missing.
    """
    if missing := [
        name for name in (RUN, STATE, BACKBONE, MONITOR, CORPUS) if not (folder / name).is_file()
    ]:
        raise InputError(f"{folder}: holds no {missing[0]}; name the folder of a run.")


def verify_run(folder: Path) -> None:
    """Check that the files of a run are whole and belong together.

    Raises:
        InputError: If one is missing, damaged, or of another state of the run.
    """
    require_run(folder)
    read_run(folder)
    read_monitor(folder)
    read_digests(folder)
    if (folder / BACKBONE).read_bytes() != _exported(read_state(folder / STATE)):
        raise InputError(
            f"{folder / BACKBONE}: is not that of {STATE}, or damaged; resume the run, which exports it again."
        )


def read_run(folder: Path) -> dict[str, object]:
    """Return the facts of a run.

    Raises:
        InputError: If the file is missing or damaged.
    """
    try:
        facts = json.loads((folder / RUN).read_text(encoding="utf-8"))
        is_whole = facts.pop("checksum") == value_hash(facts)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        is_whole = False
    if not is_whole:
        raise InputError(
            f"{folder / RUN}: missing, damaged or of an earlier version; put back a copy, or start another run from its {STATE} "
            "with init."
        )
    return facts


def write_run(folder: Path, facts: dict[str, object], digests: list[str]) -> None:
    """Write the facts of a run, with a checksum of them, and the digests of its images."""
    text = "\n".join(digests)
    facts = facts | {"corpus_digests": value_hash(text)}
    write_text(folder / CORPUS, text)
    write_json(folder / RUN, facts | {"checksum": value_hash(facts)})


def read_digests(folder: Path) -> list[str]:
    """Return the SHA-256 of each image of a run's corpus.

    Raises:
        InputError: If the file is missing or damaged.
    """
    text = (
        (folder / CORPUS).read_bytes().decode(errors="replace")
        if (folder / CORPUS).is_file()
        else None
    )
    if read_run(folder)["corpus_digests"] != value_hash(text):
        raise InputError(
            f"{folder / CORPUS}: missing, damaged or not of this run; resume the run, which writes it again."
        )
    return text.split()


def read_state(path: Path) -> dict[str, object]:
    """Return the checkpoint of a run, its tensors mapped from the file.

    Raises:
        InputError: If there is none, a record fails its checksum, or it holds anything but tensors
            and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name the {STATE} of a run.")
    try:
        with zipfile.ZipFile(path) as records:
            if broken := records.testzip():
                raise InputError(
                    f"{path}: damaged ({broken} fails its checksum); put back a copy, or start another run."
                )
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        is_state = (
            all(isinstance(state[one], dict) for one in ("student", "teacher", "criterion"))
            and state["step"] >= 0
        )
    except InputError:
        raise
    except Exception as error:  # of a damaged file zipfile and torch.load raise many kinds
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path}: not the state of a run, or damaged ({reason}); name the {STATE} of one."
        ) from error
    if not is_state:
        raise InputError(f"{path}: not the state of a run; name the {STATE} of one.")
    return state


def steps_done(folder: Path) -> int:
    """Return the steps of the run whose state the folder holds."""
    return read_state(folder / STATE)["step"]


def read_monitor(folder: Path) -> pd.DataFrame:
    """Return the monitor of a run up to its checkpoint.

    Raises:
        InputError: If it is missing or damaged.
    """
    rows = sealed_rows(folder / MONITOR, read_state(folder / STATE)["monitor"])
    if rows is None:
        raise InputError(f"{folder / MONITOR}: there is no such file; put back a copy.")
    return pd.read_csv(io.BytesIO(rows))


def export_backbone(folder: Path) -> None:
    """Write the teacher of the folder's checkpoint by timm's names, unless just that is there."""
    path, wanted = folder / BACKBONE, _exported(read_state(folder / STATE))
    if not path.is_file() or path.read_bytes() != wanted:
        with atomic(path) as temporary:
            temporary.write_bytes(wanted)


def _exported(state: dict[str, object]) -> bytes:
    prefix = "backbone.vit."
    weights = {
        key.removeprefix(prefix): one
        for key, one in state["teacher"].items()
        if key.startswith(prefix)
    }
    heads = {
        "num_heads": str(state["num_heads"])
    }  # one fact: safetensors writes several in any order
    return save({key: one.float().contiguous() for key, one in weights.items()}, heads)


@contextmanager
def sole_user(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, and remove what a killed one left half written.

    Raises:
        InputError: If another run is writing into it.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"{folder}: another run is writing into it; wait for its end, or choose another folder."
            ) from error
        except OSError:  # a file system without locks: whose the leftovers are cannot be known
            pass
        else:
            for name in (RUN, STATE, BACKBONE, MONITOR, CORPUS):
                for left in folder.glob(f".{name}.*"):
                    shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)
