"""Where a number comes from: versions, revision, processor, threads."""

import json
import os
import platform
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from .extras import extra
from .files import REPOSITORY, write_json

PACKAGES = (
    "torch",
    "timm",
    "openvino",
    "faiss-cpu",
    "scikit-learn",
    "umap-learn",
    "numpy",
    "pandas",
)


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """The installed version of each package by its name on PyPI, "absent" where it is not installed."""

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "absent"

    return {package: version(package) for package in packages}


def git_revision(folder: Path = REPOSITORY) -> str:
    """The short git revision of the code, with `+` behind it where the package differs from it.

    Returns:
        Ten hexadecimal digits, or "unversioned" outside a git checkout of this project.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True
        ).stdout

    try:
        git(
            "ls-files", "--error-unmatch", "--", "radiodino_utils/core/environment.py"
        )  # not the checkout around an environment
        return git("rev-parse", "--short=10", "HEAD").strip() + "+" * bool(
            git("status", "--porcelain", "--", "radiodino_utils").strip()
        )
    except (OSError, subprocess.CalledProcessError):
        return "unversioned"


def cpu_count() -> int:
    """The processors that this process may use; no more than `$OMP_NUM_THREADS`, where that is a number."""
    count = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return min(count, int(wanted)) if wanted.isdecimal() and int(wanted) else count


def launched() -> tuple[int, int, int]:
    """Return the rank of this process, the number of processes, and of those on this machine, as
    their launcher says.

    Only the whole set of `torchrun`'s variables counts, or what Lightning gives to the processes
    that a run starts. Others, left by some job or shell, are removed from the environment, so that
    no library waits for processes that do not exist.
    """
    numbers = ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    whole = all(os.environ.get(name, "").isdecimal() for name in numbers)
    if whole and "TORCHELASTIC_RUN_ID" in os.environ and "MASTER_ADDR" in os.environ:
        return tuple(int(os.environ[name]) for name in numbers[:3])
    if STARTED in os.environ:
        return (
            int(os.environ.get("LOCAL_RANK", 0)),
            int(os.environ[STARTED]),
            int(os.environ[STARTED]),
        )
    for name in _LAUNCHER:
        os.environ.pop(name, None)
    return 0, 1, 1


STARTED = "RADIODINO_PROCESSES"  # how many processes a run starts by itself; set for those only
_LAUNCHER = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "SLURM_PROCID", "JSM_NAMESPACE_RANK",
)  # fmt: skip


def set_threads(threads: int | None = None) -> int:
    """Fixes the number of threads of torch and faiss.

    Args:
        threads: How many; `None` takes every processor that the process may use.

    Returns:
        The number set.
    """
    with extra("evaluation"):
        import faiss
    import torch

    threads = threads or cpu_count()
    torch.set_num_threads(threads)
    faiss.omp_set_num_threads(threads)
    return threads


TRAINING_THREADS = (
    1  # sums in another order end elsewhere after some steps, so machines must not differ in it
)


@contextmanager
def training_threads() -> Iterator[None]:
    """Run a block, or a decorated function, with `TRAINING_THREADS` threads of torch, whatever the
    machine has.

    What is trained is then the same with any number of processors, `OMP_NUM_THREADS` and jobs at a
    time.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(TRAINING_THREADS)
    try:
        yield
    finally:
        torch.set_num_threads(before)


_INSTRUCTIONS = (
    "amx_bf16",
    "avx512_bf16",
    "avx512f",
    "avx2",
    "avx",
    "asimd",
    "neon",
)  # as /proc/cpuinfo has them, best first


def processor() -> str:
    """Return the processor's name and its widest instruction set in use, such as "AMD EPYC (avx512_bf16)"."""
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        about = ""
    name = re.search(r"^model name\s*: (.+)$", about, re.M)
    flags = re.search(r"^(?:flags|Features)\s*: (.+)$", about, re.M)
    best = next(
        (one for one in _INSTRUCTIONS if flags and one in flags[1].split()), platform.machine()
    )
    called = name[1].strip() if name else platform.processor() or "unknown processor"
    return f"{called} ({os.environ.get('ATEN_CPU_CAPABILITY') or best})"


_RECORD = "processors.json"
_recording = threading.Lock()


def record_processor(folder: Path, notebook: str, *, threads: int) -> None:
    """Note in a results folder on which processor, with how many threads, a notebook made its
    tables and figures.

    Args:
        folder: Results folder of a profile.
        notebook: Name of the notebook.
        threads: Threads that it could use; what trains uses `TRAINING_THREADS`.
    """
    with _recording:
        known = _recorded(folder) | {notebook: {"processor": processor(), "threads": threads}}
        write_json(folder / _RECORD, dict(sorted(known.items())))


def made_on(folder: Path) -> str:
    """Return the processors that made a results folder, such as "AMD EPYC (avx512_bf16), 2 threads"; "" if none is noted."""
    made = {
        f"{one['processor']}, {one['threads']} thread{'s' * (one['threads'] != 1)}"
        for one in _recorded(folder).values()
    }
    return "; ".join(sorted(made))


def _recorded(folder: Path) -> dict[str, dict]:
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def print_configuration(*, profile: str, seed: int, threads: int | None = None) -> None:
    """Fixes the threads and prints what a reader needs to know about a run.

    Args:
        profile: The profile's name.
        seed: The seed that the notebook passes on.
        threads: See `set_threads`.
    """
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(
        f"profile {profile} · seed {seed} · device {device} · threads {set_threads(threads)} · git {git_revision()}"
    )
    print(f"processor {processor()} · training threads {TRAINING_THREADS}")
    print(" · ".join(f"{name} {version}" for name, version in versions().items()))
