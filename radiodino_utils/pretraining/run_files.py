"""The files of a pre-training run: locked while it writes them, verified whenever they are read."""

import fcntl
import io
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import save

from ..core.errors import InputError
from ..core.files import atomic, value_hash, write_json, write_text
from .monitor import sealed_rows

RUN = "run.json"
STATE = "last.ckpt"
BACKBONE = "backbone.safetensors"
MONITOR = "monitor.csv"
CORPUS = "corpus.txt"
FILES = (RUN, STATE, BACKBONE, MONITOR, CORPUS)


def run_folder(name: str = "") -> Path:
    """Return the folder of that name, or a new temporary one if the name is empty."""
    return Path(name or tempfile.mkdtemp(prefix="radiodino-"))


def holds_run(folder: Path, *, resume: bool) -> bool:
    """Return whether a folder holds a run.

    Args:
        folder: Folder of a run.
        resume: Whether a run is to be resumed.

    Raises:
        InputError: If there is no run to resume, or there is one but it is not to be resumed.
    """
    is_there = (folder / RUN).is_file() and (folder / STATE).is_file()
    if resume and not is_there:
        raise InputError(f"{folder}: holds no run to resume; leave out resume to start one.")
    if is_there and not resume:
        raise InputError(f"{folder}: holds a run already; resume it, or choose another folder.")
    return is_there


def another_run(folder: Path, differing: Sequence[str]) -> InputError:
    """Return the error for a folder whose run differs in some settings from the one to resume."""
    return InputError(
        f"{folder}: holds another run ({', '.join(differing)} differ); "
        "use its settings or another folder."
    )


def require_run(folder: Path) -> None:
    """Check that a folder holds all files of a run.

    Raises:
        InputError: If one is missing.
    """
    if missing := [name for name in FILES if not (folder / name).is_file()]:
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
            f"{folder / BACKBONE}: is not that of {STATE}, or damaged; "
            "resume the run, which exports it again."
        )


def read_run(folder: Path) -> dict[str, Any]:
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
            f"{folder / RUN}: missing, damaged or of an earlier version; put back a copy, or start "
            f"another run from its {STATE} with init."
        )
    if "recipe" in facts:  # name of the configuration in earlier runs
        facts["config"] = facts.pop("recipe")
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
    path = folder / CORPUS
    text = path.read_bytes().decode(errors="replace") if path.is_file() else None
    if text is None or read_run(folder)["corpus_digests"] != value_hash(text):
        raise InputError(
            f"{path}: missing, damaged or not of this run; resume the run, which writes it again."
        )
    return text.split()


def read_state(path: Path) -> dict[str, Any]:
    """Return the checkpoint of a run, its tensors mapped from the file.

    Raises:
        InputError: If there is none, a record fails its checksum, or it holds anything but tensors
            and plain values.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; name the {STATE} of a run.")
    try:
        require_intact(path)
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        modules = [state[name] for name in ("student", "teacher", "criterion")]
        is_state = all(isinstance(module, dict) for module in modules) and state["step"] >= 0
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


def load_weights(
    path: Path, student: torch.nn.Module, teacher: torch.nn.Module, criterion: torch.nn.Module
) -> None:
    """Load the weights of another run's state.

    Raises:
        InputError: If it is damaged, or of another architecture.
    """
    state = read_state(path)
    try:
        for module, name in ((student, "student"), (teacher, "teacher"), (criterion, "criterion")):
            module.load_state_dict(state[name])
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip()
        raise InputError(
            f"{path}: is of another architecture, method or output_dim: {first}"
        ) from error


def require_intact(path: Path) -> None:
    """Check each record of a checkpoint against its checksum, which `torch.load` does not.

    Raises:
        InputError: If a record fails it; zipfile raises other errors on other damage.
    """
    with zipfile.ZipFile(path) as records:
        if damaged := records.testzip():
            raise InputError(
                f"{path}: damaged ({damaged} fails its checksum); "
                "put back a copy, or start another run."
            )


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


def _exported(state: dict[str, Any]) -> bytes:
    """Return the file of a state's teacher, or of the one that was kept from before its drift."""
    prefix = "backbone.vit."
    teacher = {
        name.removeprefix(prefix): tensor
        for name, tensor in state["teacher"].items()
        if name.startswith(prefix)
    }
    chosen = state.get("kept", teacher)
    weights = {name: tensor.float().contiguous() for name, tensor in chosen.items()}
    # one fact only: safetensors writes several in any order
    facts = {"num_heads": state["num_heads"], "interpolation": state.get("interpolation")}
    if facts["interpolation"] in (None, "bilinear"):
        return save(weights, {"num_heads": str(facts["num_heads"])})
    return save(weights, {"backbone": json.dumps(facts)})


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
                f"{folder}: another run is writing into it; "
                "wait for its end, or choose another folder."
            ) from error
        except OSError:  # a file system without locks: leftovers may be those of a live run
            pass
        else:
            for name in FILES:
                for leftover in folder.glob(f".{name}.*"):
                    shutil.rmtree(leftover, ignore_errors=True)
        yield
    finally:
        os.close(descriptor)
